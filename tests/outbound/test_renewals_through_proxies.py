"""Renewals through proxies: the same ones, never around them, and never in doubt about what was sent."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine.upstream import Upstream
from engine.wires import TlsWire, Wire
from fakes.token_endpoint import TokenEndpoint, reset
from outbound.conversations import BY_PASSWORD, ESTABLISHED, Tunnel, agree

from ai_mux.credentials.endpoint import Answered, NotSent, Unknown
from ai_mux.credentials.endpoint import TokenEndpoint as Client
from ai_mux.outbound import parse_proxy

pytestmark = pytest.mark.usefixtures("opened")  # which looks for descriptors that are left

CREDENTIALS = "invented-user:invented-pass"
SCHEMES = ["http", "https", "socks5", "socks5h"]
BODY = {"refresh_token": "refresh-0"}


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
async def endpoint(opened, certificate: Path) -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint("refresh-0", tls=server_context(certificate)) as running:
        yield running


class Played:
    """A proxy that the test plays.

    Attributes:
        url: With credentials.
        authority: How messages name it.
    """

    def __init__(self, scheme: str, certificate: Path) -> None:
        self.scheme = scheme
        self.proxy = Upstream(tls=server_context(certificate) if scheme == "https" else None)
        self.authority = f"localhost:{self.proxy.port}"
        self.url = f"{scheme}://{CREDENTIALS}@{self.authority}"


@pytest.fixture(params=SCHEMES)
async def played(request: pytest.FixtureRequest, opened, certificate: Path) -> AsyncIterator[Played]:
    playing = Played(request.param, certificate)
    yield playing
    await playing.proxy.close()


def client(endpoint: TokenEndpoint, url: str, certificate: Path, timeout_s: float = 10) -> Client:
    return Client(endpoint.url, ca_file=str(certificate), via=parse_proxy(url), timeout_s=timeout_s)


async def not_sent(posting: "asyncio.Future[NotSent | Unknown | Answered]", endpoint: TokenEndpoint) -> str:
    """Return why nothing was sent, of which there is no doubt."""
    outcome = await posting
    assert isinstance(outcome, NotSent)
    assert endpoint.requests == []
    assert not endpoint.arrived.is_set()
    assert "invented" not in outcome.reason
    assert "JUNK" not in outcome.reason
    assert "refresh-0" not in outcome.reason
    return outcome.reason


@pytest.mark.parametrize("credentials", [False, True], ids=["open", "credentials"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_renewal_goes_through_a_real_proxy(endpoint, real, certificate, scheme, credentials):
    proxy = real(scheme, credentials=credentials)
    outcome = await client(endpoint, proxy.url, certificate).post(BODY)
    assert isinstance(outcome, Answered)
    assert outcome.members["access_token"] == "access-1"
    assert endpoint.spent == ["refresh-0"]
    assert [name for name in endpoint.headers[0] if name.startswith(("proxy", "via", "x-"))] == []
    assert endpoint.headers[0]["host"] == endpoint.url.split("/")[2]
    assert proxy.connected(int(endpoint.url.split("/")[2].rpartition(":")[2]))


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_a_renewal_to_a_plain_endpoint_goes_through_a_tunnel_too(opened, real, certificate, scheme):
    proxy = real(scheme, credentials=True)
    async with TokenEndpoint("refresh-0") as endpoint:
        assert isinstance(await client(endpoint, proxy.url, certificate).post(BODY), Answered)
        assert [name for name in endpoint.headers[0] if name.startswith("proxy")] == []


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_real_proxy_that_wants_other_credentials_is_not_sent(endpoint, real, certificate, scheme):
    proxy = real(scheme, credentials=True)
    for url in (proxy.url_without, proxy.url.replace("invented-pass", "invented-other")):
        posting = asyncio.ensure_future(client(endpoint, url, certificate).post(BODY))
        assert "credentials" in await not_sent(posting, endpoint)


async def test_the_environment_is_not_asked_beside_a_proxy(endpoint, played, certificate, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    posting = asyncio.ensure_future(client(endpoint, played.url, certificate).post(BODY))
    wire = await played.proxy.accept()
    await agree(wire, played.scheme)
    async with Tunnel(wire, int(endpoint.url.split("/")[2].rpartition(":")[2])) as tunnel:
        assert isinstance(await posting, Answered)
        assert b"refresh-0" not in tunnel.up  # TLS, which the proxy cannot read


async def test_a_proxy_that_is_not_there_is_not_sent(endpoint, played, certificate):
    played.proxy.refuse_connections()
    posting = asyncio.ensure_future(client(endpoint, played.url, certificate).post(BODY))
    assert f"the proxy {played.authority} cannot be reached" in await not_sent(posting, endpoint)


@pytest.mark.parametrize(
    ("http", "socks"),
    [
        (b"HTTP/1.1 407 JUNK\r\n\r\n", [b"\x05\xff"]),
        (b"HTTP/1.1 403 JUNK\r\n\r\nJUNK", [BY_PASSWORD, b"\x01\x01"]),
        (b"HTTP/1.1 502 JUNK\r\n\r\n", [b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)]),
        (b"JUNK\r\n\r\n", [b"JUNK"]),
        (b"HTTP/1.1 200 OK\r\n\r\nJUNK", [b"\x05\x00", b"\x05\x00\x00\x03\x01\xff\x00\x00"]),
        (b"HTTP/1.1 200 OK\r\nX: " + b"J" * 70_000, [b"\x05\x00", b"J" * 70_000]),
    ],
)
async def test_a_proxy_that_refuses_or_answers_junk_is_not_sent(endpoint, played, certificate, http, socks):
    posting = asyncio.ensure_future(client(endpoint, played.url, certificate).post(BODY))
    wire = await played.proxy.accept()
    for answer in [http] if played.scheme.startswith("http") else socks:
        await wire.some()
        await wire.send(answer)
    assert f": the proxy {played.authority} " in await not_sent(posting, endpoint)


async def test_a_proxy_that_leaves_in_the_middle_is_not_sent(endpoint, played, certificate):
    for answered in (0, 1):
        posting = asyncio.ensure_future(client(endpoint, played.url, certificate).post(BODY))
        wire = await played.proxy.accept()
        await wire.some()
        await wire.send((ESTABLISHED if played.scheme.startswith("http") else BY_PASSWORD)[:answered])
        wire.close()
        assert f"the proxy {played.authority} " in await not_sent(posting, endpoint)


async def test_tls_that_breaks_behind_the_proxy_is_not_sent(endpoint, played, certificate):
    for sent in (b"", b"JUNK" * 50):
        posting = asyncio.ensure_future(client(endpoint, played.url, certificate).post(BODY))
        wire = await played.proxy.accept()
        await agree(wire, played.scheme)
        await wire.some()
        await wire.send(sent)
        wire.close()
        assert f"TLS through the proxy {played.authority} failed" in await not_sent(posting, endpoint)


async def test_an_endpoint_that_is_not_trusted_is_not_sent(endpoint, real):
    proxy = real("socks5h", credentials=False)
    posting = asyncio.ensure_future(Client(endpoint.url, via=parse_proxy(proxy.url)).post(BODY))
    assert "TLS through the proxy" in await not_sent(posting, endpoint)


@pytest.mark.parametrize("until", ["answer", "tls"])
async def test_a_proxy_that_says_nothing_is_not_sent_in_the_end(endpoint, played, certificate, until):
    posting = asyncio.ensure_future(client(endpoint, played.url, certificate, 0.5).post(BODY))
    wire = await played.proxy.accept()
    await silent(wire, played.scheme, until)
    await not_sent(posting, endpoint)
    await wire.end()  # gone at this side as well


@pytest.mark.parametrize("until", ["answer", "tls"])
async def test_a_renewal_that_is_cancelled_leaves_no_connection(endpoint, played, certificate, until):
    posting = asyncio.ensure_future(client(endpoint, played.url, certificate).post(BODY))
    wire = await played.proxy.accept()
    await silent(wire, played.scheme, until)
    posting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await posting
    await wire.end()
    assert endpoint.requests == []


async def silent(wire: Wire, scheme: str, until: str) -> None:
    """Play a proxy up to a point, and then no more."""
    if until == "tls":
        await agree(wire, scheme)
    else:
        await wire.some()


async def test_what_was_sent_and_not_answered_is_unknown(endpoint, real, certificate):
    for scheme in SCHEMES:
        endpoint.script = [reset]
        outcome = await client(endpoint, real(scheme, credentials=False).url, certificate).post(BODY)
        assert isinstance(outcome, Unknown)
        assert "localhost" not in outcome.reason
    assert len(endpoint.requests) == len(SCHEMES)


async def test_a_proxy_that_dies_after_the_request_leaves_it_unknown(endpoint, played, certificate):
    endpoint.gate.clear()
    posting = asyncio.ensure_future(client(endpoint, played.url, certificate).post(BODY))
    wire = await played.proxy.accept()
    await agree(wire, played.scheme)
    async with Tunnel(wire, int(endpoint.url.split("/")[2].rpartition(":")[2])):
        await endpoint.arrived.wait()
    assert isinstance(await posting, Unknown)
    assert len(endpoint.requests) == 1


async def test_an_https_proxy_is_told_the_credentials_under_tls_only(endpoint, certificate):
    played = Played("https", certificate)
    posting = asyncio.ensure_future(client(endpoint, played.url, certificate).post(BODY))
    wire = await played.proxy.accept()
    assert isinstance(wire, TlsWire)
    assert wire.tls.version() == "TLSv1.3"
    assert b"Proxy-Authorization: Basic " in await wire.until(b"\r\n\r\n")
    await wire.send(b"HTTP/1.1 403 X\r\n\r\n")
    await not_sent(posting, endpoint)
    await played.proxy.close()
