"""Accepts clients, watches the time, and stops in order.

It owns what outlives a request: the connections on both sides, the pool, the
replay budget. What the configuration decides is ``gateway``, swapped whole.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from ai_mux.clock import Clock
from ai_mux.errors import RequestError
from ai_mux.logs import Log, Outcome, mask, masked_headers
from ai_mux.proxy.admission import presented_token
from ai_mux.proxy.client import ClientConnection
from ai_mux.proxy.engine import Engine
from ai_mux.proxy.in_turn import InTurn
from ai_mux.proxy.own_pages import OwnPages
from ai_mux.proxy.pool import Pool
from ai_mux.proxy.request import Request
from ai_mux.proxy.routes import Gateway
from ai_mux.proxy.turn import aside
from ai_mux.proxy.upload import ReplayBudget
from ai_mux.secret import Secret
from ai_mux.usage.accounting import Accounting
from ai_mux.usage.reading import UNMETERED
from ai_mux.usage.tally import NOTHING_READ
from ai_mux.usage.windows import ProviderWindows
from ai_mux.wire.answers import RequestIds, error_answer
from ai_mux.wire.http1 import ResponseHead

T = TypeVar("T")
SWEEP_S: Final = 1.0
_ACCEPTS_A_TURN: Final = 64
_NO_LONGER_FULL: Final = 0.9  # until then one line in the log is enough
_GOODBYE_S: Final = 1.0  # for whoever was told that we go, and for what is still to be sent
_SHOWN_BODY_BYTES: Final = 4096
_TELLING: Final = 8  # a shorter beginning of a token tells nothing, see ``Secret.beginning``


class Server:
    """The proxy, between its listening sockets and the providers.

    Attributes:
        gateway: What the configuration decides, for requests that begin now.
        accounting: Where requests begin and end their accounts.
        windows: What the providers say of their own limits.
        pages: What users see of their own use.
        pool: Connections to providers.
        budget: What all requests together may keep for a replay.
        in_turn: Looks into large bodies, bit by bit.
        ids: Makes request ids.
        draining: It is stopping: running requests end, new ones are refused.
        ending: It has stopped: what still runs is cut.
    """

    def __init__(
        self,
        *,
        gateway: Gateway,
        accounting: Accounting,
        windows: ProviderWindows,
        pages: OwnPages,
        engine: Engine,
        clock: Clock,
        log: Log,
        max_connections: int,
    ) -> None:
        self.gateway = gateway
        self.accounting = accounting
        self.windows = windows
        self.pages = pages
        self.clock = clock
        self.log = log
        self.pool = Pool(engine.connect, clock)
        self.budget = ReplayBudget()
        self.ids = RequestIds()
        self.draining = False
        self.ending = False
        self.loop = asyncio.get_running_loop()
        self.in_turn = InTurn(self.loop)
        self._engine = engine
        self._max_connections = max_connections
        self._clients: set[ClientConnection] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._asides: set[asyncio.Task[Any]] = set()
        self._untouched: set[socket.socket] = set()
        self._listening: tuple[socket.socket, ...] = ()
        self._tls: ssl.SSLContext | None = None
        self._accepting = False
        self._full_logged = False
        self._failure_logged = False
        self._sweeper: asyncio.Task[None] | None = None
        self._alone = asyncio.Event()
        self._alone.set()

    # Accepting

    def start(self, listening: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
        """Accept clients from sockets that listen already, and begin to watch the time."""
        self._listening = tuple(listening)
        for sock in listening:
            sock.setblocking(False)  # a second accept() must not wait for a second client
        self._tls = tls
        self._sweeper = self.loop.create_task(self._sweep_forever())
        self._accept_on()

    def go_by(self, gateway: Gateway, tls: ssl.SSLContext | None, *, max_connections: int) -> None:
        """Use another configuration for what begins from now on; what runs ends as it began."""
        self.gateway = gateway
        self.pool.keep_only(gateway.origins)
        for client in self._clients:
            client.reconsider(gateway)
        self._tls = tls
        self._max_connections = max_connections

    def _accept_on(self) -> None:
        if not self._accepting and not self.draining:
            self._accepting = True
            for sock in self._listening:
                self.loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept_off(self) -> None:
        if self._accepting:
            self._accepting = False
            for sock in self._listening:
                self.loop.remove_reader(sock.fileno())

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            if len(self._clients) + len(self._arriving) >= self._max_connections:
                self._accept_off()
                if not self._full_logged:
                    self._full_logged = True
                    self.log.warning("connections.full", limit=self._max_connections)
                return
            try:
                sock, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:  # out of descriptors or memory: the next sweep tries again
                self._accept_off()
                if not self._failure_logged:
                    self._failure_logged = True
                    self.log.error("connections.not_accepted", problem=exc.strerror or str(exc))
                return
            self._failure_logged = False
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if sock.family != socket.AF_UNIX:
                # asyncio would, but not knowing that it is TCP: an accepted socket's ``proto`` is 0.
                # Without it an event waits up to 40 ms for the one before to be acknowledged.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._untouched.add(sock)
            task = self.loop.create_task(self._serve(sock, ClientConnection(self)))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _serve(self, sock: socket.socket, client: ClientConnection) -> None:
        self._untouched.discard(sock)  # from here on it belongs to its transport
        try:
            await self._engine.accept(sock, client, self._tls)
        except asyncio.CancelledError:
            self.left(client)  # uvloop then forgets to tell it that its connection is lost
            raise
        except (OSError, TimeoutError) as exc:
            sock.close()
            self.log.debug("connection.handshake_failed", problem=str(exc))

    def joined(self, client: ClientConnection) -> None:
        """A client's connection is ready."""
        self._clients.add(client)
        self._alone.clear()

    def left(self, client: ClientConnection) -> None:
        """A client's connection is gone."""
        self._clients.discard(client)
        if not self._clients:
            self._alone.set()
        if not self._accepting and len(self._clients) < self._max_connections:
            self._accept_on()
        if len(self._clients) < self._max_connections * _NO_LONGER_FULL:
            self._full_logged = False

    # Watching the time

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep(self.clock.monotonic())

    def sweep(self, now: float) -> None:
        """Let every connection look at its deadlines."""
        for client in tuple(self._clients):
            client.sweep(now)
        self.pool.sweep(now)
        if len(self._clients) + len(self._arriving) < self._max_connections:
            self._accept_on()

    async def aside(self, work: Coroutine[Any, Any, T], *, unwanted: Callable[[T], None] | None = None) -> T:
        """Do for a request what needs a Task of its own; see ``turn.aside``."""
        return await aside(work, self._asides, unwanted=unwanted)

    # Saying what happened

    def account(self, request: Request, outcome: Outcome, *, probe: bool) -> None:
        """Log and enter the end of a request."""
        now = self.clock.monotonic()
        head, user = request.head, request.user
        meter, admitted = request.meter, request.admitted
        lease, reading = request.lease, NOTHING_READ
        if meter is not None:
            reading = meter.close(whole=outcome == "done")
        elif request.unanswered and lease is not None and request.gateway.metered:
            reading = UNMETERED  # it may be at work for a client that has left
        if request.asked and reading.model is None:
            request.note_model()
        if lease is not None and outcome == "refused" and not request.host:
            lease.withdraw()  # no provider saw it
        if meter is not None and meter.windows is not None and admitted is not None:
            credential = admitted.destination.credential
            self.windows.note_event(credential, meter.windows, self.clock.time())
        status = request.status
        head_ms = (request.head_at - request.started) * 1000 if status else None
        total_ms = (now - request.started) * 1000
        bytes_in, bytes_out = request.upload.received, request.sent
        if user is None and not probe:
            self.accounting.totals.stranger(status)
        if user is not None and request.provider:
            if status != 101:  # a tunnel's responses have been entered one by one
                self.accounting.enter(
                    lease,
                    request.id,
                    user.name,
                    "" if admitted is None else admitted.destination.credential,
                    request.provider,
                    head.path.decode("latin-1"),
                    request.model,
                    status,
                    reading,
                    bytes_in,
                    bytes_out,
                    head_ms,
                    total_ms,
                    outcome,
                    request.remote,
                    head.method,
                    None if meter is None else meter.size,
                )
        elif not probe:
            self.accounting.note(
                request_id=request.id,
                user="" if user is None else user.name,
                path=head.path.decode("latin-1"),
                status=status,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                head_ms=head_ms,
                total_ms=total_ms,
                end=outcome,
                remote=request.remote,
                method=head.method,
            )
        self.log.request(
            request_id=request.id,
            remote=request.remote,
            method=head.method,
            path=head.path,
            user=None if user is None else user.name,
            provider=request.provider or None,
            status=status or None,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            head_ms=head_ms,
            total_ms=total_ms,
            upstream=request.host or None,
            end=outcome,
            probe=probe,
        )

    def note_windows(self, credential: str, response: ResponseHead) -> None:
        """Remember what a provider says of its own limits; now and then is often enough."""
        now = self.clock.time()
        if response.status == 429 or self.windows.is_due(credential, now):
            self.windows.note_head(credential, response.sent.items(), now)

    def show_request(self, request: Request) -> None:
        """At ``debug``, show a request's head, and the beginning of a token that nobody has."""
        head = request.head
        token = presented_token(head)
        secret = Secret((token or b"").decode("latin-1"))  # clients repeat it in other fields, too
        headers = [_masked(line, secret) for line in masked_headers(head.sent.items())]
        self.log.debug("request.begun", request_id=request.id, headers=headers)
        if token and request.gateway.users and request.gateway.users.find(token) is None:
            self.log.debug("token.unknown", request_id=request.id, token=mask(token))

    def show_response(
        self, request: Request, response: ResponseHead, beginning: bytes, secret: Secret
    ) -> None:
        """At ``debug``, show a response's head, and the beginning of an error's body."""
        headers = [_masked(line, secret) for line in masked_headers(response.sent.items())]
        shown = {"request_id": request.id, "status": response.status, "headers": headers}
        if response.status >= 400:
            # Masked before it is cut, so that no half of a token is left at the end.
            shown["body"] = _masked(beginning.decode("latin-1"), secret)[:_SHOWN_BODY_BYTES]
        self.log.debug("upstream.response", **shown)

    def refuse_unread(self, client: ClientConnection, error: RequestError, received: bytes) -> None:
        """Answer a head that could not be read, in the shape that its path suggests, if it shows one."""
        path = received[:256].split(b"\r\n", 1)[0].partition(b" ")[2].partition(b"?")[0]
        request_id = self.ids.next()
        client.write(error_answer(error, self.gateway.dialect(path.split(b" ")[0]), request_id))
        self.log.info(
            "request.malformed",
            request_id=request_id,
            remote=client.remote,
            status=error.status,
            problem=error.public_message,
        )

    # Stopping

    def drain(self) -> None:
        """Accept nobody any more, close what is idle, and let running requests end."""
        self._accept_off()
        self.draining = True
        for sock in self._listening:  # closed, not left: who connects now must be refused at once
            sock.close()
        self._listening = ()
        for client in tuple(self._clients):
            client.drain()

    async def drained(self, timeout_s: float) -> None:
        """Wait until no client is connected any more, for at most ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._alone.wait()
        except TimeoutError:
            if self.requests:
                self.log.warning("requests.ended", requests=self.requests)

    async def end(self) -> None:
        """End everything now."""
        self.ending = True
        self.drain()
        for client in tuple(self._clients):
            client.end()
        for task in tuple(self._arriving):
            task.cancel()
        for sock in self._untouched:  # a task that is cancelled before its first step never runs
            sock.close()
        self._untouched.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        with suppress(TimeoutError):  # whatever hangs, a renewal in flight is still to be finished
            async with asyncio.timeout(_GOODBYE_S):
                await self._alone.wait()
                await self.pool.closed()
        for client in tuple(self._clients):
            client.transport.abort()
        self.pool.close()
        self.pages.close()
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    @property
    def requests(self) -> int:
        """How many requests are being served."""
        return sum(client.is_busy for client in self._clients)


def _masked(text: str, secret: Secret) -> str:
    """Return somebody's words without a secret, should they quote it; also where they end in it."""
    token = secret.reveal()
    if not token:
        return text
    text = text.replace(token, "[masked]")
    for shown in range(min(len(token), len(text)), _TELLING - 1, -1):
        if text.endswith(token[:shown]):
            return text[:-shown] + "[masked]"
    return text
