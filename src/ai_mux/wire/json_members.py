"""Decodes a JSON object member by member, as its bytes come (RFC 8259).

Rule 1: what is not valid JSON is refused, to its last byte. Decoders agree about valid
JSON, and only about that: some take comments, other quotes or NaN, and then find keys
where others find text.

Rule 2: no more is held than an unfinished member without its long strings, however the
document is cut, and nothing is parsed twice.

The work is done in C. Splitting at quotes tells strings from structure, and so where
the last comma or bracket is. Up to there the bytes are made a whole document by a
beginning and an end that stand for what is open around them, and the standard library
decodes it.
"""

import codecs
import json
import re
from typing import Final, NamedTuple, NoReturn

NAME_CHARACTERS: Final = 256
"""A longer string may come as a NUL: it is no name, and is not kept."""
# How a name is written at most: twelve bytes for a character that needs two escapes.
_NAME_BYTES: Final = 12 * NAME_CHARACTERS
# A key, the beginning of its value, the blanks between them.
_HELD_BYTES: Final = 8 * 1024
# So much is decoded at once; as much as a transport reads.
_PIECE_BYTES: Final = 256 * 1024
# serde_json stops at 128, CPython's decoder at about a thousand.
_DEPTH: Final = 500
# Brackets cost most, up to half a microsecond each. A conversation of 1 MB has some 20,000, and a context
# of a million tokens is one of 4 MB.
_MOST_BRACKETS: Final = 200_000
_MOST_MEMBERS: Final = 1000  # at the top level; requests of both providers know some thirty

_BLANKS: Final = b" \t\r\n"
_BLANK: Final = re.compile(rb"[ \t\r\n]+")
_BRACKETS: Final = b"[]{}"
_NO_MARKS: Final = bytes(set(range(256)) - set(_BRACKETS + b","))
_CLOSING: Final = bytes.maketrans(b"[{", b"]}")
_OPENING: Final = b"[{"
_COMMA: Final = ord(",")
# A comma or bracket, a key, a colon, a value, what follows it: split at quotes, that is five parts.
_PARTS: Final = 5
_CUT_ESCAPE: Final = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_CUT_ESCAPE_BYTES: Final = 5
_LONG: Final = b'"\\u0000"'  # stands for a long string


class JsonRefused(Exception):
    """The document is refused, and who read it cannot be used afterwards.

    Attributes:
        reason: Why, to be put behind "because". Nothing of the document is in it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Member(NamedTuple):
    """A member of the object, or a part of one.

    Attributes:
        key: Its name.
        value: Decoded, or a part of it where it is long. Objects are lists of (key, value), so that
            none hides another of the same name. What is around a part, or came before, is in it as
            0 and under empty keys.
        begins: Not the rest of the one before.
    """

    key: str
    value: object
    begins: bool


class JsonMembers:
    """Reads one object.

    Attributes:
        marks: How many brackets and commas it had so far, outside of strings: what reading it has cost.
    """

    __slots__ = ("_brackets", "_count", "_held", "_key", "_last", "_long", "_open", "_utf8", "marks")

    def __init__(self) -> None:
        self.marks = 0
        self._brackets = 0
        self._count = 0
        self._open = bytearray()  # the brackets around where we are
        self._last = 0  # the byte before that place: a bracket or a comma
        self._key = ""  # of the member around it
        self._held = b""  # what follows it, and has no end yet
        self._long: bytes | None = None  # in a long string: the beginning of an escape, or nothing
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def feed(self, data: bytes) -> list[Member]:
        """Return the members, and parts of some, that the next bytes complete.

        Raises:
            JsonRefused: It is no valid JSON, or too intricate.
        """
        members: list[Member] = []
        for at in range(0, len(data), _PIECE_BYTES):
            self._take(data[at : at + _PIECE_BYTES], members)
        return members

    def finish(self) -> None:
        """Learn that nothing follows.

        Raises:
            JsonRefused: Something is missing.
        """
        if not self._last or self._open or self._held.strip(_BLANKS):
            _refuse("it is not one whole JSON object")

    # Cutting

    def _take(self, data: bytes, members: list[Member]) -> None:
        if self._long is not None:
            data = self._long_ended(self._long + data)
        data = self._held + data
        if self._is_over(data):
            return
        if not self._last:
            data = data.lstrip(_BLANKS)
            if not b"{".startswith(data[:1]):
                _refuse("it is not a JSON object in UTF-8")
        parts = _hidden(data).split(b'"')
        cut = _behind_last_mark(parts, len(data))
        if cut:
            marks = b"".join(parts[::2]).translate(None, _NO_MARKS)
            self.marks += len(marks)
            members += self._decode(data[:cut], marks.replace(b",", b""))
            data = data[cut:]
            if self._is_over(data):
                data = b""
        elif len(parts) > _PARTS:
            _refuse("it is not valid JSON")
        if len(data) > _HELD_BYTES:
            data = self._shortened(data)
        self._held = data

    def _is_over(self, data: bytes) -> bool:
        """Tell whether the object has ended; only blanks may follow it."""
        is_over = self._last != 0 and not self._open
        if is_over and data.strip(_BLANKS):
            _refuse("something follows the JSON object")
        return is_over

    def _shortened(self, data: bytes) -> bytes:
        """Return what is held of an unfinished member, without its long strings and most blanks."""
        kept = []
        at = 0
        parts = _hidden(data).split(b'"')
        for number, part in enumerate(parts):
            raw = data[at : at + len(part)]
            at += len(part) + 1
            is_last = number == len(parts) - 1
            if number % 2 == 0:
                kept.append(_BLANK.sub(b" ", raw))
            elif len(raw) <= _NAME_BYTES:
                kept.append(b'"%b"' % raw if not is_last else b'"' + raw)
            elif is_last:
                self._long = self._checked(raw)
            else:
                _decoded(b'"%b"' % raw)
                kept.append(_LONG)
        data = b"".join(kept)
        if len(data) > _HELD_BYTES:
            _refuse("it has a word that is too long")
        return data

    def _long_ended(self, data: bytes) -> bytes:
        """Read on in a long string. Behind its end, return what stands for it, and the rest."""
        end = _hidden(data).find(b'"')
        if end < 0:
            self._long = self._checked(data)
            return b""
        self._checked(data[:end], final=True)
        self._long = None
        return _LONG + data[end + 1 :]

    def _checked(self, inside: bytes, *, final: bool = False) -> bytes:
        """Check the next part of a string's inside; return what may be the beginning of an escape."""
        cut = None if final else _CUT_ESCAPE.search(_hidden(inside)[-_CUT_ESCAPE_BYTES:])
        rest = b"" if cut is None else cut[0]
        try:
            text = self._utf8.decode(inside[: len(inside) - len(rest)], final)
        except UnicodeDecodeError:
            _refuse("it is not UTF-8")
        _parsed(f'"{text}"')
        return rest

    # Decoding

    def _decode(self, data: bytes, brackets: bytes) -> list[Member]:
        """Decode what ends in a bracket or a comma, whatever is open around it."""
        around = self._open
        before = self._before()
        self._brackets += len(brackets)
        if self._brackets > _MOST_BRACKETS:
            _refuse("it has too many brackets")
        for bracket in brackets:
            if bracket in _OPENING:
                around.append(bracket)
                if len(around) > _DEPTH:
                    _refuse(f"it is nested more than {_DEPTH} levels deep")
            elif not around:
                _refuse("it is not valid JSON")
            else:
                around.pop()
        self._last = data[-1]
        after = bytes(around[::-1].translate(_CLOSING))
        if self._last == _COMMA:
            after = (b'"":0' if around[-1:] == b"{" else b"0") + after
        decoded = _decoded(before + data + after)
        if self._last == _COMMA and len(around) == 1:
            del decoded[-1]
        goes_on = len(before) > 1
        members = [Member(key, value, begins=True) for key, value in decoded[goes_on:]]
        self._count += len(members)
        if self._count > _MOST_MEMBERS:
            _refuse("it has too many keys")
        if goes_on:
            members.insert(0, Member(self._key, decoded[0][1], begins=False))
        self._key = members[-1].key if members else ""
        return members

    def _before(self) -> bytes:
        """Return a document's beginning that leads to where we are."""
        if not self._last:
            return b""
        outer = b"".join(b"[" if bracket == _OPENING[0] else b'{"":' for bracket in self._open[:-1])
        inner = bytes(self._open[-1:])
        if self._last != inner[0]:
            inner += b"0" if inner == b"[" else b'"":0'
        return outer + inner + (b"," if self._last == _COMMA else b"")


def _hidden(data: bytes) -> bytes:
    """Return bytes of the same length in which every quote begins or ends a string."""
    if b"\\" not in data:
        return data
    return data.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def _behind_last_mark(parts: list[bytes], end: int) -> int:
    """Return where what follows the last comma or bracket begins, of bytes that were split at quotes."""
    for number in range(len(parts) - 1, max(len(parts) - 1 - _PARTS, -1), -1):
        begin = end - len(parts[number])
        if number % 2 == 0:
            marked = len(parts[number].rstrip(_NO_MARKS))
            if marked:
                return begin + marked
        end = begin - 1
    return 0


def _decoded(document: bytes) -> list[tuple[str, object]]:
    """Return the members of an object."""
    try:
        text = document.decode()
    except UnicodeDecodeError:
        _refuse("it is not UTF-8")
    return _parsed(text)


def _parsed(text: str) -> list[tuple[str, object]]:
    try:
        members: list[tuple[str, object]] = _DECODER.decode(text)
    except (ValueError, RecursionError):
        _refuse("it is not valid JSON")
    return members


def _not_json(word: str) -> NoReturn:
    raise ValueError(word)


def _refuse(reason: str) -> NoReturn:
    raise JsonRefused(reason) from None


# Objects come as lists of their members, so that none hides another of the same name.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=list, parse_constant=_not_json)
