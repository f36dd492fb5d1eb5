"""The ledger: rows go in without waiting, come out of a file, and whoever reads sees what was put before."""

import sqlite3
import threading
import time
from contextlib import closing

import pytest
from fakes.clock import FakeClock
from fakes.machine import names
from fakes.records import Records
from fakes.rows import DAY_S, NOON, row

from ai_mux.clock import SystemClock
from ai_mux.errors import LedgerError
from ai_mux.storage.sqlite import SqliteStore
from ai_mux.usage import ledger as module
from ai_mux.usage.ledger import Ledger
from ai_mux.usage.store import Query

EVER = Query(0.0, 1e18)
# How long a test waits for the thread before it gives up.
PATIENCE_S = 20.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "usage.sqlite"


@pytest.fixture
def log():
    return Records()


@pytest.fixture
def clock():
    return SystemClock()


@pytest.fixture
def ledger(path, log, clock):
    ledger = Ledger(lambda: SqliteStore(path, busy_s=0.01), log=log, clock=clock, keep_s=1e12)
    ledger.start()
    yield ledger
    ledger.close(PATIENCE_S)
    assert not [thread for thread in threading.enumerate() if thread.name == "ai-mux-ledger"]


@pytest.fixture
def locked(ledger, path):
    """Somebody else who holds the ledger; rolled back, it is free again."""
    until(lambda: path.exists() and ledger.sums(EVER) == [])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def until(condition) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def requests(groups) -> int:
    return sum(group.sums.requests for group in groups)


# Putting


def test_rows_are_written_without_being_asked_for(ledger):
    for _ in range(3):
        ledger.put(row())
        until(lambda: ledger.queued == 0)
    until(lambda: ledger.written == 3)
    assert (ledger.queued, ledger.dropped, ledger.is_failing) == (0, 0, False)


@pytest.mark.parametrize("clock", [FakeClock()])  # so that no try comes in between and takes the queue
def test_a_full_queue_drops_the_newest_and_says_so_once(ledger, locked, log, clock, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_ROWS", 10)
    ledger.put(row("first"))
    until(lambda: ledger.is_failing)
    in_hand = ledger.queued
    for index in range(30):
        ledger.put(row(f"later{index:02}"))
    assert (ledger.queued, ledger.dropped) == (10 + in_hand, 20)
    assert log.events("error").count("ledger.full") == 1
    locked.execute("ROLLBACK")
    clock.pass_s(1)
    until(lambda: ledger.queued == 0)
    users = [group.key[0] for group in ledger.sums(Query(0.0, 1e18, ("user",)))]
    assert users == ["first", *(f"later{index:02}" for index in range(10))]
    until(lambda: log.events("info"))  # the step that wrote the rows says so at its end
    assert log.events("info") == ["ledger.works"]
    until(lambda: not ledger.is_failing)
    assert (ledger.written, ledger.dropped) == (11, 20)


@pytest.mark.parametrize("clock", [FakeClock()])
def test_a_second_time_that_the_queue_is_full_is_said_again(ledger, locked, log, clock, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_ROWS", 1)
    for time_full in (1, 2):
        ledger.put(row())
        until(lambda: ledger.is_failing)
        ledger.put(row())
        ledger.put(row())
        assert log.events("error").count("ledger.full") == time_full
        locked.execute("ROLLBACK")
        clock.pass_s(1)
        until(lambda: not ledger.is_failing and ledger.queued == 0)
        until(lambda: ledger._idle)
        locked.execute("BEGIN IMMEDIATE")


def test_putting_waits_for_nothing_while_the_disk_is_locked(ledger, locked):
    begin = time.thread_time()
    for _ in range(20_000):
        ledger.put(row())
    assert time.thread_time() - begin < 5  # a deadline, not a measurement: 20,000 waits would be hours
    locked.execute("ROLLBACK")
    assert requests(ledger.sums(EVER)) <= 20_000
    until(lambda: ledger.written == 20_000)


def test_two_servers_that_overlap_in_a_restart_both_keep_their_rows(path, log):
    both = [Ledger(lambda: SqliteStore(path), log=log, clock=SystemClock(), keep_s=1e12) for _ in range(2)]
    for one in both:
        one.start()
    for _ in range(20):
        for one in both:
            one.put(row())
            one.put(row())
        for one in both:
            one.sums(EVER)
    for one in both:
        one.close(PATIENCE_S)
    assert requests(SqliteStore(path).sums(EVER)) == 80
    assert [one.dropped for one in both] == [0, 0]


def test_a_disk_that_hangs_is_told_although_nothing_has_failed(path, log):
    clock, reached, goes_on = FakeClock(), threading.Event(), threading.Event()

    def open_store():
        reached.set()
        assert goes_on.wait(PATIENCE_S)
        return SqliteStore(path)

    ledger = Ledger(open_store, log=log, clock=clock, keep_s=1e12)
    assert ledger.is_failing is False
    ledger.start()
    ledger.put(row())
    assert reached.wait(PATIENCE_S)
    clock.pass_s(10)
    assert ledger.is_failing is False
    clock.pass_s(1)
    assert ledger.is_failing is True
    assert ledger.queued == 1
    goes_on.set()
    until(lambda: not ledger.is_failing)
    until(lambda: ledger.written == 1 and ledger._idle)
    clock.pass_s(3600)
    assert ledger.is_failing is False  # to wait for rows is not to hang
    ledger.close(PATIENCE_S)


# Reading


def test_who_reads_sees_what_was_put_before(ledger):
    for count in range(1, 30):
        ledger.put(row(at_s=NOON))
        assert requests(ledger.sums(EVER)) == count
        assert sum(one.requests for one in ledger.spent(NOON - DAY_S, NOON)) == count


def test_a_ledger_can_be_read_as_soon_as_it_was_started(tmp_path):
    for attempt in range(10):
        path = tmp_path / str(attempt) / "usage.sqlite"
        ledger = Ledger(lambda path=path: SqliteStore(path), log=Records(), clock=SystemClock(), keep_s=1e12)
        ledger.start()
        assert ledger.spent(0, NOON) == []
        ledger.close(PATIENCE_S)


def test_while_rows_cannot_be_written_what_was_kept_can_be_read_at_once(ledger, locked, monkeypatch):
    monkeypatch.setattr(module, "_READER_WAITS_S", 2 * PATIENCE_S)
    locked.execute("ROLLBACK")
    ledger.put(row())
    assert requests(ledger.sums(EVER)) == 1
    locked.execute("BEGIN IMMEDIATE")
    ledger.put(row())
    until(lambda: ledger.is_failing)
    begin = time.monotonic()
    assert requests(ledger.sums(EVER)) == 1
    assert time.monotonic() - begin < PATIENCE_S


def test_a_ledger_that_cannot_be_read_is_an_error_and_one_line_until_it_can_be_again(ledger, path, log):
    ledger.put(row())
    ledger.sums(EVER)
    path.with_name("away").mkdir()
    for name in names(path.parent):
        if name != "away":
            path.with_name(name).rename(path.parent / "away" / name)
    for _ in range(3):
        with pytest.raises(LedgerError, match="no ledger"):
            ledger.sums(EVER)
    assert log.events("error") == ["ledger.unreadable"]
    ledger.put(row())  # which begins a new one
    until(lambda: ledger.written == 2)
    assert requests(ledger.sums(EVER)) == 1
    assert log.events("error") == ["ledger.unreadable", "ledger.failing"]


def test_damage_that_a_reader_meets_is_moved_aside(ledger, path, log):
    for _ in range(20_000):
        ledger.put(row())
    ledger.sums(EVER)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [[root]] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'hourly'").fetchall()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(LedgerError, match="corrupt"):
        ledger.sums(EVER)
    until(lambda: any(".corrupt-" in name for name in names(path.parent)))
    ledger.put(row())
    until(lambda: not ledger.is_failing and ledger.queued == 0)
    assert requests(ledger.sums(EVER)) == 1


# The end


def test_closing_writes_what_is_queued(path, log):
    ledger = Ledger(lambda: SqliteStore(path), log=log, clock=SystemClock(), keep_s=1e12)
    ledger.start()
    for _ in range(5000):
        ledger.put(row())
    ledger.close(PATIENCE_S)
    store = SqliteStore(path)
    assert requests(store.sums(EVER)) == 5000
    assert log.lines == []
    assert (
        not path.with_name("usage.sqlite-wal").exists()
        or path.with_name("usage.sqlite-wal").stat().st_size == 0
    )


def test_closing_does_not_wait_for_an_outage_s_next_try(path, log):
    clock = FakeClock()  # stands still: the next try would never come
    ledger = Ledger(lambda: SqliteStore(path, busy_s=0.01), log=log, clock=clock, keep_s=1e12)
    ledger.start()
    ledger.sums(EVER)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger.put(row())
        until(lambda: ledger.is_failing)
        closing_it = threading.Thread(target=ledger.close, args=(PATIENCE_S,))
        closing_it.start()
        other.execute("ROLLBACK")
        closing_it.join(PATIENCE_S)
    assert ledger.written == 1
    assert "ledger.lost" not in log.events("error")


def test_what_cannot_be_written_in_time_is_lost_and_said(ledger, locked, log):
    for _ in range(12):
        ledger.put(row())
    until(lambda: ledger.is_failing)  # which is logged once, and before
    ledger.close(0.05)
    assert log.lines[-1] == ("error", "ledger.lost", {"rows": 12})
    ledger.put(row())
    assert ledger.dropped == 1


def test_closing_twice_or_without_a_start_does_no_harm(path, log):
    ledger = Ledger(lambda: SqliteStore(path), log=log, clock=SystemClock(), keep_s=1e12)
    ledger.close(1)
    ledger.close(1)
    assert log.lines == []
