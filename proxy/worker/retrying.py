"""Another try: whether an exchange may make one, and when."""

from __future__ import annotations

from random import random
from time import monotonic
from typing import TYPE_CHECKING

from proxy import errors
from proxy.http import grpc
from proxy.http.headers import find
from proxy.policy import retry
from proxy.worker.record import ExchangeRecord

if TYPE_CHECKING:
    from proxy.config.route import RetryPolicy
    from proxy.http.heads import ResponseMessage


class Retrying(ExchangeRecord):
    """The base of Recovery. `try_deadline`, while nothing is sent and nothing waited for: when the next try begins;
    else when the present one has taken too long (per_try_timeout)."""

    __slots__ = ()

    def _try(self) -> None:
        raise NotImplementedError

    def _judge_call(self) -> None:
        raise NotImplementedError

    # ---- when there is no answer

    def _retries_unsent(self) -> bool:
        """The request reached nobody. Whether it goes elsewhere."""
        policy = self._policy()
        if policy is None or not retry.on_unsent(self._conditions(policy)):
            return False
        # Elsewhere at once; where it failed just now only after a while.
        wait = 0.0 if self._has_elsewhere() else self._back_off(policy)
        return self._retries_in(policy, wait, False)

    def _retries_unanswered(self) -> bool:
        """Somebody may have acted on the request, and will not answer. Whether it is sent again."""
        policy = self._policy()
        if policy is None or not retry.on_no_answer(self._conditions(policy)):
            return False
        return self._retries_in(policy, self._back_off(policy), True)

    def _retries_late(self) -> bool:
        """The time of the try has passed. Whether there is another."""
        policy = self._policy()
        if policy is None or not retry.on_try_timeout(self._conditions(policy)):
            return False
        return self._retries_in(policy, 0.0, True)

    # ---- when there is one

    def _retries_answer(self, message: ResponseMessage) -> bool:
        """A response's head came. Whether it is dropped, and the request sent again."""
        policy = self._policy()
        if policy is None:
            return False
        head = message.head
        # Only a call that is answered with nothing but a status has not begun to be answered.
        status = grpc.status(message) if self.grpc and message.done and not message.body else b""
        allowed = self._conditions(policy)
        if status:
            wanted = retry.on_grpc_status(allowed, status)
        else:
            wanted = retry.on_status(allowed, policy.retriable_status_codes, head.status)
        if not wanted:
            return False
        wait = self._back_off(policy)
        asked = find(message.trailers, b"grpc-retry-pushback-ms") or find(head.headers, b"grpc-retry-pushback-ms")
        if asked is not None:
            seconds = retry.pushback(asked)
            if seconds is None:
                return False
            wait = seconds
        elif policy.retry_after_max:
            seconds = retry.retry_after(find(head.headers, b"retry-after") or b"")
            if seconds is not None and seconds <= policy.retry_after_max:
                wait = seconds
        upstream = self.upstream
        if not self._may_retry_in(policy, wait, True):
            return False
        if status:
            self.grpc_status = status
            self._judge_call()
            self.grpc_status = b""
        self.upstream = None
        if upstream is not None:
            upstream.end_exchange()
        self._again(wait)
        return True

    # ---- whether

    def _policy(self) -> RetryPolicy | None:
        return self.route.retry if self.route is not None else None

    def _conditions(self, policy: RetryPolicy) -> frozenset[str]:
        if not policy.safe_on:
            return policy.retry_on
        return retry.conditions(policy, self.head.method, find(self.head.headers, b"idempotency-key"))

    def _retries_in(self, policy: RetryPolicy, wait: float, charged: bool) -> bool:
        if not self._may_retry_in(policy, wait, charged):
            return False
        self._again(wait)
        return True

    def _may_retry_in(self, policy: RetryPolicy, wait: float, charged: bool) -> bool:
        """One of the policy's retries, if any is left, there is time for it and the cluster has room; it is counted
        then. `charged` to the cluster's budget is what makes somebody work twice."""
        cluster = self.cluster
        assert cluster is not None
        if self._retries >= policy.num_retries:
            self.flags = errors.RETRY_LIMIT
            return False
        if not self._is_repeatable():
            return False
        now = monotonic()
        if wait and any(due and now + wait >= due for due in (self.request_deadline, self.stream_deadline)):
            return False  # it could not finish
        crowded = not self._retrying and cluster.retrying >= cluster.max_retries
        if crowded or (charged and not cluster.budget.withdraw(now)):
            self.flags = errors.OVERFLOW.flag
            return False
        self._retries += 1
        return True

    def _is_repeatable(self) -> bool:
        """Whether all of the body that was sent is still here."""
        return not self._body_size or self._replay is not None

    def _has_elsewhere(self) -> bool:
        cluster = self.cluster
        return cluster is not None and len(cluster.endpoints) > len(self._tried) + 1

    def _back_off(self, policy: RetryPolicy) -> float:
        return retry.back_off(policy, self._retries + 1, random())

    # ---- and then

    def _again(self, wait: float) -> None:
        """Another try in `wait` seconds, elsewhere if there is an elsewhere."""
        cluster, endpoint = self.cluster, self.endpoint
        assert cluster is not None
        assert endpoint is not None
        self.state.counters.values[cluster.retries] += 1
        if not self._retrying:
            self._retrying = True
            cluster.retrying += 1
        self._leave_endpoint()
        self._tried = (*self._tried, endpoint)
        if self._replay:
            self.message.body = self._replay + self.message.body
            self.bytes_received -= self._body_size
            self._body_size = 0
        self._replay = None
        if wait > 0:
            self.try_deadline = monotonic() + wait
            self.downstream.hasten(self.try_deadline)
        else:
            self.try_deadline = 0.0
            self._try()

    def _leave_endpoint(self) -> None:
        if self.injection is not None:
            self.injection.cancel()
        if self.endpoint is not None:
            self.endpoint.active -= 1
            self.endpoint = None
