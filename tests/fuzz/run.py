"""Fuzzing by hand: `python -m tests.fuzz.run --seconds 60`. A failure prints its seed: `--seed` plays it again."""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import traceback

from tests.fuzz.fuzzing import check, make

GROWTH = 32 * 1024
"""KiB that the process may grow by once it is warm."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", help="play this one case")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        one = make(arguments.seed)
        print(one.side, one.cuts, one.data.hex())
        check(one)
        return
    began, base, count, warm = time.monotonic(), random.randrange(1 << 32), 0, 0
    while time.monotonic() - began < arguments.seconds:
        seed = f"{base}-{count}"
        try:
            check(make(seed))
        except Exception:  # whatever it is, it is what we look for
            traceback.print_exc()
            sys.exit(f"seed {seed}")
        count += 1
        if count == 5000:
            warm = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - warm if warm else 0
    print(f"{count} cases, {grown} KiB more than after the first 5000")
    if grown > GROWTH:
        sys.exit("it grows")


if __name__ == "__main__":
    main()
