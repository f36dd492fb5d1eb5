"""What is in the ledger after SIGKILL: everything but the last second."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from ai_mux.errors import LedgerError
from ai_mux.storage.sqlite import SqliteStore, open_for_reading
from ai_mux.usage.store import Query

TESTS = Path(__file__).parents[1]
# Long enough for several batches, and for rows that are older than a second.
WRITES_S = 1.8
# A disk or a machine that stands still for a moment is nothing that a ledger can mend: of so many
# runs one has to keep to the second. What is there has to be right in all of them.
RUNS = 5
# As many different numbers of rows have been seen on the disk, none among them, before the kill.
SEEN = 4


def there(path: Path, user: str) -> int:
    """Return how many rows of a user are in the ledger."""
    try:
        with open_for_reading(path) as reader:
            return sum(group.sums.requests for group in reader.sums(Query(0.0, 1e18, (), user)))
    except LedgerError as error:
        assert "no ledger" in str(error)  # the process is just making it
        return 0


def killed_while_writing(
    path: Path, beginning: str, *, writes_s: float = WRITES_S
) -> tuple[list[tuple[str, float]], float, float]:
    """Have a process keep rows, and kill it in the middle.

    Returns:
        What it took and when; when it died; and how old a row was at most, until then, before it was there.
    """
    taken: list[tuple[str, float]] = []
    late_s = 0.0
    seen: set[int] = set()
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    with subprocess.Popen(
        [sys.executable, TESTS / "fakes" / "ledger_process.py", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        text=True,
        bufsize=1,
    ) as process:
        end = 0.0
        while not end or time.monotonic() < end or len(seen) < SEEN:
            one = f"{beginning}-{len(taken)}"
            process.stdin.write(f"{one}\n")
            assert process.stdout.readline() == f"{one}\n"
            taken.append((one, time.monotonic()))
            end = end or taken[0][1] + writes_s
            if len(taken) % 250 == 0:  # whenever it were killed, all but the last second would be there
                seen.add(kept := there(path, beginning))
                late = taken[kept:]
                late_s = max(late_s, time.monotonic() - late[0][1] if late else 0.0)
        process.send_signal(signal.SIGKILL)
        died = time.monotonic()
        process.wait()
    return taken, died, late_s


def test_what_was_taken_a_second_before_the_kill_is_there_each_time_and_sums_agree(tmp_path):
    path = tmp_path / "usage.sqlite"
    in_time = []
    while len(in_time) < 2 or (len(in_time) < RUNS and not any(in_time)):
        number = len(in_time)
        taken, died, late_s = killed_while_writing(path, f"run{number}")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            kept = [
                one
                for (one,) in connection.execute(
                    "SELECT request_id FROM requests WHERE request_id LIKE ? ORDER BY id", (f"run{number}-%",)
                )
            ]
        assert kept == [one for one, _ in taken[: len(kept)]]  # nothing twice, nothing in between missing
        missing = taken[len(kept) :]
        assert len(kept) > 100
        in_time.append(late_s < 1.0 and all(at > died - 1.0 for _, at in missing))
    assert any(in_time)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute(
            "SELECT user, count(*), sum(input), sum(output), sum(cost) FROM requests GROUP BY 1 ORDER BY 1"
        ).fetchall()
    with open_for_reading(path) as reader:
        groups = reader.sums(Query(0.0, 1e18, ("user",)))
    assert rows == [
        (one.key[0], s.requests, s.tokens.input, s.tokens.output, s.cost)
        for one in groups
        for s in [one.sums]
    ]


def test_a_log_that_ends_anywhere_has_rows_and_sums_of_the_same_requests(tmp_path):
    """So the files look after a kill between any two of SQLite's writes, or in the middle of one."""
    path = tmp_path / "usage.sqlite"
    taken, *_ = killed_while_writing(path, "run", writes_s=0.8)
    log = path.with_name("usage.sqlite-wal").read_bytes()
    counts = set()
    for cut in range(0, len(log), max(4096, len(log) // 30)):
        copy = tmp_path / f"cut-{cut}" / "usage.sqlite"
        copy.parent.mkdir()
        copy.write_bytes(path.read_bytes())
        copy.with_name("usage.sqlite-wal").write_bytes(log[:cut])
        store = SqliteStore(copy)
        store.append([])
        sums = [group.sums for group in store.sums(Query(0.0, 1e18))]
        store.close()
        with closing(sqlite3.connect(copy)) as connection:
            [[count, tokens]] = connection.execute("SELECT count(*), sum(input) FROM requests").fetchall()
        assert sum(one.requests for one in sums) == count <= len(taken)
        assert sum(one.tokens.input for one in sums) == (tokens or 0)
        counts.add(count)
    assert len(counts) > 2
