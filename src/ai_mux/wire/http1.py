"""HTTP/1.1 heads: bytes in, meaning out (RFC 9112). No I/O.

llhttp checks the syntax, at about a microsecond a head, because nothing of what
it finds is handed to Python. Our own loop then looks at each line once and notes
the few fields that matter; the others are never touched, so they pass byte for byte.

What llhttp lets through and we refuse (seen with httptools 0.9): other versions
than 1.0 and 1.1, a missing or repeated Host, any transfer coding but a single
``chunked``, a transfer coding in HTTP/1.0, leading zeros in Content-Length, a
second blank in the request line. Two parties that understand framing differently
is how requests are smuggled (RFC 9112, 11.2), so in doubt the answer is 400.
"""

import re
from collections.abc import Collection
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from ai_mux.errors import BadRequest, HeadTooLarge, TargetTooLong, UpstreamError

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
# uri-host [":" port] of RFC 3986, 3.2.2, loosely: nothing in it can end a field or a URL's authority.
_HOST: Final = re.compile(rb"[A-Za-z0-9.\-_~%!$&'()*+,;=\[\]]*(?::[0-9A-Fa-f:\]]*(?::[0-9]*)?)?")
_NAMES_REMEMBERED: Final = 2048

Notable = tuple[int, bytes, bytes]


class FieldNames(dict[bytes, bytes | None]):
    """Maps a field name as spelled to its lower-case form if it is notable, else to None.

    Remembers spellings, because the same clients send the same ones: a look-up is
    one dictionary access. A hostile client can fill it, and then only slows itself.

    Args:
        names: Notable names in lower case. One that ends in ``*`` notes a whole family.
    """

    __slots__ = ("_families", "_names")

    def __init__(self, names: Collection[bytes]) -> None:
        super().__init__()
        self._names = frozenset(name for name in names if not name.endswith(b"*"))
        self._families = tuple(name[:-1] for name in names if name.endswith(b"*"))

    def __missing__(self, spelled: bytes) -> bytes | None:
        lower = spelled.lower()
        notable = lower if lower in self._names or lower.startswith(self._families) else None
        if len(self) < _NAMES_REMEMBERED:
            self[spelled] = notable
        return notable


class RequestHead:
    """A request's head.

    Attributes:
        method: As sent.
        target: The request target as sent.
        path: The target's path, raw; for the absolute form, what follows the authority.
        query: From the ``?`` on, raw; empty when there is none.
        http10: The client speaks HTTP/1.0.
        lines: The head's lines as sent, the request line first.
        notable: (index in ``lines``, lower-case name, stripped value) of the fields that matter.
        length: The body's length in bytes; 0 when there is no body, -1 when it is chunked.
        keep_alive: The client did not ask for the connection to be closed.
        upgrade: It is a bodyless GET that asks for a WebSocket. Any other upgrade is
            ignored, as RFC 9110, 7.8 allows; curl asks for h2c with a POST.
    """

    __slots__ = (
        "http10",
        "keep_alive",
        "length",
        "lines",
        "method",
        "notable",
        "path",
        "query",
        "target",
        "upgrade",
    )

    method: bytes
    target: bytes
    path: bytes
    query: bytes
    http10: bool
    lines: list[bytes]
    notable: list[Notable]
    length: int
    keep_alive: bool
    upgrade: bool

    def first(self, name: bytes) -> bytes | None:
        """Return the value of the first field of this (notable, lower-case) name."""
        for _, noted, value in self.notable:
            if noted == name:
                return value
        return None


class ResponseHead:
    """A response's head.

    Attributes:
        status: The status code.
        lines: The head's lines as sent, the status line first.
        notable: (index in ``lines``, lower-case name, stripped value) of the fields that matter.
        length: The body's length in bytes; -1 when it is chunked, -2 when it ends with the connection.
        keep_alive: The connection may serve another request once the body has ended.
    """

    __slots__ = ("keep_alive", "length", "lines", "notable", "status")

    status: int
    lines: list[bytes]
    notable: list[Notable]
    length: int
    keep_alive: bool


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
    head.lines = lines = raw[:-4].split(b"\r\n")
    _read_request_line(head, lines[0])
    if len(lines) > REQUEST_FIELDS + 1:
        raise HeadTooLarge(f"The request has more than {REQUEST_FIELDS} header fields.")

    head.notable = notable = _note(lines, names)
    hosts = lengths = tokens = keys = 0
    coding = connection = upgrade = None
    head.length = 0
    for _, name, value in notable:
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                raise BadRequest("The Host field is not valid.")
        elif name == b"content-length":
            lengths += 1
            head.length = _length(value)
        elif name == b"transfer-encoding":
            coding = value if coding is None else coding + b"," + value
        elif name == b"connection":
            connection = value if connection is None else connection + b"," + value
        elif name == b"upgrade":
            upgrade = value
        elif name == b"authorization":
            tokens += 1
        elif name == b"x-api-key":
            keys += 1
    if hosts != 1:
        raise BadRequest("The request needs exactly one Host field.")
    if tokens > 1 or keys > 1:
        raise BadRequest("The request has more than one Authorization or x-api-key field.")
    if coding is not None:
        if lengths or head.http10 or coding.lower() != b"chunked":
            raise BadRequest("The only transfer coding understood is a single 'chunked', in HTTP/1.1.")
        head.length = CHUNKED
    elif head.length < 0 or lengths > 1:
        raise BadRequest("The Content-Length field is not valid.")
    options = _options(connection)
    head.keep_alive = not head.http10 and b"close" not in options
    head.upgrade = (
        upgrade is not None
        and upgrade.lower() == b"websocket"
        and b"upgrade" in options
        and head.method == b"GET"
        and head.length == 0
    )
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
    head.lines = lines = raw[:-4].split(b"\r\n")
    status_line = lines[0]
    http10 = status_line.startswith(b"HTTP/1.0 ")
    if not http10 and not status_line.startswith(b"HTTP/1.1 "):
        raise UpstreamError("the response is not HTTP/1.0 or HTTP/1.1")
    if len(lines) > RESPONSE_FIELDS + 1:
        raise UpstreamError(f"the response has more than {RESPONSE_FIELDS} header fields")
    head.status = status = int(status_line[9:12])

    head.notable = notable = _note(lines, names)
    lengths = 0
    coding = connection = None
    length = UNTIL_CLOSE
    for _, name, value in notable:
        if name == b"content-length":
            lengths += 1
            length = _length(value)
        elif name == b"transfer-encoding":
            coding = value if coding is None else coding + b"," + value
        elif name == b"connection":
            connection = value if connection is None else connection + b"," + value
    if lengths and (lengths > 1 or length < 0):
        raise UpstreamError("the response's Content-Length is not valid")
    if coding is not None:
        if lengths or http10 or coding.lower() != b"chunked":
            raise UpstreamError("the response's transfer coding is not a single 'chunked'")
        length = CHUNKED
    if to_head or status in {204, 304} or status < 200:
        length = 0
    head.length = length
    head.keep_alive = not http10 and length != UNTIL_CLOSE and b"close" not in _options(connection)
    return head


def _note(lines: list[bytes], names: FieldNames) -> list[Notable]:
    notable: list[Notable] = []
    for index, line in enumerate(lines):
        if index:  # the first is the request or status line
            name, _, value = line.partition(b":")
            noted = names[name]
            if noted is not None:
                notable.append((index, noted, value.strip(b" \t")))
    return notable


def _read_request_line(head: RequestHead, line: bytes) -> None:
    if len(line) > REQUEST_LINE_BYTES:
        raise TargetTooLong
    parts = line.split(b" ")
    if len(parts) != 3:
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
    if not target.startswith(b"/"):
        scheme, separator, rest = target.partition(b"://")
        if separator and scheme.lower() in {b"http", b"https"}:
            authority, slash, path = rest.partition(b"/")
            host = head.first(b"host")
            if host is None or authority.lower() != host.lower():
                raise BadRequest("The target's authority and the Host field differ.")
            target = slash + path or b"/"
        # else: "*" and the authority form of CONNECT are judged by the path rules
    path, mark, query = target.partition(b"?")
    head.path = path
    head.query = mark + query


def _length(value: bytes) -> int:
    """Return a Content-Length, or -1 where it is not a plain decimal number."""
    if not value.isdigit() or len(value) > _LENGTH_DIGITS or (value[0] == 0x30 and len(value) > 1):
        return -1
    return int(value)


def _options(connection: bytes | None) -> tuple[bytes, ...] | list[bytes]:
    """Return the lower-case connection options (RFC 9110, 7.6.1)."""
    if connection is None:
        return ()
    return [option.strip(b" \t") for option in connection.lower().split(b",")]
