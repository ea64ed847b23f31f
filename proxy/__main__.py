"""`python -m proxy` is `pillion proxy`."""

import sys

from proxy.agent.main import run
from proxy.agent.options import parse

if __name__ == "__main__":
    sys.exit(run(parse(sys.argv[1:], "python -m proxy")))
