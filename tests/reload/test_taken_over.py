"""What a new configuration changes for the requests that begin then."""

import asyncio
import json

from engine.wires import Wire
from fakes.renewing import claude_file, write
from whole import ACCESS, ALICE, BOB, CAROL, USERS, Origin, claude, ok, request


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
