"""The shape of a head: which fields it has, in which order and spelling.

A client's next request has the shape of its last one, and so has a provider's next
response; only the values differ. What names alone decide is found out once for a
shape. Those that are met again are kept as a regular expression, so that one match,
in C, recognises a head, finds its end, and cuts it into what has to be looked at and
what passes.

Rule 1: values are never remembered, so nothing that one user sent is met by another.

Rule 2: a kept shape reads a head as the loop over its lines would, or not at all.

Rule 3: making an expression costs as much as a few requests. So it is made only for
who has been let in (``learn``), for what was met before, and few are kept: those that
were met last. Whoever sends ever new shapes is read by the loop, and costs the others
no more than that.
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

# Kinds of requests, or of answers, that one server meets again and again: a client has about three.
_LEARNT: Final = 16
_MET: Final = 256
# Of the names in a head. The largest clients send 4 KB of them, most half a kilobyte.
_NAMES_BYTES: Final = 2048
# What begins like none of the kept shapes may be read once for each of them. This keeps what
# a stranger can make that cost below what llhttp takes for the largest head.
_MATCHED_BYTES: Final = 16 * 1024

Parts = Sequence[bytes]
"""The first line; then, one by one, a notable field's value with the blanks around it, or all
lines up to the next notable field as they are, with their line ends."""


class Shape:
    """What the names in a head decide.

    Attributes:
        spelled: The names as they are spelled, in their order.
        layout: For each part of the head its lower-case name, or None where it is not one
            notable field; and how its lines begin, colon included.
        notable: (index of the part, name) of the notable fields.
        places: The index of a notable field's part by its name; of a repeated one the last.
        repeated: The names of those that come more than once.
        host: The index of Host's part; 0, which is the first line's, where there is none.
        length: Of Content-Length's.
        coding: Of Transfer-Encoding's.
        connection: Of Connection's.
        is_learnt: It is one of the few that are met again and again.
    """

    __slots__ = (
        "_is_notable",
        "coding",
        "connection",
        "host",
        "is_learnt",
        "layout",
        "length",
        "match",
        "notable",
        "places",
        "repeated",
        "spelled",
    )

    match: Callable[[bytes, int, int], re.Match[bytes] | None]
    """Cut what begins with a head of this shape, up to that head's end; the parts are the match's groups.
    Takes where to begin and where to end at the latest. Only once it was learnt."""

    def __init__(self, spelled: tuple[bytes, ...], is_notable: Callable[[bytes], bool]) -> None:
        self.spelled = spelled
        self._is_notable = is_notable
        self.is_learnt = False
        layout: list[tuple[bytes | None, tuple[bytes, ...]]] = [(b"", ())]
        for one in spelled:
            name = one.lower()
            if is_notable(name):
                layout.append((name, (one + b":",)))
            elif layout[-1][0] is None:
                layout[-1] = (None, (*layout[-1][1], one + b":"))
            else:
                layout.append((None, (one + b":",)))
        self.layout = tuple(layout)
        self.notable = tuple((part, name) for part, (name, _) in enumerate(layout) if name)
        self.places = {name: part for part, name in self.notable}
        names = [name for _, name in self.notable]
        self.repeated = frozenset(name for name in names if names.count(name) > 1)
        self.host = self.places.get(b"host", 0)
        self.length = self.places.get(b"content-length", 0)
        self.coding = self.places.get(b"transfer-encoding", 0)
        self.connection = self.places.get(b"connection", 0)

    def learn(self) -> None:
        """Be able to ``match``."""
        # Each value ends at the first CR, so what was read of it is never given back (``*+``, which
        # costs a third less). Of groups Python 3.11.2 gives back wrongly; this is none. And so the
        # first blank line is the head's end. The first line is not blank: RFC 9112, 2.2 ignores one there.
        pattern = [rb"([^\r]++)\r\n"]
        for name, beginnings in self.layout[1:]:
            if name is None:
                lines = b"".join(re.escape(one) + rb"[^\r]*+\r\n" for one in beginnings)
                pattern.append(b"(" + lines + b")")
            else:
                pattern.append(re.escape(beginnings[0]) + rb"([^\r]*+)\r\n")
        self.match = re.compile(b"".join(pattern) + rb"\r\n").match
        self.is_learnt = True

    def cut(self, lines: Sequence[bytes]) -> Parts:
        """Return the parts of a head with these lines, which is of this shape."""
        parts = [lines[0]]
        at = 1
        for name, beginnings in self.layout[1:]:
            if name is None:
                parts.append(b"".join(line + b"\r\n" for line in lines[at : at + len(beginnings)]))
            else:
                parts.append(lines[at][len(beginnings[0]) :])
            at += len(beginnings)
        return parts

    def noting(self, more: frozenset[bytes]) -> "Shape":
        """Return the same shape where fields of these names are notable as well."""
        return Shape(self.spelled, lambda name: name in more or self._is_notable(name))

    def values(self, parts: Parts) -> dict[bytes, bytes]:
        """Return the notable fields' values: of a repeated one the last, but all that Connection lists."""
        fields = {name: parts[part].strip(b" \t") for part, name in self.notable}
        if b"connection" in self.repeated:
            listed = (parts[part] for part, name in self.notable if name == b"connection")
            fields[b"connection"] = b",".join(listed)
        return fields


Found = tuple[bytes, Shape, Parts]
"""A head, blank line included, its shape, and it, cut as that says."""


class FieldNames:
    """Tells which field names matter, in whatever spelling, and knows the shapes that are met again."""

    __slots__ = ("_families", "_learnt", "_met", "_names")

    def __init__(self, names: Collection[bytes]) -> None:
        """Note these lower-case names; one that ends in ``*`` notes a whole family."""
        self._names = frozenset(name for name in names if not name.endswith(b"*"))
        self._families = tuple(name[:-1] for name in names if name.endswith(b"*"))
        self._learnt: list[Shape] = []
        self._met: set[tuple[bytes, ...]] = set()

    def are_notable(self, name: bytes) -> bool:
        """Tell whether fields of this lower-case name matter."""
        return name in self._names or name.startswith(self._families)

    def find(self, data: bytes) -> Found | None:
        """Return the head that ``data`` begins with, if it is there whole and has one of the shapes learnt.

        Nothing says yet that it is valid. Costs up to a millisecond where nothing is found, so ask once
        for each head, and not each time more of it has come.
        """
        learnt = self._learnt
        for shape in learnt:
            found = shape.match(data, 0, _MATCHED_BYTES)
            if found is not None:
                if shape is not learnt[0]:  # the one that was met last is asked first
                    learnt.remove(shape)
                    learnt.insert(0, shape)
                return found[0], shape, found.groups()
        return None

    def read(self, raw: bytes, *, sought: bool = False) -> tuple[Shape, Parts]:
        """Return a head's shape and parts.

        Args:
            raw: A head, blank line included.
            sought: ``find`` has told already that it has none of the shapes learnt.
        """
        found = None if sought else self.find(raw)
        if found is not None:
            return found[1:]
        lines = raw[:-4].split(b"\r\n")
        shape = Shape(tuple([line.partition(b":")[0] for line in lines[1:]]), self.are_notable)
        return shape, shape.cut(lines)

    def learn(self, shape: Shape) -> None:
        """Take note that a head of this shape came from somebody who may send more of them."""
        if shape.is_learnt or sum(map(len, shape.spelled)) > _NAMES_BYTES:
            return
        if any(shape.spelled == learnt.spelled for learnt in self._learnt):
            return  # while this head waited, another of its shape was met
        if shape.spelled not in self._met:
            if len(self._met) >= _MET:
                self._met.clear()
            self._met.add(shape.spelled)
            return
        self._met.remove(shape.spelled)
        shape.learn()
        self._learnt.insert(0, shape)
        del self._learnt[_LEARNT:]

    @property
    def known(self) -> int:
        """How many shapes are remembered, learnt or met."""
        return len(self._learnt) + len(self._met)
