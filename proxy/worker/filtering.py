"""Where HTTP filters (proxy.filters) meet an exchange. Called only on listeners that have filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.filters import Chain, FilterError, Reply, Transform
from proxy.http.headers import Headers, find
from proxy.http.heads import RequestMessage, ResponseHead

if TYPE_CHECKING:
    from proxy.worker.exchange import Exchange


class Filtering:
    """The filters that want to see the rest of one exchange.

    While there is one, the exchange's message is not what the client's connection reads into, but what of that has
    passed the filters. `held` is the head of a response that they hold back."""

    __slots__ = ("_chain", "_source", "held")

    def __init__(self, transforms: list[Transform], source: RequestMessage) -> None:
        self._chain: Final = Chain(transforms)
        self._source: Final = source
        self.held: ResponseHead | None = None

    def request(self, exchange: Exchange) -> bool:
        """More of the request arrived, or its end. False: it was refused, and is answered."""
        source, message = self._source, exchange.message
        chunks, source.body = source.body, []
        message.done = source.done
        message.trailers = source.trailers
        message.sensitive = source.sensitive
        try:
            passed = self._chain.request(chunks, source.done)
        except FilterError as error:
            exchange.reply(error.kind, str(error), as_http=True)
            return False
        # The access log tells what the client sent.
        exchange.bytes_received += size(chunks) - size(passed)
        message.body += passed
        return True

    def response(self, head: ResponseHead, chunks: list[bytes], done: bool, trailers: Headers) -> list[bytes] | None:
        """More of the response; see Chain."""
        passed = self._chain.response(head, chunks, done, trailers)
        self.held = head if passed is None else None
        return passed


def admit_filtered(exchange: Exchange) -> bool:
    """Show a request to the listener's filters. False: it is answered."""
    head, source, route = exchange.head, exchange.message, exchange.route
    transforms: list[Transform] = []
    for http_filter in exchange.state.filters:
        found = http_filter.on_request(head, exchange, route)
        if isinstance(found, Transform):
            transforms.append(found)
        elif found is not None:
            _use(exchange, transforms, source)
            _answer(exchange, found)
            return False
    filtering = _use(exchange, transforms, source)
    return filtering is None or filtering.request(exchange)


def _use(exchange: Exchange, transforms: list[Transform], source: RequestMessage) -> Filtering | None:
    if not transforms:
        return None
    exchange.filtering = filtering = Filtering(transforms, source)
    exchange.message = message = RequestMessage(exchange.head)
    message.done = source.done
    return filtering


def _answer(exchange: Exchange, reply: Reply) -> None:
    exchange.flags, exchange.details = reply.flag, reply.details
    exchange.grpc_status = find(reply.headers, b"grpc-status") or b""
    exchange._respond_whole(ResponseHead(reply.status, b"", reply.headers), reply.body)


def size(chunks: list[bytes]) -> int:
    """Bytes of all of them together."""
    total = 0
    for chunk in chunks:
        total += len(chunk)
    return total
