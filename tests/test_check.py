"""``ai-mux check``: as data, as a person reads it, and as a program does."""

import json
import os
import subprocess
import sys

import pytest
from fakes.renewing import claude_file, jwt, write
from fakes.terminal import Terminal

from ai_mux.assembly import Assembly
from ai_mux.check import as_json, as_text, examine
from ai_mux.clock import SystemClock
from ai_mux.config import load
from ai_mux.errors import ConfigError
from ai_mux.logs import Log
from ai_mux.providers import PROVIDERS
from ai_mux.storage.inspect import Level

NOW = 1_800_000_000.0
USERS = [{"name": "alice", "token": "made-up-user-token-of-alice"}]


@pytest.fixture
def config(tmp_path):
    """Write a configuration and return its file."""

    def written(*providers, **settings):
        file = tmp_path / "config.json"
        file.touch(0o600)
        whole = {"state_dir": str(tmp_path / "state"), "listen": "127.0.0.1:8080", "users": USERS}
        file.write_text(json.dumps(whole | {"providers": list(providers)} | settings))
        return file

    return written


def examined(file, **environ):
    return examine(load(file, known_providers=tuple(PROVIDERS)), PROVIDERS, now=NOW, environ=environ)


def errors(examination):
    return [(about, finding) for about, finding in examination.findings if finding.level is Level.ERROR]


def codex_file(path, *, email="someone@example.com"):
    claims = {"chatgpt_account_id": "acc-1", "chatgpt_plan_type": "plus"}
    tokens = {
        "access_token": jwt(exp=NOW + 3600, iat=NOW),
        "refresh_token": "SENTINEL-refresh",
        "id_token": jwt(**{"email": email, "https://api.openai.com/auth": claims}),
    }
    write(path, json.dumps({"auth_mode": "chatgpt", "tokens": tokens}))


# What is found


def test_all_is_well_where_it_is(config, tmp_path):
    claude_file(tmp_path / "state" / "claude" / ".credentials.json", ends=NOW + 60)
    codex_file(tmp_path / "state" / "chatgpt" / "auth.json")
    examination = examined(config("claude", "chatgpt"))
    assert examination.is_ok
    assert {finding.level for _, finding in examination.findings} == {Level.OK}
    assert as_text(examination, colour=False).endswith("\nAll is well.\n")


def test_a_missing_login_is_mended_by_ai_mux_s_own_verb_with_the_same_configuration(config):
    file = config("claude", "chatgpt")
    found = errors(examined(file))
    assert [(about, finding.mend) for about, finding in found] == [
        ("claude", f"run `ai-mux login claude --config {file}`"),
        ("chatgpt", f"run `ai-mux login chatgpt --config {file}`"),
    ]


@pytest.mark.parametrize("ended", [True, False])
def test_for_a_long_lived_token_the_way_to_another_one_is_said(config, tmp_path, ended):
    path = tmp_path / "state" / "claude" / ".credentials.json"
    claude_file(path, refresh="", ends=NOW - 60 if ended else None)
    os.utime(path, (NOW, NOW))
    file = config("claude")
    examination = examined(file)
    assert examination.is_ok is not ended
    text = as_text(examination, colour=False)
    assert f"`claude setup-token`, then `ai-mux login claude --token-stdin --config {file}`" in text
    assert ended or "about a year from when it was made" in text


def test_two_providers_of_one_file_are_an_error_also_behind_a_link(config, tmp_path):
    link = tmp_path / "two.json"
    claude_file(tmp_path / "state" / "claude" / ".credentials.json", ends=NOW + 60)
    link.symlink_to(tmp_path / "state" / "claude" / ".credentials.json")
    both = "claude", {"name": "chatgpt", "credentials": str(link)}
    found = [finding.text for about, finding in errors(examined(config(*both))) if about == "chatgpt"]
    assert any("also that of claude" in text for text in found)


def test_an_api_key_file_is_looked_at_as_what_it_is(config, tmp_path):
    key = tmp_path / "claude.key"
    write(key, "sk-ant-api03-SENTINEL\n")
    file = config({"name": "claude", "api_key_file": str(key)})
    examination = examined(file)
    assert examination.is_ok
    document = json.loads(as_json(examination))
    assert document["credentials"] == [
        {"provider": "claude", "file": str(key), "kind": "api_key", "account": None, "plan": None,
         "fresh_until": None, "renewable": False}
    ]  # fmt: skip
    key.unlink()
    [(_, finding)] = errors(examined(file))
    assert str(key) in finding.mend


def test_an_openai_key_goes_to_openai_and_a_login_to_the_subscription(config, tmp_path):
    file = tmp_path / "state" / "chatgpt" / "auth.json"
    write(file, json.dumps({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-made-up"}))
    assert "goes to https://api.openai.com" in as_text(examined(config("chatgpt")), colour=False)
    codex_file(file)
    assert "goes to https://chatgpt.com/backend-api/codex" in as_text(
        examined(config("chatgpt")), colour=False
    )


@pytest.mark.parametrize(
    ("settings", "environ", "says"),
    [
        ({}, {}, "goes to https://api.anthropic.com; inference paths"),
        ({"paths": "all"}, {}, "EVERY PATH"),
        ({"paths": ["/v1/messages", "/v1/files/*"]}, {}, "paths: /v1/messages, /v1/files/*"),
        ({"base_url": "https://gateway.example/x"}, {}, "goes to https://gateway.example/x;"),
        ({"proxy": "socks5h://me:SENTINEL@127.0.0.1:1080"}, {}, "through socks5h://…@127.0.0.1:1080;"),
        (
            {},
            {"HTTPS_PROXY": "http://me:SENTINEL@192.0.2.1:3128"},
            "http://…@192.0.2.1:3128 (from the environment)",
        ),
    ],
)
def test_where_requests_go_and_through_what_is_said_without_a_password(config, settings, environ, says):
    text = as_text(examined(config({"name": "claude", **settings}), **environ), colour=False)
    assert says in text
    assert "SENTINEL" not in text
    assert "me:" not in text


def test_a_proxy_of_the_environment_that_is_none_is_an_error(config, tmp_path):
    claude_file(tmp_path / "state" / "claude" / ".credentials.json", ends=NOW + 60)
    [(_, finding)] = errors(examined(config("claude"), HTTPS_PROXY="gopher://SENTINEL"))
    assert "HTTPS_PROXY" in finding.text
    assert "SENTINEL" not in finding.text


BAD = "gopher://SENTINEL"


@pytest.mark.parametrize(
    ("provider", "environ"),
    [
        ({"name": "claude"}, {"HTTPS_PROXY": BAD}),
        # Requests stay on this machine, renewals do not.
        ({"name": "claude", "base_url": "http://127.0.0.1:9"}, {"HTTPS_PROXY": BAD}),
        ({"name": "claude", "api_key_file": "KEY", "base_url": "https://[::1]:9"}, {"all_proxy": BAD}),
        # The way of an API key is looked for as well, which a reload may need at any time.
        ({"name": "chatgpt"}, {"https_proxy": BAD, "NO_PROXY": "chatgpt.com,auth.openai.com"}),
        ({"name": "claude"}, {"https_proxy": BAD, "NO_PROXY": "api.anthropic.com"}),
        (
            {"name": "claude", "base_url": "http://localhost:9", "token_url": "http://localhost:9"},
            {"https_proxy": BAD},
        ),
        ({"name": "claude"}, {"https_proxy": BAD, "NO_PROXY": "*"}),
        ({"name": "claude", "proxy": "http://127.0.0.1:9"}, {"https_proxy": BAD}),
        ({"name": "claude"}, {"https_proxy": "http://127.0.0.1:9", "all_proxy": BAD}),
    ],
)
def test_a_proxy_is_an_error_exactly_where_the_server_would_not_start(
    config, tmp_path, monkeypatch, provider, environ
):
    claude_file(tmp_path / "state" / "claude" / ".credentials.json", ends=NOW + 60)
    codex_file(tmp_path / "state" / "chatgpt" / "auth.json")
    write(tmp_path / "KEY", "sk-made-up\n")
    if "api_key_file" in provider:
        provider = provider | {"api_key_file": str(tmp_path / "KEY")}
    file = config(provider)
    examination = examined(file, **environ)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    loaded = load(file, known_providers=tuple(PROVIDERS))
    clock = SystemClock()
    log = Log(level="error", write=len, clock=clock)
    try:
        Assembly(loaded, providers=PROVIDERS, clock=clock, log=log).assemble(loaded)
    except ConfigError as exc:
        [(about, finding)] = errors(examination)
        assert (about, [finding.text]) == (provider["name"], list(exc.lines))
        assert "SENTINEL" not in as_text(examination, colour=False)
    else:
        assert examination.is_ok


@pytest.mark.parametrize(
    ("settings", "environ", "says"),
    [
        ({"base_url": "http://127.0.0.1:9"}, {"https_proxy": "http://192.0.2.1:3128"},
         "is renewed at https://platform.claude.com/v1/oauth/token through http://192.0.2.1:3128 (from the"),
        ({}, {"https_proxy": "http://192.0.2.1:3128", "no_proxy": "platform.claude.com"},
         "is renewed at https://platform.claude.com/v1/oauth/token directly"),
        ({}, {"https_proxy": "http://192.0.2.1:3128"}, None),
        ({}, {}, None),
    ],
)  # fmt: skip
def test_the_way_of_renewals_is_said_where_it_is_another(config, tmp_path, settings, environ, says):
    claude_file(tmp_path / "state" / "claude" / ".credentials.json", ends=NOW + 60)
    text = as_text(examined(config({"name": "claude", **settings}), **environ), colour=False)
    assert ("is renewed at" in text) is (says is not None)
    assert says is None or says in text


def test_an_openai_key_in_quotes_is_an_error(config, tmp_path):
    write(tmp_path / "state" / "chatgpt" / "auth.json", json.dumps({"OPENAI_API_KEY": '"sk-SENTINEL"'}))
    [(_, finding)] = errors(examined(config("chatgpt")))
    assert "stands in quotes" in finding.text
    assert "SENTINEL" not in finding.text


def test_field_note_3_another_program_s_login_is_warned_about(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".claude" / ".credentials.json"
    claude_file(file, ends=NOW + 60)
    examination = examined(config({"name": "claude", "credentials": str(file)}))
    assert any("both end logged out" in finding.text for _, finding in examination.findings)


@pytest.mark.parametrize(("listen", "says"), [("127.0.0.1:1", "every local program"), (":1", "EVERYONE")])
def test_no_users_are_a_warning(config, listen, says):
    found = examined(config("claude", users=[], listen=listen)).findings
    assert any(says in finding.text and finding.level is Level.WARNING for _, finding in found)


# How it is said


def test_json_has_the_documented_members_and_no_secret(config, tmp_path):
    codex_file(tmp_path / "state" / "chatgpt" / "auth.json")
    text = as_json(examined(config("claude", "chatgpt")))
    document = json.loads(text)
    assert list(document) == ["ok", "findings", "credentials"]
    assert document["ok"] is False
    assert all(list(finding) == ["about", "level", "text", "mend"] for finding in document["findings"])
    claude, chatgpt = document["credentials"]
    assert (claude["kind"], claude["fresh_until"], claude["renewable"]) == (None, None, False)
    assert (chatgpt["kind"], chatgpt["account"], chatgpt["plan"], chatgpt["renewable"]) == (
        "login", "someone@example.com", "plus", True,
    )  # fmt: skip
    assert chatgpt["fresh_until"].startswith(("2027-01-15T", "2027-01-14T", "2027-01-16T"))
    assert chatgpt["fresh_until"][19] in "+-"
    assert "SENTINEL" not in text


def test_each_level_has_its_count_in_the_last_line(config):
    text = as_text(examined(config("claude", "chatgpt", users=[])), colour=False)
    assert text.endswith("\n2 errors and 1 warning.\n")


# As a process


def check(*arguments, cwd, **more):
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd)} | more
    command = [sys.executable, "-m", "ai_mux", "check", *arguments]
    return subprocess.run(command, env=env, cwd=cwd, timeout=60, capture_output=True, text=True, check=False)


def test_the_exit_code_is_0_when_all_is_well_or_only_unwise_and_1_for_an_error(config, tmp_path):
    file = config("claude", users=[])
    assert check("--config", str(file), cwd=tmp_path).returncode == 1
    claude_file(tmp_path / "state" / "claude" / ".credentials.json", ends=NOW + 60)
    done = check("--config", str(file), cwd=tmp_path)
    assert done.returncode == 0
    assert "warning" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_broken_configuration_is_exit_code_2_and_json_all_the_same(config, tmp_path):
    file = config("claude", listn=":1")
    done = check("--json", "--config", str(file), cwd=tmp_path)
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert (document["ok"], document["credentials"]) == (False, [])
    [finding] = document["findings"]
    assert (finding["about"], finding["level"]) == ("configuration", "error")
    assert "listn" in finding["text"]
    assert "listn" in done.stderr


@pytest.mark.parametrize(
    ("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_a_terminal_whose_owner_likes_them(config, tmp_path, more, coloured):
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm"} | more
    command = [sys.executable, "-m", "ai_mux", "check", "--config", str(config("claude"))]
    it = Terminal(command, cwd=tmp_path, env=env)
    try:
        assert it.end() == 1
    finally:
        it.close()
    assert ("\x1b[31m" in it.shown) is coloured
