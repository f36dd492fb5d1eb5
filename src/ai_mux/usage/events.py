"""What the few telling events of a stream say, parsed: as SSE data, or as a WebSocket's messages."""

import json
import re
from collections.abc import Mapping
from typing import Final

from ai_mux.usage.documents import WHOLE_BYTES, last_members
from ai_mux.usage.reading import Cumulative
from ai_mux.wire.json_ends import way_to

WINDOWS: Final = "codex.rate_limits"
"""The type of the event in which ChatGPT says how far the subscription's own limits are used."""

ENDS: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)
"""The types of a response's last event at OpenAI: it holds the whole response, its usage included."""

ANTHROPIC_TELLING: Final = frozenset({"message_start", "message_delta"})
OPENAI_TELLING: Final = ENDS | {WINDOWS}

_TYPE: Final = re.compile(rb'\s*+\{\s*+"type"\s*+:\s*+"([^"\\]*+)"')
# How an event ends of which the response is the last member but for its number: some write it there.
_RESPONSE_ENDS: Final = re.compile(rb'\}(\s*+(?:,\s*+"sequence_number"\s*+:\s*+[0-9]++\s*+)?\}\s*+)\Z')
_LAST_BYTES: Final = 128
_TO_MODEL: Final = way_to(b'"model"', inside=b'"response"').match
_OPENING_BYTES: Final = 64 * 1024  # the instructions stand before the model


def type_of(event: bytes) -> str | None:
    """Return an event's type if it stands first, as providers write it; None: only a parser can tell."""
    found = _TYPE.match(event)
    return None if found is None else found[1].decode("latin-1")


def said_type(event: Mapping[str, object]) -> str | None:
    """Return a parsed event's type; None where it has none, as chunks of chat completions."""
    said = event.get("type")
    return said if said is None or isinstance(said, str) else ""


def parsed(event: bytes, *, whole_bytes: int = WHOLE_BYTES) -> dict[str, object]:
    """Return an event; of one that is very long and holds a whole response, what matters of it.

    Args:
        event: As SSE data, or a message.
        whole_bytes: What is longer is very long.

    Raises:
        ValueError: It is no JSON object, or so long that nothing can be told of it.
        RecursionError: It is nested too deep.
    """
    if len(event) > whole_bytes:
        return _from_ends(event)
    found = json.loads(event.decode())
    if not isinstance(found, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - the type is the sender's doing
    return found


def _from_ends(event: bytes) -> dict[str, object]:
    kind = type_of(event)
    last = _RESPONSE_ENDS.search(event, len(event) - _LAST_BYTES)
    response = None if kind not in ENDS or last is None else last_members(event[: last.start(1)])
    if response is None:
        raise ValueError("it is too long")
    model = _TO_MODEL(event, 0, _OPENING_BYTES)
    if model is not None:
        response["model"] = model[1].decode(errors="replace")
    return {"type": kind, "response": response}


def take_anthropic(event: Mapping[str, object], figures: Cumulative) -> None:
    """Take an event of Anthropic's into account."""
    kind = said_type(event)
    if kind == "message_start":
        message = event.get("message")
        if isinstance(message, dict):
            figures.take(message, "begun")
    elif kind == "message_delta":
        # There may be several; the one that says why the answer stopped is the last.
        delta = event.get("delta")
        stopped = isinstance(delta, dict) and delta.get("stop_reason") is not None
        figures.take(event, "ended" if stopped else "running")


def take_openai(event: Mapping[str, object], figures: Cumulative) -> None:
    """Take an event of OpenAI's into account: a response's end, or a chunk of a chat completion."""
    kind = said_type(event)
    if kind is None:
        # The last chunk, if usage was asked for, has nothing else. Some servers say it in every chunk.
        figures.take(event, "running" if event.get("choices") else "ended")
    elif kind in ENDS:
        response = event.get("response")
        if isinstance(response, dict):
            figures.refused = kind == "response.failed" and response.get("usage") is None
            figures.take(response, "ended")
