"""What a simulated OpenAI says, the API and the subscription's backend: bodies and events as data, no I/O.

A streamed response is the whole sequence that Codex and the SDKs expect, usage
figures included, and the same events go over a WebSocket; the plain one holds the
same text and figures. Of a long prompt half counts as read from the cache.
"""

import secrets
import time
from collections.abc import Iterator
from typing import Final

from ai_mux.demo.words import TEXT, WORDS, Json, new_id, sse, tokens_in

MODELS: Final = ("gpt-5.5", "gpt-5.5-mini")
# OpenAI, "Prompt caching": prompts of 1024 tokens or more, by themselves.
_CACHED_FROM: Final = 1024

# Responses


def response(asked: Json, input_tokens: int) -> Json:
    """Return a whole response, as ``stream: false`` gives it."""
    return _completed(_blank_response(asked), [_output_item(new_id("msg_"))], input_tokens)


def response_events(asked: Json, input_tokens: int) -> Iterator[Json]:
    """Yield the events of a response, one word each; of a warm-up, its beginning and end."""
    for number, event in enumerate(_events(asked, input_tokens)):
        yield {"type": event["type"], "sequence_number": number, **event}


def _events(asked: Json, input_tokens: int) -> Iterator[Json]:
    blank = _blank_response(asked)
    yield {"type": "response.created", "response": blank}
    # What Codex sends ahead of its first question, over a WebSocket, so that the model has read it by then.
    if asked.get("generate") is False:
        yield {"type": "response.completed", "response": _completed(blank, [], input_tokens)}
        return
    yield {"type": "response.in_progress", "response": blank}

    item = _output_item(new_id("msg_"))
    part = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
    begun = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": begun}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
    for word in WORDS:
        yield {"type": "response.output_text.delta", **at, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": TEXT, "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": _completed(blank, [item], input_tokens)}


def compacted(input_tokens: int) -> Json:
    """Return what ``responses/compact`` makes of a conversation: one item that stands for it."""
    item = {"type": "compaction", "id": new_id("cmp_"), "encrypted_content": secrets.token_urlsafe(48)}
    return {
        "id": new_id("resp_"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [item],
        "usage": _usage(input_tokens, 16),
    }


def codex_models() -> Json:
    """Return the subscription backend's list of models."""
    return {"models": [_codex_model(name, place) for place, name in enumerate(MODELS)]}


def model_entry(name: str) -> Json:
    """Return one entry of OpenAI's list of models."""
    return {"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "simulation"}


def model_list() -> Json:
    """Return OpenAI's list of models."""
    return {"object": "list", "data": [model_entry(name) for name in MODELS]}


def _blank_response(asked: Json) -> Json:
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": asked.get("model"),
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": asked.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": asked.get("store") is not False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
    }


def _output_item(item_id: str) -> Json:
    part = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
    return {"id": item_id, "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def _completed(blank: Json, output: list[Json], input_tokens: int) -> Json:
    usage = _usage(input_tokens, tokens_in(TEXT) if output else 0)
    return {**blank, "status": "completed", "output": output, "usage": usage}


def _usage(input_tokens: int, output_tokens: int) -> Json:
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": _cached(input_tokens)},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_tokens + output_tokens,
    }


def _cached(input_tokens: int) -> int:
    return input_tokens // 2 if input_tokens >= _CACHED_FROM else 0


def _codex_model(name: str, place: int) -> Json:
    efforts = [{"effort": effort, "description": effort} for effort in ("low", "medium", "high")]
    return {
        "slug": name,
        "display_name": name,
        "description": "A simulated model",
        "default_reasoning_level": "medium",
        "supported_reasoning_levels": efforts,
        "shell_type": "shell_command",
        "visibility": "list",
        "supported_in_api": True,
        "priority": place,
        "base_instructions": "",
        "supports_reasoning_summaries": False,
        "support_verbosity": False,
        "truncation_policy": {"mode": "bytes", "limit": 10_000},
        "supports_parallel_tool_calls": True,
        "experimental_supported_tools": [],
        "context_window": 272_000,
    }


# Chat completions


def chat_completion(model: str, input_tokens: int) -> Json:
    """Return a whole chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": TEXT, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    usage = _chat_usage(input_tokens)
    return {**_chat(model, "chat.completion"), "choices": [choice], "usage": usage}


def chat_events(model: str, input_tokens: int, *, include_usage: bool) -> Iterator[bytes]:
    """Yield the chunks of a streamed chat completion, one word each, and the end mark."""
    frame = _chat(model, "chat.completion.chunk")
    if include_usage:
        frame["usage"] = None
    deltas: list[tuple[Json, str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": word}, None) for word in WORDS]
    deltas += [({}, "stop")]
    for delta, finish_reason in deltas:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        yield sse(None, {**frame, "choices": [choice]})
    if include_usage:
        yield sse(None, {**frame, "choices": [], "usage": _chat_usage(input_tokens)})
    yield b"data: [DONE]\n\n"


def _chat(model: str, kind: str) -> Json:
    return {"id": new_id("chatcmpl-"), "object": kind, "created": int(time.time()), "model": model}


def _chat_usage(input_tokens: int) -> Json:
    output_tokens = tokens_in(TEXT)
    return {
        "prompt_tokens": input_tokens,
        "prompt_tokens_details": {"cached_tokens": _cached(input_tokens), "audio_tokens": 0},
        "completion_tokens": output_tokens,
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        "total_tokens": input_tokens + output_tokens,
    }
