"""The sidecar. One package answers one question; imports go only downward:

    __main__ → agent → worker → filters | cluster → routing | policy | http | telemetry → config → errors

- config     WHAT SHOULD BE: the frozen model that the agent sends and the worker compiles
- http       WHAT BYTES MEAN: sans-IO parsing and serialising
- policy     WHAT TO DECIDE: pure functions and tables; time and chance are arguments
- routing    WHICH WAY: matchers and the route table
- cluster    WHO CAN SERVE: endpoints, health, the manager that applies a snapshot by diff
- filters    WHO MAY PASS, CHANGED HOW
- telemetry  WHAT HAPPENED: counters, trace context, the access-log line
- worker     WHO MOVES BYTES: the asyncio shell around all of the above
- agent      WHO BRINGS NEWS: xDS, identity, admin, metrics; supervises the workers

Only worker, agent and __main__ import asyncio, socket or ssl; only agent imports grpc and protobuf.
import-linter holds this in `make check`.
"""
