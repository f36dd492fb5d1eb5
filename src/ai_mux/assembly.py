"""Makes out of a configuration what serves requests; a reload makes it anew.

``assemble`` changes nothing that runs, so a configuration that cannot be used costs
nothing. What outlives a reload is the renewers: one for each provider and path that
were ever configured together, because what one knows is to be used again, and because
a renewal in flight must end before the program does.

The path counts as it is written. A link and its target, configured one after the other,
have a renewer each, and the store's lock lets only one of them spend a token. If it
counted as it resolves, a link that is moved (a mounted secret, at each change) would get
another renewer, and a token that the first one could not save yet would stay behind.

The listener and ``state_dir`` are those of the start: neither moves under a running server.
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ai_mux.clock import Clock
from ai_mux.config import Config, ProviderConfig
from ai_mux.credentials.api_key import KeyIssuer
from ai_mux.credentials.endpoint import TokenEndpoint
from ai_mux.credentials.oauth import Issuer
from ai_mux.credentials.refresh import Renewer
from ai_mux.hosts import DEFAULT_PORTS
from ai_mux.logs import Log
from ai_mux.outbound import chosen_proxy
from ai_mux.providers.base import Provider
from ai_mux.proxy import sockets
from ai_mux.proxy.routes import Destination, Gateway, OpenPaths, Origin, Paths, Route
from ai_mux.storage.files import FileStore
from ai_mux.users import ANONYMOUS, User, Users

_HEAD_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a provider's credential is kept.

    Attributes:
        provider: The provider's name.
        path: The file.
        api_key: The file holds an API key alone, and is only read.
    """

    provider: str
    path: Path
    api_key: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """What was made out of a configuration.

    Attributes:
        gateway: For the requests that begin from now on.
        server_tls: For the connections that begin from now on; None for plain HTTP.
        renewers: One for each credential that is in use.
        endpoints: Where each renewer renews from now on.
    """

    gateway: Gateway
    server_tls: ssl.SSLContext | None
    renewers: Mapping[Place, Renewer]
    endpoints: Mapping[Place, TokenEndpoint]


class Assembly:
    """Makes gateways out of configurations.

    Attributes:
        renewers: Every one that was ever taken into use.
    """

    def __init__(self, start: Config, *, providers: Mapping[str, Provider], clock: Clock, log: Log) -> None:
        self._start = start
        self._providers = providers
        self._clock = clock
        self._log = log
        self.renewers: dict[Place, Renewer] = {}

    def assemble(self, config: Config) -> Assembled:
        """Make everything anew. Reads certificates; changes nothing.

        Raises:
            ConfigError: A certificate or a proxy of the environment cannot be used.
        """
        places = {one.name: place_of(self._start.state_dir, one, self._providers) for one in config.providers}
        endpoints = {places[one.name]: self._endpoint(one) for one in config.providers}
        renewers = {
            place: self.renewers.get(place) or self._renewer(place, endpoint, config)
            for place, endpoint in endpoints.items()
        }
        origins = _Origins()
        listen = self._start.listen
        timeout_s = config.request_timeout_s
        gateway = Gateway(
            users=Users(config.users),
            anonymous=User(name=ANONYMOUS.name, limits=config.limits),
            metered=self._start.usage.enabled,
            routes={
                one.name.encode("ascii"): self._route(one, renewers[places[one.name]], origins)
                for one in config.providers
            },
            dialects={name.encode("ascii"): one.dialect for name, one in self._providers.items()},
            guards_loopback=listen.is_local and listen.path is None,
            head_timeout_s=_HEAD_TIMEOUT_S if timeout_s is None else timeout_s,
            head_timeout_is_cap=timeout_s is not None,
            stream_idle_timeout_s=config.stream_idle_timeout_s,
            max_body_size=config.max_body_size,
        )
        tls = config.tls
        return Assembled(
            gateway=gateway,
            server_tls=None if tls is None else sockets.server_tls(tls.cert_path, tls.key_path),
            renewers=renewers,
            endpoints=endpoints,
        )

    def adopt(self, assembled: Assembled, config: Config) -> None:
        """Let the renewers go by another configuration from now on."""
        self.renewers.update(assembled.renewers)
        for place, endpoint in assembled.endpoints.items():
            self.renewers[place].go_by(endpoint, check_interval_s=config.refresh_check_interval_s)

    def _endpoint(self, one: ProviderConfig) -> TokenEndpoint:
        url = one.token_url or self._providers[one.name].token_url
        return TokenEndpoint(
            url,
            ca_file=None if one.ca_file is None else str(one.ca_file),
            via=chosen_proxy(one.proxy, url, os.environ),
        )

    def _renewer(self, place: Place, endpoint: TokenEndpoint, config: Config) -> Renewer:
        issuer: Issuer = KeyIssuer() if place.api_key else self._providers[place.provider].issuer
        return Renewer(
            name=place.provider,
            store=FileStore(place.path, self._log, is_ours=not place.api_key),
            issuer=issuer,
            endpoint=endpoint,
            clock=self._clock,
            log=self._log,
            check_interval_s=config.refresh_check_interval_s,
            api_key=place.api_key,
        )

    def _route(self, one: ProviderConfig, renewer: Renewer, origins: "_Origins") -> Route:
        provider = self._providers[one.name]
        return Route(
            name=one.name,
            provider=provider,
            login=self._destination(one, origins, api_key=False),
            api_key=self._destination(one, origins, api_key=True),
            tokens=renewer,
            configured={
                name.encode("ascii"): None if value is None else value.encode("latin-1")
                for name, value in one.headers.items()
            },
        )

    def _destination(self, one: ProviderConfig, origins: "_Origins", *, api_key: bool) -> Destination:
        backend = self._providers[one.name].backend(api_key=api_key)
        url = one.base_url or backend.base_url
        return Destination(
            api_key=api_key,
            origin=origins.origin(url, one),
            base_path=urlsplit(url).path.rstrip("/").encode("ascii"),
            backend=backend,
            paths=Paths(backend.paths) if one.paths is None else OpenPaths(one.paths),
            credential=f"{one.name}:{'api-key' if api_key else 'login'}",
        )


class _Origins:
    """Makes one object for each origin, under which its connections are pooled."""

    def __init__(self) -> None:
        self._tls: dict[Path | None, ssl.SSLContext] = {}
        self._made: dict[object, Origin] = {}

    def origin(self, url: str, one: ProviderConfig) -> Origin:
        base = urlsplit(url)
        host, port = base.hostname or "", base.port or DEFAULT_PORTS[base.scheme]
        via = chosen_proxy(one.proxy, url, os.environ)
        key = (base.scheme, host, port, one.ca_file, via)
        if key not in self._made:
            tls = self._client_tls(one.ca_file) if base.scheme == "https" else None
            self._made[key] = Origin(host=host, port=port, tls=tls, via=via)
        return self._made[key]

    def _client_tls(self, ca_file: Path | None) -> ssl.SSLContext:
        if ca_file not in self._tls:
            self._tls[ca_file] = sockets.client_tls(ca_file)
        return self._tls[ca_file]


def place_of(state_dir: Path, one: ProviderConfig, providers: Mapping[str, Provider]) -> Place:
    """Return where a configured provider's credential is kept."""
    if one.api_key_file is not None:
        return Place(provider=one.name, path=one.api_key_file, api_key=True)
    path = one.credentials or state_dir / one.name / providers[one.name].credential_file
    return Place(provider=one.name, path=path, api_key=False)
