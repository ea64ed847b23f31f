"""`pillion proxy` with tests.support.channel_worker in the place of its workers. Run as a script, with
python -P: this directory is not to be searched for modules.

usage: agent_with_channel_worker.py MODE ARGUMENTS-OF-PILLION-PROXY...
"""

import sys
from pathlib import Path

from proxy.agent.main import run
from proxy.agent.options import parse

if __name__ == "__main__":
    script = str(Path(__file__).with_name("channel_worker.py"))
    sys.exit(run(parse(sys.argv[2:]), (sys.executable, "-P", script, sys.argv[1])))
