"""``ai-mux status``: what it says, where it asks, and what it makes of those who answer."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from socket import create_server

import pytest
from admin.parts import TOKEN, Parts, add, record
from documents import ROOT
from fakes.terminal import Terminal
from how_to.programs import free_port
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.config import load
from ai_mux.errors import ConfigError, NoStatus
from ai_mux.status import asking, columns, told
from ai_mux.status.drawn import drawn
from ai_mux.users import digest_of

DIGEST = digest_of(TOKEN.encode())
PROVIDERS = ("claude", "chatgpt")
ESCAPE = "\x1b"


def write(directory, *, name="c.yaml", **admin):
    """Write a configuration with this admin listener, or with none."""
    path = directory / name
    path.touch(0o600)
    whole = {"state_dir": str(directory / "state"), "providers": ["claude"]}
    path.write_text(json.dumps(whole | ({"admin": admin} if admin else {})))  # JSON is YAML
    return path


def run(path, *options, **environ):
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(path.parent),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    command = [sys.executable, "-m", "ai_mux", "status", "--config", str(path), *options]
    return subprocess.run(command, env=env | environ, capture_output=True, text=True, timeout=60, check=False)


async def ran(path, *options, **environ):
    return await asyncio.to_thread(run, path, *options, **environ)


# Whom it asks


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
async def test_a_server_that_is_well_says_so(parts: Parts, tmp_path, name):
    await parts.credential(left_s=22_320)
    add(parts.totals, record(), "done")
    await parts.serve()
    done = await ran(write(tmp_path, name=name, listen=f"127.0.0.1:{parts.port}"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "# all is well" in done.stdout
    assert "claude:login  live   6h12m" in done.stdout


async def test_one_that_is_not_says_what_and_fails(parts: Parts, tmp_path):
    await parts.credential(left_s=None)
    await parts.serve()
    done = await ran(write(tmp_path, listen=f"127.0.0.1:{parts.port}"))
    assert done.returncode == 1
    assert (
        "# problem: claude:login is missing (there is no credential file); run `ai-mux login claude`, "
        "with the server's --config" in done.stdout
    )


@pytest.mark.parametrize("kind", ["token", "token_file", "token in JSON"])
async def test_it_shows_the_token_that_the_configuration_has(parts: Parts, tmp_path, kind):
    await parts.credential()
    await parts.serve(token_digest=DIGEST)
    admin = {"listen": f"127.0.0.1:{parts.port}", "token": TOKEN}
    if kind == "token_file":
        (tmp_path / "token").touch(0o600)
        (tmp_path / "token").write_text(TOKEN + "\n")
        admin = {"listen": admin["listen"], "token_file": str(tmp_path / "token")}
    done = await ran(write(tmp_path, name="c.json" if kind == "token in JSON" else "c.yml", **admin))
    assert (done.returncode, done.stderr) == (0, "")
    assert TOKEN not in done.stdout


async def test_a_token_that_the_server_does_not_know_yet_asks_for_a_restart(parts: Parts, tmp_path):
    await parts.serve(token_digest=digest_of(b"an-older-made-up-token"))
    done = await ran(write(tmp_path, listen=f"127.0.0.1:{parts.port}", token=TOKEN))
    assert done.returncode == 1
    assert "does not take this configuration's token" in done.stderr
    assert "reload (SIGHUP) or restart the server" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


async def test_it_asks_over_a_unix_socket(parts: Parts, tmp_path):
    await parts.credential()
    await parts.serve(path=tmp_path / "admin.sock")
    done = await ran(write(tmp_path, listen=f"unix:{tmp_path}/admin.sock"))
    assert (done.returncode, done.stderr) == (0, "")


async def test_no_proxy_of_the_environment_is_asked(parts: Parts, tmp_path):
    await parts.credential()
    await parts.serve()
    path = write(tmp_path, listen=f"127.0.0.1:{parts.port}")
    done = await ran(path, http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9", all_proxy="x")
    assert done.returncode == 0


async def test_json_is_the_server_s_own_answer(parts: Parts, tmp_path):
    await parts.credential()
    await parts.serve()
    done = await ran(write(tmp_path, listen=f"127.0.0.1:{parts.port}"), "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert (said["ok"], said["version"], said["credentials"][0]["state"]) == (True, "1.2.3", "live")


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_without_an_admin_listener_it_says_which_lines_to_add_and_they_work(tmp_path, name):
    path = write(tmp_path, name=name)
    done = run(path)
    assert done.returncode == 2
    told_lines = done.stderr.splitlines()[1:]
    if name == "c.json":
        path.write_text(path.read_text().removesuffix("}") + ", " + told_lines[0] + "}")
    else:
        path.write_text(f"providers: [claude]\nstate_dir: {tmp_path}\n" + "\n".join(told_lines) + "\n")
    assert load(path, known_providers=PROVIDERS).admin is not None


def test_without_a_configuration_it_asks_for_one(tmp_path):
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    command = [sys.executable, "-m", "ai_mux", "status"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "ai-mux status --config FILE" in done.stderr


def test_a_server_that_does_not_run_is_told_from_one_that_is_unwell(tmp_path):
    port = free_port()
    for admin in (f"127.0.0.1:{port}", f"unix:{tmp_path}/none.sock"):
        done = run(write(tmp_path, listen=admin))
        assert done.returncode == 1
        assert f"nobody answers at {admin} (admin.listen)" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_port_that_each_start_chooses_anew_cannot_be_asked(tmp_path):
    with pytest.raises(ConfigError, match="port 0"):
        asking.asked(load(write(tmp_path, listen="127.0.0.1:0"), known_providers=PROVIDERS))


def test_a_token_that_has_changed_since_it_was_read_is_not_sent(tmp_path):
    path = write(tmp_path, listen="127.0.0.1:9180", token=TOKEN)
    config = load(path, known_providers=PROVIDERS)
    write(tmp_path, listen="127.0.0.1:9180", token="another-made-up-token")
    with pytest.raises(ConfigError, match="cannot be read a second time"):
        asking.asked(config)


# Who answers


@contextmanager
def answering(reply: bytes | None):
    """Serve one connection with these bytes; None: with nothing."""
    with create_server(("127.0.0.1", 0)) as listening:
        done = threading.Event()

        def serve() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.settimeout(10)
                sock.recv(65536)
                if reply is not None:
                    try:
                        sock.sendall(reply)
                    except OSError:
                        return
                else:
                    done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            done.set()
            thread.join(10)


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(body)) + body


@pytest.mark.parametrize(
    ("reply", "told_as"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not speak HTTP"),
        (b"", "does not speak HTTP|cannot be reached"),
        (http(b"<html>"), "is no ai-mux"),
        (http(b"[]"), "is no ai-mux"),
        (http(b'{"a": 1}'), "is no ai-mux"),
        (http(b"[" * 100_000), "is no ai-mux"),
        (http(b'{"version": "1"}', "404 Not Found"), "is no ai-mux"),
        (http(b'{"version": "1"}', "302 Found"), "is no ai-mux"),
        (http(b'{"version": "' + b"x" * 2**21 + b'"}'), "is no ai-mux"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "is no ai-mux"),
        (None, r"does not answer within 0\.2 s|does not answer within 0 s"),
    ],
)
def test_whoever_else_answers_is_no_server_of_ours(tmp_path, monkeypatch, reply, told_as):
    monkeypatch.setattr(asking, "_WAIT_S", 0.2 if reply is None else 5)
    with answering(reply) as port:
        config = load(write(tmp_path, listen=f"127.0.0.1:{port}"), known_providers=PROVIDERS)
        with pytest.raises(NoStatus, match=told_as):
            asking.asked(config)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 10**400, True, "1", None])
def test_what_is_no_number_is_a_dash(number):
    window = {"name": "5h", "used": number, "resets_in_s": 60, "seen_s_ago": number}
    one = {"credential": "a", "expires_in_s": number, "renewals": number, "windows": [window]}
    said = told({"uptime_s": number, "connections": number, "credentials": [one]}, at="here")
    assert said.title == "ai-mux - at here, up -"
    assert said.credentials[0].cells == ("a", "-", "-", "no", "-", "-")
    assert said.windows[0].cells == ("a", "5h", "-", "1m", "-", "-")
    assert "- clients connected" in said.remarks[0]


HOSTILE = {
    "version": f"1{ESCAPE}]0;owned\x07",
    "problems": [f"{ESCAPE}[2J gone", "[bold]not markup[/bold]", 7],
    "credentials": [
        {
            "credential": f"a{ESCAPE}[31m b",
            "state": "live\nforged line",
            "windows": [
                {"name": "\x9b1m", "used": 1e9, "resets_in_s": -5, "status": "\u202e", "seen_s_ago": 3}
            ],
            "other_claims": {f"{ESCAPE}c": "\r", "n": 1},
        }
    ],
}


@pytest.mark.parametrize("colour", [True, False])
def test_nothing_in_an_answer_acts_on_the_terminal(colour):
    said = told(HOSTILE, at="here")
    for text in (columns(said), drawn(said, width=200, colour=colour, encoding="utf-8")):
        assert not re.search("[\x00-\x09\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202e]", text)
        assert not [
            one for one in re.findall(ESCAPE + ".{0,6}", text) if not re.match(r"\x1b\[[0-9;]*m", one)
        ]
        assert "[bold]not markup[/bold]" in text
        assert "\nforged" not in text


_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab\x1b\n[é中", max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["version", "uptime_s", "problems", "credentials", "windows", "used", "resets_in_s", "name",
             "status", "state", "expires_in_s", "since_start", "tokens", "cost_usd", "ledger", "queued",
             "other_claims"]
        ),
        inner,
        max_size=8,
    ),
    max_leaves=40,
)  # fmt: skip


@given(_DOCUMENTS, st.integers(20, 200))
def test_no_answer_whatsoever_breaks_it(document, width):
    if isinstance(document, dict):
        said = told(document, at="here")
        columns(said)
        drawn(said, width=width, colour=False, encoding="ascii")


# What it says

SAMPLE = {
    "ok": True,
    "problems": [],
    "version": "0.1.0",
    "uptime_s": 273_840,
    "connections": 12,
    "requests_running": 3,
    "model_requests_running": 2,
    "credentials": [
        {
            "credential": "claude:login",
            "state": "live",
            "usable": True,
            "renewable": True,
            "expires_in_s": 22_320,
            "problem": None,
            "renewals": 14,
            "renewal_failures": 0,
            "windows": [
                {"name": "5h", "used": 0.62, "status": "allowed", "resets_in_s": 7790, "seen_s_ago": 1},
                {
                    "name": "7d",
                    "used": 0.93,
                    "status": "allowed_warning",
                    "resets_in_s": 299_990,
                    "seen_s_ago": 1,
                },
                {"name": "overage", "used": None, "status": "rejected", "resets_in_s": None, "seen_s_ago": 1},
            ],
            "other_claims": {"representative-claim": "seven_day"},
        },
        {
            "credential": "chatgpt:login",
            "state": "live",
            "usable": True,
            "renewable": True,
            "expires_in_s": 691_200,
            "problem": None,
            "renewals": 2,
            "renewal_failures": 0,
            "windows": [
                {"name": "5h", "used": 0.125, "status": None, "resets_in_s": 1180, "seen_s_ago": 4000}
            ],
            "other_claims": {},
        },
    ],
    "since_start": {"requests": 500, "errors": 0, "unmetered": 0, "tokens": 1_090_000, "cost_usd": 0.617},
    "ledger": {"state": "writing", "queued": 0, "written": 12_345, "dropped": 0},
}


def test_the_reference_shows_what_it_looks_like():
    said = told(SAMPLE, at="127.0.0.1:9180")
    shown = drawn(said, width=86, colour=False, encoding="utf-8")
    assert f"```\n{shown}```" in (ROOT / "docs" / "reference" / "command-line.md").read_text()


@pytest.mark.parametrize("width", [200, 120, 86, 80, 72, 60, 50])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_cut(width, encoding):
    shown = drawn(told(SAMPLE, at="127.0.0.1:9180"), width=width, colour=False, encoding=encoding)
    assert max(map(len, shown.splitlines())) <= width
    for figure in ("62%", "93%", "2h9m", "3d11h", "6h12m", "8d", "claude:login", "chatgpt:login"):
        assert re.search(rf"(^|\s){re.escape(figure)}(\s|$)", shown, re.M), figure
    shown.encode(encoding)


def test_into_a_pipe_go_columns_that_awk_splits():
    one = {
        "credential": "claude:login",
        "windows": [{"name": "5h secondary", "used": 0.5, "status": "so so"}],
    }
    text = columns(told(SAMPLE | {"problems": ["a problem"], "credentials": [one]}, at="here"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {len(line.split()) for line in lines} == {6}
    assert "# problem: a problem" in text
    assert not re.search("[█░─\x1b]", text)


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_at_a_terminal_it_draws(parts: Parts, tmp_path, environ):
    await parts.credential()
    raw = [(b"anthropic-ratelimit-unified-5h-utilization", b"0.5")]
    parts.windows.note_head("claude:login", raw, parts.clock.wall)
    await parts.serve()
    path = write(tmp_path, listen=f"127.0.0.1:{parts.port}")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm", "LANG": "C.UTF-8"}
    env |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")} | environ
    terminal = Terminal(
        [sys.executable, "-m", "ai_mux", "status", "--config", str(path)], cwd=tmp_path, env=env
    )
    try:
        assert await asyncio.to_thread(terminal.end) == 0
    finally:
        terminal.close()
    assert "█" in terminal.shown
    assert (ESCAPE in terminal.shown) == (not environ)
