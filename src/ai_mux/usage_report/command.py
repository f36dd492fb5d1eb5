"""From what was typed to what is printed."""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import closing
from enum import Enum
from pathlib import Path
from shutil import get_terminal_size
from typing import TextIO

import click

from ai_mux.config import Config
from ai_mux.errors import AiMuxError, LedgerError
from ai_mux.logs.log import wants_colour
from ai_mux.storage import LEDGER
from ai_mux.storage.refusals import owner
from ai_mux.storage.sqlite_reading import open_for_reading
from ai_mux.usage.store import Dimension
from ai_mux.usage_report import DIMENSIONS, Asked, Report, gather
from ai_mux.usage_report.columns import columns
from ai_mux.usage_report.documents import as_csv, as_json
from ai_mux.usage_report.period import stretch


class Form(Enum):
    """For whom a report is made."""

    READER = "reader"
    JSON = "json"
    CSV = "csv"


def asked(
    *, since: str | None, until: str | None, user: str | None, by: Sequence[str], form: Form, now_s: float
) -> Asked:
    """Return what was asked for.

    Args:
        since: A time as it was typed, see ``period``; None without one.
        until: See ``since``.
        user: A user's name; None for everyone.
        by: What to tell groups apart by; each may be several, with commas between.
        form: Programs get one table, by user if they do not say; a reader gets a survey.
        now_s: Seconds since 1970.

    Raises:
        click.BadParameter: It cannot be understood.
    """
    since_s = None if since is None else _read("--since", since, now_s)[0]
    until_s = None if until is None else _read("--until", until, now_s)[1]
    dimensions: list[Dimension] = []
    for name in (name.strip() for several in by for name in several.split(",")):
        found = next((one for one in DIMENSIONS if one == name), None)
        if found is None:
            raise click.BadParameter(f"write one or more of {','.join(DIMENSIONS)}", param_hint="--by")
        if found not in dimensions:
            dimensions.append(found)
    if not dimensions and form is not Form.READER:
        dimensions.append("user")
    wanted = Asked(by=tuple(dimensions), since_s=since_s, until_s=until_s, user=user)
    begins, ends = wanted.span(now_s)
    if begins >= ends:
        raise click.BadParameter("that is not before the end of the time asked about", param_hint="--since")
    return wanted


def _read(option: str, written: str, now_s: float) -> tuple[float, float]:
    try:
        return stretch(written.strip(), now_s)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint=option) from None


def show(
    config: Config, wanted: Asked, form: Form, *, now_s: float, out: TextIO, environ: Mapping[str, str]
) -> None:
    """Print a report.

    Args:
        config: Says where the ledger is.
        wanted: What was asked for.
        form: For whom.
        now_s: Seconds since 1970.
        out: Where to print: tables if it is a terminal, else plain columns.
        environ: The environment, which may ask for no colour.

    Raises:
        LedgerError: There is no ledger, it cannot be read, or nothing is in it.
        AiMuxError: It cannot be printed.
    """
    path = config.state_dir / LEDGER
    _check_place(path, config)
    with closing(open_for_reading(path)) as ledger:
        report = gather(ledger, wanted, now_s=now_s)
    is_blank = report.is_empty and not report.known_users
    if not is_blank or form is not Form.READER:
        _print(_formed(report, form, out, environ), out)
    if is_blank:
        raise LedgerError(f"the ledger {path} is empty. {_advice(config)}", passing=True)


def _check_place(path: Path, config: Config) -> None:
    """Look whether there is a file that we may read.

    Raises:
        LedgerError: There is not. Who may not read is told to be somebody else: giving the file to
            whoever asks would take it from the server.
    """
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        raise LedgerError(f"there is no ledger {path}. {_advice(config)}", passing=True) from None
    except OSError:
        is_file = True  # as far as can be seen from here
    if not is_file:
        raise LedgerError(f"{path} is not a file; move it away", passing=False)
    if not os.access(path, os.R_OK):
        whose = owner(path.parent)
        raise LedgerError(
            f"may not read {path}: run this as the user that the server runs as; {whose}", passing=True
        )


def _advice(config: Config) -> str:
    if not config.usage.enabled:
        return "usage.enabled is false in the configuration: set it to true, and restart the server."
    told = "It is written when a request has ended: let a client send one through the server."
    if config.source is None:
        return f"{told} If the server was started with --config FILE, say so here as well."
    return told


def _formed(report: Report, form: Form, out: TextIO, environ: Mapping[str, str]) -> str:
    if form is Form.JSON:
        return as_json(report)
    if form is Form.CSV:
        return as_csv(report)
    if not out.isatty():
        return columns(report)
    from ai_mux.usage_report.drawn import drawn  # noqa: PLC0415 - Rich is for terminals alone

    encoding = out.encoding or "utf-8"
    return drawn(
        report, width=get_terminal_size().columns, colour=wants_colour(out, environ), encoding=encoding
    )


def _print(text: str, out: TextIO) -> None:
    """Write it past the buffer of ``out``, which at the end would try once more what has failed."""
    # A terminal that knows fewer characters gets the others spelt out; line ends stay as they are (CSV).
    data = text.encode(out.encoding or "utf-8", "backslashreplace")
    try:
        with open(out.fileno(), "wb", closefd=False) as raw:
            raw.write(data)
    except BrokenPipeError:  # whoever read it has seen enough; the command line ends quietly
        raise
    except OSError as exc:
        raise AiMuxError(f"cannot write the report: {exc.strerror}") from exc
