"""The access log's format: each operator, JSON that parses whatever the client sent, errors that name the place."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry import access_log
from proxy.telemetry.record import Record


class Told(Record):
    """A record with something to tell."""

    def __init__(self, header: bytes = b"1", **changes: Any) -> None:
        super().__init__(1_700_000_000.1235 - (time.time() - time.monotonic()))
        self.header = header
        self.duration = 0.0129
        self.status = 200
        self.bytes_received, self.bytes_sent = 3, 4
        self.attempts = 1
        for name, value in changes.items():
            setattr(self, name, value)

    def method(self) -> bytes | None:
        return b"GET"

    def target(self) -> bytes | None:
        return b"/a"

    def upstream_host(self) -> str:
        return "127.0.0.1:80"

    def request_header(self, name: bytes) -> bytes | None:
        return self.header if name == b"x-one" else None

    def response_header(self, name: bytes) -> bytes | None:
        return b"2" if name == b"x-two" else None


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
    assert access_log.compile_text(form).write(Told()) == expected


@pytest.mark.parametrize("form", ["%", "50% off", "%NO_SUCH%", "%REQ%", "%REQ()%", "%DURATION(ms)%", "%REQ(A?B?C)%"])
def test_bad_formats_are_named(form: str) -> None:
    assert access_log.check(form)


@given(st.binary(max_size=30), st.text(max_size=10))
def test_json_lines_parse_whatever_the_client_sent(value: bytes, label: str) -> None:
    form = ((label, "%REQ(X-ONE)%"), ("%", "%DURATION%"), ("mixed", "a %REQ(X-ONE)% %% b"))
    line = access_log.compile_json(form).write(Told(value))
    assert line.count("\n") == 1
    parsed = json.loads(line)
    assert parsed["mixed"] == f"a {value.decode('latin-1')} % b"
    assert label == "%" or parsed[label] == value.decode("latin-1")
    assert parsed["%"] == 12


def test_json_keeps_types_and_absence() -> None:
    line = access_log.compile_json(
        (("code", "%RESPONSE_CODE%"), ("flags", "%RESPONSE_FLAGS%"), ("route", "%ROUTE_NAME%"), ("h", "%RESP(X-NONE)%"))
    )
    assert json.loads(line.write(Told())) == {"code": 200, "flags": "-", "route": None, "h": None}
