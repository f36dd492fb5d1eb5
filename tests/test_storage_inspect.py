"""Looking at a credential's file without touching anything."""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from fakes.machine import names, run
from fakes.renewing import claude_file, jwt, write

from ai_mux.credentials.api_key import KeyIssuer
from ai_mux.providers import PROVIDERS
from ai_mux.storage.inspect import Kind, Level, inspect, moment

NOW = 1_800_000_000.0
DAY_S = 86400


def looked_at(path, provider="claude"):
    return inspect(path, PROVIDERS[provider].issuer, now=NOW)


def looked(path, provider="claude"):
    return looked_at(path, provider).findings


def worst(findings):
    return max((finding.level for finding in findings), key=list(Level).index)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "claude" / ".credentials.json"


@pytest.fixture
def utc(monkeypatch):
    """Let the local zone be that of Kolkata, with its half hour; and back."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("ends", "refresh", "kind", "says"),
    [
        (
            NOW + 8 * 3600,
            "r",
            Kind.LOGIN,
            "a login, plan max: fresh until 2027-01-15 21:30 +05:30 (in 8 h), renewed",
        ),
        (NOW - 60, "r", Kind.LOGIN, "a login, plan max: ended 2027-01-15 13:29 +05:30 (60 s ago), renewed"),
        (None, "r", Kind.LOGIN, "does not say until when"),
        (10**14, "r", Kind.LOGIN, "beyond all calendars"),
        (
            NOW + 90 * DAY_S,
            "",
            Kind.LONG_LIVED_TOKEN,
            "cannot be renewed and ends 2027-04-15 13:30 +05:30 (in 90 d)",
        ),
        (
            None,
            "",
            Kind.LONG_LIVED_TOKEN,
            "about a year from when it was made, and this file is from 2027-01-05",
        ),
    ],
)
@pytest.mark.usefixtures("utc")
def test_a_good_file_is_ok_and_what_it_holds_is_said(path, ends, refresh, kind, says):
    claude_file(path, ends=ends, refresh=refresh)
    os.utime(path, (NOW - 10 * DAY_S, NOW - 10 * DAY_S))
    before = path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_mode
    inspection = looked_at(path)
    [finding] = inspection.findings
    assert (finding.level, finding.mend, inspection.kind) == (Level.OK, None, kind)
    assert says in finding.text
    assert (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_mode) == before
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize(("ends", "age_d"), [(NOW + 20 * DAY_S, 0), (None, 340)])
def test_a_long_lived_token_that_may_end_soon_is_a_warning_with_the_command_for_another(path, ends, age_d):
    claude_file(path, ends=ends, refresh="")
    os.utime(path, (NOW - age_d * DAY_S,) * 2)
    [finding] = looked(path)
    assert finding.level is Level.WARNING
    assert "may end soon" in finding.text
    assert "`ai-mux login claude`" in finding.mend


@pytest.mark.parametrize("flat", [True, False])
def test_whose_a_chatgpt_login_is_and_which_plan_comes_from_its_id_token(tmp_path, flat):
    claims = {"chatgpt_account_id": "acc-1", "chatgpt_plan_type": "plus"}
    tokens = {
        "access_token": jwt(exp=NOW + 3600),
        "refresh_token": "r",
        "id_token": jwt(**{"email": "someone@example.com", "https://api.openai.com/auth": claims}),
    }
    write(tmp_path / "auth.json", json.dumps(tokens if flat else {"auth_mode": "chatgpt", "tokens": tokens}))
    inspection = looked_at(tmp_path / "auth.json", "chatgpt")
    layout = "flat" if flat else "Codex's"
    assert (
        f"a login of someone@example.com, plan plus, {layout} file: fresh until"
        in inspection.findings[-1].text
    )
    assert (inspection.credential.owner, inspection.credential.plan) == ("someone@example.com", "plus")


def test_what_a_file_says_cannot_move_the_cursor_of_a_terminal(tmp_path):
    claims = {"chatgpt_plan_type": "\x1b[2Jplus"}
    tokens = {"access_token": jwt(exp=NOW + 9), "refresh_token": "r"}
    tokens["id_token"] = jwt(**{"email": "\x1b]0;x\x07", "https://api.openai.com/auth": claims})
    write(tmp_path / "auth.json", json.dumps({"tokens": tokens}))
    assert all("\x1b" not in finding.text for finding in looked(tmp_path / "auth.json", "chatgpt"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        ("", "empty"),
        ("{", "not JSON"),
        ("{}", "logged out"),
        (" " * (1 << 20) + "{}", "too large"),
        (json.dumps({"claudeAiOauth": {"accessToken": "SENTINEL x"}}), "not a token"),
        (json.dumps({"claudeAiOauth": {"accessToken": "a", "expiresAt": 5}}), "a token that ended"),
    ],
)
def test_each_error_names_the_command_that_mends_it(path, content, says):
    if content is not None:
        write(path, content)
    findings = looked(path)
    assert worst(findings) is Level.ERROR
    [finding] = findings
    assert says in finding.text
    assert "`ai-mux login claude`" in finding.mend
    assert str(path) in finding.mend
    assert "SENTINEL" not in finding.text


@pytest.mark.parametrize("document", [{"auth_mode": "apikey", "OPENAI_API_KEY": "sk-made-up"}])
def test_an_api_key_in_codex_s_file_is_a_credential_like_another(tmp_path, document):
    write(tmp_path / "auth.json", json.dumps(document))
    inspection = looked_at(tmp_path / "auth.json", "chatgpt")
    assert inspection.kind is Kind.API_KEY
    assert [finding.level for finding in inspection.findings] == [Level.OK]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("sk-made-up-key\n", None),
        ("", "empty"),
        ('"sk-made-up-key"', "quotes"),
        ("sk-made-up-SENTINEL\nsecond", "several lines"),
    ],
)
def test_an_api_key_file_holds_a_key_alone_and_its_directory_need_not_be_writable(tmp_path, content, says):
    file = tmp_path / "keys" / "claude.key"
    write(file, content)
    inspection = inspect(file, KeyIssuer(), now=NOW, is_ours=False)
    [finding] = inspection.findings
    assert "SENTINEL" not in finding.text
    if says is None:
        assert (finding.level, inspection.kind) == (Level.OK, Kind.API_KEY)
    else:
        assert finding.level is Level.ERROR
        assert says in finding.text
        assert str(file) in finding.mend


@pytest.mark.parametrize(("mode", "warned"), [(0o640, False), (0o660, False), (0o644, True), (0o604, True)])
def test_an_api_key_file_may_be_read_by_a_group_but_not_by_everyone(tmp_path, mode, warned):
    file = tmp_path / "keys" / "claude.key"
    write(file, "sk-made-up-key")
    file.chmod(mode)
    findings = inspect(file, KeyIssuer(), now=NOW, is_ours=False).findings
    assert worst(findings) is (Level.WARNING if warned else Level.OK)
    # The group is the owner's decision, and stays.
    assert [finding.mend for finding in findings if finding.mend] == ([f"chmod o= {file}"] if warned else [])


@pytest.mark.parametrize(("mode", "levels"), [(0o777, [Level.WARNING, Level.OK]), (0o1777, [Level.OK])])
def test_a_directory_in_which_others_could_replace_the_file_is_a_warning(path, mode, levels):
    claude_file(path, ends=NOW + 60)
    path.parent.chmod(mode)
    findings = looked(path)
    assert [finding.level for finding in findings] == levels
    if levels[0] is Level.WARNING:
        assert findings[0].mend == f"chmod 700 {path.parent}"


def test_a_file_that_others_can_read_is_a_warning_and_stays_as_it_is(path):
    claude_file(path, ends=NOW + 60)
    path.chmod(0o644)
    assert worst(looked(path)) is Level.WARNING
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_fifo_or_directory_is_an_error(path):
    path.mkdir(parents=True)
    assert worst(looked(path)) is Level.ERROR


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_field_note_22_a_file_that_is_its_own_mount_is_found(tmp_path):
    path = tmp_path / "with blank" / "c.json"
    claude_file(path, ends=NOW + 60)
    if not run("mount", "--bind", path, path):
        pytest.skip("mounting is not allowed here")
    try:
        assert any("mount the directory" in (finding.mend or "") for finding in looked(path))
    finally:
        assert run("umount", "-l", path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_field_note_22_a_directory_that_cannot_be_written_is_found():
    directory = Path(tempfile.mkdtemp())  # pytest's own directories are closed to other users
    try:
        claude_file(directory / "c.json", ends=NOW + 60)
        directory.chmod(0o755)
        os.chown(directory / "c.json", 12345, -1)
        os.seteuid(12345)
        try:
            findings = looked(directory / "c.json")
            key = inspect(directory / "c.json", KeyIssuer(), now=NOW, is_ours=False).findings
        finally:
            os.seteuid(0)
        [finding] = [finding for finding in findings if finding.level is Level.ERROR]
        assert not any("writable" in finding.text for finding in key)  # it is only read
        assert "not writable for uid 12345" in finding.text
        assert "sudo chown 12345" in finding.mend
    finally:
        shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("mode", "says"), [(0o755, "cannot write in"), (0o700, "cannot look at")])
def test_field_note_22_where_a_first_login_could_not_be_put_it_is_said_beforehand(mode, says):
    directory = Path(tempfile.mkdtemp())
    try:
        directory.chmod(mode)
        os.seteuid(12345)
        try:
            found = looked(directory / "claude" / ".credentials.json")
        finally:
            os.seteuid(0)
        assert says in found[0].text
        assert f"{directory} belongs to uid 0" in found[0].text
        assert "sudo -u USER" in found[0].mend
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("away_s", "says"),
    [(1, "in 1 s"), (119, "in 119 s"), (120, "in 2 min"), (-7300, "2 h ago"), (DAY_S * 3, "in 3 d")],
)
def test_how_far_off_a_moment_is_is_said_in_one_unit(away_s, says):
    assert moment(NOW + away_s, NOW).endswith(f"({says})")
