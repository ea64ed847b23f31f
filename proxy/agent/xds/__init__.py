"""WHAT DOES THE CONTROL PLANE SAY? The client's side of xDS v3, state of the world, aggregated (ADS).

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol

Rules of this room:
- protocol.py decides (what to ask for, what to accept) without I/O; client.py only carries messages.
- A response is accepted whole or refused whole; what was accepted before stays.
- A lost stream loses nothing: the last good resources serve until the control plane says otherwise.
"""
