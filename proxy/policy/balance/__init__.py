"""WHICH ENDPOINT: pickers over a fixed list of hosts. A change of hosts makes a new picker.

A picker gives a host that is not among those to avoid (already tried), any host when all are to be avoided, and None
only when there are none. A pick is O(1) or O(log n) in the number of hosts; avoiding costs more, and happens only on
a retry.
"""

from __future__ import annotations

from proxy.policy.balance.building import Building
from proxy.policy.balance.hosts import Context, Picker
from proxy.policy.balance.subset import assemble

__all__ = ["Building", "Context", "Picker", "assemble"]
