"""What is found: the configuration, each provider's credential and way, and what is kept."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ai_mux.assembly import place_of
from ai_mux.check.books import books, limits, obstacle_of, state_dir
from ai_mux.config import Config, ProviderConfig
from ai_mux.credentials.api_key import KeyIssuer
from ai_mux.credentials.oauth import Issuer
from ai_mux.errors import ConfigError
from ai_mux.login import command_for, token_command_for
from ai_mux.outbound import OutboundProxy, chosen_proxy
from ai_mux.providers.base import Provider
from ai_mux.storage.inspect import Finding, Inspection, Level, inspect

_CONFIGURATION: Final = "configuration"
_PROXY_MEND: Final = "correct the variable, or unset it; the server does not start with it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """One provider's credential, as it was found.

    Attributes:
        provider: Its name.
        file: Where the credential is, or belongs.
        inspection: What was found there.
    """

    provider: str
    file: Path
    inspection: Inspection


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Everything that was found.

    Attributes:
        findings: Each with what it is about: ``configuration``, ``state_dir``, a provider's name,
            ``usage``, ``admin`` or ``audit``.
        credentials: One for each configured provider.
    """

    findings: tuple[tuple[str, Finding], ...]
    credentials: tuple[Examined, ...] = field(default=())

    @property
    def is_ok(self) -> bool:
        """Nothing has to be mended; there may be warnings."""
        return all(finding.level is not Level.ERROR for _, finding in self.findings)


def examine(
    config: Config, providers: Mapping[str, Provider], *, now: float, environ: Mapping[str, str]
) -> Examination:
    """Look at a configuration and its credentials. Writes nothing, and asks no network.

    Args:
        config: What would be served.
        providers: By name.
        now: Seconds since 1970.
        environ: The environment, which may name proxies.
    """
    found = [(_CONFIGURATION, finding) for finding in _configuration(config, now)]
    obstacle = obstacle_of(config.state_dir)
    causes = {} if obstacle is None else {Path(os.path.realpath(config.state_dir)): obstacle.errno}
    found += [("state_dir", finding) for finding in state_dir(config.state_dir, obstacle)]
    examined = []
    logins: dict[str, str] = {}
    for one in config.providers:
        place = place_of(config.state_dir, one, providers)
        issuer: Issuer = KeyIssuer() if place.api_key else providers[one.name].issuer
        login = None if place.api_key else command_for(one.name, config.source)
        inspection = inspect(
            place.path,
            issuer,
            now=now,
            login=login,
            new_token=token_command_for(one.name, config.source),
            is_ours=not place.api_key,
            setting="state_dir" if one.credentials is None else f"credentials of {one.name}",
            causes=causes,
        )
        examined.append(Examined(provider=one.name, file=place.path, inspection=inspection))
        found += [(one.name, finding) for finding in inspection.findings]
        # The configuration refuses two that name one file, but this may be another's default.
        real = os.path.realpath(place.path)
        if not place.api_key and (first := logins.setdefault(real, one.name)) != one.name:
            text = f"its credential file is also that of {first}: {place.path}"
            found.append((one.name, _error(text, "give each provider a `credentials` file of its own")))
        found += [(one.name, finding) for finding in _way(one, providers[one.name], inspection, environ)]
    return Examination(findings=(*found, *books(config, obstacle)), credentials=tuple(examined))


def unreadable(problem: ConfigError) -> Examination:
    """Return what is to be said of a configuration that cannot be used."""
    return Examination(findings=tuple((_CONFIGURATION, _error(line, None)) for line in problem.lines))


def _configuration(config: Config, now: float) -> Iterator[Finding]:
    source = "no configuration file, all defaults" if config.source is None else str(config.source)
    names = ", ".join(one.name for one in config.providers) or "no provider"
    scheme = "HTTP" if config.tls is None else "HTTPS"
    yield _ok(f"{source}: serves {names} over {scheme} on {config.listen.text}; users: {len(config.users)}")
    yield from limits(config, now)
    for sentence in config.warnings:
        yield Finding(level=Level.WARNING, text=sentence)
    if not config.users:
        reach = "every local program" if config.listen.is_local else "EVERYONE WHO REACHES IT"
        text = f"no users are configured: {reach} may use the credentials through {config.listen.text}"
        yield Finding(level=Level.WARNING, text=text, mend="add `users`, each with a token")


def _way(
    one: ProviderConfig, provider: Provider, inspection: Inspection, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Say where requests and renewals go, through what, and what of it users reach."""
    credential = inspection.credential
    api_key = one.api_key_file is not None if credential is None else credential.api_key
    # The server looks for the proxy of each, whatever the credential is now, and does not start without.
    to_login, to_api = (one.base_url or provider.backend(api_key=key).base_url for key in (False, True))
    renewals = one.token_url or provider.token_url
    via: dict[str, OutboundProxy | None] = {}
    problems: list[str] = []
    for target in dict.fromkeys((to_login, to_api, renewals)):
        try:
            via[target] = chosen_proxy(one.proxy, target, environ)
        except ConfigError as exc:
            problems += exc.lines
    if problems:
        yield from (_error(line, _PROXY_MEND) for line in dict.fromkeys(problems))
        return
    url = to_api if api_key else to_login
    served = "inference paths" if one.paths is None else f"paths: {', '.join(one.paths)}"
    yield _ok(f"goes to {url}{_through(one, via[url])}; {'EVERY PATH' if one.paths == ('*',) else served}")
    if not api_key and via[renewals] != via[url]:
        yield _ok(f"is renewed at {renewals}{_through(one, via[renewals]) or ' directly'}")


def _through(one: ProviderConfig, via: OutboundProxy | None) -> str:
    return "" if via is None else f" through {via}{'' if one.proxy else ' (from the environment)'}"


def _ok(text: str) -> Finding:
    return Finding(level=Level.OK, text=text)


def _error(text: str, mend: str | None) -> Finding:
    return Finding(level=Level.ERROR, text=text, mend=mend)
