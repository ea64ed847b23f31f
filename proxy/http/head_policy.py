"""What a listener does to the heads that pass it, before and after anything else looks at them.

The options of HttpConnectionManager (envoy.extensions.filters.network.http_connection_manager.v3) that speak of the
path, Host, x-forwarded-for, Via, Server and names with underscores. A listener that asks for none of it has no policy
object at all, so that its requests pay for nothing.
"""

from __future__ import annotations

from ipaddress import ip_address

from proxy import errors
from proxy.config.listener import HttpConnectionManager
from proxy.errors import ErrorKind
from proxy.http.headers import Headers, find
from proxy.http.heads import RequestHead, ResponseHead
from proxy.http.path import PathPolicy, PathRefused, compile_path_policy


class HeadRefused(Exception):
    """The request must not go on. `kind` is the reply; the text says why."""

    def __init__(self, kind: ErrorKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class RequestPolicy:
    """Applied to each request's head as soon as it is there, in Envoy's order."""

    __slots__ = (
        "_append_client",
        "_keep_proto",
        "_path",
        "_strip_any_port",
        "_strip_port",
        "_underscores",
        "_use_remote_address",
        "_via",
    )

    def __init__(self, config: HttpConnectionManager, port: int) -> None:
        self._path: PathPolicy | None = compile_path_policy(
            config.normalize_path, config.merge_slashes, config.path_with_escaped_slashes_action
        )
        self._strip_any_port = config.strip_any_host_port
        self._strip_port = b"%d" % port if config.strip_matching_host_port else b""
        self._underscores = config.headers_with_underscores_action
        self._use_remote_address = config.use_remote_address
        self._append_client = not config.skip_xff_append
        # With trusted proxies in front, what they say of the scheme counts.
        self._keep_proto = config.xff_num_trusted_hops > 0
        self._via = config.via.encode()

    def apply(self, head: RequestHead, client: str) -> None:
        """Change the head as configured. `client` is host:port of the connection's other end.

        Raises HeadRefused, and PathRedirected (see proxy.http.path)."""
        if self._underscores != "ALLOW":
            self._check_names(head)
        if head.method != b"CONNECT":
            if self._strip_any_port or self._strip_port:
                head.authority = self._stripped(head.authority)
            if self._path is not None:
                try:
                    head.target = self._path.rewrite(head.target)
                except PathRefused as refused:
                    raise HeadRefused(errors.PATH_REFUSED, str(refused)) from None
        if self._use_remote_address:
            self._add_client(head, client)
        if self._via:
            head.headers.append((b"via", self._via))  # RFC 9110 §7.6.3

    def _check_names(self, head: RequestHead) -> None:
        """Some servers take X_Y for X-Y, and so believe a client's word for a proxy's."""
        kept = [pair for pair in head.headers if b"_" not in pair[0]]
        if len(kept) < len(head.headers):
            if self._underscores == "REJECT_REQUEST":
                raise HeadRefused(errors.BAD_REQUEST, "a header name with an underscore")
            head.headers = kept

    def _stripped(self, authority: bytes) -> bytes:
        host, colon, port = authority.rpartition(b":")
        if colon and port.isdigit() and (self._strip_any_port or port == self._strip_port):
            return host
        return authority

    def _add_client(self, head: RequestHead, client: str) -> None:
        """Our client's address goes behind what it claims in x-forwarded-for."""
        if self._append_client:
            address = client.rpartition(":")[0].strip("[]").encode()
            claimed = find(head.headers, b"x-forwarded-for")
            if claimed is not None:
                head.headers = [pair for pair in head.headers if pair[0] != b"x-forwarded-for"]
                address = claimed + b"," + address
            head.headers.append((b"x-forwarded-for", address))
        if not self._keep_proto:
            head.forwarded_proto = None  # the connection's own scheme is sent


def compile_request_policy(config: HttpConnectionManager, port: int) -> RequestPolicy | None:
    """None when the configuration asks for nothing. `port` is the listener's."""
    wanted = (
        config.normalize_path
        or config.merge_slashes
        or config.path_with_escaped_slashes_action != "KEEP_UNCHANGED"
        or config.strip_any_host_port
        or config.strip_matching_host_port
        or config.headers_with_underscores_action != "ALLOW"
        or config.use_remote_address
        or config.via
    )
    return RequestPolicy(config, port) if wanted else None


class ResponsePolicy:
    """What constant lines cannot do to a response: leave Server to the upstream, and name the request's id."""

    __slots__ = ("_absent_server", "_keep_server", "_request_id")

    def __init__(self, config: HttpConnectionManager) -> None:
        transformation = config.server_header_transformation
        self._keep_server = transformation != "OVERWRITE"
        self._absent_server = config.server_name.encode() if transformation == "APPEND_IF_ABSENT" else None
        self._request_id = config.always_set_request_id_in_response

    def apply(self, head: ResponseHead, request_id: bytes | None) -> None:
        """Add what is missing to the headers of a response, the upstream's or ours."""
        if self._keep_server:
            server = head.server if head.server is not None else self._absent_server
            if server is not None:
                head.headers.append((b"server", server))
        if self._request_id and request_id is not None:
            head.headers = [pair for pair in head.headers if pair[0] != b"x-request-id"]
            head.headers.append((b"x-request-id", request_id))


def compile_response_policy(config: HttpConnectionManager) -> ResponsePolicy | None:
    """None when the constant lines are all."""
    overwrite = config.server_header_transformation == "OVERWRITE"
    return None if overwrite and not config.always_set_request_id_in_response else ResponsePolicy(config)


def response_fields(config: HttpConnectionManager) -> Headers:
    """The fields that every response of a listener gets: Server, Via."""
    fields = [(b"server", config.server_name.encode())] if config.server_header_transformation == "OVERWRITE" else []
    return [*fields, (b"via", config.via.encode())] if config.via else fields


def xff_index(config: HttpConnectionManager) -> int:
    """Which address of x-forwarded-for, as it is sent on, is the client's: counted from the end, 0 is the last one. -1:
    none, the connection's own address counts (Envoy: use_remote_address, xff_num_trusted_hops)."""
    hops = config.xff_num_trusted_hops
    if not config.use_remote_address:
        return hops
    if not hops:
        return -1
    return hops - 1 if config.skip_xff_append else hops


def forwarded_client(headers: Headers, index: int) -> str:
    """The address at `index` of x-forwarded-for, with port 0 as in Envoy; "" when there is none or it is no address."""
    value = find(headers, b"x-forwarded-for")
    if value is None or index < 0:
        return ""
    addresses = value.split(b",")
    if len(addresses) <= index:
        return ""
    try:
        address = ip_address(addresses[-1 - index].strip(b" \t").decode("latin-1"))
    except ValueError:
        return ""
    return f"[{address}]:0" if address.version == 6 else f"{address}:0"
