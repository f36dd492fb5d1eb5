"""A server's status as a person sees it at a terminal: tables, colours, bars.

Rich is imported here and nowhere else in this package.
"""

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len
from rich.table import Table as Drawing
from rich.text import Text

from ai_mux.status import CREDENTIALS, WINDOWS, Row, Told
from ai_mux.terminal.page import GAP, Page

_WIDEST_BAR: Final = 24
_NARROWEST_BAR: Final = 6
_USED: Final = 2  # the bars stand before that column
_NO_HEAD: Final = ""
_WORDS: Final = frozenset({"credential", "state", "window", "status", _NO_HEAD})
# From here on somebody may want to do something about it.
_MUCH: Final = 0.75
_NEARLY_ALL: Final = 0.9


def drawn(said: Told, *, width: int, colour: bool, encoding: str) -> str:
    """Return it for a terminal.

    Args:
        said: What to say.
        width: The terminal's, in columns.
        colour: Whether colours, bold and dim are welcome.
        encoding: The terminal's, such as ``utf-8``.
    """
    page = Page(width=width, colour=colour, encoding=encoding)
    page.say(said.title, "bold")
    if said.problems:
        page.draw(_problems(said.problems, "✗" if page.fancy else "!"))
    else:
        page.say("✓ All is well." if page.fancy else "All is well.", "green")
    if said.credentials:
        page.skip()
        page.draw(_credentials(said.credentials, page))
    if said.windows:
        page.skip()
        page.draw(_windows(said.windows, page))
    page.skip()
    for remark in said.remarks:
        page.say(remark, "dim")
    return page.text()


def _problems(problems: Sequence[str], mark: str) -> Drawing:
    drawing = Drawing.grid(padding=(0, 1, 0, 0))
    for problem in problems:
        drawing.add_row(Text(mark, "bold red"), Text(problem, "red"))
    return drawing


def _credentials(rows: Sequence[Row], page: Page) -> Drawing:
    shown = _fitting(CREDENTIALS, rows, page.width, give_way=("renewable", "failures", "renewals"))
    drawing = _table(shown, page)
    for row in rows:
        state = "green" if row.is_well else "bold red"
        cells = dict(zip(CREDENTIALS, row.cells, strict=True))
        drawing.add_row(*(Text(cells[head], state if head == "state" else "") for head in shown))
    return drawing


def _windows(rows: Sequence[Row], page: Page) -> Drawing:
    shown = _fitting(WINDOWS, rows, page.width, give_way=("age", "status"))
    bar = min(_WIDEST_BAR, page.width - _width(WINDOWS, rows, shown) - GAP)
    heads = [*shown[:_USED], _NO_HEAD, *shown[_USED:]] if bar >= _NARROWEST_BAR else shown
    drawing = _table(heads, page)
    before = ""
    for row in rows:
        style = _style(row.used)
        named = zip(WINDOWS, row.cells, strict=True)
        cells = {head: Text(cell, "dim" if cell == "-" else "") for head, cell in named}
        cells["used"].stylize(style)
        cells[_NO_HEAD] = _bar(row.used, bar, style, fancy=page.fancy)
        if row.cells[0] == before:
            cells["credential"] = Text()
        before = row.cells[0]
        drawing.add_row(*(cells[head] for head in heads))
    return drawing


def _fitting(heads: Sequence[str], rows: Sequence[Row], width: int, *, give_way: Sequence[str]) -> list[str]:
    """Return the columns that fit; those that may give way do so, in their order."""
    shown = list(heads)
    for head in give_way:
        if _width(heads, rows, shown) > width:
            shown.remove(head)
    return shown


def _width(heads: Sequence[str], rows: Sequence[Row], shown: Sequence[str]) -> int:
    """Return how many columns of a terminal a table takes with the columns that are shown."""
    widths = [
        max(cell_len(word) for word in (head, *(row.cells[at] for row in rows)))
        for at, head in enumerate(heads)
        if head in shown
    ]
    return sum(widths) + GAP * (len(widths) - 1)


def _table(heads: Sequence[str], page: Page) -> Drawing:
    drawing = Drawing(
        box=page.box,
        padding=(0, GAP - 1, 0, 0),  # the box has a blank between columns
        pad_edge=False,
        show_edge=False,
        header_style="dim",
    )
    for head in heads:
        drawing.add_column(
            Text(head),
            justify="left" if head in _WORDS else "right",
            no_wrap=True,
            overflow="ellipsis" if page.fancy else "crop",
        )
    return drawing


def _style(used: float | None) -> str:
    if used is None:
        return "dim"
    return "red" if used >= _NEARLY_ALL else "yellow" if used >= _MUCH else "green"


def _bar(used: float | None, width: int, style: str, *, fancy: bool) -> Text:
    """Return a bar that is full only where all is used. What is used at all can be seen."""
    full, empty = ("█", "░") if fancy else ("#", ".")
    filled = 0 if not used else max(1, min(width, int(width * used)))
    return Text(full * filled, style).append(empty * max(0, width - filled), "dim")
