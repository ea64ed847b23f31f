"""The whole picker of a cluster: its policy below what priorities, localities and health make of its endpoints.

All of that is decided when endpoints or their health change. A cluster of one priority without locality weights has
just the picker of its policy, and its picks cost what that costs.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.policy.balance.building import Building
from proxy.policy.balance.hosts import H, Picker
from proxy.policy.balance.priority import Level, loads
from proxy.policy.balance.split import Split


def assemble_level(building: Building, hosts: Sequence[H], overprovisioning: int) -> Picker[H]:
    """The picker over `hosts`, healthy or not. `overprovisioning`: ClusterLoadAssignment's factor, in percent."""
    by_priority: dict[int, list[H]] = {}
    for host in hosts:
        by_priority.setdefault(host.locality.priority, []).append(host)
    groups = [by_priority[priority] for priority in sorted(by_priority)]
    healthy = [[host for host in group if host.serving] for group in groups]
    degraded = [[host for host in group if host.degraded] for group in groups]
    levels = [Level(len(groups[i]), len(healthy[i]), len(degraded[i])) for i in range(len(groups))]
    parts: list[tuple[float, Picker[H]]] = []
    spare: list[tuple[float, Picker[H]]] = []
    for i, load in enumerate(loads(levels, overprovisioning, building.config.healthy_panic_threshold)):
        if load.panic:
            parts.append((float(load.healthy), building.leaf(groups[i])))
            continue
        if healthy[i]:
            parts.append((float(load.healthy), _level(building, healthy[i], groups[i], overprovisioning)))
        if degraded[i]:
            spare.append((float(load.degraded), _level(building, degraded[i], groups[i], overprovisioning)))
    parts += spare
    if not parts:
        return building.leaf(())
    return parts[0][1] if len(parts) == 1 else Split(parts, building.draw, building.hashed)


def _level(building: Building, serving: Sequence[H], all_hosts: Sequence[H], overprovisioning: int) -> Picker[H]:
    """The endpoints of one priority that serve; by the weights of their localities (locality_weighted_lb_config)."""
    if not building.config.locality_weighted:
        return building.leaf(serving)
    totals: dict[object, int] = {}
    for host in all_hosts:
        totals[host.locality] = totals.get(host.locality, 0) + 1
    groups: dict[object, list[H]] = {}
    shares: dict[object, float] = {}
    for host in serving:
        groups.setdefault(host.locality, []).append(host)
    for key, group in groups.items():
        # What a locality lacks in health beyond the overprovisioning goes to the others.
        health = min(1.0, overprovisioning / 100 * len(group) / totals[key])
        shares[key] = group[0].locality.weight * health
    groups = {key: group for key, group in groups.items() if shares[key] > 0}  # one without a weight gets nothing
    if building.hashed:
        # One ring or table over all, or the same key would be looked for in several.
        weights = []
        for key, group in groups.items():
            size = sum(host.weight for host in group)
            weights += [shares[key] * host.weight / size for host in group]
        return building.leaf([host for group in groups.values() for host in group], weights)
    if len(groups) == 1:
        return building.leaf(next(iter(groups.values())))
    return Split([(shares[key], building.leaf(group)) for key, group in groups.items()], building.draw)
