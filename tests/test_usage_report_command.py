"""``ai-mux usage`` as it is typed: a process, a ledger in a file, a terminal or a pipe."""

import csv
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import time

import pytest
from fakes.rows import DAY_S, refused, row, unmetered, write
from fakes.terminal import Terminal

from ai_mux.storage import LEDGER
from ai_mux.storage.sqlite import SqliteStore

AI_MUX = [sys.executable, "-m", "ai_mux"]


class Person:
    """Has a configuration, and types."""

    def __init__(self, directory):
        self.directory = directory
        self.state = directory / "state"
        self.config = directory / "config.json"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(directory), "TERM": "xterm", "COLUMNS": "80"}
        self.configure()

    def configure(self, **settings):
        self.config.touch(0o600)
        self.config.write_text(json.dumps({"state_dir": str(self.state), **settings}))

    def kept(self, *rows):
        write(self.state, rows)

    def command(self, *options):
        return [*AI_MUX, "usage", "--config", str(self.config), *options]

    def types(self, *options, **env):
        return subprocess.run(
            self.command(*options), cwd=self.directory, env={**self.env, **env},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def sees(self, *options, **env):
        """Return what a terminal is sent, without the exit code."""
        terminal = Terminal(self.command(*options), cwd=self.directory, env={**self.env, **env})
        try:
            assert terminal.end() == 0, terminal.shown
        finally:
            terminal.close()
        return terminal.shown


@pytest.fixture
def person(tmp_path):
    return Person(tmp_path)


def now_row(*names, ago_s=60, **more):
    return row(*names, at_s=time.time() - ago_s, **more)


# What is asked for


def test_a_table_can_be_asked_for_in_several_words(person):
    person.kept(now_row("alice", "m1"), now_row("bob", "m2"), now_row("bob", "m1", ago_s=3 * DAY_S))
    forms = [["--by", "user,model"], ["--by", "user", "--by", "model"], ["--by", " user , model,user "]]
    printed = [person.types(*form, "--csv") for form in forms]
    assert {(one.returncode, one.stderr) for one in printed} == {(0, "")}
    assert len({one.stdout for one in printed}) == 1
    rows = list(csv.reader(io.StringIO(printed[0].stdout)))
    assert [one[:3] for one in rows[1:]] == [["bob", "m1", "1"], ["bob", "m2", "1"], ["alice", "m1", "1"]]


def test_a_time_and_a_user_can_be_asked_for(person):
    then_s = time.time() - 20 * DAY_S
    person.kept(now_row(), now_row("bob"), row("alice", at_s=then_s), now_row(ago_s=40 * DAY_S))

    def requests(*options):
        return json.loads(person.types("--json", *options).stdout)["total"]["requests"]

    assert requests() == 2
    assert requests("--user", "alice") == 1
    assert requests("--user", "alice", "--since", "30d") == 2
    assert requests("--since", "1970-01-01") == 4
    assert requests("--since", "1970-01-01", "--until", "30d") == 1
    day = time.strftime("%Y-%m-%d", time.gmtime(then_s))
    assert requests("--since", day, "--until", day) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--since", "last week"], "--since: write a date (2026-11-22)"),
        (["--until", "2026-02-30"], "--until: there is no such time"),
        (["--since", "1h", "--until", "2h"], "--since: that is not before the end"),
        (["--until", "1970-01-01"], "--since: that is not before the end"),
        (["--by", "users"], "--by: write one or more of user,model,credential,provider,day,hour"),
        (["--by", "user,"], "--by: write one or more of"),
        (["--json", "--csv"], "choose one"),
    ],
)
def test_what_cannot_be_understood_is_exit_code_2_and_says_what_can(person, options, told):
    person.kept(now_row())
    done = person.types(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


# Where there is nothing to report


def test_without_a_ledger_one_is_told_how_to_get_one(person):
    done = person.types()
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no ledger {person.state / LEDGER}" in done.stderr
    assert "let a client send one through the server" in done.stderr
    assert "--config" not in done.stderr
    assert not person.state.exists()


def test_without_a_configuration_the_one_of_the_server_is_asked_for(person):
    done = subprocess.run(
        [*AI_MUX, "usage"],
        cwd=person.directory,
        env=person.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert str(person.directory / ".ai-mux" / LEDGER) in done.stderr
    assert "--config FILE, say so here as well" in done.stderr


def test_where_nothing_is_kept_on_purpose_the_setting_is_named(person):
    person.configure(usage={"enabled": False})
    done = person.types()
    assert done.returncode == 1
    assert "usage.enabled is false" in done.stderr


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_an_empty_ledger_is_told_from_a_quiet_week(person, form):
    person.kept()
    empty = person.types(*form)
    assert empty.returncode == 1
    assert "is empty" in empty.stderr
    person.kept(now_row(ago_s=10 * DAY_S))
    quiet = person.types(*form)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    if form == ["--json"]:
        assert json.loads(empty.stdout)["groups"] == json.loads(quiet.stdout)["groups"] == []
    elif form == ["--csv"]:
        assert empty.stdout == quiet.stdout
    else:
        assert empty.stdout == ""
        assert quiet.stdout.startswith("# No requests from ")
        assert "alice" in quiet.stdout


def test_a_ledger_of_a_later_version_is_left_to_that_version(person):
    person.kept(now_row())
    ledger = sqlite3.connect(person.state / LEDGER)
    ledger.execute("PRAGMA user_version = 99")
    ledger.close()
    done = person.types()
    assert (done.returncode, done.stdout) == (1, "")
    assert "later version of ai-mux" in done.stderr


@pytest.mark.parametrize(
    "content", [b"This is a letter, and no database at all.\n" * 100, b"SQLite format 3\0" + b"\xff" * 9000]
)
def test_a_ledger_that_is_none_is_an_error_and_stays_as_it_is(person, content):
    person.state.mkdir(0o700)
    (person.state / LEDGER).write_bytes(content)
    done = person.types()
    assert (done.returncode, done.stdout) == (1, "")
    assert str(person.state / LEDGER) in done.stderr
    assert "it is corrupt" in done.stderr
    assert "a server that meets the damage moves the file aside and begins a new one" in done.stderr
    assert "Traceback" not in done.stderr
    assert (person.state / LEDGER).read_bytes() == content


def test_a_ledger_that_is_corrupt_inside_is_an_error(person):
    person.kept(*(now_row(f"user-{number}", ago_s=number) for number in range(3000)))
    path = person.state / LEDGER
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\x5a" * (len(whole) - 8192))
    done = person.types("--by", "user")
    assert done.returncode == 1
    assert "corrupt" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_in_the_place_of_the_ledger_is_an_error(person):
    (person.state / LEDGER).mkdir(parents=True)
    done = person.types()
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not a file" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", ["state", "file"])
def test_who_may_not_read_is_told_who_may(person, closed):
    person.kept(now_row())
    place = person.state if closed == "state" else person.state / LEDGER
    place.chmod(0)
    done = person.types()
    place.chmod(0o700)
    assert (done.returncode, done.stdout) == (1, "")
    assert "run this as the user that the server runs as" in done.stderr
    assert "chown" not in done.stderr


# While the server runs


def test_it_reads_while_the_server_writes(person):
    person.state.mkdir(0o700)
    server = SqliteStore(person.state / LEDGER)
    for count in (1, 2, 3):
        server.append([now_row()])
        assert json.loads(person.types("--json").stdout)["total"]["requests"] == count
    server.close()


def test_it_reads_while_the_server_is_in_the_middle_of_writing(person):
    person.kept(now_row())
    server = sqlite3.connect(person.state / LEDGER, isolation_level=None)
    server.execute("BEGIN IMMEDIATE")
    server.execute("DELETE FROM requests")
    done = person.types("--json")
    server.execute("ROLLBACK")
    server.close()
    assert json.loads(done.stdout)["total"]["requests"] == 1


# Where it is printed


def test_a_terminal_gets_tables_and_colours(person):
    person.kept(now_row(), unmetered(at_s=time.time() - 60), refused(at_s=time.time() - 60))
    shown = person.sees()
    assert "\x1b[" in shown
    assert "─────" in shown
    assert "█" in shown


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colour_gets_none(person, env):
    person.kept(now_row("\x1b[31mred"))
    shown = person.sees(**env)
    assert "─────" in shown
    assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("columns", ["60", "80", "100"])
def test_the_tables_are_as_wide_as_the_terminal(person, columns):
    person.kept(now_row(), unmetered(at_s=time.time() - 60))
    assert max(map(len, person.sees(COLUMNS=columns, NO_COLOR="1").splitlines())) == int(columns)


def test_a_pipe_gets_columns_and_waits_for_no_drawing(person):
    person.kept(now_row())
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *person.command()[1:]],
        cwd=person.directory, env=person.env, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert re.search(r"^user +requests +errors ", done.stdout, re.M)
    imported = set(re.findall(r"\| +(\w+)$", done.stderr, re.M))
    assert "sqlite3" in imported
    assert not {"rich", "asyncio", "aiohttp"} & imported


def test_an_encoding_that_lacks_a_character_spells_it_out(person):
    person.kept(now_row("日本"))
    done = person.types(PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert r"\u65e5\u672c" in done.stdout
    assert r"\u65e5\u672c" in person.sees(PYTHONIOENCODING="ascii")


def test_who_has_read_enough_may_leave(person):
    person.kept(*(now_row(f"user-{number}", f"model-{number}", ago_s=number) for number in range(2000)))
    program = subprocess.Popen(
        person.command("--csv", "--by", "user,model,hour"),
        cwd=person.directory, env=person.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with program:
        assert program.stdout.readline().startswith(b"user,model,hour,requests")
        program.stdout.close()
        said = program.stderr.read()
    assert said == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")  # noqa: PTH110
def test_a_report_that_cannot_be_written_is_an_error(person):
    person.kept(now_row())
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            person.command(), cwd=person.directory, env=person.env,
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "ai-mux: cannot write the report: No space left on device\n"
