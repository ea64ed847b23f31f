"""The agent's log: one line per event on stderr, `2026-11-22T21:25:00.123Z INFO  agent  message key=value`."""

from __future__ import annotations

import logging
import sys
import time

LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")
"""Envoy's level names; `trace` is `debug` here, `off` silences everything."""

_NUMBERS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "off": logging.CRITICAL + 10,
}


class Formatter(logging.Formatter):
    """One record, one line: line breaks inside a message are escaped, so that nothing can forge a second one."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        """The line without its end."""
        text = record.getMessage()
        if record.exc_info:
            text += " | " + self.formatException(record.exc_info)
        text = text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        level = "WARN" if record.levelno == logging.WARNING else record.levelname
        return f"{seconds}.{int(record.msecs):03d}Z {level:<5} {self._component:<6} {text}"


def standard(level: str) -> str:
    """The name that the logging module has for one of LEVELS, lower case, as workers take it."""
    return {"trace": "debug", "off": "critical"}.get(level, level)


def set_level(level: str) -> None:
    """Change the level of the whole agent. `level` is one of LEVELS."""
    logging.getLogger().setLevel(_NUMBERS[level])


def setup(level: str) -> None:
    """Send every record of this process to stderr, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter("agent"))
    logging.getLogger().handlers[:] = [handler]
    set_level(level)
    for chatty in ("aiohttp.access", "asyncio", "grpc"):  # their debug lines would bury what matters
        logging.getLogger(chatty).setLevel(logging.WARNING)
