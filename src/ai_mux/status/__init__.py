"""``ai-mux status``: how the running server is, asked at its admin listener.

    admin listener ── asked ──► document ── told ──► Told ──► drawn     a terminal
                                    │                    └──► columns   a pipe
                                    └─► --json

Rule 1: what is wrong comes first, and is said in words.

Rule 2: the answer comes from another process. What is shown of it is text: nothing in it
reaches the terminal as anything else, and a member that is missing is a dash.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ai_mux.logs.person import visible
from ai_mux.terminal.figures import NOTHING, compact, counted, dollars, duration

Document = Mapping[str, object]

CREDENTIALS: Final = ("credential", "state", "ends in", "renewable", "renewals", "failures")
WINDOWS: Final = ("credential", "window", "used", "ends in", "status", "age")
_BEYOND: Final = 1e15  # no count and no time is so much
_MICRO: Final = 10**6


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        cells: Its words, one for each head.
        is_well: Nothing in it is to be looked at.
        used: Of a provider's window: the fraction that is used, or None.
    """

    cells: tuple[str, ...]
    is_well: bool = True
    used: float | None = None


class Told(NamedTuple):
    """What is said of a server.

    Attributes:
        title: Which server it is, and for how long.
        problems: What is wrong, a sentence each.
        credentials: One row for each, under ``CREDENTIALS``.
        windows: The providers' own windows, under ``WINDOWS``.
        remarks: What else is said, a sentence each.
    """

    title: str
    problems: tuple[str, ...]
    credentials: tuple[Row, ...]
    windows: tuple[Row, ...]
    remarks: tuple[str, ...]


def told(document: Document, *, at: str) -> Told:
    """Return what is to be said.

    Args:
        document: What the admin listener answered.
        at: Where it was asked.
    """
    uptime = duration(_number(document, "uptime_s"))
    credentials = list(_members(document, "credentials"))
    return Told(
        title=f"ai-mux {_text(document, 'version')} at {at}, up {uptime}",
        problems=tuple(_texts(document, "problems")),
        credentials=tuple(map(_credential, credentials)),
        windows=tuple(row for one in credentials for row in _windows(one)),
        remarks=tuple(_remarks(document, credentials)),
    )


def _credential(one: Document) -> Row:
    cells = (
        _text(one, "credential"),
        _text(one, "state"),
        duration(_number(one, "expires_in_s")),
        "yes" if one.get("renewable") is True else "no",
        _count(one, "renewals"),
        _count(one, "renewal_failures"),
    )
    return Row(cells, is_well=one.get("usable") is True and one.get("problem") is None)


def _windows(credential: Document) -> Iterator[Row]:
    """Give the windows of which something is known."""
    for window in _members(credential, "windows"):
        used, resets_in = _number(window, "used"), _number(window, "resets_in_s")
        if used is None and resets_in is None:
            continue
        cells = (
            _text(credential, "credential"),
            _text(window, "name"),
            NOTHING if used is None else f"{100 * used:.0f}%",
            duration(resets_in) if resets_in is None or resets_in > 0 else "over",
            _text(window, "status"),
            duration(_number(window, "seen_s_ago")),
        )
        yield Row(cells, is_well=used is None or used < 1, used=used)


def _remarks(document: Document, credentials: list[Document]) -> Iterator[str]:
    running, models = _count(document, "requests_running"), _count(document, "model_requests_running")
    yield (
        f"now: {running} requests running ({models} at a model), "
        f"{_count(document, 'connections')} clients connected"
    )
    since = _member(document, "since_start")
    tokens, cost = _number(since, "tokens"), _number(since, "cost_usd")
    yield (
        f"since the start: {_count(since, 'requests')} requests ({_count(since, 'errors')} errors, "
        f"{_count(since, 'unmetered')} unmetered), "
        f"{NOTHING if tokens is None else compact(round(tokens))} tokens, "
        f"{NOTHING if cost is None else dollars(round(cost * _MICRO))} notional"
    )
    ledger = _member(document, "ledger")
    if ledger:
        yield (
            f"ledger: {_text(ledger, 'state')}; {_count(ledger, 'written')} rows written, "
            f"{_count(ledger, 'queued')} waiting, {_count(ledger, 'dropped')} lost"
        )
    else:
        yield "ledger: none is kept (usage: enabled is false)"
    for one in credentials:
        claims = {
            _text(window, "name"): _text(window, "status")
            for window in _members(one, "windows")
            if _number(window, "used") is None and _number(window, "resets_in_s") is None
        }
        others = _member(one, "other_claims")
        claims |= {visible(name): _text(others, name) for name in others}
        if claims:
            listed = ", ".join(f"{name} {said}" for name, said in claims.items())
            yield f"{_text(one, 'credential')} also says: {listed}"


def columns(said: Told) -> str:
    """Return it for a pipe: no colours, no boxes. Columns are words; other lines begin with ``#``."""
    lines = [f"# {said.title}", *(f"# problem: {one}" for one in said.problems)]
    if not said.problems:
        lines.append("# all is well")
    for heads, rows in ((CREDENTIALS, said.credentials), (WINDOWS, said.windows)):
        if rows:
            table = [tuple(head.replace(" ", "_") for head in heads), *(row.cells for row in rows)]
            table = [tuple(cell.replace(" ", "\\x20") for cell in line) for line in table]
            widths = [max(len(line[at]) for line in table) for at in range(len(heads))]
            aligned = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)
            lines += ["", *aligned]
    return "\n".join([*lines, "", *(f"# {one}" for one in said.remarks), ""])


# Reading an answer that may lack anything


def _member(document: Document, name: str) -> Document:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _members(document: Document, name: str) -> Iterator[Document]:
    value = document.get(name)
    yield from (one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()


def _texts(document: Document, name: str) -> Iterator[str]:
    value = document.get(name)
    yield from (visible(one) for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _text(document: Document, name: str) -> str:
    value = document.get(name)
    return visible(value) if isinstance(value, str) and value else NOTHING


def _number(document: Document, name: str) -> float | None:
    value = document.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _BEYOND:
        return None  # also what is no number, which Python's JSON takes for one
    return value


def _count(document: Document, name: str) -> str:
    value = _number(document, name)
    return NOTHING if value is None else counted(round(value))
