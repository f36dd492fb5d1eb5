"""A report for programs: JSON and CSV. Figures are exact, members stay as they are documented."""

import csv
import io
import json
from typing import Final

from ai_mux.usage.page import moment, used
from ai_mux.usage.store import Sums
from ai_mux.usage.tally import Tokens
from ai_mux.usage_report import Report

HEADS: Final = (
    "requests",
    "errors",
    "unmetered",
    "unpriced",
    *Tokens._fields,
    "cost_usd",
    "bytes_in",
    "bytes_out",
)
"""The figures of a group, in CSV and in plain columns."""

# Spreadsheets take what begins like this for a formula, and a model's name is whatever a user
# sends. Full-width forms count as well where East Asian text is typed.
_FORMULA: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def as_json(report: Report) -> str:
    """Return the first table for a program. Members may be added; none goes or changes its meaning."""
    table = report.tables[0]
    document = {
        "since": moment(report.since_s),
        "until": moment(report.until_s),
        "user": report.user,
        "by": table.by,
        "groups": [
            {**dict(zip(table.by, group.key, strict=True)), **used(group.sums)} for group in table.rows
        ],
        "total": used(table.total),
        "notional": True,
    }
    # Printable ASCII alone, all else escaped: this may be read on a terminal.
    return json.dumps(document, indent=2) + "\n"


def as_csv(report: Report) -> str:
    """Return the first table as RFC 4180 has it: a header, CRLF, quotes where they are needed."""
    table = report.tables[0]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*table.by, *HEADS])
    for group in table.rows:
        writer.writerow([*(_harmless(name) for name in group.key), *cells(group.sums)])
    return out.getvalue()


def cells(sums: Sums) -> list[int | str]:
    """Return the figures of a group, in the order of ``HEADS``."""
    dollars, rest = divmod(sums.cost, 10**6)
    return [
        sums.requests,
        sums.errors,
        sums.unmetered,
        sums.unpriced,
        *sums.tokens,
        f"{dollars}.{rest:06d}",
        sums.bytes_in,
        sums.bytes_out,
    ]


def _harmless(name: str) -> str:
    """Return a name without control characters, and as text where it looks like a formula."""
    shown = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in name
    )
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
