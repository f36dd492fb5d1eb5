"""What a person is told at a login: before it, and where it did not work. Facts in, words out."""

import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ai_mux.login.clients import VendorClient

_WIDTH: Final = 96

_LONG_LIVED: Final = (
    "make a long-lived token instead, with `claude setup-token`, and give it to "
    "`ai-mux login claude --token-stdin`. It lives about a year and cannot be renewed"
)


def before(
    client: VendorClient, directory: Path, *, browser: bool, hint: str | None, left_out: Sequence[str]
) -> str:
    """Return what will be run, and why a login of its own matters."""
    blocks = [
        _wrapped(
            "ai-mux gets a login of its own. Each renewal of a login makes the refresh token before it "
            "useless, so two programs that share one log each other out. Your own "
            f"{client.title} keeps the login that it has."
        ),
        f"This runs {client.title}, on this terminal:\n  {client.shown(str(directory), browser=browser)}",
    ]
    if left_out:
        names = ", ".join(left_out)
        what = f"without {names}, which could send the login elsewhere or take its place"
        blocks[-1] += "\n" + _wrapped(what, indent="  ")
    if hint is not None:
        blocks.append(_wrapped(hint))
    return "\n\n".join(blocks) + "\n"


def how_to_get(client: VendorClient, path: Path) -> str:
    """Return what to do where the client is not installed."""
    return "\n".join(
        [
            f"{client.title} is not installed here: there is no `{client.command[0]}` on PATH.",
            "",
            "Install it, and run this again:",
            f"  npm install -g {client.package}",
            "",
            "Or log in on a machine that has it, into an empty directory, and move the file here, once:",
            "  (umask 077 && mkdir ai-mux-login)",
            f'  {client.home}="$PWD/ai-mux-login" {shlex.join(client.command)}',
            f"  ssh THIS-MACHINE {shlex.quote(f'umask 077 && mkdir -p {shlex.quote(str(path.parent))}')}",
            f"  scp -p ai-mux-login/{client.file} THIS-MACHINE:{shlex.quote(str(path))}",
            "  rm -r ai-mux-login",
            "Do not leave out the last line: refresh tokens work once, so only one machine may keep this",
            "login, and do not log out there instead: that would end it. A running ai-mux uses the file",
            "within 2 seconds, by itself.",
        ]
    )


def left_nothing(client: VendorClient, program: str, *, platform: str) -> str:
    """Return what to do after a client that ended well, and where no login is.

    Args:
        client: The client.
        program: The file that was run.
        platform: ``sys.platform``.
    """
    said = f"{client.title} ended without an error, and left no {client.file}. Nothing was changed."
    if client.command[0] != "claude":
        return f"{said} Is {program} really {client.title}, and a recent one?"
    if platform == "darwin":
        return f"{said} On macOS it keeps a login in the keychain, where ai-mux does not look: {_LONG_LIVED}."
    return f"{said} If it keeps its logins elsewhere on this machine, {_LONG_LIVED}."


def _wrapped(text: str, *, indent: str = "") -> str:
    return textwrap.fill(
        text,
        width=_WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
