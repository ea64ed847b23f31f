"""Who may do what: the operator's token, join tokens and session tokens. All are 256 random bits; only
SHA-256 hashes are stored, so a copy of the database opens nothing.

- A join token is for one service, short-lived, and burnt in the transaction that records the signing: it
  works once, even for two callers at the same moment, and a request that fails does not burn it.
- A session token comes with each signed certificate and lives as long as it. An earlier one stays good until
  its own end, so a renewal whose answer was lost locks nobody out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from control_plane.errors import CredentialError, FullError, RequestError
from control_plane.files import read_private, write_new
from control_plane.store import Store, audit, get_meta, set_meta
from pillion.client import TokenFile

DEFAULT_LIFETIME = 600.0  # seconds
MAX_LIFETIME = 24 * 3600.0
REMEMBER_USED = 24 * 3600.0  # how long after its end a join token is still told apart from an unknown one
MAX_JOIN_TOKENS = 10_000  # unused ones
MAX_SESSIONS = 100_000
MAX_OF_SERVICE = 40_000  # sessions; beyond it a service's own oldest go, so that it cannot lock out the others
MAX_TOKEN = 512  # characters
_OPERATOR = "operator_hash"


def digest(token: str) -> bytes:
    """What is stored. A plain hash is enough: 256 random bits cannot be guessed or tabulated."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Tokens:
    """`clock` gives Unix seconds. `await load()` before use."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._operator = b""
        self._sessions: dict[bytes, tuple[str, float]] = {}

    def __repr__(self) -> str:
        return f"Tokens({len(self._sessions)} sessions)"

    async def load(self, file: Path, trust_domain: str, bundle_pem: str) -> None:
        """Read the sessions; make the operator's token file if it is missing or not the one in force.

        Raises StartError.
        """
        now = self._clock()
        stored, sessions = await self._store.run(lambda db: _load(db, now))
        self._sessions = {found: (service, expires) for found, service, expires in sessions}
        content = read_private(file)
        if content is not None:
            try:
                self._operator = digest(TokenFile.parse(content.decode(), str(file)).token)
            except ValueError:
                self._operator = b""
        if content is None or stored is None or not hmac.compare_digest(self._operator.hex(), stored):
            token = secrets.token_urlsafe(32)
            self._operator = digest(token)
            # The file first: killed in between, the next start finds that they differ and makes a new pair.
            text = TokenFile(f"operator@{trust_domain}", trust_domain, "", token, bundle_pem).render()
            write_new(file, text.encode(), replace=True)
            fresh = self._operator.hex()
            await self._store.run(lambda db: set_meta(db, _OPERATOR, fresh))

    def check_operator(self, token: str) -> None:
        """Raises CredentialError."""
        if not hmac.compare_digest(digest(token), self._operator):
            raise CredentialError(
                "this is not the operator's token; "
                "use operator.token of the control plane's data directory (--token-file)"
            )

    def session(self, token: str) -> str:
        """The service that a session token is for. Raises CredentialError."""
        # Looked up by hash: the time that takes says nothing about the token.
        found = self._sessions.get(digest(token))
        if found is None:
            raise CredentialError("this session token is unknown; join anew with a token from: pillion token SERVICE")
        service, expires = found
        if expires <= self._clock():
            raise CredentialError(f"this session has expired; join anew with a token from: pillion token {service}")
        return service

    async def create_join(self, service: str, lifetime: float, who: str) -> tuple[str, float]:
        """A new join token and its end (Unix seconds); lifetime 0 is the default.

        Raises RequestError, FullError.
        """
        lifetime = lifetime or DEFAULT_LIFETIME
        if not 1 <= lifetime <= MAX_LIFETIME:
            raise RequestError(f"lifetime: {lifetime:g} s is not in 1 s..24 h")
        token, now = secrets.token_urlsafe(32), self._clock()

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM join_token WHERE expires < ?", (now - REMEMBER_USED,))
            (waiting,) = db.execute(
                "SELECT count(*) FROM join_token WHERE used IS NULL AND expires > ?", (now,)
            ).fetchone()
            if waiting >= MAX_JOIN_TOKENS:
                raise FullError(f"{waiting} unused join tokens are waiting, which is the bound")
            db.execute("INSERT INTO join_token VALUES (?, ?, ?, NULL)", (digest(token), service, now + lifetime))
            audit(db, now, "token", who, service)

        await self._store.run(work)
        return token, now + lifetime

    async def join_service(self, token: str) -> str:
        """The service that a join token is for; does not burn it. Raises CredentialError."""
        if len(token) > MAX_TOKEN:
            raise CredentialError("this join token is unknown here; make one with: pillion token SERVICE")
        now = self._clock()
        return await self._store.run(lambda db: _check_join(db, digest(token), now))

    async def start_session(self, service: str, expires: float, join_token: str, who: str) -> str:
        """Record a signing and return its session token; burns `join_token` (empty on renewal) in the same
        transaction.

        Raises CredentialError if the join token was used in the meantime, FullError, StoreError.
        """
        session, now = secrets.token_urlsafe(32), self._clock()

        def work(db: sqlite3.Connection) -> list[tuple[bytes]]:
            if join_token:
                _check_join(db, digest(join_token), now)
                db.execute("UPDATE join_token SET used = ? WHERE hash = ?", (now, digest(join_token)))
            db.execute("DELETE FROM session WHERE expires <= ?", (now,))
            over = db.execute(
                "SELECT hash FROM session WHERE service = ? ORDER BY expires DESC LIMIT -1 OFFSET ?",
                (service, MAX_OF_SERVICE - 1),
            ).fetchall()
            db.executemany("DELETE FROM session WHERE hash = ?", over)
            (live,) = db.execute("SELECT count(*) FROM session").fetchone()
            if live >= MAX_SESSIONS:
                raise FullError(f"{live} sessions are live, which is the bound")
            db.execute("INSERT INTO session VALUES (?, ?, ?)", (digest(session), service, expires))
            audit(db, now, "join" if join_token else "renew", who, service)
            return over

        gone = {found for (found,) in await self._store.run(work)}
        self._sessions = {key: it for key, it in self._sessions.items() if it[1] > now and key not in gone}
        self._sessions[digest(session)] = (service, expires)
        return session


def _check_join(db: sqlite3.Connection, found: bytes, now: float) -> str:
    row = db.execute("SELECT service, expires, used FROM join_token WHERE hash = ?", (found,)).fetchone()
    if row is None:
        raise CredentialError("this join token is unknown here; make one with: pillion token SERVICE")
    service, expires, used = row
    if used is not None:
        raise CredentialError(f"this join token was already used; make another with: pillion token {service}")
    if expires <= now:
        raise CredentialError(f"this join token has expired; make another with: pillion token {service}")
    return str(service)


def _load(db: sqlite3.Connection, now: float) -> tuple[str | None, list[tuple[bytes, str, float]]]:
    rows = db.execute("SELECT hash, service, expires FROM session WHERE expires > ?", (now,)).fetchall()
    return get_meta(db, _OPERATOR), rows
