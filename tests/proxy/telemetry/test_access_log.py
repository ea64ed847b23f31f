"""The access log's format: each operator, JSON that parses whatever the client sent, errors that name the place."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry import access_log


def record(**changes: Any) -> Any:
    headers = {b"x-one": b"1"}
    head = SimpleNamespace(method=b"GET", target=b"/a", authority=b"app")
    values = {
        "start_time": 1_700_000_000.1239, "duration": 0.0129, "protocol": "HTTP/1.1", "status": 200, "flags": "",
        "bytes_received": 3, "bytes_sent": 4, "upstream_host": "127.0.0.1:80", "upstream_cluster": "c",
        "route_name": "", "peer_uri_san": "", "trace_id": "", "attempts": 1, "downstream_address": "127.0.0.1:9",
        "details": "", "head": head, "request_header": headers.get, "response_header": {b"x-two": b"2"}.get,
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("%START_TIME%", "2023-11-14T22:13:20.123Z"),
        ("%DURATION%", "12"),
        ("%REQ(:METHOD)% %REQ(:PATH)%", "GET /a"),
        ("%REQ(X-NONE)%", "-"),
        ("%REQ(X-NONE?X-ONE)%", "1"),
        ("%REQ(:METHOD):2%", "GE"),
        ("%RESP(X-TWO)%", "2"),
        ("%RESPONSE_FLAGS%", "-"),
        ("100%%", "100%"),
        ("%BYTES_RECEIVED%/%BYTES_SENT%", "3/4"),
    ],
)
def test_text_operators(form: str, expected: str) -> None:
    assert access_log.check(form) is None
    assert access_log.compile_text(form)(record()) == expected


@pytest.mark.parametrize("form", ["%", "50% off", "%NO_SUCH%", "%REQ%", "%REQ()%", "%DURATION(ms)%", "%REQ(A?B?C)%"])
def test_bad_formats_are_named(form: str) -> None:
    assert access_log.check(form)


@given(st.binary(max_size=30), st.text(max_size=10))
def test_json_lines_parse_whatever_the_client_sent(value: bytes, label: str) -> None:
    line = access_log.compile_json(((label, "%REQ(X)%"), ("%", "%DURATION%"), ("mixed", "a %REQ(X)% %% b")))(
        record(request_header=lambda name: value)
    )
    assert line.count("\n") == 1
    parsed = json.loads(line)
    assert parsed["mixed"] == f"a {value.decode('latin-1')} % b"
    assert label == "%" or parsed[label] == value.decode("latin-1")
    assert parsed["%"] == 12


def test_json_keeps_types_and_absence() -> None:
    line = access_log.compile_json(
        (("code", "%RESPONSE_CODE%"), ("flags", "%RESPONSE_FLAGS%"), ("route", "%ROUTE_NAME%"), ("h", "%RESP(X-NONE)%"))
    )
    assert json.loads(line(record())) == {"code": 200, "flags": "-", "route": None, "h": None}
