"""What the configuration decides about requests, in one immutable object.

A request fetches the ``Gateway`` once, at its start, and uses that one to its
end. A reload puts a new one in place; nothing is changed under a request.
"""

import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from ai_mux.credentials.credential import Credential
from ai_mux.outbound import OutboundProxy
from ai_mux.providers.base import Backend, PathRule, Provider
from ai_mux.secret import Secret
from ai_mux.users import ANONYMOUS, User, Users
from ai_mux.wire.answers import Dialect
from ai_mux.wire.headers import NOTABLE_IN_REQUESTS, RequestRules
from ai_mux.wire.shapes import FieldNames

HEALTH: Final = b"/healthz"
USAGE: Final = b"/usage"
# One segment: what model ids of both providers consist of (claude-x-y@date, ft:gpt:org::id).
_ID: Final = rb"[A-Za-z0-9._:@-]+"


class Tokens(Protocol):
    """Who hands out the credential: ``credentials.refresh.Renewer``."""

    @property
    def is_api_key(self) -> bool:
        """What it hands out now is an API key."""

    def fresh(self) -> Credential | None:
        """Return a credential that may be used now, or None when ``renewed`` must be awaited.

        Raises:
            Unavailable: There is none, and asking again at once would not help.
        """

    async def renewed(self, refused: Secret | None = None) -> Credential:
        """Return a renewed credential, never with the access token that was refused.

        Raises:
            Unavailable: It could not be renewed, or not in time.
        """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """Where a provider is reached. Connections are pooled by this very object, not by what it says.

    Attributes:
        host: A name or an IP address, without brackets.
        port: The TCP port.
        tls: The context for https, or None for http.
        via: The proxy that every connection goes through, or None to go there directly.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    via: OutboundProxy | None = None

    @property
    def authority(self) -> bytes:
        """The value of Host (RFC 9110, 7.2): the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 80 if self.tls is None else 443
        return (host if self.port == default else f"{host}:{self.port}").encode("ascii")


class Paths:
    """Which paths a user may reach, with which methods."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, rules: Sequence[PathRule]) -> None:
        exact: dict[bytes, PathRule] = {}
        patterns: list[tuple[re.Pattern[bytes], PathRule]] = []
        for rule in rules:
            if b"{id}" in rule.path:
                before = rule.path.removesuffix(b"{id}")
                patterns.append((re.compile(re.escape(before) + _ID), rule))
            else:
                exact[rule.path] = rule
        self._exact = exact
        self._patterns = tuple(patterns)

    def find(self, path: bytes) -> PathRule | None:
        """Return the rule for ``path``, or None where the path is not served."""
        rule = self._exact.get(path)
        if rule is None:
            for pattern, candidate in self._patterns:
                if pattern.fullmatch(path):
                    return candidate
        return rule


class OpenPaths:
    """Which paths a user may reach by the configuration's ``paths``, with any method."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, paths: Sequence[str]) -> None:
        raw = [path.encode("latin-1") for path in paths]
        self._exact = frozenset(path for path in raw if not path.endswith(b"*"))
        self._prefixes = tuple(path[:-1] for path in raw if path.endswith(b"*"))

    def __contains__(self, path: bytes) -> bool:
        return path in self._exact or path.startswith(self._prefixes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Destination:
    """Where a provider's requests go with one kind of credential.

    Attributes:
        api_key: The kind: an API key, or a login. A request with the other kind never goes here.
        origin: Where it is reached.
        base_path: The path of its base URL, without a trailing slash.
        backend: What the provider says about it.
        paths: What is served: the backend's default rules, or the configuration's paths.
        credential: The credential as the ledger names it: ``claude:login``, ``chatgpt:api-key``.
    """

    api_key: bool
    origin: Origin
    base_path: bytes
    backend: Backend
    paths: Paths | OpenPaths
    credential: str

    def target(self, path: bytes) -> bytes:
        """Return the path upstream for a path after the prefix."""
        return self.base_path + self.backend.target(path) or b"/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One configured provider, ready for requests.

    Attributes:
        name: The provider's name.
        provider: What it is.
        login: Where its requests go with a login.
        api_key: Where they go with an API key.
        tokens: Who hands out its credential.
        configured: The operator's header fields.
    """

    name: str
    provider: Provider
    login: Destination
    api_key: Destination
    tokens: Tokens
    configured: Mapping[bytes, bytes | None]
    _rules: list[tuple[Credential, RequestRules, RequestRules]] = field(default_factory=list, repr=False)

    @property
    def destination(self) -> Destination:
        """Where requests go now, by the kind of credential that there is."""
        return self.api_key if self.tokens.is_api_key else self.login

    def rules(self, credential: Credential, *, handshake: bool = False) -> RequestRules:
        """Return what is changed in a request, or in a WebSocket's handshake, that carries ``credential``."""
        if not self._rules or self._rules[0][0] is not credential:
            self._rules[:] = [(credential, self._build(credential), self._build(credential, handshake=True))]
        _, plain, upgrading = self._rules[0]
        return upgrading if handshake else plain

    def notable(self) -> frozenset[bytes]:
        """Return the field names that the head parser must note for this provider."""
        login = Credential(access=Secret(""), refresh=None, expires_at=None, account_id="-", fedramp=True)
        key = Credential(access=Secret(""), refresh=None, expires_at=None, api_key=True)
        return self._build(login).notable | self._build(key).notable

    def _build(self, credential: Credential, *, handshake: bool = False) -> RequestRules:
        destination = self.api_key if credential.api_key else self.login
        return RequestRules(
            host=destination.origin.authority,
            configured=self.configured,
            changes=self.provider.changes(credential),
            handshake=handshake,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Where a request may go.

    Attributes:
        route: The provider.
        destination: Where that is, with the kind of credential that there was.
        target: The path upstream; the query is added to it.
        free: It uses no tokens, so it is neither metered nor counted.
        dialect: The shape of errors that the clients of its path parse.
    """

    route: Route
    destination: Destination
    target: bytes
    free: bool
    dialect: Dialect

    def leads_as(self, other: "Admitted") -> bool:
        """Tell whether both lead to the same place with the same kind of credential."""
        one, two = self.destination, other.destination
        return (
            self.target == other.target
            and one.api_key is two.api_key
            and (one.origin.authority, one.origin.via) == (two.origin.authority, two.origin.via)
        )


class Gateway:
    """Everything that the configuration decides about a request.

    Attributes:
        users: Who may use it; empty means everyone, as ``anonymous``.
        is_open: It is empty.
        anonymous: Who everyone is where no users are configured.
        metered: Responses are metered.
        routes: By the prefix's name, such as ``b"claude"``.
        dialects: The error shape by prefix, of every provider that ai-mux knows.
        guards_loopback: Without users, a Host must be a loopback name or an IP literal.
        head_timeout_s: How long to wait for a response head.
        head_timeout_is_cap: The client cannot ask for longer.
        stream_idle_timeout_s: The longest silence inside a response.
        max_body_size: Of a request, in bytes.
        names: The notable field names in requests.
        open_to_all: Paths that may be probed without a token; see ``admission.is_probe``.
        admitted: What method and path were found to be good for; the admission's memory.
    """

    __slots__ = (
        "admitted",
        "anonymous",
        "dialects",
        "guards_loopback",
        "head_timeout_is_cap",
        "head_timeout_s",
        "is_open",
        "max_body_size",
        "metered",
        "names",
        "open_to_all",
        "routes",
        "stream_idle_timeout_s",
        "users",
    )

    def __init__(
        self,
        *,
        users: Users,
        anonymous: User = ANONYMOUS,
        metered: bool = True,
        routes: Mapping[bytes, Route],
        dialects: Mapping[bytes, Dialect],
        guards_loopback: bool,
        head_timeout_s: float,
        head_timeout_is_cap: bool,
        stream_idle_timeout_s: float,
        max_body_size: int,
    ) -> None:
        self.users = users
        self.is_open = not users
        self.anonymous = anonymous
        self.metered = metered
        self.routes = routes
        self.dialects = dialects
        self.guards_loopback = guards_loopback
        self.head_timeout_s = head_timeout_s
        self.head_timeout_is_cap = head_timeout_is_cap
        self.stream_idle_timeout_s = stream_idle_timeout_s
        self.max_body_size = max_body_size
        self.open_to_all = frozenset({HEALTH} | {b"/" + name for name in dialects})
        self.admitted: dict[tuple[bytes, bytes], Admitted] = {}
        self.names = FieldNames(NOTABLE_IN_REQUESTS.union(*(route.notable() for route in routes.values())))

    @property
    def origins(self) -> frozenset[Origin]:
        """Where its requests may go."""
        return frozenset(one.origin for route in self.routes.values() for one in (route.login, route.api_key))

    def dialect(self, path: bytes) -> Dialect:
        """Return the error shape that the clients of ``path`` parse."""
        return self.dialects.get(prefix_of(path)) or Dialect.OPENAI


def prefix_of(path: bytes) -> bytes:
    """Return the first segment of a raw path."""
    end = path.find(b"/", 1)
    return path[1:] if end < 0 else path[1:end]
