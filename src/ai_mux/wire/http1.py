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
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from ai_mux.errors import BadRequest, HeadTooLarge, TargetTooLong, UpstreamError
from ai_mux.wire.memory import Memory, up_to
from ai_mux.wire.shapes import FieldNames, Found, Parts, Shape

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
# clients write in Connection is shorter than this, and the lines of inference have about 50 bytes.
_REMEMBERED: Final = 256
_OPTIONS_BYTES: Final = 128
_LINE_BYTES: Final = 256
_SLASH: Final = ord("/")
_ZERO: Final = ord("0")
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_VERSIONS: Final = frozenset({b"HTTP/1.0", b"HTTP/1.1"})
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

    __slots__ = ("keep_alive", "length", "options", "parts", "raw", "shape")

    raw: bytes
    shape: Shape
    parts: Parts
    options: frozenset[bytes]
    length: int
    keep_alive: bool

    def value(self, name: bytes) -> bytes | None:
        """Return a notable field's value, or None without one; of a repeated one the last."""
        part = self.shape.places.get(name)
        return None if part is None else self.parts[part].strip(b" \t")

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
    def fields(self) -> dict[bytes, bytes]:
        """The notable fields' values by name; of a repeated one the last, but all that Connection lists."""
        return self.shape.values(self.parts)

    @property
    def notable(self) -> list[tuple[bytes, bytes]]:
        """(lower-case name, stripped value) of the fields that matter, repeated ones too."""
        return [(name, self.parts[part].strip(b" \t")) for part, name in self.shape.notable]

    def listed(self, name: bytes) -> bytes:
        """Return what a notable field lists: fields of one name are one list (RFC 9110, 5.3)."""
        part = self.shape.places.get(name)
        if part is None:  # as most often
            return b""
        if name in self.shape.repeated:
            return b",".join(value for noted, value in self.notable if noted == name)
        return self.parts[part].strip(b" \t")

    def forget(self) -> None:
        """Let go of the bytes: the head has been passed on, and a stream may last for an hour."""
        del self.raw, self.parts


class RequestHead(_Head):
    """A request's head.

    Attributes:
        raw: As sent, blank line included.
        shape: What its names decide.
        parts: It, cut as the shape says.
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


def parse_request(
    raw: bytes, names: FieldNames, found: Found | None = None, *, sought: bool = False
) -> RequestHead:
    """Read one request head, blank line included.

    Args:
        raw: The head's bytes.
        names: The notable names.
        found: It, where ``names`` have found it already.
        sought: They were asked for it, and have not found it.

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
    head.raw, head.shape, head.parts = _, shape, parts = found or (raw, *names.read(raw, sought=sought))
    head.method, head.target, authority, head.path, head.query, http10 = _REQUEST_LINES[parts[0]]
    head.http10 = http10
    if len(shape.spelled) > REQUEST_FIELDS:
        raise HeadTooLarge(f"The request has more than {REQUEST_FIELDS} header fields.")
    if shape.repeated:
        for name, problem in _ONCE.items():
            if name in shape.repeated:
                raise BadRequest(problem)
    head.options = options = _connection_options(shape, parts) if shape.connection else _NO_OPTIONS

    if not shape.host:
        raise BadRequest(_ONCE[b"host"])
    host = parts[shape.host]
    if not _HOSTS[host]:
        raise BadRequest("The Host field is not valid.")
    length = 0
    if shape.coding:
        if shape.length or http10 or not _is_chunked(parts[shape.coding]):
            raise BadRequest(_ONCE[b"transfer-encoding"])
        length = CHUNKED
    elif shape.length:
        length = _length(parts[shape.length])
        if length < 0:
            raise BadRequest(_ONCE[b"content-length"])
    head.length = length
    head.keep_alive = not http10 and b"close" not in options
    head.upgrade = b"upgrade" in options and _asks_for_websocket(head)
    if authority is not None and authority.lower() != host.strip(b" \t").lower():
        raise BadRequest("The target's authority and the Host field differ.")
    return head


def parse_response(
    raw: bytes, names: FieldNames, found: Found | None = None, *, to_head: bool
) -> ResponseHead:
    """Read one response head, blank line included.

    Args:
        raw: The head's bytes.
        names: The notable names.
        found: It, where ``names`` have found it already.
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
    head.raw, head.shape, head.parts = _, shape, parts = found or (raw, *names.read(raw))
    http10, head.status = _, status = _STATUS_LINES[parts[0]]
    if len(shape.spelled) > RESPONSE_FIELDS:
        raise UpstreamError(f"the response has more than {RESPONSE_FIELDS} header fields")
    if shape.repeated and not shape.repeated.isdisjoint(_FRAMING):
        raise UpstreamError("the response has more than one Content-Length or Transfer-Encoding field")
    head.options = options = _connection_options(shape, parts) if shape.connection else _NO_OPTIONS

    length = UNTIL_CLOSE
    if shape.coding:
        if shape.length or http10 or not _is_chunked(parts[shape.coding]):
            raise UpstreamError("the response's transfer coding is not a single 'chunked'")
        length = CHUNKED
    elif shape.length:
        length = _length(parts[shape.length])
        if length < 0:
            raise UpstreamError("the response's Content-Length is not valid")
    if to_head or status in _BODYLESS or status < 200:
        length = 0
    head.length = length
    head.keep_alive = not http10 and length != UNTIL_CLOSE and b"close" not in options
    return head


# Fields


def _connection_options(shape: Shape, parts: Parts) -> frozenset[bytes]:
    """Return what Connection lists, all of it where it comes more than once."""
    repeated = b"connection" in shape.repeated
    return _OPTIONS[shape.values(parts)[b"connection"] if repeated else parts[shape.connection]]


def _options(connection: bytes) -> frozenset[bytes]:
    """Return the lower-case connection options (RFC 9110, 7.6.1)."""
    return frozenset(option.strip(b" \t") for option in connection.lower().split(b","))


_OPTIONS: Final = Memory(_options, keeps=up_to(_OPTIONS_BYTES), most=_REMEMBERED)


def _is_host(value: bytes) -> bool:
    host = value.strip(b" \t")
    return len(host) <= _HOST_BYTES and _HOST.fullmatch(host) is not None


_HOSTS: Final = Memory(_is_host, keeps=up_to(_HOST_BYTES), most=_REMEMBERED)


def _is_chunked(value: bytes) -> bool:
    return value.strip(b" \t").lower() == b"chunked"


def _length(value: bytes) -> int:
    """Return a Content-Length, or -1 where it is not a plain decimal number."""
    value = value.strip(b" \t")
    if not value.isdigit() or len(value) > _LENGTH_DIGITS or (value[0] == _ZERO and len(value) > 1):
        return -1
    return int(value)


def _asks_for_websocket(head: RequestHead) -> bool:
    """Tell whether an upgrade is meant. RFC 9110, 7.8: in HTTP/1.0 it never is."""
    return (
        (head.value(b"upgrade") or b"").lower() == b"websocket"
        and head.method == b"GET"
        and head.length == 0
        and not head.http10
    )


# First lines


def _request_line(line: bytes) -> tuple[bytes, bytes, bytes | None, bytes, bytes, bool]:
    """Return method, target, the absolute form's authority, path, query, and whether it is HTTP/1.0."""
    if len(line) > REQUEST_LINE_BYTES:
        raise TargetTooLong
    parts = line.split(b" ")
    if len(parts) != 3 or not line[:1].isalpha():
        raise BadRequest("The request line is not valid.")
    method, target, version = parts
    if version not in _VERSIONS:
        raise BadRequest("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    authority, rest = None, target
    if target[0] != _SLASH:
        scheme, separator, named = target.partition(b"://")
        if separator and scheme.lower() in {b"http", b"https"}:
            authority, slash, path = named.partition(b"/")
            rest = slash + path or b"/"
        # else: "*" and the authority form of CONNECT are judged by the path rules
    path, mark, query = rest.partition(b"?")
    return method, target, authority, path, mark + query, version == b"HTTP/1.0"


_REQUEST_LINES: Final = Memory(_request_line, keeps=up_to(_LINE_BYTES), most=_REMEMBERED)


def _read_status_line(line: bytes) -> tuple[bool, int]:
    """Return whether it is HTTP/1.0, and the status."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise UpstreamError("the response's status line is not valid in HTTP/1.0 and HTTP/1.1")
    minor, digits = found.groups()
    return minor == b"0", int(digits)


_STATUS_LINES: Final = Memory(_read_status_line, keeps=up_to(_LINE_BYTES), most=_REMEMBERED)
