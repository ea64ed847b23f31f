"""WHAT HAPPENED: counters, the trace context, and the access-log line of one request. Pure: values in, values out.

Rules of this room:
- A counter is a slot in a list, resolved by name when the configuration is compiled, never per request.
- The access log's format is compiled once; a line costs one tuple and one interpolation.
"""
