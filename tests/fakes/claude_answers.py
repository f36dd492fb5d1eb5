"""Answers as Claude gives them, whose use is known: 18 tokens each."""

import json
from typing import Any, Final

MODEL: Final = "claude-sonnet-4-5-20250929"
TOKENS: Final = {"input": 10, "cache_read": 3, "cache_write_5m": 0, "cache_write_1h": 0, "output": 5}
TOTAL: Final = sum(TOKENS.values())
USAGE: Final = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 3}
# For whoever sets prices: dollars for a million tokens, so that each answer costs 10 + 3 + 5 millionths.
PRICES: Final = {"claude-*": {"input": 1, "output": 1, "cache_read": 1}}
COST_MICRO_USD: Final = 18


def message(text: str = "Hello.", **usage: int) -> bytes:
    """Return a plain message's body."""
    content = [{"type": "text", "text": text}]
    whole = {"type": "message", "model": MODEL, "content": content, "usage": USAGE | usage}
    return json.dumps(whole).encode()


def answer(body: bytes | None = None, *, fields: bytes = b"") -> bytes:
    """Return a whole response with such a body."""
    body = message() if body is None else body
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + fields
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def events(text: str = "Hello.", **usage: int) -> bytes:
    """Return a streamed message's body: the prompt's figures first, the answer's last."""
    told = USAGE | usage
    begun = {"type": "message", "model": MODEL, "usage": told | {"output_tokens": 1}}
    said: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
            for word in text.split(" ")
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "usage": {"output_tokens": told["output_tokens"]}},
        {"type": "message_stop"},
    ]
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in said
    )
