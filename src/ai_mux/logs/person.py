"""The log as a person reads it at a terminal: columns, local time, colour where that is welcome.

Clients choose paths, providers choose error texts, and a terminal obeys what it
is sent. So whatever is not printable is escaped: escape sequences, line ends,
marks that turn the direction of writing.
"""

import json
import time
from collections.abc import Mapping
from typing import Final

from ai_mux.logs.lines import Outcome
from ai_mux.logs.values import LONGEST_PATH, cut, plain

# Select Graphic Rendition (ECMA-48, 8.3.117): 1 bold, 2 faint, 31 red, 32 green, 33 yellow, 36 cyan.
_LEVEL_SGR: Final = {"debug": "2", "info": "36", "warn": "33", "error": "1;31"}
_STATUS_SGR: Final = {2: "32", 3: "36", 4: "33", 5: "31"}


class PersonForm:
    """A ``Form`` of columns. What follows the status is what one looks for next."""

    __slots__ = ("_colour",)

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def event(self, now_s: float, level: str, event: str, fields: Mapping[str, object]) -> bytes:
        """Return time, level, event, then ``name=value`` with values quoted where they have blanks."""
        values = "  ".join(self._dim(f"{visible(name)}=") + _word(value) for name, value in fields.items())
        return self._line(now_s, level, f"{visible(event):<24}  {values}".rstrip())

    def request(  # noqa: PLR0917 - see ``lines.Form``
        self,
        now_s: float,
        level: str,
        request_id: str,
        remote: str,
        method: bytes,
        path: bytes,
        user: str | None,
        provider: str | None,
        status: int | None,
        bytes_in: int,
        bytes_out: int,
        head_ms: float | None,
        total_ms: float,
        upstream: str | None,
        end: Outcome,
    ) -> bytes:
        """Return status, request, user, milliseconds to the head and in all, bytes in and out, and the rest.

        The provider is left out: the path begins with its name. So is an end that is as it should be.
        """
        where = visible(cut(path.decode("latin-1"), LONGEST_PATH))
        columns = (
            self._status(status),
            f"{visible(method.decode('latin-1')):<4} {where:<32}",
            f"{visible(user or '-'):<10}",
            f"{_duration(head_ms):>7} {_duration(total_ms):>7}",
            f"{_size(bytes_in):>9} {_size(bytes_out):>9}",
            self._dim(f"{visible(remote)} {visible(upstream or '-')} {visible(request_id)}"),
            *(() if end == "done" else (self._painted(end, _LEVEL_SGR["warn"]),)),
        )
        return self._line(now_s, level, "  ".join(columns))

    def _line(self, now_s: float, level: str, rest: str) -> bytes:
        clock = time.strftime("%H:%M:%S", time.localtime(int(now_s)))
        stamp = self._dim(f"{clock}.{int(now_s % 1 * 1000):03d}")
        return f"{stamp}  {self._painted(f'{level:<5}', _LEVEL_SGR[level])}  {rest}\n".encode()

    def _status(self, status: int | None) -> str:
        if status is None:
            return self._dim("---")
        return self._painted(str(status), _STATUS_SGR.get(status // 100, "0"))

    def _dim(self, text: str) -> str:
        return self._painted(text, "2")

    def _painted(self, text: str, sgr: str) -> str:
        return f"\x1b[{sgr}m{text}\x1b[0m" if self._colour else text


def _duration(ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:.1f} MiB"


def _word(value: object) -> str:
    known = plain(value)
    text = known if isinstance(known, str) else json.dumps(known, ensure_ascii=False)
    shown = visible(text)
    return f'"{shown}"' if not text or " " in text or "=" in text else shown


def visible(text: str) -> str:
    """Return ``text`` with everything escaped that a terminal might act on."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(one if one.isprintable() and one != "\\" else _escape(one) for one in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
