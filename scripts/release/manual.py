"""Writes packaging/man/ai-mux.1 from the texts that ``--help`` shows.

Rule 1: commands, options and what they do are read from the command line's own
definition. What ``--help`` has no room for stands here, in the tables below.

Rule 2: the page is mdoc(7), which man-db, groff and mandoc all read.

Rule 3: its date is that of its last change, so that writing it again changes nothing.

    python scripts/release/manual.py
"""

import re
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from ai_mux.cli import cli

PAGE: Final = Path(__file__).parents[2] / "packaging" / "man" / "ai-mux.1"

EXIT_CODES: Final = {
    "0": "All is well.",
    "1": "It failed. For check and status: something must be mended.",
    "2": "The command line or the configuration is wrong.",
    "130": "A question was broken off with Ctrl-C.",
}
ENVIRONMENT: Final = {
    "HTTPS_PROXY, ALL_PROXY, NO_PROXY": "The proxy to the providers, unless the configuration names one; and "
    "the hosts that are reached without it. In lower case too, which wins.",
    "HOME": "What ~ stands for in paths, also in the default of state_dir.",
    "NO_COLOR, TERM": "There are no colours where NO_COLOR is set, or TERM is dumb.",
    "COLUMNS": "How wide tables may be, where that is not the terminal's width.",
    "PATH": "Where login looks for the vendors' clients.",
    "SSH_CONNECTION, SSH_TTY, DISPLAY, WAYLAND_DISPLAY, KUBERNETES_SERVICE_HOST": "What login tells from "
    "whether a browser can be opened.",
    "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID": "Set by systemd, which is told how the server is.",
    "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES": "Set by systemd, which hands over sockets to listen on.",
    "CREDENTIALS_DIRECTORY": "Set by systemd: where a unit's credentials are.",
    "AI_MUX_ENGINE": "What moves the bytes, for measuring and finding faults: "
    "uvloop (the default), asyncio, aiofastnet or uvloop+aiofastnet.",
}
FILES: Final = {
    "~/.ai-mux": "state_dir, unless the configuration names another. Each file below is in it.",
    "claude/.credentials.json": "The login at Claude, in Claude Code's own form.",
    "chatgpt/auth.json": "The login at ChatGPT, in Codex's own form.",
    "usage.sqlite": "The ledger: one row a request, without its content.",
}
SIGNALS: Final = {
    "SIGTERM, SIGINT": "Stop. Running requests have the configuration's shutdown_timeout; a second signal "
    "ends them at once. Either way a renewal in flight is finished and saved first.",
    "SIGHUP": "Read configuration, certificates and credentials again, and open the audit log anew. "
    "A wrong configuration changes nothing, and the log says what is wrong with it.",
}
EXAMPLES: Final = {
    "Try it, without credentials and without a network:": "ai-mux demo",
    "Log in, look whether all is well, and serve:": "ai-mux login claude --config config.yaml\n"
    "ai-mux check --config config.yaml\n"
    "ai-mux --config config.yaml",
    "Who used how much since yesterday began:": "ai-mux usage --config config.yaml "
    "--since yesterday --by user",
}

# mandoc(1) calls longer lines bad style.
_LINE: Final = 80


def page(*, date: str) -> str:
    """Return the manual page.

    Args:
        date: In the form of mdoc's ``Dd``: "November 22, 2026".
    """
    return "\n".join([f".Dd {date}", ".Dt AI-MUX 1", ".Os", *_sections()]) + "\n"


def date_of(written: str) -> str | None:
    """Return the date of a page that was written before, or None where it has none."""
    found = re.match(r"\.Dd (.+)\n", written)
    return found[1] if found else None


def _sections() -> Iterator[str]:
    about, *more = _paragraphs(cli)
    yield from (".Sh NAME", ".Nm ai-mux", f".Nd {about[0].lower()}{about[1:].rstrip('.')}")
    yield ".Sh SYNOPSIS"
    yield from _usage(cli)
    for name, command in sorted(cli.commands.items()):
        yield from _usage(command, name)
    yield ".Sh DESCRIPTION"
    yield from _running(more)
    yield from _meanings(cli)
    yield ".Sh COMMANDS"
    for name, command in sorted(cli.commands.items()):
        yield f".Ss {_escaped(name)}"
        yield from _running(_paragraphs(command))
        yield from _meanings(command)
    yield ".Sh SIGNALS"
    yield from _table(SIGNALS, "Dv")
    yield ".Sh ENVIRONMENT"
    yield from _table(ENVIRONMENT, "Ev")
    yield ".Sh FILES"
    yield from _table(FILES, "Pa")
    yield ".Sh EXIT STATUS"
    yield from _table(EXIT_CODES, "Li")
    yield ".Sh EXAMPLES"
    for number, (what, typed) in enumerate(EXAMPLES.items()):
        if number:
            yield ".Pp"
        yield from _text(what)
        yield from (".Bd -literal -offset indent", *map(_escaped, typed.splitlines()), ".Ed")


def _paragraphs(command: click.Command) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n")]


def _usage(command: click.Command, *names: str) -> Iterator[str]:
    """Yield a command's part of the synopsis."""
    yield ".Nm"
    if names:
        yield f".Cm {_escaped(' '.join(names))}"
    for argument in _arguments(command):
        words = "|".join(_words(argument))
        yield f".Ar {words if len(words) <= 20 else argument.human_readable_name}"
    for option in _options(command):
        yield f".Op {_flags(option, ' | ')}"


def _meanings(command: click.Command) -> Iterator[str]:
    """Yield the list of what a command's arguments and options mean."""
    if not command.params:
        return
    yield ".Bl -tag -width Ds"
    for argument in _arguments(command):
        yield f".It Ar {_escaped(argument.human_readable_name)}"
        yield from _text(f"One of {', '.join(_words(argument))}.")
    for option in _options(command):
        yield f".It {_flags(option, ' , ')}"
        yield from _text(option.help or "")
    yield ".El"


def _arguments(command: click.Command) -> list[click.Argument]:
    return [each for each in command.params if isinstance(each, click.Argument)]


def _options(command: click.Command) -> list[click.Option]:
    """Return a command's options; ``--help``, which all have, with the program's own only."""
    given = command.params
    if command is cli:
        given = cli.get_params(cli.make_context("ai-mux", [], resilient_parsing=True))
    return [each for each in given if isinstance(each, click.Option)]


def _words(argument: click.Argument) -> list[str]:
    """Return what may stand for an argument."""
    if isinstance(argument.type, click.Choice):
        return [str(word) for word in argument.type.choices]
    return [argument.human_readable_name]


def _flags(option: click.Option, between: str) -> str:
    """Return an option's names and its value, as mdoc writes them: ``Fl -user Ar NAME``."""
    value = "" if option.is_flag or option.count else f" Ar {option.metavar} ..."
    if not option.multiple:
        value = value.removesuffix(" ...")
    names = [*option.opts, *option.secondary_opts]
    return between.join(f"Fl {_escaped(name.removeprefix('-'))}" for name in names) + value


def _table(rows: Mapping[str, str], macro: str) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for name, meaning in rows.items():
        yield f".It {' , '.join(f'{macro} {_escaped(each)}' for each in name.split(', '))}"
        yield from _text(meaning)
    yield ".El"


def _running(paragraphs: Sequence[str]) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".Pp"
        yield from _text(paragraph)


def _text(paragraph: str) -> Iterator[str]:
    """Yield the lines of running text. Each sentence begins a line, as mdoc wants it."""
    for sentence in re.split(r"(?<=[.:]) (?=[A-Z])", paragraph):
        for line in textwrap.wrap(_escaped(sentence), _LINE, break_long_words=False, break_on_hyphens=False):
            # At the beginning of a line, a point or an apostrophe would make it a request of roff's.
            yield re.sub(r"^(?=[.'])", r"\\&", line)


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("~", "\\(ti")
    text = re.sub(r"`([^`]*)`", r"\\(oq\1\\(cq", text)
    # Without this an option's dashes become typographic ones, and cannot be copied.
    text = re.sub(r"(?<![\w-])-+(?=\w)", lambda dashes: r"\-" * len(dashes[0]), text)
    return re.sub(r"[^\x00-\x7f]", lambda letter: rf"\[u{ord(letter[0]):04X}]", text)


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    dated = date_of(before)
    if dated is None or before != page(date=dated):
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        now = time.gmtime()
        PAGE.write_text(page(date=time.strftime(f"%B {now.tm_mday}, %Y", now)), encoding="utf-8")
