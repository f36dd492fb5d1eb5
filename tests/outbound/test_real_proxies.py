"""Traffic through proxies as people run them: every kind, to plain and TLS providers."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from engine.harness import Gate, get, ok, post
from engine.wires import TlsWire, eventually

from ai_mux.outbound import parse_proxy

SCHEMES = ["http", "https", "socks5", "socks5h"]


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system's roots be the test's own."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


def provider_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def gate_through(opened, url: str, certificate: Path, *, tls: bool) -> Gate:
    more = {"upstream_tls": provider_tls(certificate), "trust": certificate} if tls else {}
    return await opened(via=parse_proxy(url), **more)


async def failure(gate: Gate) -> str:
    """Return the one line that tells the operator why, once it is written."""

    def lines() -> list[str]:
        return [line for line in b"".join(gate.lines).decode().splitlines() if "upstream.failed" in line]

    await eventually(lines, what="nothing is logged")
    assert len(lines()) == 1
    return lines()[0]


async def assert_unseen(gate: Gate) -> None:
    """No credential of the proxy stands in the log."""
    await gate.close()
    logged = b"".join(gate.lines)
    assert b"request." in logged
    assert b"invented" not in logged


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("credentials", [False, True], ids=["open", "credentials"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_requests_go_through_and_nothing_of_the_proxy_s_is_added(
    opened, real, certificate, scheme, credentials, tls
):
    proxy = real(scheme, credentials=credentials)
    gate = await gate_through(opened, proxy.url, certificate, tls=tls)
    client, provider = await gate.ask(post(b"hello"))
    seen = await provider.message()
    assert seen.body == b"hello"
    assert [name for name, _ in seen.fields if name.lower().startswith((b"proxy", b"via", b"x-"))] == []
    if isinstance(provider, TlsWire):
        assert provider.tls.selected_alpn_protocol() == "http/1.1"
    await provider.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.until(b"\r\n\r\n")
    for piece in (b"5\r\nhe", b"llo", b"\r\n", b"0\r\n\r\n"):
        await provider.send(piece)
        assert await client.exactly(len(piece)) == piece
    await client.send(get())
    await provider.message()  # over the same connection
    await provider.send(ok(b"again"))
    assert (await client.message()).body == b"again"
    await eventually(lambda: proxy.connected(gate.upstream.port), what="the proxy has not logged it")
    await assert_unseen(gate)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_websocket_goes_through_as_well(opened, real, certificate, scheme):
    proxy = real(scheme, credentials=True)
    gate = await gate_through(opened, proxy.url, certificate, tls=True)
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    asked = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bWFkZS11cC0xNi1ieXRlcw==\r\n"
    client, provider = await gate.ask(get(b"/chatgpt/v1/responses", fields=upgrade + asked))
    await provider.message()
    await provider.send(
        b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"Sec-WebSocket-Accept: x\r\n\r\n"
    )
    assert (await client.message()).status == 101
    for _ in range(3):
        await client.send(b"\x81\x83\x00\x00\x00\x00abc")
        assert await provider.exactly(9) == b"\x81\x83\x00\x00\x00\x00abc"
        await provider.send(b"\x81\x03def")
        assert await client.exactly(5) == b"\x81\x03def"
    client.close()
    assert await provider.end()


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_megabytes_arrive_whole_in_both_directions(opened, real, certificate, scheme):
    proxy = real(scheme, credentials=True)
    gate = await gate_through(opened, proxy.url, certificate, tls=True)
    body = bytes(range(250)) * 12_000
    client = await gate.client()
    await client.send(post(body)[: -len(body)])
    provider = await gate.upstream.accept()
    await provider.until(b"\r\n\r\n")
    for begin in range(0, len(body), 500_000):
        await client.send(body[begin : begin + 500_000])
        assert await provider.exactly(500_000) == body[begin : begin + 500_000]
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    await client.until(b"\r\n\r\n")
    for begin in range(0, len(body), 500_000):
        await provider.send(body[begin : begin + 500_000])
        assert await client.exactly(500_000) == body[begin : begin + 500_000]


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_who_leaves_is_noticed_through_the_proxy(opened, real, certificate, scheme, leave):
    proxy = real(scheme, credentials=False)
    gate = await gate_through(opened, proxy.url, certificate, tls=True)
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
    await client.until(b"hello")
    getattr(client, leave)()
    assert await provider.end()
    await gate.at_rest()
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
    await client.until(b"hello")
    getattr(provider, leave)()
    assert (await client.end()).got == b""
    await gate.at_rest()


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_wrong_credentials_are_a_502_and_the_provider_is_not_reached(opened, real, certificate, scheme):
    proxy = real(scheme, credentials=True)
    for url in (proxy.url_without, proxy.url.replace("invented-pass", "invented-other")):
        gate = await gate_through(opened, url, certificate, tls=True)
        client = await gate.client()
        await client.send(get())
        answer = await client.message()
        assert answer.status == 502
        assert b"localhost" not in answer.body
        assert await gate.upstream.nobody_comes()
        told = await failure(gate)
        assert f"the proxy localhost:{proxy.url.rpartition(':')[2]} " in told
        assert "credentials" in told
        await assert_unseen(gate)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_provider_that_refuses_the_proxy_is_a_502(opened, real, certificate, scheme):
    gate = await gate_through(opened, real(scheme, credentials=False).url, certificate, tls=True)
    gate.upstream.refuse_connections()
    client = await gate.client()
    await client.send(get())
    assert (await client.message()).status == 502
    assert "the proxy localhost:" in await failure(gate)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_provider_behind_a_proxy_is_verified_as_without_one(opened, real, certificate, scheme):
    gate = await gate_through(opened, real(scheme, credentials=False).url, certificate, tls=True)
    for route in gate.server.gateway.routes.values():
        object.__setattr__(route.login.origin, "host", "127.1")  # 127.0.0.1, not in the certificate
    client = await gate.client()
    await client.send(get())
    shaking = asyncio.ensure_future(gate.upstream.accept())
    assert (await client.message()).status == 502
    assert "TLS through the proxy" in await failure(gate)
    shaking.cancel()
    await asyncio.gather(shaking, return_exceptions=True)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_proxy_that_is_not_there_is_a_502_and_nothing_goes_around_it(opened, certificate, scheme):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connecting is refused
        url = f"{scheme}://invented-user:invented@127.0.0.1:{taken.getsockname()[1]}"
        gate = await gate_through(opened, url, certificate, tls=True)
        client = await gate.client()
        await client.send(get())
        assert (await client.message()).status == 502
        assert "cannot be reached" in await failure(gate)
        assert await gate.upstream.nobody_comes()
        await assert_unseen(gate)
