"""The configurations of the page "Behind nginx or Caddy", run as they stand there."""

import asyncio
import contextlib
import hashlib
import random
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from clients.gateway_process import TOKEN
from engine import upstream, wires
from engine.wires import Ended, eventually
from how_to.fronts import CADDY, NGINX, Edit, Site, page_block, site

from ai_mux.proxy import exchange, tunnel

pytestmark = pytest.mark.clients  # others' programs, in front of a gateway process

HOST = b"Host: localhost\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
GET = b"GET /claude/v1/models HTTP/1.1\r\n" + HOST
POST = b"POST /claude/v1/messages HTTP/1.1\r\n" + HOST
WEBSOCKET = (
    b"GET /chatgpt/v1/responses HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bWFkZS11cC0xNi1ieXRlcw==\r\n\r\n"
)
# The answer to that key (RFC 6455, 4.2.2), which a web server may well look at.
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: yTqUUXg6BCjHOcqHTNJQaoTBZBk=\r\n\r\n"
)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"

Check = Callable[[Site], Awaitable[None]]
Serve = Callable[..., Awaitable[Site]]


@pytest.fixture
async def serve(installed, tmp_path) -> AsyncIterator[Serve]:
    """Return a function that runs a site, which ends with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(front: str, edit: Edit = str, *, unix: bool = False) -> Site:
            program = installed(front)
            return await stack.enter_async_context(site(front, program, tmp_path, edit=edit, unix=unix))

        yield start


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# What the page promises


async def events_come_one_by_one(site: Site) -> None:
    client, provider = await site.ask(POST + b"Content-Length: 2\r\n\r\n{}")
    await provider.message()
    await provider.send(STREAM)
    await client.until(b"\r\n\r\n")
    for number in range(5):
        event = b'event: ping\ndata: {"number": %d}\n\n' % number
        await provider.send(chunk(event))
        assert event in await client.until(event)
    await provider.send(b"0\r\n\r\n")
    await client.until(b"0\r\n\r\n")


async def frames_pass_both_ways(site: Site) -> None:
    client, provider = await site.ask(WEBSOCKET)
    asked = await provider.message()
    assert (asked.get(b"upgrade"), asked.get(b"sec-websocket-key")) == (
        b"websocket",
        b"bWFkZS11cC0xNi1ieXRlcw==",
    )
    await provider.send(SWITCH)
    assert (await client.message()).status == 101
    for size in (5, 60_000):
        there, back = (bytes((0x81, mask | 126)) + size.to_bytes(2, "big") for mask in (0x80, 0))
        there, back = there + b"mask" + b"a" * size, back + b"b" * size
        await client.send(there)
        assert await provider.exactly(len(there)) == there
        await provider.send(back)
        assert await client.exactly(len(back)) == back
    provider.close()
    assert (await client.end()).got == b""


async def an_upload_passes_while_it_is_sent(site: Site) -> None:
    size, first = 20_000_000, 1_000_000
    body = random.Random(1).randbytes(size)
    client, provider = await site.ask(POST + b"Content-Length: %d\r\n\r\n" % size + body[:first])
    await provider.until(b"\r\n\r\n")
    arrived = hashlib.sha256(await provider.exactly(first))
    rest = asyncio.create_task(client.send(body[first:]))
    arrived.update(await provider.exactly(size - first))
    await rest
    assert arrived.digest() == hashlib.sha256(body).digest()
    await provider.send(OK)
    assert (await client.message()).body == b"fine"


async def large_heads_pass(site: Site) -> None:
    """Both ways, with a name that has an underscore."""
    long = b"a" * 12_000
    client, provider = await site.ask(GET + b"X_Made_Up: 1\r\nX-Long: %b\r\n\r\n" % long)
    asked = await provider.message()
    assert (asked.get(b"x_made_up"), asked.get(b"x-long")) == (b"1", long)
    await provider.send(OK.replace(b"\r\n\r\n", b"\r\nX-Long: %b\r\n\r\n" % long))
    answer = await client.message()
    assert (answer.status, answer.get(b"x-long"), answer.body) == (200, long, b"fine")


async def nothing_is_asked_for_or_done_in_the_clients_name(site: Site) -> None:
    """No gzip where the client named none, and no order of the provider's to the web server."""
    client, provider = await site.ask(GET + b"\r\n")
    asked = await provider.message()
    assert asked.get(b"accept-encoding") == b"identity"
    assert not [
        name for name, _ in asked.fields if name.lower().startswith((b"x-forwarded", b"x-real", b"via"))
    ]
    more = b"\r\nX-Accel-Redirect: /claude/v1/files\r\nContent-Type: application/json\r\n\r\n"
    await provider.send(OK.replace(b"\r\n\r\n", more, 1))
    answer = await client.message()
    assert (answer.status, answer.get(b"content-encoding"), answer.body) == (200, None, b"fine")


async def what_the_client_accepts_is_not_done_by_the_web_server(site: Site) -> None:
    client, provider = await site.ask(GET + b"Accept-Encoding: gzip\r\n\r\n")
    assert (await provider.message()).get(b"accept-encoding") == b"gzip"
    body = b'{"data": []}' * 100
    await provider.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    await provider.send(body)
    answer = await client.message()
    assert (answer.get(b"content-encoding"), answer.body) == (None, body)


async def an_answer_that_breaks_off_does_not_look_whole(site: Site) -> None:
    client, provider = await site.ask(POST + b"Content-Length: 2\r\n\r\n{}")
    await provider.message()
    await provider.send(STREAM + chunk(b"data: half\n\n"))
    await client.until(b"data: half\n\n")
    provider.close()
    with contextlib.suppress(Ended):
        await client.until(b"0\r\n\r\n")
        raise AssertionError("it looks whole")


async def a_client_that_leaves_ends_the_request(site: Site) -> None:
    client, provider = await site.ask(POST + b"Content-Length: 2\r\n\r\n{}")
    await provider.message()
    await provider.send(STREAM + chunk(b"data: half\n\n"))
    await client.until(b"data: half\n\n")
    client.close()
    await provider.end()


async def strangers_learn_nothing(site: Site) -> None:
    for path, status in ((b"/healthz", 200), (b"/claude/v1/models", 401), (b"/anything", 401)):
        client = await site.client()
        await client.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
        assert (await client.message()).status == status
        client.close()


async def test_an_answer_that_breaks_off_does_not_look_whole_behind_nginx(serve):
    await an_answer_that_breaks_off_does_not_look_whole(await serve(NGINX))


async def test_nor_does_it_behind_a_caddy_that_the_page_does_not_warn_of(serve, installed):
    site = await serve(CADDY)
    is_old = _version(installed(CADDY)) < (2, 7, 6)
    with pytest.raises(AssertionError) if is_old else contextlib.nullcontext():
        await an_answer_that_breaks_off_does_not_look_whole(site)


def _version(caddy: str) -> tuple[int, ...]:
    said = subprocess.run([caddy, "version"], check=True, capture_output=True, text=True, timeout=30).stdout
    return tuple(int(part) for part in re.findall(r"\d+", said)[:3])


CHECKS: list[Check] = [
    events_come_one_by_one,
    frames_pass_both_ways,
    an_upload_passes_while_it_is_sent,
    large_heads_pass,
    nothing_is_asked_for_or_done_in_the_clients_name,
    what_the_client_accepts_is_not_done_by_the_web_server,
    a_client_that_leaves_ends_the_request,
    strangers_learn_nothing,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("front", [NGINX, CADDY])
async def test_what_the_page_promises_holds(serve, front, check):
    await check(await serve(front))


@pytest.mark.parametrize(
    "check", [events_come_one_by_one, frames_pass_both_ways], ids=lambda check: check.__name__
)
@pytest.mark.parametrize("front", [NGINX, CADDY])
async def test_it_holds_over_a_unix_socket(serve, front, check):
    await check(await serve(front, unix=True))


# Without what the page says, it would not


def without(line: str) -> Edit:
    """Take a whole line out."""
    return lambda text: re.sub(rf"^\s*{re.escape(line)}.*\n", "", text, flags=re.MULTILINE)


def added(line: str) -> Edit:
    """Add a line to the configuration of a Caddy proxy."""
    return lambda text: text.replace("\t\ttransport", f"\t\t{line}\n\t\ttransport")


@pytest.mark.parametrize(
    ("front", "edit", "check"),
    [
        (NGINX, without("proxy_buffering off;"), events_come_one_by_one),
        (NGINX, without("proxy_request_buffering off;"), an_upload_passes_while_it_is_sent),
        (NGINX, without("client_max_body_size"), an_upload_passes_while_it_is_sent),
        (NGINX, without("proxy_set_header Upgrade"), frames_pass_both_ways),
        (NGINX, without("proxy_set_header Connection"), frames_pass_both_ways),
        (NGINX, without("proxy_http_version"), frames_pass_both_ways),
        (NGINX, without("proxy_buffer_size"), large_heads_pass),
        (NGINX, without("large_client_header_buffers"), large_heads_pass),
        (NGINX, without("underscores_in_headers"), large_heads_pass),
        (NGINX, without("proxy_ignore_headers"), nothing_is_asked_for_or_done_in_the_clients_name),
        (NGINX, without("gzip off;"), what_the_client_accepts_is_not_done_by_the_web_server),
        (CADDY, without("compression off"), nothing_is_asked_for_or_done_in_the_clients_name),
        (CADDY, added("buffer_responses"), events_come_one_by_one),
        (CADDY, added("buffer_requests"), an_upload_passes_while_it_is_sent),
        (CADDY, added("flush_interval -1"), a_client_that_leaves_ends_the_request),
    ],
)
async def test_what_the_page_says_is_needed(serve, front, edit, check, monkeypatch):
    for module in (wires, upstream):
        monkeypatch.setattr(module, "DEADLINE_S", 1)  # what never comes is not waited for long
    assert edit(page_block(front)) != page_block(front)
    site = await serve(front, edit)
    with pytest.raises((AssertionError, Ended, TimeoutError)):
        await check(site)


def test_nginx_waits_longer_than_ai_mux():
    (minutes,) = {
        int(found) for found in re.findall(r"proxy_(?:read|send)_timeout (\d+)m;", page_block(NGINX))
    }
    assert minutes * 60 > max(tunnel.IDLE_S, exchange._LONGEST_WAIT_S)


@pytest.mark.parametrize("filtered", [True, False])
async def test_caddys_log_shows_no_token_because_of_the_pages_filter(serve, filtered):
    """Neither a site's `log`, nor what Caddy logs of a fault without one."""

    def edit(text: str) -> str:
        text = text.replace(
            "ai-mux.example {\n", "ai-mux.example {\n\tlog\n\treverse_proxy /down/* 127.0.0.1:9\n"
        )
        return text if filtered else without("request>headers>X-Api-Key delete")(text)

    site = await serve(CADDY, edit)
    for path, status in ((b"/anything", 404), (b"/down/", 502)):
        for field in (b"Authorization: Bearer ", b"x-api-key: "):
            client = await site.client()
            head = b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b%b\r\n\r\n"
            await client.send(head % (path, field, TOKEN.encode()))
            assert (await client.message()).status == status
    await eventually(
        lambda: len(re.findall("log.error.*/down/", site.log.read_text())) == 2, what=site.log.read_text
    )
    assert (TOKEN in site.log.read_text()) is not filtered
