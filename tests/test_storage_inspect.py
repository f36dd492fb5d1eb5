"""Looking at a credential's file without touching anything."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from fakes.machine import names, run
from fakes.renewing import claude_file, write

from ai_mux.providers import PROVIDERS
from ai_mux.storage.inspect import Level, inspect

NOW = 1_800_000_000.0


def looked(path, provider="claude"):
    return inspect(path, PROVIDERS[provider].issuer, now=NOW)


def worst(findings):
    return max((finding.level for finding in findings), key=list(Level).index)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "claude" / ".credentials.json"


@pytest.mark.parametrize(("ends", "refresh"), [(NOW + 60, "r"), (NOW - 60, "r"), (NOW + 60, ""), (None, "")])
def test_a_good_file_is_ok(path, ends, refresh):
    claude_file(path, ends=ends, refresh=refresh)
    before = path.stat()
    findings = looked(path)
    assert [finding.level for finding in findings] == [Level.OK]
    assert path.stat() == before
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        ("", "empty"),
        ("{", "not JSON"),
        ("{}", "logged out"),
        (" " * (1 << 20) + "{}", "too large"),
        (json.dumps({"claudeAiOauth": {"accessToken": "SENTINEL x"}}), "not a token"),
        (json.dumps({"claudeAiOauth": {"accessToken": "a", "expiresAt": 5}}), "has ended"),
    ],
)
def test_each_error_names_the_command_that_mends_it(path, content, says):
    if content is not None:
        write(path, content)
    findings = looked(path)
    assert worst(findings) is Level.ERROR
    [finding] = findings
    assert says in finding.text
    assert f"CLAUDE_CONFIG_DIR={path.parent} claude" in finding.mend
    assert "SENTINEL" not in finding.text


def test_a_login_by_api_key_is_an_error(tmp_path):
    write(tmp_path / "auth.json", json.dumps({"auth_mode": "apikey"}))
    [finding] = looked(tmp_path / "auth.json", "chatgpt")
    assert "API key" in finding.text
    assert "codex login" in finding.mend


def test_a_file_that_others_can_read_is_a_warning_and_stays_as_it_is(path):
    claude_file(path, ends=NOW + 60)
    path.chmod(0o644)
    assert worst(looked(path)) is Level.WARNING
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_fifo_or_directory_is_an_error(path):
    path.mkdir(parents=True)
    assert worst(looked(path)) is Level.ERROR


@pytest.mark.parametrize("name", [".claude", ".codex"])
def test_field_note_3_the_vendor_s_own_login_is_warned_about(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / name / "credentials.json"
    claude_file(path, ends=NOW + 60)
    link = tmp_path / "state" / "c.json"
    link.parent.mkdir()
    link.symlink_to(path)
    for way in (path, link):
        assert any("another program" in finding.text for finding in looked(way))


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
        finally:
            os.seteuid(0)
        [finding] = [finding for finding in findings if finding.level is Level.ERROR]
        assert "not writable for uid 12345" in finding.text
        assert "sudo chown 12345" in finding.mend
    finally:
        shutil.rmtree(directory)
