"""The SQLite ledger from one version to the next."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fakes.rows import row

from ai_mux.errors import LedgerError
from ai_mux.storage.sqlite import SqliteStore, open_for_reading
from ai_mux.storage.sqlite_schema import STEPS, check, upgrade
from ai_mux.usage.store import Query

# The first version's file, as its own code made it. A change to the tables is a further step, and
# this stays as it is: such files exist.
FIRST = Path(__file__).with_name("test_storage_sqlite_version_1.sql")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "usage.sqlite"


def count(path) -> int:
    with open_for_reading(path) as reader:
        return sum(group.sums.requests for group in reader.sums(Query(0.0, 1e18)))


def first(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST.read_text())


def tables(path) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()


def test_a_file_of_the_first_version_is_read_and_written(path):
    first(path)
    store = SqliteStore(path)
    store.append([row()])
    store.close()
    assert count(path) == 3


def test_a_file_of_the_first_version_becomes_what_a_new_one_is(path, tmp_path):
    first(path)
    for one in (path, tmp_path / "new.sqlite"):
        store = SqliteStore(one)
        store.append([])
        store.close()
    squeezed = [
        [(kind, name, re.sub(r"\s+", "", sql or "")) for kind, name, sql in tables(one)]
        for one in (path, tmp_path / "new.sqlite")
    ]
    assert squeezed[0] == squeezed[1]


# Two made-up later versions, until there are real ones.
LATER = (
    *STEPS,
    ("ALTER TABLE requests ADD COLUMN tier TEXT NOT NULL DEFAULT ''",),
    ("CREATE TABLE sites (name)",),
)


def test_an_older_file_takes_all_steps_to_the_newest_version_and_keeps_its_rows(path):
    first(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        upgrade(connection, path, LATER)
        assert check(connection, path, version=len(LATER)) == len(LATER)
        assert connection.execute("SELECT user, tier FROM requests").fetchall() == [
            ("alice", ""),
            ("bob", ""),
        ]
        assert connection.execute("SELECT count(*) FROM sites").fetchall() == [(0,)]
        upgrade(connection, path, LATER)  # once is enough
    with pytest.raises(LedgerError, match="later version"):
        open_for_reading(path)


def test_a_step_that_fails_leaves_the_file_as_it_was(path):
    first(path)
    before = tables(path)
    steps = (*LATER, ("CREATE TABLE more (name)", "CREATE TABLE sites (name)"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="sites already exists"):
            upgrade(connection, path, steps)
        assert check(connection, path) == 1
    assert tables(path) == before
    assert count(path) == 2


def test_an_older_file_is_read_when_the_server_has_brought_it_up_to_date(path, monkeypatch):
    first(path)
    monkeypatch.setattr("ai_mux.storage.sqlite_reading.STEPS", LATER)
    with pytest.raises(LedgerError, match="brought up to date when the server starts") as refused:
        open_for_reading(path)
    assert refused.value.passing
