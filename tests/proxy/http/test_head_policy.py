"""What a listener does to heads: Host, x-forwarded-for, Via, Server, names with underscores."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config.listener import HttpConnectionManager
from proxy.http.head_policy import (
    HeadRefused,
    compile_request_policy,
    compile_response_policy,
    forwarded_client,
    response_fields,
    xff_index,
)
from proxy.http.heads import RequestHead, ResponseHead
from proxy.http.path import PathRedirected

Headers = list[tuple[bytes, bytes]]


def applied(*headers: tuple[bytes, bytes], target: bytes = b"/", host: bytes = b"a", **fields: Any) -> RequestHead:
    policy = compile_request_policy(HttpConnectionManager("s", **fields), 8080)
    assert policy is not None
    head = RequestHead(b"GET", target, host, list(headers))
    head.forwarded_proto = b"https"
    policy.apply(head, "192.0.2.7:4000")
    return head


def test_a_listener_that_asks_for_nothing_has_no_policy() -> None:
    assert compile_request_policy(HttpConnectionManager("s"), 80) is None
    assert compile_response_policy(HttpConnectionManager("s")) is None
    assert response_fields(HttpConnectionManager("s")) == [(b"server", b"pillion")]


@pytest.mark.parametrize(
    ("host", "any_port", "matching"),
    [
        (b"a", b"a", b"a"),
        (b"a:80", b"a", b"a:80"),
        (b"a:8080", b"a", b"a"),
        (b"a:", b"a:", b"a:"),
        (b"[::1]", b"[::1]", b"[::1]"),
        (b"[::1]:8080", b"[::1]", b"[::1]"),
        (b"[::1]:1", b"[::1]", b"[::1]:1"),
    ],
)
def test_the_port_of_host(host: bytes, any_port: bytes, matching: bytes) -> None:
    assert applied(host=host, strip_any_host_port=True).authority == any_port
    assert applied(host=host, strip_matching_host_port=True).authority == matching


def test_the_target_of_connect_is_no_path() -> None:
    policy = compile_request_policy(
        HttpConnectionManager("s", strip_any_host_port=True, normalize_path=True, merge_slashes=True), 80
    )
    assert policy is not None
    head = RequestHead(b"CONNECT", b"a:443", b"a:443", [])
    policy.apply(head, "192.0.2.7:4000")
    assert (head.target, head.authority) == (b"a:443", b"a:443")


XFF = b"x-forwarded-for"


@pytest.mark.parametrize(
    ("fields", "headers", "after", "proto", "client"),
    [
        ({}, [(XFF, b"1.2.3.4")], b"1.2.3.4,192.0.2.7", None, ""),
        ({}, [], b"192.0.2.7", None, ""),
        ({}, [(XFF, b"1.2.3.4"), (XFF, b"5.6.7.8")], b"1.2.3.4,5.6.7.8,192.0.2.7", None, ""),
        ({"skip_xff_append": True}, [(XFF, b"1.2.3.4")], b"1.2.3.4", None, ""),
        (
            {"xff_num_trusted_hops": 1},
            [(XFF, b"1.2.3.4, 5.6.7.8")],
            b"1.2.3.4, 5.6.7.8,192.0.2.7",
            b"https",
            "5.6.7.8:0",
        ),
        (
            {"xff_num_trusted_hops": 2, "skip_xff_append": True},
            [(XFF, b"1.2.3.4, 5.6.7.8")],
            b"1.2.3.4, 5.6.7.8",
            b"https",
            "1.2.3.4:0",
        ),
        ({"xff_num_trusted_hops": 3}, [(XFF, b"1.2.3.4")], b"1.2.3.4,192.0.2.7", b"https", ""),
    ],
)
def test_an_edge_and_its_trusted_hops(
    fields: dict[str, Any], headers: Headers, after: bytes, proto: bytes | None, client: str
) -> None:
    head = applied(*headers, use_remote_address=True, **fields)
    assert head.find(XFF) == after
    assert head.forwarded_proto == proto
    index = xff_index(HttpConnectionManager("s", use_remote_address=True, **fields))
    assert forwarded_client(head.headers, index) == client


def test_behind_a_proxy_the_last_address_is_the_client() -> None:
    headers = [(XFF, b"1.2.3.4, 5.6.7.8")]
    assert forwarded_client(headers, xff_index(HttpConnectionManager("s"))) == "5.6.7.8:0"
    assert forwarded_client(headers, xff_index(HttpConnectionManager("s", xff_num_trusted_hops=1))) == "1.2.3.4:0"
    assert forwarded_client([], 0) == ""
    assert forwarded_client([(XFF, b"1.2.3.4, junk")], 0) == ""
    assert forwarded_client([(XFF, b"1.2.3.4,2001:db8::1")], 0) == "[2001:db8::1]:0"


def test_names_with_underscores() -> None:
    headers = ((b"x_a", b"1"), (b"x-a", b"2"))
    head = applied(*headers, headers_with_underscores_action="DROP_HEADER")
    assert head.headers == [(b"x-a", b"2")]
    with pytest.raises(HeadRefused, match="underscore"):
        applied(*headers, headers_with_underscores_action="REJECT_REQUEST")
    assert applied((b"x-a", b"2"), headers_with_underscores_action="REJECT_REQUEST").headers == [(b"x-a", b"2")]


def test_paths() -> None:
    assert applied(target=b"/a/../b?c", normalize_path=True).target == b"/b?c"
    with pytest.raises(HeadRefused) as refused:
        applied(target=b"/a%2fb", path_with_escaped_slashes_action="REJECT_REQUEST")
    assert refused.value.kind.status == 400
    with pytest.raises(PathRedirected) as redirected:
        applied(target=b"/a%2fb", path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT")
    assert redirected.value.target == b"/a/b"


def test_via() -> None:
    assert applied((b"via", b"1.0 before"), via="1.1 me").find(b"via") == b"1.0 before,1.1 me"
    assert response_fields(HttpConnectionManager("s", via="1.1 me")) == [(b"server", b"pillion"), (b"via", b"1.1 me")]


@pytest.mark.parametrize(
    ("transformation", "upstream", "server"),
    [
        ("OVERWRITE", b"app", None),  # the constant lines say it
        ("APPEND_IF_ABSENT", b"app", b"app"),
        ("APPEND_IF_ABSENT", None, b"sn"),
        ("PASS_THROUGH", b"app", b"app"),
        ("PASS_THROUGH", None, None),
    ],
)
def test_server(transformation: str, upstream: bytes | None, server: bytes | None) -> None:
    config = HttpConnectionManager(
        "s",
        server_name="sn",
        server_header_transformation=transformation,  # type: ignore[arg-type]
        always_set_request_id_in_response=True,
    )
    policy = compile_response_policy(config)
    assert policy is not None
    head = ResponseHead(200, b"", [(b"x-request-id", b"theirs")])
    head.server = upstream
    policy.apply(head, b"ours")
    expected = [] if server is None else [(b"server", server)]
    assert head.headers == [*expected, (b"x-request-id", b"ours")]
    assert response_fields(config) == ([(b"server", b"sn")] if transformation == "OVERWRITE" else [])
