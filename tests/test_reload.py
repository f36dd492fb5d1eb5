"""Reload: a new configuration is taken over whole, or nothing of it, and what runs ends as it began."""

import asyncio
import gc
import hashlib
import json
import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from engine.upstream import Upstream
from engine.wires import Ended, TlsWire, Wire, eventually
from fakes.renewing import claude_file, tokens_of, write
from fakes.token_endpoint import TokenEndpoint
from whole import ALICE, BOB, USERS, Origin, Whole, ok, request, whole

from ai_mux.providers.claude import Claude
from ai_mux.proxy.routes import Destination, Gateway, Route
from ai_mux.proxy.routes import Origin as Target

ACCESS, REFRESH = "Wd6uHn3Lf0Gb5eTa1Qo7", "Xi8rMk2Vz4Pl9oBn6Wc"
CAROL = "Gm4Sx9Jt2Kb7Vq1Zc"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
HANDSHAKE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: bWFkZS11cC0xNi1ieXRlcw==",
)  # fmt: skip


@pytest.fixture
async def origin():
    return Origin()


@pytest.fixture
async def mux(tmp_path, origin):
    """A whole ai-mux with a long-lived login for Claude, configured for ``origin`` and not yet started."""
    async with whole(tmp_path, origins=[origin]) as it:
        it.secrets += [ACCESS, REFRESH, CAROL]
        claude_file(it.state / "claude" / ".credentials.json", access=ACCESS, refresh=None, ends=None)
        it.configure(providers=[claude(origin)])
        yield it


def claude(origin: Origin | None, **more: object) -> dict[str, object]:
    return {"name": "claude", **({"base_url": origin.url} if origin else {}), **more}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# What is taken over


async def test_users_come_and_go(mux, origin):
    await mux.start()
    assert (await mux.ask(token=BOB)).status == 200
    assert (await mux.ask(token=CAROL)).status == 401
    mux.configure(providers=[claude(origin)], users=[USERS[0], {"name": "carol", "token": CAROL}])
    await mux.reload()
    assert [(await mux.ask(token=token)).status for token in (ALICE, BOB, CAROL)] == [200, 401, 200]
    (line,) = await mux.events("config.reloaded")
    assert (line["users"], line["providers"]) == (2, ["claude"])


async def test_a_token_file_is_read_again(mux, origin):
    file = mux.directory / "carol"
    file.touch(0o600)
    file.write_text("x" * 20)
    mux.configure(providers=[claude(origin)], users=[{"name": "carol", "token_file": str(file)}])
    await mux.start()
    file.write_text(f"{CAROL}\n")
    assert (await mux.ask(token=CAROL)).status == 401
    await mux.reload()
    assert (await mux.ask(token=CAROL)).status == 200


async def test_field_note_24_a_removed_user_s_stream_ends_as_it_began_and_the_next_request_is_a_401(mux):
    provider = Upstream()
    mux.configure(providers=[{"name": "claude", "base_url": f"http://127.0.0.1:{provider.port}"}])
    await mux.start()
    client = await Wire.to(mux.port)
    await client.send(request("POST /claude/v1/messages", token=BOB))
    upstream = await provider.accept()
    await upstream.message()
    await upstream.send(STREAM + chunk(b"one"))
    assert (await client.until(b"one\r\n")).startswith(b"HTTP/1.1 200")
    mux.configure(providers=[], users=USERS[:1])
    await mux.reload()
    await upstream.send(chunk(b"two"), b"0\r\n\r\n")
    assert await client.until(b"0\r\n\r\n") == chunk(b"two") + b"0\r\n\r\n"
    assert (await mux.ask_over(client, "POST /claude/v1/messages", token=BOB)).status == 401
    assert (await mux.ask(token=ALICE)).status == 404  # the provider is gone too
    client.close()
    await provider.close()


async def test_field_note_24_an_upload_that_is_under_way_goes_where_it_began(mux, origin):
    provider = Upstream()
    mux.configure(providers=[{"name": "claude", "base_url": f"http://127.0.0.1:{provider.port}"}])
    await mux.start()
    client = await Wire.to(mux.port)
    whole_request = request("POST /claude/v1/messages", body=b"x" * 1000)
    await client.send(whole_request[:-500])
    upstream = await provider.accept()
    mux.configure(providers=[claude(origin)], max_body_size=10)
    await mux.reload()
    await client.send(whole_request[-500:])
    assert len((await upstream.message()).body) == 1000
    await upstream.send(ok())
    assert (await client.message()).status == 200
    assert not origin.asked
    assert (await mux.ask_over(client, "POST /claude/v1/messages", body=b"x" * 11)).status == 413
    client.close()
    await provider.close()


async def opened_tunnel(mux: Whole, token: str) -> tuple[Upstream, Wire, Wire, dict[str, object]]:
    """Start, and open a WebSocket to ChatGPT. Return the provider, both ends, and how it is configured."""
    provider = Upstream()
    login = {"access_token": ACCESS, "refresh_token": None, "account_id": "acct-0"}
    write(mux.state / "chatgpt" / "auth.json", json.dumps({"tokens": login}))
    one = {"name": "chatgpt", "base_url": f"http://127.0.0.1:{provider.port}"}
    mux.configure(providers=[one])
    await mux.start()
    client = await Wire.to(mux.port)
    await client.send(request("GET /chatgpt/v1/responses", *HANDSHAKE, token=token))
    upstream = await provider.accept()
    await upstream.message()
    await upstream.send(SWITCH)
    assert (await client.message()).status == 101
    return provider, client, upstream, one


MESSAGE, ANSWER, PING = b"\x81\x84\0\0\0\0made", b"\x81\x04more", b"\x89\x80\0\0\0\0"


async def test_field_note_24_a_tunnel_goes_on_under_any_configuration_that_would_let_it_in(mux):
    provider, client, upstream, one = await opened_tunnel(mux, ALICE)
    mux.configure(
        providers=[{**one, "base_url": "http://127.0.0.1:1", "paths": ["/v1/models"]}], users=USERS[:1]
    )
    await mux.reload()
    for _ in range(3):
        await client.send(MESSAGE)
        assert await upstream.exactly(len(MESSAGE)) == MESSAGE
        await upstream.send(ANSWER)
        assert await client.exactly(len(ANSWER)) == ANSWER
    upstream.close()
    assert not (await client.end()).got
    client.close()
    await provider.close()


@pytest.mark.parametrize("gone", ["user", "token", "provider"])
async def test_a_tunnel_that_would_not_be_let_in_any_more_ends_with_its_next_message(mux, gone):
    """The answer that is under way arrives whole; who is gone cannot ask on for as long as it lasts."""
    provider, client, upstream, one = await opened_tunnel(mux, BOB)
    await client.send(MESSAGE)
    assert await upstream.exactly(len(MESSAGE)) == MESSAGE
    users = {"user": USERS[:1], "token": [USERS[0], {"name": "bob", "token": CAROL}], "provider": USERS}[gone]
    mux.configure(providers=[] if gone == "provider" else [one], users=users)
    await mux.reload()
    await upstream.send(ANSWER, ANSWER)
    assert await client.exactly(2 * len(ANSWER)) == 2 * ANSWER
    await client.send(PING)
    assert await upstream.exactly(len(PING)) == PING
    await client.send(MESSAGE)
    assert (await client.end()).got == b"\x88\x02\x03\xe9"  # 1001, going away (RFC 6455, 7.4.1)
    to_provider = (await upstream.end()).got
    assert to_provider[:2] == b"\x88\x82"
    assert MESSAGE not in to_provider
    status = {"user": 401, "token": 401, "provider": 404}[gone]
    assert (await mux.ask("GET /chatgpt/v1/responses", *HANDSHAKE, token=BOB)).status == status
    client.close()
    await provider.close()


async def test_providers_come_and_go_and_come_back(mux, origin):
    await mux.start()
    mux.configure(providers=[])
    await mux.reload()
    assert (await mux.ask()).status == 404
    mux.configure(providers=[claude(origin), "chatgpt"])
    await mux.reload()
    assert (await mux.ask()).status == 200
    assert (await mux.ask("POST /chatgpt/v1/responses")).status == 503  # known, and not logged in
    assert (mux.state / "chatgpt").is_dir()  # where its login belongs
    events = [line["event"] for line in await mux.events("credential.read")]
    assert events == ["credential.read"]  # what was known of the login was kept


async def test_what_a_new_provider_s_file_holds_is_known_before_the_first_request(mux, origin):
    """Else a request for what only an API key opens would be told that it does not exist."""
    await mux.start()
    key = {"auth_mode": "apikey", "OPENAI_API_KEY": CAROL}
    write(mux.state / "chatgpt" / "auth.json", json.dumps(key))
    mux.configure(providers=[{"name": "chatgpt", "base_url": origin.url}])
    before = mux.app.server.gateway
    mux.app.reload()
    while mux.app.server.gateway is before:  # noqa: ASYNC110 - the very turn of the loop counts
        await asyncio.sleep(0)
    assert mux.app.server.gateway.routes[b"chatgpt"].destination.api_key
    assert (await mux.ask("POST /chatgpt/v1/chat/completions")).status == 200


async def test_headers_paths_and_addresses_are_taken_over(mux, origin):
    other = Origin()
    await mux.start()
    assert (await mux.ask("GET /claude/v1/files")).status == 403
    mux.configure(providers=[claude(other, headers={"X-Team": "blue"}, paths=["/v1/files", "/v1/messages"])])
    await mux.reload()
    assert (await mux.ask("GET /claude/v1/files")).status == 200
    assert (await mux.ask("POST /claude/v1/messages", "x-team: theirs")).status == 200
    assert not origin.asked
    assert [one.get(b"x-team") for one in other.asked] == [b"blue"] * 2
    mux.configure(providers=[claude(other)])
    await mux.reload()
    assert (await mux.ask("GET /claude/v1/files")).status == 403
    assert (await mux.ask("POST /claude/v1/messages", "x-team: theirs")).status == 200
    assert other.asked[-1].get(b"x-team") == b"theirs"
    await other.upstream.close()


async def test_a_proxy_is_put_between_and_taken_away(mux, origin):
    def tunnel(message):  # RFC 9110, section 9.3.6; what comes then is answered here as well
        return b"HTTP/1.1 200 Go on\r\n\r\n" if message.start.startswith(b"CONNECT") else ok(b"by proxy")

    proxy = Origin(tunnel)
    await mux.start()
    assert (await mux.ask()).body == b"ok"
    mux.configure(providers=[claude(origin, proxy=proxy.url)])
    await mux.reload()
    assert (await mux.ask()).body == b"by proxy"  # although a connection without it was at rest
    assert proxy.asked[0].start.startswith(f"CONNECT 127.0.0.1:{origin.upstream.port} ".encode())
    mux.configure(providers=[claude(origin)])
    await mux.reload()
    assert (await mux.ask()).body == b"ok"
    await proxy.upstream.close()


async def test_another_file_is_another_credential(mux, origin):
    await mux.start()
    other = mux.directory / "other.json"
    claude_file(other, access="Nc0jPs5Dy1Ft7hGu3Za", refresh=None, ends=None)
    mux.configure(providers=[claude(origin, credentials=str(other))])
    await mux.reload()
    assert (await mux.ask()).status == 200
    key = mux.directory / "key"
    key.touch(0o600)
    key.write_text("sk-ant-api03-Vt3Xw1Lp9Kf6Qz8Bd5")
    mux.configure(providers=[claude(origin, api_key_file=str(key))])
    await mux.reload()
    assert (await mux.ask()).status == 200
    mux.configure(providers=[claude(origin)])
    await mux.reload()
    assert (await mux.ask()).status == 200
    sent = [(one.get(b"authorization"), one.get(b"x-api-key")) for one in origin.asked]
    assert sent == [
        (b"Bearer Nc0jPs5Dy1Ft7hGu3Za", None),
        (None, b"sk-ant-api03-Vt3Xw1Lp9Kf6Qz8Bd5"),
        (f"Bearer {ACCESS}".encode(), None),
    ]


async def test_times_and_sizes_are_those_of_the_configuration_under_which_a_request_began(mux):
    provider = Upstream()
    url = f"http://127.0.0.1:{provider.port}"
    mux.configure(providers=[{"name": "claude", "base_url": url}], request_timeout="5s")
    await mux.start()
    before = await Wire.to(mux.port)
    await before.send(request("POST /claude/v1/messages"))
    held = await provider.accept()
    await held.message()
    mux.configure(providers=[{"name": "claude", "base_url": url}], request_timeout="100s")
    await mux.reload()
    after = await Wire.to(mux.port)
    await after.send(request("POST /claude/v1/messages"))
    other = await provider.accept()
    await other.message()
    mux.clock.pass_s(6)
    mux.app.server.sweep(mux.clock.monotonic())
    assert (await before.message()).status == 504
    await other.send(ok())
    assert (await after.message()).status == 200
    before.close()
    after.close()
    await provider.close()


async def test_the_log_level_is_taken_over(mux, origin):
    await mux.start()
    for level, shown in (("error", False), ("info", True)):
        mux.configure(providers=[claude(origin)], log_level=level)
        await mux.reload()
        before = len(await mux.events("request.done"))
        await mux.ask()
        assert (len(await mux.events("request.done")) > before) is shown


async def test_more_connections_are_taken_as_soon_as_they_may_be(mux, origin):
    mux.configure(providers=[claude(origin)], max_connections=1)
    await mux.start()
    first = await Wire.to(mux.port)
    assert (await mux.ask_over(first, "POST /claude/v1/messages")).status == 200
    second = await Wire.to(mux.port)
    await second.send(request("POST /claude/v1/messages"))
    await mux.logged("connections.full")
    mux.configure(providers=[claude(origin)], max_connections=10)
    await mux.reload()
    assert (await second.message()).status == 200
    mux.configure(providers=[claude(origin)], max_connections=1)
    await mux.reload()  # nobody is thrown out for it
    assert (await mux.ask_over(first, "POST /claude/v1/messages")).status == 200
    assert (await mux.ask_over(second, "POST /claude/v1/messages")).status == 200
    first.close()
    second.close()


async def test_without_a_configuration_file_credentials_are_read_again(mux, origin):
    await mux.start()
    (mux.state / "claude" / ".credentials.json").unlink()
    await mux.reload()
    assert (await mux.ask()).status == 503


# TLS


def certificate(directory: Path, name: str, make) -> dict[str, object]:
    key, cert = make(directory, name)
    return {"enabled": True, "cert_path": str(cert), "key_path": str(key)}


@pytest.fixture(scope="module")
def make_certificate():
    """Make a throwaway certificate with openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command to make a certificate with")

    def make(directory: Path, name: str) -> tuple[Path, Path]:
        key, cert = directory / f"{name}.key", directory / f"{name}.pem"
        command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        key.chmod(0o600)
        return key, cert

    return make


async def seen_certificate(port: int) -> tuple[str, TlsWire]:
    """Connect over TLS and return the digest of the certificate that is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = await Wire.to(port)
    wire = await TlsWire(plain.sock, context, server=False).handshake()
    shown = wire.tls.getpeercert(binary_form=True)
    assert shown is not None
    return hashlib.sha256(shown).hexdigest(), wire


async def test_a_renewed_certificate_is_shown_to_who_connects_then(mux, origin, make_certificate):
    tls = certificate(mux.directory, "first", make_certificate)
    mux.configure(providers=[claude(origin)], tls=tls)
    await mux.start()
    first, kept = await seen_certificate(mux.port)
    make_certificate(mux.directory, "first")  # in place, as an ACME client does
    still, other = await seen_certificate(mux.port)
    assert still == first
    await mux.reload()
    second, new = await seen_certificate(mux.port)
    assert second != first
    for wire in (kept, other, new):
        assert (await mux.ask_over(wire, "POST /claude/v1/messages")).status == 200
        wire.close()


async def test_tls_is_switched_on_and_off_for_who_connects_then(mux, origin, make_certificate):
    await mux.start()
    plain = await Wire.to(mux.port)
    assert (await mux.ask_over(plain, "POST /claude/v1/messages")).status == 200
    mux.configure(providers=[claude(origin)], tls=certificate(mux.directory, "c", make_certificate))
    await mux.reload()
    _, wire = await seen_certificate(mux.port)
    assert (await mux.ask_over(wire, "POST /claude/v1/messages")).status == 200
    assert mux.app.addresses == [f"https://127.0.0.1:{mux.port}"]
    with pytest.raises(Ended):
        await mux.ask()
    mux.configure(providers=[claude(origin)])
    await mux.reload()
    assert (await mux.ask()).status == 200
    for one in (plain, wire):  # began before, and go on
        assert (await mux.ask_over(one, "POST /claude/v1/messages")).status == 200
        one.close()


# What is refused


def in_its_place(make):
    """Return what removes the configuration and makes something else of it."""

    def damage(mux: Whole) -> None:
        mux.path.unlink()
        make(mux.path)

    return damage


BROKEN = {
    "vanished": (in_its_place(lambda path: None), ["cannot be read"]),
    "empty": (in_its_place(Path.touch), ["is empty"]),
    "half": (lambda mux: mux.path.write_text("{"), [":1"]),
    "UTF-16": (lambda mux: mux.path.write_bytes(b"\xff\xfe{"), ["UTF-8"]),
    "a directory": (in_its_place(Path.mkdir), ["is a directory"]),
    "a pipe": (in_its_place(os.mkfifo), ["not a regular file"]),
    "a loop": (in_its_place(lambda path: path.symlink_to(path)), ["cannot be read"]),
    "three mistakes": (
        lambda mux: mux.configure(log_level="loud", max_connections=-1, shutdown="1s"),
        ["log_level", "max_connections", "shutdown: unknown key"],
    ),
    "no certificate": (
        lambda mux: mux.configure(tls={"enabled": True, "cert_path": "/no/c", "key_path": "/no/k"}),
        ["tls.cert_path", "tls.key_path"],
    ),
    "no token file": (
        lambda mux: mux.configure(users=[{"name": "bob", "token_file": str(mux.directory / "none")}]),
        ["users[0].token_file"],
    ),
    "no users": (lambda mux: mux.configure(users=None), ["users: none are left"]),
    "empty users": (lambda mux: mux.configure(users=[]), ["users"]),
}


@pytest.mark.parametrize(("damage", "said"), list(BROKEN.values()), ids=list(BROKEN))
async def test_a_bad_configuration_changes_nothing_and_each_problem_is_a_line(mux, origin, damage, said):
    await mux.start()
    running = mux.app.server.gateway
    damage(mux)
    await mux.reload()
    lines = await mux.events("config.not_reloaded")
    assert len(lines) == len(said)
    for line, words in zip(lines, said, strict=True):
        assert (line["level"], words in line["problem"]) == ("error", True), line
        assert str(mux.path) in line["problem"]
    assert mux.app.server.gateway is running
    assert (await mux.ask()).status == 200
    if mux.path.is_dir():
        mux.path.rmdir()
    else:
        mux.path.unlink(missing_ok=True)
    mux.configure(providers=[claude(origin)], users=USERS[:1])
    await mux.reload()
    assert (await mux.ask(token=BOB)).status == 401
    assert not await mux.events("config.needs_restart")


async def test_a_configuration_that_is_wrong_at_the_very_end_changes_nothing_before_it(
    mux, origin, monkeypatch
):
    """The proxy of the environment is looked at last of all, and only then it may be wrong."""
    await mux.start()
    mux.configure(providers=[{"name": "claude", "base_url": "https://made-up.invalid"}], users=USERS[:1])
    monkeypatch.setenv("HTTPS_PROXY", "gopher://made-up")
    await mux.reload()
    (line,) = await mux.events("config.not_reloaded")
    assert "HTTPS_PROXY" in line["problem"]
    assert [(await mux.ask(token=token)).status for token in (ALICE, BOB)] == [200, 200]


async def test_a_bad_configuration_does_not_keep_credentials_from_being_read_again(mux, origin):
    await mux.start()
    mux.path.write_text("{")
    claude_file(
        mux.state / "claude" / ".credentials.json", access="Nc0jPs5Dy1Ft7hGu3Za", refresh=None, ends=None
    )
    await mux.reload()
    await mux.logged("credential.read", times=2)
    assert (await mux.ask()).status == 200
    assert origin.asked[-1].get(b"authorization") == b"Bearer Nc0jPs5Dy1Ft7hGu3Za"


class Faulty(Claude):
    """Claude, with a fault that can be switched on."""

    fault = False

    def backend(self, *, api_key):
        if self.fault:
            raise RuntimeError(CAROL)
        return super().backend(api_key=api_key)


async def test_a_bug_costs_one_reload_and_tells_nothing(tmp_path, origin):
    faulty = Faulty()
    async with whole(tmp_path, origins=[origin], providers={"claude": faulty}) as mux:
        mux.secrets += [CAROL]
        claude_file(mux.state / "claude" / ".credentials.json", access=ACCESS, refresh=None, ends=None)
        mux.configure(providers=[claude(origin)])
        await mux.start()
        mux.configure(providers=[claude(origin)], users=USERS[:1])
        faulty.fault = True
        await mux.reload()
        (line,) = await mux.events("config.not_reloaded")
        assert "RuntimeError" in line["problem"]
        assert (await mux.ask(token=BOB)).status == 200
        faulty.fault = False
        await mux.reload()
        assert (await mux.ask(token=BOB)).status == 401


async def test_what_needs_a_restart_is_told_and_the_rest_is_taken_over(mux, origin):
    await mux.start()
    other = mux.directory / "elsewhere"
    for _ in range(2):  # told again: it is still so
        mux.configure(providers=[claude(origin)], users=USERS[:1], listen="127.0.0.1:1", state_dir=str(other))
        await mux.reload()
    lines = await mux.events("config.needs_restart")
    assert [line["keys"] for line in lines] == [["listen", "state_dir"]] * 2
    assert lines[0]["level"] == "warn"
    assert [(await mux.ask(token=token)).status for token in (ALICE, BOB)] == [200, 401]
    assert not other.exists()
    mux.configure(providers=[claude(origin)])
    await mux.reload()
    assert len(await mux.events("config.needs_restart")) == 2


async def test_the_socket_of_the_start_is_served_and_removed_whatever_listen_says_now(mux, origin):
    first, other = mux.directory / "first.sock", mux.directory / "other.sock"
    mux.configure(providers=[claude(origin)], listen=f"unix:{first}")
    await mux.start()
    other.touch()
    mux.configure(providers=[claude(origin)], listen=f"unix:{other}")
    await mux.reload()
    reader, writer = await asyncio.open_unix_connection(first)
    writer.write(request("POST /claude/v1/messages"))
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    await mux.app.stop()
    assert (first.exists(), other.exists()) == (False, True)


async def test_a_server_without_users_may_stay_so(mux, origin):
    mux.configure(providers=[claude(origin)], users=None)
    await mux.start()
    mux.configure(providers=[claude(origin)], users=None, max_body_size=1)
    await mux.reload()
    assert (await mux.ask()).status == 413
    mux.configure(providers=[claude(origin)])
    await mux.reload()
    assert (await mux.ask(token=CAROL)).status == 401


# Renewals


def renewable(mux: Whole, *, left_s: float) -> Path:
    path = mux.state / "claude" / ".credentials.json"
    claude_file(path, access=ACCESS, refresh=REFRESH, ends=mux.clock.wall + left_s)
    return path


async def test_a_renewal_outlives_its_provider_s_removal_and_is_shared_when_it_comes_back(mux, origin):
    path = renewable(mux, left_s=-5)
    async with TokenEndpoint(REFRESH) as endpoint:
        endpoint.gate.clear()
        one = claude(origin, token_url=endpoint.url)
        mux.configure(providers=[one])
        await mux.start()
        waiting = asyncio.create_task(mux.ask())
        await endpoint.arrived.wait()
        (renewer,) = mux.app._assembly.renewers.values()
        mux.configure(providers=[])
        await mux.reload()
        mux.configure(providers=[one])
        await mux.reload()
        assert list(mux.app._assembly.renewers.values()) == [renewer]
        again = asyncio.create_task(mux.ask())
        await eventually(lambda: mux.app.server.requests == 2, what="the second waits too")
        endpoint.gate.set()
        assert (await waiting).status == (await again).status == 200
        assert endpoint.spent == [REFRESH]
        assert tokens_of(path) == ("access-1", "refresh-1")


async def test_the_end_waits_for_the_renewal_of_a_provider_that_was_removed(mux, origin):
    path = renewable(mux, left_s=-5)
    async with TokenEndpoint(REFRESH) as endpoint:
        endpoint.gate.clear()
        mux.configure(providers=[claude(origin, token_url=endpoint.url)])
        await mux.start()
        asking = asyncio.create_task(mux.ask())
        await endpoint.arrived.wait()
        asking.cancel()
        mux.configure(providers=[])
        await mux.reload()
        stopping = asyncio.create_task(mux.app.stop())
        await mux.logged("stopping")
        endpoint.gate.set()
        await stopping
        assert tokens_of(path) == ("access-1", "refresh-1")


async def test_a_token_that_could_not_be_saved_is_saved_although_its_provider_is_gone(mux, origin):
    """The directory is away while the token comes: nobody asks for it any more, and it must not be lost."""
    path = renewable(mux, left_s=-5)
    async with TokenEndpoint(REFRESH) as endpoint:
        endpoint.gate.clear()
        mux.configure(providers=[claude(origin, token_url=endpoint.url)])
        await mux.start()
        asking = asyncio.create_task(mux.ask())
        await endpoint.arrived.wait()
        mux.configure(providers=[])
        await mux.reload()
        away = path.parent.rename(path.parent.with_name("away"))
        path.parent.touch()  # no directory can be made in its place
        endpoint.gate.set()
        await mux.logged("credential.not_saved")
        path.parent.unlink()
        away.rename(path.parent)
        mux.clock.pass_s(61)
        await eventually(lambda: tokens_of(path) == ("access-1", "refresh-1"), what="the token is saved")
        assert (await asking).status == 200


async def test_a_hanging_renewal_does_not_hold_up_the_next_configuration(mux, origin):
    renewable(mux, left_s=-5)
    async with TokenEndpoint(REFRESH) as endpoint:
        endpoint.gate.clear()
        mux.configure(providers=[claude(origin, token_url=endpoint.url)])
        await mux.start()
        await mux.reload()
        await endpoint.arrived.wait()
        mux.configure(providers=[claude(origin, token_url=endpoint.url)], users=USERS[:1])
        await mux.reload()
        assert (await mux.ask(token=BOB)).status == 401
        endpoint.gate.set()
        assert (await mux.ask()).status == 200


async def test_another_token_url_and_interval_count_from_the_next_renewal_on(mux, origin):
    """A token of eight hours, and a look once a day: by the old interval it would end unseen."""
    renewable(mux, left_s=-5)
    async with TokenEndpoint(REFRESH) as old, TokenEndpoint("refresh-1") as new:
        mux.configure(providers=[claude(origin, token_url=old.url)], refresh_check_interval="24h")
        await mux.start()
        assert (await mux.ask()).status == 200
        mux.configure(providers=[claude(origin, token_url=new.url)], refresh_check_interval="1m")
        await mux.reload()
        mux.clock.pass_s(28800 - 250)  # five minutes are the least
        await eventually(lambda: new.spent, what="it renews by itself, at the new endpoint")
        assert old.spent == [REFRESH]
        assert new.spent == ["refresh-1"]


# What is left behind


async def test_two_hundred_reloads_leave_nothing_behind(mux, origin):
    roots = str(Path(__file__).with_name("test_config_tls.pem"))
    providers = [claude(origin), {"name": "chatgpt", "base_url": "https://localhost:1", "ca_file": roots}]
    mux.configure(providers=providers)
    await mux.start()
    wire = await Wire.to(mux.port)
    kinds = (Gateway, Route, Destination, Target, ssl.SSLContext)

    def counted() -> dict[str, int]:
        gc.collect()
        return {kind.__name__: sum(type(one) is kind for one in gc.get_objects()) for kind in kinds}

    await mux.reload()
    before, tasks = counted(), len(asyncio.all_tasks())
    for number in range(200):
        mux.configure(providers=providers, max_body_size=100 + number)
        await mux.reload()
        if not number % 10:
            assert (await mux.ask_over(wire, "POST /claude/v1/messages")).status == 200
    assert len(mux.app._assembly.renewers) == 2
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, what="tasks are left")
    mux.app.server.sweep(mux.clock.monotonic())
    wire.close()
    await eventually(lambda: not mux.app.server.connections, what="the client is gone")
    await eventually(lambda: counted() == before, what=lambda: f"{counted()} instead of {before}")


async def test_connections_to_where_nobody_goes_any_more_are_closed_at_once_or_after_their_request(
    mux, origin
):
    provider = Upstream()
    mux.configure(providers=[{"name": "claude", "base_url": f"http://127.0.0.1:{provider.port}"}])
    await mux.start()
    clients = [await Wire.to(mux.port) for _ in range(2)]
    ends = []
    for client in clients:
        await client.send(request("POST /claude/v1/messages"))
        ends.append(await provider.accept())
        await ends[-1].message()
    await ends[0].send(ok())
    assert (await clients[0].message()).status == 200
    assert mux.app.server.pool.idle_count == 1
    mux.configure(providers=[claude(origin)])
    await mux.reload()
    assert mux.app.server.pool.idle_count == 0
    await ends[0].end()
    await ends[1].send(ok())
    assert (await clients[1].message()).status == 200
    await ends[1].end()
    assert (await mux.ask()).status == 200
    assert mux.app.server.pool.idle_count == 1  # that one may serve again
    for client in clients:
        client.close()
    await provider.close()


async def test_a_storm_ends_in_the_last_configuration_and_few_reloads(mux, origin):
    await mux.start()
    for number in range(500):
        mux.configure(providers=[claude(origin)], max_body_size=1000 + number)
        mux.app.reload()
        await asyncio.sleep(0)
    await eventually(mux.app._reloading.done, what="the storm is over")
    assert mux.app.server.gateway.max_body_size == 1499
    assert 1 <= len(await mux.events("config.reloaded")) <= 500
    for _ in range(500):
        mux.app.reload()
    before = len(await mux.events("config.reloaded"))
    await eventually(mux.app._reloading.done, what="the storm is over")
    assert len(await mux.events("config.reloaded")) - before <= 2


async def test_a_reload_that_meets_the_end_changes_nothing(mux):
    provider = Upstream()
    mux.configure(providers=[{"name": "claude", "base_url": f"http://127.0.0.1:{provider.port}"}])
    await mux.start()
    client = await Wire.to(mux.port)
    await client.send(request("POST /claude/v1/messages"))
    upstream = await provider.accept()
    await upstream.message()
    running = mux.app.server.gateway
    mux.configure(providers=[], users=USERS[:1])
    mux.app.reload()
    mux.app.ask_to_stop()
    stopping = asyncio.create_task(mux.app.stop())
    await eventually(mux.app._reloading.done, what="the reload ends while the request goes on")
    mux.app.reload()
    assert mux.app._reloading.done()
    assert mux.app.server.gateway is running
    await upstream.send(ok())
    assert (await client.message()).status == 200
    client.close()
    await stopping
    assert not await mux.events("config.reloaded", "config.not_reloaded")
    await provider.close()
