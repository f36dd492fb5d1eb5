"""What a simulated Anthropic API says: bodies and events as data, no I/O.

A streamed message is the whole sequence that Claude Code and the SDKs expect,
usage figures and a ping included; the plain one holds the same text and figures.

A prompt in which the client has marked what to cache counts as one of a conversation
that goes on: half of it is read from the cache, a quarter is written to it.
"""

import re
from collections.abc import Iterator
from typing import Final

from ai_mux.demo.words import TEXT, WORDS, Json, new_id, sse, tokens_in

MODELS: Final = ("claude-opus-4-8", "claude-sonnet-5", "claude-sonnet-4-5", "claude-haiku-4-5")

_MARK: Final = re.compile(rb'"cache_control"')
_FOR_AN_HOUR: Final = re.compile(rb'"ttl"\s*:\s*"1h"')


def prompt_usage(raw: bytes) -> Json:
    """Return what a usage object says of a request's prompt."""
    count = tokens_in(raw)
    read, written = (count // 2, count // 4) if _MARK.search(raw) else (0, 0)
    for_1h = written if _FOR_AN_HOUR.search(raw) else 0
    return {
        "input_tokens": count - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written - for_1h,
            "ephemeral_1h_input_tokens": for_1h,
        },
    }


def message(model: str, prompt: Json) -> Json:
    """Return a whole message, as ``stream: false`` gives it."""
    return {
        **_message_start(model, prompt),
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "usage": _usage(prompt, tokens_in(TEXT)),
    }


def message_events(model: str, prompt: Json) -> Iterator[bytes]:
    """Yield the events of a streamed message, one word each."""
    yield sse("message_start", {"type": "message_start", "message": _message_start(model, prompt)})
    block = {"type": "text", "text": ""}
    yield sse("content_block_start", {"type": "content_block_start", "index": 0, "content_block": block})
    yield sse("ping", {"type": "ping"})
    for word in WORDS:
        delta = {"type": "text_delta", "text": word}
        yield sse("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta})
    yield sse("content_block_stop", {"type": "content_block_stop", "index": 0})
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": _usage(prompt, tokens_in(TEXT)),
    }
    yield sse("message_delta", end)
    yield sse("message_stop", {"type": "message_stop"})


def model_entry(name: str) -> Json:
    """Return one entry of Anthropic's list of models."""
    return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}


def model_list() -> Json:
    """Return Anthropic's list of models, all on one page."""
    models = [model_entry(name) for name in MODELS]
    return {"data": models, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}


def _message_start(model: str, prompt: Json) -> Json:
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(prompt, 1),
    }


def _usage(prompt: Json, output_tokens: int) -> Json:
    return {**prompt, "output_tokens": output_tokens, "service_tier": "standard"}
