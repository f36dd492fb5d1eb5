"""Reads the use from a stream of server-sent events, without parsing the stream.

A stream has hundreds of events and one or two that say what it used. They hold the key
``"usage"``, which no other text can: inside a JSON string its quotes are escaped. So the
bytes are searched for it, many events at once, and only the line where it stands is parsed.

What is passed over on purpose: an event on several data lines, which no provider writes.

What all of this may cost is bounded by the bytes that came, whatever is in them. Figures are
cumulative: where very many events tell them, the last one of many is enough.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from ai_mux.usage.documents import WHOLE_BYTES
from ai_mux.usage.events import (
    ANTHROPIC_TELLING,
    OPENAI_TELLING,
    WINDOWS,
    parsed,
    take_anthropic,
    take_openai,
    type_of,
)
from ai_mux.usage.reading import Cumulative, name
from ai_mux.usage.tally import Reading
from ai_mux.wire.answers import Dialect
from ai_mux.wire.json_ends import way_to

# An event with a response in full: as large as the largest WebSocket message that is read. The
# largest answers of text are half a megabyte.
_LINE_BYTES: Final = 4 * 1024 * 1024
# Of one stream this much is parsed, and then of many lines at a time only the last, if it is
# short. As much as a response in full and 100 events more, and some 20 ms at the worst.
_PARSED_BYTES: Final = 512 * 1024
_PARSED_LINE_BYTES: Final = 2048  # what the shortest line costs, next to the bytes of a long one
_SHORT_BYTES: Final = 4096  # a chunk that tells what was used has one
# How often the key may be found: some servers write it in every chunk, of 150 bytes and more.
_FOUND: Final = 64
_FOUND_EVERY_BYTES: Final = 64
# How far the first event is looked for: there may be hundreds of comments before it, that the
# connection may not seem dead; and in it the model, behind some ids.
_OPENING_LINES: Final = 1024
_OPENING_BYTES: Final = 64 * 1024
# What Python holds for a piece beside its bytes.
_PIECE_BYTES: Final = 64
_USAGE: Final = b'"usage"'
_NULLS: Final = (b":null", b": null")  # in every chunk of a chat completion, and in a response's first events
_WINDOWS: Final = f'"{WINDOWS}"'.encode()
_WINDOWS_BYTES: Final = 16 * 1024  # it is kept until the stream ends, and has half a kilobyte
_DATA: Final = re.compile(rb"(?:\xEF\xBB\xBF)?data: ?")  # the first line may have a byte order mark
# Before an answer begins there may be a ping, and the limits' state.
_BEFORE: Final = frozenset({"ping", WINDOWS})
_TO_MODEL: Final = way_to(b'"model"').match
_TO_RESPONSES_MODEL: Final = way_to(b'"model"', inside=b'"response"').match
_ERROR: Final = re.compile(rb'\s*+\{\s*+(?:"type"\s*+:\s*+"error"|"error"\s*+:\s*+\{)')


class LineTooLong(Exception):
    """A line that nobody would send. The stream cannot be read any further."""


class Stream:
    """Reads one stream, however its bytes are cut.

    Attributes:
        held: How many bytes are held of a line that has not ended.
        windows: The last event that passed of those which say how far the provider's own limits are used.
    """

    __slots__ = (
        "_figures",
        "_has_windows",
        "_held",
        "_left",
        "_opened",
        "_opening_lines",
        "_take",
        "_telling",
        "held",
        "windows",
    )

    def __init__(self, dialect: Dialect) -> None:
        self.windows: Mapping[str, object] | None = None
        self._figures = Cumulative(dialect)
        self._held: list[bytes] = []
        self.held = 0
        self._left = _PARSED_BYTES
        self._opened = False
        self._opening_lines = _OPENING_LINES
        self._has_windows = dialect is Dialect.OPENAI
        self._take: Callable[[Mapping[str, object], Cumulative], None]
        if self._has_windows:
            self._telling, self._take = OPENAI_TELLING, take_openai
        else:
            self._telling, self._take = ANTHROPIC_TELLING, take_anthropic

    def feed(self, data: bytes) -> None:
        """Look at the next bytes.

        Raises:
            LineTooLong: A line has no end.
        """
        end = data.rfind(b"\n") + 1
        if not end:
            self._hold(data)
            return
        lines = data if end == len(data) else data[:end]
        if self._held:
            lines = b"".join((*self._held, lines))
            self._held.clear()
            self.held = 0
        if not self._opened:
            self._open(lines)
        at = lines.find(_USAGE)
        if at >= 0:
            self._read_lines(lines, at, _USAGE)
        if self._has_windows:
            at = lines.find(_WINDOWS)
            if at >= 0:
                self._read_lines(lines, at, _WINDOWS)
        if end != len(data):
            self._hold(data[end:])

    def reading(self, *, whole: bool) -> Reading:
        """Return what was read.

        Args:
            whole: The stream came to its own end.
        """
        if self._held:
            self.feed(b"\n")  # what has no line end yet gets none any more
        return self._figures.reading(whole=whole)

    def give_up(self) -> None:
        """Forget what is held: it will not be read."""
        self._held.clear()
        self.held = 0
        self._figures.spoilt = True

    def _hold(self, rest: bytes) -> None:
        self.held += len(rest) + _PIECE_BYTES
        if self.held > _LINE_BYTES:
            raise LineTooLong
        self._held.append(rest)

    def _open(self, lines: bytes) -> None:
        """See by the first event how the stream begins: which model answers, or that only an error comes."""
        at = 0
        while at < len(lines) and not self._opened:
            end = lines.find(b"\n", at)
            event = _payload(lines[at:end])
            at = end + 1
            self._opening_lines -= 1
            if event is None or type_of(event) in _BEFORE:
                self._opened = not self._opening_lines
                continue
            self._opened = True
            self._figures.refused = _ERROR.match(event) is not None
            model = _TO_MODEL(event, 0, _OPENING_BYTES) or _TO_RESPONSES_MODEL(event, 0, _OPENING_BYTES)
            if model is not None:
                self._figures.model = name(model[1].decode(errors="replace"))

    def _read_lines(self, lines: bytes, at: int, key: bytes) -> None:
        """Read the events that have the key, first at ``at``; of very many only the last."""
        size = len(key)
        behind = at + size
        for _ in range(_FOUND + len(lines) // _FOUND_EVERY_BYTES):
            if lines.startswith(_NULLS, behind):
                at = behind
            elif self._left > 0:
                at = self._read_line(lines, at)
            else:
                break
            at = lines.find(key, at)
            if at < 0:
                return
            behind = at + size
        self._read_line(lines, lines.rfind(key))

    def _read_line(self, data: bytes, at: int) -> int:
        """Read the event in the line around ``at``; return where the line ends."""
        end = data.find(b"\n", at)
        start = data.rfind(b"\n", 0, at) + 1
        if self._left <= 0 and end - start > _SHORT_BYTES:
            return end
        event = _payload(data[start:end])
        self._left -= _PARSED_LINE_BYTES
        if event is None:
            return end
        kind = type_of(event)
        if kind is None or kind in self._telling:
            self._left -= min(len(event), WHOLE_BYTES)
            try:
                said = parsed(event)
            except (ValueError, RecursionError):
                self._figures.spoilt = True
                return end
            if said.get("type") != WINDOWS:
                self._take(said, self._figures)
            elif len(event) <= _WINDOWS_BYTES:
                self.windows = said
        return end


def _payload(line: bytes) -> bytes | None:
    """Return an SSE line's data; None for any other line (a comment, an event's name)."""
    found = _DATA.match(line)
    return None if found is None else line[found.end() :]
