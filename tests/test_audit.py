"""The audit log: what a line holds, that none is lost or doubled by a rename, and that nobody waits."""

import json
import os
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from fakes.clock import FakeClock
from fakes.records import Records
from hypothesis import example, given
from hypothesis import strategies as st

from ai_mux.logs.audit import Audit
from ai_mux.secret import Secret

NOON = 1_800_000_000.125  # 2027-01-15T08:00:00.125Z
WITH_FAKES = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


@pytest.fixture
def records():
    return Records()


@pytest.fixture
def audit(tmp_path, records):
    """An audit log in ``audit.jsonl``, whose directory exists unless a test takes it away."""
    one = Audit(tmp_path / "audit.jsonl", records, clock=FakeClock(wall=NOON))
    yield one
    one.close()


def until(condition, deadline_s: float = 30) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def lines(path) -> list[dict]:
    """Return what a file holds, every line of which has to be whole."""
    text = path.read_text("ascii")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def open_descriptors() -> set[str]:
    return {one.name for one in Path("/dev/fd").iterdir()}


def numbers(path) -> list[int]:
    return [line["n"] for line in lines(path)]


# What a line holds


def test_a_line_is_compact_json_in_ascii_with_the_time_first(audit, tmp_path):
    audit.put({"user": "zoë", "tokens": {"input": 3}, "cost": None, "ms": 1.5})
    audit.close()
    assert (tmp_path / "audit.jsonl").read_bytes() == (
        b'{"ts":"2027-01-15T08:00:00.125Z","user":"zo\\u00eb","tokens":{"input":3},"cost":null,"ms":1.5}\n'
    )


def test_a_line_without_fields_is_the_time(audit, tmp_path):
    audit.put({})
    audit.close()
    assert lines(tmp_path / "audit.jsonl") == [{"ts": "2027-01-15T08:00:00.125Z"}]


def test_times_follow_the_clock(tmp_path):
    clock = FakeClock(wall=NOON)
    audit = Audit(tmp_path / "a", Records(), clock=clock)
    for clock.wall in (NOON, NOON + 0.5, NOON + 1, NOON - 3600):
        audit.put({})
    audit.close()
    assert [line["ts"][11:] for line in lines(tmp_path / "a")] == [
        "08:00:00.125Z",
        "08:00:00.625Z",
        "08:00:01.125Z",
        "07:00:00.125Z",
    ]


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (Secret("made-up-token-0123456789"), "[masked]"),
        ({"deep": [Secret("made-up-token-0123456789")]}, {"deep": ["[masked]"]}),
        (float("nan"), "nan"),
        (b"\xff", "\xff"),
        (Unshowable(), "[Unshowable]"),
        ("x" * 9000, "x" * 8192 + "…"),
    ],
)
def test_any_value_is_shown_in_some_form_and_no_secret_in_any(audit, tmp_path, value, seen):
    audit.put({"value": value})
    audit.close()
    assert lines(tmp_path / "audit.jsonl")[0]["value"] == seen


def test_a_field_cannot_pass_for_the_time(audit, tmp_path):
    audit.put({"ts": "never"})
    audit.close()
    text = (tmp_path / "audit.jsonl").read_text()
    assert text == '{"ts":"2027-01-15T08:00:00.125Z","ts_":"never"}\n'


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers(-(2**63), 2**63)), max_size=4))
@example([{"a\n": "\x7f\x1b[2J\n\u2028\ud800"}, {"ts_": "\r"}])
def test_no_value_begins_a_line_of_its_own(tmp_path_factory, entered):
    path = tmp_path_factory.getbasetemp() / "forged.jsonl"
    path.unlink(missing_ok=True)
    audit = Audit(path, Records(), clock=FakeClock(wall=NOON))
    for fields in entered:
        audit.put(fields)
    audit.close()
    data = path.read_bytes()
    assert all(byte == 0x0A or 0x20 <= byte <= 0x7E for byte in data)
    found = [json.loads(line) for line in data.splitlines()]
    assert [line.pop("ts") for line in found] == ["2027-01-15T08:00:00.125Z"] * len(entered)
    assert [line for line, fields in zip(found, entered, strict=True) if "ts" not in fields] == [
        fields for fields in entered if "ts" not in fields
    ]


# The file


def test_the_file_is_made_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        audit = Audit(tmp_path / "a", Records())
        audit.put({"n": 1})
        audit.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_a_file_that_is_there_is_added_to_and_keeps_its_mode(tmp_path):
    path = tmp_path / "a"
    path.write_text('{"n":1}\n')
    path.chmod(0o640)
    audit = Audit(path, Records())
    audit.put({"n": 2})
    audit.close()
    assert numbers(path) == [1, 2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_line_that_a_crash_has_torn_does_not_swallow_the_next_one(tmp_path):
    path = tmp_path / "a"
    path.write_text('{"n":1}\n{"ts":"2027-01-1')
    audit = Audit(path, Records())
    audit.put({"n": 2})
    audit.close()
    whole, torn, ours = path.read_text().splitlines()
    assert (whole, torn) == ('{"n":1}', '{"ts":"2027-01-1')
    assert json.loads(ours)["n"] == 2


def test_closing_lets_go_of_the_file_and_later_lines_are_lost_quietly(tmp_path, records):
    before = open_descriptors()
    audit = Audit(tmp_path / "a", records)
    audit.put({"n": 1})
    audit.reopen()
    audit.close()
    assert open_descriptors() == before
    assert not [thread for thread in threading.enumerate() if thread.name == "ai-mux-audit"]
    audit.put({"n": 2})
    audit.reopen()
    audit.close()
    assert numbers(tmp_path / "a") == [1]
    assert records.lines == []


# Renaming and reopening


def test_what_was_entered_before_reopening_is_in_the_old_file_and_the_rest_in_the_new(audit, tmp_path):
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    until(path.exists)
    for n in range(100):
        audit.put({"n": n})
    path.rename(old)
    for n in range(100, 200):
        audit.put({"n": n})
    audit.reopen()
    for n in range(200, 300):
        audit.put({"n": n})
    audit.close()
    assert numbers(old) == list(range(200))
    assert numbers(path) == list(range(200, 300))


def test_under_load_every_line_is_in_exactly_one_of_the_rotated_files_and_in_order(tmp_path, records):
    path = tmp_path / "a"
    audit = Audit(path, records)
    producers, each = 4, 3000  # in all less than the queue holds, so that none may be dropped
    rotating = threading.Event()

    def produce(number: int) -> None:
        rotating.wait()
        for n in range(each):
            audit.put({"p": number, "n": n})
            if n % 50 == 0:
                os.sched_yield()

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(producers)]
    for thread in threads:
        thread.start()
    until(path.exists)
    rotations = 0
    rotating.set()
    while any(thread.is_alive() for thread in threads) or rotations < 20:
        rotations += 1
        path.rename(tmp_path / f"a.{rotations}")
        audit.reopen()
        until(path.exists)
    for thread in threads:
        thread.join()
    audit.close()

    files = [tmp_path / f"a.{number}" for number in range(1, rotations + 1)] + [path]
    found = [(line["p"], line["n"]) for file in files for line in lines(file)]
    for number in range(producers):
        assert [n for p, n in found if p == number] == list(range(each))
    assert len(found) == producers * each
    assert sum(bool(lines(file)) for file in files) > 1, "the load did not meet the rotation"
    assert records.lines == []


def test_a_file_that_is_gone_is_made_again(audit, tmp_path):
    path = tmp_path / "audit.jsonl"
    until(path.exists)
    path.unlink()
    audit.reopen()
    audit.put({"n": 1})
    audit.close()
    assert numbers(path) == [1]


def test_reopening_a_file_that_was_not_renamed_goes_on_with_it(audit, tmp_path):
    for n in range(3):
        audit.put({"n": n})
        audit.reopen()
    audit.close()
    assert numbers(tmp_path / "audit.jsonl") == [0, 1, 2]


def test_while_the_new_file_cannot_be_opened_the_old_one_is_written_on(tmp_path, records):
    directory, moved = tmp_path / "d", tmp_path / "moved"
    directory.mkdir()
    audit = Audit(directory / "a", records)
    until((directory / "a").exists)
    directory.rename(moved)
    audit.reopen()
    audit.put({"n": 1})
    until(lambda: numbers(moved / "a") == [1])
    [(level, event, fields)] = records.lines
    assert (level, event) == ("error", "audit.failed")
    assert fields["problem"] == (
        "cannot be opened (No such file or directory); lines go on into the file that was open"
    )
    directory.mkdir()
    audit.put({"n": 2})
    audit.close()
    assert numbers(directory / "a") == [2]
    assert numbers(moved / "a") == [1]
    assert records.events("info") == ["audit.written_again"]


# What cannot be written


def test_a_missing_directory_is_told_once_and_the_lines_that_it_cost_are_counted(tmp_path, records):
    path = tmp_path / "not-yet" / "a"
    audit = Audit(path, records, clock=FakeClock(wall=NOON))
    until(lambda: records.lines)
    for n in range(3):
        audit.put({"n": n})
        until(lambda: audit._writer._size == 0)
    assert records.lines == [
        (
            "error",
            "audit.failed",
            {
                "path": str(path),
                "problem": "cannot be opened (No such file or directory); lines are lost",
            },
        )
    ]
    path.parent.mkdir()
    audit.put({"n": 3})
    audit.close()
    first, gap = lines(path)
    assert first["n"] == 3
    assert gap == {"ts": "2027-01-15T08:00:00.125Z", "dropped": 3}
    assert records.lines[1:] == [
        ("info", "audit.written_again", {"path": str(path)}),
        ("error", "audit.dropped", {"path": str(path), "lines": 3}),
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_is_told_once_and_written_to_again_when_it_has_room(tmp_path, records):
    path = tmp_path / "a"
    path.symlink_to("/dev/full")
    audit = Audit(path, records)
    for n in range(3):
        audit.put({"n": n})
        until(lambda: audit._writer._size == 0)
    assert [event for _, event, _ in records.lines] == ["audit.failed"]
    assert "No space left on device" in str(records.lines[0])
    path.unlink()
    audit.reopen()
    audit.put({"n": 3})
    audit.close()
    first, gap = lines(path)
    assert (first["n"], gap["dropped"]) == (3, 3)


def test_a_line_torn_by_a_full_disk_stands_alone_in_its_file(tmp_path):
    # In a process of its own, because the bound on a file's size holds for the whole of it.
    script = """
        import resource, signal, sys, time
        from pathlib import Path
        from fakes.records import Records
        from ai_mux.logs.audit import Audit

        path, records = Path(sys.argv[1]), Records()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        audit = Audit(path, records)
        for n in range(100):
            audit.put({"n": n})
        until = time.monotonic() + 10
        while not records.lines and time.monotonic() < until:
            time.sleep(0.005)
        assert path.stat().st_size == 1000
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        if sys.argv[2] == "rotated":
            path.rename(f"{path}.1")
            audit.reopen()
        audit.put({"n": 100})
        audit.close()
    """
    for name in ("rotated", "same"):
        path = tmp_path / name
        command = [sys.executable, "-c", textwrap.dedent(script), str(path), name]
        subprocess.run(command, env=WITH_FAKES, check=True, timeout=60)
        old = (tmp_path / "rotated.1" if name == "rotated" else path).read_text().splitlines()
        whole = [json.loads(line)["n"] for line in old[: 1000 // 45]]
        assert whole == list(range(len(whole)))
        after = lines(path) if name == "rotated" else [json.loads(line) for line in old[-2:]]
        assert (after[0]["n"], len(after)) == (100, 2)
        assert after[1]["dropped"] >= 1
        with pytest.raises(json.JSONDecodeError):
            json.loads(old[-1] if name == "rotated" else old[-3])


def test_a_path_that_is_a_directory_is_told_and_costs_nothing_else(tmp_path, records):
    audit = Audit(tmp_path, records)
    audit.put({"n": 1})
    audit.close()
    assert "Is a directory" in str(records.lines)


# Nobody waits


def test_a_pipe_without_a_reader_is_told_and_not_waited_for(tmp_path, records):
    os.mkfifo(tmp_path / "pipe")
    audit = Audit(tmp_path / "pipe", records)
    until(lambda: records.events("error") == ["audit.failed"])
    audit.close()


def test_nobody_waits_for_a_reader_that_does_not_read(tmp_path, records):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    audit = Audit(tmp_path / "pipe", records)
    started = time.monotonic()
    for n in range(40_000):  # 2 MiB, twice what the queue holds
        audit.put({"n": n})
    audit.reopen()
    # Nobody reads yet, so to wait would be to wait for ever; the bound is for a machine that stands still.
    assert time.monotonic() - started < 60, "somebody waited for the pipe"
    received = bytearray()
    os.set_blocking(reader, True)
    closing = threading.Thread(target=audit.close)
    closing.start()
    while piece := os.read(reader, 65536):
        received += piece
    closing.join()
    os.close(reader)
    found = [json.loads(line) for line in received.splitlines()]
    entered = [line["n"] for line in found if "n" in line]
    assert entered == list(range(len(entered)))
    assert len(entered) + sum(line.get("dropped", 0) for line in found) == 40_000


def test_what_was_entered_is_on_disk_soon_after_and_survives_the_process(tmp_path):
    script = """
        import sys, time
        from pathlib import Path
        from fakes.records import Records
        from ai_mux.logs.audit import Audit

        audit = Audit(Path(sys.argv[1]), Records())
        for n in range(1000):
            audit.put({"n": n})
        time.sleep(60)
    """
    path = tmp_path / "a"
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    process = subprocess.Popen(command, env=WITH_FAKES)
    try:
        until(lambda: path.exists() and path.read_bytes().count(b"\n") == 1000)
    finally:
        process.kill()
        process.wait()
    assert numbers(path) == list(range(1000))
