"""What reaches a simulated provider through the gateway, and what a test lets it answer instead."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDictProxy

from ai_mux.demo import SimulatedProvider
from ai_mux.demo.openai import response_events

Events = Iterable[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as it reached the provider, a handshake too.

    Attributes:
        line: Method and path.
        fields: Its header fields.
        status: What it was answered with.
    """

    line: str
    fields: CIMultiDictProxy[str]
    status: int


@dataclass(slots=True, eq=False)
class Watch:
    """Looks on, and interferes where it is told to.

    Attributes:
        refusals: What the next handshakes are answered with, one each.
        script: What the next requests for a response are answered with, one each, warm-ups
            left out; after the last one the provider answers by itself.
        seen: The requests so far.
        asked: The bodies and frames that asked for a response.
        completed: The ids of the responses that were completed.
    """

    refusals: list[Callable[[], web.Response]] = field(default_factory=list)
    script: list[Events] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)

    def provider(self, **settings: Any) -> SimulatedProvider:
        """Return a provider that is watched."""
        return SimulatedProvider(pace_s=0, answer=self._answer, middlewares=[self._serve], **settings)

    @property
    def lines(self) -> list[tuple[str, int]]:
        """What was requested, and the status of the answer."""
        return [(one.line, one.status) for one in self.seen]

    def _answer(self, asked: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
        self.asked.append(asked)
        scripted = self.script and asked.get("generate") is not False
        for event in self.script.pop(0) if scripted else response_events(asked, count):
            if event["type"] == "response.completed":
                self.completed.append(event["response"]["id"])
            yield event

    @web.middleware
    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # Noted before it is answered: a WebSocket is answered when it has ended.
        at = len(self.seen)
        line, switches = f"{request.method} {request.path}", "Upgrade" in request.headers
        self.seen.append(Seen(line=line, fields=request.headers, status=101))
        answered = self.refusals.pop(0)() if switches and self.refusals else await handler(request)
        self.seen[at] = Seen(line=line, fields=request.headers, status=answered.status)
        return answered
