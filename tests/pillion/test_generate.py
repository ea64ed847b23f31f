"""The committed stubs are what mesh.proto says."""

from __future__ import annotations

from pathlib import Path

from pillion.v1.generate import ROOT, generate


def test_the_committed_stubs_are_those_of_the_proto(tmp_path: Path) -> None:
    generate(tmp_path)
    for name in ("mesh_pb2.py", "mesh_pb2.pyi", "mesh_pb2_grpc.py"):
        path = Path("pillion/v1") / name
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path}: run `make protos`"
