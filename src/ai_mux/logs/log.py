"""The log: events with fields, one line each, on stderr.

Rule 1: logging costs a caller a few microseconds and never makes it wait or fail.

Rule 2: no secret is ever a field's value. ``Secret`` values show nothing,
``masked_headers`` is the only way for a head into the log, and ``mask`` the only
way for a token, to tell one from another.

Rule 3: a path is logged without its query, which may hold anything. Callers cut it.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Final, TextIO

from ai_mux.clock import Clock
from ai_mux.logs.lines import Form, JsonForm, Outcome
from ai_mux.logs.person import PersonForm
from ai_mux.logs.writer import Write, Writer, to_descriptor
from ai_mux.secret import Secret

LEVELS: Final = {"debug": 10, "info": 20, "warn": 30, "error": 40}
_DEBUG: Final = LEVELS["debug"]
_INFO: Final = LEVELS["info"]
_WARN: Final = LEVELS["warn"]
_ERROR: Final = LEVELS["error"]


class Log:
    """Where every part of ai-mux says what happened.

    Args:
        level: The least level that is shown: debug, info, warn or error.
        write: Where lines go.
        clock: What the time of each line is read from.
        form: How lines look; JSON unless said otherwise.

    Attributes:
        is_debug: Lines of the level ``debug`` are shown. Ask before making costly ones.
    """

    def __init__(self, *, level: str, write: Write, clock: Clock, form: Form | None = None) -> None:
        self._form: Form = JsonForm() if form is None else form
        self._time = clock.time
        self.set_level(level)
        self._writer = Writer(write, dropped=self._dropped)
        self._put = self._writer.put

    @classmethod
    def to_stderr(cls, *, level: str, clock: Clock) -> "Log":
        """Return a log on this process's stderr: for a person if that is a terminal, else JSON."""
        # Started with stderr closed, sys.stderr is None and descriptor 2 may since have
        # become a client's socket. The log must not be written into that: ``len`` is a
        # Write that takes everything and keeps nothing.
        if sys.stderr is None:
            return cls(level=level, write=len, clock=clock)
        try:
            # A descriptor of our own, for the life of the process: closing 2 and
            # opening something else in its place does not redirect the log either.
            fd = os.dup(2)
        except OSError:
            return cls(level=level, write=len, clock=clock)
        form = PersonForm(colour=wants_colour(sys.stderr, os.environ)) if os.isatty(fd) else JsonForm()
        return cls(level=level, write=to_descriptor(fd), clock=clock, form=form)

    # What happened

    def debug(self, event: str, **fields: object) -> None:
        """Log what only someone who searches for a fault wants to see."""
        if self._threshold <= _DEBUG:
            self._put(self._form.event(self._time(), "debug", event, fields))

    def info(self, event: str, **fields: object) -> None:
        """Log what happens in an ordinary day."""
        if self._threshold <= _INFO:
            self._put(self._form.event(self._time(), "info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        """Log what the operator should look at some time (level ``warn``)."""
        if self._threshold <= _WARN:
            self._put(self._form.event(self._time(), "warn", event, fields))

    def error(self, event: str, **fields: object) -> None:
        """Log what the operator must mend."""
        self._put(self._form.event(self._time(), "error", event, fields))

    def request(
        self,
        *,
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
        probe: bool = False,
    ) -> None:
        """Log the end of a request: the event ``request.done``, at ``info``.

        Args:
            request_id: The id that the client was told, ours or the provider's.
            remote: The client's address.
            method: As it came.
            path: As it came, without the query; any bytes. Shown as ISO 8859-1, cut after 2 KiB.
            user: Whose token it was, or None before that was known.
            provider: Which provider it was for, or None.
            status: What the client was answered, or None if it left before that.
            bytes_in: Bytes of the request's body.
            bytes_out: Bytes of the response's body.
            head_ms: Milliseconds to the response's head, or None if there was none.
            total_ms: Milliseconds in all.
            upstream: The host that was asked, or None.
            end: How it ended for its client: ``done``, ``refused`` with an error of ours, ``left``
                (or no longer read) before that, or ``cut`` by the provider or us.
            probe: A health check or start-up probe, which nobody wants to read about above ``debug``.
        """
        if self._threshold > (_DEBUG if probe else _INFO):
            return
        self._put(
            self._form.request(
                self._time(),
                "debug" if probe else "info",
                request_id,
                remote,
                method,
                path,
                user,
                provider,
                status,
                bytes_in,
                bytes_out,
                head_ms,
                total_ms,
                upstream,
                end,
            )
        )

    # What is shown

    def set_level(self, level: str) -> None:
        """Show lines from this level on: debug, info, warn or error."""
        self._threshold = LEVELS[level]
        self.is_debug = self._threshold <= _DEBUG

    # The end

    def close(self) -> None:
        """Write what is queued, and say how many lines were dropped; wait two seconds at most.

        Runs at the end of the program by itself. Lines logged later are lost.
        """
        self._writer.close()

    def _dropped(self, count: int) -> bytes:
        return self._form.event(self._time(), "warn", "log.dropped", {"lines": count})


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether a stream is a terminal whose owner has not asked for no colour (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


# Fields by which a request or answer proves who it is, or names an account. Parts of
# names, because vendors invent new ones: rather one harmless value too many masked.
_SECRET_PARTS: Final = (b"auth", b"token", b"secret", b"key", b"cookie", b"password", b"credential", b"jwt")
# Browsers cannot set Authorization on a WebSocket; OpenAI's convention puts the key into the protocol.
_SECRET_NAMES: Final = frozenset({b"chatgpt-account-id", b"sec-websocket-protocol"})
# What gives a secret away, whatever its field is called: a client may have lost the bytes between two.
_SECRET_VALUE: Final = re.compile(rb"bearer |basic |\bsk-", re.IGNORECASE)


def masked_headers(fields: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return ``Name: value`` for each field of a head, for a debug log, with secret values masked."""
    return [f"{name.decode('latin-1')}: {_masked_value(name.lower(), value)}" for name, value in fields]


def _masked_value(name: bytes, value: bytes) -> str:
    if name in _SECRET_NAMES or any(part in name for part in _SECRET_PARTS) or _SECRET_VALUE.search(value):
        return "[masked]"
    return value.decode("latin-1")


def mask(token: bytes) -> str:
    """Return the beginning of a token that nobody knows, for a debug log: see ``Secret.beginning``."""
    return Secret(token.decode("latin-1")).beginning()
