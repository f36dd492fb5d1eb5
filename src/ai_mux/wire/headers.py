"""Which header fields pass, which do not, and why.

Everything that is not named here passes byte for byte, in its place. What is
named is looked at once, by index; the other lines are never touched.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from operator import itemgetter
from typing import Final

from ai_mux.wire.http1 import CHUNKED, RequestHead, ResponseHead
from ai_mux.wire.memory import Memory, up_to
from ai_mux.wire.shapes import Parts, Shape

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
_NOTHING: Final[frozenset[bytes]] = frozenset()

# Looked at by the head parser, the admission or the exchange, and passed on.
_LOOKED_AT: Final = frozenset(
    {
        b"accept-encoding",
        b"content-length",
        b"transfer-encoding",
        b"origin",
        b"x-stainless-timeout",
        b"x-stainless-read-timeout",
        b"content-encoding",
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
    | {b"content-type", b"content-encoding"}  # what the meter goes by
)
_DROPPED_FROM_REQUESTS: Final = _FOR_US_ONLY | _HOP_BY_HOP_REQUEST | _FORWARDING
_DROPPED_FROM_RESPONSES: Final = _HOP_BY_HOP_RESPONSE | _FOR_ANOTHER_HOST
_DROPPED_WITH_CODING: Final = _DROPPED_FROM_RESPONSES | {b"transfer-encoding"}

# The codings that every official client can name (RFC 9110, 8.4.1; zstd: RFC 8878,
# br: RFC 7932). Others would pass a body that no meter could read.
_CODINGS: Final = frozenset({b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"identity"})
# Clients send a handful of values, all short; strangers could send any.
_REMEMBERED: Final = 256
_EDITS: Final = 64  # more than there are shapes kept at a time
_REMEMBERED_BYTES: Final = 128


class _Fate(Enum):
    """What becomes of a noted field, unless it is put: then its new value is its fate."""

    PASSES = auto()
    DROPPED = auto()
    RESTRICTED = auto()  # Accept-Encoding
    COMPLETED = auto()  # must contain a member


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    """What is changed in every head of one shape.

    Attributes:
        pieces: What the changed head consists of: by turns what is the same in all of them, and
            room for one part, or for what is put in its place.
        taken: Picks what goes into the room: the first line, and all parts that pass or are looked at.
        coding: The room of Accept-Encoding; 0 where it comes never, or more than once.
        codings: Where it comes more than once: the rooms for their lines, of which some may be left
            out, and how these begin.
        members: Fields that must contain a member: the rooms of all of a name, and the member.
    """

    pieces: list[bytes]
    taken: Callable[[Parts], Sequence[bytes]]
    coding: int = 0
    codings: tuple[tuple[int, bytes], ...] = ()
    members: tuple[tuple[tuple[int, ...], bytes], ...] = ()


class _Mould:
    """An edit in the making: what is the same and what differs, by turns."""

    def __init__(self, before: bytes, after: bytes) -> None:
        """Begin with room for what differs of the first line, and what stands around it."""
        self.pieces: list[bytes] = [before, b"", after]
        self._parts = [0]

    def put(self, constant: bytes) -> None:
        """Go on with what is the same in every head."""
        self.pieces[-1] += constant

    def take(self, part: int) -> int:
        """Go on with room for a part; return its place."""
        self._parts.append(part)
        self.pieces += (b"", b"")
        return len(self.pieces) - 2

    def picker(self) -> Callable[[Parts], Sequence[bytes]]:
        """Return what picks the parts for the room."""
        if len(self._parts) > 1:
            return itemgetter(*self._parts)
        return lambda parts: (parts[0],)  # itemgetter would give it alone


class RequestRules:
    """What is changed in the requests of one provider with one credential.

    Built once for each credential; applied to every request. What depends on names alone is
    found out once for each shape of a head.

    Args:
        host: The value of Host upstream.
        configured: The operator's ``headers``: set, or removed where None. Applied
            before ours, so they can never displace a credential.
        changes: The provider's own.
        handshake: For requests that ask for a WebSocket.
    """

    __slots__ = ("_adds_encoding", "_edits", "_ends", "_families", "_fates", "_members")

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
        fates: dict[bytes, bytes | _Fate] = dict.fromkeys(_LOOKED_AT, _Fate.PASSES)
        fates[b"accept-encoding"] = _Fate.RESTRICTED
        if handshake:
            fates[b"sec-websocket-extensions"] = _Fate.DROPPED
        fates[b"transfer-encoding"] = b" chunked"  # our own framing, in the client's place
        fates.update(dict.fromkeys(members, _Fate.COMPLETED))
        fates.update((name, _Fate.DROPPED) for name in drop if not name.endswith(b"*"))
        fates.update((name, b" " + value) for name, value in put.items())
        self._fates = fates
        self._families = tuple(name[:-1] for name in drop if name.endswith(b"*"))
        self._members = members
        self._ends = tuple((name, spelled[name] + b": " + value) for name, value in put.items())
        self._adds_encoding = b"accept-encoding" not in put
        self._edits = Memory(self._edit, keeps=_is_learnt, most=_EDITS)

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
        shape, parts = head.shape, head.parts
        named = _NOTHING if head.options <= _NEVER_NAMED else head.options - _NEVER_NAMED
        if named:
            shape = shape.noting(named)
            parts = shape.cut(head.lines)
        edit = self._edit(shape, named) if named else self._edits[shape]
        pieces = edit.pieces.copy()
        pieces[1::2] = edit.taken(parts)
        pieces[1] = head.method + b" " + target
        if edit.coding:
            pieces[edit.coding] = _CODINGS_KEPT[pieces[edit.coding]] or b" identity"
        elif edit.codings:
            _restrict(pieces, edit.codings)
        for rooms, member in edit.members:
            _complete(pieces, rooms, member)
        return b"".join(pieces)

    def _edit(self, shape: Shape, named: frozenset[bytes] = _NOTHING) -> _Edit:
        """Find out what is changed in heads of this shape whose Connection names these fields."""
        mould = _Mould(b"", b" HTTP/1.1\r\n")
        coding = 0
        codings: list[tuple[int, bytes]] = []
        holding: dict[bytes, list[int]] = {}
        placed: set[bytes] = set()
        for part, (name, beginnings) in enumerate(shape.layout):
            if name is None:
                mould.take(part)
                continue
            fate = self._fates.get(name)
            if not name or name in named or fate is _Fate.DROPPED or name in placed:
                continue
            if isinstance(fate, bytes):
                placed.add(name)
                mould.put(beginnings[0] + fate + b"\r\n")
            elif fate is _Fate.RESTRICTED and name in shape.repeated:
                codings.append((mould.take(part), beginnings[0]))
            elif fate is _Fate.RESTRICTED:
                mould.put(beginnings[0])
                coding = mould.take(part)
                mould.put(b"\r\n")
            elif fate is _Fate.COMPLETED:
                mould.put(beginnings[0])
                holding.setdefault(name, []).append(mould.take(part))
                mould.put(b"\r\n")
            elif fate is _Fate.PASSES or not name.startswith(self._families):
                mould.put(beginnings[0])
                mould.take(part)
                mould.put(b"\r\n")
        ends = [name + b": " + member for name, member in self._members.items() if name not in holding]
        ends += [line for name, line in self._ends if name not in placed]
        if self._adds_encoding and not coding and not codings:
            ends.append(b"Accept-Encoding: identity")
        mould.put(b"".join(line + b"\r\n" for line in ends) + b"\r\n")
        return _Edit(
            pieces=mould.pieces,
            taken=mould.picker(),
            coding=coding,
            codings=tuple(codings),
            members=tuple((tuple(rooms), self._members[name]) for name, rooms in holding.items()),
        )


def _is_learnt(shape: Shape) -> bool:
    return shape.is_learnt


def _restrict(pieces: list[bytes], codings: tuple[tuple[int, bytes], ...]) -> None:
    """Leave what is known in the Accept-Encoding fields; where nothing is, one of them says so."""
    refuses_all = True
    for at, beginning in codings:
        kept = _CODINGS_KEPT[pieces[at]]
        if kept:
            refuses_all = False
        pieces[at] = beginning + kept + b"\r\n" if kept else b""
    if refuses_all:
        at, beginning = codings[0]
        pieces[at] = beginning + b" identity\r\n"


def _known_codings(value: bytes) -> bytes:
    """Return an Accept-Encoding without the codings that are not known; the bytes as they are if all are."""
    members = [member for member in (part.strip(b" \t") for part in value.split(b",")) if member]
    kept = [member for member in members if member.partition(b";")[0].strip(b" \t").lower() in _CODINGS]
    return value if kept and len(kept) == len(members) else b" " * bool(kept) + b", ".join(kept)


_CODINGS_KEPT: Final = Memory(_known_codings, keeps=up_to(_REMEMBERED_BYTES), most=_REMEMBERED)


def _complete(pieces: list[bytes], rooms: tuple[int, ...], member: bytes) -> None:
    """Append the member to the last of these fields unless one has it."""
    for at in rooms:
        # ``in`` would first try whether ``member`` is a number, which costs as much as this whole function.
        if pieces[at].find(member) >= 0 and _has_member(pieces[at], member):
            return
    at = rooms[-1]
    before = pieces[at].rstrip(b" \t")
    pieces[at] = before + b"," + member if before else b" " + member


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
    shape, parts = head.shape, head.parts
    named = _NOTHING if head.options <= _NEVER_NAMED else head.options - _NEVER_NAMED
    if named:
        shape = shape.noting(named)
        parts = shape.cut(head.lines)
    stays_chunked = head.length == CHUNKED and not decoded
    if named or switching:
        dropped = _DROPPED_FROM_RESPONSES if stays_chunked else _DROPPED_WITH_CODING
        if switching:
            dropped -= _SWITCHING if head.options == _ONLY_UPGRADE else _ONLY_UPGRADE
        edit = _passing(shape, dropped | named)
    else:
        edit = (_STAYING_CHUNKED if stays_chunked else _OTHERS)[shape]
    pieces = edit.pieces.copy()
    pieces[1::2] = edit.taken(parts)
    pieces[1] = parts[0][len(b"HTTP/1.x") :]
    if id_field not in head.shape.places or id_field in named:
        pieces.append(id_field + b": " + request_id.encode("ascii") + b"\r\n")
    if close:
        pieces.append(b"Connection: close\r\n")
    elif switching and head.options != _ONLY_UPGRADE:
        pieces.append(b"Connection: Upgrade\r\n")
    pieces.append(b"\r\n")
    return b"".join(pieces)


def _passing(shape: Shape, dropped: frozenset[bytes]) -> _Edit:
    """Find out what passes of the responses of one shape."""
    mould = _Mould(b"HTTP/1.1", b"\r\n")
    for part, (name, beginnings) in enumerate(shape.layout):
        if name is None:
            mould.take(part)
        elif name and name not in dropped and not name.startswith(b"proxy-"):
            mould.put(beginnings[0])
            mould.take(part)
            mould.put(b"\r\n")
    return _Edit(pieces=mould.pieces, taken=mould.picker())


_STAYING_CHUNKED: Final = Memory(
    partial(_passing, dropped=_DROPPED_FROM_RESPONSES), keeps=_is_learnt, most=_EDITS
)
_OTHERS: Final = Memory(partial(_passing, dropped=_DROPPED_WITH_CODING), keeps=_is_learnt, most=_EDITS)


def _has_member(value: bytes, member: bytes) -> bool:
    return member in [part.strip(b" \t") for part in value.split(b",")]


def _with_member(value: bytes, member: bytes) -> bytes:
    return value if _has_member(value, member) else value + b"," + member
