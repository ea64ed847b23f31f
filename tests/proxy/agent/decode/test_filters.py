"""http_filters, typed_per_filter_config, and what routes say of gRPC."""

import json
from typing import Any

import pytest

from proxy.agent.decode import DecodeError, decode_bootstrap
from proxy.config.filters import CORS, GRPC_WEB, Cors, CorsPolicy, GrpcWeb
from proxy.config.listener import HttpConnectionManager, HttpFilter
from proxy.config.model import StringMatcher
from proxy.config.route import ForwardAction, RouteConfiguration
from tests.support.bootstraps import ROUTER, T, changed

H = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"
R = f"{H}.route_config.virtual_hosts[0].routes[0]"
CORS_NAME = "envoy.filters.http.cors"
WEB_NAME = "envoy.filters.http.grpc_web"
POLICY = T + "envoy.extensions.filters.http.cors.v3.CorsPolicy"
WRAPPER = T + "envoy.config.route.v3.FilterConfig"
THE_CORS = {"name": CORS_NAME, "typed_config": {"@type": CORS}}
THE_WEB = {"name": WEB_NAME, "typed_config": {"@type": GRPC_WEB}}
THE_ROUTER = {"name": "router", "typed_config": {"@type": ROUTER}}
CORS_AT = f'{R}.typed_per_filter_config["{CORS_NAME}"]'
WEB_AT = f'{R}.typed_per_filter_config["{WEB_NAME}"]'


def manager(values: dict[str, Any], allow_unsupported: bool = False) -> HttpConnectionManager:
    snapshot = decode_bootstrap(json.dumps(values), "boot.json", allow_unsupported).snapshot
    http = snapshot.listeners["hop"].filter_chain.http
    assert http is not None
    return http


def routes(place: str, **fields: Any) -> RouteConfiguration:
    configuration = manager(changed(place, **fields)).route_config
    assert configuration is not None
    return configuration


def problems(values: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(DecodeError) as caught:
        decode_bootstrap(json.dumps(values), "boot.json")
    return dict(caught.value.problems)


def filters(*entries: dict[str, Any]) -> dict[str, Any]:
    return changed("hcm", http_filters=[*entries, THE_ROUTER])


def policy(**fields: Any) -> dict[str, Any]:
    return {CORS_NAME: {"@type": POLICY, **fields}}


def wrapped(name: str = CORS_NAME, **fields: Any) -> dict[str, Any]:
    return {name: {"@type": WRAPPER, **fields}}


def percent(numerator: int, denominator: str = "HUNDRED") -> dict[str, Any]:
    return {"default_value": {"numerator": numerator, "denominator": denominator}}


def cors(config: dict[str, Any]) -> CorsPolicy | None:
    return routes("route", typed_per_filter_config=config).virtual_hosts[0].routes[0].cors


def test_filters_stand_before_the_router_in_their_order() -> None:
    web, the_cors = HttpFilter(WEB_NAME, GRPC_WEB, GrpcWeb()), HttpFilter(CORS_NAME, CORS, Cors())
    assert manager(filters()).http_filters == ()
    assert manager(filters(THE_WEB, THE_CORS)).http_filters == (web, the_cors)
    assert manager(filters(THE_CORS, THE_WEB)).http_filters == (the_cors, web)


def test_a_filter_has_the_name_that_routes_know() -> None:
    values = filters({**THE_CORS, "name": "c"})
    assert problems(values) == {f"{H}.http_filters[0].name": f"must be {CORS_NAME}, by which routes know it, not 'c'"}
    assert "envoy.filters.http.grpc_web" in problems(filters({**THE_WEB, "name": "w"}))[f"{H}.http_filters[0].name"]


def test_a_filter_behind_the_router_or_without_it_is_refused() -> None:
    found = problems(changed("hcm", http_filters=[THE_ROUTER, THE_CORS]))
    assert found[f"{H}.http_filters[1]"] == "no filter can stand behind the router"
    assert problems(changed("hcm", http_filters=[THE_CORS])) == {
        f"{H}.http_filters": f"must end with the router ({ROUTER})"
    }


def test_every_field_of_a_policy_reaches_the_model() -> None:
    found = cors(
        policy(
            allow_origin_string_match=[{"exact": "https://a.example", "ignore_case": True}, {"suffix": ".b.example"}],
            allow_methods="GET, POST",
            allow_headers="x-grpc-web",
            expose_headers="grpc-status",
            max_age="600",
            allow_credentials=True,
            filter_enabled=percent(100),
            shadow_enabled=percent(0),
            allow_private_network_access=False,
            forward_not_matching_preflights=False,
        )
    )
    assert found == CorsPolicy(
        (StringMatcher("exact", "https://a.example", True), StringMatcher("suffix", ".b.example")),
        "GET, POST",
        "x-grpc-web",
        "grpc-status",
        "600",
        True,
        True,
        False,
        False,
    )
    assert cors(policy()) == CorsPolicy()


@pytest.mark.parametrize("place", ["routes", "host", "route"])
def test_each_level_has_its_own(place: str) -> None:
    config = {**policy(allow_methods="GET"), **wrapped(WEB_NAME, disabled=True)}
    configuration = routes(place, typed_per_filter_config=config)
    levels = {"routes": configuration, "host": configuration.virtual_hosts[0]}
    levels["route"] = configuration.virtual_hosts[0].routes[0]
    assert levels[place].cors == CorsPolicy(allow_methods="GET")
    assert levels[place].grpc_web_disabled
    del levels[place]
    assert [(level.cors, level.grpc_web_disabled) for level in levels.values()] == [(None, False)] * 2


def test_a_direct_response_has_one_too() -> None:
    values = changed("route", route=None, direct_response={"status": 200}, typed_per_filter_config=policy())
    configuration = manager(values).route_config
    assert configuration is not None
    assert configuration.virtual_hosts[0].routes[0].cors == CorsPolicy()


@pytest.mark.parametrize(
    ("fraction", "enabled"),
    [
        (percent(100), True),
        (percent(0), False),
        (percent(120), True),  # Envoy takes it
        (percent(10_000, "TEN_THOUSAND"), True),
        (percent(1_000_000, "MILLION"), True),
        ({**percent(0), "runtime_key": "cors.enabled"}, False),
    ],
)
def test_a_policy_is_on_or_off(fraction: dict[str, Any], enabled: bool) -> None:
    assert cors(policy(filter_enabled=fraction)) == CorsPolicy(enabled=enabled)


def test_a_wrapper_holds_a_policy_or_switches_off() -> None:
    inner = policy(allow_methods="GET")[CORS_NAME]
    assert cors(wrapped(config=inner)) == CorsPolicy(allow_methods="GET")
    assert cors(wrapped(disabled=True)) == CorsPolicy(enabled=False)
    assert cors(wrapped(disabled=True, config=inner)) == CorsPolicy(enabled=False)


@pytest.mark.parametrize(
    ("config", "path", "fragment"),
    [
        (policy(filter_enabled=percent(50)), f"{CORS_AT}.filter_enabled.default_value", "only 0 and 100 percent"),
        (policy(filter_enabled={}), f"{CORS_AT}.filter_enabled.default_value", "required"),
        (
            policy(filter_enabled=percent(0), shadow_enabled=percent(100)),
            f"{CORS_AT}.shadow_enabled",
            "nothing counts what a policy that is off would have allowed",
        ),
        (policy(allow_methods="a\r\nb: c"), f"{CORS_AT}.allow_methods", "control characters"),
        (policy(max_age="é"), f"{CORS_AT}.max_age", "ASCII"),
        (policy(allow_origin_string_match=[{}]), f"{CORS_AT}.allow_origin_string_match[0]", "needs one of"),
        ({CORS_NAME: {"@type": CORS}}, CORS_AT, "must be a envoy.extensions.filters.http.cors.v3.CorsPolicy, not"),
        (wrapped(), CORS_AT, "needs a config, or disabled: true"),
        (wrapped(config={"@type": CORS}), f"{CORS_AT}.config", "must be a envoy.extensions"),
        (wrapped(config=policy(max_age="\n")[CORS_NAME]), f"{CORS_AT}.config.max_age", "control characters"),
        (wrapped(disabled=True, is_optional=True), f"{CORS_AT}.is_optional", "not supported"),
        (wrapped(WEB_NAME), WEB_AT, "must say disabled: true"),
        ({WEB_NAME: {"@type": GRPC_WEB}}, WEB_AT, "must be a envoy.config.route.v3.FilterConfig, not"),
        (wrapped("router", disabled=True), f'{R}.typed_per_filter_config["router"]', f"only {CORS_NAME}, "),
    ],
)
def test_what_a_route_cannot_say_is_refused_where_it_stands(config: dict[str, Any], path: str, fragment: str) -> None:
    found = problems(changed("route", typed_per_filter_config=config))
    assert fragment in found.pop(path)
    assert not found


def test_what_is_half_on_is_off_when_that_is_allowed() -> None:
    values = changed("route", typed_per_filter_config=policy(filter_enabled=percent(99)))
    configuration = manager(values, allow_unsupported=True).route_config
    assert configuration is not None
    assert configuration.virtual_hosts[0].routes[0].cors == CorsPolicy(enabled=False)


def test_a_shadow_of_a_policy_that_is_on_changes_nothing() -> None:
    assert cors(policy(shadow_enabled=percent(100))) == CorsPolicy()


def action(**fields: Any) -> ForwardAction:
    found = routes("action", **fields).virtual_hosts[0].routes[0].action
    assert isinstance(found, ForwardAction)
    return found


def test_a_route_bounds_grpc_timeout() -> None:
    assert action().grpc_timeout_header_max is None
    assert action(max_stream_duration={}).grpc_timeout_header_max is None
    assert action(max_stream_duration={"grpc_timeout_header_max": "0s"}).grpc_timeout_header_max == 0.0
    found = action(
        max_stream_duration={
            "max_stream_duration": "4s",
            "grpc_timeout_header_max": "3s",
            "grpc_timeout_header_offset": "0.1s",
        }
    )
    assert (found.max_stream_duration, found.grpc_timeout_header_max, found.grpc_timeout_header_offset) == (
        4.0,
        3.0,
        0.1,
    )
    assert found.timeout == 0.0


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"max_grpc_timeout": "1s"}, "max_grpc_timeout"),  # deprecated
        ({"grpc_timeout_offset": "1s"}, "grpc_timeout_offset"),
        ({"cors": {"allow_methods": "GET"}}, "cors"),
        ({"max_stream_duration": {"grpc_timeout_header_max": "-1s"}}, "max_stream_duration.grpc_timeout_header_max"),
        (
            {"max_stream_duration": {"grpc_timeout_header_offset": "-1s"}},
            "max_stream_duration.grpc_timeout_header_offset",
        ),
    ],
)
def test_older_words_and_negative_times_are_refused(fields: dict[str, Any], path: str) -> None:
    assert list(problems(changed("action", **fields))) == [f"{R}.route.{path}"]


def test_a_match_can_ask_for_grpc() -> None:
    assert routes("match", grpc={}).virtual_hosts[0].routes[0].match.grpc
    assert not routes("match").virtual_hosts[0].routes[0].match.grpc
    values = changed("match", grpc={}, prefix=None, safe_regex={"regex": "/a.*"})
    configuration = manager(values).route_config
    assert configuration is not None
    assert configuration.virtual_hosts[0].routes[0].match.grpc
