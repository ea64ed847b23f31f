"""Outlier detection of a cluster (envoy.config.cluster.v3.OutlierDetection)."""

from __future__ import annotations

from typing import Any

from proxy.agent.decode.reader import Reader
from proxy.config.cluster import OutlierDetection

_UINT32 = 2**32 - 1
_DEFAULTS = OutlierDetection()
_COUNTS = (
    "consecutive_5xx",
    "consecutive_gateway_failure",
    "consecutive_local_origin_failure",
    "success_rate_minimum_hosts",
    "success_rate_request_volume",
    "success_rate_stdev_factor",
    "failure_percentage_minimum_hosts",
    "failure_percentage_request_volume",
)
_PERCENTAGES = (
    "enforcing_consecutive_5xx",
    "enforcing_consecutive_gateway_failure",
    "enforcing_consecutive_local_origin_failure",
    "enforcing_success_rate",
    "enforcing_local_origin_success_rate",
    "enforcing_failure_percentage",
    "enforcing_failure_percentage_local_origin",
    "failure_percentage_threshold",
    "max_ejection_percent",
)


def read_outlier_detection(reader: Reader) -> OutlierDetection:
    """All of it but `monitors`, which is for Envoy's extensions."""
    found: dict[str, Any] = {name: reader.integer(name, getattr(_DEFAULTS, name), 0, _UINT32) for name in _COUNTS}
    for name in _PERCENTAGES:
        found[name] = reader.integer(name, getattr(_DEFAULTS, name), 0, 100)
    base = reader.seconds("base_ejection_time", _DEFAULTS.base_ejection_time, positive=True)
    # Envoy: "defaults to 300s or the base_ejection_time value, whatever is larger".
    most = reader.seconds("max_ejection_time", max(_DEFAULTS.max_ejection_time, base), positive=True)
    if most < base:
        reader.error(f"must not be less than base_ejection_time, which is {base:g}s", "max_ejection_time")
    return OutlierDetection(
        **found,
        split_external_local_origin_errors=reader.value("split_external_local_origin_errors"),
        interval=reader.seconds("interval", _DEFAULTS.interval, positive=True),
        base_ejection_time=base,
        max_ejection_time=most,
        max_ejection_time_jitter=reader.seconds("max_ejection_time_jitter", 0.0),
        always_eject_one_host=reader.wrapped("always_eject_one_host", False),
        successful_active_health_check_uneject_host=reader.wrapped("successful_active_health_check_uneject_host", True),
    )
