"""Proxies that refuse, hang, lie, leave or babble: each a clear 502, and nothing left behind."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from engine.conftest import _ENGINE_OF
from engine.harness import FIRST, Gate, get, ok, post
from engine.upstream import Upstream
from engine.wires import TlsWire, Wire, eventually, turns
from hypothesis import given
from hypothesis import strategies as st
from outbound.conversations import (
    BY_PASSWORD,
    CONNECTED,
    ESTABLISHED,
    GRANTED,
    NO_CREDENTIALS,
    Tunnel,
    agree,
    order,
)

from ai_mux.outbound import ProxyFailed, parse_proxy
from ai_mux.outbound.connect import Target, Transports, connect
from ai_mux.proxy import sockets
from ai_mux.proxy.engine import Engine
from ai_mux.proxy.routes import Origin

CREDENTIALS = "invented-user:invented-p%40ss"
BASIC = b"Proxy-Authorization: Basic aW52ZW50ZWQtdXNlcjppbnZlbnRlZC1wQHNz\r\n"
SCHEMES = ["http", "https", "socks5", "socks5h"]

Between = Callable[..., Awaitable[tuple[Gate, Upstream]]]


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
async def between(opened, certificate: Path) -> AsyncIterator[Between]:
    """Open a gate that goes through a proxy which the test plays, to a TLS provider."""
    proxies: list[Upstream] = []

    async def open_between(
        scheme: str, *, credentials: bool = True, tls: bool = True
    ) -> tuple[Gate, Upstream]:
        proxy = Upstream(tls=server_context(certificate) if scheme == "https" else None)
        proxies.append(proxy)
        url = f"{scheme}://{CREDENTIALS + '@' if credentials else ''}localhost:{proxy.port}"
        more = {"upstream_tls": server_context(certificate), "trust": certificate} if tls else {}
        return await opened(via=parse_proxy(url), **more), proxy

    yield open_between
    for proxy in proxies:
        await proxy.close()


async def refused(gate: Gate, client: Wire) -> str:
    """Return why the operator is told that the request failed; the client is told nothing of a proxy."""
    answer = await client.message()
    assert answer.status == 502
    assert answer.get(b"x-should-retry") == b"true"
    assert b"proxy" not in answer.body
    assert await gate.upstream.nobody_comes()
    await gate.at_rest()
    await gate.close()
    logged = b"".join(gate.lines).decode()
    assert "invented" not in logged
    assert "JUNK" not in logged
    told = [line for line in logged.splitlines() if "upstream.failed" in line]
    assert len(told) == 1
    return told[0].partition('"problem":"connecting: ')[2]


# What is said


async def test_an_http_proxy_is_told_target_and_credentials_and_nothing_else(between):
    gate, proxy = await between("http")
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    target = b"localhost:%d" % gate.upstream.port
    assert await wire.until(b"\r\n\r\n") == (
        b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, BASIC)
    )
    client.close()


@pytest.mark.parametrize(("scheme", "host"), [("socks5", None), ("socks5h", b"localhost")])
async def test_socks5_is_told_an_address_and_socks5h_the_name(between, scheme, host):
    gate, proxy = await between(scheme)
    client = await gate.client()
    await client.send(get())
    told = await agree(await proxy.accept(), scheme)
    assert told == b"\x01\x0dinvented-user\x0dinvented-p@ss" + order(host, gate.upstream.port)
    client.close()


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_an_ipv6_target_is_told_as_such(certificate, scheme):
    async def play(proxy: Upstream) -> bytes:
        wire = await proxy.accept()
        told = await agree(wire, scheme)
        wire.close()
        return told

    proxy = Upstream(tls=server_context(certificate) if scheme == "https" else None)
    playing = asyncio.ensure_future(play(proxy))
    url = f"{scheme}://localhost:{proxy.port}"
    with pytest.raises(ProxyFailed):
        await through(url, certificate, host="2001:db8::1", port=443)
    expected = {"http": b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n"}
    socks = b"\x05\x01\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x01\xbb"
    assert await playing == expected.get(scheme.removesuffix("s"), socks)
    await proxy.close()


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_neither_side_hears_what_is_for_the_other(between, scheme):
    """The provider's credential is never in clear before a proxy; the proxy's never reaches the provider."""
    gate, proxy = await between(scheme)
    client = await gate.client()
    await client.send(post(b"private"))
    wire = await proxy.accept()
    told = await agree(wire, scheme)
    async with Tunnel(wire, gate.upstream.port) as tunnel:
        provider = await gate.upstream.accept()
        assert isinstance(provider, TlsWire)
        seen = await provider.message()
        await provider.send(ok())
        assert (await client.message()).status == 200
    assert FIRST.encode() in seen.raw_head
    assert b"proxy" not in seen.raw_head.lower()
    assert b"invented" not in seen.raw_head + seen.body
    for secret in (FIRST.encode(), b"private", b"/v1/messages"):
        assert secret not in told + tunnel.up


# What is answered

NOT_ACCEPTED = "does not accept the credentials"
NO_HTTP_PROXY = "answers, and not as an HTTP proxy does"
NEVER_HTTP = [
    b"JUNK\r\n\r\n",
    b"\r\n\r\n",
    b"SSH-2.0-JUNK\r\n",
    b"\x05\x00",
    b"HTTP/2 200 JUNK\r\n\r\n",
    b"HTTP/1.1 20 JUNK\r\n\r\n",
    b"HTTP/1.1 2000 JUNK\r\n\r\n",
    b"HTTP/1.1 +20 JUNK\r\n\r\n",
    b"HTTP/1.1  200 JUNK\r\n\r\n",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 \xb2\xb0\xb0 JUNK\r\n\r\n",
    b"HTTP/1.1 200\nJUNK\r\n\r\n",
    b"http/1.1 200 JUNK\r\n\r\n",
]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("answered", "told"),
    [
        (
            b"HTTP/1.1 407 JUNK\r\nProxy-Authenticate: Basic realm=JUNK\r\n\r\n",
            "does not accept the credentials (HTTP status 407)",
        ),
        (
            b"HTTP/1.0 401 JUNK\r\n\r\nJUNK" + b"x" * 100_000,
            "does not accept the credentials (HTTP status 401)",
        ),
        (b"HTTP/1.1 403 JUNK\r\n\r\n", "refuses to connect (HTTP status 403)"),
        (b"HTTP/1.1 502 JUNK\r\nContent-Length: 9\r\n\r\nJUNK", "did not connect (HTTP status 502)"),
        (b"HTTP/1.1 302\r\nLocation: http://JUNK\r\n\r\n", "did not connect (HTTP status 302)"),
        (b"HTTP/1.1 100 JUNK\r\n\r\nHTTP/1.1 503 JUNK\r\n\r\n", "did not connect (HTTP status 503)"),
        (b"HTTP/1.1 200 OK\r\n\r\nJUNK", "sent more than its answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"JUNK" * 10_000, "answers with more than 16384 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nX: " + b"JUNK" * 10_000 + b"\r\n\r\n",
            "answers, and not as an HTTP proxy does",
        ),
        *((junk, "answers, and not as an HTTP proxy does") for junk in NEVER_HTTP),
    ],
)
async def test_an_http_proxy_that_does_not_connect_is_a_502(between, scheme, answered, told):
    gate, proxy = await between(scheme)
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    await wire.until(b"\r\n\r\n")
    await wire.send(answered)
    where = f"the proxy localhost:{proxy.port}"
    assert (await refused(gate, client)).startswith(f"{where} {told}")
    assert await wire.end()


@pytest.mark.parametrize("more", [b"JUNK", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJUNK"])
async def test_a_proxy_that_speaks_for_a_plain_provider_is_a_502(between, more):
    """Nobody was asked anything yet, so nothing of this is an answer."""
    gate, proxy = await between("http", tls=False)
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    await wire.until(b"\r\n\r\n")
    await wire.send(ESTABLISHED + more)
    assert f"the proxy localhost:{proxy.port} sent more than its answer" in await refused(gate, client)


async def test_an_http_proxy_that_wants_credentials_where_there_are_none_is_a_502(between):
    gate, proxy = await between("http", credentials=False)
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    assert b"Authorization" not in await wire.until(b"\r\n\r\n")
    await wire.send(b"HTTP/1.1 407 X\r\n\r\n")
    assert "wants credentials (HTTP status 407)" in await refused(gate, client)


SOCKS_ANSWERS = [
    ((b"\x05\xff",), "does not speak SOCKS 5, or does not accept the credentials"),
    ((b"\x05\x01",), "does not speak SOCKS 5"),
    ((b"\x04\x5a",), "does not speak SOCKS 5"),
    ((b"HTTP/1.1 400 JUNK\r\n\r\n",), "does not speak SOCKS 5"),
    ((BY_PASSWORD, b"\x01\x01"), "does not speak SOCKS 5, or does not accept the credentials"),
    ((BY_PASSWORD, b"\x05\x00"), "does not speak SOCKS 5"),
    *(
        ((NO_CREDENTIALS, bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])), told)
        for code, told in enumerate(
            [
                "failed to connect",
                "refuses to connect",
                "finds no network to the target",
                "cannot reach the target",
                "was refused by the target",
                "cannot reach the target in time",
                "does not know how to connect",
                "does not take such an address",
                "does not speak SOCKS 5",
            ],
            start=1,
        )
    ),
    ((NO_CREDENTIALS, b"\x04" + CONNECTED[1:]), "does not speak SOCKS 5"),
    ((NO_CREDENTIALS, b"\x05\x00\x01\x01" + bytes(6)), "does not speak SOCKS 5"),
    ((NO_CREDENTIALS, b"\x05\x00\x00\x09" + bytes(6)), "does not speak SOCKS 5"),
    ((NO_CREDENTIALS, b"\x05\x00\x00\x03\x04\xffJUN\x00\x50"), "does not speak SOCKS 5"),
    ((BY_PASSWORD, GRANTED, b"\x05\xff\x00\x01" + bytes(6)), "does not speak SOCKS 5"),
]


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize(("answers", "told"), SOCKS_ANSWERS)
async def test_a_socks_proxy_that_does_not_connect_is_a_502(between, scheme, answers, told):
    gate, proxy = await between(scheme)
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    for answered in answers:
        await wire.some()
        await wire.send(answered)
    assert (await refused(gate, client)).startswith(f"the proxy localhost:{proxy.port} {told}")


async def test_a_socks_proxy_that_wants_credentials_where_there_are_none_is_a_502(between):
    gate, proxy = await between("socks5h", credentials=False)
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    assert await wire.exactly(3) == b"\x05\x01\x00"
    await wire.send(b"\x05\xff")
    assert "does not speak SOCKS 5, or wants credentials" in await refused(gate, client)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("answered", [0, 1, 9])
async def test_a_proxy_that_leaves_in_the_middle_is_a_502(between, scheme, leave, answered):
    gate, proxy = await between(scheme)
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    await wire.some()
    await wire.send((ESTABLISHED if scheme.startswith("http") else BY_PASSWORD)[:answered])
    await turns(3)
    getattr(wire, leave)()
    assert f"the proxy localhost:{proxy.port} " in await refused(gate, client)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("sent", [b"", b"JUNK" * 100, b"\x15\x03\x03\x00\x02\x02\x28"])
async def test_a_proxy_that_breaks_the_provider_s_tls_is_a_502(between, scheme, sent):
    """Behind every good handshake: an end, junk, or an alert, where the provider should speak."""
    gate, proxy = await between(scheme)
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    await agree(wire, scheme)
    await wire.some()
    await wire.send(sent)
    wire.close()
    assert f"TLS through the proxy localhost:{proxy.port} failed: " in await refused(gate, client)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_an_answer_may_come_byte_by_byte(between, scheme):
    gate, proxy = await between(scheme)
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    told = await wire.some()
    answers = [b"HTTP/1.1 199 Wait\r\n\r\nHTTP/1.1 204 \r\nX: y\r\n\r\n"]
    if scheme.startswith("socks"):
        answers = [BY_PASSWORD, GRANTED, b"\x05\x00\x00\x03\x04name\x00\x50"]
    for number, answered in enumerate(answers):
        await wire.send_slowly(answered, list(range(len(answered))))
        if number + 1 < len(answers):
            told += await wire.some()
    async with Tunnel(wire, gate.upstream.port):
        provider = await gate.upstream.accept()
        await provider.message()
        await provider.send(ok(b"arrived"))
        assert (await client.message()).body == b"arrived"


@given(junk=st.binary(max_size=40), scheme=st.sampled_from(["http", "socks5h"]))
def test_any_answer_is_understood_or_refused(junk, scheme):
    async def play() -> None:
        proxy = Upstream()

        async def answer(wire: Wire) -> None:
            await wire.some()
            await wire.send(junk)

        proxy.serve(answer)
        try:
            protocol = asyncio.Protocol()
            with pytest.raises(ProxyFailed) as caught:
                await connect(
                    Target(host="target.example", port=1, tls=None),
                    protocol,
                    via=parse_proxy(f"{scheme}://{CREDENTIALS}@127.0.0.1:{proxy.port}"),
                    transports=Transports.of_loop(),
                    timeout_s=10,
                )
            assert str(caught.value).startswith(f"the proxy 127.0.0.1:{proxy.port} ")
        finally:
            await proxy.close()

    asyncio.run(play())


# Time, and leaving


async def through(
    url: str, certificate: Path, *, host: str = "localhost", port: int = 9, timeout_s: float = 10
):
    """Connect to a target that nobody asks for, with the engine under test."""
    engine = Engine(_ENGINE_OF[asyncio.get_running_loop()])
    origin = Origin(host=host, port=port, tls=sockets.client_tls(certificate), via=parse_proxy(url))
    return await engine.connect(origin, asyncio.Protocol(), timeout_s=timeout_s)


async def silent(wire: Wire, scheme: str, until: str) -> None:
    """Play a proxy up to a point, and then no more."""
    if until == "tls":
        await agree(wire, scheme)
    else:
        await wire.some()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("until", ["handshake", "answer", "tls"])
@pytest.mark.usefixtures("opened")  # which looks for descriptors that are left
async def test_a_proxy_that_says_nothing_ends_with_the_deadline(certificate, scheme, until):
    proxy = Upstream(tls=server_context(certificate) if scheme == "https" and until != "handshake" else None)
    connecting = asyncio.ensure_future(
        through(f"{scheme}://{CREDENTIALS}@localhost:{proxy.port}", certificate, timeout_s=0.3)
    )
    wire = await proxy.accept()
    await silent(wire, scheme, until)
    with pytest.raises(TimeoutError) as caught:
        await connecting
    assert str(caught.value) == f"the proxy localhost:{proxy.port} led nowhere within 0.3 s"
    await wire.end()  # the connection is gone at this side as well
    await proxy.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("until", ["answer", "tls"])
async def test_a_client_that_leaves_meanwhile_ends_it(between, scheme, until):
    """Point 3: also while connecting through a proxy."""
    gate, proxy = await between(scheme)
    client = await gate.client()
    await client.send(post(b"hello"))
    wire = await proxy.accept()
    await silent(wire, scheme, until)
    client.reset()
    assert await wire.end()
    await gate.at_rest()
    assert await gate.upstream.nobody_comes()


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_server_that_ends_meanwhile_leaves_nothing(between, scheme):
    gate, proxy = await between(scheme)
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    await silent(wire, scheme, "tls")
    await gate.close()
    assert await wire.end()


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_connections_through_a_proxy_are_kept_and_end_with_it(between, scheme):
    gate, proxy = await between(scheme)
    client = await gate.client()
    await client.send(get())
    wire = await proxy.accept()
    await agree(wire, scheme)
    async with Tunnel(wire, gate.upstream.port):
        provider = await gate.upstream.accept()
        for _ in range(2):
            await provider.message()
            await provider.send(ok())
            assert (await client.message()).status == 200
            await client.send(get())
        await provider.message()
        await provider.send(ok())
        await client.message()
        assert gate.server.pool.idle_count == 1
    await eventually(lambda: not gate.server.pool.idle_count, what="a dead connection is kept")
    assert await proxy.nobody_comes()


# An https proxy's own certificate


async def test_an_https_proxy_that_is_not_trusted_hears_nothing(between, certificate):
    gate, proxy = await between("https")
    for route in gate.server.gateway.routes.values():
        object.__setattr__(route.login.origin.via, "host", "127.1")  # 127.0.0.1, not in the certificate
    client = await gate.client()
    await client.send(get())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await (await proxy.accept()).some()
    told = await refused(gate, client)
    assert told.startswith(f"TLS with the proxy 127.1:{proxy.port} failed: ")


async def test_an_https_proxy_to_a_plain_target_is_verified_by_the_system_s_roots(
    between, certificate, monkeypatch
):
    gate, proxy = await between("https", tls=False)
    client = await gate.client()
    await client.send(get())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await (await proxy.accept()).some()
    assert "TLS with the proxy" in await refused(gate, client)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    gate, proxy = await between("https", tls=False)
    client = await gate.client()
    await client.send(get())
    assert BASIC in await agree(await proxy.accept(), "https")
    client.close()
