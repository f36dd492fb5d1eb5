"""The words that the simulated providers say, and what their answers are made of.

Token figures are estimates at four characters a token: plausible, and the same
for the same request.
"""

import json
import re
import secrets
from typing import Final

TEXT: Final = (
    "Hello! This answer came through ai-mux. ai-mux keeps the login of a Claude or ChatGPT subscription in "
    "one place, renews it by itself, and lets you reach it from any machine with an ordinary token of your "
    "own. Claude Code, Codex, the official SDKs and curl work as they are: they only need another address. "
    "Your requests and these words pass through unchanged, each as soon as it arrives. I am only a "
    "simulation, so nothing left this computer; with your own login in my place, the real model answers here."
)
# Each with the blank that follows it, so that they add up to the text.
WORDS: Final = tuple(re.findall(r"\S+ ?", TEXT))

Json = dict[str, object]


def tokens_in(body: bytes | str) -> int:
    """Return how many tokens a text or request would count, roughly."""
    return max(1, len(body) // 4)


def new_id(prefix: str) -> str:
    """Return an id such as providers give to requests, messages and items."""
    return prefix + secrets.token_hex(12)


def sse(event: str | None, data: object) -> bytes:
    """Return one server-sent event, with its name where it has one."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()
