"""Rate limits and faults as a caller meets them: a sidecar with two workers behind mutual TLS, from a bootstrap file."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pillion.demo.processes import free_ports
from tests.support import bootstrap, certificates, sidecars
from tests.support.bootstrap import TYPES
from tests.support.harness import access_log, harness, metric
from tests.support.sidecars import Sidecar
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

LIMIT, FAULT = "envoy.filters.http.local_ratelimit", "envoy.filters.http.fault"
LIMIT_TYPE, FAULT_TYPE = (
    TYPES + "filters.http.local_ratelimit.v3.LocalRateLimit",
    TYPES + "filters.http.fault.v3.HTTPFault",
)
ALL = {"default_value": {"numerator": 100}}
CALLER = {
    "@type": TYPES + "rate_limit_descriptors.expr.v3.Descriptor",
    "descriptor_key": "caller",
    "text": "connection.uri_san_peer_certificate",
}
BURST = 20


def bucket(tokens: int) -> dict[str, Any]:
    """One that gets nothing more while the test runs."""
    return {"max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "3600s"}


def limited(**fields: Any) -> dict[str, Any]:
    limit = {"@type": LIMIT_TYPE, "stat_prefix": "l", "filter_enabled": ALL, "filter_enforced": ALL, **fields}
    return {LIMIT: limit}


def route(path: str, config: dict[str, Any], **action: Any) -> dict[str, Any]:
    action = action or {"direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
    return {"match": {"path": path}, "typed_per_filter_config": config, **action}


ROUTES = [
    route("/burst", limited(token_bucket=bucket(BURST), rate_limited_as_resource_exhausted=True)),
    route(
        "/caller",
        limited(
            descriptors=[{"entries": [{"key": "caller"}], "token_bucket": bucket(4)}],
            rate_limits=[{"actions": [{"extension": {"name": "caller", "typed_config": CALLER}}]}],
            enable_x_ratelimit_headers="DRAFT_VERSION_03",
        ),
    ),
    route(
        "/fault",
        {
            FAULT: {
                "@type": FAULT_TYPE,
                "delay": {"fixed_delay": "0.1s", "percentage": {"numerator": 100}},
                "abort": {"http_status": 503, "percentage": {"numerator": 100}},
                "filter_metadata": {"pillion": {"duration": "1h"}},
            }
        },
        route={"cluster": "upstream", "retry_policy": {"retry_on": "5xx", "num_retries": 1}},
    ),
]
FILTERS = [
    {"name": FAULT, "typed_config": {"@type": FAULT_TYPE}},
    {"name": LIMIT, "typed_config": {"@type": LIMIT_TYPE, "stat_prefix": "none"}},
    {"name": "envoy.filters.http.router", "typed_config": {"@type": TYPES + "filters.http.router.v3.Router"}},
]


@dataclass(frozen=True)
class Stage:
    """The sidecar, and how to call it."""

    sidecar: Sidecar
    directory: Path
    ca: certificates.Authority

    @contextlib.contextmanager
    def connection(self, caller: str) -> Iterator[http.client.HTTPSConnection]:
        leaf = self.ca.issue(f"spiffe://test/service/{caller}")
        context = certificates.client_context(self.ca.pem, leaf, self.directory)
        client = http.client.HTTPSConnection("127.0.0.1", self.sidecar.listen, timeout=10, context=context)
        with contextlib.closing(client):
            yield client


def get(client: http.client.HTTPSConnection, path: str, **fields: str) -> tuple[int, dict[str, str], bytes]:
    client.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
    answer = client.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("limits")
    ca = certificates.Authority()
    roots = directory / "ca.pem"
    roots.write_text(ca.pem)
    listen, nobody, admin = free_ports(3)
    server = bootstrap.tls("Downstream", *ca.issue(sidecars.IN).write(directory, "in"), roots, "")
    validation = server["typed_config"]["common_tls_context"]["validation_context"]
    validation["match_typed_subject_alt_names"][0]["matcher"] = {"prefix": "spiffe://test/"}
    routes = {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": ROUTES}]}
    manager = {"http_filters": FILTERS, "route_config": routes}
    config = bootstrap.hop(listen, nobody, admin, downstream_tls=server, manager=manager)
    log = sidecars.manager(config)["access_log"][0]["typed_config"]["log_format"]["json_format"]
    log |= {"flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%"}
    with harness(directory) as work:
        yield Stage(sidecars.start(work, "limits", config, listen, admin, "--workers", "2"), directory, ca)


def test_the_workers_together_admit_no_more_than_the_limit(stage: Stage) -> None:
    answers = []
    for _ in range(10):
        with stage.connection("cart") as client:
            answers += [get(client, "/burst")[0] for _ in range(4)]
    assert set(answers) == {200, 429}
    assert BURST // 2 <= answers.count(200) <= BURST  # all of it, if the connections went to both workers
    assert metric(stage.sidecar.admin, "http_local_rate_limit_enforced_total", stat_prefix="l") == answers.count(429)
    with stage.connection("cart") as client:
        calls = [get(client, "/burst", content_type="application/grpc") for _ in range(BURST)]
    assert calls[-1][1]["grpc-status"] == "8"


def test_each_caller_has_its_own(stage: Stage) -> None:
    for caller in ("cart", "web"):
        with stage.connection(caller) as client:  # of one worker, which has half of the limit
            found = [get(client, "/caller") for _ in range(3)]
        assert [status for status, _, _ in found] == [200, 200, 429]
        names = [name for name in found[2][1] if name.startswith("x-ratelimit")]
        assert {name: found[2][1][name] for name in names} == {
            "x-ratelimit-limit": "4",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": "7200",
        }
        assert found[2][2] == b"local_rate_limited"

    def refused() -> list[dict[str, Any]]:
        lines = access_log(stage.sidecar.process)
        return [line for line in lines if line["path"] == "/caller" and line["status"] == 429]

    wait_until(lambda: len(refused()) == 2, 10, "the log tells of both")
    assert {(line["peer"], line["flags"], line["details"]) for line in refused()} == {
        ("spiffe://test/service/cart", "RL", "local_rate_limited"),
        ("spiffe://test/service/web", "RL", "local_rate_limited"),
    }


def test_a_fault_hits_each_try(stage: Stage) -> None:
    began = time.monotonic()
    with stage.connection("cart") as client:
        assert get(client, "/fault")[::2] == (503, b"fault filter abort")
    assert 0.2 <= time.monotonic() - began < 5
    assert metric(stage.sidecar.admin, "fault_delays_injected_total", cluster="upstream") == 2
    assert metric(stage.sidecar.admin, "fault_aborts_injected_total", cluster="upstream") == 2
    for flag in ("DI", "FI"):
        assert metric(stage.sidecar.admin, "response_flags_total", flag=flag) == 1
