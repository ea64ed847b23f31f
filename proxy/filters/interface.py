"""What a filter is: one object for each listener, and what it keeps of a request that it wants to change."""

from __future__ import annotations

from typing import Any, Final

from proxy.config.route import RouteConfiguration
from proxy.errors import ErrorKind
from proxy.http.headers import Headers
from proxy.http.heads import RequestHead, ResponseHead
from proxy.routing.table import CompiledRoute
from proxy.telemetry.counters import Counters
from proxy.telemetry.record import Record


class Reply:
    """A response made by a filter. `flag` and `details` go to the access log."""

    __slots__ = ("body", "details", "flag", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes = b"", flag: str = "", details: str = "") -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.flag = flag
        self.details = details


class FilterError(Exception):
    """The request must not go on. `kind` is the reply; the text says why."""

    def __init__(self, kind: ErrorKind, text: str = "") -> None:
        super().__init__(text)
        self.kind = kind


class Transform:
    """What a filter does to the rest of one request, and to its response. What is not overridden changes nothing."""

    __slots__ = ()

    def request(self, chunks: list[bytes], done: bool) -> list[bytes]:
        """More of the request's body, as this filter passes it on. `done`: it is complete. Raises FilterError."""
        return chunks

    def response_head(self, head: ResponseHead, alone: bool) -> None:
        """Change a response's head. `alone`: neither body nor trailers follow.

        Called again with another head when the sidecar answers in place of a response that was held back."""

    def response(self, chunks: list[bytes], done: bool, trailers: Headers) -> list[bytes] | None:
        """More of the response's body, as this filter passes it on; `trailers`, which come with `done`, are changed in
        place. None: nothing may go to the client yet, not even the head, which may still be changed; not when done."""
        return chunks


class Setting:
    """Where a filter works: the routes of its listener, the counters of its process, and how many processes (`workers`)
    share the listener's requests."""

    __slots__ = ("counters", "routes", "workers")

    def __init__(self, routes: RouteConfiguration, counters: Counters, workers: int) -> None:
        self.routes: Final = routes
        self.counters: Final = counters
        self.workers: Final = workers


class Filter:
    """One filter of one listener, made from its config once per snapshot."""

    __slots__ = ()

    def begin(self, setting: Setting, before: Filter | None) -> None:
        """Called once, before any request. `before`: this filter in the listener's last configuration, of which it may
        take over what is to outlive that."""

    def on_request(
        self, head: RequestHead, record: Record, route: CompiledRoute[Any] | None
    ) -> Reply | Transform | None:
        """Pass (None), change or answer a request; a Transform sees the rest of it and its response.

        `record` tells who asks; `route` is None when no route matches."""
        raise NotImplementedError


class Chain:
    """The transforms of one request: the request passes them as its listener lists their filters, the response in
    reverse."""

    __slots__ = ("_head", "_seen", "_transforms")

    def __init__(self, transforms: list[Transform]) -> None:
        self._transforms: Final = transforms
        self._head: ResponseHead | None = None
        self._seen = 0  # how many of them have seen that head

    def request(self, chunks: list[bytes], done: bool) -> list[bytes]:
        """More of the request's body, as it goes to the upstream. Raises FilterError."""
        for transform in self._transforms:
            chunks = transform.request(chunks, done)
        return chunks

    def response(self, head: ResponseHead, chunks: list[bytes], done: bool, trailers: Headers) -> list[bytes] | None:
        """More of the response, as it goes to the client: the body's chunks; `head`, which is to be the same one in
        each call of a response, and `trailers` are changed in place. None: nothing may go to the client yet."""
        if head is not self._head:
            self._head = head
            self._seen = 0
        transforms = self._transforms
        count = len(transforms)
        for index in range(count):
            transform = transforms[count - 1 - index]
            if index >= self._seen:
                self._seen = index + 1
                transform.response_head(head, done and not chunks and not trailers)
            passed = transform.response(chunks, done, trailers)
            if passed is None:
                return None
            chunks = passed
        return chunks


def put(headers: Headers, name: bytes, value: bytes) -> Headers:
    """The headers with one field of that name: where its first one was, else at the end."""
    result: Headers = []
    absent = True
    for pair in headers:
        if pair[0] != name:
            result.append(pair)
        elif absent:
            absent = False
            result.append((name, value))
    if absent:
        result.append((name, value))
    return result
