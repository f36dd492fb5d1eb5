"""All problems of one file, found in one pass.

Rule 1: one problem, one line: file, line, key, what is wrong, how to mend it.

Rule 2: a value is never repeated, because any value may be a token in the wrong
place. The line's number shows where to look.

Rule 3: what is wrong does not hide what comes after it. A key that cannot be
read takes its default, only so that the rest can be looked at too.
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, TypeVar

from ai_mux.config.tree import Entry, Kind, Node, Scalar, Table, describe
from ai_mux.errors import ConfigError

T = TypeVar("T")

# What a key looks like. In YAML "{token:secret}" is one key without a value: of
# what does not look like a key, only the beginning that does is shown: letters, and no
# more of them than the longest key has, for a token may stand where a key belongs.
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z_-]{0,23}")


class Wrong(Exception):
    """One value cannot be used. The message says why and how to mend it, without the value."""


class Report:
    """What is wrong with a file, and what is only unwise."""

    def __init__(self, source: Path | None) -> None:
        self._source = source
        self._errors: list[tuple[int, str]] = []
        self._warnings: list[tuple[int, str]] = []

    def error(self, line: int, key: str, text: str) -> None:
        """Note a problem. Line 0 stands for no line: a default is at fault."""
        self._errors.append((line, self._sentence(line, key, text)))

    def warn(self, line: int, key: str, text: str) -> None:
        """Note what works and is unwise."""
        self._warnings.append((line, self._sentence(line, key, text)))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings, in the file's order."""
        return tuple(text for _, text in sorted(self._warnings, key=lambda noted: noted[0]))

    def raise_errors(self) -> None:
        """End here if anything is wrong.

        Raises:
            ConfigError: With one line for each problem, in the file's order.
        """
        if self._errors:
            raise ConfigError(*(text for _, text in sorted(self._errors, key=lambda noted: noted[0])))

    def _sentence(self, line: int, key: str, text: str) -> str:
        where = [str(self._source)] if self._source else []
        if line:
            where.append(str(line))
        return ": ".join(piece for piece in (":".join(where), key, text) if piece)


class Fields:
    """One mapping, read key by key.

    Unknown and duplicate keys, and a node that is no mapping, are reported at once.
    """

    def __init__(self, node: Node | None, *, at: str, known: Collection[str], report: Report) -> None:
        self._at = at
        self._known = known
        self._report = report
        self._entries: dict[str, Entry] = {}
        self.line = node.line if node is not None else 0
        if isinstance(node, Table):
            for entry in node.entries:
                self._take(entry)
        elif node is not None:
            report.error(node.line, at, f"must be a mapping ('key: value' lines), not {describe(node)}")

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str, read: Callable[[Node], T], default: T) -> T:
        """Return what ``read`` makes of a key, or ``default`` where it is absent or wrong."""
        entry = self._entries.get(key)
        if entry is None:
            return default
        try:
            return read(entry.value)
        except Wrong as exc:
            self._report.error(entry.line, self.path(key), str(exc))
            return default

    def path(self, key: str) -> str:
        """Return a key with everything above it, as messages name it: ``users[0].token``."""
        return f"{self._at}.{key}" if self._at else key

    def line_of(self, key: str) -> int:
        """Return the line of a key, or of the mapping where the key is absent."""
        return self._entries[key].line if key in self._entries else self.line

    def _take(self, entry: Entry) -> None:
        if entry.key not in self._known:
            self._report.error(entry.line, self.path(_shown(entry.key)), self._unknown(entry))
        elif (first := self._entries.get(entry.key)) is not None:
            self._report.error(
                entry.line, self.path(entry.key), f"duplicate key, already in line {first.line}; remove one"
            )
        else:
            self._entries[entry.key] = entry

    def _unknown(self, entry: Entry) -> str:
        # 8 ms that only a wrong file has to pay.
        from difflib import get_close_matches  # noqa: PLC0415

        stuck, colon, _ = entry.key.partition(":")
        if colon and stuck.strip() in self._known and _is_empty(entry.value):
            return "unknown key; put a blank after its ':'"
        near = get_close_matches(entry.key.lower()[:64], self._known, n=1)
        if near:
            return f"unknown key; did you mean '{near[0]}'?"
        return f"unknown key; remove it, or use one of {', '.join(self._known)}"


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.kind is Kind.NULL


def _shown(key: str) -> str:
    looks_right = _KEY.match(key)
    if looks_right is None:
        return "…"
    return key if looks_right.end() == len(key) else looks_right[0].rstrip("-") + "…"
