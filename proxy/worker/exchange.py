"""One request and its response: the path through route, cluster, pool and back (stops 2 to 8 of ARCHITECTURE).

An exchange is driven by calls, never by a Task: its downstream tells it what arrived of the request, its upstream
connection what arrived of the response, the pool that a connection is ready or could not be had. It ends in exactly
one `_finish`, which counts and logs it. What can go wrong on the way is in recovery.py.
"""

from __future__ import annotations

from random import getrandbits, random
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy import errors
from proxy.config.route import DirectResponse
from proxy.http import grpc
from proxy.http.heads import CONNECT, ResponseHead, ResponseMessage
from proxy.policy import retry
from proxy.telemetry import trace
from proxy.worker import affinity
from proxy.worker.deadlines import heed_grpc_timeout
from proxy.worker.faults import with_flags
from proxy.worker.filtering import admit_filtered, size
from proxy.worker.forward import request_fields, request_ids
from proxy.worker.policies import admit, edit_request, edit_response
from proxy.worker.raw_upstream import RawUpstream
from proxy.worker.recovery import Recovery
from proxy.worker.upgrading import add_websocket_key, bridge_websocket, match_upgrade

if TYPE_CHECKING:
    from proxy.cluster.state import ClusterState, Endpoint
    from proxy.worker.carrier import Carrier
    from proxy.worker.upstream import Upstream

REPLAY_LIMIT: Final = 64 * 1024
"""Bytes of a request body that are kept for another try, and that may wait for a connection."""


class Exchange(Recovery):
    """See the module's text."""

    __slots__ = ()

    # ---- the way up

    def start(self) -> None:
        """The head is complete, and perhaps more. Called once."""
        state, head = self.state, self.head
        if state.tracing:
            self.trace = trace.follow(head.traceparent, getrandbits)
            if not self.trace.continued:  # W3C Trace Context §4.3: a new trace has no state of the old one
                head.headers = [pair for pair in head.headers if pair[0] != b"tracestate"]
        if state.make_request_id and (self.request_id is None or not state.keep_request_id):
            self.request_id = request_ids.next()
        if state.request_policy is not None and not admit(self, state.request_policy):
            return
        if not head.upgrade:
            self.route = state.routes.match(head)
        elif not match_upgrade(self):
            return
        if state.filters and not admit_filtered(self):
            return
        route = self.route
        if route is None:
            self.reply(errors.NO_ROUTE)
            return
        if route.forward is None:
            direct = route.action
            assert isinstance(direct, DirectResponse)
            response, body = ResponseHead(direct.status, b"", []), direct.body
            if grpc.is_request(head):  # in words that the client knows, as Envoy does
                self.grpc_status = grpc.code_of(direct.status)
                response = ResponseHead(200, b"", grpc.error_headers(self.grpc_status, body))
                body = b""
            if route.response_edits is not None:
                edit_response(self, route.response_edits, response)
            self._respond_whole(response, body)
            return
        if route.request_edits is not None:
            edit_request(self, route.request_edits)
        placed = route.hash_policy or route.metadata
        self.cluster = cluster = affinity.place(self, route, random) if placed else route.target(random)
        if cluster.active >= cluster.max_requests:
            self.cluster = None  # it is not counted among the cluster's active ones
            self.reply(errors.OVERFLOW, f"cluster {cluster.name}: max_requests")
            return
        cluster.active += 1
        cluster.budget.deposit()
        if route.timeout and self.message.done:
            self.request_deadline = self.started + route.timeout
        if route.max_stream_duration:
            self.stream_deadline = self.started + route.max_stream_duration
        if head.te_trailers:
            self.grpc = grpc.is_request(head)
        if head.grpc_timeout is not None:
            heed_grpc_timeout(self, route, head.grpc_timeout)
        self._try()

    def _try(self) -> None:
        """Pick an endpoint and get a connection to it."""
        cluster = self.cluster
        assert cluster is not None
        endpoint = cluster.picker.pick(self._tried, self.context)
        if endpoint is None:
            self.reply(errors.NO_HEALTHY_UPSTREAM, f"cluster {cluster.name}")
            return
        if cluster.measured:
            affinity.begin_try(self, cluster)
        self.attempts += 1
        self.endpoint = endpoint
        endpoint.active += 1
        faults = self.state.faults
        if faults is None or not faults.inject(self):
            self.reach()

    def reach(self) -> None:
        """Get a connection to the endpoint."""
        cluster, endpoint = self.cluster, self.endpoint
        assert cluster is not None
        assert endpoint is not None
        if self.head.upgrade and self._connect_raw():
            return
        protocol = cluster.protocol
        if protocol == "HTTP1" or (protocol == "DOWNSTREAM" and not self.downstream.multiplexed):
            self._get_connection(cluster, endpoint)
        else:
            self.state.pool.streams.lend(self, cluster, endpoint)

    def _get_connection(self, cluster: ClusterState, endpoint: Endpoint) -> None:
        """A connection of HTTP/1.1: an idle one, or wait for one."""
        idle = endpoint.idle
        repeatable = self.head.method in retry.IDEMPOTENT  # what is not must not be lost on a connection that is gone
        # After a stale connection only a fresh one will do: its siblings are likely as dead.
        while idle and not self._stale_retried:
            connection: Upstream = idle.popitem()[0]
            if connection.usable and not connection.transport.is_closing():
                if not repeatable and connection.dead:
                    connection.abort()
                    continue
                self.attach(connection)
                return
        self.state.pool.wait(self, cluster, endpoint)

    def _connect_raw(self) -> bool:
        """Where the route ends CONNECT here (connect_config): open a connection for its bytes alone."""
        cluster, endpoint, route = self.cluster, self.endpoint, self.route
        assert cluster is not None
        assert endpoint is not None
        if self.head.upgrade != CONNECT or route is None or not route.ends_connect:
            return False
        if cluster.connections >= cluster.config.circuit_breakers.max_connections:
            self.on_overflow(f"cluster {cluster.name}: max_connections")
        else:
            self.upstream = connection = RawUpstream(self.state.pool, cluster, endpoint, self)
            self.state.pool.open_raw(connection)
        return True

    def attach(self, connection: Carrier) -> None:
        """A connection is ours: send what there is of the request, in one write."""
        self.waiting = False
        self.upstream = connection
        message, head, route = self.message, self.head, self.route
        assert route is not None
        chunks: list[bytes] = []
        if message.body:
            chunks = self._take()
        if head.upgrade == b"websocket" and not connection.multiplexed and self.downstream.multiplexed:
            add_websocket_key(head)
        connection.begin(
            self,
            head,
            route.rewritten(head.target),
            self._authority(),
            request_fields(self),
            chunks,
            message.done,
            message.trailers,
        )
        if route.per_try_timeout and message.done and not self.try_deadline:
            self.limit_try(route.per_try_timeout)
        if head.length and not message.done and not connection.write_paused:
            self.downstream.resume_request()

    def limit_try(self, seconds: float) -> None:
        """The present try has so long, from now on."""
        self.try_deadline = monotonic() + seconds
        self.downstream.hasten(self.try_deadline)

    def _authority(self) -> bytes:
        """The Host that the upstream is told (host_rewrite_literal, auto_host_rewrite)."""
        route, endpoint = self.route, self.endpoint
        assert route is not None
        if route.auto_host_rewrite and endpoint is not None and endpoint.hostname:
            return endpoint.hostname
        return route.host_rewrite or self.head.authority

    def _take(self) -> list[bytes]:
        """The chunks of the body that have arrived, kept for another try while they are few."""
        message = self.message
        chunks, message.body = message.body, []
        size = 0
        for chunk in chunks:
            size += len(chunk)
        self.bytes_received += size
        if self.response_started:
            return chunks
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
        if self.filtering is not None and not self.filtering.request(self):
            return
        message, upstream, route = self.message, self.upstream, self.route
        if message.done and route is not None and route.timeout and not self.tunnel and not self.request_deadline:
            # As in Envoy the route's timeout is for the answer: it begins with the end of the request.
            self.request_deadline = monotonic() + route.timeout
            self.downstream.hasten(self.request_deadline)
        seconds = route.per_try_timeout if route is not None and upstream is not None and not self.tunnel else 0.0
        if seconds and message.done and not self.try_deadline:
            self.limit_try(seconds)
        if upstream is not None:
            # What follows the end of the body belongs to the next request.
            if not upstream.sent_all and (message.body or message.done):
                upstream.send(self._take() if message.body else [], message.done, message.trailers)
        elif not self.ended:
            self._waited = sum([len(chunk) for chunk in message.body])
            if self._waited > REPLAY_LIMIT:
                self.downstream.pause_request()

    def on_request_broken(self, error: str) -> None:
        """The rest of the request's body is not valid HTTP."""
        self.reply(errors.BAD_REQUEST, error)

    # ---- the way down

    def on_interim(self, heads: list[ResponseHead]) -> None:
        """Informational responses arrived. 100 is dropped: the client had it from us, if it asked (RFC 9110 §15.2)."""
        for head in heads:
            if head.status != 100 and not self.response_started:
                self.downstream.interim(head)

    def on_response(self, message: ResponseMessage) -> None:
        """More of the response arrived; its head the first time."""
        downstream, filtering, head, trailers = self.downstream, self.filtering, message.head, message.trailers
        if not self.response_started and (filtering is None or filtering.held is not head):
            if self._judge(message):
                message.body = []
                return
            if self.head.upgrade and not head.upgrade and downstream.multiplexed and head.status < 300:
                self._drop_upstream()
                self.on_upstream_error("answers as if no other protocol had been asked for")  # RFC 8441 §5
                return
            self._replay = None
            self.response_head = head
            self.status = head.status
            route = self.route
            if route is not None and route.response_edits is not None:
                edit_response(self, route.response_edits, head)
            if self.context is not None:
                affinity.set_cookies(self, head)
            if self.tried_at:
                affinity.end_try(self, head.status)
        chunks = message.body
        if chunks:
            message.body = []
        if filtering is not None:
            trailers = list(trailers)
            passed = filtering.response(head, chunks, message.done, trailers)
            if passed is None:
                return
            chunks = passed
        for chunk in chunks:
            self.bytes_sent += len(chunk)
        if self.response_started:
            if message.sensitive:
                head.sensitive = head.sensitive + message.sensitive
            downstream.more(chunks, message.done, trailers)
        else:
            self.response_started = True
            if message.sensitive:
                head.sensitive = head.sensitive + message.sensitive
            if head.upgrade:
                self._switch(head, chunks, message.done)
                return
            if message.done and not self.message.done:
                downstream.closing = True  # the rest of the request is not waited for, and the client is told
            downstream.respond(self, head, chunks, message.done, trailers)
        if message.done:
            if self.grpc:
                self.grpc_status = grpc.status(message)
                self._judge_call()
            self._complete()

    def _switch(self, head: ResponseHead, chunks: list[bytes], done: bool) -> None:
        """The upstream agreed to another protocol: bytes both ways from now on, until one side ends. The route's
        timeout was for the answer; what is left is the stream idle timeout, as in Envoy."""
        downstream, upstream, state = self.downstream, self.upstream, self.state
        assert upstream is not None
        bridged = head.upgrade == b"websocket" and downstream.multiplexed != upstream.multiplexed
        if bridged and not bridge_websocket(self, head):
            upstream.abort()
            self.response_started = False
            self.on_upstream_error("the Sec-WebSocket-Accept is not that of the key (RFC 6455 §4.2.2)")
            return
        state.counters.values[state.counters.slot("downstream_cx_upgrades_total", listener=state.name)] += 1
        self.tunnel = True
        self.request_deadline = self.try_deadline = 0.0
        upstream.switch()
        downstream.respond(self, head, chunks, done, [])
        if done:
            self._complete()
            return
        downstream.switch()
        self.on_request_more()
        if upstream.write_paused:
            downstream.pause_request()

    def on_no_half_close(self) -> None:
        """The client sends no more, and the upstream's leg cannot tell that without ending: so the tunnel ends. What
        was received goes out both ways."""
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        upstream.finish()
        self._finish(True)

    def _complete(self) -> None:
        """The response is whole. The request may not be: then neither connection can be used again."""
        upstream, self.upstream = self.upstream, None
        done = self.message.done
        if upstream is not None:
            if self.tunnel:
                upstream.finish()
            elif done:
                upstream.end_exchange()
            else:
                upstream.abort()
        self._finish(done)

    # ---- the end

    def _respond_whole(self, head: ResponseHead, body: bytes) -> None:
        head.length = len(body)
        chunks = [body] if body else []
        if self.filtering is not None:
            chunks = self.filtering.response(head, chunks, True, []) or []
        self.response_started = True
        self.response_head = head
        self.status = head.status
        self.bytes_sent = size(chunks)
        if not self.message.done:
            head.keep_alive = False
            self.downstream.closing = True
        self.downstream.respond(self, head, chunks, True, [])
        self._finish(self.message.done)

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
        if not self.tunnel:  # a tunnel's time is no latency
            state.latency.observe(duration)
        if cluster is not None:
            if self.tried_at:
                affinity.end_try(self, 0)
            cluster.active -= 1
            if self._retrying:
                cluster.retrying -= 1
            values[cluster.requests[self.status // 100]] += 1
            if self.grpc:
                values[cluster.grpc_slot(state.counters, self.grpc_status)] += 1
            if not self.tunnel:
                cluster.latency.observe(duration)
            if self.endpoint is not None:
                self.endpoint.active -= 1
        if self.injection is not None:
            self.flags = with_flags(self.flags, self.injection.flags)
        if self.flags:
            for flag in self.flags.split(","):
                values[state.counters.slot("response_flags_total", listener=state.name, flag=flag)] += 1
        for logger in state.loggers:
            logger.log(self)
        self.downstream.finished(keep, now)
