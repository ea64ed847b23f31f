"""What a peer may make us do, where the cost is not that of a frame."""

import pytest

from proxy.config.http2 import Http2Options
from proxy.http.h2.frames import ENHANCE_YOUR_CALM, ConnectionFailed
from proxy.http.h2.server import ServerConnection
from tests.conformance.h2.frames import END_HEADERS, INITIAL_WINDOW_SIZE, PREFACE, headers, request, settings


def _resized(streams: int, times: int) -> None:
    """Resize the windows of so many open streams so often within a second."""
    server = ServerConnection(Http2Options(), 60 * 1024, 100, True)
    server.receive(PREFACE + settings(), 0.0)
    for number in range(1, 2 * streams, 2):
        server.receive(headers(number, request(b"POST"), END_HEADERS), 0.0)
    for size in range(times):
        server.receive(settings((INITIAL_WINDOW_SIZE, 65_535 + size)), 0.5)


def test_windows_of_many_streams_may_be_resized_now_and_then_but_not_all_the_time() -> None:
    _resized(10, 300)
    _resized(1000, 20)
    with pytest.raises(ConnectionFailed) as raised:
        _resized(1000, 40)
    assert raised.value.code == ENHANCE_YOUR_CALM
