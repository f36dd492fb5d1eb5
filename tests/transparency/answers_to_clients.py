"""What the recorder tells clients, so that they go on: the least that each accepts."""

import json
from typing import Final

from transparency.recorder import Request

_MODEL: Final = {
    "type": "model",
    "id": "claude-sonnet-5",
    "display_name": "S",
    "created_at": "2026-01-01T00:00:00Z",
}
_MESSAGE: Final = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5", "content": [],
    "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
}  # fmt: skip
_TEXT: Final = {"type": "text", "text": "hi"}
_CLAUDE_STREAM: Final[tuple[dict[str, object], ...]] = (
    {"type": "message_start", "message": _MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
)
_ITEM: Final = {
    "type": "message", "id": "item_1", "role": "assistant", "status": "completed",
    "content": [{"type": "output_text", "text": "hi", "annotations": []}],
}  # fmt: skip
_RESPONSE: Final = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5.5", "status": "completed",
    "output": [_ITEM], "parallel_tool_calls": False, "tool_choice": "auto", "tools": [],
}  # fmt: skip
_RESPONSES_STREAM: Final[tuple[dict[str, object], ...]] = (
    {"type": "response.created", "sequence_number": 0, "response": _RESPONSE | {"output": []}},
    {"type": "response.output_item.done", "sequence_number": 1, "output_index": 0, "item": _ITEM},
    {"type": "response.completed", "sequence_number": 2, "response": _RESPONSE},
)
_LISTS: Final[dict[str, object]] = {
    "/claude/v1/models": {"data": [_MODEL], "has_more": False, "first_id": "a", "last_id": "a"},
    "/claude/v1/models/claude-sonnet-5": _MODEL,
    "/chatgpt/v1/models": {"object": "list", "models": [], "data": []},
    "/chatgpt/v1/models/gpt-5.5": {"id": "gpt-5.5", "object": "model", "created": 1, "owned_by": "o"},
}


class Provider:
    """Answers as both providers would, as far as the clients look.

    Args:
        cuts: The first stream breaks off after its first event.
    """

    def __init__(self, *, cuts: bool = False) -> None:
        self._cuts = cuts

    def __call__(self, request: Request) -> bytes | None:
        path = request.target.partition("?")[0]
        if request.method == "HEAD":
            return _whole(200, b"")
        if b"upgrade: websocket" in request.head.lower():
            return _whole(426, b"{}")
        if request.method == "GET":
            return _json(_LISTS.get(path, {}))
        if path.endswith("/count_tokens"):
            return _json({"input_tokens": 7})
        if path.endswith("/messages"):
            if b'"stream":true' in request.body:
                cut, self._cuts = self._cuts, False
                return _stream(_CLAUDE_STREAM[:3] if cut else _CLAUDE_STREAM, ends=not cut)
            return _json(_MESSAGE | {"content": [_TEXT], "stop_reason": "end_turn"})
        if path.endswith("/responses"):
            wants_stream = b'"stream":true' in request.body or b"zstd" in request.head
            return _stream(_RESPONSES_STREAM, ends=True) if wants_stream else _json(_RESPONSE)
        if path.endswith("/chat/completions"):
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
            return _json({"id": "c", "object": "chat.completion", "created": 1, "choices": [choice]})
        if path.endswith("/embeddings"):
            return _json({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": []}]})
        return _json({})


def _whole(status: int, body: bytes) -> bytes:
    fields = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 %d Said\r\n%b%b" % (status, fields, body)


def _json(document: object) -> bytes:
    return _whole(200, json.dumps(document).encode())


def _stream(events: tuple[dict[str, object], ...], *, ends: bool) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    told = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in told]
    return head + b"".join(chunks) + (b"0\r\n\r\n" if ends else b"")
