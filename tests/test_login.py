"""Logging in with stand-ins for the vendors' clients: real processes, terminals, files and signals."""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from clients.gateway_process import TOKEN, running
from fakes.machine import names, run
from fakes.renewing import claude_file, write
from fakes.stand_ins import CODEX_NEW, NEW, WRITES_CLAUDE, WRITES_CODEX, StandIns, visible

from ai_mux.login import advice
from ai_mux.login.clients import CLIENTS, Place, left_out, place
from ai_mux.storage.locks import FileLock

# What claude_file writes beside its login.
OTHERS = {"mcpOAuth": {"kept": 0.10}}


@pytest.fixture
def machine(tmp_path):
    return StandIns(tmp_path)


def login_in(machine):
    return json.loads(machine.claude.read_text())["claudeAiOauth"]


# It works


def test_claude_s_login_lands_in_ai_mux_s_directory_for_its_owner_alone(machine):
    machine.install("claude", WRITES_CLAUDE)
    done = machine.login("claude")
    assert done.returncode == 0, done.stderr
    assert machine.argv == ["auth", "login"]
    assert json.loads(machine.claude.read_text()) == NEW
    assert machine.claude.stat().st_mode & 0o777 == 0o600
    assert machine.claude.parent.stat().st_mode & 0o777 == 0o700
    assert machine.state.stat().st_mode & 0o777 == 0o700
    assert Path(machine.seen["CLAUDE_CONFIG_DIR"]).parent == machine.claude.parent
    assert (machine.records / "umask").read_text().strip() in {"0077", "77"}
    assert visible(machine.claude.parent) == [".credentials.json"]
    assert "a login: fresh until" in done.stdout
    assert "within 2 seconds" in done.stdout


@pytest.mark.parametrize(("flag", "device"), [("--no-browser", True), ("--browser", False)])
def test_codex_is_told_to_write_a_file_and_without_a_browser_to_work_with_a_code(machine, flag, device):
    machine.install("codex", WRITES_CODEX)
    done = machine.login("chatgpt", flag)
    assert done.returncode == 0, done.stderr
    assert ("--device-auth" in machine.argv) is device
    assert 'cli_auth_credentials_store="file"' in machine.argv
    assert ("enter the code there" in " ".join(done.stdout.split())) is device
    assert json.loads((machine.state / "chatgpt" / "auth.json").read_text()) == CODEX_NEW


def test_what_is_run_and_why_is_said_before_it_runs(machine):
    machine.install("claude", "echo CLIENT; " + WRITES_CLAUDE)
    before, _, _ = machine.login("claude", "--no-browser").stdout.partition("CLIENT")
    assert "a login of its own" in before
    assert "claude auth login" in before
    assert "paste the code" in " ".join(before.split())


async def test_a_running_server_uses_a_new_login_within_seconds_by_itself(machine, tmp_path):
    machine.install("claude", WRITES_CLAUDE)
    async with running(tmp_path, providers=[{"name": "claude", "base_url": "http://127.0.0.1:9"}]) as gateway:
        assert await status(gateway) == 503
        done = await asyncio.to_thread(machine.login, "claude")
        assert done.returncode == 0, done.stderr
        for _ in range(500):
            if await status(gateway) == 502:  # the login is there, the provider is not
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError(gateway.log.read_text())


async def status(gateway):
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /claude/v1/models HTTP/1.1\r\nHost: {host}\r\nx-api-key: {TOKEN}\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


def test_a_login_goes_to_the_configured_file_whatever_its_name_and_through_its_link(machine, tmp_path):
    real = tmp_path / "elsewhere" / "c.json"
    real.parent.mkdir(mode=0o700)
    link = tmp_path / "linked.json"
    link.symlink_to(real)
    machine.configure({"name": "claude", "credentials": str(link)})
    machine.install("claude", WRITES_CLAUDE)
    assert machine.login("claude").returncode == 0
    assert link.is_symlink()
    assert json.loads(real.read_text()) == NEW
    assert visible(real.parent) == ["c.json"]


def test_a_provider_that_is_not_configured_is_logged_in_all_the_same_and_that_is_said(machine):
    machine.configure("chatgpt")
    machine.install("claude", WRITES_CLAUDE)
    done = machine.login("claude")
    assert done.returncode == 0
    assert "add claude to `providers`" in done.stdout
    assert machine.claude.exists()


def test_what_would_send_the_login_elsewhere_is_left_out_and_said_but_not_shown(machine):
    machine.install("claude", WRITES_CLAUDE)
    secrets = {
        "ANTHROPIC_BASE_URL": "http://sentinel-1", "ANTHROPIC_AUTH_TOKEN": "sentinel-2",
        "CLAUDE_CODE_OAUTH_TOKEN": "sentinel-3", "CLAUDE_CODE_USE_BEDROCK": "sentinel-4",
        "OPENAI_API_KEY": "sentinel-5", "CODEX_HOME": "sentinel-6", "AI_MUX_TOKEN": "sentinel-7",
    }  # fmt: skip
    done = machine.login("claude", CLAUDE_CODE_CERT_STORE="system", **secrets)
    assert done.returncode == 0
    assert not set(secrets) & set(machine.seen)
    assert machine.seen["CLAUDE_CODE_CERT_STORE"] == "system"
    assert all(name in done.stdout for name in secrets)
    assert "sentinel" not in done.stdout + done.stderr


def test_a_client_s_own_directory_variable_is_ours_and_not_called_left_out(machine):
    machine.install("claude", WRITES_CLAUDE)
    done = machine.login("claude", CLAUDE_CONFIG_DIR=str(machine.home / "mine"))
    assert Path(machine.seen["CLAUDE_CONFIG_DIR"]).parent == machine.claude.parent
    assert "without" not in done.stdout
    assert not (machine.home / "mine").exists()


# It does not


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 3", "exit code 3"),
        (WRITES_CLAUDE + "exit 1", "exit code 1"),
        ("kill -9 $$", "signal 9"),
        ("true", "left no .credentials.json"),
        (WRITES_CLAUDE.replace("$CLAUDE_CONFIG_DIR", "$HOME"), "left no .credentials.json"),
        ('echo "{" > "$CLAUDE_CONFIG_DIR/.credentials.json"', "holds no login"),
        ('echo "{}" > "$CLAUDE_CONFIG_DIR/.credentials.json"', "without tokens"),
    ],
)
def test_a_client_that_fails_costs_the_login_that_was_there_nothing(machine, script, says):
    claude_file(machine.claude, ends=time.time() + 60)
    before = machine.claude.read_bytes()
    machine.install("claude", script)
    done = machine.login("claude", "--force")
    assert done.returncode == 1
    assert says in done.stderr
    assert machine.was_run
    assert machine.claude.read_bytes() == before
    assert visible(machine.claude.parent) == [".credentials.json"]


def test_a_claude_without_a_login_is_followed_by_the_way_to_a_long_lived_token(machine):
    machine.install("claude", "true")
    done = machine.login("claude")
    assert "claude setup-token" in done.stderr
    assert "--token-stdin" in done.stderr
    assert "about a year" in done.stderr


def test_on_macos_the_keychain_is_named():
    said = advice.left_nothing(CLIENTS["claude"], "/usr/bin/claude", platform="darwin")
    assert "keychain" in said
    assert "claude setup-token" in said


@pytest.mark.parametrize(("provider", "client"), CLIENTS.items())
def test_a_client_that_is_missing_is_named_with_its_package_and_the_way_over_another_machine(
    machine, provider, client
):
    machine.env["PATH"] = str(machine.bin)
    done = machine.login(provider)
    assert done.returncode == 1
    assert f"npm install -g {client.package}" in done.stderr
    assert f"scp -p ai-mux-login/{client.file} THIS-MACHINE:{machine.state}" in done.stderr
    assert "rm -r ai-mux-login" in done.stderr
    assert not machine.state.exists()


def test_a_program_that_cannot_be_run_is_an_error_in_words(machine):
    (machine.bin / "claude").write_text("#!/no/such/interpreter\n")
    (machine.bin / "claude").chmod(0o755)
    done = machine.login("claude")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "cannot be run" in done.stderr


def test_a_provider_with_an_api_key_needs_no_login(machine, tmp_path):
    machine.configure({"name": "claude", "api_key_file": str(tmp_path / "key")})
    machine.install("claude", WRITES_CLAUDE)
    done = machine.login("claude")
    assert done.returncode == 2
    assert "api_key_file" in done.stderr
    assert not machine.was_run


def test_field_note_3_another_program_s_own_login_is_never_replaced(machine):
    machine.configure({"name": "claude", "credentials": str(machine.home / ".claude" / ".credentials.json")})
    machine.install("claude", WRITES_CLAUDE)
    done = machine.login("claude")
    assert done.returncode == 2
    assert "another program" in done.stderr
    assert not machine.was_run
    assert not (machine.home / ".claude").exists()


@pytest.mark.parametrize(
    ("word", "right"), [("codex", "ai-mux login chatgpt"), ("anthropic", "ai-mux login claude")]
)
def test_a_client_s_or_vendor_s_name_leads_to_the_provider_s(machine, word, right):
    done = machine.login(word)
    assert done.returncode == 2
    assert right in done.stderr


# A login is there already


def test_a_login_that_works_stays_where_nobody_can_be_asked(machine):
    claude_file(machine.claude, ends=time.time() + 60)
    before = machine.claude.read_bytes()
    machine.install("claude", WRITES_CLAUDE)
    done = machine.login("claude")
    assert done.returncode == 0
    assert "--force" in done.stdout
    assert not machine.was_run
    assert machine.claude.read_bytes() == before


def test_a_login_that_works_is_replaced_by_force(machine):
    claude_file(machine.claude, ends=time.time() + 60)
    machine.install("claude", WRITES_CLAUDE)
    assert machine.login("claude", "--force").returncode == 0
    assert json.loads(machine.claude.read_text()) == NEW | OTHERS


def test_a_login_that_has_ended_for_good_is_replaced_without_a_question(machine):
    claude_file(machine.claude, ends=time.time() - 60, refresh="")
    machine.install("claude", WRITES_CLAUDE)
    assert machine.login("claude").returncode == 0
    assert json.loads(machine.claude.read_text()) == NEW | OTHERS


@pytest.mark.parametrize("refresh", ["refresh-0", ""])
def test_a_login_that_works_stays_whatever_else_is_wrong_there(machine, refresh):
    claude_file(machine.claude, ends=None, refresh=refresh)
    machine.claude.parent.chmod(0o777)
    machine.claude.chmod(0o644)
    machine.install("claude", WRITES_CLAUDE)
    assert "--force" in machine.login("claude").stdout
    assert not machine.was_run


def test_what_stands_beside_claude_s_login_stays_to_the_byte(machine):
    others = (
        '{"mcpOAuth": {"n": 0.10, "big": 1e400, "k": "\\u00e9"},\n "claudeAiOauth": null, "later": [ ] }\n'
    )
    write(machine.claude, others)
    machine.install("claude", WRITES_CLAUDE)
    assert machine.login("claude").returncode == 0
    assert login_in(machine) == NEW["claudeAiOauth"]
    before, _, after = machine.claude.read_text().partition(json.dumps(NEW["claudeAiOauth"]))
    assert before + "null" + after == others
    assert machine.claude.stat().st_mode & 0o777 == 0o600
    assert visible(machine.claude.parent) == [".credentials.json"]


@pytest.mark.parametrize("there", ["{", "[1]", "", '{ "claudeAiOauth" : {} }', " " * (1 << 20) + '{"a": 1}'])
def test_a_new_login_is_what_the_client_wrote_where_there_is_nothing_to_keep(machine, there):
    write(machine.claude, there)
    machine.install("claude", WRITES_CLAUDE)
    assert machine.login("claude").returncode == 0
    assert machine.claude.read_text() == json.dumps(NEW)
    assert visible(machine.claude.parent) == [".credentials.json"]


def test_codex_s_file_is_all_login_and_nothing_of_the_old_one_stays(machine):
    file = machine.state / "chatgpt" / "auth.json"
    write(
        file,
        json.dumps({"access_token": "old", "refresh_token": "old", "expires_at": 5, "account_id": "old"}),
    )
    machine.install("codex", WRITES_CODEX)
    assert machine.login("chatgpt", "--force").returncode == 0
    assert json.loads(file.read_text()) == CODEX_NEW


# On a terminal


@pytest.fixture
def terminal(machine):
    opened = []

    def on_terminal(*arguments):
        opened.append(machine.terminal(*arguments))
        return opened[-1]

    yield on_terminal
    for one in opened:
        one.close()


@pytest.mark.parametrize(("answer", "replaced"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_is_asked_before_a_login_that_works_is_replaced(machine, terminal, answer, replaced):
    claude_file(machine.claude, ends=time.time() + 60)
    machine.install("claude", WRITES_CLAUDE)
    it = terminal("claude")
    it.until("Log in anew? [y/N]")
    it.type(answer)
    assert it.end() == 0
    assert machine.was_run is replaced
    assert (login_in(machine) == NEW["claudeAiOauth"]) is replaced


def test_what_is_typed_reaches_the_client(machine, terminal):
    machine.install(
        "claude", 'printf "code > "; read code; echo "$code" > "$RECORDS/typed"; ' + WRITES_CLAUDE
    )
    it = terminal("claude", "--no-browser")
    it.until("code > ")
    it.type("made-up-code#state\n")
    assert it.end() == 0
    assert (machine.records / "typed").read_text() == "made-up-code#state\n"


def test_ctrl_c_goes_to_the_client_and_what_it_does_then_is_waited_for(machine, terminal):
    machine.install(
        "claude",
        "trap 'echo tidied > \"$RECORDS/tidied\"; exit 130' INT\necho READY\nwhile :; do sleep 0.1; done",
    )
    it = terminal("claude")
    it.until("READY")
    it.type("\x03")
    assert it.end() == 1
    assert "was interrupted. There is still no login" in it.shown
    assert (machine.records / "tidied").exists()
    assert "Traceback" not in it.shown
    assert visible(machine.claude.parent) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_ai_mux_alone_is_passed_on(machine, terminal, number):
    machine.install("claude", f"trap 'exit 77' {number.name[3:]}\necho READY\nwhile :; do sleep 0.1; done")
    it = terminal("claude")
    it.until("READY")
    it.program.send_signal(number)
    assert it.end() == 1
    assert "exit code 77" in it.shown
    assert visible(machine.claude.parent) == []


# Putting it in place


@pytest.fixture
def waiting(machine):
    """A login that was made, and waits for the lock that a renewal holds; and the lock."""
    claude_file(machine.claude, ends=time.time() + 60)
    machine.install("claude", WRITES_CLAUDE)
    lock = FileLock()
    assert lock.try_lock(machine.claude.parent)
    command = machine.command("claude", "--force")
    with subprocess.Popen(
        command, env=machine.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as it:
        try:
            until = time.monotonic() + 30
            while not any(
                name.startswith(".credentials.json.login-") for name in names(machine.claude.parent)
            ):
                assert time.monotonic() < until
                assert it.poll() is None
            yield it, lock
        finally:
            lock.unlock()
            it.kill()


def test_a_renewal_in_flight_ends_before_the_new_login_is_put_in_place(machine, waiting):
    it, lock = waiting
    assert login_in(machine) != NEW["claudeAiOauth"]
    # What the renewal writes last is what the new login is put into.
    renewed = json.loads(machine.claude.read_text()) | {"later": True}
    write(machine.claude, json.dumps(renewed))
    lock.unlock()
    assert it.wait(30) == 0
    assert json.loads(machine.claude.read_text()) == NEW | OTHERS | {"later": True}


def test_a_login_that_waits_for_a_renewal_and_is_given_up_is_not_lost(machine, waiting):
    it, _ = waiting
    it.send_signal(signal.SIGINT)
    assert it.wait(30) == 1
    assert login_in(machine) != NEW["claudeAiOauth"]
    subprocess.run(shlex.split(it.stderr.read().rpartition("put it in place: ")[2]), check=True, timeout=10)
    assert json.loads(machine.claude.read_text()) == NEW


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_login_that_cannot_be_put_in_place_stays_beside_and_the_message_says_where(machine):
    claude_file(machine.claude, ends=time.time() + 60)
    if not run("mount", "--bind", machine.claude, machine.claude):
        pytest.skip("mounting is not allowed here")
    try:
        machine.install("claude", WRITES_CLAUDE)
        done = machine.login("claude", "--force")
    finally:
        assert run("umount", "-l", machine.claude)
    assert done.returncode == 1
    assert "mount the directory" in done.stderr
    move = shlex.split(done.stderr.rpartition("put it in place: ")[2])
    assert subprocess.run(move, check=True, timeout=10).returncode == 0
    assert json.loads(machine.claude.read_text()) == NEW


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_whom_the_state_directory_belongs_to(machine):
    machine.state.mkdir(mode=0o700)
    os.chown(machine.state, 12345, 12345)
    machine.install("claude", WRITES_CLAUDE)
    assert machine.login("claude").returncode == 0
    made = [machine.claude.parent, machine.claude, machine.claude.parent / ".ai-mux.lock"]
    assert [(one.stat().st_uid, one.stat().st_gid) for one in made] == [(12345, 12345)] * 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_field_note_22_whoever_may_not_write_there_is_told_whose_it_is(machine):
    machine.state.mkdir(mode=0o500)
    machine.install("claude", WRITES_CLAUDE)
    done = machine.login("claude")
    assert done.returncode == 1
    assert f"{machine.state} belongs to uid {os.geteuid()}" in done.stderr
    assert "sudo -u" in done.stderr
    assert not machine.was_run


# Where we are


@pytest.mark.parametrize(
    ("environ", "files", "platform", "expected"),
    [
        ({"DISPLAY": ":0"}, [], "linux", Place.DESKTOP),
        ({"WAYLAND_DISPLAY": "wayland-0"}, [], "linux", Place.DESKTOP),
        ({"WSL_DISTRO_NAME": "Debian"}, [], "linux", Place.DESKTOP),
        ({}, [], "darwin", Place.DESKTOP),
        ({}, [], "linux", Place.HEADLESS),
        ({"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22", "DISPLAY": ":10"}, [], "linux", Place.SSH),
        ({"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}, [], "darwin", Place.SSH),
        ({"DISPLAY": ":0"}, ["/.dockerenv"], "linux", Place.CONTAINER),
        ({}, ["/run/.containerenv"], "linux", Place.CONTAINER),
        ({"KUBERNETES_SERVICE_HOST": "192.0.2.3", "SSH_CONNECTION": "x"}, [], "linux", Place.CONTAINER),
    ],
)
def test_field_note_21_where_this_runs_is_found_out(environ, files, platform, expected):
    assert place(environ, platform=platform, exists=files.__contains__) is expected


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_field_note_21_each_place_without_a_browser_has_its_hint(client):
    assert set(client.hints) == set(Place) - {Place.DESKTOP}
    assert "volume" in client.hints[Place.CONTAINER]


def test_field_note_21_over_ssh_codex_may_also_use_the_browser_at_home():
    assert "ssh -L 1455:localhost:1455" in CLIENTS["chatgpt"].hints[Place.SSH]


def test_variables_of_other_programs_stay():
    kept = {"PATH", "HTTPS_PROXY", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CODEX_CA_CERTIFICATE", "BROWSER"}
    assert left_out(dict.fromkeys([*kept, "CODEX_REFRESH_TOKEN_URL_OVERRIDE"], "x")) == [
        "CODEX_REFRESH_TOKEN_URL_OVERRIDE"
    ]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ('mkdir "$CLAUDE_CONFIG_DIR/.credentials.json"', "no regular file"),
        ('mkfifo "$CLAUDE_CONFIG_DIR/.credentials.json"', "no regular file"),
        ('ln -s /etc/hostname "$CLAUDE_CONFIG_DIR/.credentials.json"', "symbolic link"),
        ('head -c 2000000 /dev/zero > "$CLAUDE_CONFIG_DIR/.credentials.json"', "too large"),
    ],
)
def test_what_is_no_file_of_a_login_is_said_and_changes_nothing(machine, made, said):
    write(machine.claude, json.dumps(NEW))
    machine.install("claude", made)
    done = machine.login("claude", "--force")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(machine.claude.read_text()) == NEW
    assert visible(machine.claude.parent) == [".credentials.json"]
