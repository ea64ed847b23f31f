"""Puts the pieces together and runs them: `run(options)` is the whole control plane as one process."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from control_plane import web
from control_plane.ads.servicer import AdsServicer
from control_plane.api import CertificateAuthorityService, MeshControl, RegistryService
from control_plane.auth import Authenticator
from control_plane.ca import SERVER_LIFETIME, SVID_LIFETIME, CertificateAuthority, ServerCertificate
from control_plane.errors import StartError, StoreError
from control_plane.files import prepare_directory
from control_plane.metrics import Metrics
from control_plane.options import Options
from control_plane.state import MeshState
from control_plane.store import Store
from control_plane.tokens import Tokens
from pillion.stdio import announce, ensure_open
from pillion.v1 import mesh_pb2_grpc

log = logging.getLogger("control-plane")

STOP_GRACE = 1.0  # seconds that calls in flight get on SIGTERM; ADS streams would never end by themselves
MAX_MESSAGE = 16 * 1024 * 1024
MAX_CALLS = 10_000  # at the same time, ADS streams included

_GRPC_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second control plane would share the port in silence
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    # Clients ping every 20 s (pillion.client); a client that vanished is noticed within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Who is not authenticated yet holds little, and not for long.
    ("grpc.max_concurrent_streams", 64),  # of one connection; a sidecar has a handful
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),  # without a call; a sidecar always has its stream
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)


def run(options: Options, svid_lifetime: float = SVID_LIFETIME) -> int:
    """Run until SIGTERM or SIGINT.

    Returns the exit code: 0, or 2 after one line that says why it cannot start.
    """
    ensure_open()
    _log_to_stderr(options.log_level)
    try:
        asyncio.run(_run(options, svid_lifetime))
    except (StartError, StoreError) as error:
        print(f"pillion control-plane: {error}", file=sys.stderr)
        return 2
    return 0


async def _run(options: Options, svid_lifetime: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve(options, svid_lifetime) as (grpc_port, web_port):
        announce(
            f"pillion control plane ready: grpc {_address(options.grpc[0], grpc_port)}, "
            f"web {_address(options.web[0], web_port)}, data {options.data_dir}"
        )
        await stop.wait()
        log.info("stopping")


@contextlib.asynccontextmanager
async def serve(options: Options, svid_lifetime: float = SVID_LIFETIME) -> AsyncIterator[tuple[int, int]]:
    """The control plane, serving; gives the bound gRPC and web ports. Raises StartError, StoreError."""
    prepare_directory(options.data_dir)
    async with contextlib.AsyncExitStack() as stack:
        store = Store(options.data_dir / "mesh.db")
        stack.callback(store.close)
        ca = CertificateAuthority.open(options.data_dir, options.trust_domain, svid_lifetime)
        state = MeshState(store, options.trust_domain)
        stack.callback(state.registry.close)
        await state.load()
        tokens = Tokens(store)
        await tokens.load(options.data_dir / "operator.token", options.trust_domain, ca.bundle_pem)
        auth = Authenticator(tokens)
        metrics = Metrics()
        ads = AdsServicer(auth, metrics.auth_failures.inc, state)
        stack.callback(ads.close)
        metrics.watch(state, ads)

        server = grpc.aio.server(options=_GRPC_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        control = MeshControl(auth, metrics, state, tokens, ca, ads.proxies)
        signer = CertificateAuthorityService(auth, metrics, tokens, ca)
        registry = RegistryService(auth, metrics, state)
        mesh_pb2_grpc.add_MeshControlServicer_to_server(control, server)
        mesh_pb2_grpc.add_RegistryServicer_to_server(registry, server)
        mesh_pb2_grpc.add_CertificateAuthorityServicer_to_server(signer, server)
        ads.add_to_server(server)
        grpc_port = _bind(server, options.grpc, _credentials(ServerCertificate(ca, SERVER_LIFETIME)))
        web_port = await stack.enter_async_context(web.serve(options.web, metrics.registry))
        await server.start()
        stack.push_async_callback(server.stop, STOP_GRACE)
        yield grpc_port, web_port


def _credentials(certificate: ServerCertificate) -> grpc.ServerCredentials:
    def configuration() -> grpc.ServerCertificateConfiguration | None:
        pair = certificate.fresh()
        return None if pair is None else grpc.ssl_server_certificate_configuration([pair])

    first = configuration()
    assert first is not None
    return grpc.dynamic_ssl_server_credentials(first, configuration)  # type: ignore[arg-type]  # None: keep the last


def _bind(server: grpc.aio.Server, address: tuple[str, int], credentials: grpc.ServerCredentials) -> int:
    place = _address(*address)
    # grpc reports every failure to bind alike; ask the socket first, so that the error says what is wrong.
    try:
        family, _, _, _, target = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen(1)
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise StartError(f"--grpc {place}: {reason.lower()}; choose another address with --grpc") from error
    try:
        port = server.add_secure_port(place, credentials)
    except RuntimeError as error:
        raise StartError(f"--grpc {place}: cannot listen here; choose another address with --grpc") from error
    if port == 0:
        raise StartError(f"--grpc {place}: cannot listen here; choose another address with --grpc")
    return int(port)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Formatter(logging.Formatter):
    """`2026-11-22T21:25:00.123Z INFO  control-plane  message key=value`"""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        text = f"{at:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z {record.levelname:<5} {record.name}  "
        text += record.getMessage()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.addLevelName(logging.WARNING, "WARN")
    logging.getLogger("grpc").setLevel(logging.CRITICAL)  # a traceback for each malformed message
    logging.basicConfig(level=level.upper() if level != "warning" else logging.WARNING, handlers=[handler], force=True)
