"""The command line: ``ai-mux --config FILE`` is the server, and a few verbs stand beside it.

Exit codes: 0 all is well, 1 it failed (for ``check``: a finding that must be
mended), 2 the command or the configuration is wrong.
"""

import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from ai_mux import __version__
from ai_mux.client_config import CLIENTS
from ai_mux.clock import SystemClock
from ai_mux.config import KEYS, Config, load
from ai_mux.errors import AiMuxError, ConfigError
from ai_mux.logs import Log
from ai_mux.logs.log import wants_colour
from ai_mux.providers import PROVIDERS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem  # at run time only completion needs it

_CONFIG: Final = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration, YAML or JSON. Without it all defaults apply.",
)

# What a person may call a provider: its client, its vendor.
_PROVIDER_OF: Final = {
    "claude-code": "claude",
    "anthropic": "claude",
    "codex": "chatgpt",
    "openai": "chatgpt",
    "gpt": "chatgpt",
}
_FILES: Final = frozenset({".yaml", ".yml", ".json"})


class _Program(click.Group):
    """The server, and the verbs beside it."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return what completes a word. With a configuration it is the server, and takes no more words."""
        return [] if ctx.params.get("path") is not None else super().shell_complete(ctx, incomplete)


@click.group(
    cls=_Program, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@_CONFIG
@click.version_option(__version__, prog_name="ai-mux", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, path: Path | None) -> None:
    """Reach AI subscriptions with ordinary tokens.

    Without a command this is the server: ai-mux --config FILE
    """
    if context.invoked_subcommand is None:
        # Until the server listens to it: asked to read its configuration again before it
        # has read it at all, a process would otherwise die.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _serve(_load(path))
    elif path is not None:
        raise click.UsageError(
            f"--config stands behind the command: ai-mux {context.invoked_subcommand} --config {path}"
        )


@cli.command()
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="For a program: one JSON object.")
def check(path: Path | None, *, as_json: bool) -> None:
    """Check configuration and credentials.

    Starts nothing, writes nothing and asks no network. Exit code 1: something must be mended.
    """
    from ai_mux import check  # noqa: PLC0415 - only this command needs it

    try:
        found = check.examine(_load(path), PROVIDERS, now=time.time(), environ=os.environ)
    except ConfigError as exc:
        if as_json:
            click.echo(check.as_json(check.unreadable(exc)), nl=False)
        raise
    colour = wants_colour(sys.stdout, os.environ)
    click.echo(
        check.as_json(found) if as_json else check.as_text(found, colour=colour), nl=False, color=colour
    )
    raise SystemExit(0 if found.is_ok else 1)


@cli.command()
@click.argument("provider", type=click.Choice(["claude", "chatgpt"]))
@_CONFIG
@click.option(
    "--browser/--no-browser", default=None, help="Whether a browser can be opened. Default: found out."
)
@click.option("--force", is_flag=True, help="Replace a login that still works, without asking.")
@click.option("--token-stdin", is_flag=True, help="claude: keep the token that `claude setup-token` printed.")
def login(provider: str, path: Path | None, *, browser: bool | None, force: bool, token_stdin: bool) -> None:
    """Log in to a provider, for ai-mux alone.

    The vendor's own client, Claude Code or Codex, runs on this terminal, and its login goes into
    ai-mux's own directory.
    """
    from ai_mux.login import keep_token, log_in  # noqa: PLC0415 - see above

    if not token_stdin:
        log_in(_load(path), PROVIDERS[provider], browser=browser, force=force)
    elif provider == "claude":
        keep_token(_load(path), PROVIDERS[provider], sys.stdin, force=force)
    else:
        raise click.UsageError("--token-stdin is for claude: no other provider has long-lived tokens")


@cli.command("client-config")
@click.argument("client", type=click.Choice(CLIENTS))
@_CONFIG
@click.option("--user", metavar="NAME", help="Whose token, of the configuration's users.")
@click.option("--url", metavar="URL", help="Where clients reach this server, if not where it listens.")
@click.option("--settings-json", is_flag=True, help="claude-code: what goes into its settings.json instead.")
def client_config(
    client: str, path: Path | None, *, user: str | None, url: str | None, settings_json: bool
) -> None:
    """Print a client's settings for this server."""
    from ai_mux.client_config import settings  # noqa: PLC0415 - see above

    made = settings(client, _load(path), user=user, url=url, settings_json=settings_json)
    click.echo(made.text, nl=False)
    for note in made.notes:
        click.echo(f"note: {note}", err=True)


@cli.command()
@_CONFIG
@click.option("--since", metavar="WHEN", help="From when on. Default: the last seven days, today included.")
@click.option("--until", metavar="WHEN", help="Until when. Default: now.")
@click.option("--user", metavar="NAME", help="Only this user's requests.")
@click.option(
    "--by",
    multiple=True,
    metavar="WHAT",
    help="user, model, credential, provider, day or hour; or several, like user,model. Default: a survey.",
)
@click.option("--json", "as_json", is_flag=True, help="For a program: one JSON object.")
@click.option("--csv", "as_csv", is_flag=True, help="For a spreadsheet.")
def usage(
    path: Path | None,
    *,
    since: str | None,
    until: str | None,
    user: str | None,
    by: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show who used what.

    Reads the ledger, beside a running server. WHEN is a date (2026-11-22, the whole day), a time
    (2026-11-22T14:00Z), an age (30m, 24h, 7d, 2w), today or yesterday. All times and days are UTC.
    """
    from ai_mux.usage_report.command import Form, asked, show  # noqa: PLC0415 - see above

    if as_json and as_csv:
        raise click.UsageError("--json and --csv are two forms; choose one")
    form = Form.JSON if as_json else Form.CSV if as_csv else Form.READER
    now_s = time.time()
    wanted = asked(since=since, until=until, user=user, by=by, form=form, now_s=now_s)
    show(_load(path), wanted, form, now_s=now_s, out=sys.stdout, environ=os.environ)


@cli.command()
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="For a program: the server's own answer, JSON.")
def status(path: Path | None, *, as_json: bool) -> None:
    """Ask the running server how it is.

    Asks at the configuration's `admin` listener. Exit code 1: nobody answers, or something is wrong.
    """
    from ai_mux.status import columns, told  # noqa: PLC0415 - see above
    from ai_mux.status.asking import asked  # noqa: PLC0415 - see above

    document, at = asked(_load(path))
    if as_json:
        text = json.dumps(document, indent=2) + "\n"
    elif sys.stdout.isatty():
        from ai_mux.status.drawn import drawn  # noqa: PLC0415 - only a terminal needs it

        text = drawn(
            told(document, at=at),
            width=shutil.get_terminal_size().columns,
            colour=wants_colour(sys.stdout, os.environ),
            encoding=sys.stdout.encoding,
        )
    else:
        text = columns(told(document, at=at))
    click.echo(text, nl=False, color=True)
    raise SystemExit(0 if document.get("ok") is True else 1)


@cli.command()
@click.option("--once", is_flag=True, help="End after the first answer.")
def demo(*, once: bool) -> None:
    """Try ai-mux in ten seconds.

    Needs no credentials and no network: the provider is a made-up one.
    """
    from ai_mux.demo import run_demo  # noqa: PLC0415 - see above
    from ai_mux.proxy.engine import chosen  # noqa: PLC0415 - see above

    engine = chosen()
    raise SystemExit(engine.run(run_demo(once=once, out=sys.stdout)))


def _load(path: Path | None) -> Config:
    return load(path, known_providers=tuple(PROVIDERS))


def _serve(config: Config) -> None:
    from ai_mux.app import build  # noqa: PLC0415 - the check command does not need it
    from ai_mux.proxy.engine import chosen  # noqa: PLC0415 - see above
    from ai_mux.systemd import Manager, handed_sockets  # noqa: PLC0415 - see above

    async def run() -> None:
        await build(config, log=log, engine=engine, manager=manager, handed=handed).run()
        # Everything has ended in order. A thread that waits for a file system that hangs has
        # not, and must not keep the process: neither the loop nor the interpreter waits for it.
        log.close()
        os._exit(0)

    manager = Manager.taken_from(os.environ, pid=os.getpid())
    handed = handed_sockets(os.environ, pid=os.getpid())
    engine = chosen()
    log = Log.to_stderr(level=config.log_level, clock=SystemClock())
    engine.run(run())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        cli.main(given, prog_name="ai-mux", standalone_mode=False)
    except ConfigError as exc:
        _end(2, *exc.lines)
    except AiMuxError as exc:
        _end(1, str(exc))
    except click.exceptions.Exit as exc:
        raise SystemExit(exc.exit_code) from None
    except click.Abort:
        raise SystemExit(130) from None
    except click.ClickException as exc:
        _end(2, f"{exc.format_message()}", _right_way(given))
    raise SystemExit(0)


def _right_way(given: Sequence[str]) -> str:
    """Return the right form of a command line that was wrong."""
    if given[:1] == ["login"] and (meant := _PROVIDER_OF.get("".join(given[1:2]).lower())):
        return f"The provider is called {meant}: ai-mux login {meant}"
    file = next((word for word in given if not word.startswith("-") and Path(word).suffix in _FILES), None)
    has_config = any(word.startswith("--config") for word in given)
    if "demo" in given and (has_config or file is not None):
        return "The demo brings its own configuration: ai-mux demo"
    for word in given:
        name = word.lstrip("-").partition("=")[0].replace("-", "_")
        if word.startswith("--") and name in KEYS[""]:
            return (
                f"{name} is a setting of the configuration file; write it there. Then: ai-mux --config FILE"
            )
        if not word.startswith("-") and word in {"serve", "run", "start", "server"}:
            return "The server has no verb of its own: ai-mux --config FILE"
    if file is not None and not has_config:
        return f"Did you mean: {_with_config(given, file)}"
    if given and given[0] in cli.commands:
        return f"Usage: ai-mux {given[0]} …; ai-mux {given[0]} --help tells more."
    return f"Usage: ai-mux --config FILE, or ai-mux {'|'.join(cli.commands)}; ai-mux --help tells more."


def _with_config(given: Sequence[str], file: str) -> str:
    """Return a command line that names its configuration as it must; a verb stays the verb that it is."""
    verb = next((word for word in given if word in cli.commands), None)
    if verb is None:
        return f"ai-mux --config {shlex.quote(file)}"
    rest = [word for word in given if word not in {verb, file}]
    for parameter in cli.commands[verb].params:
        choices = parameter.type.choices if isinstance(parameter.type, click.Choice) else ()
        if choices and not {*choices} & {*rest}:
            rest.insert(0, str(parameter.name).upper())
    return f"ai-mux {shlex.join([verb, *rest])} --config {shlex.quote(file)}"


def _end(code: int, *lines: str) -> NoReturn:
    for line in lines:
        click.echo(f"ai-mux: {line}", err=True)
    raise SystemExit(code)
