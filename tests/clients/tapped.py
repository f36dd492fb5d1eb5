"""What a simulated provider really sent, taken from its bytes on their way to the gateway.

Nothing here comes from the code under test, nor from what makes the provider's
figures: the bytes are read as a vendor's documentation says that they read.
"""

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ai_mux.demo import SimulatedProvider

KINDS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")


class Tapped(SimulatedProvider):
    """A provider behind a wire-tap, which is where its URLs lead.

    Attributes:
        sent: What it has sent, by connection.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"pace_s": 0, **settings})
        self.sent: list[bytearray] = []
        self._tap: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None
    ) -> None:
        assert tls is None, "what is encrypted cannot be read here"
        await super().start(host, port)
        behind = self._origin.rpartition(":")[2]

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            from_provider, to_provider = await asyncio.open_connection(host, int(behind))
            self.sent.append(kept := bytearray())
            pumps = [
                asyncio.create_task(_pump(reader, to_provider, bytearray())),
                asyncio.create_task(_pump(from_provider, writer, kept)),
            ]
            self._pumps.update(pumps)
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for one in (writer, to_provider):
                one.close()

        self._tap = await asyncio.start_server(serve, host, 0)
        self._origin = f"http://{host}:{self._tap.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._tap is not None:
            self._tap.close()
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)
        await super().stop()

    def used(self) -> dict[str, Counter[str]]:
        """Return the tokens that it told of, by model, and as ``requests`` how many answers did."""
        models: dict[str, Counter[str]] = {}
        for raw in self.sent:
            for model, tokens in _usages(bytes(raw)):
                models.setdefault(model, Counter()).update({"requests": 1, **tokens})
        return models


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    try:
        while data := await reader.read(65536):
            kept += data
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass


def _usages(raw: bytes) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the model and the figures of each answer that has been finished."""
    model = ""
    for document in _documents(raw.decode("utf-8", "replace")):
        kind = document.get("type")
        if kind == "message_start":
            model = document["message"]["model"]
        elif kind == "message_delta":
            yield model, _anthropic(document["usage"])
        elif kind == "message":
            yield document["model"], _anthropic(document["usage"])
        elif kind == "response.completed":
            yield document["response"]["model"], _openai(document["response"]["usage"], "input", "output")
        elif document.get("object") == "response":
            yield document["model"], _openai(document["usage"], "input", "output")
        elif str(document.get("object")).startswith("chat.completion") and document.get("usage"):
            yield document["model"], _openai(document["usage"], "prompt", "completion")


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in what was sent, each of which was sent in one piece."""
    decoder, at = json.JSONDecoder(), 0
    while (at := text.find("{", at)) >= 0:
        document, at = decoder.raw_decode(text, at)
        yield document


def _anthropic(usage: dict[str, Any]) -> dict[str, int]:
    return {
        "input": usage["input_tokens"],
        "cache_read": usage["cache_read_input_tokens"],
        "cache_write_5m": usage["cache_creation"]["ephemeral_5m_input_tokens"],
        "cache_write_1h": usage["cache_creation"]["ephemeral_1h_input_tokens"],
        "output": usage["output_tokens"],
    }


def _openai(usage: dict[str, Any], prompt: str, answer: str) -> dict[str, int]:
    read = usage[f"{prompt}_tokens_details"]["cached_tokens"]
    return {
        "input": usage[f"{prompt}_tokens"] - read,
        "cache_read": read,
        "cache_write_5m": 0,
        "cache_write_1h": 0,
        "output": usage[f"{answer}_tokens"],
    }
