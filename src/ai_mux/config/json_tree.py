"""JSON (RFC 8259) to a tree with lines, which the standard library's decoder does not keep.

The decoder still does what is hard, strings and their escapes; containers are
walked here. Messages hold nothing of the text.
"""

import re
from bisect import bisect_right
from json import JSONDecodeError
from json.decoder import JSONDecoder
from typing import Final

from ai_mux.config.tree import MAX_DEPTH, Entry, Items, Kind, Malformed, Node, Scalar, Table

_BLANKS: Final = re.compile(r"[ \t\n\r]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)((?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)")
_WORD: Final = re.compile(r"true|false|null")
_STRING: Final = JSONDecoder()


def read_json(text: str) -> Node:
    """Return the document in ``text``.

    Raises:
        Malformed: It is not JSON, or nested too deeply.
    """
    walk = _Walk(text)
    node = walk.value(depth=0)
    if walk.peek():
        raise walk.wrong("something follows the end of the document; remove it")
    return node


class _Walk:
    """A position in a text, moving forward only."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._ends = [m.start() for m in re.finditer("\n", text)]

    def value(self, *, depth: int) -> Node:
        """Read any value. The position is then behind it."""
        if depth > MAX_DEPTH:
            raise self.wrong("nested too deeply; the deepest setting is four levels down")
        start = self.peek()
        line = self._line()
        if start == "{":
            return Table(entries=tuple(self._entries(depth)), line=line)
        if start == "[":
            return Items(items=tuple(self._items(depth)), line=line)
        if start == '"':
            return Scalar(kind=Kind.STRING, text=self._string(), line=line, plain=False)
        if word := _WORD.match(self._text, self._at):
            self._at = word.end()
            return Scalar(kind=Kind.NULL if word[0] == "null" else Kind.BOOL, text=word[0], line=line)
        if number := _NUMBER.match(self._text, self._at):
            self._at = number.end()
            return Scalar(kind=Kind.FLOAT if number[1] else Kind.INTEGER, text=number[0], line=line)
        raise self.wrong("a value is missing or not in quotes; check the commas before and after it")

    def peek(self) -> str:
        """Skip blanks and return the next character, empty at the end."""
        blanks = _BLANKS.match(self._text, self._at)
        self._at = blanks.end() if blanks else self._at
        return self._text[self._at : self._at + 1]

    def wrong(self, what: str) -> Malformed:
        """Return the error for the present position."""
        return Malformed(self._line(), f"not JSON: {what}")

    def _items(self, depth: int) -> list[Node]:
        items: list[Node] = []
        self._at += 1
        while self._more("]", first=not items):
            items.append(self.value(depth=depth + 1))
        return items

    def _entries(self, depth: int) -> list[Entry]:
        entries: list[Entry] = []
        self._at += 1
        while self._more("}", first=not entries):
            if self.peek() != '"':
                raise self.wrong("a key in double quotes is missing; is there a comma too many?")
            line, key = self._line(), self._string()
            if self.peek() != ":":
                raise self.wrong("':' is missing after a key")
            self._at += 1
            entries.append(Entry(key=key, line=line, value=self.value(depth=depth + 1)))
        return entries

    def _more(self, end: str, *, first: bool) -> bool:
        """Step over what stands between two members; False, and behind ``end``, when none follows."""
        found = self.peek()
        if found == end:
            self._at += 1
            return False
        if not first:
            if found != ",":
                raise self.wrong(f"',' or '{end}' is missing")
            self._at += 1
        return True

    def _string(self) -> str:
        try:
            value, self._at = _STRING.raw_decode(self._text, self._at)
        except JSONDecodeError:
            # A string ends in the line where it begins, or is wrong: the line is right already.
            raise self.wrong("a string is not closed, or holds a line break or an unknown escape") from None
        return str(value)

    def _line(self) -> int:
        return bisect_right(self._ends, self._at - 1) + 1
