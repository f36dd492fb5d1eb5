r"""A report as plain columns: for a pipe, a file, a mail.

No colours, no boxes, no shortened names, exact figures. Columns are aligned, and a blank
never stands inside one, so that awk splits them; lines that begin with "#" are remarks.

A name that holds a blank shows it as ``\x20``, one without a value is ``-``.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

from ai_mux.logs.person import visible
from ai_mux.usage.store import Sums
from ai_mux.usage_report import Report
from ai_mux.usage_report.documents import HEADS, cells
from ai_mux.usage_report.notes import explanations, silence, title
from ai_mux.usage_report.rows import Table

_TOTAL: Final = "total"


def columns(report: Report) -> str:
    """Return the report for a pipe."""
    if report.is_empty:
        return f"# {silence(report)}\n"
    blocks = [[f"# {title(report)}"], *(_aligned(table) for table in report.tables)]
    if remarks := [f"# {sentence}" for sentence in explanations(report)]:
        blocks.append(remarks)
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _aligned(table: Table) -> list[str]:
    lines = [
        [*table.by, *HEADS],
        *([*(_word(name) for name in group.key), *_figures(group.sums)] for group in table.rows),
        [_TOTAL, *("-" for _ in table.by[1:]), *_figures(table.total)],
    ]
    widths = [max(_cells(line[at]) for line in lines) for at in range(len(lines[0]))]
    return [_line(line, widths, len(table.by)) for line in lines]


def _line(words: Sequence[str], widths: Sequence[int], names: int) -> str:
    def padded() -> Iterator[str]:
        for at, (word, width) in enumerate(zip(words, widths, strict=True)):
            blanks = " " * (width - _cells(word))
            yield word + blanks if at < names else blanks + word

    return "  ".join(padded()).rstrip()


def _figures(sums: Sums) -> list[str]:
    return [str(cell) for cell in cells(sums)]


def _word(name: str) -> str:
    """Return a name as one word that is not mistaken for a remark."""
    word = visible(name).replace(" ", "\\x20") or "-"
    return "\\x23" + word[1:] if word.startswith("#") else word


def _cells(text: str) -> int:
    """Return how many columns of a terminal a text takes (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )
