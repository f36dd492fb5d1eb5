"""What the SQLite ledger does when the disk, the file or somebody else is in the way."""

import os
import re
import resource
import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fakes.machine import names, run
from fakes.rows import row

from ai_mux.errors import LedgerError
from ai_mux.storage.sqlite import SqliteStore, open_for_reading
from ai_mux.storage.sqlite_schema import STEPS
from ai_mux.usage.store import Query

EVER = Query(0.0, 1e18)
WALL_S = 1_795_348_800.0  # 2026-11-22T12:00:00Z
ASIDE = "usage.sqlite.corrupt-20261122T120000Z"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "usage.sqlite"


@pytest.fixture
def store(path):
    store = SqliteStore(path, wall=lambda: WALL_S, busy_s=0.01)
    yield store
    store.close()


def count(path) -> int:
    with open_for_reading(path) as reader:
        return sum(group.sums.requests for group in reader.sums(EVER))


def refusal(store, *, passing: bool) -> str:
    """Try to write, and return why it was refused."""
    with pytest.raises(LedgerError) as refused:
        store.append([row()])
    assert refused.value.passing is passing
    return str(refused.value)


def make(path, rows: int = 1) -> None:
    """Make a ledger with some rows, as a server leaves it that has ended in order."""
    store = SqliteStore(path)
    store.append([row()] * rows)
    store.close()


def intact(path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# In the way for a while


def test_a_ledger_that_is_locked_is_refused_and_works_afterwards(store, path):
    store.append([row()])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert refusal(store, passing=True) == f"cannot write {path}: another program holds it locked"
        assert count(path) == 1
        other.execute("ROLLBACK")
    store.append([row()])
    assert count(path) == 2


def test_a_new_ledger_that_is_locked_before_it_has_tables_gets_them_afterwards(store, path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "locked" in refusal(store, passing=True)
    store.append([row()])
    assert count(path) == 1


@contextmanager
def largest_file(size: int):
    """Let no file of this process grow beyond a size, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_that_may_not_grow_lose_nothing_that_was_kept_and_work_again(store, path):
    store.append([row()] * 100)
    log = path.with_name("usage.sqlite-wal")
    with largest_file(log.stat().st_size + 2000):
        for _ in range(3):
            with pytest.raises(LedgerError, match=r"look whether the disk of .* is full") as refused:
                store.append([row()] * 1000)
            assert refused.value.passing
            assert count(path) == 100
    store.append([row()] * 1000)
    assert count(path) == 1100
    store.close()
    assert intact(path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with a few hundred blocks."""
    where = tmp_path / "state"
    where.mkdir()
    if not run("mount", "-t", "tmpfs", "-o", "size=1m", "none", where):
        pytest.skip("a small file system can only be mounted by root")
    yield where
    assert run("umount", "-l", where)


def test_a_disk_that_is_full_loses_nothing_that_was_kept_and_is_written_again_with_room(
    small_disk, store, path
):
    store.append([row()] * 100)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    for _ in range(3):
        with pytest.raises(LedgerError, match="full") as refused:
            store.append([row()] * 1000)
        assert refused.value.passing
        store.close()
    assert count(path) == 100
    ballast.unlink()
    store.append([row()] * 1000)
    assert count(path) == 1100
    store.close()
    assert intact(path)


def test_a_new_ledger_on_a_full_disk_is_made_when_there_is_room(small_disk, store, path):
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    assert "full" in refusal(store, passing=True)
    ballast.unlink()
    store.append([row()])
    assert count(path) == 1


@pytest.fixture
def public():
    """A directory that everyone may search, outside the test's own."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@contextmanager
def as_nobody():
    """Do something without root's rights, for whom every file is writable."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())


def test_a_directory_that_cannot_be_written_is_refused_with_the_command_that_mends_it(public):
    with as_nobody():
        path = public / "state" / "usage.sqlite"
        make(path)
        public.joinpath("state").chmod(0o500)
        store = SqliteStore(path)
        for _ in range(2):
            said = refusal(store, passing=True)
            assert said.startswith(f"cannot write {path}: ")
            assert f"{path.parent} is not writable for uid {os.geteuid()}" in said
            assert f"sudo chmod 700 {path.parent}" in said
        public.joinpath("state").chmod(0o700)
        store.append([row()])
        assert count(path) == 2
        store.close()


def test_a_state_directory_that_cannot_be_made_is_refused(public):
    public.chmod(0o555)
    with as_nobody():
        said = refusal(SqliteStore(public / "state" / "usage.sqlite"), passing=True)
    assert f"{public} is not writable for uid " in said
    assert f"sudo install -d -m 700 -o 65534 {public}/state" in said or os.getuid() != 0


def test_who_may_not_read_a_ledger_is_told_who_may_and_not_to_take_it(public):
    path = public / "state" / "usage.sqlite"
    make(path)
    path.parent.chmod(0o000)
    with as_nobody(), pytest.raises(LedgerError, match="run this as the user that ai-mux runs as") as refused:
        open_for_reading(path)
    assert "chown" not in str(refused.value)
    path.parent.chmod(0o700)


# Moved or deleted while it is in use


@pytest.mark.parametrize("reader", [False, True], ids=["alone", "beside a reader"])
def test_a_log_that_was_deleted_is_noticed_and_what_it_held_is_saved(store, path, reader):
    store.append([row()] * 10)
    beside = open_for_reading(path) if reader else None
    path.with_name("usage.sqlite-wal").unlink()
    assert "was moved or deleted while it was in use" in refusal(store, passing=True)
    store.close()
    if beside is not None:
        beside.close()
    store.append([row()])
    assert count(path) == 11
    assert intact(path)


@pytest.mark.parametrize("how", ["deleted", "with its directory", "moved"])
def test_a_ledger_that_was_moved_or_deleted_is_begun_anew(store, path, how, tmp_path):
    store.append([row()] * 10)
    if how == "deleted":
        path.unlink()
    elif how == "moved":
        path.parent.rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(path.parent)
    assert "was moved or deleted while it was in use" in refusal(store, passing=True)
    store.close()
    if how == "deleted":  # its log is still there: rows may be in it that are nowhere else
        assert f"moved aside to {ASIDE}" in refusal(store, passing=True)
        assert f"{ASIDE}-wal" in names(path.parent)
    store.append([row()])
    assert count(path) == 1
    if how == "moved":
        assert count(tmp_path / "elsewhere" / "usage.sqlite") == 10


# Corrupt


def torn(path):
    """A page in the middle is nonsense."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))


CORRUPT = {
    "nonsense": lambda path: path.write_bytes(os.urandom(20_000)),
    "a text": lambda path: path.write_text("user,tokens\nalice,12\n" * 500),
    "its header torn": lambda path: path.write_bytes(b"\0" * 100 + path.read_bytes()[100:]),
    "cut off": lambda path: os.truncate(path, 3 * 4096),
    "its tables torn": lambda path: path.write_bytes(
        path.read_bytes()[:100] + os.urandom(4000) + path.read_bytes()[4100:]
    ),
}


@pytest.mark.parametrize("hurt", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_ledger_is_moved_aside_as_it_is_and_a_new_one_is_begun(store, path, hurt):
    make(path, 3000)
    hurt(path)
    before = path.read_bytes()
    said = refusal(store, passing=True)
    assert re.search(rf"{re.escape(str(path))} is corrupt \(.+\); it was moved aside to {ASIDE}, ", said)
    assert path.with_name(ASIDE).read_bytes() == before
    assert not path.exists()
    store.append([row()] * 2)
    assert count(path) == 2
    assert intact(path)
    assert path.with_name(ASIDE).read_bytes() == before


@pytest.mark.parametrize("hurt", CORRUPT.values(), ids=CORRUPT)
def test_who_reads_a_corrupt_ledger_is_told_and_leaves_it_as_it_is(path, hurt):
    make(path, 3000)
    hurt(path)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=f"cannot read {path}: it is corrupt") as refused:
        count(path)
    assert not refused.value.passing
    assert path.read_bytes() == before
    assert not path.with_name(ASIDE).exists()


def test_damage_that_only_a_search_finds_is_found_by_one(store, path):
    make(path, 20_000)
    torn(path)
    store.append([row()])
    with pytest.raises(LedgerError, match="moved aside") as refused:
        store.examine()
    assert refused.value.passing
    store.append([row()])
    assert count(path) == 1


def test_a_ledger_without_damage_is_searched_and_stays(store, path):
    store.append([row()] * 100)
    store.examine()
    assert count(path) == 100


def test_a_ledger_that_becomes_corrupt_while_it_is_written_is_moved_aside_with_its_log(store, path):
    make(path, 3000)
    store.append([row()])
    # As a failing disk does it: below, while SQLite knows the newest pages only.
    path.write_bytes(os.urandom(path.stat().st_size))
    with pytest.raises(LedgerError, match=f"moved aside to {ASIDE}") as refused:
        store.forget_before(1e12)
    assert refused.value.passing
    assert {ASIDE, f"{ASIDE}-wal"} <= set(names(path.parent))
    assert path.with_name(f"{ASIDE}-wal").stat().st_size > 0
    store.append([row()])
    assert count(path) == 1


def test_an_empty_database_with_a_log_keeps_its_log(store, path):
    store.append([row()] * 10)
    for name in ("usage.sqlite", "usage.sqlite-wal"):
        shutil.copy(path.with_name(name), path.with_name(f"copy-of-{name}"))
    store.close()
    path.with_name("copy-of-usage.sqlite-wal").rename(path.with_name("usage.sqlite-wal"))
    path.write_bytes(b"")
    held = path.with_name("usage.sqlite-wal").read_bytes()
    with pytest.raises(LedgerError, match="it is empty, and the log beside it is not"):
        open_for_reading(path)
    assert "it is empty, and its log is not" in refusal(store, passing=True)
    assert path.with_name(f"{ASIDE}-wal").read_bytes() == held


def test_a_log_that_was_cut_off_costs_what_was_in_the_rest_and_no_more(path):
    store = SqliteStore(path)
    for _ in range(20):
        store.append([row()] * 10)
    killed = path.parent.with_name("killed")  # what a killed process leaves: the log was not copied
    shutil.copytree(path.parent, killed)
    store.close()
    log = killed / "usage.sqlite-wal"
    os.truncate(log, log.stat().st_size * 2 // 3)
    (killed / "usage.sqlite-shm").unlink()
    store = SqliteStore(killed / "usage.sqlite")
    store.append([row()] * 10)
    there = count(killed / "usage.sqlite")
    assert 20 < there < 210
    assert there % 10 == 0
    store.close()
    with closing(sqlite3.connect(killed / "usage.sqlite")) as connection:
        assert connection.execute(
            "SELECT (SELECT count(*) FROM requests), sum(requests) FROM hourly"
        ).fetchall() == [(there, there)]
    assert intact(killed / "usage.sqlite")


def test_ledgers_that_were_moved_aside_in_the_same_second_are_all_kept(store, path):
    for number in range(3):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nonsense of its own %d" % number * 100)
        refusal(store, passing=True)
    assert [path.with_name(name).read_bytes()[:24] for name in (ASIDE, f"{ASIDE}.2", f"{ASIDE}.3")] == [
        b"nonsense of its own 0non",
        b"nonsense of its own 1non",
        b"nonsense of its own 2non",
    ]


def test_a_disk_that_spoils_every_ledger_is_not_filled_with_them(store, path):
    for _ in range(10):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nonsense" * 100)
        refusal(store, passing=True)
    path.write_bytes(b"nonsense" * 100)
    for _ in range(2):
        assert "as were 10 before it" in refusal(store, passing=False)
    assert path.read_bytes() == b"nonsense" * 100
    assert len(names(path.parent)) == 11


# Not ours to write


def test_a_newer_ledger_is_left_alone(store, path):
    make(path, 5)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    before = path.read_bytes()
    said = f"was written by a later version of ai-mux (its tables have version {len(STEPS) + 1}"
    assert said in refusal(store, passing=False)
    with pytest.raises(LedgerError, match=re.escape(said)):
        open_for_reading(path)
    assert path.read_bytes() == before
    assert not [name for name in names(path.parent) if "corrupt" in name]


def test_a_later_version_that_starts_beside_this_one_ends_its_writing(store, path):
    store.append([row()])
    with closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    assert "later version" in refusal(store, passing=False)


def test_another_program_s_database_is_left_alone(store, path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name)")
    before = path.read_bytes()
    assert "is another program's database" in refusal(store, passing=False)
    with pytest.raises(LedgerError, match="another program's database"):
        open_for_reading(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("what", ["a directory", "a pipe"])
def test_what_is_no_file_is_left_alone(store, path, what):
    path.parent.mkdir()
    path.mkdir() if what == "a directory" else os.mkfifo(path)
    assert "is not a regular file; move it away" in refusal(store, passing=False)
    with pytest.raises(LedgerError, match="is not a regular file; move it away"):
        open_for_reading(path)


def test_where_there_is_no_ledger_yet_who_reads_is_told_and_makes_none(path):
    for _ in range(2):
        with pytest.raises(LedgerError, match=f"there is no ledger at {path} yet") as refused:
            open_for_reading(path)
        assert refused.value.passing
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
    path.touch()  # a server is just starting
    with pytest.raises(LedgerError, match=f"there is no ledger at {path} yet"):
        open_for_reading(path)
