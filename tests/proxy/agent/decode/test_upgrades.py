"""upgrade_configs and connect_matcher."""

import json
from typing import Any

import pytest

from proxy.agent.decode import DecodeError, decode_bootstrap
from proxy.config.listener import HttpConnectionManager
from proxy.config.route import ForwardAction, Route
from tests.support.bootstraps import LUA, changed

H = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"
ROUTE = f"{H}.route_config.virtual_hosts[0].routes[0]"


def manager(values: dict[str, Any]) -> HttpConnectionManager:
    (listener,) = decode_bootstrap(json.dumps(values), "boot.json").snapshot.listeners.values()
    assert listener.filter_chain.http is not None
    return listener.filter_chain.http


def route(values: dict[str, Any]) -> Route:
    configuration = manager(values).route_config
    assert configuration is not None
    return configuration.virtual_hosts[0].routes[0]


def action(*configs: dict[str, Any]) -> ForwardAction:
    found = route(changed("action", upgrade_configs=list(configs))).action
    assert isinstance(found, ForwardAction)
    return found


def test_nothing_is_passed_on_that_is_not_said() -> None:
    assert manager(changed("hcm")).upgrades == frozenset()
    assert action().upgrades == ()


def test_a_listener_names_what_it_passes_on() -> None:
    configs = [
        {"upgrade_type": "WebSocket"},
        {"upgrade_type": "CONNECT"},
        {"upgrade_type": "spdy/3.1", "enabled": False},
    ]
    assert manager(changed("hcm", upgrade_configs=configs)).upgrades == {"websocket", "connect"}


def test_a_route_says_of_each_protocol_whether() -> None:
    found = action({"upgrade_type": "websocket", "enabled": False}, {"upgrade_type": "x", "enabled": True})
    assert found.upgrades == (("websocket", False), ("x", True))
    assert not found.ends_connect


def test_connect_ends_here_or_goes_on() -> None:
    assert not action({"upgrade_type": "CONNECT"}).ends_connect
    here = action({"upgrade_type": "CONNECT", "connect_config": {}})
    assert here.ends_connect
    assert here.upgrades == (("connect", True),)


def test_a_connect_matcher() -> None:
    headers = [{"name": "x", "string_match": {"exact": "1"}}]
    match = route(changed("route", match={"connect_matcher": {}, "headers": headers})).match
    assert (match.kind, match.value) == ("connect_matcher", "")
    assert [matcher.name for matcher in match.headers] == ["x"]


FILTERS = [{"name": "lua", "typed_config": {"@type": LUA}}]


@pytest.mark.parametrize(
    ("place", "configs", "path", "words"),
    [
        ("hcm", [{}], f"{H}.upgrade_configs[0].upgrade_type", "required"),
        ("hcm", [{"upgrade_type": "a b"}], f"{H}.upgrade_configs[0].upgrade_type", "not the name of a protocol"),
        ("hcm", [{"upgrade_type": "h2c"}], f"{H}.upgrade_configs[0].upgrade_type", "never passed on"),
        (
            "hcm",
            [{"upgrade_type": "websocket"}, {"upgrade_type": "WebSocket"}],
            f"{H}.upgrade_configs[1].upgrade_type",
            "has an upgrade config already",
        ),
        (
            "hcm",
            [{"upgrade_type": "websocket", "filters": FILTERS}],
            f"{H}.upgrade_configs[0].filters",
            "not supported",
        ),
        (
            "action",
            [{"upgrade_type": "websocket", "connect_config": {}}],
            f"{ROUTE}.route.upgrade_configs[0].connect_config",
            "only CONNECT",
        ),
        (
            "action",
            [{"upgrade_type": "CONNECT", "connect_config": {"allow_post": True}}],
            f"{ROUTE}.route.upgrade_configs[0].connect_config.allow_post",
            "not supported",
        ),
        (
            "action",
            [{"upgrade_type": "CONNECT", "connect_config": {"proxy_protocol_config": {}}}],
            f"{ROUTE}.route.upgrade_configs[0].connect_config.proxy_protocol_config",
            "not supported",
        ),
    ],
)
def test_what_is_refused(place: str, configs: list[dict[str, Any]], path: str, words: str) -> None:
    with pytest.raises(DecodeError) as error:
        decode_bootstrap(json.dumps(changed(place, upgrade_configs=configs)), "boot.json")
    assert error.value.path == path
    assert words in error.value.message


@pytest.mark.parametrize("name", ["Connection", ":scheme", "proxy-authorization"])
def test_a_match_on_what_routes_do_not_see_is_refused(name: str) -> None:
    match = {"prefix": "/", "headers": [{"name": name, "present_match": True}]}
    with pytest.raises(DecodeError, match=r"match\.headers\[0\]\.name: .* would never match"):
        route(changed("route", match=match))


def test_a_match_on_upgrade_is_none_of_them() -> None:
    match = {"prefix": "/", "headers": [{"name": "upgrade", "string_match": {"exact": "websocket"}}]}
    (header,) = route(changed("route", match=match)).match.headers
    assert header.name == "upgrade"
