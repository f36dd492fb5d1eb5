"""What must arrive, worked out from the listed changes line by line, the slow and plain way.

Every change that is made is noted by its name, so that a test can tell which entries
of the list no case has reached.
"""

from dataclasses import dataclass, field
from typing import Final

from transparency.modes import (
    CODINGS,
    ID_FIELDS,
    KEPT_IN_HANDSHAKES,
    PROTECTED,
    REMOVED,
    REMOVED_FROM_HANDSHAKES,
    REMOVED_FROM_RESPONSES,
    Mode,
)

# Ours is random; the tests put this in its place.
OUR_ID: Final = b"amx_" + b"a" * 26

# The changes that are not about one listed field.
NAMED: Final = "named by Connection"
NAMED_IN_VAIN: Final = "named by Connection, and protected"
IN_PLACE: Final = "set in the client's place"
AT_THE_END: Final = "set at the end"
REPEATED: Final = "set once, the client's repetition removed"
MEMBER_ADDED: Final = "member added"
MEMBER_PRESENT: Final = "member present"
MEMBER_ALONE: Final = "member in a field of its own"
CODINGS_KEPT: Final = "codings kept as they are"
CODINGS_DROPPED: Final = "codings dropped"
CODINGS_GONE: Final = "no coding left, in the client's place"
CODINGS_MISSING: Final = "no coding left, at the end"
FRAMING: Final = "transfer framing"
ID_ADDED: Final = "request id added"
ID_PRESENT: Final = "request id present"
CLOSING: Final = "close announced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A head that must arrive.

    Attributes:
        lines: The start line and the client's fields that remain, in order and as they must be.
        added: Fields that follow, in any order: the design says "at the end" and no more.
        changes: Which changes it took to get here.
    """

    lines: list[bytes]
    added: list[bytes] = field(default_factory=list)
    changes: set[str] = field(default_factory=set)

    def check(self, head: bytes) -> None:
        """Assert that ``head``, blank line included, is this one."""
        assert head.endswith(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        assert lines[: len(self.lines)] == self.lines
        assert sorted(lines[len(self.lines) :]) == sorted(self.added)


def request(head: bytes, mode: Mode, *, host: bytes, handshake: bool = False) -> Expected:
    """Return what the provider must get for the head that a client sent."""
    changes: set[str] = set()
    start, *lines = head[:-4].split(b"\r\n")
    method, target, _ = start.split(b" ")
    removed = [*REMOVED, *mode.removed]
    if handshake:
        removed = [name for name in removed if name not in KEPT_IN_HANDSHAKES] + [*REMOVED_FROM_HANDSHAKES]
    put = {name.lower(): name + b": " + value for name, value in ((b"Host", host), *mode.put)}
    lines = _without_named(lines, changes, kept=KEPT_IN_HANDSHAKES if handshake else ())

    kept: list[bytes] = []
    placed: set[bytes] = set()
    for line in lines:
        spelled = line.partition(b":")[0]
        name = spelled.lower()
        if name in put:
            if name in placed:
                changes.add(REPEATED)
            else:
                placed.add(name)
                changes.add(f"{IN_PLACE}: {_text(name)}")
                kept.append(spelled + b":" + put[name].partition(b":")[2])
        elif (entry := _entry(name, removed)) is not None:
            changes.add(f"removed: {_text(entry)}")
        elif name == b"transfer-encoding":
            changes.add(FRAMING)
            kept.append(spelled + b": chunked")
        elif handshake and name == b"connection":
            kept += [spelled + b": Upgrade"] if name not in placed else []
            placed.add(name)
        else:
            kept.append(line)

    added = [line for name, line in put.items() if name not in placed]
    changes |= {f"{AT_THE_END}: {_text(line.partition(b':')[0].lower())}" for line in added}
    for name, member in mode.joined:
        added += _joined(kept, name, member, changes)
    added += _restricted(kept, changes)
    return Expected(
        lines=[b" ".join([method, mode.target(target), b"HTTP/1.1"]), *kept], added=added, changes=changes
    )


def response(
    head: bytes, provider: str, *, chunked: bool, closes: bool = False, handshake: bool = False
) -> Expected:
    """Return what a client must get for the head that the provider sent.

    Args:
        head: The provider's, blank line included.
        provider: Whose clients they are.
        chunked: The body is chunked on its way to the client.
        closes: The client's connection ends with this response.
        handshake: It is a 101, whose Connection and Upgrade stay.
    """
    changes: set[str] = set()
    start, *lines = head[:-4].split(b"\r\n")
    stay = KEPT_IN_HANDSHAKES if handshake else ()
    removed = [name for name in REMOVED_FROM_RESPONSES if name not in stay]
    says_only_upgrade = _options(lines) == {b"upgrade"}
    lines = _without_named(lines, changes, kept=stay)
    kept: list[bytes] = []
    for line in lines:
        name = line.partition(b":")[0].lower()
        if (entry := _entry(name, removed)) is not None:
            changes.add(f"removed: {_text(entry)}")
        elif handshake and name == b"connection" and not says_only_upgrade:
            pass
        elif name == b"transfer-encoding" and not chunked:
            changes.add(FRAMING)
        else:
            kept.append(line)
    added = [b"Connection: Upgrade"] if handshake and not says_only_upgrade else []
    id_field = ID_FIELDS[provider]
    if any(line.partition(b":")[0].lower() == id_field for line in kept):
        changes.add(ID_PRESENT)
    else:
        changes.add(f"{ID_ADDED}: {_text(id_field)}")
        added.append(id_field + b": " + OUR_ID)
    if closes:
        changes.add(CLOSING)
        added.append(b"Connection: close")
    return Expected(lines=[start, *kept], added=added, changes=changes)


def _options(lines: list[bytes]) -> set[bytes]:
    """Return what the Connection fields name."""
    parted = [line.partition(b":") for line in lines]
    values = [value for name, _, value in parted if name.lower() == b"connection"]
    return {option.strip(b" \t").lower() for value in values for option in value.split(b",")} - {b""}


def _without_named(lines: list[bytes], changes: set[str], *, kept: tuple[bytes, ...]) -> list[bytes]:
    """Take away what the Connection fields name (RFC 9110, 7.6.1), but for Connection itself."""
    # These two are said of the connection, and name no field (RFC 9110, 7.6.1; RFC 9112, 9.3).
    named = _options(lines) - {b"close", b"keep-alive"}
    remaining = []
    for line in lines:
        name = line.partition(b":")[0].lower()
        if name not in named or name in kept:
            remaining.append(line)
        elif name in PROTECTED:
            changes.add(NAMED_IN_VAIN)
            remaining.append(line)
        else:
            changes.add(NAMED)
    return remaining


def _joined(kept: list[bytes], name: bytes, member: bytes, changes: set[str]) -> list[bytes]:
    """Add a member to the last field of that name, or return a field of its own."""
    places = [place for place, line in enumerate(kept) if line.partition(b":")[0].lower() == name]
    values = [kept[place].partition(b":")[2] for place in places]
    if any(member == one.strip(b" \t") for value in values for one in value.split(b",")):
        changes.add(MEMBER_PRESENT)
        return []
    if not places:
        changes.add(MEMBER_ALONE)
        return [name + b": " + member]
    changes.add(MEMBER_ADDED)
    last = kept[places[-1]].rstrip(b" \t")
    kept[places[-1]] = last + (b" " if last.endswith(b":") and not values[-1].strip() else b",") + member
    return []


def _restricted(kept: list[bytes], changes: set[str]) -> list[bytes]:
    """Leave the known codings in Accept-Encoding; return the field to add where none came."""
    emptied = []
    left = 0
    for place, line in enumerate(kept):
        name, _, value = line.partition(b":")
        if name.lower() != b"accept-encoding":
            continue
        members = [member.strip(b" \t") for member in value.split(b",") if member.strip(b" \t")]
        known = [member for member in members if member.split(b";")[0].strip(b" \t").lower() in CODINGS]
        if not known:
            emptied.append(place)
            continue
        left += 1
        changes.add(CODINGS_KEPT if known == members else CODINGS_DROPPED)
        if known != members:
            kept[place] = name + b": " + b", ".join(known)
    if not left and emptied:
        changes.add(CODINGS_GONE)
        first = emptied.pop(0)
        kept[first] = kept[first].partition(b":")[0] + b": identity"
        left = 1
    for place in reversed(emptied):
        del kept[place]
    if left:
        return []
    changes.add(CODINGS_MISSING)
    return [b"Accept-Encoding: identity"]


def _entry(name: bytes, listed: list[bytes]) -> bytes | None:
    """Return the entry of the list that a field falls under, or None."""
    for entry in listed:
        if name == entry or (entry.endswith(b"*") and name.startswith(entry[:-1])):
            return entry
    return None


def _text(name: bytes) -> str:
    return name.decode()
