// k6: unary gRPC calls at a constant arrival rate. The first WARM seconds are not in the figures.
import grpc from 'k6/net/grpc';
import exec from 'k6/execution';
import { Rate } from 'k6/metrics';

const rate = Number(__ENV.RATE);
const warm = Number(__ENV.WARM);
const seconds = Number(__ENV.SECONDS);

export const options = {
  summaryTrendStats: ['p(50)', 'p(99)', 'max', 'count'],
  scenarios: {
    load: {
      executor: 'constant-arrival-rate',
      rate: rate,
      timeUnit: '1s',
      duration: Math.round((warm + seconds) * 1000) + 'ms',
      preAllocatedVUs: Number(__ENV.CONNECTIONS), // each has a connection of its own
      maxVUs: 512,
      gracefulStop: '5s',
    },
  },
  // The summary has a metric by tag only if a threshold asks for it; this one always holds.
  thresholds: { 'grpc_req_duration{phase:measured}': ['max>=0'] },
};

const failed = new Rate('grpc_req_failed'); // k6 has one for HTTP only
const first = Math.round(rate * warm);
const message = { payload: 'x'.repeat(98) }; // 100 bytes with its tag and its length
const client = new grpc.Client();
client.load([__ENV.PROTO], 'echo.proto');
let connected = false;

export default function () {
  const phase = exec.scenario.iterationInTest < first ? 'warm' : 'measured';
  try {
    if (!connected) {
      client.connect(__ENV.TARGET, { plaintext: true, timeout: '5s' });
      connected = true;
    }
    const answer = client.invoke('bench.Echo/Unary', message, { timeout: '1s', tags: { phase: phase } });
    failed.add(answer.status !== grpc.StatusOK || answer.message.payload !== message.payload);
  } catch (error) {
    console.error(error);
    failed.add(true);
  }
}

export function handleSummary(data) {
  return { [__ENV.OUT]: JSON.stringify(data) };
}
