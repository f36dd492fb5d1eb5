"""What Codex and its provider say to each other in a tunnel, abridged."""

import json
from typing import Final

from engine.tunnels import frame
from engine.wires import Wire

USAGE: Final = {"input_tokens": 1200, "input_tokens_details": {"cached_tokens": 1000}, "output_tokens": 34}


def message(**members: object) -> bytes:
    """Return an event's text as clients and providers write it: the type first, no blanks."""
    return json.dumps(members, separators=(",", ":")).encode()


def create(model: str = "gpt-5.5", *, text: str = "Say hello.") -> bytes:
    """Return how Codex asks for a response."""
    return message(type="response.create", model=model, instructions="Be brief.", input=[{"text": text}])


def ask(model: str = "gpt-5.5", *, text: str = "Say hello.") -> bytes:
    """Return that in a frame."""
    return frame(create(model, text=text), masked=True)


def created() -> bytes:
    """Return how the provider begins one."""
    return frame(message(type="response.created", response={"id": "resp_1", "usage": None}))


def delta(text: str = "Hello") -> bytes:
    """Return a step of it."""
    return frame(message(type="response.output_text.delta", delta=text, sequence_number=4))


def ended(kind: str = "completed", *, model: str = "gpt-5.5-2026-04-23", **usage: object) -> bytes:
    """Return its end, and what it used."""
    said = USAGE | usage if kind != "failed" else None
    answer = {"id": "resp_1", "model": model, "usage": said, "output": [{"text": '"usage":{}'}]}
    return frame(message(type=f"response.{kind}", sequence_number=5, response=answer))


async def pass_on(source: Wire, sink: Wire, data: bytes) -> None:
    """Send bytes, and see them arrive as they are."""
    await source.send(data)
    assert await sink.exactly(len(data)) == data


def opening(data: bytes) -> tuple[bytes, bytes]:
    """Return the payload of the unmasked frame with which bytes begin, and what follows it."""
    size, at = data[1], 2
    if size == 126:
        size, at = int.from_bytes(data[2:4], "big"), 4
    return data[at : at + size], data[at + size :]


def unmasked(data: bytes) -> bytes:
    """Return the payload of a whole short frame of the client's."""
    return bytes(byte ^ data[2 + at % 4] for at, byte in enumerate(data[6:]))
