"""What a configuration says, once it has been read and found right.

Facts only: every path is absolute with ``~`` expanded, every duration is in
seconds, every size in bytes, and no token is held, only its SHA-256.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from ai_mux.hosts import is_loopback
from ai_mux.limits import NO_LIMITS, Limits
from ai_mux.outbound import OutboundProxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where the server listens.

    Attributes:
        text: As it was written.
        host: An IP literal (without brackets) or a name; None for all interfaces, or with ``path``.
        port: 0 to 65535, where 0 lets the system choose; 0 with ``path``.
        path: The unix socket, or None.
        is_open: Whether more may connect to that than its owner and those whom its mode is meant
            to let in. Never of a socket of our own, which has its mode from birth.
    """

    text: str
    host: str | None
    port: int
    path: Path | None
    is_open: bool = False

    @property
    def is_local(self) -> bool:
        """Tell whether only this machine can reach it: loopback, or a unix socket that is not open."""
        if self.path is not None:
            return not self.is_open
        return self.host is not None and is_loopback(self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """One provider that is served.

    Attributes:
        name: The provider, and the prefix in the path.
        credentials: The credential file; None for the provider's own name under ``state_dir``.
        api_key_file: The file that holds an API key, used instead of an OAuth credential, or None.
            Not read with the configuration: it is watched while the server runs.
        paths: Exact paths, or prefixes that end in ``*``, as clients write them after
            the provider's prefix; None for the provider's default, ``("*",)`` for every path.
        headers: Field name to value for every upstream request; None removes the client's.
            Not shown by ``repr``: a gateway's key may be among the values.
        base_url: What replaces the prefix, or None for the provider's own.
        token_url: The OAuth token endpoint, or None for the provider's own.
        proxy: What every connection to the provider and its token endpoint goes through;
            None for what the environment says (``outbound.chosen_proxy``). Not shown by ``repr``.
        ca_file: PEM certificates that replace the system's roots, or None.
    """

    name: str
    credentials: Path | None
    api_key_file: Path | None
    paths: tuple[str, ...] | None
    headers: Mapping[str, str | None] = field(repr=False)
    base_url: str | None
    token_url: str | None
    proxy: OutboundProxy | None = field(repr=False)
    ca_file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserConfig:
    """One user.

    Attributes:
        name: Not empty, and no other user's.
        digest: The SHA-256 of the token's bytes. The token itself is not kept.
        token_key: Under which key it was found, like ``users[0].token``.
        token_line: In which line of the configuration.
        token_file: The file that holds it, where it stands in one.
        limits: How much they may use: their own keys, and the default's where they have none.
        providers: Which providers they may use; None for all.
        models: Which models: globs; None for all.
        expires_at: From when on the token is good for nothing, in seconds since 1970; None for never.
    """

    name: str
    digest: bytes
    token_key: str = ""
    token_line: int = 0
    token_file: Path | None = None
    limits: Limits = NO_LIMITS
    providers: frozenset[str] | None = None
    models: tuple[str, ...] | None = None
    expires_at: float | None = None

    @property
    def at(self) -> str:
        """Where the user stands: ``users[0]``."""
        return self.token_key.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceConfig:
    """The operator's own price for a model.

    Attributes:
        model: A glob, matched without regard to case.
        per_million: Dollars for a million tokens, by kind (the fields of ``usage.tally.Tokens``).
    """

    model: str
    per_million: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageConfig:
    """What is kept of who used what.

    Attributes:
        enabled: Responses are metered and the ledger is written.
        keep_s: How long the ledger keeps a request, in seconds.
        show_windows: ``/usage`` shows users the provider's own windows, which are the owner's affair.
        prices: The operator's own prices, the first that matches wins.
    """

    enabled: bool = True
    keep_s: float = 400 * 86400.0
    show_windows: bool = False
    prices: tuple[PriceConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """The listener for metrics and status.

    Attributes:
        listen: Where.
        token_digest: The SHA-256 of the token that it wants; None for none, where only this machine
            reaches it.
        token_key: Under which key it was found, like ``admin.token``; empty for none.
        token_line: In which line of the configuration.
        token_file: The file that holds the token, where it stands in one.
    """

    listen: Listen
    token_digest: bytes | None = None
    token_key: str = ""
    token_line: int = 0
    token_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """A certificate and its key. Both were readable and belonged together when they were looked at.

    Attributes:
        cert_path: PEM: the server's certificate, then what leads to its root.
        key_path: PEM: the private key, not encrypted.
    """

    cert_path: Path
    key_path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration.

    Attributes:
        source: The file that it came from; None for the defaults alone.
        state_dir: Where credentials live. It need not exist yet.
        log_level: ``debug``, ``info``, ``warn`` or ``error``.
        request_timeout_s: The cap on waiting for an upstream's response head. None where
            the file does not say: 60 s, which clients may extend.
        refresh_check_interval_s: The time between two looks at the credentials.
        tls: None for plain HTTP.
        max_body_size: Of a request, in bytes.
        max_connections: From clients, at once.
        stream_idle_timeout_s: The longest silence inside a response.
        shutdown_timeout_s: How long running requests have when the server stops.
        limits: How much each user may use who has no limits of their own, and ``anonymous``.
        usage: What is kept of who used what.
        admin: The listener for metrics and status, or None.
        audit: The file that gets one line for each request, or None.
        warnings: What works and is unwise, one line each. For ``check`` and the log.
    """

    source: Path | None
    listen: Listen
    state_dir: Path
    log_level: str
    request_timeout_s: float | None
    refresh_check_interval_s: float
    providers: tuple[ProviderConfig, ...]
    users: tuple[UserConfig, ...]
    tls: TlsConfig | None
    max_body_size: int
    max_connections: int
    stream_idle_timeout_s: float
    shutdown_timeout_s: float
    limits: Limits
    usage: UsageConfig
    admin: AdminConfig | None
    audit: Path | None
    warnings: tuple[str, ...]
