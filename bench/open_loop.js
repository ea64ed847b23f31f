// k6: requests at a constant arrival rate. The first WARM seconds are not in the figures.
import http from 'k6/http';
import exec from 'k6/execution';

const rate = Number(__ENV.RATE);
const warm = Number(__ENV.WARM);
const seconds = Number(__ENV.SECONDS);

export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ['p(50)', 'p(99)', 'max', 'count'],
  scenarios: {
    load: {
      executor: 'constant-arrival-rate',
      rate: rate,
      timeUnit: '1s',
      duration: Math.round((warm + seconds) * 1000) + 'ms',
      preAllocatedVUs: 200,
      maxVUs: 512,
      gracefulStop: '5s',
    },
  },
  // The summary has a metric by tag only if a threshold asks for it; this one always holds.
  thresholds: { 'http_req_duration{phase:measured}': ['max>=0'] },
};

const first = Math.round(rate * warm);

export default function () {
  const phase = exec.scenario.iterationInTest < first ? 'warm' : 'measured';
  http.get(__ENV.URL, { tags: { phase: phase } });
}

export function handleSummary(data) {
  return { [__ENV.OUT]: JSON.stringify(data) };
}
