"""The admin listener: ``/metrics``, ``/status``, ``/healthz``, ``/readyz``. Plain HTTP, by aiohttp.

It is asked by programs that watch, a few times a minute, and is apart from the way of
requests: what goes wrong here, or hangs, costs an answer here.

Rule 1: who may see it comes first. With a token, a stranger gets 401 on every path but the
two that say only whether the server is well. Without one it listens where only this machine
reaches it, and web pages are refused: a browser on this machine would let any of them ask.

Rule 2: nobody holds it. Connections are few, and each has so long for its request and for
reading the answer. Who comes when all are taken gets the place of the one that has been of no
use for the longest; where there is a token, never at the cost of who has shown it.
"""

import asyncio
import hmac
import json
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from ai_mux.admin.metrics import Metrics
from ai_mux.admin.sources import Sources
from ai_mux.admin.status import document, not_ready
from ai_mux.config import Listen
from ai_mux.hosts import is_local_name
from ai_mux.logs import Log
from ai_mux.proxy import sockets
from ai_mux.users import digest_of

# A Prometheus or two, a person, a balancer's probe: each has one or two.
MOST_CONNECTIONS: Final = 64
# Of those that have not shown the token, where there is one. The other half is kept for those that have.
MOST_STRANGERS: Final = 32
# For a request to arrive, for an answer to be read, and for the next request to come.
LONGEST_S: Final = 30.0
_SWEEP_S: Final = 5.0
_GOODBYE_S: Final = 1.0
_SOCKET_MODE: Final = 0o600
_OPEN: Final = frozenset({"/healthz", "/readyz"})
_PATHS: Final = frozenset({"/metrics", "/status"})
_METHODS: Final = ("GET", "HEAD")
_TEXT: Final = "text/plain; charset=utf-8"
# Whose answers must be of now, and are nobody else's.
_FIELDS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "ai-mux"}

# aiohttp logs through the standard library, where nobody listens and a default handler would
# write to stderr, with tracebacks. What matters is logged here.
_SILENT: Final = logging.Logger("ai_mux.admin", level=logging.CRITICAL + 1)


async def serve_admin(
    listen: Listen,
    token_digest: bytes | None,
    sources: Sources,
    *,
    log: Log,
    handed: Sequence[socket.socket] = (),
) -> "AdminServer":
    """Open the admin listener. It answers when this returns, until ``stop`` is awaited.

    Args:
        listen: Where.
        token_digest: The SHA-256 of the token that it wants; None where none is needed.
        sources: What it tells of.
        log: Told where it listens, and of what goes wrong.
        handed: Sockets that are listened on already; none are opened then, and their files stay.

    Raises:
        ConfigError: It cannot be listened on.
    """
    listening = list(handed) or sockets.listen(
        host=listen.host, port=listen.port, path=listen.path, mode=_SOCKET_MODE, key="admin.listen"
    )
    server = AdminServer(listen, token_digest, sources, log=log, removes_socket=not handed)
    try:
        await server.start(listening)
    except BaseException:
        for sock in listening:
            sock.close()
        raise
    return server


class AdminServer:
    """The listener, from its sockets to its answers.

    Attributes:
        addresses: The URLs at which it is reached.
    """

    def __init__(
        self,
        listen: Listen,
        token_digest: bytes | None,
        sources: Sources,
        *,
        log: Log,
        removes_socket: bool = True,
    ) -> None:
        self.addresses: list[str] = []
        self._listen = listen
        self._removes_socket = removes_socket
        self._token_digest = token_digest
        self._sources = sources
        self._metrics = Metrics(sources)
        self._log = log
        self._server = _Server(self)
        self._listening: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._writing_down = asyncio.Lock()

    async def start(self, listening: list[socket.socket]) -> None:
        """Answer whoever connects to sockets that listen already."""
        loop = asyncio.get_running_loop()
        self.addresses = sockets.addresses(listening, tls=False)
        for sock in listening:
            self._listening.append(await loop.create_server(self._server, sock=sock))
        self._sweeper = loop.create_task(self._sweep_forever())
        self._log.info("admin.listening", addresses=self.addresses, token=self._token_digest is not None)

    def go_by(self, token_digest: bytes | None) -> None:
        """Want another token from now on. Where it listens stays."""
        self._token_digest = token_digest
        self._server.forget_who_is_known()

    # Answering

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever becomes of it."""
        try:
            return await self._answer(request)
        except Exception as error:  # a bug here costs an answer
            self._log.error("admin.bug", problem=type(error).__name__, path=_path(request))
            return _said(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug of ai-mux; the log has more")

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path = _path(request)
        if path not in _OPEN:
            refused = self._refused(request)
            if refused is not None:
                return refused
            if self._token_digest is not None:
                self._server.note_known(request.protocol)
            if path not in _PATHS:
                return _said(HTTPStatus.NOT_FOUND, "here are /metrics, /status, /healthz and /readyz")
        if request.method not in _METHODS:
            wrong = _said(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD")
            wrong.headers["Allow"] = ", ".join(_METHODS)
            return wrong
        match path:
            case "/healthz":
                return _said(HTTPStatus.OK, "ok")
            case "/readyz":
                why = not_ready(self._sources)
                return _said(HTTPStatus.OK, "ok") if why is None else _said(_UNAVAILABLE, why)
            case "/status":
                text = json.dumps(document(self._sources)) + "\n"
                return _body(text.encode(), "application/json")
            case _:
                accept = request.headers.get("Accept", "")
                collected = self._metrics.collect()
                # Some milliseconds where there are many users, which requests need not wait for.
                async with self._writing_down:
                    body, media_type = await asyncio.to_thread(self._metrics.exposition, collected, accept)
                return _body(body, media_type)

    def _refused(self, request: web.BaseRequest) -> web.Response | None:
        """Return the refusal of a request that may not see anything, or None."""
        if self._token_digest is not None:
            given = request.headers.getall("Authorization", [])
            scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
            digest = digest_of(token.strip(" ").encode("utf-8", "surrogateescape"))
            if scheme.lower() == "bearer" and hmac.compare_digest(digest, self._token_digest):
                return None
            stranger = _said(HTTPStatus.UNAUTHORIZED, "the admin token must come as a bearer token")
            stranger.headers["WWW-Authenticate"] = "Bearer"
            return stranger
        if "Origin" in request.headers:
            return _said(HTTPStatus.FORBIDDEN, "web pages are refused where there is no admin token")
        if self._listen.path is None and not is_local_name(request.headers.get("Host", "")):
            wanted = "the Host must be a loopback name or an IP address where there is no admin token"
            return _said(HTTPStatus.FORBIDDEN, wanted)
        return None

    # Watching the time

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep(self._sources.clock.monotonic())

    def sweep(self, now: float) -> None:
        """Let go of connections on which nothing was asked or answered for too long."""
        for transport in self._server.overdue(now):
            transport.abort()

    def now(self) -> float:
        """Return the time by which connections are watched."""
        return self._sources.clock.monotonic()

    @property
    def most_strangers(self) -> int:
        """How many connections may be open that have not shown the token."""
        return MOST_CONNECTIONS if self._token_digest is None else MOST_STRANGERS

    # Stopping

    async def stop(self) -> None:
        """Listen no more, let answers under way a second, and let go of everything."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for listening in self._listening:
            listening.close()
        if self._listen.path is not None and self._removes_socket:
            with suppress(OSError):
                await asyncio.to_thread(self._listen.path.unlink, missing_ok=True)
        self._server.pre_shutdown()
        await self._server.shutdown(_GOODBYE_S)
        for transport in self._server.overdue(float("inf")):
            transport.abort()
        await asyncio.sleep(0)


class _Handler(RequestHandler):
    """aiohttp's side of one connection, which says nothing of aiohttp where it cannot read a request."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")  # which ends the connection
        return _said(HTTPStatus(status), "this is no request that can be read")


@dataclass(slots=True, kw_only=True)
class _Use:
    """What is known of one connection.

    Attributes:
        used_at: When it was opened, or asked something.
        is_known: The token was shown on it.
    """

    transport: asyncio.Transport
    used_at: float
    is_known: bool = False


class _Server(web.Server):
    """aiohttp's server, with a bound on its connections, which it has in the order of their last use."""

    def __init__(self, admin: AdminServer) -> None:
        super().__init__(
            self._handle,
            logger=_SILENT,
            access_log=None,
            keepalive_timeout=LONGEST_S,
            lingering_time=0,  # nobody is asked for a body
        )
        self._admin = admin
        self._uses: dict[RequestHandler, _Use] = {}

    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        strangers = [one for one, it in self._uses.items() if not it.is_known]
        if len(strangers) >= self._admin.most_strangers or len(self._uses) >= MOST_CONNECTIONS:
            longest_unused = next(iter(strangers or self._uses))
            self._uses.pop(longest_unused).transport.abort()
        self._uses[handler] = _Use(transport=transport, used_at=self._admin.now())

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._uses.pop(handler, None)
        super().connection_lost(handler, exc)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = self._uses.pop(request.protocol, None)
        if connection is not None:  # to the end of the order
            connection.used_at = self._admin.now()
            self._uses[request.protocol] = connection
        return await self._admin.answer(request)

    def note_known(self, handler: RequestHandler) -> None:
        """Note that the token was shown on a connection."""
        connection = self._uses.get(handler)
        if connection is not None:
            connection.is_known = True

    def forget_who_is_known(self) -> None:
        """Note that all must show the token anew."""
        for connection in self._uses.values():
            connection.is_known = False

    def overdue(self, now: float) -> list[asyncio.Transport]:
        """Return the connections that have been of no use for too long."""
        return [it.transport for it in self._uses.values() if now - it.used_at > LONGEST_S]


_UNAVAILABLE: Final = HTTPStatus.SERVICE_UNAVAILABLE


def _path(request: web.BaseRequest) -> str:
    """Return the path as it came: nothing here has a name that could be written in two ways."""
    return request.raw_path.partition("?")[0]


def _said(status: HTTPStatus, text: str) -> web.Response:
    response = _body(f"{text}\n".encode(), _TEXT, status)
    if status >= HTTPStatus.BAD_REQUEST:
        response.force_close()  # there may be a body that nobody wants to read
    return response


def _body(body: bytes, media_type: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(body=body, status=status, headers=_FIELDS | {"Content-Type": media_type})
