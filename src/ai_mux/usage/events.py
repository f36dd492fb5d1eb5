"""What the few telling events of a stream say, parsed: as SSE data, or as a WebSocket's messages."""

import re
from collections.abc import Mapping
from typing import Final

from ai_mux.usage.reading import Cumulative

WINDOWS: Final = "codex.rate_limits"
"""The type of the event in which ChatGPT says how far the subscription's own limits are used."""

ENDS: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)
"""The types of a response's last event at OpenAI: it holds the whole response, its usage included."""

ANTHROPIC_TELLING: Final = frozenset({"message_start", "message_delta"})
OPENAI_TELLING: Final = ENDS | {WINDOWS}

_TYPE: Final = re.compile(rb'\s*+\{\s*+"type"\s*+:\s*+"([^"\\]*+)"')


def type_of(event: bytes) -> str | None:
    """Return an event's type if it stands first, as providers write it; None: only a parser can tell."""
    found = _TYPE.match(event)
    return None if found is None else found[1].decode("latin-1")


def said_type(event: Mapping[str, object]) -> str | None:
    """Return a parsed event's type; None where it has none, as chunks of chat completions."""
    said = event.get("type")
    return said if said is None or isinstance(said, str) else ""


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
