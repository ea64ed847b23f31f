"""What is sent when, as windows allow it (RFC 9113 §6.9)."""

from __future__ import annotations

import h2.config
import h2.connection

from proxy.config.http2 import Http2Options
from proxy.http.h2.server import ServerConnection


def test_data_sent_after_its_window_grew_leaves_nothing_choked() -> None:
    """A window that grows lets out no more than a turn's worth; what is sent next takes the rest with it."""
    peer = h2.connection.H2Connection(h2.config.H2Configuration())
    peer.initiate_connection()
    head = [(":method", "GET"), (":scheme", "http"), (":authority", "app"), (":path", "/")]
    peer.send_headers(1, head, end_stream=True)
    server = ServerConnection(Http2Options(), 60 * 1024, 100, True)
    server.receive(peer.data_to_send(), 0.0)
    (stream,) = server.ready
    server.send_head(stream, [(b":status", b"200")], [], False)

    server.send(stream, [bytes(65535 + 100_000)], False, [], [])
    assert stream.choked
    peer.receive_data(server.take())
    peer.increment_flow_control_window(1_000_000)
    peer.increment_flow_control_window(1_000_000, 1)
    server.receive(peer.data_to_send(), 0.0)
    assert stream.choked, "more than a turn's worth waits"
    server.send(stream, [b"and more"], False, [], [])

    assert not stream.choked
    assert server.drained == [stream], "nobody is told that there is room again"
    sent = sum(event.flow_controlled_length for event in peer.receive_data(server.take()))
    assert sent == 100_000 + len(b"and more")
