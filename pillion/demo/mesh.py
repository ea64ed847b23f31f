"""Starts the parts of a mesh as processes: control plane, sidecars, apps. For the demo and the tests.

The calls to the control plane block (milliseconds, at most CALL_TIMEOUT); waiting is left to the caller, who
has either an event loop or not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pillion.client import TokenFile, bearer, channel
from pillion.demo.processes import Process, Tree, children, free_ports
from pillion.v1 import mesh_pb2, mesh_pb2_grpc

CALL_TIMEOUT = 10.0
"""Seconds for one call to the control plane."""


@dataclass(slots=True)
class ControlPlane:
    """A started control plane; `grpc` and `web` are HOST:PORT."""

    process: Process
    grpc: str
    web: str
    data: Path

    @property
    def token_file(self) -> Path:
        """The operator's."""
        return self.data / "operator.token"

    def ready(self) -> bool:
        """True once it serves. Raises ProcessFailed when it has ended."""
        return self.process.find(r"control plane ready") is not None


@dataclass(slots=True)
class Sidecar:
    """A started sidecar and its local ports (127.0.0.1; the inbound one listens on every address)."""

    process: Process
    service: str
    instance: str
    outbound: int
    inbound: int
    admin: int
    labels: Mapping[str, str] = field(default_factory=dict)

    def ready(self) -> bool:
        """True once it serves. Raises ProcessFailed when it has ended."""
        return self.process.find(r"proxy ready") is not None

    def workers(self) -> list[int]:
        """The process ids of its workers now."""
        return children(self.process.pid)


class Mesh:
    """One control plane and what joins it. Files (data, tokens, states) live in `directory`, logs in the
    tree's.
    """

    def __init__(self, tree: Tree, directory: Path) -> None:
        self.tree = tree
        self.directory = directory
        self._control_plane: ControlPlane | None = None
        self._tokens = 0

    @property
    def control_plane(self) -> ControlPlane:
        if self._control_plane is None:
            raise RuntimeError("start_control_plane() first")
        return self._control_plane

    def start_control_plane(self, grpc_port: int = 0, web_port: int = 0) -> ControlPlane:
        """Start it, or start it again on the data of the last time; 0 chooses a free port."""
        grpc_port, web_port = (
            chosen or free for chosen, free in zip((grpc_port, web_port), free_ports(2), strict=True)
        )
        grpc, web, data = f"127.0.0.1:{grpc_port}", f"127.0.0.1:{web_port}", self.directory / "control-plane"
        command = [
            sys.executable,
            "-m",
            "control_plane",
            "--data-dir",
            str(data),
            "--grpc",
            grpc,
            "--web",
            web,
        ]
        process = self.tree.start("control-plane", command)
        self._control_plane = ControlPlane(process, grpc, web, data)
        return self._control_plane

    def start_app(self, name: str, command: Sequence[str], sidecar: Sidecar | None = None) -> Process:
        """Start an app; its HTTP_PROXY is the sidecar's outbound port."""
        proxy = f"http://127.0.0.1:{sidecar.outbound}" if sidecar else ""
        return self.tree.start(name, command, {"HTTP_PROXY": proxy})

    def start_sidecar(
        self,
        service: str,
        app_port: int,
        *,
        instance: str = "",
        labels: Mapping[str, str] | None = None,
        ports: tuple[int, int, int] = (0, 0, 0),
        token_file: Path | None = None,
        options: Sequence[str] = (),
    ) -> Sidecar:
        """Start a sidecar beside an app; `ports` are (outbound, inbound, admin), 0 chooses a free one.

        A join token is created for it unless `token_file` is given.
        """
        instance = instance or f"{service}-1"
        outbound, inbound, admin = (chosen or free for chosen, free in zip(ports, free_ports(3), strict=True))
        command = [sys.executable, "-m", "proxy", "--service", service, "--app-port", str(app_port)]
        command += [
            "--instance",
            instance,
            "--address",
            "127.0.0.1",
            "--control-plane",
            self.control_plane.grpc,
        ]
        command += [
            "--outbound-port",
            str(outbound),
            "--inbound-port",
            str(inbound),
            "--admin-port",
            str(admin),
        ]
        command += ["--token-file", str(token_file or self.token(service))]
        command += ["--state-dir", str(self.directory / "state" / instance)]
        for key, value in (labels or {}).items():
            command += ["--label", f"{key}={value}"]
        process = self.tree.start(f"{instance} sidecar", [*command, *options])
        return Sidecar(process, service, instance, outbound, inbound, admin, labels or {})

    def token(self, service: str, lifetime: float = 600) -> Path:
        """A file with a new join token for `service`; lifetime in seconds. Raises grpc.RpcError."""
        request = mesh_pb2.CreateTokenRequest(service=service)
        request.lifetime.FromMicroseconds(round(lifetime * 1e6))
        answer = self._call(lambda api, **how: api.CreateToken(request, **how))
        self._tokens += 1
        path = self.directory / f"{service}-{self._tokens}.token"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(answer.token_file)
        return path

    def apply(self, yaml: str, source: str = "mesh.yaml", dry_run: bool = False) -> Any:
        """The ApplyResponse. Raises grpc.RpcError."""
        document = mesh_pb2.Document(source=source, yaml=yaml)
        request = mesh_pb2.ApplyRequest(documents=[document], dry_run=dry_run)
        return self._call(lambda api, **how: api.Apply(request, **how))

    def get(self) -> Any:
        """The GetResponse for all services. Raises grpc.RpcError."""
        return self._call(lambda api, **how: api.Get(mesh_pb2.GetRequest(), **how))

    def status(self) -> Any:
        """The StatusResponse. Raises grpc.RpcError."""
        return self._call(lambda api, **how: api.Status(mesh_pb2.StatusRequest(), **how))

    def _call(self, method: Callable[..., Any]) -> Any:
        token = TokenFile.load(self.control_plane.token_file)
        with channel(self.control_plane.grpc, token.roots_pem) as opened:
            api = mesh_pb2_grpc.MeshControlStub(opened)
            return method(api, metadata=bearer(token.token), timeout=CALL_TIMEOUT)
