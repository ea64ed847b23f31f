"""WHAT DOES IT COST: the benchmark behind `pillion bench`.

Rules of this room:
- Proxies are compared in one run, on one core, from equivalent configuration; Pillion and Envoy from the very same
  bootstrap. Measurements take turns (A B A B), and what is compared is the ratio within one turn.
- CPU is what the kernel says that every thread of every process of a sidecar ran, agent included (kernel.py).
- Latency is counted from the moment at which a request was meant to be sent, at a fixed rate: a proxy that stalls
  cannot slow its own test down.
- A figure without its spread is not printed, and neither is one from a run in which a request failed.
- proxy and control_plane know nothing of this room; it starts them as anybody would, as processes.
"""
