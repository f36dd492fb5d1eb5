"""A report as a person reads it at a terminal: tables, short figures, bars.

The columns are fitted to the terminal (``layout``) before anything is drawn.

Rich is imported here and there, and nowhere else in this package: it takes as long as the ledger.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Final

from rich.cells import cell_len, chop_cells
from rich.console import JustifyMethod
from rich.table import Table as Drawing
from rich.text import Text

from ai_mux.logs.person import visible
from ai_mux.terminal.page import GAP, Page
from ai_mux.usage.store import Dimension, Sums
from ai_mux.usage_report import Report
from ai_mux.usage_report.layout import Figure, Layout, Line, fitted
from ai_mux.usage_report.notes import explanations, silence, title
from ai_mux.usage_report.rows import TIMES, Table, shortened

# As many as one takes in at a glance, a month of days, and every hour of two days.
_MOST_IN_SURVEY: Final[Mapping[Dimension, int]] = {"day": 31, "hour": 49}
_MOST_OTHERS: Final = 10
# Rich draws some two thousand rows a second, and nobody reads so many: --csv has them all.
_MOST_ROWS: Final = 500

# Unicode's block elements, an eighth more each.
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def drawn(report: Report, *, width: int, colour: bool, encoding: str) -> str:
    """Return the report for a terminal.

    Args:
        report: What to draw.
        width: The terminal's, in columns.
        colour: Whether colours, bold and dim are welcome.
        encoding: The terminal's, such as ``utf-8``.
    """
    page = Page(width=width, colour=colour, encoding=encoding)
    if report.is_empty:
        page.say(silence(report))
        return page.text()
    page.say(title(report), "bold")
    bodies = [(table, _lines(table)) for table in _cut_short(report)]
    heads = [Line(table.by, table.by, table.total, is_group=False) for table, _ in bodies]
    layout = fitted([*heads, *(line for _, lines in bodies for line in lines)], width)
    for number, (table, lines) in enumerate(bodies):
        page.skip()
        # The other tables of a survey have the same total.
        total = table.total if number == 0 else None
        page.draw(_drawing(table.by, lines, total, layout, page))
    page.skip()
    for remark in [*explanations(report), *_further(report, [table for table, _ in bodies])]:
        page.say(remark, "dim")
    return page.text()


def _cut_short(report: Report) -> Iterator[Table]:
    for table in report.tables:
        if not report.is_survey:
            yield shortened(table, _MOST_ROWS)
        else:
            yield shortened(table, _MOST_IN_SURVEY.get(table.by[0], _MOST_OTHERS))


def _further(report: Report, tables: Sequence[Table]) -> Iterator[str]:
    """Yield where there is more to see."""
    cut = [table.by[0] for table in tables if table.left_out]
    if cut and not report.is_survey:
        yield "--csv and --json have all rows."
    elif cut:
        yield f"All of them: {', '.join(f'--by {one}' for one in cut)}."
    elif report.is_survey:
        yield "More: --by user,model,credential,provider,day,hour; --since 30d; --user NAME."


# What stands in the lines


def _lines(table: Table) -> list[Line]:
    lines = [
        Line(
            table.by,
            tuple(_named(dimension, name) for dimension, name in zip(table.by, group.key, strict=True)),
            group.sums,
        )
        for group in table.rows
    ]
    if table.left_out:
        is_early = table.by[0] in TIMES
        what = f"{table.left_out:,} {'earlier' if is_early else 'others'}"
        rest = Line(table.by, (what,), table.rest, is_group=False)
        lines.insert(0 if is_early else len(lines), rest)
    return lines


def _named(dimension: Dimension, name: str) -> str:
    """Return a name as it is shown: days with their weekday, what has no name as such."""
    if dimension == "day":
        return f"{name} {date.fromisoformat(name):%a}"
    if dimension == "hour":
        return f"{name.replace('T', ' ')}:00"
    return visible(name) or "(none)"


# Drawing


def _drawing(
    by: tuple[Dimension, ...], lines: Sequence[Line], total: Sums | None, layout: Layout, page: Page
) -> Drawing:
    what, measure = _measure(lines)
    most = max((measure(line.sums) for line in lines if line.is_group), default=0)
    drawing = Drawing(
        box=page.box,
        padding=(0, GAP - 1, 0, 0),  # the box has a blank between columns
        pad_edge=False,
        show_edge=False,
        show_footer=total is not None,
        header_style="dim",
        border_style="dim",
        footer_style="bold",
    )

    def add(head: str, foot: str, width: int, *, is_figure: bool = False) -> None:
        side: JustifyMethod = "right" if is_figure else "left"
        # Rich counts what it puts behind a cell into the column's width, but for the last one's.
        drawing.add_column(Text(head), Text(foot), width=width, justify=side, no_wrap=True, vertical="bottom")

    for at, (dimension, width) in enumerate(zip(by, layout.names, strict=True)):
        add(dimension, "total" if at == 0 else "", width)
    for figure, width in layout.figures.items():
        add(figure.head, "" if total is None else figure.cell(total), width, is_figure=True)
    if layout.bar:
        add(what, "", layout.bar)
    before: tuple[str, ...] = ()
    for line in lines:
        bar = _bar(measure(line.sums), most, layout.bar, fancy=page.fancy) if line.is_group else ""
        drawing.add_row(
            *_names(line, before, layout.names, fancy=page.fancy),
            *_figures(line, layout.figures),
            *([Text(bar, style="cyan")] if layout.bar else []),
        )
        before = line.names
    return drawing


def _names(line: Line, before: tuple[str, ...], widths: Sequence[int], *, fancy: bool) -> Iterator[Text]:
    """Yield a line's names; what is as in the line above is left blank, so that groups can be seen."""
    same = line.is_group
    for at, width in enumerate(widths):
        name = line.names[at] if at < len(line.names) else ""
        same = same and at < len(widths) - 1 and line.names[at : at + 1] == before[at : at + 1]
        yield Text(
            "" if same else _shortened(name, width, "…" if fancy else "..."), "" if line.is_group else "dim"
        )


def _figures(line: Line, figures: Iterable[Figure]) -> Iterator[Text]:
    for figure in figures:
        word = figure.cell(line.sums) if line.sums.requests else "-"
        # A nought is not worth a look.
        is_dim = not line.is_group or word in {"0", "-", "$0.00", "$0"}
        yield Text(word, "dim" if is_dim else figure.style)


def _measure(lines: Sequence[Line]) -> tuple[str, Callable[[Sums], int]]:
    """Return what the bars show, and how it is told if it is not the column beside them."""
    if any(line.sums.cost for line in lines):
        return "", lambda sums: sums.cost
    if any(line.sums.tokens.total for line in lines):
        return "tokens", lambda sums: sums.tokens.total
    return "requests", lambda sums: sums.requests


def _bar(value: int, most: int, width: int, *, fancy: bool) -> str:
    """Return a bar that fills the width where the value is the most; the least there is can be seen."""
    eighths = max(1, round(8 * width * value / most)) if value > 0 and most else 0
    full, rest = divmod(eighths, 8)
    if not fancy:
        return "#" * (full + (rest > 0))
    return "█" * full + _EIGHTHS[rest].strip()


def _shortened(name: str, width: int, mark: str) -> str:
    """Return a name in so many columns of a terminal, with a mark where it was cut."""
    if cell_len(name) <= width:
        return name
    return chop_cells(name, width - len(mark))[0] + mark
