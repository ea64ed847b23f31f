"""Faults (envoy.extensions.filters.http.fault.v3.HTTPFault)."""

from __future__ import annotations

import re

from proxy.agent.decode.matchers import decode_header_matcher
from proxy.agent.decode.reader import Reader, join
from proxy.config.fault import Fault, FaultAbort, FaultDelay

DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")  # GEP-2257
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def read_fault(reader: Reader) -> Fault:
    """An HTTPFault."""
    reader.strict = True  # an experiment without one of its conditions is another experiment
    delay, abort = reader.child("delay"), reader.child("abort")
    return Fault(
        _delay(delay) if delay else None,
        _abort(abort) if abort else None,
        reader.text("upstream_cluster"),
        tuple(decode_header_matcher(inner) for inner in reader.children("headers")),
        tuple(reader.value("downstream_nodes")),
        reader.wrapped("max_active_faults", None),
        _duration(reader),
    )


def read_fraction(reader: Reader | None) -> float:
    """envoy.type.v3.FractionalPercent as 0 to 1; 0 when it is absent, as in Envoy."""
    if reader is None:
        return 0.0
    numerator: int = reader.value("numerator")
    denominator = reader.enum("denominator", DENOMINATORS)
    if numerator > denominator:
        reader.error(f"must not be more than 100 percent, not {numerator}/{denominator}")
    return numerator / denominator


def _delay(reader: Reader) -> FaultDelay:
    kind = reader.one_of("fault_delay_secifier", "fixed_delay", "header_delay")  # so it is spelt in the proto
    seconds = None
    if kind == "fixed_delay":
        seconds = reader.seconds("fixed_delay", 0.0, positive=True)
    elif kind == "header_delay":
        reader.child("header_delay")
    return FaultDelay(seconds, read_fraction(reader.child("percentage")))


def _abort(reader: Reader) -> FaultAbort:
    kind = reader.one_of("error_type", "http_status", "grpc_status", "header_abort")
    http_status: int | None = None
    grpc_status: int | None = None
    if kind == "http_status":
        http_status = reader.value("http_status")
        if not 200 <= (http_status or 0) < 600:  # the proto's own validation rule
            reader.error(f"must be within 200 and 599, not {http_status}", "http_status")
    elif kind == "grpc_status":
        grpc_status = reader.value("grpc_status")
    elif kind == "header_abort":
        reader.child("header_abort")
    return FaultAbort(http_status, grpc_status, read_fraction(reader.child("percentage")))


def _duration(reader: Reader) -> float:
    """filter_metadata: {pillion: {duration: "10m"}}, in seconds. What else is there is not for us."""
    fields = reader.opaque("filter_metadata").fields
    if not reader.has("filter_metadata") or "pillion" not in fields:
        return 0.0
    path = "filter_metadata.pillion"
    ours = fields["pillion"].struct_value.fields
    for name in ours:
        if name != "duration":
            reader.unsupported("this field is not supported", join(path, name))
    text = ours["duration"].string_value if "duration" in ours else ""
    seconds = sum(float(count) * _UNITS[unit] for count, unit in re.findall(r"([0-9]+)(ms|[hms])", text))
    if not _DURATION.fullmatch(text) or not seconds:
        reader.error(f"must be a duration such as 10m or 1m30s, not {text!r}", join(path, "duration"))
    return seconds
