"""Regenerates the stubs from mesh.proto: `make protos`, or `python -m pillion.v1.generate [OUTPUT_DIR]`."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTO = "pillion/v1/mesh.proto"


def generate(output: Path) -> None:
    """Write pillion/v1/mesh_pb2{,_grpc}.py and mesh_pb2.pyi below `output`. Raises RuntimeError if protoc fails."""
    from grpc_tools import protoc  # a development dependency

    well_known = resources.files("grpc_tools") / "_proto"
    status = protoc.main(
        ["protoc", f"-I{ROOT}", f"-I{well_known}", f"--python_out={output}", f"--pyi_out={output}",
         f"--grpc_python_out={output}", PROTO]
    )  # fmt: skip
    if status != 0:
        raise RuntimeError(f"protoc failed with status {status} on {PROTO}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
