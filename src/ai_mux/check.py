"""``ai-mux check``: what would go wrong, before it does, and the command that mends it."""

import time
from collections.abc import Mapping

import click

from ai_mux.app import credential_path
from ai_mux.config import Config
from ai_mux.providers.base import Provider
from ai_mux.storage.inspect import Finding, Level, inspect

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}


def report(config: Config, providers: Mapping[str, Provider]) -> int:
    """Print what there is to say about a configuration and its credentials.

    Returns:
        The exit code: 1 if something must be mended, else 0.
    """
    found = [("configuration", finding) for finding in _configuration(config)]
    for one in config.providers:
        provider = providers[one.name]
        path = credential_path(config, one, provider)
        found += [(one.name, finding) for finding in inspect(path, provider.issuer, now=time.time())]
    width = max(len(about) for about, _ in found)
    for about, finding in found:
        level = click.style(f"{finding.level.value:<7}", fg=_COLOURS[finding.level])
        click.echo(f"{level}  {about:<{width}}  {finding.text}")
        if finding.mend is not None:
            click.echo(f"{'':<{7 + 2 + width + 2}}mend it: {finding.mend}")
    return int(any(finding.level is Level.ERROR for _, finding in found))


def _configuration(config: Config) -> list[Finding]:
    found = [Finding(level=Level.WARNING, text=sentence) for sentence in config.warnings]
    if not config.users:
        reach = "every local program" if config.listen.is_local else "EVERYONE WHO REACHES IT"
        text = f"no users are configured: {reach} may use the credentials through {config.listen.text}"
        found.append(Finding(level=Level.WARNING, text=text, mend="add `users`, each with a token"))
    source = "the defaults" if config.source is None else str(config.source)
    names = ", ".join(one.name for one in config.providers) or "no provider"
    served = f"{source} serves {names} on {config.listen.text}; users: {len(config.users)}"
    return [Finding(level=Level.OK, text=served), *found]
