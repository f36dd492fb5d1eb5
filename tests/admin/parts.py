"""A running server's parts, for the admin listener to tell of: all real but proxy, time and provider."""

from pathlib import Path
from typing import Any

from engine.wires import Message, Wire
from fakes.clock import FakeClock
from fakes.records import Records
from fakes.renewing import claude_file

from ai_mux.admin.serving import AdminServer, serve_admin
from ai_mux.admin.sources import Sources
from ai_mux.config import Listen
from ai_mux.credentials.api_key import KeyIssuer
from ai_mux.credentials.endpoint import TokenEndpoint
from ai_mux.credentials.oauth import Issuer
from ai_mux.credentials.refresh import Renewer
from ai_mux.providers import PROVIDERS
from ai_mux.storage.files import FileStore
from ai_mux.storage.sqlite import SqliteStore
from ai_mux.usage.ledger import Ledger
from ai_mux.usage.limiter import Limiter
from ai_mux.usage.tally import MicroUsd, Record, Tokens
from ai_mux.usage.totals import Totals
from ai_mux.usage.windows import ProviderWindows

TOKEN = "Qf7vNc2Lr9Bx4Ws1Tz6Hk"
NOBODY = "http://127.0.0.1:9/oauth/token"


class Proxy:
    """What is asked of the proxy."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.draining = False


class Parts:
    """The parts, and the listener over them.

    Attributes:
        renewers: The credentials in use, with their providers.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.log = Records()
        self.proxy = Proxy()
        self.renewers: list[tuple[str, Renewer]] = []
        self.limiter = Limiter(self.clock)
        self.totals = Totals()
        self.windows = ProviderWindows()
        self.ledger: Ledger | None = Ledger(
            lambda: SqliteStore(directory / "usage.sqlite"), log=self.log, clock=self.clock, keep_s=1e9
        )
        self.server: AdminServer | None = None

    def sources(self) -> Sources:
        return Sources(
            version="1.2.3",
            engine="asyncio",
            started_at=self.clock.wall,
            clock=self.clock,
            server=self.proxy,
            renewers=lambda: self.renewers,
            limiter=self.limiter,
            totals=self.totals,
            windows=self.windows,
            ledger=self.ledger,
        )

    async def credential(
        self, provider: str = "claude", *, left_s: float | None = 3600, url: str = NOBODY, **tokens: Any
    ) -> Renewer:
        """Put a login there, with so much to live, and have it read; None for no file."""
        path = self.directory / provider / PROVIDERS[provider].credential_file
        if left_s is not None:
            claude_file(path, ends=self.clock.wall + left_s, **tokens)
        return await self._add(provider, path, PROVIDERS[provider].issuer, url)

    async def api_key(self, provider: str, key: str) -> Renewer:
        """Put an API key there, and have it read."""
        path = self.directory / f"{provider}.key"
        path.touch(0o600)
        path.write_text(key)
        return await self._add(provider, path, KeyIssuer(), NOBODY, api_key=True)

    async def _add(
        self, provider: str, path: Path, issuer: Issuer, url: str, *, api_key: bool = False
    ) -> Renewer:
        renewer = Renewer(
            name=provider,
            store=FileStore(path, self.log, is_ours=not api_key),
            issuer=issuer,
            endpoint=TokenEndpoint(url, timeout_s=5),
            clock=self.clock,
            log=self.log,
            check_interval_s=600,
            api_key=api_key,
        )
        await renewer.look()
        self.renewers.append((provider, renewer))
        return renewer

    # The listener

    async def serve(self, *, token_digest: bytes | None = None, path: Path | None = None) -> AdminServer:
        text = "127.0.0.1:0" if path is None else f"unix:{path}"
        listen = Listen(text=text, host=None if path else "127.0.0.1", port=0, path=path)
        self.server = await serve_admin(listen, token_digest, self.sources(), log=self.log)
        return self.server

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.addresses[0].rpartition(":")[2])

    async def ask(self, line: str, *fields: str, host: str = "localhost") -> Message:
        """Ask one thing over a connection of its own."""
        wire = await Wire.to(self.port)
        try:
            lines = [f"{line} HTTP/1.1", f"Host: {host}", *fields]
            await wire.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
            return await wire.message(to_head=line.startswith("HEAD"))
        finally:
            wire.close()

    async def close(self) -> None:
        if self.server is not None:
            await self.server.stop()
        for _, renewer in self.renewers:
            await renewer.finish()


def record(**said: Any) -> Record:
    """Return a request that went well, but for what is said of it."""
    usual = Record(
        ended_at=1_800_000_000.0,
        request_id="amx_madeup",
        user="alice",
        credential="claude:login",
        provider="claude",
        path="/claude/v1/messages",
        model="claude-sonnet-5",
        status=200,
        metering="whole",
        tokens=Tokens(10, 200, 3, 4, 50),
        cost=MicroUsd(1_250_000),
        bytes_in=1000,
        bytes_out=5000,
        head_ms=350.0,
        total_ms=4200.0,
    )
    return usual._replace(**said)


def add(totals: Totals, one: Record, end: str) -> None:
    """Add a request to the totals, as whoever enters its end does."""
    totals.add(
        (one.provider, one.status, one.user, one.model, one.metering, end),
        (one.tokens, one.cost, one.bytes_in, one.bytes_out, one.head_ms, one.total_ms),
    )
