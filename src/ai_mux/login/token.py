"""A long-lived token instead of a login: ``claude setup-token`` prints one, and it is kept here.

It never stands on a command line, where every program of the machine could read it.
"""

import os
import termios
from itertools import takewhile
from pathlib import Path
from typing import Final, TextIO

import click

from ai_mux.config import Config
from ai_mux.credentials import oauth
from ai_mux.credentials.document import changed
from ai_mux.errors import BrokenCredential
from ai_mux.login import placing
from ai_mux.login.clients import CLIENTS
from ai_mux.login.flow import LoginFailed, conclude, destination, what_works
from ai_mux.providers.base import Provider
from ai_mux.secret import Secret

# A token has some hundred characters. More than this was not meant.
_MAX_CHARACTERS: Final = 8000
# Who mistakes one of Anthropic's secrets for another is told which it is.
_OTHERS: Final = {
    "sk-ant-api": "that is an API key; write it into a file, and name that as `api_key_file`",
    "sk-ant-ort": "that is a refresh token, not the token that `claude setup-token` prints",
}
_EXPECTED: Final = "sk-ant-oat"


def keep_token(config: Config, provider: Provider, source: TextIO, *, force: bool = False) -> None:
    """Keep a long-lived token where ai-mux looks for it.

    Args:
        config: Says where that is.
        provider: ``claude``: no other has such tokens.
        source: Where the token comes from. A terminal is asked, and shows nothing of it.
        force: Do not ask before a login that still works is replaced.

    Raises:
        ConfigError: This provider's credential is no login, or another program's.
        LoginFailed: That is no such token; or a login that still works is there, and nobody can be asked.
        StoreError: It cannot be kept.
    """
    path = destination(config, provider)
    token = _checked(_asked(source) if source.isatty() else source.read(_MAX_CHARACTERS + 1))
    # Asked only now: a token that is pasted where a yes was wanted would be seen.
    if not force and (held := what_works(path, provider)) is not None:
        if not source.isatty():
            raise LoginFailed(
                f"{held}. It stays as it is, and the token was not kept. To replace it all the same: --force"
            )
        click.echo(f"{held}.")
        if not click.confirm("Replace it by the token?", default=False):
            return
    target = Path(os.path.realpath(path))
    login = {"accessToken": token.reveal(), "refreshToken": "", "expiresAt": None}
    with placing.working_directory(target) as directory:
        made = directory / CLIENTS[provider.name].file
        made.touch(mode=0o600)
        made.write_bytes(changed(b"{}", {("claudeAiOauth",): login}) + b"\n")
        placing.put_in_place(made, target, keeps_others=True)
    conclude(config, provider, path)


def _asked(terminal: TextIO) -> str:
    """Read lines, unseen, up to an empty one: a terminal breaks a long token into several."""
    fd = terminal.fileno()
    before = termios.tcgetattr(fd)
    silent = [*before]
    silent[3] &= ~termios.ECHO
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, silent)
        click.echo(
            "Paste the token that `claude setup-token` printed; it is not shown. Then press Enter twice."
        )
        return "".join(takewhile(str.strip, iter(terminal.readline, "")))
    finally:
        # What was pasted beyond it must not become the shell's next command.
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def _checked(written: str) -> Secret:
    if len(written) > _MAX_CHARACTERS:
        raise LoginFailed("that is too long for a token; give the token alone")
    joined = "".join(written.split())
    for beginning, sentence in _OTHERS.items():
        if joined.startswith(beginning):
            raise LoginFailed(sentence)
    if not joined.startswith(_EXPECTED):
        what = "that is no token" if joined else "no token was given"
        raise LoginFailed(f"{what}: `claude setup-token` makes one, and it begins with {_EXPECTED}")
    try:
        return oauth.token(joined, "what was given")
    except BrokenCredential as exc:
        raise LoginFailed(str(exc)) from None
