"""A header's value with command operators (envoy.config.core.v3.HeaderValue): as in an access log, but what is absent
is empty."""

from __future__ import annotations

from proxy.telemetry.access_log import parse
from proxy.telemetry.operators import Field
from proxy.telemetry.record import Record


class HeaderValue:
    """A compiled value."""

    __slots__ = ("_fields", "_literals")

    def __init__(self, literals: list[str], fields: list[Field]) -> None:
        self._literals = literals
        self._fields = fields

    def write(self, record: Record) -> str:
        """The value for the request that `record` tells of."""
        parts = [self._literals[0]]
        for index, field in enumerate(self._fields):
            if field.json(record) != "null":  # what every operator says of something absent
                parts.append(field.text(record))
            parts.append(self._literals[index + 1])
        return "".join(parts)


def compile_header_value(form: str) -> HeaderValue:
    """Raises ValueError for a form with an unknown operator."""
    return HeaderValue(*parse(form))
