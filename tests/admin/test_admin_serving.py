"""Who sees what at the admin listener, and that nobody can hold it."""

import asyncio
import json
import socket
import stat
import struct

import pytest
from admin.parts import TOKEN, Parts
from engine.wires import Ended, Wire, eventually

from ai_mux.admin.serving import LONGEST_S, MOST_CONNECTIONS, MOST_STRANGERS, serve_admin
from ai_mux.config import Listen
from ai_mux.errors import ConfigError
from ai_mux.users import digest_of

BEARER = f"Authorization: Bearer {TOKEN}"
DIGEST = digest_of(TOKEN.encode())
PATHS = ["/metrics", "/status", "/healthz", "/readyz"]


@pytest.mark.parametrize("path", PATHS)
async def test_each_path_answers_get_and_head_alike(parts: Parts, path):
    await parts.credential()
    await parts.serve()
    got, head = await parts.ask(f"GET {path}"), await parts.ask(f"HEAD {path}")
    assert got.status == head.status == 200
    assert got.body
    assert head.body == b""
    assert head.get(b"content-type") == got.get(b"content-type")
    assert got.get(b"cache-control") == b"no-store"
    assert got.get(b"server") == b"ai-mux"


@pytest.mark.parametrize(
    "shown",
    [
        [],
        ["Authorization: Bearer"],
        ["Authorization: Bearer wrong-made-up-token"],
        [f"Authorization: Basic {TOKEN}"],
        [f"Authorization: Bearer {TOKEN}x"],
        [f"Authorization: Bearer {TOKEN[:-1]}"],
        [f"x-api-key: {TOKEN}"],
        [f"Authorization: {TOKEN}"],
        ["Authorization: Bearer \xff\xfe"],
        [BEARER, "Authorization: Bearer wrong-made-up-token"],
    ],
)
async def test_with_a_token_a_stranger_learns_nothing_of_any_path(parts: Parts, shown):
    await parts.serve(token_digest=DIGEST)
    answers = [await parts.ask(f"GET {path}", *shown) for path in ("/metrics", "/status", "/none", "/")]
    assert {answer.status for answer in answers} == {401}
    assert {answer.get(b"www-authenticate") for answer in answers} == {b"Bearer"}
    assert len({answer.body for answer in answers}) == 1
    assert (await parts.ask("POST /status", *shown)).status == 401


async def test_who_shows_the_token_sees_everything(parts: Parts):
    await parts.credential()
    await parts.serve(token_digest=DIGEST)
    for path in PATHS:
        assert (await parts.ask(f"GET {path}", BEARER)).status == 200
    assert (await parts.ask("GET /status", f"authorization: bEARER  {TOKEN}")).status == 200
    assert (await parts.ask("GET /status", BEARER, "Origin: https://a.example")).status == 200
    assert (await parts.ask("GET /none", BEARER)).status == 404


async def test_health_and_readiness_need_no_token(parts: Parts):
    await parts.credential()
    await parts.serve(token_digest=DIGEST)
    for path in ("/healthz", "/readyz", "/healthz?probe=1"):
        answer = await parts.ask(f"GET {path}", host="pod.example")
        assert (answer.status, answer.body) == (200, b"ok\n")


async def test_another_token_holds_from_then_on(parts: Parts):
    await parts.serve(token_digest=DIGEST)
    assert parts.server is not None
    parts.server.go_by(digest_of(b"another-made-up-token"))
    assert (await parts.ask("GET /status", BEARER)).status == 401
    assert (await parts.ask("GET /status", "Authorization: Bearer another-made-up-token")).status == 200


@pytest.mark.parametrize(
    ("host", "fields", "status"),
    [
        ("localhost", [], 200),
        ("localhost:9180", [], 200),
        ("LOCALHOST.", [], 200),
        ("admin.localhost", [], 200),
        ("127.0.0.1:9180", [], 200),
        ("[::1]:9180", [], 200),
        ("192.0.2.7", [], 200),
        ("evil.example", [], 403),
        ("localhost.evil.example", [], 403),
        ("127.0.0.1.evil.example", [], 403),
        ("", [], 403),
        ("localhost", ["Origin: https://evil.example"], 403),
        ("127.0.0.1", ["Origin: null"], 403),
    ],
)
async def test_without_a_token_no_web_page_can_look(parts: Parts, host, fields, status):
    await parts.serve()
    for path in ("/status", "/metrics"):
        assert (await parts.ask(f"GET {path}", *fields, host=host)).status == status


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "//metrics", "/%6detrics", "/status/x"])
async def test_anything_else_is_not_found(parts: Parts, path):
    await parts.serve()
    assert (await parts.ask(f"GET {path}")).status == 404


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(parts: Parts, path, method):
    await parts.serve()
    answer = await parts.ask(f"{method} {path}", "Content-Length: 5", "Expect: 100-continue")
    assert answer.status == 405
    assert answer.get(b"allow") == b"GET, HEAD"
    assert answer.get(b"connection") == b"close"


async def test_a_connection_serves_one_request_after_another(parts: Parts):
    await parts.credential()
    await parts.serve()
    wire = await Wire.to(parts.port)
    for _ in range(3):
        await wire.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await wire.message()).status == 200
    wire.close()


# Readiness


async def test_it_is_ready_as_long_as_one_provider_can_be_used(parts: Parts):
    await parts.credential("chatgpt", left_s=None)
    await parts.serve()
    before = await parts.ask("GET /readyz")
    assert (before.status, before.body) == (503, b"no provider has a usable credential\n")
    await parts.credential("claude")
    assert (await parts.ask("GET /readyz")).status == 200
    parts.proxy.draining = True
    after = await parts.ask("GET /readyz")
    assert (after.status, after.body) == (503, b"draining\n")
    assert (await parts.ask("GET /healthz")).status == 200


async def test_a_login_that_the_next_request_will_renew_is_usable(parts: Parts):
    """After a night's sleep the token has ended, and whoever comes first renews it."""
    renewer = await parts.credential(left_s=3600)
    await parts.serve()
    parts.clock.pass_s(7200)
    assert (await parts.ask("GET /readyz")).status == 200
    await renewer.check()  # nobody answers at its endpoint
    assert (await parts.ask("GET /readyz")).status == 503


async def test_without_providers_nothing_is_ready(parts: Parts):
    await parts.serve()
    answer = await parts.ask("GET /readyz")
    assert (answer.status, answer.body) == (503, b"no provider is configured\n")


# A unix socket


async def test_a_unix_socket_is_for_its_owner_and_gone_in_the_end(parts: Parts, tmp_path):
    place = tmp_path / "admin.sock"
    server = await parts.serve(path=place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    reader, writer = await asyncio.open_unix_connection(place)
    writer.write(b"GET /status HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["version"] == "1.2.3"
    await server.stop()
    assert not place.exists()
    parts.server = None


async def test_an_address_that_is_taken_is_an_error_that_names_the_setting(parts: Parts):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = Listen(text=f"127.0.0.1:{port}", host="127.0.0.1", port=port, path=None)
        with pytest.raises(ConfigError, match=r"admin\.listen: cannot listen on 127\.0\.0\.1"):
            await serve_admin(listen, None, parts.sources(), log=parts.log)


# Nobody holds it


async def _is_closed(wire: Wire) -> bool:
    try:
        await wire.exactly(1)
    except Ended:
        return True
    return False


@pytest.mark.parametrize(
    "sent", [b"", b"GET /sta", b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"]
)
async def test_who_sends_nothing_or_half_a_request_is_let_go(parts: Parts, sent):
    await parts.serve()
    assert parts.server is not None
    wire = await Wire.to(parts.port)
    await wire.send(sent)
    if sent.startswith(b"POST"):
        assert (await wire.message()).status == 405
    else:
        await eventually(lambda: parts.server._server._uses, what="it is connected")
        parts.server.sweep(parts.clock.monotonic() + LONGEST_S - 1)
        parts.server.sweep(parts.clock.monotonic() + LONGEST_S + 1)
    assert await _is_closed(wire)
    wire.close()


async def test_a_connection_that_asks_now_and_then_is_kept(parts: Parts):
    await parts.credential()
    await parts.serve()
    assert parts.server is not None
    wire = await Wire.to(parts.port)
    for _ in range(4):
        parts.clock.pass_s(LONGEST_S - 1)
        parts.server.sweep(parts.clock.monotonic())
        await wire.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await wire.message()).status == 200
    wire.close()


async def _connect(parts: Parts, count: int) -> list[Wire]:
    """Connect so often, one after another."""
    assert parts.server is not None
    known = parts.server._server._uses
    wires = []
    for _ in range(count):
        before = set(known)
        wires.append(await Wire.to(parts.port))
        await eventually(lambda before=before: set(known) - before, what="it is connected")
    return wires


async def _status(wire: Wire, path: str, *fields: str) -> int:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *fields]
    await wire.send("\r\n".join(lines).encode() + b"\r\n\r\n")
    return (await wire.message()).status


async def test_there_are_never_more_connections_than_so_many(parts: Parts):
    """Who has not asked for the longest makes room."""
    await parts.serve()
    assert parts.server is not None
    held = await _connect(parts, MOST_CONNECTIONS)
    assert await _status(held[0], "/healthz") == 200
    [one_more] = await _connect(parts, 1)
    assert await _is_closed(held[1])
    assert len(parts.server._server._uses) == MOST_CONNECTIONS
    for wire in (one_more, held[0], held[2]):
        assert await _status(wire, "/healthz") == 200
    for wire in [*held, one_more]:
        wire.close()


async def test_strangers_never_take_the_place_of_who_has_shown_the_token(parts: Parts):
    await parts.serve(token_digest=DIGEST)
    assert parts.server is not None
    known = await _connect(parts, 3)
    for wire in known:
        assert await _status(wire, "/status", BEARER) == 200
    strangers = await _connect(parts, MOST_CONNECTIONS + 10)
    assert len(parts.server._server._uses) == MOST_STRANGERS + len(known)
    assert await _is_closed(strangers[0])
    assert (await parts.ask("GET /status", BEARER)).status == 200
    for wire in known:
        assert await _status(wire, "/status", BEARER) == 200
    for wire in [*known, *strangers]:
        wire.close()


async def test_who_has_shown_the_token_may_have_all_connections_and_still_come_once_more(parts: Parts):
    await parts.serve(token_digest=DIGEST)
    assert parts.server is not None
    known = []
    for _ in range(MOST_CONNECTIONS):
        known += await _connect(parts, 1)
        assert await _status(known[-1], "/status", BEARER) == 200
    strangers = await _connect(parts, 5)  # which have one place together
    assert len(parts.server._server._uses) == MOST_CONNECTIONS
    assert await _is_closed(known[0])
    for wire in (*known[1:], strangers[-1]):
        assert await _status(wire, "/status", BEARER) == 200
    for wire in [*known, *strangers]:
        wire.close()


async def test_who_has_shown_a_token_that_was_replaced_is_a_stranger_again(parts: Parts):
    await parts.serve(token_digest=DIGEST)
    assert parts.server is not None
    [early] = await _connect(parts, 1)
    assert await _status(early, "/status", BEARER) == 200
    parts.server.go_by(digest_of(b"another-made-up-token"))
    strangers = await _connect(parts, MOST_STRANGERS)
    assert await _is_closed(early)
    for wire in [early, *strangers]:
        wire.close()


async def test_health_and_a_wrong_token_make_nobody_known(parts: Parts):
    await parts.serve(token_digest=DIGEST)
    assert parts.server is not None
    [healthy] = await _connect(parts, 1)
    assert await _status(healthy, "/healthz", BEARER) == 200
    strangers = await _connect(parts, MOST_STRANGERS)
    assert await _is_closed(healthy)
    for wire in [healthy, *strangers]:
        wire.close()


def _waiting_bytes(server) -> int:
    return sum(it.transport.get_write_buffer_size() for it in server._server._uses.values())


async def test_who_does_not_read_does_not_hold_the_stop(parts: Parts):
    """It asks again and again, and takes no answer: what is to be written piles up to a bound."""
    for number in range(5000):
        parts.totals._users[f"user-{number}"] = [1, 1]  # a long answer
    server = await parts.serve()
    wire = await Wire.to(parts.port, window=4096)
    await wire.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
    await eventually(lambda: _waiting_bytes(server) > 0, what="what it says is not taken")
    async with asyncio.timeout(10):
        await server.stop()
    parts.server = None
    await eventually(lambda: not server._server._uses, what="it is let go of")
    wire.close()


async def test_a_client_that_resets_in_the_middle_leaves_nothing(parts: Parts):
    await parts.serve()
    for _ in range(20):
        wire = await Wire.to(parts.port)
        await wire.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.close()
    assert (await parts.ask("GET /metrics")).status == 200


async def test_what_is_no_http_gets_an_answer_and_no_line_on_stderr(parts: Parts, capfd):
    await parts.serve()
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET /status HTTP/1.1\r\nA" + b"b" * 20_000 + b"\r\n\r\n",
    ):
        wire = await Wire.to(parts.port)
        await wire.send(sent)
        answer = await wire.message()
        assert answer.status == 400
        assert answer.get(b"server") == b"ai-mux"
        assert b"bbb" not in answer.body
        wire.close()
    assert capfd.readouterr() == ("", "")


async def test_a_bug_costs_an_answer_and_is_logged(parts: Parts):
    await parts.serve()
    del parts.proxy.connections
    answer = await parts.ask("GET /status")
    assert answer.status == 500
    assert parts.log.events("error") == ["admin.bug"]
    assert (await parts.ask("GET /healthz")).status == 200


async def test_it_tells_the_log_where_it_listens_and_not_the_token(parts: Parts):
    await parts.serve(token_digest=DIGEST)
    await parts.ask("GET /status", BEARER)
    await parts.ask("GET /status", "Authorization: Bearer wrong-made-up-token")
    assert "admin.listening" in parts.log.events("info")
    assert TOKEN not in parts.log.text()
    assert "wrong-made-up-token" not in parts.log.text()
