"""What a log line is, and how it looks as JSON.

Rule 1: a line is one line. Clients choose paths, providers choose error texts,
and neither may start a second line. A JSON line holds printable ASCII only, the
rest is escaped.

Rule 2: the request's line is rendered by whoever logs it, not by the thread that
writes. Rendering in that thread costs the same CPU, and while it renders a batch
it holds the interpreter's lock, for which every stream then waits.
"""

import json
import time
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _escaped
from typing import Final, Literal, Protocol

from ai_mux.logs.values import LONGEST_PATH, cut, plain

# How a request or tunnel ended for its client: with the whole answer, or WebSocket's own end; with
# an error of ours; by leaving (or no longer reading) before; or cut, by its provider, a deadline or our stop.
Outcome = Literal["done", "refused", "left", "cut"]

# The names and the order of a request's line, in this one place.
REQUEST_FIELDS: Final = (
    "ts",
    "level",
    "event",
    "request_id",
    "remote",
    "method",
    "path",
    "user",
    "provider",
    "status",
    "bytes_in",
    "bytes_out",
    "head_ms",
    "total_ms",
    "upstream",
    "end",
)
# Each NUL is room for a value, or for those of the five fields that say who asks for what. Filling
# and joining takes half the time of formatting.
_ASKER: Final = slice(REQUEST_FIELDS.index("remote"), REQUEST_FIELDS.index("status"))
_TEMPLATE: Final = (
    '{{"{}":"\0.\0Z","{}":"\0","{}":"request.done","{}":\0,\0,"{}":\0,"{}":\0,"{}":\0,'
    '"{}":\0,"{}":\0,"{}":\0,"{}":"\0"}}\n'
).format(*REQUEST_FIELDS[: _ASKER.start], *REQUEST_FIELDS[_ASKER.stop :])
_PIECES: Final = [piece for constant in _TEMPLATE.split("\0") for piece in (constant, "")][:-1]
_MILLISECONDS: Final = tuple(f"{ms:03d}" for ms in range(1000))

# The same user asks for the same path from the same address again and again. What is
# remembered is bounded in number and length, for most of it is chosen by clients.
_REMEMBERED: Final = 512
_LONGEST_REMEMBERED: Final = 256

_Asker = tuple[str, bytes, bytes, str | None, str | None]
"""Who asks for what: remote, method, path, user, provider."""


class Form(Protocol):
    """Turns facts into one line that ends in a newline."""

    def event(self, now_s: float, level: str, event: str, fields: Mapping[str, object]) -> bytes:
        """Return the line of any event but a request's end."""

    def request(  # noqa: PLR0917 - by their places, which is cheaper, on the way of every request
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
        """Return the line of a request's end."""


class JsonForm:
    """One JSON object a line (RFC 8259), in ASCII. Bytes are shown as ISO 8859-1."""

    __slots__ = ("_askers", "_second", "_upstreams")

    def __init__(self) -> None:
        # The second that was rendered last and its text: one tuple, because other
        # threads log too and must not see one half of a change.
        self._second: tuple[int, str] = (-1, "")
        self._askers: dict[_Asker, str] = {}
        self._upstreams: dict[str | None, str] = {}

    def event(self, now_s: float, level: str, event: str, fields: Mapping[str, object]) -> bytes:
        """Return ``ts``, ``level``, ``event`` and the fields in the order given."""
        second = int(now_s)
        parts = [
            f'{{"ts":"{self._seconds(second)}.{int((now_s - second) * 1000):03d}Z"',
            f'"level":"{level}","event":{_escaped(event)}',
        ]
        parts += [f"{_escaped(_own(name))}:{_json(value)}" for name, value in fields.items()]
        return (",".join(parts) + "}\n").encode("ascii")

    def request(  # noqa: PLR0917 - by their places, which is cheaper, on the way of every request
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
        """Return the fields of ``REQUEST_FIELDS``; what is not known is null."""
        second = int(now_s)
        known, asker = self._second, (remote, method, path, user, provider)
        pieces = _PIECES.copy()
        pieces[1::2] = (
            known[1] if known[0] == second else self._seconds(second),
            _MILLISECONDS[int((now_s - second) * 1000)],
            level,
            _escaped(request_id),
            self._askers.get(asker) or self._asker(asker),
            "null" if status is None else str(status),
            str(bytes_in),
            str(bytes_out),
            "null" if head_ms is None else f"{head_ms:.1f}",
            f"{total_ms:.1f}",
            self._upstreams.get(upstream) or self._upstream(upstream),
            end,
        )
        return "".join(pieces).encode("ascii")

    def _seconds(self, second: int) -> str:
        known = self._second
        if known[0] != second:
            known = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
            self._second = known
        return known[1]

    def _asker(self, asker: _Asker) -> str:
        values = ["null" if one is None else _quoted(one) for one in asker]
        shown = ",".join(map('"{}":{}'.format, REQUEST_FIELDS[_ASKER], values))
        if len(shown) <= _LONGEST_REMEMBERED:
            if len(self._askers) >= _REMEMBERED:
                self._askers = {}
            self._askers[asker] = shown
        return shown

    def _upstream(self, host: str | None) -> str:
        if host is None:
            return "null"
        shown = _quoted(host)
        if len(shown) <= _LONGEST_REMEMBERED:
            if len(self._upstreams) >= _REMEMBERED:
                self._upstreams = {}
            self._upstreams[host] = shown
        return shown


def _quoted(value: str | bytes) -> str:
    return _escaped(cut(value if isinstance(value, str) else value.decode("latin-1"), LONGEST_PATH))


def _own(name: str) -> str:
    # A field may not pass for one of ours: a second "level" in one object would be
    # read as the first by some, as the second by others.
    return f"{name}_" if name in ("ts", "level", "event") else name


def _json(value: object) -> str:
    return json.dumps(plain(value), separators=(",", ":"))
