"""Requests that were made, as rows of a ledger in a real file."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from ai_mux.storage import LEDGER
from ai_mux.storage.sqlite import SqliteStore
from ai_mux.usage.tally import NO_TOKENS, Metering, MicroUsd, Record, Tokens

# A Sunday.
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
HOUR_S, DAY_S = 3600, 86400
SOME = Tokens(100, 2000, 30, 4, 50)


def row(
    user: str = "alice",
    model: str = "claude-sonnet-5",
    *,
    ago_s: float = 60,
    at_s: float | None = None,
    tokens: Tokens = SOME,
    cost: int | None = 1500,
    status: int = 200,
    metering: Metering = "whole",
    provider: str = "claude",
) -> Record:
    """Return a request that ended so long before ``NOON``, or at a time of its own."""
    return Record(
        ended_at=NOON - ago_s if at_s is None else at_s,
        request_id="amx_aaaaaaaaaaaaaaaaaaaaaaaaaa",
        user=user,
        credential=f"{provider}:login",
        provider=provider,
        path=f"/{provider}/v1/messages",
        model=model,
        status=status,
        metering=metering,
        tokens=tokens,
        cost=None if cost is None else MicroUsd(cost),
        bytes_in=1000,
        bytes_out=20_000,
        head_ms=400.0,
        total_ms=9000.0,
    )


def unmetered(user: str = "alice", model: str = "claude-sonnet-5", **more: object) -> Record:
    return row(user, model, tokens=NO_TOKENS, cost=None, metering="unmetered", **more)  # type: ignore[arg-type]


def refused(user: str = "alice", *, status: int = 429, **more: object) -> Record:
    return row(user, "", tokens=NO_TOKENS, cost=None, metering="none", status=status, **more)  # type: ignore[arg-type]


def write(state_dir: Path, rows: Iterable[Record] = ()) -> Path:
    """Keep these in the ledger of a state directory, and return its file."""
    path = state_dir / LEDGER
    store = SqliteStore(path)
    store.append(list(rows))
    store.close()
    return path
