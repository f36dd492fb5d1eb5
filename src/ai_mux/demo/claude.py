"""What a simulated Anthropic API says: bodies and events as data, no I/O.

A streamed message is the whole sequence that Claude Code and the SDKs expect,
usage figures and a ping included; the plain one holds the same text and figures.
"""

from collections.abc import Iterator
from typing import Final

from ai_mux.demo.words import TEXT, WORDS, Json, new_id, sse, tokens_in

MODELS: Final = ("claude-opus-4-8", "claude-sonnet-5", "claude-sonnet-4-5", "claude-haiku-4-5")


def message(model: str, input_tokens: int) -> Json:
    """Return a whole message, as ``stream: false`` gives it."""
    return {
        **_message_start(model, input_tokens),
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "usage": _usage(input_tokens, tokens_in(TEXT)),
    }


def message_events(model: str, input_tokens: int) -> Iterator[bytes]:
    """Yield the events of a streamed message, one word each."""
    yield sse("message_start", {"type": "message_start", "message": _message_start(model, input_tokens)})
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
        "usage": _usage(input_tokens, tokens_in(TEXT)),
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


def _message_start(model: str, input_tokens: int) -> Json:
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(input_tokens, 1),
    }


def _usage(input_tokens: int, output_tokens: int) -> Json:
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }
