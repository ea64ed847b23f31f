"""The control plane's own metrics, Prometheus conventions."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from control_plane.state import MeshState


class StreamCounts(Protocol):
    """What the ADS side counts."""

    @property
    def streams(self) -> int: ...

    @property
    def pushes(self) -> Mapping[str, int]:
        """Responses sent, by type URL."""

    @property
    def nacks(self) -> Mapping[str, int]:
        """Responses refused, by type URL."""


class Metrics:
    """One registry per control plane."""

    def __init__(self) -> None:
        disable_created_metrics()  # one more series for each counter, and nobody asks for it
        self.registry = CollectorRegistry()
        self.signs = Counter(
            "pillion_certificates_signed",
            "SVIDs signed, by how the caller proved itself",
            ["by"],
            registry=self.registry,
        )
        self.auth_failures = Counter(
            "pillion_authentication_failures",
            "Calls with a bad, used or expired token",
            registry=self.registry,
        )

    def watch(self, state: MeshState, ads: StreamCounts) -> None:
        """Show these two from now on."""
        self.registry.register(_State(state, ads))


class _State(Collector):
    """Reads when it is asked."""

    def __init__(self, state: MeshState, ads: StreamCounts) -> None:
        self._mesh = state
        self._ads = ads

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "pillion_configuration_revision",
            "Revision of the applied configuration",
            value=self._mesh.revision,
        )
        yield GaugeMetricFamily("pillion_services", "Services configured", value=len(self._mesh.services))
        tally = Tally(service for service, _ in self._mesh.instances)
        instances = GaugeMetricFamily("pillion_registered_instances", "Instances with a lease", labels=["service"])
        for service, count in sorted(tally.items()):
            instances.add_metric([service], count)
        yield instances
        yield GaugeMetricFamily("pillion_xds_streams", "Connected ADS streams", value=self._ads.streams)
        yield _by_type("pillion_xds_pushes", "ADS responses sent", self._ads.pushes.items())
        yield _by_type("pillion_xds_nacks", "ADS responses that a client refused", self._ads.nacks.items())


def _by_type(name: str, text: str, counts: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["type"])
    for type_url, count in sorted(counts):
        family.add_metric([type_url.rpartition(".")[2]], count)
    return family
