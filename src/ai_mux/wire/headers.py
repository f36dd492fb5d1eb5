"""Which header fields pass, which do not, and why.

Everything that is not named here passes byte for byte, in its place. What is
named is looked at once, by index; the other lines are never touched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ai_mux.wire.http1 import CHUNKED, Notable, RequestHead, ResponseHead

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

    __slots__ = ("_drop", "_ends", "_families", "_include", "_put")

    def __init__(self, *, host: bytes, configured: Mapping[bytes, bytes | None], changes: Changes) -> None:
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
        for name, value in ((b"Host", host), *changes.put):
            put[name.lower()], spelled[name.lower()] = value, name
        for name in tuple(members):
            if name in put:
                put[name] = _with_member(put[name], members.pop(name))
        self._put = put
        self._ends = tuple((name, spelled[name] + b": " + value) for name, value in put.items())
        self._include = members
        self._drop = frozenset(name for name in drop if not name.endswith(b"*"))
        self._families = tuple(name[:-1] for name in drop if name.endswith(b"*"))

    @property
    def notable(self) -> frozenset[bytes]:
        """The lower-case names that the head parser must note for these rules."""
        families = {name + b"*" for name in self._families}
        return self._drop | families | self._put.keys() | self._include.keys()

    def apply(self, head: RequestHead, target: bytes) -> bytes:
        """Return the head as it goes upstream, blank line included.

        Args:
            head: The client's. It is left as it is, because a replay needs it again.
            target: The request target upstream.
        """
        raw, notable = head.raw, head.notable
        put, drop = self._put, self._drop
        at = raw.find(b"\r\n")
        pieces = [b"%b %b HTTP/1.1" % (head.method, target)]
        named = _named_by_connection(head.fields)
        if named:
            notable = _with_named(named, head)
        done: set[bytes] = set()
        encodings: list[Notable] = []
        included: dict[bytes, list[Notable]] = {}
        changed: list[tuple[int, int, bytes]] = []
        for field in notable:
            start, end, name, _ = field
            if name in put:
                if name in done:
                    changed.append((start, end, b""))
                else:
                    done.add(name)
                    changed.append((start, end, raw[start : start + len(name)] + b": " + put[name]))
            elif name in drop or name.startswith(self._families):
                changed.append((start, end, b""))
            elif name == b"accept-encoding":
                encodings.append(field)
            elif name in self._include:
                included.setdefault(name, []).append(field)
        ends = [line for name, line in self._ends if name not in done]
        _restrict_encodings(raw, encodings, changed, ends)
        for name, member in self._include.items():
            _include_member(raw, name, member, included.get(name, ()), changed, ends)
        return _spliced(raw, pieces, at, changed, ends)


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
    at = raw.find(b"\r\n")
    pieces = [raw[:at] if raw.startswith(b"HTTP/1.1") else b"HTTP/1.1" + raw[8:at]]
    named = _named_by_connection(head.fields)
    if named:
        notable = _with_named(named, head)
    takes_chunks = head.length == CHUNKED and not decoded
    changed = [
        (start, end, b"")
        for start, end, name, _ in notable
        if name in _DROPPED_FROM_RESPONSES
        or name.startswith(b"proxy-")
        or (name == b"transfer-encoding" and not takes_chunks)
    ]
    ends = []
    if id_field not in head.fields:
        ends.append(id_field + b": " + request_id.encode("ascii"))
    if close:
        ends.append(b"Connection: close")
    return _spliced(raw, pieces, at, changed, ends)


def _spliced(
    raw: bytes, pieces: list[bytes], at: int, changed: list[tuple[int, int, bytes]], ends: list[bytes]
) -> bytes:
    """Return a head with some of its fields replaced or left out, and some added.

    Args:
        raw: The head as it came.
        pieces: What replaces its first line.
        at: Where the first line ends.
        changed: (start, end, what replaces it or nothing) of fields.
        ends: Further fields.
    """
    changed.sort()
    for start, end, line in changed:
        pieces.append(raw[at : start if line else start - 2])
        if line:
            pieces.append(line)
        at = end
    pieces.append(raw[at:-4])
    for line in ends:
        pieces.append(b"\r\n")
        pieces.append(line)
    pieces.append(b"\r\n\r\n")
    return b"".join(pieces)


def _named_by_connection(fields: Mapping[bytes, bytes]) -> frozenset[bytes]:
    connection = fields.get(b"connection")
    return _NOTHING if connection is None else _names_in(connection)


@lru_cache(maxsize=_REMEMBERED)
def _names_in(connection: bytes) -> frozenset[bytes]:
    return frozenset(name.strip(b" \t") for name in connection.lower().split(b",")) - _NEVER_NAMED


def _with_named(named: frozenset[bytes], head: RequestHead | ResponseHead) -> list[Notable]:
    """Return the notable fields with those that Connection names among them, to be dropped."""
    raw = head.raw
    notable = [field for field in head.notable if field.name not in named]
    at = raw.find(b"\r\n")
    while (end := raw.find(b"\r\n", at + 2)) > at + 2:
        name = raw[at + 2 : end].partition(b":")[0].lower()
        if name in named:
            notable.append(Notable(at + 2, end, b"connection", b""))
        at = end
    notable.sort()
    return notable


def _restrict_encodings(
    raw: bytes, encodings: list[Notable], changed: list[tuple[int, int, bytes]], ends: list[bytes]
) -> None:
    left = False
    for start, end, name, value in encodings:
        kept = _kept_codings(value)
        if kept == value:
            left = True
        elif kept:
            changed.append((start, end, raw[start : start + len(name)] + b": " + kept))
            left = True
    if left:
        changed += [(start, end, b"") for start, end, _, value in encodings if not _kept_codings(value)]
    elif encodings:
        start, end, name, _ = encodings[0]
        changed.append((start, end, raw[start : start + len(name)] + b": identity"))
        changed += [(start, end, b"") for start, end, _, _ in encodings[1:]]
    else:
        ends.append(b"Accept-Encoding: identity")


@lru_cache(maxsize=_REMEMBERED)
def _kept_codings(value: bytes) -> bytes:
    members = [member.strip(b" \t") for member in value.split(b",")]
    kept = [member for member in members if member.partition(b";")[0].strip(b" \t").lower() in _CODINGS]
    return value if len(kept) == len(members) else b", ".join(kept)


def _include_member(
    raw: bytes,
    name: bytes,
    member: bytes,
    found: Sequence[Notable],
    changed: list[tuple[int, int, bytes]],
    ends: list[bytes],
) -> None:
    for field in found:
        if member in field.value and member in [part.strip(b" \t") for part in field.value.split(b",")]:
            return
    if not found:
        ends.append(name + b": " + member)
        return
    start, end, _, value = found[-1]
    line = raw[start:end].rstrip(b" \t") + b"," if value else raw[start : start + len(name)] + b": "
    changed.append((start, end, line + member))


def _with_member(value: bytes, member: bytes) -> bytes:
    present = member in [part.strip(b" \t") for part in value.split(b",")]
    return value if present else value + b"," + member
