"""What providers answer: their usual shapes, each a whole response, byte for byte.

The fields are those that the providers are known to send; their values are made up. A
compressed body is only bytes here: nobody on the way may look into it.
"""

import gzip
from dataclasses import dataclass
from typing import Final

from transparency import expected
from transparency.modes import REMOVED, REMOVED_FROM_RESPONSES, near
from transparency.recordings import text, zstd


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A provider's answer.

    Attributes:
        name: For the tests' names.
        head: Of the final response, blank line included.
        body: As it travels.
        before: Interim responses that are sent first.
    """

    name: str
    head: bytes
    body: bytes = b""
    before: bytes = b""

    def __str__(self) -> str:
        return self.name

    @property
    def raw(self) -> bytes:
        return self.before + self.head + self.body

    @property
    def chunked(self) -> bool:
        return b"\r\ntransfer-encoding:" in self.head.lower() and bool(self.body)

    @property
    def until_close(self) -> bool:
        """The body ends with the connection (RFC 9112, 6.3)."""
        bodyless = self.head.split(b" ", 2)[1] in {b"204", b"304"}
        return not (bodyless or b"\r\ncontent-length:" in self.head.lower() or self.chunked)

    @property
    def content(self) -> bytes:
        """The body without its transfer framing, and so without trailers."""
        if not self.chunked:
            return self.body
        content, at = b"", 0
        while size := int(self.body[at : self.body.index(b"\r\n", at)].split(b";")[0], 16):
            begin = self.body.index(b"\r\n", at) + 2
            content += self.body[begin : begin + size]
            at = begin + size + 2
        return content


_JSON: Final = b'{"type":"message","content":[{"type":"text","text":"hi"}],"usage":{"output_tokens":1}}'
_LIMITS: Final = (
    b"anthropic-ratelimit-unified-status: allowed_warning",
    b"anthropic-ratelimit-unified-reset: 1767225600",
    b"anthropic-ratelimit-unified-representative-claim: five_hour",
    b"anthropic-ratelimit-unified-fallback-percentage: 0.5",
    b"anthropic-ratelimit-unified-5h-utilization: 1.03",
    b"anthropic-ratelimit-unified-7d_oi-utilization: -0.0",
    b"anthropic-ratelimit-unified-overage-disabled-reason: ",
)
_CODEX: Final = (
    b"x-codex-primary-used-percent: 37",
    b"x-codex-primary-window-minutes: 300",
    b"x-codex-secondary-reset-at: 1767225600",
    b"x-codex-credits-has-credits: False",
    b"x-codex-turn-state: made-up-state==",
    b'x-models-etag: W/"made-up"',
    b"openai-model: gpt-5.5",
    b"openai-processing-ms: 12",
    b"x-madeup-limit-primary-used-percent: 3",
)
_EDGE: Final = (
    b"CF-RAY: 0000000000000000-FRA",
    b"cf-cache-status: DYNAMIC",
    b"Server: cloudflare",
    b"via: 1.1 google",
)
_SSE: Final = (
    b'event: message_start\ndata: {"type":"message_start"}\n\n',
    b"event: ping\ndata: {}\n\n",
    b": a comment, and \xf0\x9f\x8c\x8d\n\n",
    b'event: message_stop\r\ndata: {"type":"message_stop"}\r\n\r\n',
)
# The text "ai-mux passes compressed bodies on as they came. " ten times.
_BROTLI: Final = (
    "1be901f8459d4365234cadb8a2a2cb200cd682340414611a887b342289fbd8be8feb520bc9d51383352df020f699f4e700"
)
# Bodies by content coding.
COMPRESSED: Final = {
    "gzip": gzip.compress(_JSON, mtime=0),
    "br": bytes.fromhex(_BROTLI),
    "zstd": zstd(300),
}


def _head(status: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", b""])


def _sized(name: str, status: bytes, *lines: bytes, body: bytes = _JSON, before: bytes = b"") -> Answer:
    head = _head(status, *lines, b"Content-Length: %d" % len(body))
    return Answer(name=name, head=head, body=body, before=before)


def _chunked(
    name: str, *lines: bytes, pieces: tuple[bytes, ...], extension: bytes = b"", trailers: bytes = b""
) -> Answer:
    framed = b"".join(b"%X%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    head = _head(b"200 OK", *lines, b"Transfer-Encoding: chunked")
    return Answer(name=name, head=head, body=framed + b"0\r\n" + trailers + b"\r\n")


def _refusal(status: bytes, kind: str, *lines: bytes) -> Answer:
    body = b'{"type":"error","error":{"type":"%b","message":"made up"}}' % kind.encode()
    return _sized(f"{status.split(b' ')[0].decode()}-{kind}", status, *lines, body=body)


_STREAM: Final = b"Content-Type: text/event-stream; charset=utf-8"
_DOCUMENT: Final = b"Content-Type: application/json"

_STREAMS: Final = (
    _chunked(
        "sse-claude", _STREAM, b"Cache-Control: no-cache", b"request-id: req_madeup", *_LIMITS, pieces=_SSE
    ),
    _chunked("sse-codex", _STREAM, *_CODEX, b"x-request-id: made-up", pieces=_SSE, extension=b";name=value"),
    _sized("sse-with-length", b"200 OK", _STREAM, *_CODEX, body=b"".join(_SSE)),
    Answer(name="sse-until-close", head=_head(b"200 OK", _STREAM), body=b"".join(_SSE)),
    _chunked("sse-byte-by-byte", _STREAM, pieces=tuple(bytes([byte]) for byte in _SSE[0])),
    _chunked(
        "trailers",
        _STREAM,
        b"Trailer: X-Checksum, Server-Timing",
        pieces=_SSE,
        trailers=b"X-Checksum: made-up\r\nserver-TIMING: total;dur=5\r\n",
    ),
)
_BODIES: Final = (
    _sized("json", b"200 OK", _DOCUMENT, b"request-id: req_madeup", *_LIMITS, *_EDGE),
    *(
        _sized(coding, b"200 OK", _DOCUMENT, b"Content-Encoding: " + coding.encode(), body=body)
        for coding, body in COMPRESSED.items()
    ),
    *(
        _chunked(f"{coding}-chunked", _STREAM, b"content-encoding: " + coding.encode(), pieces=(body, body))
        for coding, body in COMPRESSED.items()
    ),
    _sized("unknown-coding", b"200 OK", b"Content-Encoding: made-up, x-made-up", body=bytes(range(256))),
    _sized("large", b"200 OK", _DOCUMENT, body=text(300_000)),
    _chunked("large-chunked", pieces=(text(100_000), text(70_001), text(1))),
    _sized("empty", b"200 OK", body=b""),
    _chunked("empty-chunked", pieces=()),
    Answer(name="204", head=_head(b"204 No Content", b"X-Kept: 1")),
    Answer(
        name="204-with-chunks", head=_head(b"204 No Content", b"Transfer-Encoding: chunked", b"X-Kept: 1")
    ),
    Answer(name="304", head=_head(b"304 Not Modified", b'ETag: "made-up"', b"Content-Length: 7")),
)
_EARLY: Final = _head(b"103 Early Hints", b"Link: </early>; rel=preload", b"X-Early: 1")
_AFTER_INTERIM: Final = (
    _sized("after-100", b"200 OK", before=_head(b"100 Continue")),
    _sized("after-103", b"200 OK", b"Link: </final>", before=_EARLY + _head(b"102 Processing")),
)
_REFUSALS: Final = (
    _refusal(
        b"400 Bad Request", "invalid_request_error", b"x-should-retry: false", b"request-id: req_madeup"
    ),
    _refusal(b"403 Forbidden", "permission_error", _DOCUMENT),
    _refusal(b"404 Not Found", "not_found_error"),
    _refusal(b"413 Request Entity Too Large", "request_too_large"),
    _refusal(b"429 Too Many Requests", "rate_limit_error", b"retry-after: 50000", *_LIMITS),
    _refusal(b"429 Too Many Requests", "usage_limit_reached", b"Retry-After: 1", *_CODEX),
    _refusal(b"500 Internal Server Error", "api_error"),
    _refusal(b"503 Service Unavailable", "unavailable", b"retry-after: Sun, 22 Nov 2026 12:00:00 GMT"),
    _refusal(b"529 ", "overloaded_error", b"x-should-retry: true", *_EDGE),
    _sized("502-in-html", b"502 Bad gateway, says  the edge", *_EDGE, body=b"<html>\r\n\r\n</html>"),
)
USUAL: Final = (*_STREAMS, *_BODIES, *_AFTER_INTERIM, *_REFUSALS)

# To a HEAD: what a GET would say, and no body (RFC 9110, 9.3.2).
TO_HEAD: Final = (
    Answer(name="head-with-length", head=_head(b"200 OK", _DOCUMENT, b"Content-Length: 12345")),
    Answer(name="head-with-chunks", head=_head(b"200 OK", b"X-Kept: 1", b"Transfer-Encoding: chunked")),
    Answer(name="head-with-neither", head=_head(b"200 OK", b"X-Kept: 1")),
    Answer(name="head-refused", head=_head(b"404 Not Found", b"Content-Length: 99", b"Set-Cookie: a=b")),
)

# What no provider is known to send, or not all at once.
_ODD: Final = (
    b"x_under_score:   spaced\t ",
    b"X-Empty:",
    b"x-RePeated: 1",
    b"X-Repeated: 1",
    b"~!#$%&'*+-.^_`|: a name of every character that may stand in one",
    b"X-High: \xe4\xf6\xfc",
    # Removed from requests, and kept in responses.
    *(name.replace(b"*", b"x").title() + b": 1" for name in REMOVED if name not in REMOVED_FROM_RESPONSES),
)
_NEARLY: Final = sorted({name for entry in REMOVED_FROM_RESPONSES for name in near(entry)})


def _listed_field(name: bytes) -> Answer:
    lines = (
        b"X-Before: 1",
        name.title() + b":  made up ",
        b"X-Between: 1",
        name.upper() + b":again",
        b"X: 1",
    )
    return _sized(f"with-{name.decode()}", b"200 OK", *lines)


_NAMES: Final = (b"X-Named: 1", b"Connection: keep-alive, x-nAmed", b"X-Kept: 1", b"x-named: 2")
_MORE: Final = (b"CONNECTION: X-Other, Content-Length", b"X-Other:")
_IDS: Final = (b"REQUEST-ID: req_madeup", b"X-Request-ID: made-up")

MADE: Final = (
    *(_listed_field(entry.replace(b"*", b"madeup")) for entry in REMOVED_FROM_RESPONSES),
    _sized("nearly-listed", b"200 OK", *(name.title() + b": 1" for name in _NEARLY)),
    _sized("odd-fields", b"200 ", *_ODD),
    _sized("connection-names-fields", b"200 OK", *_NAMES, *_MORE),
    _sized("connection-names-ids", b"200 OK", *_IDS, b"Connection: request-id, x-request-id"),
    _sized("connection-closes", b"200 OK", b"Connection: close", b"X-Kept: 1"),
    _sized("both-ids", b"200 OK", *_IDS),
    _sized("unknown-status", b"299 Some status nobody knows"),
)


def listed() -> set[str]:
    """Return every change that the list can make to a response."""
    return {f"removed: {entry.decode()}" for entry in REMOVED_FROM_RESPONSES} | {
        f"{expected.ID_ADDED}: request-id", f"{expected.ID_ADDED}: x-request-id", expected.ID_PRESENT,
        expected.NAMED, expected.NAMED_IN_VAIN, expected.FRAMING, expected.CLOSING,
    }  # fmt: skip
