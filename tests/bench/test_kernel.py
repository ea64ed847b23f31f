"""What is read from /proc, against processes whose behaviour is known."""

import os
import subprocess
import sys
import time

import pytest

from bench import kernel, loaded
from bench.errors import ProxyFailed

BUSY = "import os, time\nuntil = time.process_time() + 0.2\nwhile time.process_time() < until: pass\nprint(flush=True)\ninput()"
CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"

FIRST = """\
5580-5590 r-xp 00001000 08:01 42                         /usr/bin/proxy
Rss:                 300 kB
Pss:                 120 kB
Shared_Clean:        200 kB
Shared_Dirty:          0 kB
Private_Clean:       100 kB
Private_Dirty:         0 kB
7f00-7f10 rw-p 00000000 00:00 0
Rss:                  50 kB
Pss:                  50 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:        50 kB
VmFlags: rd wr mr
"""
SECOND = """\
6680-6690 r-xp 00001000 08:01 42                         /usr/bin/proxy
Rss:                 260 kB
Pss:                 100 kB
Shared_Clean:        250 kB
Private_Clean:        10 kB
"""


def test_memory_counts_what_the_tree_shares_once() -> None:
    found = kernel.of_smaps([FIRST, SECOND])
    assert found.pss == 270 * 1024
    assert found.alone == (100 + 50 + 10 + 250) * 1024


def test_memory_of_this_process_is_plausible() -> None:
    found = kernel.memory(os.getpid())
    assert 5_000_000 < found.pss <= found.alone


def test_cpu_counts_children_too() -> None:
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert len(kernel.tree(process.pid)) == 2
        used = kernel.cpu_seconds([process.pid])
        assert 0.2 <= used < 5
        time.sleep(0.05)
        assert kernel.cpu_seconds([process.pid]) == pytest.approx(used, abs=0.02)  # both wait
    finally:
        process.communicate(b"\n", timeout=10)
    assert kernel.cpu_seconds([process.pid]) == 0


def test_pinned_holds_for_what_is_started_inside() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with kernel.pinned(core):
        output = subprocess.check_output([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], text=True)
    assert output.strip() == str({core})
    assert os.sched_getaffinity(0) == before


LOADED = {"/v/uvloop/loop.cpython-311-x86_64-linux-gnu.so", "/v/aiofastnet/ssl_engine.cpython-311-x86_64-linux-gnu.so"}


def test_what_a_worker_has_loaded() -> None:
    found = loaded.what(LOADED)
    assert (found["loop"], found["compiled"]) == ("uvloop", "no")
    assert found["tls"].startswith("aiofastnet on OpenSSL ")
    assert found["parser"].endswith("interpreted")


def test_mypyc_modules_are_seen() -> None:
    modules = {f"/s/proxy/http/{codec}/m.cpython-311-x86_64-linux-gnu.so" for codec in ("h2", "h1")}
    found = loaded.what(LOADED | modules)
    assert (found["parser"], found["compiled"]) == ("proxy.http.h1 and h2, compiled", "yes")
    assert loaded.what(LOADED | {"/s/abc123__mypyc.cpython-311-x86_64-linux-gnu.so"})["compiled"] == "yes"


@pytest.mark.parametrize("missing", ["uvloop", "aiofastnet"])
def test_another_loop_or_tls_engine_is_refused(missing: str) -> None:
    with pytest.raises(ProxyFailed, match=f"has not loaded {missing}"):
        loaded.what({file for file in LOADED if missing not in file})
