"""run(options): a sidecar's whole life as an exit status. 0: told to stop; 2: bad input; 1: anything else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import sys
from collections.abc import Sequence

from pillion.stdio import ensure_open
from proxy.agent import log
from proxy.agent.agent import Agent
from proxy.agent.errors import StartError
from proxy.agent.options import Options
from proxy.agent.worker_process import COMMAND

logger = logging.getLogger(__name__)


def run(options: Options, worker_command: Sequence[str] = COMMAND) -> int:
    """Run until SIGTERM or SIGINT. Prints one line on stdout when ready, one on stderr when it cannot start."""
    ensure_open()
    log.setup(options.log_level)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines on stderr say less than ours
    _raise_descriptor_limit()
    gc.freeze()
    try:
        return asyncio.run(_run(options, worker_command))
    except KeyboardInterrupt:  # before the signal handlers were in place
        return 130


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system allows, here and in the workers: two go with each proxied connection, and the
    usual soft limit of 1,024 is there for programs that use select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(options: Options, worker_command: Sequence[str]) -> int:
    try:
        return await Agent(options, worker_command).run()
    except StartError as error:
        print(f"pillion proxy: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return 2
    except Exception:
        logger.exception("the agent failed")
        return 1
