"""The log: what a line holds, that nothing forges one, and that nobody waits for its reader."""

import errno
import fcntl
import io
import json
import os
import pty
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_mux.logs import Log, mask, masked_headers, wants_colour
from ai_mux.logs.lines import REQUEST_FIELDS, JsonForm
from ai_mux.logs.person import PersonForm
from ai_mux.logs.values import LONGEST_PATH, LONGEST_VALUE
from ai_mux.logs.writer import QUEUE_BYTES, to_descriptor
from ai_mux.secret import Secret

NOON = 1_800_000_000.125  # 2027-01-15T08:00:00.125Z
TOKEN = "made-up-token-0123456789abcdef"  # 30 characters


class StoppedClock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Paper:
    """A reader that keeps everything; it can be made to fail, or to take a few bytes only."""

    def __init__(self) -> None:
        self.data = b""
        self.errors: list[OSError] = []
        self.takes: int | None = None

    def __call__(self, data: bytes, /) -> int:
        if self.takes is not None:
            data, self.takes = data[: self.takes], None
            self.data += data
            return len(data)
        if self.errors:
            raise self.errors.pop(0)
        self.data += data
        return len(data)

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.data.splitlines() if line]


def a_request(log: Log, **changed: object) -> None:
    facts = {
        "request_id": "amx_abcdefghijklmnopqrstuvwxyz",
        "remote": "192.0.2.7",
        "method": b"POST",
        "path": b"/claude/v1/messages",
        "user": "alice",
        "provider": "claude",
        "status": 200,
        "bytes_in": 2048,
        "bytes_out": 3_500_000,
        "head_ms": 412.34,
        "total_ms": 2310.0,
        "upstream": "api.anthropic.com",
        "end": "done",
    }
    log.request(**{**facts, **changed})


def logged(level: str = "info", **changed: object) -> list[dict]:
    paper = Paper()
    log = Log(level=level, write=paper, clock=StoppedClock())
    a_request(log, **changed)
    log.close()
    return paper.lines


def shown(act, *, colour: bool = False) -> str:
    paper = Paper()
    log = Log(level="debug", write=paper, clock=StoppedClock(), form=PersonForm(colour=colour))
    act(log)
    log.close()
    return paper.data.decode()


def until(condition, deadline_s: float = 30) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def in_time(act, deadline_s: float = 10) -> None:
    """Run something that may hang if the code is broken, and fail if it does."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(deadline_s)
    assert not thread.is_alive(), "it hangs"


# What a line holds


def test_a_request_is_one_json_object_with_the_fixed_fields_in_order():
    (line,) = logged()
    assert tuple(line) == REQUEST_FIELDS
    assert line == {
        "ts": "2027-01-15T08:00:00.125Z",
        "level": "info",
        "event": "request.done",
        "request_id": "amx_abcdefghijklmnopqrstuvwxyz",
        "remote": "192.0.2.7",
        "method": "POST",
        "path": "/claude/v1/messages",
        "user": "alice",
        "provider": "claude",
        "status": 200,
        "bytes_in": 2048,
        "bytes_out": 3_500_000,
        "head_ms": 412.3,
        "total_ms": 2310.0,
        "upstream": "api.anthropic.com",
        "end": "done",
    }


def test_what_a_request_never_had_is_null():
    (line,) = logged(user=None, provider=None, status=None, head_ms=None, upstream=None)
    assert [line[name] for name in ("user", "provider", "status", "head_ms", "upstream")] == [None] * 5


def test_probes_are_logged_at_debug_only():
    assert logged("info", probe=True) == []
    (line,) = logged("debug", probe=True)
    assert line["level"] == "debug"


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["d", "i", "request.done", "w", "e"]),
        ("info", ["i", "request.done", "w", "e"]),
        ("warn", ["w", "e"]),
        ("error", ["e"]),
    ],
)
def test_a_level_shows_itself_and_what_is_worse(level, seen):
    paper = Paper()
    log = Log(level=level, write=paper, clock=StoppedClock())
    log.debug("d")
    log.info("i")
    a_request(log)
    log.warning("w")
    log.error("e")
    log.close()
    assert [line["event"] for line in paper.lines] == seen
    assert log.is_debug is (level == "debug")


def test_the_level_can_change_while_it_runs():
    paper = Paper()
    log = Log(level="error", write=paper, clock=StoppedClock())
    log.info("before")
    log.set_level("debug")
    log.debug("after")
    log.close()
    assert [(line["level"], line["event"]) for line in paper.lines] == [("debug", "after")]


@pytest.mark.parametrize(
    ("past_s", "shown"), [(0.0, "000"), (0.0078125, "007"), (0.0625, "062"), (0.9990234375, "999")]
)
def test_milliseconds_have_three_digits(past_s, shown):
    paper = Paper()
    log = Log(level="info", write=paper, clock=StoppedClock(1_800_000_000 + past_s))
    a_request(log)
    log.info("other")
    log.close()
    assert [line["ts"] for line in paper.lines] == [f"2027-01-15T08:00:00.{shown}Z"] * 2


def test_times_follow_the_clock_across_seconds():
    paper, clock = Paper(), StoppedClock(NOON)
    log = Log(level="info", write=paper, clock=clock)
    for clock.now in (NOON, NOON + 0.5, NOON + 1, NOON - 3600):
        a_request(log)
        log.info("other")
    log.close()
    assert [line["ts"][11:] for line in paper.lines[::2]] == [line["ts"][11:] for line in paper.lines[1::2]]
    assert [line["ts"][11:] for line in paper.lines[::2]] == [
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
        (7, 7),
        (True, True),
        (None, None),
        (1.5, 1.5),
        (float("nan"), "nan"),
        ("阿丽丝", "阿丽丝"),
        (b"\xff\x00", "\xff\x00"),
        (Path("state"), "state"),
        (OSError("full"), "OSError: full"),
        (["a", 1], ["a", 1]),
        ({"a": {"b": 2}}, {"a": {"b": 2}}),
        (Unshowable(), "[Unshowable]"),
        ("x" * 9000, "x" * LONGEST_VALUE + "…"),
        (Secret(TOKEN), "[masked]"),
        ({"deep": [Secret(TOKEN)]}, {"deep": ["[masked]"]}),
        ([[[[[[Secret(TOKEN)]]]]]], [[[["[[Secret(…)]]"]]]]),
    ],
)
def test_any_value_can_be_a_field(value, seen):
    paper = Paper()
    log = Log(level="info", write=paper, clock=StoppedClock())
    log.info("an.event", value=value)
    log.close()
    assert paper.lines[0]["value"] == seen


def test_a_field_cannot_pass_for_the_time_or_level():
    paper = Paper()
    log = Log(level="info", write=paper, clock=StoppedClock())
    log.info("an.event", ts="never", level="error")
    log.close()
    assert paper.lines[0] == {
        "ts": "2027-01-15T08:00:00.125Z",
        "level": "info",
        "event": "an.event",
        "ts_": "never",
        "level_": "error",
    }


# What clients choose cannot forge a line


@example(path=b"\x7f\x1b[2J\n", remote="\x7f", method=b"\x7f")
@given(path=st.binary(max_size=300), remote=st.text(max_size=80), method=st.binary(max_size=80))
def test_no_bytes_in_a_request_forge_or_break_a_line(path, remote, method):
    line = JsonForm().request(
        now_s=NOON,
        level="info",
        request_id="r",
        remote=remote,
        method=method,
        path=path,
        user=None,
        provider=None,
        status=400,
        bytes_in=0,
        bytes_out=0,
        head_ms=None,
        total_ms=0.1,
        upstream=None,
        end="refused",
    )
    assert line.endswith(b"}\n")
    assert all(0x20 <= byte <= 0x7E for byte in line[:-1])
    parsed = json.loads(line)
    assert (parsed["path"].encode("latin-1"), parsed["method"].encode("latin-1")) == (path, method)
    assert parsed["remote"] == remote


@given(text=st.text(), raw=st.binary())
@example(text="\x7f\x9b", raw=b"\x7f\n")
def test_no_value_forges_a_json_line(text, raw):
    line = JsonForm().event(NOON, "warn", text, {"field": text, text or "x": raw})
    assert all(0x20 <= byte <= 0x7E for byte in line[:-1])
    assert json.loads(line)["event"] == text


@given(text=st.text(), raw=st.binary())
def test_no_value_reaches_the_terminal_as_anything_but_print(text, raw):
    def act(log: Log) -> None:
        log.warning(text, field=text, other={text: [raw]})
        a_request(log, path=raw, method=raw, user=text, remote=text)

    first, second, end = shown(act).split("\n")
    assert first.isprintable()
    assert second.isprintable()
    assert end == ""


@pytest.mark.parametrize(
    "evil", ["\x1b]0;title\x07", "\x1b[2J", "a\nb", "a\rb", "\x9b31m", "\u202etxt", "\u2028"]
)
def test_escape_sequences_are_shown_not_obeyed(evil):
    line = shown(lambda log: log.info("an.event", value=evil))
    assert evil not in line
    assert evil.encode("unicode_escape").decode() in line


def test_a_long_path_is_cut():
    (line,) = logged(path=b"/" + b"a" * 100_000)
    assert line["path"] == "/" + "a" * (LONGEST_PATH - 1) + "…"


def test_endlessly_different_paths_and_addresses_are_not_remembered():
    form = JsonForm()
    log = Log(level="info", write=Paper(), clock=StoppedClock(), form=form)
    for number in range(3000):
        a_request(log, path=b"/%d" % number, remote=str(number), upstream=str(number))
    log.close()
    assert len(form._askers) <= 512
    assert len(form._upstreams) <= 512


# Secrets


@pytest.mark.parametrize(
    "field",
    [
        (b"Authorization", b"Bearer " + TOKEN.encode()),
        (b"x-api-key", TOKEN.encode()),
        (b"Cookie", b"session=" + TOKEN.encode()),
        (b"Set-Cookie", b"session=" + TOKEN.encode()),
        (b"Proxy-Authorization", b"Basic " + TOKEN.encode()),
        (b"ChatGPT-Account-Id", TOKEN.encode()),
        (b"X-Session-Token", TOKEN.encode()),
        (b"x_client_SECRET", TOKEN.encode()),
        (b"Sec-WebSocket-Key", TOKEN.encode()),
        (b"X-Unheard-Of", b"bEARER " + TOKEN.encode()),
        (b"X-Unheard-Of", b" sk-" + TOKEN.encode()),
        (b"Accept", b"*/horization:Bearer " + TOKEN.encode()),
        (b"Accept", b"*/api-key: sk-" + TOKEN.encode()),
    ],
)
def test_a_head_in_the_log_holds_no_secret(field):
    (line,) = masked_headers([field])
    assert line == f"{field[0].decode()}: [masked]"


def test_a_head_in_the_log_is_otherwise_as_it_came():
    fields = [(b"Anthropic-Version", b"2023-06-01"), (b"X-App", b"task-force"), (b"x", b"\xff")]
    assert masked_headers(fields) == ["Anthropic-Version: 2023-06-01", "X-App: task-force", "x: \xff"]


@pytest.mark.parametrize(
    ("token", "seen"),
    [(TOKEN, "made-up…"), (TOKEN * 2, "made-up-…"), ("abcdefgh", "ab…"), ("abc", "…"), ("", "…")],
)
def test_of_a_token_at_most_8_characters_and_a_quarter_are_shown(token, seen):
    assert mask(token.encode()) == seen


# At a terminal


def test_a_person_reads_columns():
    line = shown(a_request)
    clock = time.strftime("%H:%M:%S", time.localtime(NOON))
    assert line == (
        f"{clock}.125  info   200  POST /claude/v1/messages               alice        412 ms  2.31 s"
        "    2.0 KiB   3.3 MiB  192.0.2.7 api.anthropic.com amx_abcdefghijklmnopqrstuvwxyz\n"
    )


@pytest.mark.parametrize("end", ["refused", "left", "cut"])
def test_a_person_reads_how_it_ended_only_where_that_is_not_as_it_should_be(end):
    assert shown(lambda log: a_request(log, end=end)) == shown(a_request)[:-1] + f"  {end}\n"
    assert logged(end=end)[0]["end"] == end


def test_a_person_reads_events_with_their_fields():
    line = shown(lambda log: log.warning("credential.blank", provider="claude", path="a b", count=3))
    assert line.split(None, 1)[1] == 'warn   credential.blank          provider=claude  path="a b"  count=3\n'


def test_colour_is_used_only_where_it_is_asked_for():
    assert "\x1b[" not in shown(a_request)
    assert "\x1b[32m200\x1b[0m" in shown(a_request, colour=True)
    assert "\x1b[31m503\x1b[0m" in shown(lambda log: a_request(log, status=503), colour=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "wanted"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_is_welcome_at_a_terminal_unless_its_owner_says_no(stream, environ, wanted):
    assert wants_colour(stream, environ) is wanted


# Nobody waits for whoever reads the log


def test_a_full_pipe_blocks_nobody_and_the_lost_lines_are_counted():
    read_end, write_end = os.pipe()
    log = Log(level="info", write=to_descriptor(write_end), clock=StoppedClock())
    count = 20_000
    started = time.monotonic()
    for _ in range(count):
        a_request(log)
    # Nobody reads yet, so to wait would be to wait for ever; the bound is for a machine that stands still.
    assert time.monotonic() - started < 60, "a caller waited for the pipe"

    received = bytearray()

    def read() -> None:
        while data := os.read(read_end, 65536):
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: b"log.dropped" in received)
    log.close()
    os.close(write_end)
    reader.join()
    os.close(read_end)

    lines = [json.loads(line) for line in received.splitlines()]
    kept = [line for line in lines if line["event"] == "request.done"]
    dropped = sum(line["lines"] for line in lines if line["event"] == "log.dropped")
    assert len(kept) + dropped == count
    assert dropped > 0
    # What was kept is what fits: the queue, and what the pipe had taken by then.
    assert len(kept) * len(received) / len(lines) < QUEUE_BYTES + 200_000


def test_a_reader_that_never_reads_holds_up_the_end_for_two_seconds_at_most():
    read_end, write_end = os.pipe()
    log = Log(level="info", write=to_descriptor(write_end), clock=StoppedClock())
    for _ in range(2000):
        a_request(log)
    in_time(log.close)
    os.close(read_end)  # lets the thread go: EPIPE
    until(lambda: not log._writer._thread.is_alive())
    os.close(write_end)


def test_a_non_blocking_pipe_gets_every_line():
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETFL, fcntl.fcntl(write_end, fcntl.F_GETFL) | os.O_NONBLOCK)
    log = Log(level="info", write=to_descriptor(write_end), clock=StoppedClock())
    for _ in range(1000):  # some 330 KB: more than a pipe holds
        a_request(log)
    received = bytearray()

    def read() -> None:
        while data := os.read(read_end, 65536):
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    log.close()
    os.close(write_end)
    reader.join()
    os.close(read_end)
    assert len(received.splitlines()) == 1000


def test_a_broken_stderr_never_reaches_the_caller_and_lines_come_back_with_a_count():
    paper = Paper()
    log = Log(level="info", write=paper, clock=StoppedClock())
    paper.errors = [OSError(errno.ENOSPC, "full")]
    with log._writer._lock:  # so that they are written together, however busy the machine is
        log.info("lost", number=1)
        log.info("lost", number=2)
    until(lambda: not paper.errors)
    until(lambda: log._writer._size == 0)
    log.info("kept")
    log.close()
    assert [(line["event"], line.get("lines")) for line in paper.lines] == [
        ("kept", None),
        ("log.dropped", 2),
    ]


def test_a_line_that_was_cut_off_does_not_spoil_the_next():
    paper = Paper()
    log = Log(level="info", write=paper, clock=StoppedClock())
    paper.takes = 20
    paper.errors = [OSError(errno.ENOSPC, "full")]
    log.info("cut")
    until(lambda: not paper.errors)
    until(lambda: log._writer._size == 0)
    log.info("whole")
    log.close()
    cut, *whole = paper.data.splitlines()
    assert len(cut) == 20
    assert [json.loads(line)["event"] for line in whole] == ["whole", "log.dropped"]


def test_lines_after_the_end_are_ignored_and_ending_twice_is_harmless():
    paper = Paper()
    log = Log(level="info", write=paper, clock=StoppedClock())
    log.info("kept")
    log.close()
    log.info("late")
    log.close()
    assert [line["event"] for line in paper.lines] == ["kept"]


def test_a_finalizer_may_log_in_the_middle_of_another_line():
    paper = Paper()
    log = Log(level="info", write=paper, clock=StoppedClock())

    def strike() -> None:
        with log._writer._lock:  # where the garbage collector may run a finalizer
            log.info("from.a.finalizer")

    in_time(strike)
    log.close()
    assert [line["event"] for line in paper.lines] == ["from.a.finalizer"]


def test_lines_of_many_threads_stay_whole_and_none_is_lost():
    paper = Paper()
    log = Log(level="info", write=paper, clock=StoppedClock())
    threads = [
        threading.Thread(target=lambda n=n: [log.info("e", n=n, i=i) for i in range(200)]) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert sorted((line["n"], line["i"]) for line in paper.lines) == [
        (n, i) for n in range(8) for i in range(200)
    ]


def test_an_idle_writer_sleeps():
    class Counted(threading.Event):
        waits = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.waits += 1
            return super().wait(timeout)

    paper = Paper()
    log = Log(level="info", write=paper, clock=StoppedClock())
    writer = log._writer
    writer._hurry = Counted()
    with writer._lock:  # a burst, however busy the machine is
        for _ in range(100):
            log.info("a.burst")
    until(lambda: writer._idle and paper.data.count(b"\n") >= 100)
    assert writer._hurry.waits <= 3
    log.close()


# A real process with a real stderr

PROGRAM = """
import os, sys
from ai_mux.clock import SystemClock
from ai_mux.logs import Log
log = Log.to_stderr(level="info", clock=SystemClock())
"""


def program(body: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM + textwrap.dedent(body)]


def test_what_was_logged_right_before_the_end_is_written():
    body = "log.info('first')\nlog.info('last')\nsys.exit(3)"
    done = subprocess.run(program(body), capture_output=True, timeout=30, check=False)
    assert done.returncode == 3
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["first", "last"]


@pytest.mark.parametrize(
    "body",
    [
        "os.close(2)\nlog.info('e')\nlog.close()\nprint('fine')",
        "for _ in range(5000): log.info('e', text='x' * 100)\nlog.close()\nprint('fine')",
    ],
)
def test_a_process_outlives_its_stderr(body):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(program(body), stdout=subprocess.PIPE, stderr=write_end, timeout=30, check=False)
    os.close(write_end)
    assert (done.returncode, done.stdout) == (0, b"fine\n")


@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_log_never_lands_in_what_was_opened_in_place_of_a_closed_stderr(tmp_path, opened):
    # Descriptor 2 is free, so the next file opened gets it: a client's socket, in life.
    innocent = tmp_path / "innocent"
    opening = f"import os, sys\nfd = os.open({str(innocent)!r}, os.O_CREAT | os.O_WRONLY)\n"
    logging = "log.info('an.event')\nlog.close()\nprint(fd, sys.stderr)"
    body = opening + PROGRAM + logging if opened == "before" else PROGRAM + opening + logging
    command = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", body]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, b"2 None\n")
    assert innocent.read_bytes() == b""


def test_at_a_terminal_the_log_is_for_a_person():
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    done = subprocess.run(
        program("log.info('hello', who='you')"), stderr=theirs, env=environ, timeout=30, check=False
    )
    os.close(theirs)
    seen = os.read(ours, 4096).decode()
    os.close(ours)
    assert done.returncode == 0
    assert seen.endswith("hello                     who=you\r\n")
