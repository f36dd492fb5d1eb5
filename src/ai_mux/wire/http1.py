"""HTTP/1.1 heads: bytes in, meaning out (RFC 9112). No I/O.

llhttp checks the syntax and hands every field to a dictionary's ``setdefault``, so
that no Python runs for a field. One look at the names tells the few that matter;
those are found again in the raw bytes. The others are never touched, so they pass
byte for byte.

What llhttp lets through and we refuse (seen with httptools 0.9): other versions
than 1.0 and 1.1, a missing or repeated Host, any transfer coding but a single
``chunked``, a transfer coding in HTTP/1.0, leading zeros in Content-Length, a
second blank in the request line. Two parties that understand framing differently
is how requests are smuggled (RFC 9112, 11.2), so in doubt the answer is 400.
"""

import re
from collections.abc import Callable, Collection
from functools import lru_cache
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
# uri-host [":" port] of RFC 3986, 3.2.2: a name or IPv4 address, or an IP literal in brackets.
# Not empty: no http URI has an empty host (RFC 9110, 4.2.1). A DNS name has 253 characters at most.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9.\-_~%!$&'()*+,;=]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_HOST_BYTES: Final = 262
# The first digit of a status code is its class (RFC 9110, 15); reason-phrase is of RFC 9112, section 4.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?\r\n")

# What is remembered comes from strangers too, so both number and length are bounded. The
# clients' names are shorter than this, and so is what they write in Connection.
_NAMES_REMEMBERED: Final = 2048
_NAME_BYTES: Final = 64
_VALUES_REMEMBERED: Final = 256
_OPTIONS_BYTES: Final = 128
_SLASH: Final = ord("/")
_ZERO: Final = ord("0")
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()

# Fields that may come once: a second one makes two readers disagree about the request.
_ONCE: Final = {
    b"host": "The request needs exactly one Host field.",
    b"content-length": "The Content-Length field is not valid.",
    b"transfer-encoding": "The only transfer coding understood is a single 'chunked', in HTTP/1.1.",
    b"authorization": "The request has more than one Authorization or x-api-key field.",
    b"x-api-key": "The request has more than one Authorization or x-api-key field.",
}


Notable = tuple[int, bytes, bytes, bytes]
"""A field that matters: where it starts, or -1 for where its spelling is first found; its
lower-case name; how it begins on the wire, CR LF before it included; its value, stripped."""


class FieldNames:
    """Tells which field names matter, in whatever spelling.

    Remembers spellings, because the same clients send the same ones. A hostile
    client can fill the memory, and then only slows itself.

    Attributes:
        plain: Spellings of names that do not matter.
        notable: What ``look_up`` found for the others.
    """

    __slots__ = ("_families", "_names", "notable", "plain")

    def __init__(self, names: Collection[bytes]) -> None:
        """Note these lower-case names; one that ends in ``*`` notes a whole family."""
        self._names = frozenset(name for name in names if not name.endswith(b"*"))
        self._families = tuple(name[:-1] for name in names if name.endswith(b"*"))
        self.notable: dict[bytes, tuple[bytes, bytes]] = {}
        self.plain: set[bytes] = set()

    def look_up(self, spelled: bytes) -> tuple[bytes, bytes] | None:
        """Return a name in lower case, and how its field begins on the wire; None if it does not matter."""
        known = self.notable.get(spelled)
        if known is not None:
            return known
        lower = spelled.lower()
        has_room = len(spelled) <= _NAME_BYTES and len(self.plain) + len(self.notable) < _NAMES_REMEMBERED
        if lower not in self._names and not lower.startswith(self._families):
            if has_room:
                self.plain.add(spelled)
            return None
        known = (lower, b"\r\n" + spelled + b":")
        if has_room:
            self.notable[spelled] = known
        return known


class RequestHead:
    """A request's head.

    Attributes:
        raw: As sent, blank line included.
        sent: The value of each field as spelled, of the first where a spelling is repeated.
        notable: The fields that matter, in their order.
        fields: Their values by lower-case name; those of a repeated name as one list (RFC 9110, 5.2).
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

    __slots__ = (
        "fields",
        "http10",
        "keep_alive",
        "length",
        "method",
        "notable",
        "path",
        "query",
        "raw",
        "sent",
        "target",
        "upgrade",
    )

    raw: bytes
    sent: dict[bytes, bytes]
    notable: list[Notable]
    fields: dict[bytes, bytes]
    method: bytes
    target: bytes
    path: bytes
    query: bytes
    http10: bool
    length: int
    keep_alive: bool
    upgrade: bool


class ResponseHead:
    """A response's head.

    Attributes:
        raw: As sent, blank line included.
        sent: The value of each field as spelled, of the first where a spelling is repeated.
        notable: The fields that matter, in their order.
        fields: Their values by lower-case name; those of a repeated name as one list (RFC 9110, 5.2).
        status: The status code.
        length: The body's length in bytes, ``CHUNKED``, or ``UNTIL_CLOSE``.
        keep_alive: The connection may serve another request once the body has ended.
    """

    __slots__ = ("fields", "keep_alive", "length", "notable", "raw", "sent", "status")

    raw: bytes
    sent: dict[bytes, bytes]
    notable: list[Notable]
    fields: dict[bytes, bytes]
    status: int
    length: int
    keep_alive: bool


CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2


class _Fields:
    """What llhttp is given to call: for each field, a dictionary's ``setdefault``."""

    __slots__ = ("on_header",)

    def __init__(self, on_header: Callable[[bytes, bytes], bytes]) -> None:
        self.on_header = on_header


def parse_request(raw: bytes, names: FieldNames) -> RequestHead:
    """Read one request head, blank line included.

    Raises:
        BadRequest: For whatever RFC 9112 or this module's first paragraphs refuse.
        HeadTooLarge: More than ``REQUEST_FIELDS`` fields.
        TargetTooLong: The request line is longer than ``REQUEST_LINE_BYTES``.
    """
    head = RequestHead()
    head.raw = raw
    sent: dict[bytes, bytes] = {}
    head.sent = sent
    try:
        HttpRequestParser(_Fields(sent.setdefault)).feed_data(raw)
    except HttpParserUpgrade:
        pass  # what llhttp calls an upgrade is judged below
    except HttpParserError as exc:
        raise BadRequest("The request is not valid HTTP/1.1.") from exc

    _read_request_line(head, raw[: raw.find(b"\r\n")])
    count = _count(raw)
    if count > REQUEST_FIELDS:
        raise HeadTooLarge(f"The request has more than {REQUEST_FIELDS} header fields.")
    head.notable = notable = _note(raw, sent, names, repeated=count != len(sent))
    head.fields = fields = {name: value for _, name, _, value in notable}
    if len(fields) < len(notable):
        head.fields = fields = _listed(notable)
        for name, problem in _ONCE.items():
            if sum(name == field[1] for field in notable) > 1:
                raise BadRequest(problem)

    host = fields.get(b"host")
    if host is None:
        raise BadRequest(_ONCE[b"host"])
    if not _is_host(host):
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
    connection = fields.get(b"connection")
    options = _NO_OPTIONS if connection is None else _options(connection)
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
    head = ResponseHead()
    head.raw = raw
    sent: dict[bytes, bytes] = {}
    head.sent = sent
    try:
        HttpResponseParser(_Fields(sent.setdefault)).feed_data(raw)
    except HttpParserUpgrade:
        pass  # judged by its status
    except HttpParserError as exc:
        raise UpstreamError(f"the response head is not valid HTTP/1.1: {exc}") from exc

    status_line = _STATUS_LINE.match(raw)
    if status_line is None:
        raise UpstreamError("the response's status line is not valid in HTTP/1.0 and HTTP/1.1")
    minor, digits = status_line.groups()
    http10 = minor == b"0"
    head.status = status = int(digits)
    count = _count(raw)
    if count > RESPONSE_FIELDS:
        raise UpstreamError(f"the response has more than {RESPONSE_FIELDS} header fields")
    head.notable = notable = _note(raw, sent, names, repeated=count != len(sent))
    head.fields = fields = {name: value for _, name, _, value in notable}
    if len(fields) < len(notable):
        head.fields = fields = _listed(notable)
        for name in (b"content-length", b"transfer-encoding"):
            if sum(name == field[1] for field in notable) > 1:
                raise UpstreamError(f"the response has more than one {name.decode('ascii')}")

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
    if to_head or status in {204, 304} or status < 200:
        length = 0
    head.length = length
    connection = fields.get(b"connection")
    options = _NO_OPTIONS if connection is None else _options(connection)
    head.keep_alive = not http10 and length != UNTIL_CLOSE and b"close" not in options
    return head


def _count(raw: bytes) -> int:
    """Return how many fields a head has. llhttp lets nothing but CR LF end a line, and no line fold."""
    return raw.count(b"\n") - 2


def _listed(notable: list[Notable]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for _, name, _, value in notable:
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def _note(raw: bytes, sent: dict[bytes, bytes], names: FieldNames, *, repeated: bool) -> list[Notable]:
    """Return the notable fields, in their order."""
    plain, known = names.plain, names.notable
    notable: list[Notable] = []
    for spelled in [name for name in sent if name not in plain]:
        found = known.get(spelled) or names.look_up(spelled)
        if found is not None:
            notable.append((-1, *found, sent[spelled].rstrip(b" \t")))
    return _note_all(raw, notable) if repeated else notable


def _note_all(raw: bytes, firsts: list[Notable]) -> list[Notable]:
    """Find the further fields of repeated spellings, of which the dictionary holds the first only."""
    notable: list[Notable] = []
    for _, name, beginning, _ in firsts:
        at = -1
        while (at := raw.find(beginning, at + 1)) >= 0:
            value = raw[at + len(beginning) : raw.find(b"\r\n", at + 2)]
            notable.append((at + 2, name, beginning, value.strip(b" \t")))
    notable.sort()
    return notable


def place(raw: bytes, field: Notable) -> tuple[int, int]:
    """Return where a notable field starts in its raw head, and where it ends, CR LF not included."""
    start = field[0]
    if start < 0:
        start = raw.find(field[2]) + 2
    return start, raw.find(b"\r\n", start)


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


def _asks_for_websocket(head: RequestHead) -> bool:
    """Tell whether an upgrade is meant. RFC 9110, 7.8: in HTTP/1.0 it never is."""
    return (
        head.fields.get(b"upgrade", b"").lower() == b"websocket"
        and head.method == b"GET"
        and head.length == 0
        and not head.http10
    )


def _length(value: bytes) -> int:
    """Return a Content-Length, or -1 where it is not a plain decimal number."""
    if not value.isdigit() or len(value) > _LENGTH_DIGITS or (value[0] == _ZERO and len(value) > 1):
        return -1
    return int(value)


def _is_host(value: bytes) -> bool:
    return len(value) <= _HOST_BYTES and _matches_host(value)


@lru_cache(maxsize=_VALUES_REMEMBERED)
def _matches_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _options(connection: bytes) -> frozenset[bytes]:
    """Return the lower-case connection options (RFC 9110, 7.6.1)."""
    return (
        _split_options(connection)
        if len(connection) <= _OPTIONS_BYTES
        else _split_options.__wrapped__(connection)
    )


@lru_cache(maxsize=_VALUES_REMEMBERED)
def _split_options(connection: bytes) -> frozenset[bytes]:
    return frozenset(option.strip(b" \t") for option in connection.lower().split(b","))
