"""Tokens: once, in time, for one service; and never stored."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.errors import CredentialError, RequestError, StartError
from control_plane.store import Store
from control_plane.tokens import Tokens
from pillion.client import TokenFile

BUNDLE = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "mesh.db")
    yield store
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def tokens(store: Store, clock: Clock, tmp_path: Path) -> Tokens:
    tokens = Tokens(store, clock)
    await tokens.load(tmp_path / "operator.token", "pillion.local", BUNDLE)
    return tokens


async def test_a_join_token_works_once(tokens: Tokens) -> None:
    token, expires = await tokens.create_join("cart", 0, "test")
    assert expires == 1600
    assert await tokens.join_service(token) == "cart"
    assert await tokens.join_service(token) == "cart"  # looking at it does not burn it
    session = await tokens.start_session("cart", 5000, token, "test")
    assert tokens.session(session) == "cart"
    with pytest.raises(CredentialError, match="already used; make another with: pillion token cart"):
        await tokens.join_service(token)
    with pytest.raises(CredentialError, match="already used"):
        await tokens.start_session("cart", 5000, token, "test")


async def test_of_many_callers_at_once_one_wins(tokens: Tokens) -> None:
    token, _ = await tokens.create_join("cart", 0, "test")
    calls = [tokens.start_session("cart", 5000, token, "test") for _ in range(20)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, str) for result in results) == 1
    assert sum(isinstance(result, CredentialError) for result in results) == 19


async def test_tokens_expire(tokens: Tokens, clock: Clock) -> None:
    token, _ = await tokens.create_join("cart", 60, "test")
    unused, _ = await tokens.create_join("cart", 60, "test")
    session = await tokens.start_session("cart", 2000, token, "test")
    clock.now = 1060
    with pytest.raises(CredentialError, match="expired; make another with: pillion token cart"):
        await tokens.join_service(unused)
    clock.now = 1999
    assert tokens.session(session) == "cart"
    clock.now = 2000
    with pytest.raises(CredentialError, match="expired"):
        tokens.session(session)


async def test_an_earlier_session_stays_good_after_a_renewal_and_a_restart(
    tokens: Tokens, store: Store, clock: Clock, tmp_path: Path
) -> None:
    token, _ = await tokens.create_join("cart", 0, "test")
    first = await tokens.start_session("cart", 2000, token, "test")
    second = await tokens.start_session("cart", 3000, "", "test")
    again = Tokens(store, clock)
    await again.load(tmp_path / "operator.token", "pillion.local", BUNDLE)
    for known in (tokens, again):
        assert known.session(first) == known.session(second) == "cart"
    clock.now = 2500
    third = await again.start_session("cart", 4000, "", "test")
    assert again.session(third) == "cart"
    rows = await store.run(lambda db: db.execute("SELECT count(*) FROM session").fetchone())
    assert rows == (2,)  # the first is pruned


async def test_one_service_cannot_use_up_the_sessions_of_all(
    tokens: Tokens, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.tokens.MAX_OF_SERVICE", 3)
    monkeypatch.setattr("control_plane.tokens.MAX_SESSIONS", 5)
    payments = await tokens.start_session("payments", 2000, "", "test")
    mine = [await tokens.start_session("cart", 2000 + i, "", "test") for i in range(10)]
    assert tokens.session(payments) == "payments"
    for session in mine[:7]:
        with pytest.raises(CredentialError, match="unknown"):
            tokens.session(session)
    assert [tokens.session(session) for session in mine[7:]] == ["cart"] * 3
    assert await store.run(lambda db: db.execute("SELECT count(*) FROM session").fetchone()) == (4,)


async def test_a_token_of_any_size_is_a_wrong_one(tokens: Tokens) -> None:
    with pytest.raises(CredentialError, match="unknown"):
        await tokens.join_service("x" * 1_000_000)


async def test_lifetimes_have_bounds(tokens: Tokens) -> None:
    for bad in (24 * 3600 + 1, -5, 0.5):
        with pytest.raises(RequestError, match="lifetime"):
            await tokens.create_join("cart", bad, "test")


async def test_the_operators_token_is_kept_and_made_anew_only_when_missing(
    tokens: Tokens, store: Store, clock: Clock, tmp_path: Path
) -> None:
    file = tmp_path / "operator.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = TokenFile.load(file)
    assert (first.identity, first.roots_pem) == ("operator@pillion.local", BUNDLE)
    tokens.check_operator(first.token)
    with pytest.raises(CredentialError, match="not the operator's token"):
        tokens.check_operator(first.token + "x")

    again = Tokens(store, clock)
    await again.load(file, "pillion.local", BUNDLE)
    again.check_operator(first.token)

    file.unlink()
    anew = Tokens(store, clock)
    await anew.load(file, "pillion.local", BUNDLE)
    anew.check_operator(TokenFile.load(file).token)
    with pytest.raises(CredentialError):
        anew.check_operator(first.token)

    file.chmod(0o640)
    with pytest.raises(StartError, match="chmod 600"):
        await Tokens(store, clock).load(file, "pillion.local", BUNDLE)


async def test_no_token_is_stored_or_shown(tokens: Tokens, store: Store, tmp_path: Path) -> None:
    token, _ = await tokens.create_join("cart", 0, "test")
    session = await tokens.start_session("cart", 5000, token, "test")
    operator = TokenFile.load(tmp_path / "operator.token").token
    stored = b"".join((tmp_path / name).read_bytes() for name in ("mesh.db", "mesh.db-wal"))
    assert b"cart" in stored
    for secret in (token, session, operator):
        assert secret.encode() not in stored
        assert secret not in repr(tokens)
