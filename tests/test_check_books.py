"""What ``ai-mux check`` says of limits, the ledger, the admin listener and the audit log."""

import json
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fakes.rows import row, write

from ai_mux.check import as_text, examine
from ai_mux.config import load
from ai_mux.providers import PROVIDERS
from ai_mux.storage.inspect import Level

NOW = 1_800_000_000.0
ALICE = {"name": "alice", "token": "made-up-user-token-of-alice"}
BOB = {"name": "bob", "token": "made-up-user-token-of-robert"}


@pytest.fixture
def found(tmp_path):
    """Return what is found about one thing."""

    def read(about: str, **settings: object):
        whole = {"state_dir": str(tmp_path / "state"), "listen": "127.0.0.1:8080", "users": [ALICE]}
        file = tmp_path / "config.json"
        file.touch(0o600)
        file.write_text(json.dumps(whole | settings))
        config = load(file, known_providers=tuple(PROVIDERS), now_s=NOW)
        with as_nobody():
            examination = examine(config, PROVIDERS, now=NOW, environ={})
        assert "token-of" not in as_text(examination, colour=False)
        return [finding for name, finding in examination.findings if name == about]

    return read


@contextmanager
def as_nobody():
    """Do something without root's rights, for whom every file is writable."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())


@pytest.fixture
def public():
    """A directory that everyone may search and write to, outside the test's own."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    for one in path.rglob("*"):
        if one.is_dir():
            one.chmod(0o700)
    shutil.rmtree(path)


def texts(findings) -> list[str]:
    return [finding.text for finding in findings]


# Limits


def test_without_limits_nothing_is_said_of_them(found):
    assert not any(text.startswith("limits") for text in texts(found("configuration")))


def test_the_default_limits_are_said_and_how_many_users_have_others(found):
    limits = {"concurrent": 8, "requests": ["60/min"], "cost": "$20/week"}
    said = texts(found("configuration", limits=limits, users=[ALICE, BOB | {"limits": {"requests": []}}]))
    assert "limits: 8 at once, 60/min of requests, $20/week of cost; 1 user with others" in said


def test_limits_of_users_alone_are_said_too(found):
    users = [one | {"limits": {"concurrent": 1}} for one in (ALICE, BOB)]
    assert "limits: none by default; 2 users with others" in texts(found("configuration", users=users))


def test_users_with_grants_are_counted_and_those_that_are_over(found):
    users = [ALICE | {"models": "gpt-*", "expires": "2020-01-01"}, BOB]
    findings = found("configuration", users=users)
    assert "1 user with some providers or models only; 1 user whose token has expired" in texts(findings)
    assert any(
        "users[0].expires: is in the past" in one.text for one in findings if one.level is Level.WARNING
    )


# The ledger


def test_how_long_and_where_is_said(found, public):
    state = public / "state"
    prices = {"a": {"input": 1}, "b": {"input": 1}}
    [finding] = found("usage", state_dir=str(state), usage={"keep": "36h", "prices": prices})
    assert finding.level is Level.OK
    assert finding.text == (
        f"each request is kept for 1.5 days in {state}/usage.sqlite; prices of your own: 2"
    )
    assert not state.exists()


def test_a_ledger_that_is_off_is_said(found):
    assert texts(found("usage", usage={"enabled": False})) == ["is off: nothing is metered or kept"]


@pytest.mark.parametrize("there", ["the file", "the directory", "nothing"])
def test_a_ledger_that_cannot_be_written_is_an_error_with_its_command(found, public, there):
    state = public / "above" / "state"
    if there == "nothing":
        state.parent.mkdir()
        state.parent.chmod(0o555)
        mend = f"sudo install -d -m 700 -o {65534 if os.getuid() == 0 else os.getuid()} {state}, or run"
    else:
        state.mkdir(parents=True)
        (state / "usage.sqlite").touch(0o444)
        state.chmod(0o777 if there == "the file" else 0o555)
        mended = state / "usage.sqlite" if there == "the file" else state
        mend = f"sudo chown {65534 if os.getuid() == 0 else os.getuid()} {mended}, or run"
    [finding] = found("usage", state_dir=str(state))
    assert finding.level is Level.ERROR
    assert finding.text == f"the ledger {state}/usage.sqlite cannot be written: nothing would be kept"
    assert finding.mend.startswith(mend)


def test_a_directory_in_the_ledger_s_place_is_an_error(found, public):
    (public / "usage.sqlite").mkdir()
    [finding] = found("usage", state_dir=str(public))
    assert (finding.level, finding.mend) == (
        Level.ERROR,
        f"it is a directory; move it away: {public}/usage.sqlite",
    )


@pytest.mark.parametrize(
    ("there", "level", "says"),
    [
        (
            "a letter",
            Level.ERROR,
            "it is corrupt: file is not a database (SQLITE_NOTADB); a server that meets",
        ),
        ("a later version", Level.ERROR, "was written by a later version of ai-mux"),
        ("another program's", Level.ERROR, "is another program's database; move it away"),
        ("an earlier version", Level.WARNING, "they are brought up to date when the server starts"),
        ("ours", Level.OK, "each request is kept for 400 days"),
    ],
)
def test_a_ledger_that_is_there_is_good_only_if_it_can_be_used(
    found, public, there, level, says, monkeypatch
):
    path = write(public, [row()])
    if there == "a letter":
        path.write_text("Dear operator, this is no database.\n" * 100)
    elif there == "a later version":
        sql(path, "PRAGMA user_version = 99")
    elif there == "another program's":
        sql(path, "PRAGMA application_id = 7")
    elif there == "an earlier version":
        monkeypatch.setattr("ai_mux.storage.sqlite_reading.STEPS", ((), ()))
    for one in public.iterdir():
        one.chmod(0o666)
    before = path.read_bytes()
    [finding] = found("usage", state_dir=str(public))
    assert finding.level is level
    assert says in finding.text
    assert path.read_bytes() == before


def sql(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)


# The admin listener


def test_where_metrics_are_shown_is_said_and_whether_to_everyone(found):
    assert found("admin") == []
    assert texts(found("admin", admin={"listen": "127.0.0.1:9180"})) == [
        "metrics and status on 127.0.0.1:9180, without a token"
    ]
    assert texts(found("admin", admin={"listen": ":9180", "token": "made-up-token-of-admin"})) == [
        "metrics and status on :9180, with a token"
    ]


# The audit log


def test_an_audit_log_that_can_be_written_is_said(found, public):
    assert found("audit") == []
    for path in (public / "audit.jsonl", public / "there.jsonl"):
        [finding] = found("audit", audit=str(path))
        assert (finding.level, finding.text) == (Level.OK, f"one line for each request in {path}")
        (public / "there.jsonl").touch()
        (public / "there.jsonl").chmod(0o666)
    assert not (public / "audit.jsonl").exists()


@pytest.mark.parametrize("there", ["no directory", "a directory of others", "a file of others"])
def test_an_audit_log_that_cannot_be_written_is_an_error_with_its_command(found, public, there):
    uid = 65534 if os.getuid() == 0 else os.getuid()
    path = public / "log" / "audit.jsonl"
    mend = f"sudo install -d -m 700 -o {uid} {path.parent}, or run"
    if there != "no directory":
        path.parent.mkdir()
        mend = f"sudo install -m 600 -o {uid} /dev/null {path}, or run"
    if there == "a file of others":
        path.touch()
        path.chmod(0o444)
        mend = f"sudo chown {uid} {path}, or run"
    elif there == "a directory of others":
        path.parent.chmod(0o555)
    [finding] = found("audit", audit=str(path))
    assert finding.level is Level.ERROR
    assert finding.text == f"{path} cannot be written: its lines would be lost"
    assert finding.mend.startswith(mend)


def test_what_may_not_even_be_looked_at_is_an_error_and_no_crash(found, public):
    hidden = public / "hidden"
    (hidden / "state").mkdir(parents=True)
    hidden.chmod(0o000)
    for about, settings in (
        ("usage", {"state_dir": str(hidden / "state")}),
        ("audit", {"audit": str(hidden / "audit.jsonl")}),
    ):
        [finding] = found(about, **settings)
        assert finding.level is Level.ERROR
