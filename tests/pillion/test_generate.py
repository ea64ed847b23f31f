"""The committed stubs are what the .proto files say."""

from __future__ import annotations

from pathlib import Path

from pillion.v1.generate import PROTOS, ROOT, generate


def test_the_committed_stubs_are_those_of_the_protos(tmp_path: Path) -> None:
    generate(tmp_path)
    for stem in (proto.removesuffix(".proto") for proto in PROTOS):
        for path in (f"{stem}_pb2.py", f"{stem}_pb2.pyi", f"{stem}_pb2_grpc.py"):
            assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path}: run `make protos`"
