"""Header policy: a real Envoy and a real worker, from the same fields, send the same on and answer the same."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from proxy.agent.decode.bootstrap import decode_bootstrap
from tests.support.bootstraps import address, bootstrap, parts
from tests.support.envoy import MISSING, envoy
from tests.support.worker import Worker, upstream, worker

pytestmark = [pytest.mark.envoy, pytest.mark.skipif(MISSING, reason="no envoy beside this Python")]

Seen = tuple[bytes, dict[bytes, bytes]]
"""A start line and the fields that matter, several of a name joined."""
OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"


def add(key: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD", **more: Any) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": action, **more}


def level(name: str) -> dict[str, Any]:
    """Mutations of one level, told apart by its name."""
    return {
        "request_headers_to_add": [
            add("x-all", name),
            add("x-last", name, OVERWRITE),
            add("x-here", "%REQ(x-b)%%REQ(x-nowhere)%!", "OVERWRITE_IF_EXISTS"),
            add("x-absent", name, "ADD_IF_ABSENT"),
            add("x-empty", "%REQ(x-nowhere)%"),
            add("x-kept", "%REQ(x-nowhere)%", keep_empty_value=True),
            add(f"x-again-{name}", "yes"),
        ],
        "request_headers_to_remove": ["x-secret", f"x-again-{name}"],
        "response_headers_to_add": [add("x-all", name), add("x-last", name, OVERWRITE)],
        "response_headers_to_remove": ["x-inner"],
    }


# (fields of the connection manager, of the route configuration, of the virtual host, of the routes)
CONFIGS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({}, {}, {}, {}),
    ({"use_remote_address": True}, {}, {}, {}),
    ({"use_remote_address": True, "xff_num_trusted_hops": 1}, {}, {}, {}),
    ({"use_remote_address": True, "skip_xff_append": True}, {}, {}, {}),
    ({"use_remote_address": True, "preserve_external_request_id": True}, {}, {}, {}),
    ({"generate_request_id": False}, {}, {}, {}),
    ({"always_set_request_id_in_response": True}, {}, {}, {}),
    ({"via": "1.1 here"}, {}, {}, {}),
    ({"server_header_transformation": "APPEND_IF_ABSENT"}, {}, {}, {}),
    ({"server_header_transformation": "PASS_THROUGH"}, {}, {}, {}),
    ({"common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}}, {}, {}, {}),
    ({"common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"}}, {}, {}, {}),
    ({"strip_any_host_port": True}, {}, {}, {}),
    ({"strip_matching_host_port": True}, {}, {}, {}),
    ({"http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "old"}}, {}, {}, {}),
    ({"http_protocol_options": {"allow_absolute_url": False}}, {}, {}, {}),
    ({"normalize_path": True, "merge_slashes": True}, {}, {}, {}),
    ({"path_with_escaped_slashes_action": "REJECT_REQUEST"}, {}, {}, {}),
    ({"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"}, {}, {}, {}),
    ({}, level("configuration"), level("host"), level("route")),
    (
        {},
        {**level("configuration"), "most_specific_header_mutations_wins": True},
        level("host"),
        level("route"),
    ),
]

CLAIMS = b"x-forwarded-for: 1.2.3.4, 5.6.7.8\r\nx-forwarded-proto: https\r\nx-request-id: mine\r\nvia: 1.0 before\r\n"
FIELDS = (
    b"x-b: 7\r\nx_c: 8\r\nx-secret: 9\r\nx-here: 10\r\nx-absent: 11\r\nx-all: 12\r\nx-last: 13\r\nx-again-host: 14\r\n"
)
REQUESTS = [
    b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /x HTTP/1.1\r\nhost: a\r\n" + CLAIMS + b"\r\n",
    b"GET /x HTTP/1.1\r\nhost: a\r\n" + FIELDS + b"\r\n",
    b"GET /x/bare HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /x HTTP/1.1\r\nhost: a:80\r\n\r\n",
    b"GET /x HTTP/1.1\r\nhost: a:@PORT\r\n\r\n",
    b"GET /x HTTP/1.0\r\nhost: a\r\n\r\n",
    b"GET http://b/x HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /y/..//x//%41%2Fb?c=//%2f HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /direct HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n",
]


def manager(index: int) -> dict[str, Any]:
    http, configuration, host, route = CONFIGS[index]
    routes = [
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}, **route},
        {"match": {"prefix": "/x"}, "route": {"cluster": "app"}, **route},
        {"match": {"prefix": "/y"}, "route": {"cluster": "app"}, **route},
    ]
    hosts = [{"name": "all", "domains": ["*"], "routes": routes, **host}]
    return {"route_config": {"name": "r", "virtual_hosts": hosts, **configuration}, "server_name": "here", **http}


def cluster(port: int) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
    assignment = {"cluster_name": "app", "endpoints": endpoints}
    return {"name": "app", "type": "STATIC", "connect_timeout": "2s", "load_assignment": assignment}


def seen(head: bytes) -> Seen:
    """What both must agree on: not the date, not what only one of them adds or how it frames."""
    start, *lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b": ")
        name = name.lower().rstrip(b":")
        if name.startswith((b"x-envoy-", b"content-")) or name in (b"date", b"connection", b"transfer-encoding"):
            continue
        value = re.sub(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", b"made", value.replace(b", ", b","))
        fields[name] = fields[name] + b"," + value if name in fields else value
    fields[b"host"] = re.sub(rb":[0-9]{4,}$", b":@PORT", fields.get(b"host", b""))
    # Envoy names an address of its own for a client on the loopback.
    forwarded = fields.get(b"x-forwarded-for", b"").split(b",")
    if forwarded[-1] not in (b"", b"5.6.7.8"):
        fields[b"x-forwarded-for"] = b",".join([*forwarded[:-1], b"client"])
    return start.replace(b"HTTP/1.0", b"HTTP/1.1"), fields


class App:
    """Keeps the head of each request."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            more = b"" if b"/bare" in head else b"server: app\r\nvia: 1.1 app\r\nx-inner: 1\r\nx-all: up\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\n" + more + b"content-length: 0\r\n\r\n")

    def take(self) -> list[Seen]:
        heads, self.heads = self.heads, []
        return [seen(head) for head in heads]


async def ask(port: int, request: bytes) -> bytes:
    """The head of the answer on a new connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.replace(b"@PORT", b"%d" % port))
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def configure(one: Worker, fields: dict[str, Any], app: int) -> None:
    values = bootstrap()
    places = parts(values)
    places["listener"]["address"] = address(one.port)
    places["hcm"].update(fields)
    values["static_resources"]["clusters"] = [cluster(app)]
    assert await one.apply(decode_bootstrap(json.dumps(values), "same.json").snapshot) is None


async def test_the_same_fields_mean_the_same(tmp_path: Path) -> None:
    app = App()
    managers = [manager(index) for index in range(len(CONFIGS))]
    async with worker() as one, upstream(app) as port:
        with envoy(tmp_path, managers, (cluster(port),)) as judge:
            for index, fields in enumerate(managers):
                await configure(one, fields, port)
                for request in REQUESTS:
                    theirs = seen(await ask(judge.ports[index], request)), app.take()
                    ours = seen(await ask(one.port, request)), app.take()
                    assert ours == theirs, (CONFIGS[index], request)
