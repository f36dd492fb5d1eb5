"""TLS on both sides: the same bytes, and the same care about ends."""

import asyncio
import ssl
from pathlib import Path

import pytest
from engine.harness import ALICE, Gate, get, ok, post
from engine.tunnels import narrow_towards_the_clients
from engine.wires import TlsWire, Wire, eventually, turns

from ai_mux.proxy import sockets


@pytest.fixture
async def tls_gate(opened, certificate: Path) -> Gate:
    """An engine that speaks TLS to its clients and to the provider."""
    server = sockets.server_tls(certificate, certificate)
    return await opened(upstream_tls=_provider_context(certificate), trust=certificate, tls_listener=server)


def _provider_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _client_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def _connected(gate: Gate, certificate: Path, request: bytes) -> tuple[TlsWire, TlsWire]:
    client = await gate.tls_client(_client_context(certificate))
    await client.send(request)
    provider = await gate.upstream.accept()
    assert isinstance(provider, TlsWire)
    return client, provider


async def test_requests_and_streams_pass_over_tls_on_both_sides(tls_gate: Gate, certificate: Path):
    client, provider = await _connected(tls_gate, certificate, post(b"hello"))
    assert (await provider.message()).body == b"hello"
    await provider.send(b"HTTP/1.1 200 OK\r\nrequest-id: r\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.until(b"\r\n\r\n")
    for piece in (b"5\r\nhe", b"llo", b"\r\n", b"0\r\n\r\n"):
        await provider.send(piece)
        assert await client.exactly(len(piece)) == piece
    await client.send(get())
    await provider.message()  # over the same connection
    await provider.send(ok(b"again"))
    assert (await client.message()).body == b"again"


async def test_http2_is_not_offered_although_the_peers_would(tls_gate: Gate, certificate: Path):
    """Field note 25 and point 9: ALPN is http/1.1, and one connection serves one request."""
    client, provider = await _connected(tls_gate, certificate, get())
    await provider.message()
    assert client.tls.selected_alpn_protocol() == "http/1.1"
    assert provider.tls.selected_alpn_protocol() == "http/1.1"
    assert client.tls.version() == "TLSv1.3"
    await provider.send(ok())
    await client.message()


@pytest.mark.parametrize("refused", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.*is deprecated")
async def test_old_tls_is_refused(tls_gate: Gate, certificate: Path, refused: ssl.TLSVersion):
    context = _client_context(certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = refused
    with pytest.raises(ssl.SSLError):
        await tls_gate.tls_client(context)


async def test_a_provider_whose_certificate_is_not_trusted_is_a_502(
    opened, certificate: Path, tmp_path: Path
):
    gate = await opened(upstream_tls=_provider_context(certificate), trust=certificate)
    for route in gate.server.gateway.routes.values():
        origin = route.login.origin
        assert origin.tls is not None
        object.__setattr__(origin, "host", "127.1")  # reaches loopback, and is no name of the certificate
    client = await gate.client()
    await client.send(get())
    shaking = asyncio.ensure_future(gate.upstream.accept())
    answer = await client.message()
    assert answer.status == 502
    assert ALICE not in answer.body
    shaking.cancel()
    await asyncio.gather(shaking, return_exceptions=True)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""])
async def test_a_client_that_does_not_shake_hands_properly_is_dropped(tls_gate: Gate, sent: bytes):
    client = await tls_gate.client()
    await client.send(sent)
    if sent:
        assert b"HTTP" not in (await client.end()).got
    else:
        client.close()
    await tls_gate.at_rest()


@pytest.mark.parametrize("leave", ["close", "reset", "end_in_order"])
async def test_a_client_that_leaves_ends_the_upstream_request(tls_gate: Gate, certificate: Path, leave: str):
    """Point 3."""
    client, provider = await _connected(tls_gate, certificate, post())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
    await client.until(b"hello")
    if leave == "end_in_order":
        await client.end_in_order()
    else:
        getattr(client, leave)()
    assert await provider.end()
    await tls_gate.at_rest()


@pytest.mark.parametrize("leave", ["close", "reset", "end_in_order"])
@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
    ids=["length", "chunked"],
)
async def test_a_cut_response_is_cut_for_the_client(
    tls_gate: Gate, certificate: Path, response: bytes, leave: str
):
    """Point 8."""
    client, provider = await _connected(tls_gate, certificate, post())
    await provider.message()
    await provider.send(response)
    await client.until(b"hello")
    if leave == "end_in_order":
        await provider.end_in_order()
    else:
        getattr(provider, leave)()
    assert b"0\r\n\r\n" not in (await client.end()).got
    await tls_gate.at_rest()


async def test_a_response_until_close_ends_in_order_where_the_provider_ended_it(
    tls_gate: Gate, certificate: Path
):
    client, provider = await _connected(tls_gate, certificate, get())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    await client.until(b"\r\n\r\n")
    await provider.end_in_order()
    ended = await client.end()
    assert ended.got == b"all of it"
    assert not ended.reset


async def test_a_response_until_close_that_is_cut_is_no_clean_end(tls_gate: Gate, certificate: Path):
    """Point 8: without close_notify nobody knows whether that was all (RFC 9112, 9.8)."""
    client, provider = await _connected(tls_gate, certificate, get())
    await provider.message()
    await provider.send(b"HTTP/1.1 200 OK\r\n\r\npart of it")
    await client.until(b"part of it")
    provider.close()
    assert (await client.end()).reset


async def test_an_early_413_reaches_a_client_that_still_uploads(tls_gate: Gate, certificate: Path):
    """Point 4."""
    client, provider = await _connected(tls_gate, certificate, post(b"x" * 100_000)[:-100_000])
    await provider.until(b"\r\n\r\n")
    await provider.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
    await client.send(b"x" * 50_000)
    assert (await client.message()).body == b"big"
    await provider.end()
    await tls_gate.later(2)
    await client.end()
    await tls_gate.at_rest()


async def test_a_refusal_reaches_a_client_before_its_body_is_read(tls_gate: Gate, certificate: Path):
    client = await tls_gate.tls_client(_client_context(certificate))
    await client.send(post(b"x" * 50_000, token=b"a-madeup-stranger"))
    assert (await client.message()).status == 401
    client.close()
    await tls_gate.at_rest()


async def test_an_upload_of_20_mb_and_a_download_of_20_mb_arrive_whole(tls_gate: Gate, certificate: Path):
    client, provider = await _connected(tls_gate, certificate, post(b"x" * 20_000_000)[:-20_000_000])
    await provider.until(b"\r\n\r\n")
    piece = bytes(range(250)) * 4000

    async def pump(source: Wire, sink: Wire) -> None:
        async def feed() -> None:
            for _ in range(20):
                await source.send(piece)

        feeding = asyncio.ensure_future(feed())
        for _ in range(20):
            assert await sink.exactly(len(piece)) == piece
        await feeding

    await pump(client, provider)
    await provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
    await client.until(b"\r\n\r\n")
    await pump(provider, client)


async def test_a_slow_client_has_a_minute_for_the_rest_over_tls_as_well(
    tls_gate: Gate, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    """The loop's own patience with a TLS connection that is being closed must not be the shorter one."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("this loop's time cannot be moved")
    client = await tls_gate.tls_client(_client_context(certificate), window=4096)
    await eventually(lambda: tls_gate.server.connections)
    narrow_towards_the_clients(tls_gate)
    await client.send(get(fields=b"Connection: close\r\n"))
    provider = await tls_gate.upstream.accept()
    await provider.message()
    body = bytes(100_000)
    await provider.send(ok(body))
    await eventually(lambda: not tls_gate.server.requests)
    await turns(5)
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + 58)
    await turns(5)
    assert (await client.message()).body == body
    assert not (await client.end()).reset


async def test_the_drain_closes_idle_tls_connections(tls_gate: Gate, certificate: Path):
    client, provider = await _connected(tls_gate, certificate, get())
    await provider.message()
    await provider.send(ok())
    await client.message()
    tls_gate.server.drain()
    assert (await client.end()).got == b""
    client.close()
    await eventually(lambda: not tls_gate.server.connections)
