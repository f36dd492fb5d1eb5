"""The answers that ai-mux makes itself, as bytes.

An error has the shape that the path's clients parse, carries an id that stands
in the log too, and tells the official clients whether to try again: without
``x-should-retry`` Claude Code repeats even a 401, for over a minute.
"""

import json
import os
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from typing import Final

from ai_mux.errors import LimitReached, RequestError

_ID_CHARACTERS: Final = 26  # 130 bits
_ID_BLOCK: Final = 256
# RFC 4648, section 6, in lower case. 256 is 8 times 32, so every character is equally likely.
_BASE32: Final = b"abcdefghijklmnopqrstuvwxyz234567" * 8

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Dialect(Enum):
    """The shape of an error body that a path's clients parse."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"

    id_field: bytes
    """The response field in which this dialect's clients look for the request id."""


Dialect.ANTHROPIC.id_field = b"request-id"
Dialect.OPENAI.id_field = b"x-request-id"


class RequestIds:
    """Makes request ids: ``amx_`` and 26 random base32 characters.

    Random rather than counted, so that a user cannot read from an id how busy
    the others are. Made in blocks, because one call into the kernel costs more
    than an id.
    """

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: list[str] = []

    def next(self) -> str:
        """Return a new id."""
        if not self._made:
            block = os.urandom(_ID_CHARACTERS * _ID_BLOCK).translate(_BASE32).decode("ascii")
            starts = range(0, len(block), _ID_CHARACTERS)
            self._made = ["amx_" + block[start : start + _ID_CHARACTERS] for start in starts]
        return self._made.pop()


def answer(
    status: int,
    body: bytes,
    *,
    fields: tuple[tuple[str, str], ...] = (),
    to_head: bool = False,
    close: bool = False,
) -> bytes:
    """Return a whole response of our own.

    Args:
        status: The status code.
        body: The body; its length is announced even when ``to_head`` leaves it out.
        fields: Further header fields.
        to_head: The request was a HEAD.
        close: Announce that the connection will be closed.
    """
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Date: {formatdate(usegmt=True)}"]
    head += [f"{name}: {value}" for name, value in fields]
    head.append(f"Content-Length: {len(body)}")
    # RFC 9110, 7.8: whoever sends Upgrade names it in Connection.
    options = ["close"] * close + ["Upgrade"] * any(name == "Upgrade" for name, _ in fields)
    if options:
        head.append(f"Connection: {', '.join(options)}")
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + (b"" if to_head else body)


def error_answer(
    error: RequestError, dialect: Dialect, request_id: str, *, to_head: bool = False, close: bool = True
) -> bytes:
    """Return an error as a whole response in the dialect's shape.

    By default it announces the end of the connection, as an answer given before
    the request's body was read must.
    """
    if dialect is Dialect.ANTHROPIC:
        document: dict[str, object] = {
            "type": "error",
            "error": {"type": error.anthropic_type, "message": error.public_message},
            "request_id": request_id,
        }
    else:
        document = {"error": _told_to_openai(error)}
    fields = [
        ("Content-Type", "application/json"),
        (dialect.id_field.decode("ascii"), request_id),
        ("x-should-retry", "true" if error.retry else "false"),
        *error.fields,
    ]
    if error.retry_after_s is not None:
        fields.append(("retry-after", str(error.retry_after_s)))
    body = json.dumps(document).encode("utf-8")
    return answer(error.status, body, fields=tuple(fields), to_head=to_head, close=close)


def error_event(error: RequestError, request_id: str) -> bytes:
    """Return an error as an event of a WebSocket, as Codex and its provider know it."""
    headers = {"x-request-id": request_id, "x-should-retry": "true" if error.retry else "false"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    told = _told_to_openai(error)
    document = {"type": "error", "status": error.status, "error": told, "headers": headers}
    return json.dumps(document).encode("utf-8")


def _told_to_openai(error: RequestError) -> dict[str, object]:
    told: dict[str, object] = {
        "message": error.public_message,
        "type": error.openai_type,
        "param": None,
        "code": error.openai_code,
    }
    if isinstance(error, LimitReached) and error.resets_at is not None:
        told["resets_at"] = error.resets_at  # Codex shows it, instead of trying five times more
    return told
