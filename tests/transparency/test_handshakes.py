"""A WebSocket handshake passes with the listed changes, and what follows passes as it is."""

import base64
import hashlib

import pytest
from engine.events import ask
from transparency import expected
from transparency.cases import HANDSHAKES, meets
from transparency.crossing import Through
from transparency.modes import MODES, REMOVED_FROM_HANDSHAKES, Mode
from transparency.recordings import Recording, load

pytestmark = pytest.mark.asyncio(loop_scope="module")

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_CASES = [(name, mode) for name in HANDSHAKES for mode in MODES if meets(load(name), mode)]
# A text frame each way: masked from a client, plain from a server (RFC 6455, 5.3). Who has limits
# must be understood, so it asks for a response; the answer may be anything.
_ASKED = ask()
_ANSWERED = b"\x81\x0a" + b'{"type":2}'


def _accepted(request: Recording, *lines: bytes) -> bytes:
    nonce = base64.b64encode(b"made-up-nonce-16")
    assert nonce in request.head
    key = base64.b64encode(hashlib.sha1(nonce + _GUID, usedforsecurity=False).digest())
    start = b"HTTP/1.1 101 Switching Protocols"
    return b"\r\n".join([start, *lines, b"sec-websocket-accept: " + key, b"", b""])


@pytest.mark.parametrize(("name", "mode"), _CASES, ids=lambda one: one if isinstance(one, str) else one.name)
async def test_a_recorded_handshake_passes_with_the_listed_changes(through: Through, name: str, mode: Mode):
    request = load(name)
    passage = await through(mode)
    answer = _accepted(
        request,
        b"Date: Sun, 22 Nov 2026 12:00:00 GMT",
        b"Connection: upgrade",
        b"UPGRADE: websocket",
        b"x-codex-turn-state: made-up==",
        b"openai-model: gpt-5.5",
        b"Set-Cookie: a=b",
        b"CF-RAY: 0000000000000000-FRA",
        b"x_odd:  spaced ",
    )
    async with passage.tunnel(request, mode, answer) as (client, provider, arrived, head):
        wanted = expected.request(request.head, mode, host=passage.host(mode), handshake=True)
        wanted.check(arrived)
        assert {f"removed: {field.decode()}" for field in REMOVED_FROM_HANDSHAKES} <= wanted.changes
        expected.response(answer, mode.provider, chunked=False, handshake=True).check(head)
        await client.send(_ASKED)
        assert await provider.exactly(len(_ASKED)) == _ASKED
        await provider.send(_ANSWERED)
        assert await client.exactly(len(_ANSWERED)) == _ANSWERED


_BESIDES = (
    b"Cookie: a=b",
    b"X-Forwarded-For: 192.0.2.1",
    b"anthropic-beta: one",
    b"X-Kept:  1 ",
    b"OpenAI-Organization: org-made-up",
    b"Sec-WebSocket-Protocol: made-up",
    b"Accept-Encoding: sdch, br",
    b"CONNECTION: keep-alive, X-Named",
    b"X-Named: 1",
)
_ANSWERS_CONNECTION = (
    (b"Connection: Upgrade",),
    (b"connection: keep-alive, UPGRADE, X-Named", b"X-Named: 1"),
)


@pytest.mark.parametrize("answered", _ANSWERS_CONNECTION, ids=["upgrade", "more"])
@pytest.mark.parametrize(
    "mode", [mode for mode in MODES if mode.provider == "chatgpt"], ids=lambda mode: mode.name
)
@pytest.mark.parametrize("at", [0, 4])
async def test_what_a_handshake_carries_besides_is_changed_as_in_any_request(
    through: Through, at: int, mode: Mode, answered: tuple[bytes, ...]
):
    passage = await through(mode)
    request = load(HANDSHAKES[0]).with_fields(*_BESIDES, at=at)
    answer = _accepted(request, b"Upgrade: websocket", *answered, b"x-request-id: made-up", b"NEL: {}")
    async with passage.tunnel(request, mode, answer) as (_, _, arrived, head):
        expected.request(request.head, mode, host=passage.host(mode), handshake=True).check(arrived)
        expected.response(answer, mode.provider, chunked=False, handshake=True).check(head)
