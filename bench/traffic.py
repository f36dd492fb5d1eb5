"""What the benchmark sends, byte for byte: pure functions, shared by both ends.

Rule 1: nothing repeats. Every request and every answer differs from the one
before in its body and in the fields that differ in life, so that a proxy which
remembers header lines gains nothing by it.

Rule 2: both ends can work out what the other must have sent, from the sequence
number alone. So every byte of every body is compared, and a proxy that
cuts, mixes or invents cannot look fast.

Rule 3: what looks like JSON is JSON, and every answer says what it used, other figures each
time: a proxy that counts has something to read, and what it wrote down can be compared.

Rule 4: a task fits into one field, ``X-Bench``, which every proxy passes on:
``json SEQ``, ``upload SEQ``, ``sse SEQ EVENTS INTERVAL_MS PHASE_MS`` and ``facts 0``.
``frames`` adds ``ws``, which has the numbers of ``sse``.
"""

import random
from typing import Final, NamedTuple

# Made-up credentials, which look it. The first is what a user of the proxy
# holds, the second what the proxy must put in its place.
USER_TOKEN: Final = "bench-user-token-0123456789"
PROVIDER_TOKEN: Final = "bench-provider-token-0123456789"

UPLOAD_BYTES: Final = 2 * 1024 * 1024
REQUEST_BODY_BYTES: Final = 2048
ANSWER_BODY_BYTES: Final = 1536
EVENT_BYTES: Final = 150

# Between a stream's first event and its paced ones, and between the last of
# those and its end: room to read the CPU clocks while nothing flows.
QUIET_S: Final = 0.5

_CHANCE = random.Random(20261122)  # always the same text, so that runs compare
_WORDS = tuple(
    "".join(_CHANCE.choices("abcdefghijklmnopqrstuvwxyz", k=_CHANCE.randint(2, 9))) for _ in range(997)
)
_TEXT: Final = " ".join(_CHANCE.choices(_WORDS, k=6000)).encode()
_WINDOW: Final = len(_TEXT) - max(REQUEST_BODY_BYTES, ANSWER_BODY_BYTES)
UPLOAD_BODY: Final = _CHANCE.randbytes(UPLOAD_BYTES)


def mixed(seq: int) -> int:
    """Return 32 bits that look unlike those of the next number (Knuth's multiplicative hash)."""
    return seq * 2654435761 & 0xFFFFFFFF


# What the client says

# The fields, their order and their spelling as Claude Code sends them.
_REQUEST_HEAD: Final = (
    b"POST %b HTTP/1.1\r\n"
    b"Accept: application/json\r\n"
    b"Authorization: Bearer %b\r\n"
    b"Content-Type: application/json\r\n"
    b"User-Agent: claude-cli/2.1.197 (external, sdk-cli)\r\n"
    b"X-Claude-Code-Session-Id: %08x-0bbd-42fd-8a28-%012x\r\n"
    b"X-Stainless-Arch: x64\r\n"
    b"X-Stainless-Lang: js\r\n"
    b"X-Stainless-OS: Linux\r\n"
    b"X-Stainless-Package-Version: 0.94.0\r\n"
    b"X-Stainless-Retry-Count: 0\r\n"
    b"X-Stainless-Runtime: node\r\n"
    b"X-Stainless-Runtime-Version: v26.3.0\r\n"
    b"X-Stainless-Timeout: 600\r\n"
    b"anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14,"
    b"context-management-2025-06-27,prompt-caching-scope-2026-01-05,effort-2025-11-24\r\n"
    b"anthropic-dangerous-direct-browser-access: true\r\n"
    b"anthropic-version: 2023-06-01\r\n"
    b"x-app: cli\r\n"
    b"Connection: keep-alive\r\n"
    b"Host: %b\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"X-Bench: %b\r\n"
    b"Content-Length: %d\r\n"
    b"\r\n"
)


def request_head(*, path: bytes, host: bytes, token: bytes, task: bytes, seq: int, length: int) -> bytes:
    """Return a request's head for ``task``, announcing a body of ``length`` bytes."""
    return _REQUEST_HEAD % (path, token, mixed(seq), mixed(seq + 1), host, task, length)


_REQUEST_START: Final = (
    b'{"model":"claude-sonnet-4-5","max_tokens":1024,"metadata":{"user_id":"%016x"},'
    b'"messages":[{"role":"user","content":"'
)
_REQUEST_END: Final = b'"}],"seq":%010d}'
_REQUEST_FILL: Final = REQUEST_BODY_BYTES - len(_REQUEST_START % 0) - len(_REQUEST_END % 0)


def request_body(seq: int) -> bytes:
    """Return the body, of ``REQUEST_BODY_BYTES``, of the small request with this number."""
    return b"".join((_REQUEST_START % mixed(seq), text(seq * 37, _REQUEST_FILL), _REQUEST_END % seq))


# What the provider answers


class Usage(NamedTuple):
    """What one answer used: tokens, by the kinds that a ledger tells apart."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0


def usage(seq: int) -> Usage:
    """Return what the answer with this number used. A figure has as many digits in each."""
    odd = mixed(seq)
    return Usage(
        1000 + odd % 9000,
        10_000 + seq * 7 % 90_000,
        1000 + odd // 9000 % 9000,
        1000 + seq * 11 % 9000,
        1000 + seq * 13 % 9000,
    )


BEGUN_OUTPUT: Final = 1
"""What a stream's first event says of output, before there is any."""

# As Anthropic's API writes it.
_USAGE: Final = (
    b'"usage":{"input_tokens":%d,"cache_creation_input_tokens":%d,"cache_read_input_tokens":%d,'
    b'"cache_creation":{"ephemeral_5m_input_tokens":%d,"ephemeral_1h_input_tokens":%d},'
    b'"output_tokens":%d,"service_tier":"standard"}'
)


def _usage_object(used: Usage) -> bytes:
    fresh, read, written_5m, written_1h, output = used
    return _USAGE % (fresh, written_5m + written_1h, read, written_5m, written_1h, output)


# Field names as Anthropic's API is seen to send them. Limits, ids, times and
# utilisation change with each answer; the rest does not in life either.
_ANSWER_FIELDS: Final = (
    b"Date: Sun, 22 Nov 2026 14:%02d:%02d GMT\r\n"
    b"Content-Type: %b\r\n"
    b"%b\r\n"
    b"Connection: keep-alive\r\n"
    b"Cache-Control: no-cache\r\n"
    b"anthropic-ratelimit-unified-status: allowed\r\n"
    b"anthropic-ratelimit-unified-5h-status: allowed\r\n"
    b"anthropic-ratelimit-unified-5h-reset: %d\r\n"
    b"anthropic-ratelimit-unified-5h-utilization: 0.%04d\r\n"
    b"anthropic-ratelimit-unified-7d-status: allowed\r\n"
    b"anthropic-ratelimit-unified-7d-reset: %d\r\n"
    b"anthropic-ratelimit-unified-7d-utilization: 0.%04d\r\n"
    b"anthropic-ratelimit-unified-representative-claim: five_hour\r\n"
    b"anthropic-ratelimit-unified-fallback-percentage: 0.5\r\n"
    b"anthropic-ratelimit-unified-reset: %d\r\n"
    b"anthropic-ratelimit-unified-overage-status: rejected\r\n"
    b"request-id: req_%024x\r\n"
    b"strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n"
    b"anthropic-organization-id: %08x-1111-4222-8333-%012x\r\n"
    b"Server: cloudflare\r\n"
    b"x-envoy-upstream-service-time: %d\r\n"
    b"cf-cache-status: DYNAMIC\r\n"
    b"X-Robots-Tag: none\r\n"
    b"server-timing: x-originResponse;dur=%d\r\n"
    b"CF-RAY: %016x-TXL\r\n"
    b"\r\n"
)
_OK: Final = b"HTTP/1.1 200 OK\r\n"


def _answer_head(seq: int, content_type: bytes, framing: bytes) -> bytes:
    odd = mixed(seq)
    return _OK + _ANSWER_FIELDS % (
        *(seq // 60 % 60, seq % 60, content_type, framing),
        *(1795360000 + seq, odd % 10000, 1795800000 + seq, odd // 10000 % 10000, 1795360000 + seq),
        *(odd, odd, seq, 20 + odd % 900, 20 + odd % 900, odd),
    )


def json_answer(seq: int, body: bytes) -> bytes:
    """Return a whole answer with ``body``, delimited by Content-Length."""
    return _answer_head(seq, b"application/json", b"Content-Length: %d" % len(body)) + body


def stream_head(seq: int) -> bytes:
    """Return the head of a chunked event stream."""
    return _answer_head(seq, b"text/event-stream; charset=utf-8", b"Transfer-Encoding: chunked")


_ANSWER_START: Final = (
    b'{"id":"msg_%010d","type":"message","role":"assistant","model":"claude-sonnet-4-5",'
    b'"content":[{"type":"text","text":"'
)
_ANSWER_END: Final = b'"}],"stop_reason":"end_turn",%b}'
_ANSWER_FILL: Final = (
    ANSWER_BODY_BYTES - len(_ANSWER_START % 0) - len(_ANSWER_END % b"") - len(_usage_object(usage(0)))
)


def answer_body(seq: int) -> bytes:
    """Return the body, of ``ANSWER_BODY_BYTES``, that answers the small request with this number."""
    end = _ANSWER_END % _usage_object(usage(seq))
    return b"".join((_ANSWER_START % seq, text(seq * 53, _ANSWER_FILL), end))


def upload_answer_body(seq: int) -> bytes:
    """Return the body that answers an upload which arrived whole."""
    return b'{"id":"msg_%010d","model":"claude-sonnet-4-5","received":%d,%b}' % (
        seq,
        UPLOAD_BYTES,
        _usage_object(usage(seq)),
    )


_BEGINNING: Final = (
    b"event: message_start\n"
    b'data: {"type":"message_start","message":{"id":"msg_%010d","type":"message","role":"assistant",'
    b'"model":"claude-sonnet-4-5","content":[],"stop_reason":null,"stop_sequence":null,%b}}\n\n'
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
)
_ENDING: Final = (
    b"event: content_block_stop\n"
    b'data: {"type":"content_block_stop","index":0}\n\n'
    b"event: message_delta\n"
    b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":%d}}\n\n'
    b"event: message_stop\n"
    b'data: {"type":"message_stop"}\n\n'
)


def stream_beginning(seq: int) -> bytes:
    """Return what a stream says before its paced events."""
    return _BEGINNING % (seq, _usage_object(usage(seq)._replace(output=BEGUN_OUTPUT)))


def stream_ending(seq: int) -> bytes:
    """Return what a stream says behind them."""
    return _ENDING % usage(seq).output


_EVENT: Final = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","delta":{"text":"%b"},"n":"%06d","t":"%020d"}\n\n'
)
_EVENT_FILL: Final = EVENT_BYTES - len(_EVENT % (b"", 0, 0))
_T_AT: Final = EVENT_BYTES - len(b'"}\n\n') - 20


def event(seq: int, n: int, sent_ns: int) -> bytes:
    """Return event ``n`` of a stream, of ``EVENT_BYTES``, written at ``sent_ns`` of the monotonic clock."""
    return _EVENT % (text(seq * 53 + n * 7, _EVENT_FILL), n, sent_ns)


def sent_ns(received: bytes) -> int:
    """Return when an event was written. Raises ValueError for what is no event."""
    return int(received[_T_AT : _T_AT + 20])


def chunk(data: bytes) -> bytes:
    """Return ``data`` as one chunk (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


def text(at: int, size: int) -> bytes:
    """Return ``size`` bytes of words, others for each ``at``."""
    at %= _WINDOW
    return _TEXT[at : at + size]
