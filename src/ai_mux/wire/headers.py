"""Which header fields pass, which do not, and why.

Everything that is not named here passes byte for byte, in its place. What is
named is looked at once, by index; the other lines are never touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

from ai_mux.wire.http1 import CHUNKED, HEAD_END, Notable, RequestHead, ResponseHead

# What the client says to us and not to the provider. Forwarding the first four
# would hand our users' tokens to a third party.
_FOR_US_ONLY: Final = frozenset({b"authorization", b"x-api-key", b"cookie", b"host", b"expect"})

# RFC 9110, section 7.6.1: a proxy removes Connection and every field it names, and
# these. Trailer is our addition for requests: we forward no trailers, so we announce none.
_HOP_BY_HOP_REQUEST: Final = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-*"}
)
_HOP_BY_HOP_RESPONSE: Final = frozenset({b"connection", b"keep-alive", b"te", b"upgrade", b"proxy-*"})

# Where the user sits is the user's affair, not the provider's; and a field that a
# client may write freely must not reach someone who might trust it.
_FORWARDING: Final = frozenset(
    {
        b"forwarded",
        b"x-forwarded-*",
        b"x-real-ip",
        b"x-client-ip",
        b"true-client-ip",
        b"via",
        b"cf-*",
        b"cdn-loop",
    }
)

# They speak for the provider's host, not for ours.
_FOR_ANOTHER_HOST: Final = frozenset(
    {b"set-cookie", b"alt-svc", b"strict-transport-security", b"nel", b"report-to"}
)

# What Connection may not remove: a client could strip what frames or addresses its request.
# The other three are no fields here: two are options, and Upgrade has rules of its own.
_NEVER_NAMED: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization"}
    | {b"close", b"keep-alive", b"upgrade", b""}
)

# A WebSocket's handshake keeps these two (RFC 6455, 4.1) and loses its extensions:
# frames that only the two ends can read could not be metered.
_HANDSHAKE: Final = ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
_SWITCHING: Final = frozenset({b"connection", b"upgrade"})
_ONLY_UPGRADE: Final = frozenset({b"upgrade"})

# Looked at by the head parser, the admission or the exchange, and passed on.
_LOOKED_AT: Final = frozenset(
    {
        b"accept-encoding",
        b"content-length",
        b"transfer-encoding",
        b"origin",
        b"x-stainless-timeout",
        b"x-stainless-read-timeout",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-version",
    }
)

NOTABLE_IN_REQUESTS: Final = _FOR_US_ONLY | _HOP_BY_HOP_REQUEST | _FORWARDING | _LOOKED_AT
NOTABLE_IN_RESPONSES: Final = (
    _HOP_BY_HOP_RESPONSE
    | _FOR_ANOTHER_HOST
    | {b"content-length", b"transfer-encoding", b"request-id", b"x-request-id"}
)
_DROPPED_FROM_REQUESTS: Final = _FOR_US_ONLY | _HOP_BY_HOP_REQUEST | _FORWARDING
_DROPPED_FROM_RESPONSES: Final = _HOP_BY_HOP_RESPONSE | _FOR_ANOTHER_HOST

# The codings that every official client can name (RFC 9110, 8.4.1; zstd: RFC 8878,
# br: RFC 7932). Others would pass a body that no meter could read.
_CODINGS: Final = frozenset({b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"identity"})
# Clients send a handful of values, all short; strangers could send any.
_REMEMBERED: Final = 256
_REMEMBERED_BYTES: Final = 128


class _Fate(Enum):
    """What becomes of a noted field, unless it is put: then its new value is its fate."""

    PASSES = auto()
    DROPPED = auto()
    RESTRICTED = auto()  # Accept-Encoding
    COMPLETED = auto()  # must contain a member


# Looked up once: an attribute of an Enum costs as much as the rest of the decision.
_PASSES: Final = _Fate.PASSES
_DROPPED: Final = _Fate.DROPPED
_RESTRICTED: Final = _Fate.RESTRICTED
_COMPLETED: Final = _Fate.COMPLETED
_COMPLETE: Final = -1  # in the place of a line's index: no line needs the member


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a provider and its credential change in a request's header.

    Attributes:
        put: (name, value) pairs, each in the place of the client's field of that
            name (any case, its spelling kept), else at the end.
        drop: Lower-case names of client fields that do not pass.
        include: (name, member) pairs: the comma-separated field must contain the
            member; it is appended to the last such field where it does not.
    """

    put: tuple[tuple[bytes, bytes], ...] = ()
    drop: frozenset[bytes] = frozenset()
    include: tuple[tuple[bytes, bytes], ...] = ()


class RequestRules:
    """What is changed in the requests of one provider with one credential.

    Built once for each credential; applied to every request.

    Args:
        host: The value of Host upstream.
        configured: The operator's ``headers``: set, or removed where None. Applied
            before ours, so they can never displace a credential.
        changes: The provider's own.
        handshake: For requests that ask for a WebSocket.
    """

    __slots__ = ("_adds_encoding", "_ends", "_families", "_fates", "_members")

    def __init__(
        self,
        *,
        host: bytes,
        configured: Mapping[bytes, bytes | None],
        changes: Changes,
        handshake: bool = False,
    ) -> None:
        put: dict[bytes, bytes] = {}
        spelled: dict[bytes, bytes] = {}
        drop = set(_DROPPED_FROM_REQUESTS | changes.drop)
        members = dict(changes.include)
        for name, value in configured.items():
            lower = name.lower()
            if value is None:
                drop.add(lower)
            else:
                put[lower], spelled[lower] = value, name
        for name, value in ((b"Host", host), *changes.put, *(_HANDSHAKE if handshake else ())):
            put[name.lower()], spelled[name.lower()] = value, name
        for name in tuple(members):
            if name in put:
                put[name] = _with_member(put[name], members.pop(name))

        # The last word counts: what is put is put, although the client's is dropped.
        fates: dict[bytes, bytes | _Fate] = dict.fromkeys(_LOOKED_AT, _PASSES)
        fates[b"accept-encoding"] = _RESTRICTED
        if handshake:
            fates[b"sec-websocket-extensions"] = _DROPPED
        fates[b"transfer-encoding"] = b": chunked"  # our own framing, in the client's place
        fates.update(dict.fromkeys(members, _COMPLETED))
        fates.update((name, _DROPPED) for name in drop if not name.endswith(b"*"))
        fates.update((name, b": " + value) for name, value in put.items())
        self._fates = fates
        self._families = tuple(name[:-1] for name in drop if name.endswith(b"*"))
        self._members = members
        self._ends = tuple((name, spelled[name] + b": " + value) for name, value in put.items())
        self._adds_encoding = b"accept-encoding" not in put

    @property
    def notable(self) -> frozenset[bytes]:
        """The lower-case names that the head parser must note for these rules."""
        return frozenset(self._fates) | {family + b"*" for family in self._families}

    def apply(self, head: RequestHead, target: bytes) -> bytes:
        """Return the head as it goes upstream, blank line included.

        Args:
            head: The client's. It is left as it is, because a replay needs it again.
            target: The request target upstream.
        """
        fates, members = self._fates, self._members
        lines = head.lines.copy()
        lines[0] = b"%b %b HTTP/1.1" % (head.method, target)
        notable = head.notable
        gone: list[int] = []  # indexes of the lines that do not pass
        named = head.options - _NEVER_NAMED
        if named:
            notable = _without(named, lines, notable, gone)
        refused: list[int] = []  # indexes of Accept-Encoding lines in which nothing is left
        adds_encoding = self._adds_encoding
        placed: dict[bytes, int] = {}
        for index, name, value in notable:
            fate = fates.get(name)
            if fate is _PASSES:
                continue
            if fate is _DROPPED:
                gone.append(index)
            elif fate is _RESTRICTED:
                kept = _kept_codings(value)
                if kept:
                    adds_encoding = False
                    if kept != value:
                        lines[index] = lines[index][: len(name)] + b": " + kept
                else:
                    refused.append(index)
            elif fate is _COMPLETED:
                if placed.get(name) != _COMPLETE:
                    placed[name] = _COMPLETE if _has_member(value, members[name]) else index
            elif fate is None:
                if name.startswith(self._families):
                    gone.append(index)
            elif name in placed:
                gone.append(index)
            else:
                placed[name] = index
                lines[index] = lines[index][: len(name)] + fate
        if refused and adds_encoding:
            index = refused.pop(0)
            lines[index] = lines[index][: len(b"accept-encoding")] + b": identity"
            adds_encoding = False
        for name, member in members.items():
            last = placed.get(name)
            if last is None:
                lines.append(name + b": " + member)
            elif last != _COMPLETE:
                line = lines[last].rstrip(b" \t")
                is_empty = len(line) == len(name) + 1
                lines[last] = line + (b" " if is_empty else b",") + member
        for name, line in self._ends:
            if name not in placed:
                lines.append(line)
        if adds_encoding:
            lines.append(b"Accept-Encoding: identity")
        gone += refused
        gone.sort(reverse=True)
        for index in gone:
            del lines[index]
        lines.append(b"\r\n")
        return b"\r\n".join(lines)


def respond(
    head: ResponseHead,
    *,
    id_field: bytes,
    request_id: str,
    decoded: bool = False,
    close: bool = False,
    switching: bool = False,
) -> bytes:
    """Return the response head as it goes to the client, blank line included.

    Args:
        head: The upstream's.
        id_field: The field for our request id, which is added only where the
            upstream sent none.
        request_id: Our id.
        decoded: A chunked body is taken apart on its way, for an HTTP/1.0 client.
        close: The client's connection ends with this response.
        switching: It is a 101 that opens a WebSocket.
    """
    raw = head.raw
    named = head.options - _NEVER_NAMED
    gone = _starts_of(named, raw) if named else []
    for start, name, _ in head.notable:
        if switching and name in _SWITCHING and (name == b"upgrade" or head.options == _ONLY_UPGRADE):
            continue
        if (
            name in _DROPPED_FROM_RESPONSES
            or (name == b"transfer-encoding" and (decoded or head.length != CHUNKED))
            or name.startswith(b"proxy-")
        ):
            gone.append(start)
    added = b""
    if id_field not in head.fields or id_field in named:
        added = b"\r\n" + id_field + b": " + request_id.encode("ascii")
    if close:
        added += b"\r\nConnection: close"
    elif switching and head.options != _ONLY_UPGRADE:
        added += b"\r\nConnection: Upgrade"
    is_http11 = raw.startswith(b"HTTP/1.1")
    if is_http11 and not gone and not added:
        return raw
    pieces = [b"" if is_http11 else b"HTTP/1.1"]
    at = 0 if is_http11 else 8
    for start in sorted(set(gone)):
        pieces.append(raw[at : start - 2])  # the CR LF before a line goes with it
        at = raw.find(b"\r\n", start)
    pieces += (raw[at:-4], added, HEAD_END)
    return b"".join(pieces)


def _starts_of(named: frozenset[bytes], raw: bytes) -> list[int]:
    """Return where the fields begin that Connection names."""
    starts = []
    start = raw.find(b"\r\n") + 2
    while (end := raw.find(b"\r\n", start)) > start:
        if raw[start:end].partition(b":")[0].lower() in named:
            starts.append(start)
        start = end + 2
    return starts


def _without(
    named: frozenset[bytes], lines: list[bytes], notable: list[Notable], gone: list[int]
) -> list[Notable]:
    """Add to ``gone`` the lines that Connection names, and return what is notable in the rest."""
    gone += [i for i, line in enumerate(lines) if i and line.partition(b":")[0].lower() in named]
    return [field for field in notable if field[1] not in named]


def _kept_codings(value: bytes) -> bytes:
    """Return an Accept-Encoding without the codings that are not known; the bytes as they are if all are."""
    return _known_codings(value) if len(value) <= _REMEMBERED_BYTES else _known_codings.__wrapped__(value)


@lru_cache(maxsize=_REMEMBERED)
def _known_codings(value: bytes) -> bytes:
    members = [member for member in (part.strip(b" \t") for part in value.split(b",")) if member]
    kept = [member for member in members if member.partition(b";")[0].strip(b" \t").lower() in _CODINGS]
    return value if kept and len(kept) == len(members) else b", ".join(kept)


def _has_member(value: bytes, member: bytes) -> bool:
    return member in value and member in [part.strip(b" \t") for part in value.split(b",")]


def _with_member(value: bytes, member: bytes) -> bytes:
    present = member in [part.strip(b" \t") for part in value.split(b",")]
    return value if present else value + b"," + member
