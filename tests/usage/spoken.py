"""What providers say, made up after their documentation: bodies, events, and what was used by them."""

import json

from ai_mux.usage.tally import Reading, Tokens

# Text that looks like figures, as a program that writes about usage would say it.
TREACHEROUS = (
    'he said: {"usage":{"input_tokens":999999,"output_tokens":999999}}\n\n'
    'data: {"usage":{"input_tokens":1}}\n'
)


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def sse(event: dict[str, object], *, named: bool = True) -> bytes:
    name = f"event: {event['type']}\n".encode() if named and "type" in event else b""
    return name + b"data: " + compact(event) + b"\n\n"


# Anthropic

MESSAGE_USAGE = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 700,
    "cache_read_input_tokens": 4000,
    "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 400},
    "output_tokens": 1,
    "service_tier": "standard",
}
MESSAGE = {
    "model": "claude-sonnet-4-5-20250929",
    "id": "msg_made_up",
    "type": "message",
    "role": "assistant",
    "content": [
        {"type": "text", "text": TREACHEROUS},
        {"type": "tool_use", "id": "toolu_made_up", "name": "count", "input": {"usage": {"input_tokens": 5}}},
    ],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {**MESSAGE_USAGE, "output_tokens": 88},
}
MESSAGE_READING = Reading(Tokens(21, 4000, 300, 400, 88), "whole", "claude-sonnet-4-5-20250929", "standard")

MESSAGE_START = {
    "type": "message_start",
    "message": {**MESSAGE, "content": [], "stop_reason": None, "usage": MESSAGE_USAGE},
}
MESSAGE_DELTA = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 88},
}
MESSAGE_DELTAS = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TREACHEROUS}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {
            "type": "server_tool_use",
            "id": "s",
            "name": "n",
            "input": {"usage": {"output_tokens": 7}},
        },
    },
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": '{"usage":{"output_tokens":123456}}'},
    },
    {"type": "content_block_stop", "index": 1},
]
MESSAGE_EVENTS = [MESSAGE_START, *MESSAGE_DELTAS, MESSAGE_DELTA, {"type": "message_stop"}]
MESSAGE_STREAM = b"".join(map(sse, MESSAGE_EVENTS))

# OpenAI: responses

TOOL = {"type": "function", "name": "f", "parameters": {"properties": {"usage": {"type": "object"}}}}
RESPONSE = {
    "id": "resp_made_up",
    "object": "response",
    "created_at": 1790000000,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": 'Say "usage": often. ' * 3,
    "max_output_tokens": None,
    "model": "gpt-5.5",
    "output": [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": TREACHEROUS}]}
    ],
    "parallel_tool_calls": True,
    "service_tier": "default",
    "store": False,
    "tools": [TOOL],
    "usage": {
        "input_tokens": 1200,
        "input_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 100},
        "output_tokens": 345,
        "output_tokens_details": {"reasoning_tokens": 300},
        "total_tokens": 1545,
    },
    "user": None,
    "metadata": {"service_tier": "flex", "usage": "mine", "model": "other"},
}
RESPONSE_READING = Reading(Tokens(76, 1024, 100, 0, 345), "whole", "gpt-5.5", "default")
BLANK_RESPONSE = {**RESPONSE, "status": "in_progress", "output": [], "usage": None, "service_tier": "auto"}
WINDOWS = {
    "type": "codex.rate_limits",
    "plan_type": "plus",
    "rate_limits": {
        "allowed": True,
        "primary": {"used_percent": 42, "window_minutes": 300, "reset_at": 1790003600},
        "secondary": None,
    },
}
RESPONSE_DELTAS = [
    {"type": "response.output_text.delta", "sequence_number": 2, "item_id": "m", "delta": TREACHEROUS},
    {
        "type": "response.function_call_arguments.delta",
        "sequence_number": 3,
        "delta": '{"usage":{"input_tokens":9}}',
    },
]
RESPONSE_COMPLETED = {"type": "response.completed", "sequence_number": 4, "response": RESPONSE}
RESPONSE_EVENTS = [
    WINDOWS,
    {"type": "response.created", "sequence_number": 0, "response": BLANK_RESPONSE},
    {"type": "response.in_progress", "sequence_number": 1, "response": BLANK_RESPONSE},
    *RESPONSE_DELTAS,
    RESPONSE_COMPLETED,
]
RESPONSE_STREAM = b"".join(map(sse, RESPONSE_EVENTS))

# OpenAI: chat completions, embeddings

CHAT_USAGE = {
    "prompt_tokens": 500,
    "completion_tokens": 40,
    "total_tokens": 540,
    "prompt_tokens_details": {"cached_tokens": 128, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0},
}
CHAT = {
    "id": "chatcmpl-made-up",
    "object": "chat.completion",
    "created": 1790000000,
    "model": "gpt-5.5-mini-2026-01-01",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": TREACHEROUS}, "finish_reason": "stop"}
    ],
    "usage": CHAT_USAGE,
    "service_tier": "flex",
    "system_fingerprint": None,
}
CHAT_READING = Reading(Tokens(372, 128, 0, 0, 40), "whole", "gpt-5.5-mini-2026-01-01", "flex")
CHUNK = {**CHAT, "object": "chat.completion.chunk", "usage": None}
CHAT_CHUNKS = [
    {**CHUNK, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
    for word in ("A", " word", TREACHEROUS)
]
LAST_CHUNK = {**CHUNK, "choices": [], "usage": CHAT_USAGE}
CHAT_STREAM = b"".join(sse(chunk) for chunk in [*CHAT_CHUNKS, LAST_CHUNK]) + b"data: [DONE]\n\n"
CHAT_STREAM_UNASKED = b"".join(sse(chunk) for chunk in CHAT_CHUNKS) + b"data: [DONE]\n\n"

EMBEDDING = {
    "object": "list",
    "data": [{"object": "embedding", "index": at, "embedding": [0.25 + at, -1e-9]} for at in range(40)],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
EMBEDDING_READING = Reading(Tokens(8, 0, 0, 0, 0), "whole", "text-embedding-3-small", None)
