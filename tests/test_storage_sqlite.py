"""The ledger in an SQLite file: what is put in is what is summed up, by whatever it is told apart."""

import os
import sqlite3
import stat
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.rows import DAY_S, HOUR_S, NOON, row
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_mux.storage.sqlite import SqliteStore, open_for_reading
from ai_mux.storage.sqlite_schema import MOST
from ai_mux.usage.store import Dimension, Group, Query, Sums
from ai_mux.usage.tally import MicroUsd, Record, Tokens

EVER = Query(0.0, 1e18)
DIMENSIONS: tuple[Dimension, ...] = ("user", "credential", "provider", "model", "day", "hour")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "usage.sqlite"


@pytest.fixture
def store(path):
    store = SqliteStore(path)
    yield store
    store.close()


def key_of(record: Record, by: tuple[Dimension, ...]) -> tuple[str, ...]:
    at = datetime.fromtimestamp(record.ended_at, UTC)
    times = {"day": at.strftime("%Y-%m-%d"), "hour": at.strftime("%Y-%m-%dT%H")}
    return tuple(times[one] if one in times else getattr(record, one) for one in by)


def summed(records: list[Record], query: Query) -> list[Group]:
    """Return what a ledger of these records has to answer."""
    groups = defaultdict(list)
    for one in records:
        if query.since_s <= one.ended_at < query.until_s and query.user in (None, one.user):
            groups[key_of(one, query.by)].append(one)
    return [Group(key, sums_of(of)) for key, of in sorted(groups.items())]


def sums_of(records: list[Record]) -> Sums:
    return Sums(
        requests=len(records),
        errors=sum(one.status >= 400 or one.status == 0 for one in records),
        unmetered=sum(one.metering == "unmetered" for one in records),
        unpriced=sum(one.cost is None and one.tokens.total > 0 for one in records),
        tokens=Tokens(*(sum(kind) for kind in zip(*(one.tokens for one in records), strict=True))),
        cost=MicroUsd(sum(one.cost or 0 for one in records)),
        bytes_in=sum(one.bytes_in for one in records),
        bytes_out=sum(one.bytes_out for one in records),
    )


def rolled_up(path: Path) -> tuple[list[tuple], list[tuple]]:
    """Return the sums of the hours as they are kept, and as they follow from the rows."""
    kinds = ", ".join(
        f"sum({kind})" for kind in (*Tokens._fields, "coalesce(cost, 0)", "bytes_in", "bytes_out")
    )
    connection = sqlite3.connect(path)
    try:
        kept = connection.execute("SELECT * FROM hourly ORDER BY 1, 2, 3, 4, 5").fetchall()
        follow = connection.execute(
            "SELECT CAST(ended_at AS INTEGER) / 3600, user, credential, provider, model, count(*), "
            "sum(metering != 'none'), sum(status >= 400 OR status = 0), sum(metering = 'unmetered'), "
            "sum(cost IS NULL AND input + cache_read + cache_write_5m + cache_write_1h + output > 0), "
            f"{kinds} FROM requests GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
        ).fetchall()
    finally:
        connection.close()
    return kept, follow


# What is put in


amounts = st.one_of(st.integers(0, 5), st.integers(0, 2**53))
names = st.sampled_from(["alice", "bob", "", "ünï", "a'; DROP TABLE requests; --", "nul\0nul"])
records = st.builds(
    Record,
    # Around the edges of hours, and of days
    ended_at=st.builds(
        lambda hour, offset: NOON + hour * HOUR_S + offset,
        st.integers(-13, 13),
        st.sampled_from([0.0, 0.001, 1.5, 1800.0, 3599.999]),
    ),
    request_id=names,
    user=names,
    credential=st.sampled_from(["claude:login", "claude:api-key"]),
    provider=st.sampled_from(["claude", "chatgpt"]),
    path=names,
    model=names,
    status=st.sampled_from([0, 101, 200, 399, 400, 529]),
    metering=st.sampled_from(["whole", "partial", "unmetered", "none"]),
    tokens=st.builds(Tokens, amounts, amounts, amounts, amounts, amounts),
    cost=st.none() | amounts,
    bytes_in=amounts,
    bytes_out=amounts,
    head_ms=st.none() | st.floats(0, 1e6),
    total_ms=st.floats(0, 1e6),
)
edges = st.builds(
    lambda hour, offset: NOON + hour * HOUR_S + offset,
    st.integers(-14, 14),
    st.sampled_from([0.0, 0.001, 1.5, 1799.0, 1800.0]),
)


@settings(max_examples=60)
@given(
    batches=st.lists(st.lists(records, max_size=12), max_size=6),
    since=st.just(0.0) | edges,
    until=st.just(1e18) | edges,
    by=st.lists(st.sampled_from(DIMENSIONS), unique=True, max_size=3).map(tuple),
    user=st.none() | names,
)
def test_the_sums_are_those_of_what_was_put_in_however_it_is_cut_into_batches(
    batches, since, until, by, user
):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "usage.sqlite"
        store = SqliteStore(path)
        for batch in [[], *batches]:
            store.append(batch)
        everything = [one for batch in batches for one in batch]
        query = Query(since, until, by, user)
        assert store.sums(query) == summed(everything, query)
        assert store.sums(EVER) == summed(everything, EVER)
        store.close()
        kept, follow = rolled_up(path)
        assert kept == follow


@pytest.mark.parametrize("count", [1, 2, 3, 127, 128, 129, 499, 500, 501, 1003])
def test_batches_of_any_size_are_kept_whole(store, count):
    everything = [row(f"user{index % 7}", at_s=NOON + index) for index in range(count)]
    store.append(everything)
    query = Query(0.0, 1e18, ("user", "hour"))
    assert store.sums(query) == summed(everything, query)


def test_nothing_is_no_group(store):
    store.append([])
    assert store.sums(EVER) == []
    assert store.sums(Query(0.0, 1e18, ("user",))) == []
    assert store.sums(Query(NOON, NOON)) == []


def test_a_row_has_what_was_said_of_the_request_and_nothing_else(store, path):
    one = row(status=101, ago_s=0.25)
    store.append([one])
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        [kept] = connection.execute("SELECT * FROM requests").fetchall()
    connection.close()
    said = one._asdict()
    assert dict(kept) == {"id": 1, **said.pop("tokens")._asdict(), **said}


def test_columns_are_these_and_none_is_for_content(store, path):
    store.append([row()])
    connection = sqlite3.connect(path)
    columns = {
        table: [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    }
    connection.close()
    who = ("user", "credential", "provider")
    what = ("path", "model", "status", "metering")
    amounts = (*Tokens._fields, "cost", "bytes_in", "bytes_out")
    counts = ("requests", "counted", "errors", "unmetered", "unpriced")
    assert columns == {
        "requests": ["id", "ended_at", "request_id", *who, *what, *amounts, "head_ms", "total_ms"],
        "hourly": ["hour", *who, "model", *counts, *amounts],
    }


# What no row can hold


@pytest.mark.parametrize(
    ("given_as", "kept_as"),
    [
        (row(tokens=Tokens(-5, 1, 1, 1, 1)), row(tokens=Tokens(0, 1, 1, 1, 1))),
        (row(tokens=Tokens(1 << 80, 1, 1, 1, 1)), row(tokens=Tokens(MOST, 1, 1, 1, 1))),
        (row(tokens=Tokens(MOST + 1, 1, 1, 1, 1)), row(tokens=Tokens(MOST, 1, 1, 1, 1))),
        (row(cost=-1), row(cost=0)),
        (row(cost=1 << 63), row(cost=MOST)),
        (row(cost=None)._replace(bytes_out=-1), row(cost=None)._replace(bytes_out=0)),
        (row(model="m" * 2000), row(model="m" * 256)),
        (row(model="half \ud800 a pair"), row(model="half ? a pair")),
        (row(at_s=-1.0), row(at_s=0.0)),
        (row(at_s=float("nan")), row(at_s=0.0)),
        (row(at_s=float("inf")), row(at_s=253_402_300_799.0)),
        (row()._replace(total_ms=float("nan")), row()._replace(total_ms=0.0)),
    ],
)
def test_what_no_row_can_hold_becomes_the_nearest_and_keeps_nothing_else_out(store, path, given_as, kept_as):
    others = [row("bob"), row("carol", cost=None)]
    store.append([*others, given_as])  # the others go in first
    query = Query(0.0, 1e18, ("user", "model", "hour"))
    assert store.sums(query) == summed([*others, kept_as], query)
    kept, follow = rolled_up(path)
    assert kept == follow


def test_sums_beyond_all_integers_are_approximate_and_no_error(store):
    most = Tokens(MOST, MOST, MOST, MOST, MOST)
    store.append([row(tokens=most)] * 2000)
    [hour] = store.sums(EVER)
    assert hour.sums.requests == 2000
    assert hour.sums.tokens.input == 1 << 62
    for days in range(1, 4):
        store.append([row(tokens=most, ago_s=days * DAY_S)] * 500)
    [group] = store.sums(EVER)
    assert group.sums.requests == 3500
    assert group.sums.tokens.input > 1 << 63
    assert [type(figure) for figure in group.sums.tokens] == [int] * 5
    [*spent] = store.spent(NOON - 10 * DAY_S, NOON)
    assert sum(one.requests for one in spent) == 3500
    assert all(isinstance(one.tokens, int) for one in spent)


# Where it lies


def test_the_files_are_their_owner_s_alone_and_so_is_a_directory_that_had_to_be_made(store, path):
    old = os.umask(0)
    try:
        store.append([row()])
    finally:
        os.umask(old)
    assert {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {
        "usage.sqlite": 0o600,
        "usage.sqlite-wal": 0o600,
        "usage.sqlite-shm": 0o600,
    }
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_ledger_that_others_can_read_is_closed_to_them(path):
    path.parent.mkdir()
    path.touch(0o644)
    path.chmod(0o644)
    store = SqliteStore(path)
    store.append([row()])
    store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_ledger_behind_a_symbolic_link_stays_there(path, tmp_path):
    elsewhere = tmp_path / "large disk" / "100% ?#.sqlite"
    elsewhere.parent.mkdir()
    path.parent.mkdir()
    path.symlink_to(elsewhere)
    store = SqliteStore(path)
    store.append([row()])
    with open_for_reading(path) as reader:
        assert reader.sums(EVER)[0].sums.requests == 1
    assert path.is_symlink()
    assert {one.name for one in path.parent.iterdir()} == {"usage.sqlite"}
    assert elsewhere.exists()
    store.close()


def test_what_was_kept_is_there_after_closing_and_opening(path):
    for user in ("alice", "bob"):
        store = SqliteStore(path)
        store.append([row(user)])
        store.close()
    assert [group.key for group in store.sums(Query(0.0, 1e18, ("user",)))] == [("alice",), ("bob",)]
    assert [one.name for one in path.parent.iterdir() if not one.name.endswith("-shm")] != []


def test_two_servers_over_one_ledger_both_write(path):
    ours, theirs = SqliteStore(path), SqliteStore(path)
    for _ in range(5):
        ours.append([row("alice")] * 3)
        theirs.append([row("alice"), row("bob")])
    assert [group.sums.requests for group in ours.sums(Query(0.0, 1e18, ("user",)))] == [20, 5]
    ours.close()
    theirs.append([row("bob")])
    assert [group.sums.requests for group in theirs.sums(Query(0.0, 1e18, ("user",)))] == [20, 6]
    theirs.close()


def test_a_reader_sees_one_moment_and_holds_no_writer_up(store, path):
    store.append([row()])
    with open_for_reading(path) as reader:
        before = reader.sums(EVER)
        store.append([row()] * 9)
        assert before[0].sums.requests == 1
        assert reader.sums(EVER)[0].sums.requests == 10


def test_who_reads_cannot_write(store, path):
    store.append([row()])
    with open_for_reading(path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM requests")


def test_a_large_ledger_is_summed_up_from_its_hours(store, path):
    for day in range(30):
        store.append([row(f"user{one % 5}", at_s=NOON + day * DAY_S + one * 40) for one in range(1000)])
    everything = [
        row(f"user{one % 5}", at_s=NOON + day * DAY_S + one * 40) for day in range(30) for one in range(1000)
    ]
    query = Query(NOON + 5 * DAY_S + 1000.5, NOON + 20 * DAY_S + 777, ("user", "day"))
    assert store.sums(query) == summed(everything, query)
    seen: list[str] = []
    with open_for_reading(path) as reader:
        reader._connection.set_trace_callback(seen.append)
        now = everything[-1].ended_at + 60  # an hour that is not over, and has no later rows
        reader.sums(Query(NOON + 5 * DAY_S, now, ("user",)))
    # No row is looked at where whole hours do; the questions whether they do are answered by the index.
    assert not [one for one in seen if "FROM requests" in one and "EXISTS" not in one]
