"""Full mutual TLS handshakes, none resumed, each on a connection of its own with one request.

The proxy answers the request itself; it is there to see that the server has verified the client's certificate, which in
TLS 1.3 comes after the client is done. It costs a few hundredths of the handshake.
"""

from __future__ import annotations

import socket
import ssl
import time

from bench.errors import RequestsFailed
from bench.plan import Contender, Plan, Run
from bench.result import Scenario
from bench.shapes import REPLY
from bench.sidecar import Tls

_REQUEST = b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"


class Handshakes:
    """See the module."""

    name = "handshakes"
    title = "full mutual TLS handshakes"

    def steps(self, plan: Plan, proxies: int) -> int:
        return (proxies + plan.control(self.name)) * (1 + plan.pairs)

    def run(self, run: Run) -> Scenario:
        about = "ECDSA P-256 certificates on both sides, TLS 1.3, one connection after the other"
        scenario = Scenario(self.name, self.title, about)
        context = client(run.stage.identities.outbound)

        def measure(contender: Contender) -> None:
            deployed = contender.deployed
            handshake(context, deployed.port)
            before, count = deployed.cpu(), 0
            until = time.perf_counter() + run.plan.seconds
            while time.perf_counter() < until:
                handshake(context, deployed.port)
                count += 1
            used = deployed.cpu() - before
            deployed.check()
            contender.subject.add("handshakes_per_cpu_second", count / used)

        with run.stage.scene() as scene:
            contenders = run.deploy(scene, scenario, REPLY)
            run.turns(scenario, "handshakes", contenders, measure, lambda one: one.subject.title)
            run.inspect(scenario, contenders)
        return scenario


def client(tls: Tls) -> ssl.SSLContext:
    """What a sidecar of identity `tls` shows; the peer's chain is verified, its name is none that ssl could check."""
    context = ssl.create_default_context(cafile=str(tls.roots))
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(tls.chain, tls.key)
    return context


def handshake(context: ssl.SSLContext, port: int) -> None:
    """One connection from beginning to end. Raises RequestsFailed."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5.0) as plain,
            context.wrap_socket(plain) as connection,
        ):
            if connection.session_reused:
                raise RequestsFailed("the handshake was a resumption")
            connection.sendall(_REQUEST)
            answer = connection.recv(4096)
    except OSError as error:
        raise RequestsFailed(f"handshake: {error}") from None
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RequestsFailed(f"after the handshake: {answer[:60]!r}")
