"""One request and its response: the path through route, cluster, pool and back (stops 2 to 8 of ARCHITECTURE).

An exchange is driven by calls, never by a Task: its downstream tells it what arrived of the request, its upstream
connection what arrived of the response, the pool that a connection is ready or could not be had. It ends in exactly
one `_finish`, which counts and logs it.
"""

from __future__ import annotations

from random import getrandbits, random
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy import errors
from proxy.config.route import DirectResponse
from proxy.errors import ErrorKind
from proxy.http.headers import UNSENT_HEADER, Headers
from proxy.http.heads import RequestHead, RequestMessage, ResponseHead, ResponseMessage
from proxy.policy import retry
from proxy.telemetry import trace
from proxy.worker.forward import request_id, request_lines
from proxy.worker.record import Record

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState, Endpoint
    from proxy.routing.table import CompiledRoute
    from proxy.worker.downstream import Downstream
    from proxy.worker.tables import ListenerState
    from proxy.worker.upstream import Upstream

REPLAY_LIMIT: Final = 64 * 1024
"""Bytes of a request body that are kept for another try, and that may wait for a connection."""


class Exchange(Record):
    """See the module's text."""

    __slots__ = (
        "_body_size",
        "_replay",
        "_retries",
        "_stale_retried",
        "_tried",
        "_waited",
        "attempts",
        "bytes_received",
        "bytes_sent",
        "cluster",
        "details",
        "downstream",
        "duration",
        "ended",
        "endpoint",
        "flags",
        "head",
        "message",
        "request_deadline",
        "request_id",
        "response_head",
        "response_started",
        "route",
        "started",
        "state",
        "status",
        "trace",
        "upstream",
        "waiting",
    )

    def __init__(self, downstream: Downstream, state: ListenerState, message: RequestMessage) -> None:
        self.downstream = downstream
        self.state = state
        self.message = message
        self.head: RequestHead = message.head
        self.started = monotonic()
        self.duration = 0.0
        self.request_deadline = 0.0
        self.route: CompiledRoute[ClusterState] | None = None
        self.cluster: ClusterState | None = None
        self.endpoint: Endpoint | None = None
        self.upstream: Upstream | None = None
        self.waiting = False
        self.attempts = 0
        self.status = 0
        self.flags = ""
        self.details = ""
        self.bytes_received = 0
        self.bytes_sent = 0
        self.request_id = self.head.request_id
        self.trace: trace.Trace | None = None
        self.response_head: ResponseHead | None = None
        self.response_started = False
        self.ended = False
        self._tried: tuple[Endpoint, ...] = ()
        self._replay: list[bytes] | None = None
        self._body_size = 0
        self._waited = 0
        self._retries = 0
        self._stale_retried = False

    # ---- the way up

    def start(self) -> None:
        """The head is complete, and perhaps more. Called once."""
        state, head = self.state, self.head
        if state.tracing:
            self.trace = trace.follow(head.traceparent, getrandbits)
        if state.make_request_id and (self.request_id is None or not state.keep_request_id):
            self.request_id = request_id()
        if head.method == b"CONNECT":
            self.downstream.closing = True  # what follows is not HTTP
            self.reply(errors.CONNECT_NOT_ALLOWED)
            return
        self.route = route = state.routes.match(head)
        if route is None:
            self.reply(errors.NO_ROUTE)
            return
        for http_filter in state.filters:
            answer = http_filter.on_request(head, self.downstream.peer_uri)
            if answer is not None:
                self.flags, self.details = answer.flag, answer.details
                self._respond_whole(ResponseHead(answer.status, b"", answer.headers), answer.body)
                return
        action = route.forward
        if action is None:
            direct = route.action
            assert isinstance(direct, DirectResponse)
            self._respond_whole(ResponseHead(direct.status, b"", []), direct.body)
            return
        self.cluster = cluster = route.target(random)
        if cluster.active >= cluster.config.circuit_breakers.max_requests:
            self.cluster = None  # it is not counted among the cluster's active ones
            self.reply(errors.OVERFLOW, f"cluster {cluster.name}: max_requests")
            return
        cluster.active += 1
        if action.timeout:
            self.request_deadline = self.started + action.timeout
        self._try()

    def _try(self) -> None:
        """Pick an endpoint and get a connection to it."""
        cluster = self.cluster
        assert cluster is not None
        endpoint = cluster.picker.pick(self._tried)
        if endpoint is None:
            self.reply(errors.NO_HEALTHY_UPSTREAM, f"cluster {cluster.name}")
            return
        self.attempts += 1
        self.endpoint = endpoint
        endpoint.active += 1
        idle = endpoint.idle
        # After a stale connection only a fresh one will do: its siblings are likely as dead.
        while idle and not self._stale_retried:
            connection: Upstream = idle.pop()
            if connection.usable and not connection.transport.is_closing():
                self.attach(connection)
                return
        self.state.pool.wait(self, cluster, endpoint)

    def attach(self, connection: Upstream) -> None:
        """A connection is ours: send what there is of the request, in one write."""
        self.waiting = False
        self.upstream = connection
        message, head, route = self.message, self.head, self.route
        assert route is not None
        chunks: list[bytes] = []
        if message.body:
            chunks = self._take()
        connection.begin(
            self,
            head,
            route.rewritten(head.target),
            route.host_rewrite or head.authority,
            request_lines(self),
            chunks,
            message.done,
            message.trailers,
        )
        if head.length and not message.done and not connection.write_paused:
            self.downstream.resume_request()

    def _take(self) -> list[bytes]:
        """The chunks of the body that have arrived, kept for another try while they are few."""
        message = self.message
        chunks, message.body = message.body, []
        size = sum(map(len, chunks))
        self.bytes_received += size
        self._body_size += size
        if self._body_size > REPLAY_LIMIT:
            self._replay = None
        elif self._replay is None:
            if self._body_size == size:
                self._replay = list(chunks)
        else:
            self._replay += chunks
        return chunks

    def on_request_more(self) -> None:
        """More of the request's body arrived, or its end."""
        message, upstream = self.message, self.upstream
        if upstream is not None:
            # What follows the end of the body belongs to the next request.
            if not upstream.sent_all and (message.body or message.done):
                upstream.send(self._take() if message.body else [], message.done, message.trailers)
        elif not self.ended:
            self._waited = sum(map(len, message.body))
            if self._waited > REPLAY_LIMIT:
                self.downstream.pause_request()

    def on_request_broken(self, error: str) -> None:
        """The rest of the request's body is not valid HTTP."""
        self.reply(errors.BAD_REQUEST, error)

    # ---- the way down

    def on_response(self, message: ResponseMessage) -> None:
        """More of the response arrived; its head the first time."""
        downstream = self.downstream
        chunks = message.body
        if chunks:
            message.body = []
            for chunk in chunks:
                self.bytes_sent += len(chunk)
        if self.response_started:
            downstream.more(chunks, message.done, message.trailers)
        else:
            head = message.head
            if self._judge(head):
                return
            self.response_started = True
            self._replay = None
            self.response_head = head
            self.status = head.status
            for http_filter in self.state.filters_reversed:
                http_filter.on_response(head)
            if message.done and not self.message.done:
                downstream.closing = True  # the rest of the request is not waited for, and the client is told
            downstream.respond(self, head, chunks, message.done, message.trailers)
        if message.done:
            self._complete()

    def _judge(self, head: ResponseHead) -> bool:
        """Health and retry decide on a response head. True: it is dropped and the request goes elsewhere."""
        cluster, endpoint = self.cluster, self.endpoint
        assert cluster is not None
        assert endpoint is not None
        status = head.status
        if status < 500:
            health = endpoint.health
            health.consecutive_5xx = health.consecutive_gateway = 0
            return False
        if head.unsent is not None and self.upstream is not None and self.upstream.trusted:
            # The sidecar over there could not reach its app: as good as a failed connection.
            self._count_failure(503)
            if self._may_retry_unsent():
                upstream, self.upstream = self.upstream, None
                upstream.end_exchange()
                self._again()
                return True
            unsent = head.unsent.decode("latin-1")
            self.flags = unsent if unsent in errors.UNSENT_FLAGS else errors.CONNECT_FAILURE.flag
            return False
        self._count_failure(status)
        return False

    def _complete(self) -> None:
        """The response is whole. The request may not be: then neither connection can be used again."""
        upstream, self.upstream = self.upstream, None
        done = self.message.done
        if upstream is not None:
            if done:
                upstream.end_exchange()
            else:
                upstream.abort()
        self._finish(done)

    # ---- what goes wrong

    def on_connect_failure(self, text: str) -> None:
        """The pool could not open a connection for this exchange."""
        self.waiting = False
        self._count_failure(503)
        if self._may_retry_unsent():
            self._again()
        else:
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
        if not answered and self._may_replay():
            route = self.route
            assert route is not None
            policy = route.forward.retry if route.forward is not None else None
            if not self._stale_retried and retry.on_stale(self.head.method, reused, 1):
                self._stale_retried = True
                self._again()
                return
            if policy is not None and retry.on_reset(policy.retry_on) and self._retries < policy.num_retries:
                self._retries += 1
                self._again()
                return
        self.reply(errors.CONNECTION_TERMINATED, text)

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
        if self.cluster is not None and self.upstream is not None:
            self._count_failure(504)
        if self.response_started:
            self._cut("UT", "route timeout")
        else:
            self.reply(errors.UPSTREAM_TIMEOUT, f"{now - self.started:.3f}s")

    def on_idle(self) -> None:
        """No byte moved for the stream idle timeout."""
        if self.response_started:
            self._cut("SI", "stream idle timeout")
        else:
            self.reply(errors.STREAM_IDLE)

    def on_downstream_lost(self) -> None:
        """The client is gone; nobody waits for the answer."""
        if self.ended:
            return
        self.flags = self.flags or errors.DOWNSTREAM_GONE.flag
        self._drop_upstream()
        self._finish(False)

    def _may_retry_unsent(self) -> bool:
        route = self.route
        policy = route.forward.retry if route is not None and route.forward is not None else None
        if policy is None or not retry.on_unsent(policy.retry_on):
            return False
        if self._retries >= policy.num_retries:
            self.flags = errors.RETRY_LIMIT
            return False
        if not self._may_replay():
            return False
        self._retries += 1
        return True

    def _may_replay(self) -> bool:
        """Whether all of the body that was sent is still here."""
        return self._body_size == 0 or self._replay is not None

    def _again(self) -> None:
        """Another try, elsewhere if there is an elsewhere."""
        cluster, endpoint = self.cluster, self.endpoint
        assert cluster is not None
        assert endpoint is not None
        self.state.counters.values[cluster.retries] += 1
        self._leave_endpoint()
        self._tried = (*self._tried, endpoint)
        if self._replay:
            self.message.body = self._replay + self.message.body
            self.bytes_received -= self._body_size
            self._body_size = 0
        self._replay = None
        self._try()

    def _count_failure(self, status: int) -> None:
        cluster, endpoint = self.cluster, self.endpoint
        if cluster is not None and endpoint is not None and cluster.outlier is not None:
            self.state.pool.endpoint_failed(cluster, endpoint, status)

    def _leave_endpoint(self) -> None:
        if self.endpoint is not None:
            self.endpoint.active -= 1
            self.endpoint = None

    def _drop_upstream(self) -> None:
        if self.waiting:
            assert self.cluster is not None
            assert self.endpoint is not None
            self.state.pool.forget(self, self.cluster, self.endpoint)
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()

    def reply(self, kind: ErrorKind, detail: str = "") -> None:
        """Answer by ourselves, as the row of the error table says."""
        self._drop_upstream()
        if self.response_started:
            self._cut(kind.flag, detail)
            return
        self.flags = f"{kind.flag},{self.flags}" if self.flags else kind.flag
        self.details = f"{kind.name}: {detail}" if detail else kind.name
        headers: Headers = [(b"content-type", b"text/plain")]
        if kind.unsent and self.state.inbound and kind.status == 503:
            headers.append((UNSENT_HEADER, kind.flag.encode()))
        self._respond_whole(ResponseHead(kind.status, b"", headers), errors.body(kind, detail))

    def _respond_whole(self, head: ResponseHead, body: bytes) -> None:
        head.length = len(body)
        self.response_started = True
        self.response_head = head
        self.status = head.status
        self.bytes_sent = len(body)
        if not self.message.done:
            head.keep_alive = False
            self.downstream.closing = True
        self.downstream.respond(self, head, [body] if body else [], True, [])
        self._finish(self.message.done)

    def _cut(self, flag: str, text: str) -> None:
        """Part of the response is out: the only honest end is to break the connection (RFC 9112 §8)."""
        self.flags = f"{flag},{self.flags}" if self.flags else flag
        self.details = text
        self._drop_upstream()
        self.downstream.abort()
        self._finish(False)

    def _finish(self, keep: bool) -> None:
        """Count, log, and give the connection back to its downstream. Exactly once."""
        if self.ended:
            return
        self.ended = True
        state, cluster = self.state, self.cluster
        now = monotonic()
        self.duration = duration = now - self.started
        values = state.counters.values
        values[state.requests[self.status // 100]] += 1
        state.latency.observe(duration)
        if cluster is not None:
            cluster.active -= 1
            values[cluster.requests[self.status // 100]] += 1
            cluster.latency.observe(duration)
            if self.endpoint is not None:
                self.endpoint.active -= 1
        if self.flags:
            for flag in self.flags.split(","):
                values[state.counters.slot("response_flags_total", listener=state.name, flag=flag)] += 1
        for line, file in state.loggers:
            file.write(line(self))
        self.downstream.finished(keep, now)
