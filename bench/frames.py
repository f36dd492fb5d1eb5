"""What tunnels carry, byte for byte: WebSocket (RFC 6455) as Codex and its provider speak it. Pure functions.

Rule 1: the rules of ``traffic`` hold. The task, ``ws SEQ FRAMES INTERVAL_MS PHASE_MS``,
is in the handshake, and a frame's payload is as long as the data of an event.

Rule 2: nobody parses a frame. Either end works out all that the other will send, headers,
masks and the closing handshake included, and compares the bytes.
"""

from base64 import b64encode
from hashlib import sha1
from typing import Final

import traffic

# RFC 6455, section 5.2. A payload of 126 to 65,535 bytes has its length in two more.
_TEXT: Final = 0x81  # and nothing follows it
_CLOSE: Final = 0x88
_MASKED: Final = 0x80
_LONGER: Final = 126
_ACCEPT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
_NORMAL: Final = 1000  # section 7.4.1
_POLICY: Final = 1008

# The client says something with every 30th frame that it hears: once a second.
_EVERY: Final = 30
_FIRST: Final = 15


# The handshake

# The fields, their order and their spelling as Codex sends them.
_HANDSHAKE: Final = (
    b"GET %b HTTP/1.1\r\n"
    b"Host: %b\r\n"
    b"Connection: Upgrade\r\n"
    b"Upgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: %b\r\n"
    b"authorization: Bearer %b\r\n"
    b"user-agent: codex_exec/0.169.0 (Linux; x86_64) unknown (codex_exec; 0.169.0)\r\n"
    b"originator: codex_exec\r\n"
    b"openai-beta: responses_websockets=2026-02-06\r\n"
    b'x-codex-turn-metadata: {"request_kind":"prewarm","turn_id":"%016x"}\r\n'
    b"x-codex-beta-features: remote_compaction_v2\r\n"
    b"x-client-request-id: %08x-42fd-7a28-8a28-%012x\r\n"
    b"session-id: %08x-0bbd-72fd-8a28-%012x\r\n"
    b"thread-id: %08x-0bbd-72fd-8a28-%012x\r\n"
    b"x-codex-window-id: %08x-0bbd-72fd-8a28-%012x:0\r\n"
    b"sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n"
    b"X-Bench: %b\r\n"
    b"\r\n"
)


def handshake(*, path: bytes, host: bytes, token: bytes, task: bytes, seq: int) -> bytes:
    """Return the request for a tunnel."""
    odd = traffic.mixed(seq)
    return _HANDSHAKE % (path, host, key(seq), token, odd, *(odd, seq) * 4, task)


def key(seq: int) -> bytes:
    """Return the tunnel's Sec-WebSocket-Key: 16 bytes, in base64."""
    return b64encode(b"%016x" % (traffic.mixed(seq) << 32 | seq))


def accept(seq: int) -> bytes:
    """Return what proves that the handshake was read (RFC 6455, section 4.2.2)."""
    return b64encode(sha1(key(seq) + _ACCEPT, usedforsecurity=False).digest())


_SWITCHED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Date: Sun, 22 Nov 2026 14:%02d:%02d GMT\r\n"
    b"Connection: upgrade\r\n"
    b"Upgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n"
    b"x-request-id: req_%024x\r\n"
    b"x-codex-primary-used-percent: %d\r\n"
    b"x-codex-primary-reset-after-seconds: %d\r\n"
    b"Server: cloudflare\r\n"
    b"cf-cache-status: DYNAMIC\r\n"
    b"CF-RAY: %016x-TXL\r\n"
    b"\r\n"
)


def switched(seq: int) -> bytes:
    """Return the provider's answer to the handshake."""
    odd = traffic.mixed(seq)
    return _SWITCHED % (seq // 60 % 60, seq % 60, accept(seq), odd, odd % 100, odd % 18000, odd)


# Frames

_MESSAGE: Final = b'{"type":"%b","delta":"%b","sequence_number":"%06d","t":"%020d"}'
_DELTA: Final = b"response.output_text.delta"
# What a client may say while a response runs.
_SAID: Final = b"response.processed"
_MESSAGE_FILL: Final = traffic.EVENT_BYTES - len(_MESSAGE % (_DELTA, b"", 0, 0))
_SAID_FILL: Final = traffic.EVENT_BYTES - len(_MESSAGE % (_SAID, b"", 0, 0))
_HEADER: Final = bytes((_TEXT, _LONGER)) + traffic.EVENT_BYTES.to_bytes(2)
FRAME_BYTES: Final = len(_HEADER) + traffic.EVENT_BYTES
_T_AT: Final = FRAME_BYTES - len(b'"}') - 20

_CREATE: Final = b'{"type":"response.create","model":"gpt-5.5","input":"%b","store":false,"seq":%d}'
_CREATE_FILL: Final = 512  # of a prompt, some words are enough: what is measured comes behind it
_RESPONSE: Final = b'{"type":"%b","response":{"id":"resp_%010d","status":"%b","model":"gpt-5.5","usage":%b}}'
_USAGE: Final = (
    b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d},"output_tokens":%d,'
    b'"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
)


def usage(seq: int) -> traffic.Usage:
    """Return what the response in this tunnel used."""
    return traffic.usage(seq)._replace(cache_write_5m=0, cache_write_1h=0)


def beginning(seq: int) -> bytes:
    """Return the frame in which the provider says that a response has begun."""
    return _text(_RESPONSE % (b"response.created", seq, b"in_progress", b"null"))


def ending(seq: int) -> bytes:
    """Return the frame in which the provider says what the response was, and what it used."""
    fresh, cached, _, _, output = usage(seq)
    prompt = fresh + cached  # what was read from a cache is part of it
    used = _USAGE % (prompt, cached, output, output // 2, prompt + output)
    return _text(_RESPONSE % (b"response.completed", seq, b"completed", used))


def _text(payload: bytes) -> bytes:
    return bytes((_TEXT, _LONGER)) + len(payload).to_bytes(2) + payload


def from_provider(seq: int, n: int, sent_ns: int) -> bytes:
    """Return frame ``n``, of ``FRAME_BYTES``, written at ``sent_ns`` of the monotonic clock."""
    return _HEADER + _MESSAGE % (_DELTA, traffic.text(seq * 53 + n * 7, _MESSAGE_FILL), n, sent_ns)


def sent_ns(received: bytes) -> int:
    """Return when a frame was written. Raises ValueError for what is no frame of ours."""
    return int(received[_T_AT : _T_AT + 20])


def closing(received: int) -> bytes:
    """Return how the provider ends a tunnel, over which it has received so many bytes."""
    return _close(_NORMAL, b"received %d bytes" % received)


def objection(why: str) -> bytes:
    """Return how the provider ends a tunnel over which came what the client had not sent."""
    return _close(_POLICY, why.encode())


def _close(code: int, reason: bytes) -> bytes:
    return bytes((_CLOSE, 2 + len(reason))) + code.to_bytes(2) + reason


def is_answered(n: int) -> bool:
    """Tell whether the client says something when it hears frame ``n``."""
    return n % _EVERY == _FIRST


def from_client(seq: int, n: int) -> bytes:
    """Return what the client says when it hears frame ``n``: a masked frame with as long a payload."""
    payload = _MESSAGE % (_SAID, traffic.text(seq * 41 + n * 11, _SAID_FILL), n, seq)
    return _masked(seq + n, _said_header(payload), payload)


def asking(seq: int) -> bytes:
    """Return the frame in which the client asks for a response."""
    payload = _CREATE % (traffic.text(seq * 31, _CREATE_FILL), seq)
    return _masked(seq, _said_header(payload), payload)


def _said_header(payload: bytes) -> bytes:
    return bytes((_TEXT, _MASKED | _LONGER)) + len(payload).to_bytes(2)


def last_of_client(seq: int) -> bytes:
    """Return the client's part of the closing handshake."""
    return _masked(seq, bytes((_CLOSE, _MASKED | 2)), _NORMAL.to_bytes(2))


def all_of_client(seq: int, frames: int) -> bytes:
    """Return what the client sends in a tunnel of so many frames, from the handshake to its end."""
    said = (from_client(seq, n) for n in range(1, frames + 1) if is_answered(n))
    return b"".join((asking(seq), *said, last_of_client(seq)))


def _masked(seq: int, header: bytes, payload: bytes) -> bytes:
    """Return a frame with the masking key that this number has (RFC 6455, section 5.3)."""
    mask = traffic.mixed(seq).to_bytes(4)
    stream = (mask * (len(payload) // 4 + 1))[: len(payload)]
    hidden = int.from_bytes(payload) ^ int.from_bytes(stream)
    return header + mask + hidden.to_bytes(len(payload))
