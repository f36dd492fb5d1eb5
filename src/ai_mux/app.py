"""Builds everything from a configuration; starts it, and stops it in order.

This is the last floor that knows the configuration: below, everything gets plain
arguments. What a reload would replace is built by ``_gateway``; what outlives a
reload (sockets, log, renewers, connections) is built once.
"""

import asyncio
import os
import signal
import ssl
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from ai_mux import __version__
from ai_mux.clock import Clock, SystemClock
from ai_mux.config import Config, ProviderConfig
from ai_mux.credentials.endpoint import TokenEndpoint
from ai_mux.credentials.refresh import Renewer
from ai_mux.errors import ConfigError
from ai_mux.logs import Log
from ai_mux.providers import PROVIDERS
from ai_mux.providers.base import Provider
from ai_mux.proxy import sockets
from ai_mux.proxy.engine import Engine, chosen
from ai_mux.proxy.routes import Gateway, OpenPaths, Origin, Paths, Route
from ai_mux.proxy.server import Server
from ai_mux.storage.files import FileStore
from ai_mux.users import Users

_HEAD_TIMEOUT_S: Final = 60.0
_PROXY_VARIABLES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_PORTS: Final = {"https": 443, "http": 80}


class App:
    """A whole ai-mux, from the listening sockets to the renewers."""

    def __init__(
        self, config: Config, *, providers: Mapping[str, Provider], clock: Clock, log: Log, engine: Engine
    ) -> None:
        self._config = config
        self._providers = providers
        self._clock = clock
        self._log = log
        self._engine = engine
        self._tls: dict[Path | None, ssl.SSLContext] = {}
        self._origins: dict[tuple[str, str, int, Path | None], Origin] = {}
        self._renewers = {
            credential_path(config, one, providers[one.name]): self._renewer(one) for one in config.providers
        }
        listen = config.listen
        self._listening = sockets.listen(host=listen.host, port=listen.port, path=listen.path)
        self._background: set[asyncio.Task[None]] = set()
        self._server: Server | None = None
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()

    # Building

    def _renewer(self, one: ProviderConfig) -> Renewer:
        provider = self._providers[one.name]
        path = credential_path(self._config, one, provider)
        return Renewer(
            name=one.name,
            store=FileStore(path, self._log),
            issuer=provider.issuer,
            endpoint=TokenEndpoint(
                one.token_url or provider.token_url, ca_file=None if one.ca_file is None else str(one.ca_file)
            ),
            clock=self._clock,
            log=self._log,
            check_interval_s=self._config.refresh_check_interval_s,
        )

    def _gateway(self) -> Gateway:
        config = self._config
        timeout_s = config.request_timeout_s
        return Gateway(
            users=Users(config.users),
            routes={one.name.encode("ascii"): self._route(one) for one in config.providers},
            dialects={name.encode("ascii"): one.dialect for name, one in self._providers.items()},
            guards_loopback=config.listen.is_local and config.listen.path is None,
            head_timeout_s=_HEAD_TIMEOUT_S if timeout_s is None else timeout_s,
            head_timeout_is_cap=timeout_s is not None,
            stream_idle_timeout_s=config.stream_idle_timeout_s,
            max_body_size=config.max_body_size,
        )

    def _route(self, one: ProviderConfig) -> Route:
        provider = self._providers[one.name]
        base = urlsplit(one.base_url or provider.base_url)
        return Route(
            name=one.name,
            provider=provider,
            origin=self._origin(base, one.ca_file),
            base_path=base.path.rstrip("/").encode("ascii"),
            paths=Paths(provider.paths) if one.paths is None else OpenPaths(one.paths),
            tokens=self._renewers[credential_path(self._config, one, provider)],
            configured={
                name.encode("ascii"): None if value is None else value.encode("latin-1")
                for name, value in one.headers.items()
            },
        )

    def _origin(self, base: SplitResult, ca_file: Path | None) -> Origin:
        """Return the one object for an origin, under which its connections are pooled."""
        key = (base.scheme, base.hostname or "", base.port or _PORTS[base.scheme], ca_file)
        if key not in self._origins:
            self._origins[key] = Origin(
                host=key[1],
                port=key[2],
                tls=self._client_tls(ca_file) if base.scheme == "https" else None,
            )
        return self._origins[key]

    def _client_tls(self, ca_file: Path | None) -> ssl.SSLContext:
        if ca_file not in self._tls:
            self._tls[ca_file] = sockets.client_tls(ca_file)
        return self._tls[ca_file]

    # Starting

    async def start(self) -> None:
        """Serve. The port is open when this returns; credentials are looked at in the background.

        Raises:
            ConfigError: A certificate cannot be used.
        """
        config = self._config
        asyncio.get_running_loop().set_exception_handler(self._loop_problem)
        self._make_directories()
        limit = sockets.raise_descriptor_limit(config.max_connections)
        self._server = Server(
            gateway=self._gateway(),
            engine=self._engine,
            clock=self._clock,
            log=self._log,
            max_connections=limit,
        )
        self._server.start(self._listening, self._server_tls())
        self._spawn(one.run() for one in self._renewers.values())
        self._log.info(
            "listening",
            addresses=self.addresses,
            version=__version__,
            engine=self._engine.name,
            tls_engine=self._engine.tls,
            providers=[one.name for one in config.providers],
        )
        self._warn(limit)

    def _loop_problem(self, _: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Log what a transport or callback raised: broken handshakes of strangers at ``debug``."""
        problem = context.get("exception")
        log = self._log.debug if isinstance(problem, OSError) else self._log.error
        log("loop.problem", problem=type(problem).__name__, doing=str(context.get("message", "")))

    def _server_tls(self) -> ssl.SSLContext | None:
        tls = self._config.tls
        return None if tls is None else sockets.server_tls(tls.cert_path, tls.key_path)

    def _make_directories(self) -> None:
        """Make the directories into which the vendors' clients write their logins."""
        config = self._config
        wanted = [credential_path(config, one, self._providers[one.name]) for one in config.providers]
        for directory in dict.fromkeys([config.state_dir, *(path.parent for path in wanted)]):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as exc:
                self._log.error("directory.not_made", path=str(directory), problem=exc.strerror or str(exc))

    def _warn(self, limit: int) -> None:
        config, log = self._config, self._log
        for sentence in config.warnings:
            log.warning("config.warning", problem=sentence)
        if not config.users:
            if config.listen.is_local:
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
        proxies = sorted(
            name for name, value in os.environ.items() if value and name.lower() in _PROXY_VARIABLES
        )
        if proxies:
            log.warning(
                "proxy.ignored", problem=f"{', '.join(proxies)} is set; providers are reached directly"
            )

    @property
    def addresses(self) -> list[str]:
        """The URLs at which it is reached."""
        return sockets.addresses(self._listening, tls=self._config.tls is not None)

    @property
    def server(self) -> Server:
        """The proxy, once started."""
        assert self._server is not None  # noqa: S101 - the caller has started it
        return self._server

    # Running

    async def run(self) -> None:
        """Start, serve until a signal asks to stop, and stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self.reread)
        await self.start()
        await self._stopping.wait()
        await self.stop()

    def ask_to_stop(self) -> None:
        """Stop in order; asked a second time, stop at once."""
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()

    def reread(self) -> None:
        """Read certificates and credentials again (SIGHUP)."""
        self._log.warning("config.not_reread", problem="configuration not re-read; restart")
        try:
            tls = self._server_tls()
        except ConfigError as exc:
            self._log.error("tls.not_reread", problem=str(exc))
        else:
            if tls is not None:
                self.server.use_tls(tls)
                self._log.info("tls.reread")
        self._spawn(one.check() for one in self._renewers.values())

    def _spawn(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Run in the background what nobody waits for; a failure is logged, not lost."""
        for one in work:
            task = asyncio.create_task(one)
            self._background.add(task)
            task.add_done_callback(self._spawned_ended)

    def _spawned_ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("background.failed", problem=repr(type(problem).__name__))

    async def stop(self) -> None:
        """Let running requests end, within ``shutdown_timeout``; then renewals, however asked."""
        if self._server is not None:
            self._log.info("stopping", connections=self._server.connections)
            self._server.drain()
            await self._remove_socket()
            hurry = asyncio.ensure_future(self._at_once.wait())
            drained = asyncio.ensure_future(self._server.drained(self._config.shutdown_timeout_s))
            await asyncio.wait({hurry, drained}, return_when=asyncio.FIRST_COMPLETED)
            for waiting in (hurry, drained):
                waiting.cancel()
            await self._server.end()
        running = tuple(self._background)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.gather(*(one.finish() for one in self._renewers.values()))
        self._log.info("stopped")

    async def _remove_socket(self) -> None:
        """Remove our unix socket at once: later, it might be a successor's."""
        path = self._config.listen.path
        if path is not None:
            await asyncio.to_thread(path.unlink, missing_ok=True)


def build(
    config: Config,
    *,
    providers: Mapping[str, Provider] = PROVIDERS,
    clock: Clock | None = None,
    log: Log | None = None,
    engine: Engine | None = None,
) -> App:
    """Build a whole ai-mux, inside a running event loop. Its sockets are bound when this returns.

    Raises:
        ConfigError: The address cannot be listened on, or the engine is not there.
    """
    clock = clock or SystemClock()
    return App(
        config,
        providers=providers,
        clock=clock,
        log=log or Log.to_stderr(level=config.log_level, clock=clock),
        engine=engine or chosen(),
    )


def credential_path(config: Config, one: ProviderConfig, provider: Provider) -> Path:
    """Return where a provider's credential is kept."""
    return one.credentials or config.state_dir / one.name / provider.credential_file
