"""A small worker that speaks the agent's channel, for tests of the supervisor. Run as a script.

usage: channel_worker.py MODE --fd N
MODE: serve    answers every connection with its pid, the snapshot's cluster names and the keys it holds
      crash    exits with status 3 once it was told a configuration
      hang     applies the first configuration, then reads no more
      refuse   serves, but refuses a configuration that has a cluster called "bad"
      stubborn serves, but ignores Drain
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time

from proxy.config.snapshot import Snapshot, apply
from proxy.worker.channel import (
    Applied,
    Decoder,
    Drain,
    Flush,
    Key,
    Listen,
    LogLevel,
    Stats,
    Update,
    Workers,
    encode,
    receive,
)


def main() -> None:
    mode, fd = sys.argv[1], int(sys.argv[3])
    channel = socket.socket(fileno=fd)
    channel.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    decoder, fds, snapshot = Decoder(), [], Snapshot()
    listening: dict[socket.socket, str] = {}
    keys: dict[str, str] = {}
    served = 0
    while True:
        for ready, _events in selector.select():
            sock = ready.fileobj
            if sock is not channel:
                try:
                    connection, _address = sock.accept()
                except BlockingIOError:
                    continue
                served += 1
                with connection:
                    words = [
                        str(os.getpid()),
                        ",".join(sorted(snapshot.clusters)),
                        ",".join(sorted(keys.values())),
                    ]
                    connection.sendall(" ".join(words).encode())
                continue
            try:
                data, new = receive(channel)
            except BlockingIOError:
                continue
            fds += new
            if not data:
                sys.exit(0)
            for message in decoder.feed(data):
                match message:
                    case Listen(address):
                        listener = socket.socket(fileno=fds.pop(0))
                        listening[listener] = address
                        selector.register(listener, selectors.EVENT_READ)
                    case Key(name, key_id):
                        with open(fds.pop(0), "rb") as file:
                            file.seek(0)
                            keys[name] = key_id + "/" + file.read().decode()
                    case Update(version, delta):
                        if mode == "crash":
                            sys.exit(3)
                        after = apply(snapshot, delta)
                        if mode == "refuse" and "bad" in after.clusters:
                            channel.sendall(encode(Applied(version, "cluster 'bad' is bad")))
                            continue
                        snapshot = after
                        wanted = {str(entry.address) for entry in snapshot.listeners.values()}
                        for listener, address in list(listening.items()):
                            if address not in wanted:
                                selector.unregister(listener)
                                listener.close()
                                del listening[listener]
                        channel.sendall(encode(Applied(version)))
                        if mode == "hang":
                            time.sleep(1000)
                    case Flush(id):
                        counters = (((("downstream_cx_total", (("listener", "l"),)), served),)) if served else ()
                        channel.sendall(encode(Stats(id, counters, (), ())))
                        served = 0
                    case Drain():
                        if mode != "stubborn":
                            sys.exit(0)
                    case LogLevel() | Workers():
                        pass


if __name__ == "__main__":
    main()
