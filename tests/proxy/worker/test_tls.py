"""TLS of a worker with real certificates: who gets in, who does not and why, and what the app is told."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import itertools
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from proxy.config.cluster import CircuitBreakers
from proxy.config.model import (
    DownstreamTls,
    SanMatcher,
    StringMatcher,
    TlsCertificate,
    TrustBundle,
    UpstreamTls,
    Validation,
)
from proxy.config.route import DirectResponse, Route, RouteConfiguration, RouteMatch, VirtualHost
from proxy.config.snapshot import Snapshot
from proxy.worker import channel
from tests.support.certificates import HOUR, Authority, Leaf
from tests.support.worker import Handler, Worker, snapshot, upstream, worker

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LAST = b"GET /last HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n"
CART, WEB = "spiffe://pillion.local/service/cart", "spiffe://pillion.local/service/web"
CA = Authority()
LEAF = CA.issue(CART)
IN_MESH = Validation("ca", (SanMatcher("URI", StringMatcher("prefix", "spiffe://pillion.local/")),))


def several(*uris: str, common_name: str = "leaf") -> Leaf:
    """A leaf of CA with any number of URI names."""
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(CA._certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    leaf = builder.sign(CA._key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Leaf(leaf.public_bytes(pem).decode(), private.decode())


class Recorder:
    """An app that keeps the heads it got."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)


async def give_key(one: Worker, name: str, key_id: str, leaf: Leaf) -> TlsCertificate:
    fd = channel.memfd(name, (leaf.chain + leaf.key).encode())
    try:
        await one.send(channel.Key(name, key_id), fd)
    finally:
        os.close(fd)
    return TlsCertificate(name, leaf.chain, key_id, CART)


async def inbound(one: Worker, port: int, leaf: Leaf = LEAF, key_id: str = "1", **tls: object) -> Snapshot:
    """A listener that asks for certificates of the mesh, as the control plane makes it."""
    down = DownstreamTls(**{"certificate": "own", "validation": IN_MESH, "require_client_certificate": True, **tls})  # type: ignore[arg-type]
    http = {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": ("subject", "uri")}
    config = snapshot(one.port, port, http=http, listener={"traffic_direction": "INBOUND"})
    main = config.listeners["main"]
    chain = replace(main.filter_chain, tls=down, transport_socket_connect_timeout=0.5)
    return replace(
        config,
        listeners={"main": replace(main, filter_chain=chain)},
        certificates={"own": await give_key(one, "own", key_id, leaf)},
        bundles={"ca": TrustBundle("ca", CA.pem)},
    )


async def outbound(one: Worker, port: int, leaf: Leaf, san: str = CART) -> Snapshot:
    """A cluster reached by mutual TLS."""
    validation = Validation("ca", (SanMatcher("URI", StringMatcher("exact", san)),))
    tls = UpstreamTls("own", validation, "cart")
    return replace(
        snapshot(one.port, port, cluster={"tls": tls}),
        certificates={"own": await give_key(one, "own", "1", leaf)},
        bundles={"ca": TrustBundle("ca", CA.pem)},
    )


def client(leaf: Leaf | None, tmp_path: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=CA.pem)
    context.check_hostname = False
    if leaf is not None:
        context.load_cert_chain(*leaf.write(tmp_path, "client"))
    return context


async def ask(one: Worker, context: ssl.SSLContext | None, data: bytes = LAST) -> bytes:
    """What comes back, or nothing where the connection is refused."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port, ssl=context)
    except (ssl.SSLError, ConnectionError):
        return b""
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 5)
    except (ssl.SSLError, ConnectionError):
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def one() -> AsyncIterator[Worker]:
    async with worker() as process:
        yield process


@contextlib.asynccontextmanager
async def serving(app: Handler) -> AsyncIterator[tuple[Worker, int]]:
    async with worker() as one, upstream(app) as port:
        assert await one.apply(await inbound(one, port)) is None
        yield one, port


REFUSED = {
    "no certificate": (None, "no_certificate"),
    "other CA": (Authority("other").issue(WEB), "unknown_ca"),
    "expired": (CA.expired(WEB), "expired"),
    "not yet valid": (CA.issue(WEB, starts=HOUR, lasts=2 * HOUR), "not_yet_valid"),
    "two URIs": (several(WEB, CART), "bad_san"),
    "DNS only": (CA.issue(dns="web.pillion.local"), "bad_san"),
    "no name": (several(), "bad_san"),
    "other trust domain": (CA.issue("spiffe://elsewhere.local/service/web"), "bad_san"),
    "trust domain with a tail": (CA.issue("spiffe://pillion.local.evil/service/web"), "bad_san"),
}


@pytest.mark.parametrize("required", [True, False])
async def test_who_is_refused(one: Worker, tmp_path: Path, required: bool) -> None:
    app = Recorder()
    async with upstream(app) as port:
        assert await one.apply(await inbound(one, port, require_client_certificate=required)) is None
        assert (await ask(one, client(CA.issue(WEB), tmp_path))).startswith(b"HTTP/1.1 200")
        for what, (leaf, reason) in REFUSED.items():
            if leaf is None and not required:
                assert (await ask(one, client(leaf, tmp_path))).startswith(b"HTTP/1.1 200"), what
                continue
            before = await one.count("downstream_tls_error_total", listener="main", reason=reason)
            assert await ask(one, client(leaf, tmp_path)) == b"", what
            assert await one.count("downstream_tls_error_total", listener="main", reason=reason) == before + 1, what
        assert await ask(one, None) == b""
        assert await one.count("downstream_tls_error_total", reason="plaintext") == 1
        assert len(app.heads) == 1 if required else 2
        assert await one.gauge("downstream_cx_active") == 0


async def test_old_versions_and_slow_handshakes(one: Worker, tmp_path: Path) -> None:
    async with upstream(Recorder()) as port:
        await one.apply(await inbound(one, port))
        old = client(CA.issue(WEB), tmp_path)
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        assert await ask(one, old) == b""
        assert await one.talk(b"\x16\x03\x01") == b""  # the beginning of a hello, and then nothing
        assert await one.count("downstream_tls_error_total", reason="timeout") == 1


async def test_the_app_is_told_who_asks(one: Worker, tmp_path: Path) -> None:
    app = Recorder()
    nasty = several(WEB, common_name='a"b\\c,d;e=f\u00e9')
    plain = CA.issue(WEB)
    forged = LAST.replace(b"host:", b"X-Forwarded-Client-Cert: By=x;URI=spiffe://pillion.local/service/admin\r\nhost:")
    async with upstream(app) as port:
        await one.apply(await inbound(one, port))
        for leaf, subject in ((plain, "CN=leaf"), (nasty, 'CN=a\\"b\\\\c\\,d\\;e=f\\C3\\A9')):
            assert await ask(one, client(leaf, tmp_path), forged)
            der = ssl.PEM_cert_to_DER_cert(leaf.chain)
            expected = f'By={CART};Hash={hashlib.sha256(der).hexdigest()};Subject="{subject}";URI={WEB}'
            found = re.findall(rb"(?im)^x-forwarded-client-cert: (.*)\r$", app.heads[-1])
            assert found == [expected.encode()]
        config = await inbound(one, port)
        listener = config.listeners["main"]
        http = replace(listener.filter_chain.http, set_current_client_cert_details=("cert", "dns"))
        listener = replace(listener, filter_chain=replace(listener.filter_chain, http=http))
        await one.apply(replace(config, listeners={"main": listener}))
        assert await ask(one, client(plain, tmp_path))
        found = re.findall(rb'(?im)^x-forwarded-client-cert: .*;Cert="([^"]*)"\r$', app.heads[-1])
        assert len(found) == 1
        pem = unquote(found[0].decode())
        assert ssl.PEM_cert_to_DER_cert(pem) == ssl.PEM_cert_to_DER_cert(plain.chain)


async def test_a_session_cannot_outlive_its_certificate(one: Worker, tmp_path: Path) -> None:
    """A certificate is looked at in every connection: no resumption in TLS 1.3, and a date check in TLS 1.2."""
    async with upstream(Recorder()) as port:
        await one.apply(await inbound(one, port))

        def connect(
            context: ssl.SSLContext, session: ssl.SSLSession | None
        ) -> tuple[ssl.SSLSession | None, bool, bytes]:
            with socket.create_connection(("127.0.0.1", one.port)) as raw:
                sock = context.wrap_socket(raw, server_hostname="cart", session=session)
                sock.sendall(LAST)
                got = b""
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    while data := sock.recv(4096):
                        got += data
                reused, kept = bool(sock.session_reused), sock.session
                sock.close()
                return kept, reused, got

        known = []
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            context = client(CA.issue(WEB, lasts=dt.timedelta(seconds=2)), tmp_path)
            context.minimum_version = context.maximum_version = version
            session, _, got = await asyncio.to_thread(connect, context, None)
            assert got.startswith(b"HTTP/1.1 200")
            known.append((context, session))
        await asyncio.sleep(2.1)
        for context, session in known:
            try:
                _, _, got = await asyncio.to_thread(connect, context, session)
            except (ssl.SSLError, ConnectionError):
                got = b""
            assert got == b"", context.maximum_version


async def test_two_workers(tmp_path: Path) -> None:
    app = Recorder()
    async with serving(app) as (server, _), worker() as one:
        assert await one.apply(await outbound(one, server.port, CA.issue(WEB))) is None
        for _ in range(3):
            assert (await one.talk(LAST)).startswith(b"HTTP/1.1 200")
        assert f"URI={WEB}".encode() in app.heads[0]
        assert await one.count("upstream_tls_handshake_total", cluster="app", peer=CART) == 1
        assert await server.count("downstream_tls_handshake_total", listener="main") == 1
        # The wrong one answers: a failed connection, nothing is sent.
        tls = UpstreamTls("own", Validation("ca", (SanMatcher("URI", StringMatcher("exact", WEB)),)), "cart")
        wrong = replace(one.snapshot, clusters={"app": replace(one.snapshot.clusters["app"], tls=tls)})
        assert await one.apply(wrong) is None
        assert (await one.talk(LAST)).startswith(b"HTTP/1.1 503")
        assert await one.count("upstream_tls_error_total", cluster="app", reason="bad_san") >= 1
        assert await one.count("response_flags_total", flag="UF") == 1
        assert len(app.heads) == 3
        assert await one.gauge("upstream_cx_active") == 0


async def test_a_server_that_refuses_our_certificate_has_not_taken_the_request(one: Worker, tmp_path: Path) -> None:
    """In TLS 1.3 its alert comes after our handshake is over; it is a failed connection all the same."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*LEAF.write(tmp_path, "server"))
    context.load_verify_locations(cadata=Authority("other").pem)
    context.verify_mode = ssl.CERT_REQUIRED
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(3)

    def refuse(times: int) -> None:  # a blocking server: asyncio's does not send the alert
        for _ in range(times):
            sock, _ = listening.accept()
            sock.settimeout(3)
            tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            with pytest.raises(ssl.SSLError):
                tls.do_handshake()
            with socket.socket(fileno=tls.detach()) as raw:
                raw.settimeout(3)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(65536):  # closing over unread data would reset, and destroy the alert
                    pass

    refusing = asyncio.create_task(asyncio.to_thread(refuse, 3))
    await one.apply(await outbound(one, listening.getsockname()[1], CA.issue(WEB)))
    post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    answer = await one.talk(post)
    assert answer.startswith(b"HTTP/1.1 503"), answer
    await refusing
    listening.close()
    assert await one.count("upstream_tls_error_total", cluster="app", reason="unknown_ca") == 3
    assert await one.count("upstream_rq_retry_total", cluster="app") == 2
    assert await one.count("response_flags_total", flag="UF") == 1


async def test_back_pressure_through_a_pair() -> None:
    size = 8 << 20

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
        await reader.read()

    async with serving(app) as (server, _), worker() as one:
        await one.apply(await outbound(one, server.port, CA.issue(WEB)))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port, limit=16384)
        writer.write(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.5)
        got = 0
        async with asyncio.timeout(5):
            while got < size:
                got += len(await reader.read(1 << 16))
        writer.close()


async def test_new_certificates_leave_no_descriptor(one: Worker, tmp_path: Path) -> None:
    async with upstream(Recorder()) as port:
        await one.apply(await inbound(one, port, key_id="first"))
        fds = f"/proc/{one.process.pid}/fd"
        before = len(os.listdir(fds))
        leaves = [CA.issue(CART) for _ in range(4)]
        for number in range(200):
            assert await one.apply(await inbound(one, port, leaves[number % 4], str(number))) is None
        assert len(os.listdir(fds)) == before
        assert (await ask(one, client(CA.issue(WEB), tmp_path))).startswith(b"HTTP/1.1 200")
        without = Snapshot(
            listeners=snapshot(one.port, port).listeners,
            clusters=one.snapshot.clusters,
            assignments=one.snapshot.assignments,
        )
        assert await one.apply(without) is None
        assert len([fd for fd in os.listdir(fds) if "memfd" in os.readlink(f"{fds}/{fd}")]) == 0


async def test_a_slow_reader_gets_all_of_the_last_answer(one: Worker, tmp_path: Path) -> None:
    """Closing TLS takes as long as the client needs for what is written."""
    size = 12 << 20
    config = await inbound(one, 1)
    main = config.listeners["main"]
    route = Route(RouteMatch("prefix", "/"), DirectResponse(200, b"x" * size), "d")
    routes = RouteConfiguration("r", (VirtualHost("v", ("*",), (route,)),))
    http = replace(main.filter_chain.http, route_config=routes)
    listener = replace(main, filter_chain=replace(main.filter_chain, http=http))
    assert await one.apply(replace(config, listeners={"main": listener})) is None
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    raw.connect(("127.0.0.1", one.port))
    reader, writer = await asyncio.open_connection(
        sock=raw, ssl=client(CA.issue(WEB), tmp_path), server_hostname="cart", limit=65536
    )
    writer.write(LAST)
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(1.5)
    got = len(await asyncio.wait_for(reader.read(), 10))
    writer.close()
    assert got == size


async def test_handshakes_at_the_edge_of_the_connect_timeout_harm_no_other_connection(
    one: Worker, tmp_path: Path
) -> None:
    """A handshake that completes as it is given up must let go of its descriptor for good: the next connection gets
    that number, and would wait for ever for events that go elsewhere."""
    chain, key = LEAF.write(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.load_verify_locations(cadata=CA.pem)
    context.verify_mode = ssl.CERT_REQUIRED
    delays = itertools.cycle([0.13 + 0.001 * step for step in range(30)])

    class App(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(OK)

    loop = asyncio.get_running_loop()
    served: set[asyncio.Task[None]] = set()

    async def serve(sock: socket.socket) -> None:
        await asyncio.sleep(next(delays))
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(App, sock, ssl=context)

    async def accept(listening: socket.socket) -> None:
        while True:
            sock, _ = await loop.sock_accept(listening)
            task = asyncio.create_task(serve(sock))
            served.add(task)
            task.add_done_callback(served.discard)

    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        listening.setblocking(False)
        accepting = asyncio.create_task(accept(listening))
        config = await outbound(one, listening.getsockname()[1], LEAF)
        limits = CircuitBreakers(max_retries=1000)
        cluster = replace(
            config.clusters["app"], connect_timeout=0.15, circuit_breakers=limits, max_requests_per_connection=1
        )
        await one.apply(replace(config, clusters={"app": cluster}))
        for _ in range(8):  # a wave connects while descriptors of the one before come free
            answers = await asyncio.gather(*(asyncio.wait_for(one.talk(LAST), 5) for _ in range(30)))
            assert {answer[:12] for answer in answers} <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
        await one.at_rest()
        assert await one.count("upstream_tls_error_total", cluster="app", reason="timeout") > 0
        assert await one.count("upstream_tls_handshake_total", cluster="app") > 0
        accepting.cancel()
        await asyncio.gather(accepting, *served, return_exceptions=True)
        await one.apply(replace(config, clusters={}, listeners={}, assignments={}))  # ends what is idle
        await asyncio.sleep(0.1)
