"""What happens at a login, in order."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click

from ai_mux.assembly import place_of
from ai_mux.config import Config
from ai_mux.errors import AiMuxError, BrokenCredential, ConfigError
from ai_mux.login import advice, clients, placing
from ai_mux.login.clients import CLIENTS, Place, VendorClient
from ai_mux.providers.base import Provider
from ai_mux.storage.inspect import inspect


class LoginFailed(AiMuxError):
    """There is no new login. The message says why, and what to do."""


def log_in(
    config: Config,
    provider: Provider,
    *,
    browser: bool | None = None,
    force: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Let the vendor's client log in, and put its login where ai-mux looks for it.

    Args:
        config: Says where that is.
        provider: One of ``CLIENTS``.
        browser: Whether a browser can reach the client; None to find out.
        force: Do not ask before a login that still works is replaced.
        environ: The environment; a part of it is the client's.

    Raises:
        ConfigError: This provider's credential is no login, or another program's.
        LoginFailed: The client is missing, failed, or left no login.
        StoreError: The login cannot be kept.
    """
    client = CLIENTS[provider.name]
    path = destination(config, provider)
    program = shutil.which(client.command[0], path=environ.get("PATH"))
    if program is None:
        raise LoginFailed(advice.how_to_get(client, path))
    if not force and (held := what_works(path, provider)) is not None:
        click.echo(f"{held}.")
        if not sys.stdin.isatty():
            click.echo("It stays as it is. To log in anew all the same: --force")
            return
        if not click.confirm("Log in anew?", default=False):
            return
    where = clients.place(environ, platform=sys.platform, exists=os.path.exists)
    if browser is None:
        browser = where is Place.DESKTOP
    elif not browser and where is Place.DESKTOP:
        where = Place.HEADLESS
    unwanted = clients.left_out(environ)
    target = Path(os.path.realpath(path))
    with placing.working_directory(target) as directory:
        hint = None if browser else client.hints[where]
        told = [name for name in unwanted if name != client.home]
        click.echo(advice.before(client, directory, browser=browser, hint=hint, left_out=told))
        code = _run(
            [program, *client.arguments(browser=browser)[1:]],
            {name: value for name, value in environ.items() if name not in unwanted}
            | {client.home: str(directory)},
        )
        click.echo()
        if code != 0:
            raise LoginFailed(f"{client.title} {_ending(code)}. {_unchanged(path)}")
        made = directory / client.file
        _verify(made, client, provider, program)
        placing.put_in_place(made, target, keeps_others=client.shares_file)
    conclude(config, provider, path)


# Before


def destination(config: Config, provider: Provider) -> Path:
    """Return the credential file of a provider, configured or not.

    Raises:
        ConfigError: A login does not belong there.
    """
    for one in config.providers:
        if one.name == provider.name and one.api_key_file is not None:
            raise ConfigError(
                f"{provider.name} has an api_key_file, so it needs no login: write the API key into "
                f"{one.api_key_file}, or remove that setting to use a subscription"
            )
        if one.name == provider.name:
            path = place_of(config.state_dir, one, {provider.name: provider}).path
            break
    else:
        path = config.state_dir / provider.name / provider.credential_file
    home = os.path.expanduser("~")  # noqa: PTH111 - Path's raises where there is no home
    above = {*map(str, path.parents), *map(str, Path(os.path.realpath(path)).parents)}
    if above & {os.path.realpath(f"{home}/{name}") for name in (".claude", ".codex")}:
        raise ConfigError(
            f"{path} is where another program keeps its own login, and two programs that renew one log "
            "each other out; leave out `credentials`, or name a file in a directory that only ai-mux uses"
        )
    return path


def what_works(path: Path, provider: Provider) -> str | None:
    """Say what is there that would be lost: what can be renewed, or is not known to have ended.

    None where nothing is lost. What is wrong around a file, such as a full disk, does not count.
    """
    now = time.time()
    inspection = inspect(path, provider.issuer, now=now)
    credential = inspection.credential
    if credential is None:
        return None
    end = credential.expires_at
    if credential.refresh is None and end is not None and end <= now:
        return None
    return f"{path} holds {inspection.findings[-1].text}"


# While the client runs


def _run(command: list[str], environ: Mapping[str, str]) -> int:
    """Run the client on this terminal and return its exit code, negative for a signal."""
    sys.stdout.flush()
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []  # what came while the client was being started

    def pass_on(number: int, _: object) -> None:
        if child is not None:
            child.send_signal(number)
        else:
            early.append(number)

    # Ctrl-C reaches the client by the terminal, and what follows is its affair; the others reach us alone.
    handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: pass_on, signal.SIGHUP: pass_on}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        # Group and others are shut out of what it writes, whatever the shell's umask is.
        child = subprocess.Popen(command, env=dict(environ), umask=0o077)  # noqa: S603 - no shell
        for number in early:
            child.send_signal(number)
        return child.wait()
    except OSError as exc:
        raise LoginFailed(f"{command[0]} cannot be run: {exc.strerror}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# After


def _verify(made: Path, client: VendorClient, provider: Provider, program: str) -> None:
    """Make sure that the client left a login.

    Raises:
        LoginFailed: It did not.
    """
    try:
        credential = provider.issuer.read(placing.contents(made))
    except FileNotFoundError:
        raise LoginFailed(advice.left_nothing(client, program, platform=sys.platform)) from None
    except (OSError, BrokenCredential) as exc:
        raise LoginFailed(
            f"{client.title} left a file that holds no login: {exc}. Nothing was changed."
        ) from None
    if not credential.access and not credential.refresh:
        raise LoginFailed(f"{client.title} left a file without tokens. Nothing was changed.")


def _ending(code: int) -> str:
    # 128 and the signal's number is how a shell, and a client that tidies up, tells of a signal.
    if code in {-signal.SIGINT, 128 + signal.SIGINT}:
        return "was interrupted"
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _unchanged(path: Path) -> str:
    return f"The login in {path} is as it was." if path.exists() else "There is still no login."


def conclude(config: Config, provider: Provider, path: Path) -> None:
    """Say what is there now, and what is left to do."""
    inspection = inspect(
        path,
        provider.issuer,
        now=time.time(),
        login=clients.command_for(provider.name, config.source),
        new_token=clients.token_command_for(provider.name, config.source),
    )
    for finding in inspection.findings:
        mend = "" if finding.mend is None else f"; {finding.mend}"
        click.echo(f"{path}: {finding.text}{mend}")
    if provider.name in [one.name for one in config.providers]:
        click.echo("A running ai-mux uses it within 2 seconds, by itself.")
    else:
        click.echo(f"Now add {provider.name} to `providers` in the configuration.")
