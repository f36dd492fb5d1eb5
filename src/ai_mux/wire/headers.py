"""Which header fields pass, which do not, and why.

Everything that is not named here passes byte for byte, in its place. What is
named is looked at once, by index; the other lines are never touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ai_mux.wire.http1 import CHUNKED, HEAD_END, Notable, RequestHead, ResponseHead, place

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
_NEVER_NAMED: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization", b"close", b"keep-alive", b""}
)

# Looked at by the head parser, the admission or the exchange, and passed on.
_LOOKED_AT: Final = frozenset(
    {
        b"accept-encoding",
        b"content-length",
        b"transfer-encoding",
        b"origin",
        b"x-stainless-timeout",
        b"x-stainless-read-timeout",
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
_REMEMBERED: Final = 256
_NOTHING: Final[frozenset[bytes]] = frozenset()

Edit = tuple[int, int, bytes]
"""Where a line starts and ends in a raw head, and what takes its place; nothing removes it."""


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
    """

    __slots__ = ("_dropped", "_families", "_include", "_put")

    def __init__(self, *, host: bytes, configured: Mapping[bytes, bytes | None], changes: Changes) -> None:
        put: dict[bytes, tuple[bytes, bytes]] = {}
        dropped = set(_DROPPED_FROM_REQUESTS | changes.drop)
        include = dict(changes.include)
        for name, value in configured.items():
            if value is None:
                dropped.add(name.lower())
            else:
                put[name.lower()] = (name, value)
        for name, value in ((b"Host", host), *changes.put):
            put[name.lower()] = (name, value)
        for name in include.keys() & put.keys():
            spelled, value = put[name]
            put[name] = (spelled, _with_member(value, include.pop(name)))
        self._put = put
        self._include = include
        self._dropped = frozenset(name for name in dropped if not name.endswith(b"*"))
        self._families = tuple(name[:-1] for name in dropped if name.endswith(b"*"))

    @property
    def notable(self) -> frozenset[bytes]:
        """The lower-case names that the head parser must note for these rules."""
        families = {name + b"*" for name in self._families}
        return self._dropped | families | self._put.keys() | self._include.keys()

    def apply(self, head: RequestHead, target: bytes) -> bytes:
        """Return the head as it goes upstream, blank line included.

        Args:
            head: The client's. It is left as it is, because a replay needs it again.
            target: The request target upstream.
        """
        raw, fields = head.raw, head.fields
        notable = head.notable
        put, dropped = self._put, self._dropped
        named = _named_by_connection(fields)
        if named:
            notable, fields = _without_named(named, head)
        edits: list[Edit] = [(0, raw.find(b"\r\n"), b"%b %b HTTP/1.1" % (head.method, target))]
        placed: set[bytes] = set()
        for field in notable:
            name = field[1]
            if name in put and name not in placed:
                placed.add(name)
                start, end = place(raw, field)
                edits.append((start, end, raw[start : start + len(name)] + b": " + put[name][1]))
            elif name in put or name in dropped or name.startswith(self._families):
                edits.append((*place(raw, field), b""))
        if named:
            edits += _edits_for_named(named, raw)
        added = [b"%b: %b" % line for name, line in put.items() if name not in placed]
        encodings = fields.get(b"accept-encoding")
        if encodings is None or _kept_codings(encodings) != encodings:
            _restrict_codings(raw, notable, edits, added)
        for name, member in self._include.items():
            if not _has_member(fields.get(name, b""), member):
                _add_member(raw, notable, name, member, edits=edits, added=added)
        return _edited(raw, edits, added)


def respond(head: ResponseHead, *, id_field: bytes, request_id: str, decoded: bool, close: bool) -> bytes:
    """Return the response head as it goes to the client, blank line included.

    Args:
        head: The upstream's.
        id_field: The field for our request id, which is added only where the
            upstream sent none.
        request_id: Our id.
        decoded: A chunked body is taken apart on its way, for an HTTP/1.0 client.
        close: The client's connection ends with this response.
    """
    raw = head.raw
    notable = head.notable
    edits: list[Edit] = [] if raw.startswith(b"HTTP/1.1") else [(0, 8, b"HTTP/1.1")]
    named = _named_by_connection(head.fields)
    if named:
        notable, _ = _without_named(named, head)
        edits += _edits_for_named(named, raw)
    for field in notable:
        name = field[1]
        if (
            name in _DROPPED_FROM_RESPONSES
            or name.startswith(b"proxy-")
            or (name == b"transfer-encoding" and (decoded or head.length != CHUNKED))
        ):
            edits.append((*place(raw, field), b""))
    added = []
    if id_field not in head.fields:
        added.append(id_field + b": " + request_id.encode("ascii"))
    if close:
        added.append(b"Connection: close")
    return _edited(raw, edits, added) if edits or added else raw


def _edited(raw: bytes, edits: list[Edit], added: list[bytes]) -> bytes:
    """Return a head with some of its lines replaced or left out, and some added."""
    edits.sort()
    pieces = []
    at = 0
    for start, end, line in edits:
        if line:
            pieces.append(raw[at:start])
            pieces.append(line)
        else:
            pieces.append(raw[at : start - 2])  # the CR LF before it goes with it
        at = end
    pieces.append(raw[at:-4])
    for line in added:
        pieces.append(b"\r\n")
        pieces.append(line)
    pieces.append(HEAD_END)
    return b"".join(pieces)


def _named_by_connection(fields: Mapping[bytes, bytes]) -> frozenset[bytes]:
    """Return the lower-case names that Connection removes (RFC 9110, 7.6.1)."""
    connection = fields.get(b"connection")
    return _NOTHING if connection is None else _names_in(connection)


@lru_cache(maxsize=_REMEMBERED)
def _names_in(connection: bytes) -> frozenset[bytes]:
    return frozenset(name.strip(b" \t") for name in connection.lower().split(b",")) - _NEVER_NAMED


def _without_named(
    named: frozenset[bytes], head: RequestHead | ResponseHead
) -> tuple[list[Notable], dict[bytes, bytes]]:
    notable = [field for field in head.notable if field[1] not in named]
    return notable, {name: value for name, value in head.fields.items() if name not in named}


def _edits_for_named(named: frozenset[bytes], raw: bytes) -> list[Edit]:
    edits: list[Edit] = []
    at = raw.find(b"\r\n")
    while (end := raw.find(b"\r\n", at + 2)) > at + 2:
        if raw[at + 2 : end].partition(b":")[0].lower() in named:
            edits.append((at + 2, end, b""))
        at = end
    return edits


def _restrict_codings(raw: bytes, notable: list[Notable], edits: list[Edit], added: list[bytes]) -> None:
    """Leave only codings that are known; ask for none where that leaves nothing."""
    asked = [(place(raw, field), field) for field in notable if field[1] == b"accept-encoding"]
    if not asked:
        added.append(b"Accept-Encoding: identity")
    elif not any(_kept_codings(field[3]) for _, field in asked):
        start, end = asked[0][0]
        edits.append((start, end, raw[start : start + len(b"accept-encoding")] + b": identity"))
        edits += [(start, end, b"") for (start, end), _ in asked[1:]]
    else:
        for (start, end), field in asked:
            kept = _kept_codings(field[3])
            if kept != field[3]:
                spelled = raw[start : start + len(b"accept-encoding")]
                edits.append((start, end, spelled + b": " + kept if kept else b""))


@lru_cache(maxsize=_REMEMBERED)
def _kept_codings(value: bytes) -> bytes:
    members = [member.strip(b" \t") for member in value.split(b",")]
    kept = [member for member in members if member.partition(b";")[0].strip(b" \t").lower() in _CODINGS]
    return value if len(kept) == len(members) else b", ".join(kept)


def _has_member(value: bytes, member: bytes) -> bool:
    return member in value and member in [part.strip(b" \t") for part in value.split(b",")]


def _with_member(value: bytes, member: bytes) -> bytes:
    return value if _has_member(value, member) else value + b"," + member


def _add_member(
    raw: bytes, notable: list[Notable], name: bytes, member: bytes, *, edits: list[Edit], added: list[bytes]
) -> None:
    """Append a member to the last field of a name, or add the field."""
    found = [field for field in notable if field[1] == name]
    if not found:
        added.append(name + b": " + member)
        return
    start, end = place(raw, found[-1])
    line = raw[start:end].rstrip(b" \t") + b"," if found[-1][3] else raw[start : start + len(name)] + b": "
    edits.append((start, end, line + member))
