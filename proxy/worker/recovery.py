"""What an exchange does when something goes wrong: try again where that repeats nothing, else answer or break off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy import errors
from proxy.errors import ErrorKind
from proxy.http import grpc
from proxy.http.headers import UNSENT_HEADER, Headers
from proxy.http.heads import ResponseHead
from proxy.policy import retry
from proxy.worker.policies import edit_response
from proxy.worker.retrying import Retrying

if TYPE_CHECKING:
    from proxy.http.heads import ResponseMessage

_OVERFLOW: Final = errors.OVERFLOW.flag.encode()


class Recovery(Retrying):
    """The base of Exchange: its ways out. Exchange makes the tries."""

    __slots__ = ()

    def _respond_whole(self, head: ResponseHead, body: bytes) -> None:
        raise NotImplementedError

    def _finish(self, keep: bool) -> None:
        raise NotImplementedError

    def _judge(self, message: ResponseMessage) -> bool:
        """Health and retry decide on a response head. True: it is dropped and the request goes elsewhere."""
        cluster, endpoint, head = self.cluster, self.endpoint, message.head
        assert cluster is not None
        assert endpoint is not None
        status = head.status
        if status < 500 and head.unsent is None:
            # A gRPC call says at its end how it went.
            if cluster.outlier is not None and not self.grpc:
                self.state.pool.outliers.answered(cluster, endpoint, status)
            return (status >= 400 or self.grpc) and self._retries_answer(message)
        if head.unsent is not None and self.upstream is not None and self.upstream.trusted:
            # The sidecar over there could not reach its app: as good as a failed connection.
            if head.unsent != _OVERFLOW:  # its limits are no illness
                self._count_failure(503)
            upstream, self.upstream = self.upstream, None
            if self._retries_unsent():
                upstream.end_exchange()
                return True
            self.upstream = upstream
            unsent = head.unsent.decode("latin-1")
            self.flags = unsent if unsent in errors.UNSENT_FLAGS else errors.CONNECT_FAILURE.flag
            return False
        if cluster.outlier is not None:
            self.state.pool.outliers.answered(cluster, endpoint, status)
        return self._retries_answer(message)

    def _judge_call(self) -> None:
        """Health looks at the status of a gRPC call whose response was not an error of HTTP."""
        cluster, endpoint = self.cluster, self.endpoint
        if cluster is not None and endpoint is not None and cluster.outlier is not None and self.status < 500:
            status = grpc.http_status(self.grpc_status) if self.grpc_status else self.status
            self.state.pool.outliers.answered(cluster, endpoint, status)

    def on_connect_failure(self, text: str) -> None:
        """The pool could not open a connection for this exchange."""
        self.waiting = False
        self._count_failure(503)
        if not self._retries_unsent():
            self.reply(errors.CONNECT_FAILURE, text)

    def on_overflow(self, text: str) -> None:
        """The pool has no room; nothing was tried and no endpoint is to blame."""
        self.reply(errors.OVERFLOW, text)

    def on_upstream_lost(self, reused: bool, answered: bool, text: str) -> None:
        """The connection ended before the response was whole; `answered`: some byte of it had come."""
        self.upstream = None
        self._count_failure(503)
        if self.response_started:
            self._cut("UC", text)
            return
        if not answered:
            if not self._stale_retried and retry.on_stale(self.head.method, reused) and self._is_repeatable():
                self._stale_retried = True
                self._again(0.0)
                return
            if self._retries_unanswered():
                return
        self.reply(errors.CONNECTION_TERMINATED, text)

    def on_refused(self, text: str) -> None:
        """The upstream says that it has not looked at the request: GOAWAY or REFUSED_STREAM (RFC 9113 §8.7). Once it
        goes elsewhere whatever the route says; after that it is one of the retries that the route allows."""
        self.upstream = None
        if self.response_started:
            self._cut(errors.REFUSED.flag, text)
        elif not self._stale_retried and self._is_repeatable():
            self._stale_retried = True
            self._again(0.0)
        elif not self._retries_unsent():
            self.reply(errors.REFUSED, text)

    def on_upstream_reset(self, text: str) -> None:
        """The upstream reset the stream of the request; its connection goes on."""
        self.upstream = None
        self._count_failure(503)
        if self.response_started:
            self._cut(errors.UPSTREAM_RESET.flag, text)
            return
        if not self._retries_unanswered():
            self.reply(errors.UPSTREAM_RESET, text)

    def on_upstream_error(self, text: str) -> None:
        """The upstream broke HTTP; its connection is closed."""
        self.upstream = None
        self._count_failure(502)
        if self.response_started:
            self._cut("UPE", text)
        else:
            self.reply(errors.UPSTREAM_PROTOCOL_ERROR, text)

    def on_deadline(self, now: float) -> None:
        """The route's timeout has passed."""
        if not self.response_started:  # what is late in the middle of its answer may be long, not ill
            self._count_late()
        if self.response_started:
            self._cut("UT", "route timeout")
        else:
            self.reply(errors.UPSTREAM_TIMEOUT, f"{now - self.started:.3f}s")

    def on_try_deadline(self) -> None:
        """What `try_deadline` stands for has come."""
        self.try_deadline = 0.0
        if self.endpoint is None:
            self._try()
            return
        if self.response_started:
            return  # what has begun may take as long as the route allows
        self._count_late()
        upstream, self.upstream = self.upstream, None
        if self._retries_late():
            if upstream is not None:
                upstream.abort()
        else:
            self.upstream = upstream
            self.reply(errors.UPSTREAM_TIMEOUT, "per_try_timeout")

    def on_request_timeout(self) -> None:
        """The listener's request_timeout has passed, and part of the request is missing."""
        self.reply(errors.REQUEST_TIMEOUT)

    def on_stream_too_long(self) -> None:
        """max_stream_duration has passed."""
        self.reply(errors.STREAM_TOO_LONG if self.message.done else errors.REQUEST_TIMEOUT, "max_stream_duration")

    def on_idle(self) -> None:
        """No byte moved for the stream idle timeout."""
        if self.response_started:
            self._cut("SI", "stream idle timeout")
        else:
            self.reply(errors.RESPONSE_IDLE if self.message.done else errors.STREAM_IDLE)

    def on_downstream_lost(self) -> None:
        """The client is gone; nobody waits for the answer."""
        if self.ended:
            return
        self.flags = self.flags or errors.DOWNSTREAM_GONE.flag
        if self.tunnel and self.message.done and self.upstream is not None:
            # It had said its end, and the upstream gets all that came before.
            upstream, self.upstream = self.upstream, None
            upstream.finish()
        self._drop_upstream()
        self._finish(False)

    def _count_late(self) -> None:
        """The endpoint did not answer in time; not so, if the request still waits for a connection: that this one's
        limits do not allow is no fault of the endpoint, and one that cannot be had is counted by the pool."""
        held = self.injection is not None and self.injection.holding  # by a fault, as if the endpoint were slow
        if held or self.upstream is not None:
            self._count_failure(504)

    def _count_failure(self, status: int) -> None:
        """No answer came from the endpoint; `status` says what that is as good as."""
        cluster, endpoint = self.cluster, self.endpoint
        if cluster is not None and endpoint is not None and cluster.outlier is not None:
            self.state.pool.outliers.failed(cluster, endpoint, status)

    def _drop_upstream(self) -> None:
        self.try_deadline = 0.0
        if self.waiting:
            assert self.cluster is not None
            assert self.endpoint is not None
            self.state.pool.forget(self, self.cluster, self.endpoint)
        if self.injection is not None:
            self.injection.cancel()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()

    def reply(self, kind: ErrorKind, detail: str = "", as_http: bool = False) -> None:
        """Answer by ourselves, as the row of the error table says; to a gRPC call in gRPC's terms, unless `as_http`."""
        self._drop_upstream()
        if self.response_started:
            self._cut(kind.flag, detail)
            return
        self.flags = f"{kind.flag},{self.flags}" if self.flags else kind.flag
        self.details = f"{kind.name}: {detail}" if detail else kind.name
        headers: Headers
        call = grpc.is_request(self.head)
        if call:
            self.grpc_status = b"%d" % kind.grpc
        if call and not as_http:
            headers, status, body = grpc.error_headers(self.grpc_status, errors.text(kind, detail).encode()), 200, b""
        else:
            headers, status = [(b"content-type", b"text/plain; charset=utf-8")], kind.status
            body = errors.body(kind, detail)
        if kind.unsent and self.state.inbound and kind.status == 503:
            headers.append((UNSENT_HEADER, kind.flag.encode()))
        head, route = ResponseHead(status, b"", headers), self.route
        if route is not None and route.response_edits is not None:
            edit_response(self, route.response_edits, head)
        self._respond_whole(head, body)

    def _cut(self, flag: str, text: str) -> None:
        """Part of the response is out: the only honest end is to break the connection (RFC 9112 §8)."""
        self.flags = f"{flag},{self.flags}" if self.flags else flag
        self.details = text
        self._drop_upstream()
        self.downstream.abort()
        self._finish(False)
