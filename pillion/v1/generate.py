"""Regenerates the stubs from the .proto files: `make protos`, or `python -m pillion.v1.generate [OUTPUT_DIR]`."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ("pillion/v1/mesh.proto", "pillion/demo/payments.proto")


def generate(output: Path) -> None:
    """Write NAME_pb2.py, NAME_pb2.pyi and NAME_pb2_grpc.py of each of PROTOS below `output`. Raises RuntimeError if
    protoc fails."""
    from grpc_tools import protoc  # a development dependency

    well_known = resources.files("grpc_tools") / "_proto"
    status = protoc.main(
        ["protoc", f"-I{ROOT}", f"-I{well_known}", f"--python_out={output}", f"--pyi_out={output}",
         f"--grpc_python_out={output}", *PROTOS]
    )  # fmt: skip
    if status != 0:
        raise RuntimeError(f"protoc failed with status {status} on {', '.join(PROTOS)}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
