"""Keeping a long-lived token: from a pipe, and from a terminal on which nothing of it is seen."""

import json
import time

import pytest
from fakes.renewing import claude_file
from fakes.stand_ins import StandIns, visible

from ai_mux.providers import PROVIDERS

TOKEN = "sk-ant-oat01-made-up-" + "Zq7Kx1vBw9" * 9


@pytest.fixture
def machine(tmp_path):
    return StandIns(tmp_path)


def whole(machine):
    return json.loads(machine.claude.read_text())


def kept(machine):
    return PROVIDERS["claude"].issuer.read(machine.claude.read_bytes())


@pytest.mark.parametrize(
    "given", [TOKEN, f"{TOKEN}\n", f"  {TOKEN}\r\n\r\n", f"{TOKEN[:80]}\n{TOKEN[80:]}\n"]
)
def test_a_token_from_a_pipe_is_kept_as_one_that_is_never_renewed(machine, given):
    done = machine.login("claude", "--token-stdin", given=given)
    assert done.returncode == 0, done.stderr
    credential = kept(machine)
    assert (credential.access.reveal(), credential.refresh, credential.expires_at) == (TOKEN, None, None)
    assert machine.claude.stat().st_mode & 0o777 == 0o600
    assert machine.claude.parent.stat().st_mode & 0o777 == 0o700
    assert visible(machine.claude.parent) == [".credentials.json"]
    assert "about a year" in done.stdout
    assert f"ai-mux login claude --token-stdin --config {machine.config}" in done.stdout
    assert "Zq7" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "no token was given"),
        ("   \n", "no token was given"),
        ("sk-ant-api03-SENTINEL", "api_key_file"),
        ("sk-ant-ort01-SENTINEL", "refresh token"),
        ("export X=SENTINEL", "that is no token"),
        ("sk-ant-oat01-SENTINEL\x1b", "visible ASCII"),
        ("sk-ant-oat01-" + "x" * 9000, "too long"),
    ],
)
def test_what_is_no_such_token_is_refused_without_being_shown(machine, given, says):
    done = machine.login("claude", "--token-stdin", given=given)
    assert done.returncode == 1
    assert says in done.stderr
    assert "SENTINEL" not in done.stdout + done.stderr
    assert not machine.claude.exists()


def test_another_provider_has_no_such_tokens(machine):
    done = machine.login("chatgpt", "--token-stdin", given=TOKEN)
    assert done.returncode == 2
    assert "for claude" in done.stderr


def test_a_provider_with_an_api_key_takes_no_token(machine, tmp_path):
    machine.configure({"name": "claude", "api_key_file": str(tmp_path / "key")})
    assert machine.login("claude", "--token-stdin", given=TOKEN).returncode == 2


def test_on_a_terminal_a_token_that_was_broken_into_lines_is_taken_whole_and_not_shown(machine):
    it = machine.terminal("claude", "--token-stdin")
    try:
        it.until("Enter twice")
        it.type(f"{TOKEN[:70]}\n{TOKEN[70:]}\n\n")
        assert it.end() == 0
    finally:
        it.close()
    assert kept(machine).access.reveal() == TOKEN
    assert "Zq7" not in it.shown


# Something is there already


@pytest.mark.parametrize(
    ("ends", "refresh"),
    [(60, "refresh-0"), (-60, "refresh-0"), (None, "refresh-0"), (60, ""), (None, "")],
)
def test_what_still_works_stays_where_nobody_can_be_asked_unless_forced(machine, ends, refresh):
    claude_file(machine.claude, ends=None if ends is None else time.time() + ends, refresh=refresh)
    before = machine.claude.read_bytes()
    done = machine.login("claude", "--token-stdin", given=TOKEN)
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert "not kept" in done.stderr
    assert str(machine.claude) in done.stderr
    assert machine.claude.read_bytes() == before
    assert machine.login("claude", "--token-stdin", "--force", given=TOKEN).returncode == 0
    assert kept(machine).access.reveal() == TOKEN


def test_a_token_that_has_ended_is_replaced_without_a_question(machine):
    claude_file(machine.claude, ends=time.time() - 60, refresh="")
    assert machine.login("claude", "--token-stdin", given=TOKEN).returncode == 0
    assert kept(machine).access.reveal() == TOKEN


def test_a_token_takes_the_place_of_the_login_alone_and_what_stands_beside_it_stays(machine):
    claude_file(machine.claude, ends=time.time() + 60)
    assert machine.login("claude", "--token-stdin", "--force", given=TOKEN).returncode == 0
    assert whole(machine) == {
        "claudeAiOauth": {"accessToken": TOKEN, "refreshToken": "", "expiresAt": None},
        "mcpOAuth": {"kept": 0.10},
    }
    assert machine.claude.stat().st_mode & 0o777 == 0o600
    assert visible(machine.claude.parent) == [".credentials.json"]


@pytest.mark.parametrize("there", ["{", "", "[]"])
def test_a_file_that_cannot_be_read_is_replaced_as_a_whole(machine, there):
    machine.claude.parent.mkdir(mode=0o700, parents=True)
    machine.claude.write_text(there)
    assert machine.login("claude", "--token-stdin", given=TOKEN).returncode == 0
    assert kept(machine).access.reveal() == TOKEN


@pytest.mark.parametrize(("answer", "replaced"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_a_person_is_asked_before_a_login_that_works_is_replaced(machine, answer, replaced):
    claude_file(machine.claude, ends=time.time() + 60)
    it = machine.terminal("claude", "--token-stdin")
    try:
        it.until("Enter twice")
        it.type(f"{TOKEN}\n\n")
        it.until("Replace it by the token? [y/N]")
        it.type(answer)
        assert it.end() == 0
    finally:
        it.close()
    assert (kept(machine).access.reveal() == TOKEN) is replaced
    assert "Zq7" not in it.shown
