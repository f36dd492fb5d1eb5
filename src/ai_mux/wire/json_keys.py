"""Finds the strings under a few top-level keys of a JSON object, as its bytes come.

It decides what a user may ask for, so nobody may read the document otherwise than it is
read here. ``json_members`` refuses what is not valid JSON; where decoders differ about
valid JSON, it is refused here: a wanted key twice, or in other letters (Go's decoder
takes "Model" for "model"), a NUL (C's strings end there) or half of a surrogate pair
(dropped by some, replaced by others) in a top-level key.
"""

import re
from collections.abc import Iterable
from typing import Final, NoReturn

from ai_mux.wire.json_members import NAME_CHARACTERS, JsonMembers, JsonRefused

_WITHIN: Final = 2**20
_TWO_WAYS: Final = re.compile("[\x00\ud800-\udfff]")
_NAME: Final = re.compile(f"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{NAME_CHARACTERS}}}")


class TopLevelStrings:
    """Reads one document.

    Attributes:
        found: The strings found so far, by key.
        listed: Those found so far in the array's objects.
    """

    __slots__ = (
        "_array",
        "_folded",
        "_left",
        "_members",
        "_missing",
        "_unwanted",
        "_wanted",
        "found",
        "listed",
    )

    def __init__(
        self,
        *wanted: str,
        optional: Iterable[str] = (),
        unwanted: Iterable[str] = (),
        array: tuple[str, str] | None = None,
        within: int = _WITHIN,
    ) -> None:
        """Begin to read.

        Args:
            wanted: Keys that must be there, with a string each.
            optional: Keys that may be there, with a string each.
            unwanted: Keys that must not be there, in whatever letters.
            array: Of a top-level array the key, and one that its objects may have, with a string or null.
            within: The wanted ones must be known when so many bytes were fed.
        """
        self._wanted = frozenset(wanted) | frozenset(optional)
        self._folded = frozenset(key.casefold() for key in self._wanted)
        self._unwanted = frozenset(unwanted)
        self._array = array
        self._missing = set(wanted)
        self._left = within
        self._members = JsonMembers()
        self.found: dict[str, str] = {}
        self.listed: list[str] = []

    @property
    def marks(self) -> int:
        """How many brackets and commas there were so far, outside of strings: what reading has cost."""
        return self._members.marks

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            JsonRefused: It is not what it must be.
        """
        left = self._left
        self._left = left - len(data)
        if self._missing and left < len(data):
            self._take(data[: max(left, 0)])
            self._check_found()
            data = data[max(left, 0) :]
        self._take(data)

    def finish(self) -> None:
        """Learn that nothing follows.

        Raises:
            JsonRefused: Something is missing.
        """
        self._members.finish()
        self._check_found()

    def _check_found(self) -> None:
        for key in self._missing:
            _refuse(f'there is no "{key}" where one must be')

    def _take(self, data: bytes) -> None:
        for key, value, begins in self._members.feed(data):
            if begins:
                self._note(key, value)
            if self._array is not None and isinstance(value, list) and key.casefold() == self._array[0]:
                self._note_array(value, self._array[1])

    def _note(self, key: str, value: object) -> None:
        """Take note of a top-level member."""
        if len(key) > NAME_CHARACTERS or _TWO_WAYS.search(key):
            _refuse("one of its keys could be read in two ways")
        folded = key.casefold()
        if folded in self._unwanted:
            _refuse(f'there is a "{folded}" in it')
        if folded not in self._folded:
            return
        if key not in self._wanted:
            _refuse(f'"{folded}" is not written in these letters')
        if key in self.found:
            _refuse(f'"{key}" is in it twice')
        self.found[key] = _name(key, value)
        self._missing.discard(key)

    def _note_array(self, elements: list[object], wanted: str) -> None:
        """Take note of what objects in an array have under a key, however it is written."""
        for element in elements:
            for member in element if isinstance(element, list) else ():
                if isinstance(member, tuple) and member[0].casefold() == wanted and member[1] is not None:
                    self.listed.append(_name(wanted, member[1]))


def _name(key: str, value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        _refuse(f'its "{key}" is not a name')
    return value


def _refuse(reason: str) -> NoReturn:
    raise JsonRefused(reason)
