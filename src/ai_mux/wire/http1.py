"""HTTP/1.1 heads: bytes in, meaning out (RFC 9112). No I/O.

llhttp checks the syntax, at about a microsecond a head, because nothing of what it
finds is handed to Python. Where the few fields that matter stand, the head's shape
tells (``shapes``); the others are never touched, so they pass byte for byte.

What llhttp lets through and we refuse (seen with httptools 0.9): other versions
than 1.0 and 1.1, a missing or repeated Host, any transfer coding but a single
``chunked``, a transfer coding in HTTP/1.0, leading zeros in Content-Length, a
second blank in the request line, CR and LF before the method; and in responses a
status below 100 and control characters in the reason phrase. Two parties that
understand framing differently is how requests are smuggled (RFC 9112, 11.2), so in
doubt the answer is 400.
"""

import re
from functools import lru_cache
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from ai_mux.errors import BadRequest, HeadTooLarge, TargetTooLong, UpstreamError
from ai_mux.wire.shapes import FieldNames, Parts, Shape

# Heads of 70 KB and 200 fields are normal for coding clients; names with underscores too.
REQUEST_HEAD_BYTES: Final = 128 * 1024
REQUEST_FIELDS: Final = 256
RESPONSE_HEAD_BYTES: Final = 256 * 1024
RESPONSE_FIELDS: Final = 512
# RFC 9112, section 3 asks for 8000 octets at least; model ids and betas in a query stay far below twice that.
REQUEST_LINE_BYTES: Final = 16 * 1024

HEAD_END: Final = b"\r\n\r\n"

# More digits would be over 888 petabytes, and past what any peer could mean.
_LENGTH_DIGITS: Final = 18
# uri-host [":" port] of RFC 3986, 3.2.2: a name or IPv4 address, or an IP literal in brackets.
# Not empty: no http URI has an empty host (RFC 9110, 4.2.1). A DNS name has 253 characters at most.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9.\-_~%!$&'()*+,;=]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_HOST_BYTES: Final = 262
# The first digit of a status code is its class (RFC 9110, 15); reason-phrase is of RFC 9112, section 4.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?")

# What is remembered comes from strangers too, so both number and length are bounded. What
# clients write in Connection is shorter than this.
_VALUES_REMEMBERED: Final = 256
_OPTIONS_BYTES: Final = 128
_STATUS_LINES_REMEMBERED: Final = 64  # of providers, who send the same few
_SLASH: Final = ord("/")
_ZERO: Final = ord("0")
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_BODYLESS: Final = frozenset({204, 304})
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()

# Fields that may come once: a second one makes two readers disagree about the request.
_ONCE: Final = {
    b"host": "The request needs exactly one Host field.",
    b"content-length": "The request needs one Content-Length field at most, a plain decimal number.",
    b"transfer-encoding": "The only transfer coding understood is a single 'chunked', in HTTP/1.1.",
    b"authorization": "The request has more than one Authorization or x-api-key field.",
    b"x-api-key": "The request has more than one Authorization or x-api-key field.",
}


class _Head:
    """What requests and responses have in common."""

    __slots__ = ("fields", "keep_alive", "length", "options", "parts", "raw", "shape")

    raw: bytes
    shape: Shape
    parts: Parts
    fields: dict[bytes, bytes]
    options: frozenset[bytes]
    length: int
    keep_alive: bool

    @property
    def lines(self) -> list[bytes]:
        """Its lines, the first one included."""
        return self.raw[:-4].split(b"\r\n")

    @property
    def sent(self) -> dict[bytes, bytes]:
        """The fields' values by their names as spelled, for the log."""
        split = (line.partition(b":") for line in self.lines[1:])
        return {name: value.strip(b" \t") for name, _, value in split}

    @property
    def notable(self) -> list[tuple[bytes, bytes]]:
        """(lower-case name, stripped value) of the fields that matter, repeated ones too."""
        return [(name, self.parts[part].strip(b" \t")) for part, name in self.shape.notable]

    def listed(self, name: bytes) -> bytes:
        """Return what a notable field lists: fields of one name are one list (RFC 9110, 5.3)."""
        if name in self.shape.repeated:
            return b",".join(value for noted, value in self.notable if noted == name)
        return self.fields.get(name, b"")

    def forget(self) -> None:
        """Let go of the bytes: the head has been passed on, and a stream may last for an hour."""
        del self.raw, self.parts, self.fields


class RequestHead(_Head):
    """A request's head.

    Attributes:
        raw: As sent, blank line included.
        shape: What its names decide.
        parts: It, cut as the shape says.
        fields: The notable fields' values by name; of a repeated one the last, but all that Connection lists.
        options: What Connection lists, in lower case.
        method: As sent.
        target: The request target as sent.
        path: The target's path, raw; for the absolute form, what follows the authority.
        query: From the ``?`` on, raw; empty when there is none.
        http10: The client speaks HTTP/1.0.
        length: The body's length in bytes; 0 when there is no body, ``CHUNKED`` when it is chunked.
        keep_alive: The client did not ask for the connection to be closed.
        upgrade: It is a bodyless GET that asks for a WebSocket. Any other upgrade is
            ignored, as RFC 9110, 7.8 allows; curl asks for h2c with a POST.
    """

    __slots__ = ("http10", "method", "path", "query", "target", "upgrade")

    method: bytes
    target: bytes
    path: bytes
    query: bytes
    http10: bool
    upgrade: bool


class ResponseHead(_Head):
    """A response's head.

    Attributes:
        raw: As sent, blank line included.
        shape: As in a request.
        parts: As in a request.
        fields: As in a request.
        options: As in a request.
        status: The status code, 100 to 999.
        length: The body's length in bytes, ``CHUNKED``, or ``UNTIL_CLOSE``.
        keep_alive: The connection may serve another request once the body has ended.
    """

    __slots__ = ("status",)

    status: int


CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2


class _Silent:
    """Gives llhttp no callback for fields and body, so that it walks them in C."""

    __slots__ = ()


_SILENT: Final = _Silent()


def parse_request(raw: bytes, names: FieldNames) -> RequestHead:
    """Read one request head, blank line included.

    Raises:
        BadRequest: For whatever RFC 9112 or this module's first paragraphs refuse.
        HeadTooLarge: More than ``REQUEST_FIELDS`` fields.
        TargetTooLong: The request line is longer than ``REQUEST_LINE_BYTES``.
    """
    try:
        HttpRequestParser(_SILENT).feed_data(raw)
    except HttpParserUpgrade:
        pass  # what llhttp calls an upgrade is judged below
    except HttpParserError as exc:
        raise BadRequest("The request is not valid HTTP/1.1.") from exc

    head = RequestHead()
    head.raw = raw
    head.shape, head.parts = shape, parts = names.read(raw)
    _read_request_line(head, parts[0])
    if len(shape.spelled) > REQUEST_FIELDS:
        raise HeadTooLarge(f"The request has more than {REQUEST_FIELDS} header fields.")
    if shape.repeated:
        for name, problem in _ONCE.items():
            if name in shape.repeated:
                raise BadRequest(problem)
    head.fields = fields = shape.values(parts)
    head.options = options = _connection_options(fields)

    host = fields.get(b"host")
    if host is None:
        raise BadRequest(_ONCE[b"host"])
    if len(host) > _HOST_BYTES or not _is_host(host):
        raise BadRequest("The Host field is not valid.")
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or head.http10 or coding.lower() != b"chunked":
            raise BadRequest(_ONCE[b"transfer-encoding"])
        head.length = CHUNKED
    elif length is not None:
        head.length = _length(length)
        if head.length < 0:
            raise BadRequest(_ONCE[b"content-length"])
    else:
        head.length = 0
    head.keep_alive = not head.http10 and b"close" not in options
    head.upgrade = b"upgrade" in options and _asks_for_websocket(head)
    _split_target(head)
    return head


def parse_response(raw: bytes, names: FieldNames, *, to_head: bool) -> ResponseHead:
    """Read one response head, blank line included.

    Args:
        raw: The head's bytes.
        names: The notable names.
        to_head: The request was a HEAD, so no body follows (RFC 9112, 6.3).

    Raises:
        UpstreamError: For a head or a framing that cannot be trusted.
    """
    try:
        HttpResponseParser(_SILENT).feed_data(raw)
    except HttpParserUpgrade:
        pass  # judged by its status
    except HttpParserError as exc:
        raise UpstreamError(f"the response head is not valid HTTP/1.1: {exc}") from exc

    head = ResponseHead()
    head.raw = raw
    head.shape, head.parts = shape, parts = names.read(raw)
    http10, status = _read_status_line(parts[0])
    head.status = status
    if len(shape.spelled) > RESPONSE_FIELDS:
        raise UpstreamError(f"the response has more than {RESPONSE_FIELDS} header fields")
    if not shape.repeated.isdisjoint(_FRAMING):
        raise UpstreamError("the response has more than one Content-Length or Transfer-Encoding field")
    head.fields = fields = shape.values(parts)
    head.options = _connection_options(fields)

    declared, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    length = UNTIL_CLOSE
    if coding is not None:
        if declared is not None or http10 or coding.lower() != b"chunked":
            raise UpstreamError("the response's transfer coding is not a single 'chunked'")
        length = CHUNKED
    elif declared is not None:
        length = _length(declared)
        if length < 0:
            raise UpstreamError("the response's Content-Length is not valid")
    if to_head or status in _BODYLESS or status < 200:
        length = 0
    head.length = length
    head.keep_alive = not http10 and length != UNTIL_CLOSE and b"close" not in head.options
    return head


# Fields


def _connection_options(fields: dict[bytes, bytes]) -> frozenset[bytes]:
    connection = fields.get(b"connection")
    if connection is None:
        return _NO_OPTIONS
    if len(connection) <= _OPTIONS_BYTES:
        return _options(connection)
    return _options.__wrapped__(connection)


@lru_cache(maxsize=_VALUES_REMEMBERED)
def _options(connection: bytes) -> frozenset[bytes]:
    """Return the lower-case connection options (RFC 9110, 7.6.1)."""
    return frozenset(option.strip(b" \t") for option in connection.lower().split(b","))


@lru_cache(maxsize=_VALUES_REMEMBERED)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _length(value: bytes) -> int:
    """Return a Content-Length, or -1 where it is not a plain decimal number."""
    if not value.isdigit() or len(value) > _LENGTH_DIGITS or (value[0] == _ZERO and len(value) > 1):
        return -1
    return int(value)


def _asks_for_websocket(head: RequestHead) -> bool:
    """Tell whether an upgrade is meant. RFC 9110, 7.8: in HTTP/1.0 it never is."""
    return (
        head.fields.get(b"upgrade", b"").lower() == b"websocket"
        and head.method == b"GET"
        and head.length == 0
        and not head.http10
    )


# First lines


def _read_request_line(head: RequestHead, line: bytes) -> None:
    if len(line) > REQUEST_LINE_BYTES:
        raise TargetTooLong
    parts = line.split(b" ")
    if len(parts) != 3 or not line[:1].isalpha():
        raise BadRequest("The request line is not valid.")
    head.method, head.target, version = parts
    if version == b"HTTP/1.1":
        head.http10 = False
    elif version == b"HTTP/1.0":
        head.http10 = True
    else:
        raise BadRequest("Only HTTP/1.0 and HTTP/1.1 are spoken here.")


def _split_target(head: RequestHead) -> None:
    target = head.target
    if target[0] != _SLASH:
        scheme, separator, rest = target.partition(b"://")
        if separator and scheme.lower() in {b"http", b"https"}:
            authority, slash, path = rest.partition(b"/")
            if authority.lower() != head.fields[b"host"].lower():
                raise BadRequest("The target's authority and the Host field differ.")
            target = slash + path or b"/"
        # else: "*" and the authority form of CONNECT are judged by the path rules
    mark = target.find(b"?")
    if mark < 0:
        head.path, head.query = target, b""
    else:
        head.path, head.query = target[:mark], target[mark:]


@lru_cache(maxsize=_STATUS_LINES_REMEMBERED)
def _read_status_line(line: bytes) -> tuple[bool, int]:
    """Return whether it is HTTP/1.0, and the status."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise UpstreamError("the response's status line is not valid in HTTP/1.0 and HTTP/1.1")
    minor, digits = found.groups()
    return minor == b"0", int(digits)
