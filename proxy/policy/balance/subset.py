"""Subsets of a cluster's endpoints by their metadata (envoy.config.cluster.v3.Cluster.LbSubsetConfig).

Each combination of values that endpoints have of a selector's keys is a subset with a picker of its own, made when
endpoints change; a request finds its subset with one look-up.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.config.balance import Metadata, Subsets
from proxy.policy.balance.assemble import assemble_level
from proxy.policy.balance.building import Building
from proxy.policy.balance.hosts import Context, H, Picker


def assemble(building: Building, hosts: Sequence[H], overprovisioning: int = 140) -> Picker[H]:
    """The whole picker of a cluster over `hosts`, healthy or not. `overprovisioning`: the assignment's, in percent."""
    subsets = building.config.subsets
    picker: Picker[H]
    if subsets is None:
        picker = assemble_level(building, hosts, overprovisioning)
    else:
        picker = SubsetPicker(building, subsets, hosts, overprovisioning)
    building.finished()
    return picker


class SubsetPicker(Picker[H]):
    """O(1) beside what a pick from the subset costs."""

    __slots__ = ("_fallback", "_fallbacks", "_keys", "_subsets")

    def __init__(self, building: Building, config: Subsets, hosts: Sequence[H], overprovisioning: int) -> None:
        everyone = assemble_level(building, hosts, overprovisioning)
        nobody: Picker[H] = building.leaf(())
        defaults = [host for host in hosts if set(config.default) <= set(host.metadata)]
        default = assemble_level(building, defaults, overprovisioning)
        by_name: dict[str, Picker[H]] = {"ANY_ENDPOINT": everyone, "DEFAULT_SUBSET": default, "NO_FALLBACK": nobody}
        self._fallback = by_name[config.fallback]
        self._fallbacks: dict[tuple[str, ...], Picker[H]] = {}
        self._keys: dict[tuple[str, ...], tuple[str, ...]] = {}
        groups: dict[Metadata, list[H]] = {}
        for selector in config.selectors:
            if selector.fallback == "KEYS_SUBSET":
                self._keys[selector.keys] = selector.fallback_keys
            elif selector.fallback != "NOT_DEFINED":
                self._fallbacks[selector.keys] = by_name[selector.fallback]
            for host in hosts:
                found = tuple([pair for pair in host.metadata if pair[0] in selector.keys])
                if len(found) == len(selector.keys):
                    groups.setdefault(found, []).append(host)
        self._subsets = {key: assemble_level(building, group, overprovisioning) for key, group in groups.items()}

    def pick(self, avoid: Sequence[H] = (), context: Context | None = None) -> H | None:
        """From the subset that the route asks for; where there is none, as its selector's fallback policy says, or else
        the cluster's."""
        wanted: Metadata = () if context is None else context.metadata
        while wanted:
            subset = self._subsets.get(wanted)
            if subset is not None:
                return subset.pick(avoid, context)
            keys = tuple([pair[0] for pair in wanted])
            fewer = self._keys.get(keys)
            if fewer is None:
                return self._fallbacks.get(keys, self._fallback).pick(avoid, context)
            wanted = tuple([pair for pair in wanted if pair[0] in fewer])
        return self._fallback.pick(avoid, context)
