"""A control plane in this process, over its real TLS port, and stubs for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control_plane.options import Options
from control_plane.server import serve
from pillion.client import TokenFile, aio_channel, bearer
from pillion.v1 import mesh_pb2 as pb
from pillion.v1 import mesh_pb2_grpc as stubs

grpc.aio.init_grpc_aio()  # its sockets live as long as the process: they are not of one test


def csr(service: str) -> str:
    name = x509.UniformResourceIdentifier(f"spiffe://pillion.local/service/{service}")
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


@dataclass
class Plane:
    """A control plane in this process, and stubs for it."""

    mesh: stubs.MeshControlStub
    registry: stubs.RegistryStub
    ca: stubs.CertificateAuthorityStub
    operator: tuple[tuple[str, str], ...]
    web: str
    channel: grpc.aio.Channel
    target: str

    async def token(self, service: str) -> str:
        request = pb.CreateTokenRequest(service=service)
        answer = await self.mesh.CreateToken(request, metadata=self.operator)
        file = TokenFile.parse(answer.token_file)
        assert file.service == service
        return file.token

    async def join(self, service: str) -> tuple[tuple[str, str], ...]:
        request = pb.SignRequest(csr_pem=csr(service), join_token=await self.token(service))
        return bearer((await self.ca.Sign(request)).session_token)


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[Plane]:
    """Serve from a data directory until the block ends."""
    options = Options(data, ("127.0.0.1", 0), ("127.0.0.1", 0))
    async with serve(options) as (grpc_port, web_port):
        file = TokenFile.load(data / "operator.token")
        async with aio_channel(f"127.0.0.1:{grpc_port}", file.roots_pem) as channel:
            yield Plane(
                stubs.MeshControlStub(channel),
                stubs.RegistryStub(channel),
                stubs.CertificateAuthorityStub(channel),
                bearer(file.token),
                f"http://127.0.0.1:{web_port}",
                channel,
                f"127.0.0.1:{grpc_port}",
            )
