"""``ai-mux client-config``: what is printed for which server. The clients themselves run in tests/clients."""

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from ai_mux.client_config import CLIENTS, settings
from ai_mux.config import TlsConfig, load
from ai_mux.errors import ConfigError
from ai_mux.providers import PROVIDERS

TOKEN = "made-up-user-token-SENTINEL"
ALICE = {"name": "alice", "token": TOKEN}


@pytest.fixture
def config(tmp_path):
    """Load a configuration with these settings."""

    def loaded(**given):
        file = tmp_path / "config.json"
        file.touch(0o600)
        whole = {"listen": "127.0.0.1:8080", "providers": ["claude", "chatgpt"], "users": [ALICE]} | given
        file.write_text(json.dumps(whole, indent=1))
        return load(file, known_providers=tuple(PROVIDERS))

    return loaded


def made(config, client="curl", user=None, url=None, **more):
    return settings(client, config, user=user, url=url, **more)


@pytest.mark.parametrize("client", CLIENTS)
def test_no_token_is_printed_and_every_client_gets_it_by_reference(config, client):
    it = made(config(), client)
    assert "AI_MUX_TOKEN" in it.text
    assert "SENTINEL" not in it.text + "".join(it.notes)


@pytest.mark.parametrize(
    ("listen", "base", "noted"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080/claude", "ssh -L 8080:127.0.0.1:8080"),
        ("localhost:9", "http://localhost:9/claude", "ssh -L 9:localhost:9"),
        ("[::1]:8080", "http://[::1]:8080/claude", "ssh -L 8080:[::1]:8080"),
        ("192.0.2.7:8080", "http://192.0.2.7:8080/claude", None),
        (":8080", "http://127.0.0.1:8080/claude", "--url http://NAME-OF-THIS-HOST:8080"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080/claude", "plain HTTP"),
        ("[::]:8080", "http://127.0.0.1:8080/claude", "all interfaces"),
    ],
)
def test_the_address_is_the_listener_s(config, listen, base, noted):
    it = made(config(listen=listen), "claude-code")
    assert f'ANTHROPIC_BASE_URL="{base}"' in it.text
    assert noted is None or any(noted in note for note in it.notes)


def test_with_tls_it_is_https_and_the_certificate_is_spoken_of(config):
    tls = TlsConfig(cert_path=Path("/etc/c.pem"), key_path=Path("/etc/k.pem"))
    it = made(replace(config(listen=":8443"), tls=tls), "codex")
    base_url = tomllib.loads(it.text)["model_providers"]["ai-mux"]["base_url"]
    assert base_url == "https://127.0.0.1:8443/chatgpt/v1"
    notes = " ".join(it.notes)
    assert "certificate is for" in notes
    assert "CODEX_CA_CERTIFICATE" in notes
    assert "plain HTTP" not in notes


@pytest.mark.parametrize(
    "url", ["https://ai-mux.example", "https://ai-mux.example/", "http://[2001:db8::1]:80"]
)
def test_a_url_of_one_s_own_wins_over_every_listener(config, url):
    for listen in (":8080", "unix:/run/x.sock", "127.0.0.1:0"):
        assert f"{url.rstrip('/')}/claude/v1/messages" in made(config(listen=listen), url=url).text


@pytest.mark.parametrize(
    "url",
    [
        *("ai-mux.example", "ftp://x", "http://x?y", 'http://x"', "http://x$(id)", "http://a@b"),
        *("https://x/claude", "https://x/chatgpt/v1/", "http://[2001:db8::1]:80/below", "https://x//"),
    ],
)
def test_a_url_that_is_none_or_would_end_a_quote_or_has_a_path_is_refused(config, url):
    with pytest.raises(ConfigError, match="--url"):
        made(config(), url=url)


def test_a_unix_socket_is_for_curl_and_the_others_are_told_so(config):
    server = config(listen="unix:/run/a b.sock")
    assert "curl -N --unix-socket '/run/a b.sock' http://localhost/claude/v1/messages" in made(server).text
    for client in set(CLIENTS) - {"curl"}:
        with pytest.raises(ConfigError, match="unix socket"):
            made(server, client)


def test_a_port_that_the_system_chooses_needs_a_url(config):
    with pytest.raises(ConfigError, match="--url"):
        made(config(listen="127.0.0.1:0"))


# Whose token


def test_where_a_token_stands_is_said_by_file_line_and_key(config):
    [note] = [note for note in made(config(), user="alice").notes if "alice" in note]
    assert "config.json:10 (users[0].token)" in note


def test_a_token_file_is_read_by_the_shell(config, tmp_path):
    file = tmp_path / "it's a token"
    file.touch(0o600)
    file.write_text(TOKEN + "\n")
    server = config(users=[{"name": "carol", "token_file": str(file)}])
    lines = made(server, "claude-code").text + 'printf %s "$ANTHROPIC_AUTH_TOKEN"'
    done = subprocess.run(["sh", "-c", lines], capture_output=True, text=True, check=True, timeout=10)
    assert done.stdout == TOKEN
    helper = json.loads(made(server, "claude-code", settings_json=True).text)["apiKeyHelper"]
    assert (
        subprocess.run(["sh", "-c", helper], capture_output=True, text=True, check=True).stdout
        == TOKEN + "\n"
    )


def test_of_a_hash_it_is_said_that_the_token_is_not_there(config):
    server = config(users=[{"name": "bob", "token_sha256": "ab" * 32}])
    assert any("holds its hash alone" in note for note in made(server).notes)


def test_with_several_users_the_question_is_whose(config):
    server = config(users=[ALICE, {"name": "bob", "token_sha256": "ab" * 32}])
    it = made(server)
    assert "PUT-THE-TOKEN-HERE" in it.text
    assert any("--user NAME" in note and "alice, bob" in note for note in it.notes)
    assert any("users[1].token_sha256" in note for note in made(server, user="bob").notes)
    with pytest.raises(ConfigError, match="alice, bob"):
        made(server, user="eve")


def test_without_users_any_token_will_do_and_that_is_said(config):
    it = made(config(users=[]))
    assert "AI_MUX_TOKEN=none-needed" in it.text
    assert any("no users" in note for note in it.notes)


# What for which client


def test_a_provider_that_is_not_served_is_noted_and_curl_shows_only_what_is(config):
    server = config(providers=["claude"])
    assert any("does not serve chatgpt" in note for note in made(server, "codex").notes)
    assert "/chatgpt" not in made(server, "curl").text


def test_curl_without_any_provider_is_noted_with_both(config):
    it = made(config(providers=[]), "curl")
    [note] = [note for note in it.notes if "does not serve" in note]
    for name in ("claude", "chatgpt"):
        assert f"/{name}/" in it.text
        assert name in note


def test_codex_s_settings_are_toml_with_websockets(config):
    provider = tomllib.loads(made(config(), "codex").text)["model_providers"]["ai-mux"]
    assert provider == {
        "name": "ai-mux", "base_url": "http://127.0.0.1:8080/chatgpt/v1", "wire_api": "responses",
        "env_key": "AI_MUX_TOKEN", "supports_websockets": True,
    }  # fmt: skip


def test_only_claude_code_has_a_settings_file(config):
    with pytest.raises(ConfigError, match="claude-code alone"):
        made(config(), "codex", settings_json=True)


# As a process


def test_what_is_pasted_is_on_stdout_and_what_is_noted_on_stderr(config, tmp_path):
    config()
    command = [sys.executable, "-m", "ai_mux", "client-config", "codex", "--config", "config.json"]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert tomllib.loads(done.stdout)["model_provider"] == "ai-mux"
    assert all(line.startswith("note: ") for line in done.stderr.splitlines())
    assert "users[0].token" in done.stderr
