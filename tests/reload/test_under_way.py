"""What is under way at a reload ends as it began; a tunnel goes on for who might open it now."""

import json

import pytest
from engine.upstream import Upstream
from engine.wires import Wire
from fakes.renewing import write
from whole import ACCESS, ALICE, BOB, CAROL, USERS, Whole, claude, ok, request

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
HANDSHAKE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: bWFkZS11cC0xNi1ieXRlcw==",
)  # fmt: skip
MESSAGE, ANSWER, PING = b"\x81\x84\0\0\0\0made", b"\x81\x04more", b"\x89\x80\0\0\0\0"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


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


# Tunnels


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


async def test_field_note_24_a_tunnel_goes_on_under_any_configuration_that_would_let_it_in(mux):
    provider, client, upstream, one = await opened_tunnel(mux, ALICE)
    mux.configure(
        providers=[{**one, "headers": {"X-Team": "blue"}, "paths": ["/v1/responses"]}], users=USERS[:1]
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


@pytest.mark.parametrize("gone", ["user", "token", "provider", "path", "origin"])
async def test_a_tunnel_that_would_not_be_let_in_any_more_ends_with_its_next_message(mux, gone):
    """The answer that is under way arrives whole; who is gone cannot ask on for as long as it lasts."""
    provider, client, upstream, one = await opened_tunnel(mux, BOB)
    await client.send(MESSAGE)
    assert await upstream.exactly(len(MESSAGE)) == MESSAGE
    users = {"user": USERS[:1], "token": [USERS[0], {"name": "bob", "token": CAROL}]}.get(gone, USERS)
    elsewhere = {**one, "base_url": "http://127.0.0.1:1"}
    providers = {"provider": [], "path": [{**one, "paths": ["/v1/models"]}], "origin": [elsewhere]}.get(
        gone, [one]
    )
    mux.configure(providers=providers, users=users)
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
    status = {"user": 401, "token": 401, "provider": 404, "path": 403, "origin": 502}[gone]
    assert (await mux.ask("GET /chatgpt/v1/responses", *HANDSHAKE, token=BOB)).status == status
    client.close()
    await provider.close()
