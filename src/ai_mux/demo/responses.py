"""OpenAI's Responses, as the API and the subscription's backend both serve them: over HTTP, over a WebSocket.

Rule 1: over a WebSocket come the event objects that a stream holds, a text frame each,
for one ``response.create`` after the other. What is wrong with one of them is an event
as well; the connection stays.

Rule 2: what was answered is remembered for its own connection alone. A
``previous_response_id`` of another one is refused, so that a gateway which mixes
connections up is found out.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import WSMsgType, web

from ai_mux.clock import Clock
from ai_mux.demo import openai
from ai_mux.demo.serving import json_object, stream
from ai_mux.demo.words import Json, new_id, sse, tokens_in

# Answers what was asked, and about so many tokens of it, by a response's events.
Answer = Callable[[Json, int], Iterable[Json]]
# Says what is wrong with what was asked, or None.
Complaint = Callable[[Json], str | None]

# As ai-mux's own default for request bodies: a frame holds what a body would.
LARGEST_REQUEST: Final = 64 * 1024 * 1024


class Responses:
    """The ways to a response.

    Args:
        clock: What the limits' ends are told by.
        pace_s: Seconds between two words.
        answer: Where the events come from.
    """

    def __init__(self, *, clock: Clock, pace_s: float, answer: Answer) -> None:
        self._clock = clock
        self._pace_s = pace_s
        self._answer = answer

    async def over_http(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        """Answer a POST: with a stream, or plainly."""
        asked, count = json_object(raw), tokens_in(raw)
        if "model" not in asked:
            return missing_model()
        if asked.get("stream") is not True:
            return web.json_response(openai.response(asked, count), headers=self.fields())
        events = (sse(str(event["type"]), event) for event in self._answer(asked, count))
        return await stream(request, self.fields(), events, pace_s=self._pace_s)

    async def compact(self, _request: web.Request, raw: bytes) -> web.StreamResponse:
        """Answer a request to compact a conversation."""
        return web.json_response(openai.compacted(tokens_in(raw)), headers=self.fields())

    async def over_websocket(
        self, request: web.Request, complaint: Complaint = lambda _: None
    ) -> web.StreamResponse:
        """Switch to WebSocket and answer what comes until the client leaves."""
        socket = web.WebSocketResponse(max_msg_size=LARGEST_REQUEST)
        socket.headers.update(self.fields())
        await socket.prepare(request)
        answered: set[object] = set()
        async for message in socket:
            if message.type is WSMsgType.ERROR:
                break
            asked = json_object(message.data)
            wrong = _refusal(asked, answered, complaint)
            events = [wrong] if wrong else self._answer(asked, tokens_in(message.data))
            for event in events:
                await socket.send_json(event)
                told = event.get("response")
                if event["type"] == "response.completed" and isinstance(told, dict):
                    answered.add(told["id"])
                elif "delta" in event:
                    await asyncio.sleep(self._pace_s)
        return socket

    def fields(self) -> dict[str, str]:
        """Return the fields of an answer's head: an id, and what is left of the limits."""
        now = int(self._clock.time())
        return {
            "x-request-id": new_id("req_sim"),
            "x-codex-primary-used-percent": "12",
            "x-codex-primary-window-minutes": "300",
            "x-codex-primary-reset-at": str(now + 300 * 60),
            "x-codex-secondary-used-percent": "34",
            "x-codex-secondary-window-minutes": "10080",
            "x-codex-secondary-reset-at": str(now + 10080 * 60),
        }


def refused(status: int, message: str, code: str) -> web.Response:
    """Return an error as OpenAI writes it."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers={"x-request-id": new_id("req_sim")})


def missing_model() -> web.Response:
    """Return the error of a request that names no model."""
    return refused(400, "Missing required parameter: 'model'.", "missing_required_parameter")


def _refusal(asked: Json, answered: set[object], complaint: Complaint) -> Json | None:
    """Return the event that refuses what a frame asks, or None."""
    previous = asked.get("previous_response_id")
    code, message = "invalid_request_error", complaint(asked)
    if asked.get("type") != "response.create":
        message = "A frame must be a JSON object whose type is 'response.create'."
    elif "model" not in asked:
        code, message = "missing_required_parameter", "Missing required parameter: 'model'."
    elif previous is not None and previous not in answered:
        code, message = "previous_response_not_found", f"Previous response with id '{previous}' not found."
    if message is None:
        return None
    error = {"type": "invalid_request_error", "code": code, "message": message}
    return {"type": "error", "status": 400, "error": error}
