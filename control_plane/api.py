"""The pillion.v1 services: each method checks who calls, checks what is asked, and asks the room that owns
it.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from control_plane.auth import Authenticator, Context, MissingError, Servicer, answered
from control_plane.ca import CertificateAuthority
from control_plane.errors import RefusedError, RequestError
from control_plane.leases import Instance, check_service_name
from control_plane.metrics import Metrics
from control_plane.state import MeshState
from control_plane.tokens import Tokens
from pillion.client import TokenFile, spiffe_id
from pillion.v1 import mesh_pb2, mesh_pb2_grpc

OPERATOR = "operator"


class MeshControl(Servicer, mesh_pb2_grpc.MeshControlServicer):
    """The operator's calls. `proxies` tells what each connected proxy was sent and acknowledged."""

    def __init__(
        self,
        auth: Authenticator,
        metrics: Metrics,
        state: MeshState,
        tokens: Tokens,
        ca: CertificateAuthority,
        proxies: Callable[[], Iterable[mesh_pb2.ProxyStatus]],
    ) -> None:
        super().__init__(auth, metrics.auth_failures.inc)
        self._state = state
        self._tokens = tokens
        self._ca = ca
        self._proxies = proxies

    @answered
    async def Apply(self, request: mesh_pb2.ApplyRequest, context: Context) -> mesh_pb2.ApplyResponse:
        self._auth.operator(context.invocation_metadata() or ())
        if not request.documents:
            raise RequestError("documents: nothing to apply")
        documents = [(document.source or "document", document.yaml) for document in request.documents]
        change = await self._state.apply(documents, request.dry_run, OPERATOR)
        return mesh_pb2.ApplyResponse(
            revision=change.revision, added=change.added, changed=change.changed, unchanged=change.unchanged
        )

    @answered
    async def Get(self, request: mesh_pb2.GetRequest, context: Context) -> mesh_pb2.GetResponse:
        self._auth.operator(context.invocation_metadata() or ())
        applied = self._state.applied
        if request.service and request.service not in applied:
            near = difflib.get_close_matches(request.service[:100], applied, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; pillion get lists all"
            raise MissingError(f"no service {request.service[:100]!r} is configured{hint}")
        wanted = [applied[request.service]] if request.service else applied.values()
        services = [
            mesh_pb2.ServiceConfig(
                name=it.name, yaml=it.yaml, revision=it.revision, protocol=it.document.service.protocol
            )
            for it in wanted
        ]
        return mesh_pb2.GetResponse(revision=self._state.revision, services=services)

    @answered
    async def Status(self, request: mesh_pb2.StatusRequest, context: Context) -> mesh_pb2.StatusResponse:
        self._auth.operator(context.invocation_metadata() or ())
        now = time.time()
        instances = []
        for lease, left in self._state.registry.leases():
            it = lease.instance
            instance = mesh_pb2.Instance(
                service=it.service, id=it.id, host=it.host, port=it.port, labels=it.labels, weight=it.weight
            )
            instance.expires.CopyFrom(timestamp(now + max(0.0, left)))
            instances.append(instance)
        return mesh_pb2.StatusResponse(
            revision=self._state.revision,
            proxies=self._proxies(),
            instances=instances,
            trust_domain=self._state.trust_domain,
        )

    @answered
    async def CreateToken(self, request: mesh_pb2.CreateTokenRequest, context: Context) -> mesh_pb2.CreateTokenResponse:
        self._auth.operator(context.invocation_metadata() or ())
        service = check_service_name(request.service)
        token, expires = await self._tokens.create_join(service, seconds(request.lifetime), OPERATOR)
        domain = self._ca.trust_domain
        file = TokenFile(spiffe_id(domain, service), domain, service, token, self._ca.bundle_pem)
        return mesh_pb2.CreateTokenResponse(token_file=file.render(), expires=timestamp(expires))


class RegistryService(Servicer, mesh_pb2_grpc.RegistryServicer):
    """Leases. A session may speak only for its own service."""

    def __init__(self, auth: Authenticator, metrics: Metrics, state: MeshState) -> None:
        super().__init__(auth, metrics.auth_failures.inc)
        self._registry = state.registry

    @answered
    async def Register(self, request: mesh_pb2.RegisterRequest, context: Context) -> mesh_pb2.RegisterResponse:
        it = request.instance
        self._own(it.service, context)
        instance = Instance(it.service, it.id, it.host, it.port, dict(it.labels), it.weight or 1)
        return mesh_pb2.RegisterResponse(
            lease=duration(await self._registry.register(instance, seconds(request.lease)))
        )

    @answered
    async def Heartbeat(self, request: mesh_pb2.HeartbeatRequest, context: Context) -> mesh_pb2.HeartbeatResponse:
        self._own(request.service, context)
        lease = self._registry.heartbeat(request.service, request.id)
        if lease is None:
            raise MissingError(f"the lease of {request.service}/{request.id[:128]} has ended; register again")
        return mesh_pb2.HeartbeatResponse(lease=duration(lease))

    @answered
    async def Deregister(self, request: mesh_pb2.DeregisterRequest, context: Context) -> mesh_pb2.DeregisterResponse:
        self._own(request.service, context)
        await self._registry.deregister(request.service, request.id)
        return mesh_pb2.DeregisterResponse()

    def _own(self, service: str, context: Context) -> None:
        mine = self._auth.session(context.invocation_metadata() or ())
        if service != mine:
            raise RefusedError(f"this session is for the service {mine!r}, not for {service[:100]!r}")


class CertificateAuthorityService(Servicer, mesh_pb2_grpc.CertificateAuthorityServicer):
    """Signing, against a join token the first time and a session afterwards."""

    def __init__(self, auth: Authenticator, metrics: Metrics, tokens: Tokens, ca: CertificateAuthority) -> None:
        super().__init__(auth, metrics.auth_failures.inc)
        self._metrics = metrics
        self._tokens = tokens
        self._ca = ca

    @answered
    async def Sign(self, request: mesh_pb2.SignRequest, context: Context) -> mesh_pb2.SignResponse:
        if request.join_token:
            service = await self._tokens.join_service(request.join_token)
        else:
            service = self._auth.session(context.invocation_metadata() or ())
        # Sign first: a bad CSR does not burn the token. The answer goes out only if the token is then burnt
        # by us.
        signed = self._ca.sign(request.csr_pem, service)
        session = await self._tokens.start_session(service, signed.expires, request.join_token, str(context.peer()))
        self._metrics.signs.labels(by="join_token" if request.join_token else "session").inc()
        return mesh_pb2.SignResponse(
            certificate_chain_pem=signed.chain_pem,
            trust_bundle_pem=self._ca.bundle_pem,
            expires=timestamp(signed.expires),
            session_token=session,
        )

    @answered
    async def Bundle(self, request: mesh_pb2.BundleRequest, context: Context) -> mesh_pb2.BundleResponse:
        return mesh_pb2.BundleResponse(trust_bundle_pem=self._ca.bundle_pem, trust_domain=self._ca.trust_domain)


def seconds(value: Duration) -> float:
    """A protobuf duration in seconds; unset is 0."""
    return value.seconds + value.nanos / 1e9


def duration(value: float) -> Duration:
    """Seconds as a protobuf duration."""
    whole = int(value)
    return Duration(seconds=whole, nanos=round((value - whole) * 1e9))


def timestamp(value: float) -> Timestamp:
    """Unix seconds as a protobuf timestamp, to the millisecond."""
    milliseconds = round(value * 1000)
    return Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)
