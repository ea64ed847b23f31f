"""`python -m control_plane` is `pillion control-plane`."""

import sys

from control_plane.options import parse
from control_plane.server import run

if __name__ == "__main__":
    sys.exit(run(parse(sys.argv[1:])))
