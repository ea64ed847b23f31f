"""Which event loop, parser and TLS engine a running proxy has loaded: figures of another build mean something else."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from bench import kernel
from bench.errors import ProxyFailed

_WANTED = {
    "loop": ("uvloop", re.compile(r"/uvloop/loop\.")),
    "tls": ("aiofastnet", re.compile(r"/aiofastnet/ssl_engine\w*\.")),
}
_COMPILED = re.compile(r"/proxy/(?:\w+/)*\w+\.[\w-]+\.so$|__mypyc\.[\w-]+\.so$")  # mypyc's modules, and what they share
_CODEC = re.compile(r"/proxy/http/(h[12])/\w+\.[\w-]+\.so$")


def pillion(agent: int) -> dict[str, str]:
    """What the workers below an agent have mapped. Raises ProxyFailed when it is not what Pillion is built on."""
    workers = [pid for pid in kernel.tree(agent) if "proxy.worker" in kernel.command(pid)]
    if not workers:
        raise ProxyFailed("the agent has no worker")
    return what(_mapped(workers[0]))


def what(files: set[str]) -> dict[str, str]:
    """The same from a list of files. Raises ProxyFailed."""
    found = {}
    for part, (name, pattern) in _WANTED.items():
        if not any(pattern.search(file) for file in files):
            raise ProxyFailed(f"the worker has not loaded {name} ({part}); figures would be of something else")
        found[part] = name
    found["tls"] += f" on {ssl.OPENSSL_VERSION.rsplit(' ', 3)[0]}"
    compiled = any(map(_COMPILED.search, files))
    codecs = sorted({match[1] for file in files if (match := _CODEC.search(file))})
    if not compiled:
        found["parser"] = "proxy.http, interpreted"
    elif codecs:  # else it was not needed: TCP
        found["parser"] = f"proxy.http.{' and '.join(codecs)}, compiled"
    found["compiled"] = "yes" if compiled else "no"
    return found


def peer(name: str, pid: int) -> dict[str, str]:
    """What is known of another proxy's process from outside: the TLS library, if it maps one. Raises ProxyFailed."""
    files = _mapped(pid)
    return {"tls": next((Path(file).name for file in sorted(files) if "/libssl" in file), f"{name}'s own")}


def _mapped(pid: int) -> set[str]:
    try:
        return kernel.mapped(pid)
    except OSError:
        raise ProxyFailed("has ended") from None
