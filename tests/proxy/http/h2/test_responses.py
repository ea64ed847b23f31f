"""What a client takes as a response, from our own server's frames."""

import pytest

from proxy.config.http2 import Http2Options
from proxy.http.h2.client import ClientConnection
from proxy.http.h2.frames import PROTOCOL_ERROR
from proxy.http.h2.server import ServerConnection
from proxy.http.h2.stream import OPEN


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", b"200"), (b"GET", b"204"), (b"GET", b"304")])
@pytest.mark.parametrize(("body", "reset"), [(b"", OPEN), (b"what?", PROTOCOL_ERROR)])
def test_a_response_that_can_have_no_content_has_none(method: bytes, status: bytes, body: bytes, reset: int) -> None:
    options = Http2Options()
    client, server = ClientConnection(options, 60 * 1024, 100), ServerConnection(options, 60 * 1024, 100, True)
    stream = client.open(method, b"", 0.0)
    fields = [(b":method", method), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
    client.request(stream, fields, [], True)
    server.receive(client.take(), 0.0)
    server.send_head(server.streams[1], [(b":status", status)], [], False)
    server.send(server.streams[1], [body] if body else [], True, [], [])
    client.receive(server.take(), 0.0)
    assert stream.reset == reset
    assert stream.message is not None
    assert not stream.message.body
