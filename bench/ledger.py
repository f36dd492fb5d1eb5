"""The ledger: does it hold what was sent, and how long does a report of a large one take?"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from load import Carried, WrongAnswer
from measure import on_core
from traffic import Usage

from ai_mux.bookkeeping import LEDGER
from ai_mux.errors import LedgerError
from ai_mux.storage.sqlite import SqliteStore, open_for_reading
from ai_mux.usage.store import END_OF_TIME_S, Query
from ai_mux.usage.tally import MicroUsd, Record, Tokens

REPORTS: Final = 5
_BATCH_ROWS: Final = 1000  # as ai-mux writes them when it is busy
_DAYS: Final = 7
_USERS: Final = 50
_MODELS: Final = 8
_CHANCE: Final = random.Random(20261122)  # the same rows in each run


def check(state: Path, carried: Carried) -> None:
    """Compare the ledger in ``state`` with what the clients have counted.

    Raises:
        WrongAnswer: It holds something else.
    """
    try:
        with closing(open_for_reading(state / LEDGER)) as reader:
            groups = reader.sums(Query(0.0, END_OF_TIME_S))
    except LedgerError as error:
        if not carried.requests and not (state / LEDGER).exists():
            return
        raise WrongAnswer(f"its ledger cannot be read: {error}") from error
    found = (0, 0, 0, Usage())
    if groups:
        [(_, sums)] = groups
        found = (sums.requests, sums.errors, sums.unmetered, Usage(*sums.tokens))
    sent = (carried.requests, 0, carried.unread, carried.used)
    if found != sent:
        raise WrongAnswer(
            f"its ledger holds requests, errors, unmetered and tokens of {found}, and {sent} were sent"
        )


def report_s(directory: Path, *, rows: int, core: int) -> list[float]:
    """Return how long ``ai-mux usage`` takes over so many rows, into a pipe: seconds, of each run.

    Raises:
        WrongAnswer: It failed, or told of another number of requests.
    """
    state = directory / "ledger"
    state.mkdir(mode=0o700)
    _fill(state / LEDGER, rows)
    config = directory / "ledger.json"
    config.write_text(json.dumps({"state_dir": str(state), "providers": ["claude"]}))
    config.chmod(0o600)
    command = [sys.executable, "-m", "ai_mux", "usage", "--config", str(config)]
    _check_report(command, rows)
    took_s = []
    for _ in range(REPORTS):
        with on_core(core):
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            took_s.append(time.perf_counter() - began)
    return took_s


def _check_report(command: list[str], rows: int) -> None:
    """Look whether a report holds all rows, before it is measured."""
    shown = subprocess.run((*command, "--json"), check=False, capture_output=True, text=True)
    told = json.loads(shown.stdout)["total"]["requests"] if shown.returncode == 0 else shown.stderr
    if told != rows:
        raise WrongAnswer(f"ai-mux usage tells of {told}, and the ledger has {rows} rows")


def _fill(path: Path, rows: int) -> None:
    with closing(SqliteStore(path)) as store:
        batch: list[Record] = []
        for record in _records(rows):
            batch.append(record)
            if len(batch) == _BATCH_ROWS:
                store.append(batch)
                batch = []
        if batch:
            store.append(batch)


def _records(rows: int) -> Iterator[Record]:
    """Make up requests: spread evenly over the days that a report is about by default, and until now."""
    now_s = time.time()
    midnight_s = now_s - now_s % 86_400
    first_s = midnight_s - (_DAYS - 1) * 86_400
    for n in range(rows):
        model, user = _CHANCE.randrange(_MODELS), _CHANCE.randrange(_USERS)
        tokens = Tokens(*(_CHANCE.randrange(limit) for limit in (9000, 90_000, 9000, 9000, 5000)))
        yield Record(
            ended_at=first_s + (now_s - first_s) * n / rows,
            request_id=f"req_{n:024x}",
            user=f"user-{user:02d}",
            credential="claude:login",
            provider="claude",
            path="/v1/messages",
            model=f"claude-made-up-{model}",
            status=200 if n % 50 else 529,
            metering="whole" if n % 50 else "none",
            tokens=tokens if n % 50 else Tokens(),
            cost=MicroUsd(sum(tokens)) if n % 50 else None,
            bytes_in=2048,
            bytes_out=1536,
            head_ms=812.5,
            total_ms=4096.25,
        )
