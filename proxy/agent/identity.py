"""Gets the SVID and keeps it fresh: from the sealed state, by the join token, then by session token at half life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable

import grpc
import grpc.aio

from pillion.client import TokenFile, bearer, is_another_mesh
from pillion.v1 import mesh_pb2, mesh_pb2_grpc
from proxy.agent import svid as svids
from proxy.agent.backoff import Backoff
from proxy.agent.errors import StartError
from proxy.agent.state_dir import StateDir
from proxy.agent.svid import Svid

logger = logging.getLogger(__name__)

RPC_TIMEOUT = 5.0
"""Seconds for one Sign."""
STEP = 60.0
"""Seconds between two looks at the clock."""
MIN_RENEWAL = 1.0
"""Seconds between two renewals at the least, however short the certificates live."""

_REFUSALS = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)


class Identity:
    """The sidecar's SVID over time. `current` is None until the first one is there."""

    def __init__(
        self,
        token: TokenFile,
        channel: grpc.aio.Channel,
        state: StateDir,
        changed: Callable[[Svid], None],
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        explain: Callable[[grpc.aio.AioRpcError], str] = str,
    ) -> None:
        """`changed` is called with each new SVID. `clock` tells epoch seconds. `explain` words a failed call."""
        self.current: Svid | None = None
        self._token, self._state, self._changed, self._clock = token, state, changed, clock
        self._explain = explain
        self._rng = rng or random.Random()
        self._stub = mesh_pb2_grpc.CertificateAuthorityStub(channel)
        self._renew_now = asyncio.Event()
        self._complained = False

    @property
    def session_token(self) -> str:
        """Authorizes this sidecar's calls; empty before the first SVID."""
        return self.current.session_token if self.current else ""

    def token_refused(self) -> None:
        """A call was UNAUTHENTICATED: get a new session token now instead of at half life."""
        self._renew_now.set()

    def restore(self) -> bool:
        """Take the sealed identity of an earlier run into use, if this token file opens it."""
        svid = self._state.load_identity(self._token.token, self._clock())
        if svid is None:
            return False
        logger.info(
            "identity restored identity=%s expires_in=%.0fs",
            self._token.identity,
            svid.expires - self._clock(),
        )
        self._renew_now.set()  # proves to us that the control plane still knows this session
        self._use(svid)
        return True

    async def join(self, patient: bool = False) -> None:
        """Get the first SVID, trying until the control plane answers. Raises StartError when it refuses, and unless
        `patient` when another mesh's answers."""
        backoff = Backoff(rng=self._rng)
        while True:
            try:
                self._store(await self._sign(by_token=True))
                return
            except grpc.aio.AioRpcError as error:
                if error.code() in _REFUSALS:
                    raise StartError(f"the control plane refuses {self._token.identity}: {error.details()}") from None
                if is_another_mesh(error.details()) and not patient:
                    raise StartError(
                        f"{self._explain(error)}; make a token there with: pillion token {self._token.service}"
                    ) from None
                delay = backoff.next()
                level = logging.DEBUG if self._complained else logging.WARNING  # once an outage
                self._complained = True
                logger.log(level, "control plane not reached: %s retry_in=%.1fs", self._explain(error), delay)
            except ValueError as error:
                raise StartError(f"the control plane's answer for {self._token.identity}: {error}") from None
            await asyncio.sleep(delay)

    async def keep_fresh(self) -> None:
        """Renew for ever. A refused session falls back to the join token; when that is refused too, the certificate
        in use serves until it expires, and this goes on trying."""
        backoff = Backoff(first=1.0, limit=30.0, rng=self._rng)
        earliest = 0.0
        while True:
            assert self.current is not None, "join or restore comes first"
            due = svids.renewal_time(self.current, self._rng.uniform(-1, 1))
            due = max(due, earliest)
            # In steps: the loop's clock stands still while a laptop sleeps, the certificate's does not.
            while not self._renew_now.is_set() and (left := due - self._clock()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, STEP)):
                        await self._renew_now.wait()
            self._renew_now.clear()
            while not await self._renewed():  # noqa: ASYNC110  # each attempt is a call
                await asyncio.sleep(MIN_RENEWAL + backoff.next())
            backoff.reset()
            # A clock that is ahead finds every new certificate half over; that is no reason to ask without end.
            earliest = self._clock() + (self.current.expires - self.current.not_before) / 200
            await asyncio.sleep(MIN_RENEWAL)  # whoever calls token_refused in a loop must not make us sign in one

    async def _renewed(self) -> bool:
        for by_token in (False, True):
            try:
                self._store(await self._sign(by_token))
                return True
            except grpc.aio.AioRpcError as error:
                level = logging.DEBUG if self._complained else logging.WARNING  # once an outage
                means = "join token" if by_token else "session"
                logger.log(level, "identity not renewed by=%s: %s", means, self._explain(error))
                if error.code() not in _REFUSALS:
                    self._complained = True
                    return False
            except ValueError as error:
                logger.error("identity not renewed: %s", error)
                return False
            except Exception:  # no answer of a control plane may take the sidecar down
                logger.exception("identity not renewed")
                return False
        return False

    async def _sign(self, by_token: bool) -> Svid:
        request = svids.new_request(self._token.identity)
        answer = await self._stub.Sign(
            mesh_pb2.SignRequest(csr_pem=request.csr_pem, join_token=self._token.token if by_token else ""),
            metadata=None if by_token else bearer(self.session_token),
            timeout=RPC_TIMEOUT,
        )
        return svids.complete(
            request,
            self._token.identity,
            answer.certificate_chain_pem,
            answer.trust_bundle_pem,
            answer.session_token,
        )

    def _store(self, svid: Svid) -> None:
        logger.info("identity signed identity=%s expires_in=%.0fs", self._token.identity, svid.expires - self._clock())
        try:
            self._state.save_identity(svid, self._token.token)
        except OSError as error:
            logger.error("identity not saved, a restart will need a new join token: %s", error)
        self._use(svid)

    def _use(self, svid: Svid) -> None:
        self.current = svid
        self._complained = False
        self._changed(svid)
