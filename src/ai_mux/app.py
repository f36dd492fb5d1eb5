"""Starts everything, reloads the configuration, and stops in order.

This, ``assembly``, ``listening`` and ``reloading`` are the last floors that know the configuration:
below, everything gets plain arguments. A reload swaps what ``assembly`` makes; sockets,
log and connections are made once.

That it is ready, reloads and stops is heard by the service manager, if one wants to be told.
"""

import asyncio
import signal
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ai_mux import __version__
from ai_mux.admin.sources import Sources
from ai_mux.admin.status import in_brief
from ai_mux.assembly import Assembly, Place
from ai_mux.bookkeeping import Bookkeeping
from ai_mux.clock import Clock, SystemClock
from ai_mux.config import Config
from ai_mux.credentials.refresh import FINISH_WAIT_S, Renewer
from ai_mux.listening import as_handed, is_wider, listening_sockets
from ai_mux.logs import Log
from ai_mux.providers import PROVIDERS
from ai_mux.providers.base import Provider
from ai_mux.proxy import sockets
from ai_mux.proxy.engine import Engine, chosen
from ai_mux.proxy.server import Server
from ai_mux.reloading import Reloads, read_again, taken_over
from ai_mux.storage import obstacles
from ai_mux.systemd import Handed, Manager

if TYPE_CHECKING:
    from ai_mux.admin.serving import AdminServer

# So long a start or a reload waits for credential files to be read. Local ones take a
# millisecond; a file server that hangs must not keep the port closed.
_FIRST_LOOK_S: Final = 1.0
# What a stop may take after the requests and the renewals: the last rows of ledger and audit log.
_LAST_WRITES_S: Final = 15.0


class App:
    """A whole ai-mux, from the listening sockets to the renewers.

    Attributes:
        addresses: The URLs at which it is reached.
    """

    def __init__(
        self,
        config: Config,
        *,
        providers: Mapping[str, Provider],
        clock: Clock,
        log: Log,
        engine: Engine,
        manager: Manager,
        handed: Handed | None,
    ) -> None:
        self._written = config.listen
        config = as_handed(config, handed)
        self._config = config
        self._manager = manager
        self._handed = handed
        self._providers = providers
        self._clock = clock
        self._log = log
        self._engine = engine
        self._assembly = Assembly(config, providers=providers, clock=clock, log=log)
        self._books = Bookkeeping(config, clock=clock, log=log)
        self._listening = listening_sockets(config, handed)
        self.addresses = sockets.addresses(self._listening, tls=config.tls is not None)
        self._background: set[asyncio.Task[None]] = set()
        self._watching: dict[Place, asyncio.Task[None]] = {}
        self._settling: dict[Place, asyncio.Task[None]] = {}
        self._reloads = Reloads(self._reload_once, spawn=self._spawn, log=log)
        self._server: Server | None = None
        self._admin: AdminServer | None = None
        self._started_at = 0.0
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()

    # Starting

    async def start(self) -> None:
        """Serve. The port is open when this returns; credentials are renewed in the background.

        Raises:
            ConfigError: A certificate, or a proxy of the environment, cannot be used.
        """
        config = self._config
        asyncio.get_running_loop().set_exception_handler(self._loop_problem)
        assembled = self._assembly.assemble(config)
        self._assembly.adopt(assembled, config)
        limit = sockets.raise_descriptor_limit(config.max_connections)
        self._server = Server(
            gateway=assembled.gateway,
            accounting=self._books.accounting,
            windows=self._books.windows,
            pages=self._books.pages,
            engine=self._engine,
            clock=self._clock,
            log=self._log,
            max_connections=limit,
        )
        self._started_at = self._clock.time()
        await asyncio.gather(self._look(assembled.renewers), self._look_at_directories())
        await self._books.start()
        await self._serve_admin()
        self._server.start(self._listening, assembled.server_tls)
        self._watch(assembled.renewers)
        self._log.info(
            "listening",
            addresses=self.addresses,
            handed_over=self._handed is not None,
            version=__version__,
            engine=self._engine.name,
            tls_engine=self._engine.tls,
            providers=[one.name for one in config.providers],
        )
        self._warn(limit)

    async def _serve_admin(self) -> None:
        admin = self._config.admin
        if admin is None:
            return
        # aiohttp and the metrics take a tenth of a second.
        from ai_mux.admin.serving import serve_admin  # noqa: PLC0415

        self._admin = await serve_admin(
            admin.listen,
            admin.token_digest,
            self._sources(),
            log=self._log,
            handed=() if self._handed is None else self._handed.admin,
        )

    def _sources(self) -> Sources:
        """Return what tells how the server is."""
        return Sources(
            version=__version__,
            engine=self._engine.name,
            started_at=self._started_at,
            clock=self._clock,
            server=self.server,
            renewers=lambda: [(place.provider, self._assembly.renewers[place]) for place in self._watching],
            limiter=self._books.accounting.limiter,
            totals=self._books.accounting.totals,
            windows=self._books.windows,
            ledger=self._books.ledger,
        )

    def _in_brief(self) -> str:
        """Return how the server is, for its manager."""
        try:
            return in_brief(self._sources(), self.addresses)
        except Exception as exc:  # who watches must not disturb: not a reload, not a watchdog
            return f"how it is cannot be said, by a bug of ai-mux: {type(exc).__name__}"

    def _loop_problem(self, _: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Log what a transport or callback raised: broken handshakes of strangers at ``debug``."""
        problem = context.get("exception")
        log = self._log.debug if isinstance(problem, OSError) else self._log.error
        log("loop.problem", problem=type(problem).__name__, doing=str(context.get("message", "")))

    async def _look_at_directories(self) -> None:
        """Say which directories could not keep what will be written there; a file server may hang."""
        wanted = {self._config.state_dir: "state_dir"}
        for place in self._assembly.renewers:
            if not place.api_key:
                inside = place.path.is_relative_to(self._config.state_dir)
                setting = "state_dir" if inside else f"credentials of {place.provider}"
                wanted.setdefault(place.path.parent, setting)
        looking = self._spawn(asyncio.to_thread(self._try_directories, wanted))
        await asyncio.wait({looking}, timeout=_FIRST_LOOK_S)

    def _try_directories(self, wanted: Mapping[Path, str]) -> None:
        for told in obstacles.unusable(wanted):
            self._log.error("directory.unusable", problem=told.problem, mend=told.mend)
        for told in filter(None, map(obstacles.foreign, wanted)):
            self._log.warning("directory.foreign", problem=told.problem, mend=told.mend)

    def _warn(self, limit: int) -> None:
        config, log = self._config, self._log
        for sentence in config.warnings:
            log.warning("config.warning", problem=sentence)
        if is_wider(config.listen, than=self._written):
            log.warning(
                "listen.wider",
                listen=self._written.text,
                handed_over=config.listen.text,
                problem="the socket unit listens where more clients can reach it than `listen` says",
            )
        if not config.users:
            if config.listen.is_open:
                log.error(
                    "users.none",
                    problem=f"NO USERS ARE CONFIGURED AND {config.listen.text} IS OPEN TO EVERY USER OF THIS "
                    "MACHINE: all of them may use the credentials; add users, or write SocketMode=0660 "
                    "beside a ListenStream= that is a path",
                )
            elif config.listen.is_local:
                log.warning(
                    "users.none",
                    problem="no users are configured: every local program may use the credentials",
                )
            else:
                log.error(
                    "users.none",
                    problem=f"NO USERS ARE CONFIGURED AND {config.listen.text} IS NOT LOOPBACK: everyone who "
                    "reaches it may use the credentials; add users, or listen on 127.0.0.1",
                )
        if limit < config.max_connections:
            log.warning("connections.limited", limit=limit, configured=config.max_connections)

    @property
    def server(self) -> Server:
        """The proxy, once started."""
        assert self._server is not None  # noqa: S101 - the caller has started it
        return self._server

    # Running

    async def run(self) -> None:
        """Start, serve until a signal asks to stop, and stop.

        The signals stay this app's: a SIGHUP after the end would otherwise end the process with an
        error, so the caller ends it from within the loop.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask_to_stop)
        await self.start()
        loop.add_signal_handler(signal.SIGHUP, self.reload)  # till then there is nothing to take the place of
        self._manager.ready(self._in_brief())
        self._spawn(self._manager.keep_informed(self._in_brief))
        await self._stopping.wait()
        await self.stop()

    def ask_to_stop(self) -> None:
        """Stop in order; asked a second time, stop at once."""
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()

    async def _look(self, renewers: Mapping[Place, Renewer]) -> None:
        """Let these renewers see their files before requests ask them.

        What a file holds decides more than the credential: which paths there are, and where they lead.
        """
        if renewers:
            looking = [self._spawn(renewer.look()) for renewer in renewers.values()]
            await asyncio.wait(looking, timeout=_FIRST_LOOK_S)

    def _watch(self, renewers: Mapping[Place, Renewer]) -> None:
        """Let just these renewers work by themselves. The others end what they began, and rest."""
        for place in [place for place in self._watching if place not in renewers]:
            self._watching.pop(place).cancel()
            self._settling[place] = self._spawn(self._assembly.renewers[place].settle())
        for place, renewer in renewers.items():
            if place in self._settling:
                self._settling.pop(place).cancel()
            if place not in self._watching:
                self._watching[place] = self._spawn(renewer.run())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the background what nobody waits for; a failure is logged, not lost."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    def _spawned_ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("background.failed", problem=repr(type(problem).__name__))

    # Reloading

    def reload(self) -> None:
        """Read configuration, certificates and credentials again (SIGHUP)."""
        if not self._stopping.is_set():
            self._reloads.ask()

    async def _reload_once(self) -> None:
        """Take over a new configuration, and let the manager know when that begins and ends.

        Raises:
            ConfigError: It cannot be used. Nothing has changed.
        """
        self._manager.reloading()
        try:
            await self._take_over()
        finally:
            self._manager.ready(self._in_brief())

    async def _take_over(self) -> None:
        """Take over a new configuration, whole or not at all."""
        # In threads: files are read, and certificates take tens of milliseconds.
        config = await asyncio.to_thread(read_again, self._config, tuple(self._providers))
        config = as_handed(config, self._handed)
        assembled = await asyncio.to_thread(self._assembly.assemble, config)
        await self._look(assembled.renewers)
        if self._stopping.is_set():
            return
        self._assembly.adopt(assembled, config)
        self._config, needs_restart = taken_over(self._config, config)
        if self._admin is not None and self._config.admin is not None:
            self._admin.go_by(self._config.admin.token_digest)  # a token that leaked must not wait
        limit = sockets.raise_descriptor_limit(config.max_connections)
        self.server.go_by(assembled.gateway, assembled.server_tls, max_connections=limit)
        self.addresses = sockets.addresses(self._listening, tls=config.tls is not None)
        self._log.set_level(config.log_level)
        await self._look_at_directories()
        self._watch(assembled.renewers)
        await self._books.go_by(config)
        self._log.info(
            "config.reloaded", providers=[one.name for one in config.providers], users=len(config.users)
        )
        if needs_restart:
            self._log.warning(
                "config.needs_restart", keys=needs_restart, problem="changed, and used after a restart only"
            )
        self._warn(limit)

    # Stopping

    async def stop(self) -> None:
        """Let running requests end, within ``shutdown_timeout``; then renewals, however asked."""
        if self._server is not None:
            self._log.info("stopping", connections=self._server.connections)
            self._server.drain()
            longest_s = self._config.shutdown_timeout_s + FINISH_WAIT_S + _LAST_WRITES_S
            self._manager.stopping(f"stopping; requests: {self._server.requests}", within_s=longest_s)
            await self._remove_socket()
            hurry = asyncio.ensure_future(self._at_once.wait())
            drained = asyncio.ensure_future(self._server.drained(self._config.shutdown_timeout_s))
            await asyncio.wait({hurry, drained}, return_when=asyncio.FIRST_COMPLETED)
            for waiting in (hurry, drained):
                waiting.cancel()
            await self._server.end()
        if self._admin is not None:
            await self._admin.stop()
        running = tuple(self._background)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.gather(*(one.finish() for one in self._assembly.renewers.values()))
        await self._books.close()
        self._log.info("stopped")

    async def _remove_socket(self) -> None:
        """Remove a unix socket of our own at once: later, it might be a successor's."""
        path = self._config.listen.path
        if path is not None and self._handed is None:
            await asyncio.to_thread(path.unlink, missing_ok=True)


def build(
    config: Config,
    *,
    providers: Mapping[str, Provider] = PROVIDERS,
    clock: Clock | None = None,
    log: Log | None = None,
    engine: Engine | None = None,
    manager: Manager | None = None,
    handed: Handed | None = None,
) -> App:
    """Build a whole ai-mux, inside a running event loop. Its sockets are bound when this returns.

    Args:
        config: What it serves.
        providers: By name.
        clock: The machine's unless given.
        log: On stderr unless given.
        engine: The best that is there unless given.
        manager: Who is told that it is ready, reloads and stops; nobody unless given.
        handed: Sockets to listen on instead of opening some.

    Raises:
        ConfigError: The address cannot be listened on, a socket that is handed over has no use, or the
            engine is not there.
    """
    clock = clock or SystemClock()
    return App(
        config,
        providers=providers,
        clock=clock,
        log=log or Log.to_stderr(level=config.log_level, clock=clock),
        engine=engine or chosen(),
        manager=manager or Manager(),
        handed=handed,
    )
