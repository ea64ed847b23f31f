"""Run a command that the kernel kills when its parent dies: `python tether.py PARENT_PID COMMAND...`.

prctl(2) PR_SET_PDEATHSIG survives execve(2), so the command keeps this process's id. A program of its own,
because Popen's preexec_fn would run Python code after a fork of a process that has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns: becomes the command, or exits with 126 when it cannot."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        sys.exit(126)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(126)
    os.execvp(command[0], command)  # noqa: S606  # a shell is what we do not want


if __name__ == "__main__":
    main()
