"""Active health checks: the agent asks each endpoint of a cluster that wants it whether it is well.

- `probe`: one question to one endpoint, in HTTP/1.1, HTTP/2, gRPC or plain TCP, over a connection of its own.
- `checks`: who is asked when, and what that makes of the endpoints (the rules are in policy/health_check.py).
"""
