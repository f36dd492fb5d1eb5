"""What the ledger's thread does and when: on real files, by a clock that is told."""

import shutil
import sqlite3
from collections import deque
from contextlib import closing

import pytest
from fakes.clock import FakeClock
from fakes.machine import names
from fakes.records import Records
from fakes.rows import DAY_S, HOUR_S, row

from ai_mux.storage.sqlite import SqliteStore, open_for_reading
from ai_mux.usage.store import Query
from ai_mux.usage.writing import Writing

KEEP_S = 400 * DAY_S


class Rig:
    """Writing over a file, one step at a time."""

    def __init__(self, path, *, open_store=None) -> None:
        self.path = path
        self.clock = FakeClock()
        self.log = Records()
        self.queue: deque = deque()
        self.keep_s = KEEP_S
        self.opened = 0
        self.start(open_store)

    def start(self, open_store=None) -> None:
        """Start, or start again, as after the end of the process."""
        self.writing = Writing(
            self.queue,
            open_store or self.open_store,
            log=self.log,
            clock=self.clock,
            keep_s=lambda: self.keep_s,
        )
        self.step = self.writing.step

    def open_store(self) -> SqliteStore:
        self.opened += 1
        return SqliteStore(self.path, wall=self.clock.time, busy_s=0.01)

    def put(self, count: int = 1, *, ago_s: float = 0.0) -> None:
        self.queue.extend([row(at_s=self.clock.time() - ago_s)] * count)

    def kept(self) -> int:
        with open_for_reading(self.path) as reader:
            return sum(group.sums.requests for group in reader.sums(Query(0.0, 1e18)))

    def settle(self) -> int:
        """Step until nothing is due for a while; return how many steps that took."""
        steps = 1
        while (pause_s := self.step()) < 60:
            self.clock.pass_s(pause_s)
            steps += 1
        return steps


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path / "state" / "usage.sqlite")
    yield rig
    rig.writing.close()


@pytest.fixture
def locked(rig):
    """Somebody else who holds the ledger; rolled back, it is free again."""
    rig.step()
    with closing(sqlite3.connect(rig.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_the_file_is_there_before_the_first_request(rig):
    rig.step()
    assert rig.writing.is_open
    assert rig.kept() == 0


def test_what_is_queued_is_written_and_counted(rig):
    rig.put(2500)
    rig.step()
    assert (rig.kept(), rig.writing.written, rig.writing.in_hand, len(rig.queue)) == (2500, 2500, 0, 0)
    assert rig.log.lines == []


# Failing, and working again


def test_rows_outlast_a_minute_of_a_locked_disk_and_the_log_has_one_line_for_it_and_one_for_its_end(
    rig, locked
):
    for second in range(60):
        rig.put(25)
        rig.step()
        assert rig.writing.is_failing
        assert len(rig.queue) + rig.writing.in_hand == 25 * (second + 1)
        rig.clock.pass_s(1)
    assert rig.opened == 1 + 5  # before, and for the tries after 1, 3, 7, 15 and 31 s
    assert rig.log.lines == [
        (
            "error",
            "ledger.failing",
            {"problem": f"cannot write {rig.path}: another program holds it locked", "rows": 25},
        )
    ]
    locked.execute("ROLLBACK")
    rig.put(7)
    rig.clock.pass_s(30)
    rig.step()
    assert not rig.writing.is_failing
    assert (rig.kept(), rig.writing.written, rig.writing.dropped) == (1507, 1507, 0)
    assert rig.log.lines[1:] == [("info", "ledger.works", {"rows": 1507})]


def test_tries_are_30_s_apart_at_most_and_begin_anew_with_the_next_outage(rig, locked):
    waits = []
    for _ in range(8):
        rig.put()
        waits.append(rig.step())
        rig.clock.pass_s(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    locked.execute("ROLLBACK")
    rig.step()
    locked.execute("BEGIN IMMEDIATE")
    rig.put()
    assert rig.step() == 1
    assert rig.log.events("error") == ["ledger.failing"] * 2


def test_between_two_tries_nothing_is_tried_but_at_once_is(rig, locked):
    rig.put()
    rig.step()
    locked.execute("ROLLBACK")
    rig.clock.pass_s(0.25)
    assert rig.step() == 0.75
    assert rig.kept() == 0
    rig.step(at_once=True)
    assert rig.kept() == 1


def test_another_problem_in_the_same_outage_is_logged_too(rig, locked):
    rig.put()
    rig.step()
    shutil.rmtree(rig.path.parent)
    rig.path.parent.write_text("a file in the directory's place")
    for _ in range(3):
        rig.clock.pass_s(30)
        rig.step()
    rig.path.parent.unlink()
    rig.clock.pass_s(30)
    rig.step()
    assert rig.kept() == 1
    problems = [fields["problem"] for level, _, fields in rig.log.lines if level == "error"]
    assert len(problems) == len(set(problems)) == 2
    assert "Not a directory" in problems[1]
    assert rig.log.lines[-1] == ("info", "ledger.works", {"rows": 1})


def test_a_batch_that_meets_a_corrupt_file_is_kept_in_the_new_one(rig):
    rig.put(5)
    rig.step()
    rig.writing.close()
    rig.path.write_bytes(b"nonsense" * 1000)
    rig.put(3)
    assert rig.step() == 1
    [(_, _, fields)] = rig.log.lines
    assert "it was moved aside to usage.sqlite.corrupt-20270115T080000Z" in fields["problem"]
    rig.clock.pass_s(1)
    rig.step()
    assert rig.kept() == 3
    assert rig.log.lines[1:] == [("info", "ledger.works", {"rows": 3})]
    assert "usage.sqlite.corrupt-20270115T080000Z" in names(rig.path.parent)


def test_a_state_directory_that_was_deleted_is_made_again(rig):
    rig.put(5)
    rig.step()
    shutil.rmtree(rig.path.parent)
    rig.put(3)
    rig.settle()
    assert rig.kept() == 3


def test_rows_wait_while_a_newer_version_s_ledger_is_in_the_way(rig):
    rig.step()
    rig.writing.close()
    with closing(sqlite3.connect(rig.path)) as later:
        later.execute("PRAGMA user_version = 1000")
    rig.put(9)
    for _ in range(10):
        rig.clock.pass_s(rig.step())
    assert rig.writing.in_hand == 9
    assert rig.log.events("error") == ["ledger.failing"]
    rig.path.rename(rig.path.with_name("newer.sqlite"))
    rig.step()
    assert rig.kept() == 9


def test_damage_that_a_reader_saw_is_looked_for_and_found(rig):
    rig.put(20_000)
    rig.step()
    rig.writing.close()
    with rig.path.open("r+b") as file:
        file.seek(rig.path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    rig.put()
    rig.step()
    assert rig.log.lines == []
    rig.writing.distrusts = True
    rig.step()
    assert "moved aside" in rig.log.text()
    rig.put()
    rig.settle()
    assert rig.kept() == 1


# Bugs


class Broken:
    """A store of a batch that the code cannot cope with."""

    def __init__(self, good, poison) -> None:
        self._good = good
        self._poison = poison

    def append(self, records) -> None:
        if self._poison in records:
            raise ZeroDivisionError("with a secret in it")
        self._good.append(records)

    def __getattr__(self, name):
        return getattr(self._good, name)


def test_rows_that_the_code_cannot_cope_with_are_given_up_after_three_tries_and_others_kept(tmp_path):
    path = tmp_path / "usage.sqlite"
    poison = row("poison")
    rig = Rig(path, open_store=lambda: Broken(SqliteStore(path), poison))
    rig.queue.append(poison)
    for _ in range(2):
        rig.clock.pass_s(rig.step())
        assert rig.writing.dropped == 0
    rig.step()
    assert rig.writing.dropped == 1
    rig.put(2)
    rig.settle()
    assert rig.kept() == 2
    assert rig.log.events("error") == ["ledger.failing"]
    assert "ZeroDivisionError at test_ledger_writing.py:" in rig.log.text()
    assert "secret" not in rig.log.text()
    rig.writing.close()


# Forgetting


def was_kept(rig, *days_ago, hours_ago=(), wall_s=0.0, off_s=0.0) -> None:
    """Have a server keep rows that are so old, one each, and end; then start it again.

    Args:
        rig: The server.
        days_ago: How old rows are, in days.
        hours_ago: The same in hours.
        wall_s: How far somebody sets the clock ahead before the start.
        off_s: For how long no server runs.
    """
    ages_s = [*(DAY_S * days for days in days_ago), *(HOUR_S * hours for hours in hours_ago)]
    rig.writing.close()
    with closing(rig.open_store()) as store:
        store.append([row(at_s=rig.clock.time() - age_s) for age_s in ages_s])
    rig.log.lines.clear()
    rig.clock.wall += wall_s
    rig.clock.pass_s(off_s)
    rig.start()


def test_what_is_too_old_is_forgotten_at_the_start_and_then_every_hour(rig):
    was_kept(rig, 402, 401, 399.9, 100, hours_ago=(30, 6))
    rig.settle()
    assert rig.kept() == 4
    rig.clock.pass_s(4 * HOUR_S)
    assert rig.step() == HOUR_S
    assert rig.kept() == 3
    rig.clock.pass_s(10)
    assert rig.step() == HOUR_S - 10
    assert rig.log.lines == [
        ("info", "ledger.forgotten", {"rows": 2, "before": "2025-12-11T08:00:00Z"}),
        ("info", "ledger.forgotten", {"rows": 1, "before": "2025-12-11T12:00:00Z"}),
    ]


def test_a_clock_that_is_far_ahead_at_the_start_empties_no_ledger_and_the_log_says_so(rig):
    was_kept(rig, 300, 200, hours_ago=(30, 6), wall_s=2 * KEEP_S)
    for _ in range(23):
        rig.put()
        rig.settle()
        rig.clock.pass_s(HOUR_S)
    assert rig.kept() == 4 + 23
    [(level, event, fields)] = rig.log.lines
    assert (level, event) == ("warning", "ledger.clock_doubted")
    assert (fields["clock"], fields["last_request"]) == ("2029-03-25T08:00:00Z", "2027-01-15T02:00:00Z")
    rig.clock.wall -= 2 * KEEP_S
    for _ in range(48):
        rig.clock.pass_s(HOUR_S)
        rig.settle()
    assert rig.kept() == 4 + 23


def test_nor_does_it_when_it_is_started_again_after_rows_of_that_time(rig):
    was_kept(rig, 300, 200, hours_ago=(30, 6), wall_s=2 * KEEP_S)
    for _ in range(5):
        rig.put()
        rig.settle()
        rig.writing.close()
        rig.clock.pass_s(4 * HOUR_S)
        rig.start()
    rig.settle()
    assert rig.kept() == 4 + 5


def test_rows_that_wait_to_be_written_do_not_bear_out_the_time_that_they_have(rig):
    rig.keep_s = DAY_S
    was_kept(rig, hours_ago=(20, 6, 1), wall_s=1.5 * DAY_S)
    rig.put()
    rig.settle()
    assert rig.kept() == 4


def test_after_weeks_without_a_server_what_is_too_old_is_forgotten_after_a_day(rig):
    was_kept(rig, 390, 385, hours_ago=(30, 6), off_s=21 * DAY_S)
    for _ in range(24):
        rig.settle()
        assert rig.kept() == 4
        rig.clock.pass_s(HOUR_S)
    rig.settle()
    assert rig.kept() == 2
    assert [line[1] for line in rig.log.lines] == ["ledger.clock_doubted", "ledger.forgotten"]


def test_where_nothing_is_too_old_there_is_nothing_to_warn_of(rig):
    was_kept(rig, 300, off_s=21 * DAY_S)
    rig.settle()
    assert rig.log.lines == []


def test_a_machine_that_sleeps_every_night_forgets_all_the_same(rig):
    was_kept(rig, 400.5, hours_ago=(30, 6))
    for _ in range(3):
        rig.put()
        rig.settle()
        rig.clock.pass_s(HOUR_S)
        rig.clock.wall += 20 * HOUR_S
    assert rig.kept() == 5


def test_what_was_forgotten_is_told_once_for_all_steps_and_also_where_they_are_broken_off(rig):
    was_kept(rig, *[401] * 2000, hours_ago=(30, 6))
    rig.settle()
    [(_, event, fields)] = rig.log.lines
    assert (event, fields["rows"]) == ("ledger.forgotten", 2000)
    was_kept(rig, *[401] * 2000)
    rig.step()
    assert rig.log.lines == []
    rig.writing.close()
    assert rig.log.lines[0][2]["rows"] == 500


def test_rows_that_come_meanwhile_are_written_between_two_steps_of_forgetting(rig):
    rig.put(5000, ago_s=KEEP_S + DAY_S)
    steps = 0
    while rig.step() < 1:
        steps += 1
        rig.put()
        rig.clock.pass_s(0.05)
        assert rig.writing.written == 5000 + steps - 1
    assert steps >= 10
    rig.settle()
    assert rig.kept() == steps


def test_another_keep_holds_from_the_next_time_on(rig):
    rig.put(3, ago_s=10 * DAY_S)
    rig.settle()
    rig.keep_s = 5 * DAY_S
    rig.clock.pass_s(HOUR_S)
    rig.settle()
    assert rig.kept() == 0


def test_a_clock_that_jumps_ahead_empties_no_ledger_unless_it_stays_there_for_a_day(rig):
    rig.put(3)
    rig.settle()
    rig.clock.wall += 2 * KEEP_S
    for _ in range(23):
        rig.clock.pass_s(HOUR_S)
        rig.put()
        rig.step()
    assert rig.kept() == 26
    rig.clock.wall -= 2 * KEEP_S
    for _ in range(48):
        rig.clock.pass_s(HOUR_S)
        rig.step()
    assert rig.kept() == 26
    rig.clock.wall += 2 * KEEP_S
    for _ in range(25):
        rig.clock.pass_s(HOUR_S)
        rig.settle()
    assert rig.kept() == 23  # those of the first jump, which is the present now


def test_a_clock_that_is_set_back_forgets_nothing_and_goes_on(rig):
    rig.put(3)
    rig.settle()
    rig.clock.wall -= 10 * KEEP_S
    for _ in range(3):
        rig.clock.pass_s(HOUR_S)
        rig.put()
        rig.settle()
    assert rig.kept() == 6
