"""The sentences around a report's tables: what they are about, and what the figures do not say."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from ai_mux.logs.person import visible
from ai_mux.usage.store import END_OF_TIME_S
from ai_mux.usage_report import Report

_MOST_NAMES: Final = 8


def title(report: Report) -> str:
    """Return what the report is about."""
    whose = "" if report.user is None else f" of {visible(report.user)}"
    until = "now" if report.until_now else _minute(report.until_s)
    return f"Usage{whose} from {_minute(report.since_s)} until {until} (UTC)"


def silence(report: Report) -> str:
    """Return what there is to say where there was no request."""
    whose = "" if report.user is None else f" of {visible(report.user)}"
    until = "now" if report.until_now else _minute(report.until_s)
    told = f"No requests{whose} from {_minute(report.since_s)} until {until} (UTC)."
    if report.user in report.known_users:
        return f"{told} There are some at other times: see --since."
    return f"{told} At other times, or of others: {_listed([visible(name) for name in report.known_users])}."


def explanations(report: Report) -> Iterator[str]:
    """Yield a sentence for each thing that the figures do not say by themselves."""
    total = report.tables[0].total
    if total.cost:
        yield (
            "Costs are notional: what the tokens cost at the providers' list prices. "
            "A subscription is not billed like that."
        )
    if total.unmetered:
        yield (
            f"Gaps: {_requests(total.unmetered)} unmetered. What was used could not be read from the "
            "response, so it is missing in tokens and cost."
        )
    if total.unpriced:
        names = [
            visible(group.key[table.by.index("model")]) or "no name"
            for table in report.tables
            if "model" in table.by
            for group in table.rows
            if group.sums.unpriced
        ]
        of = f" ({_listed(list(dict.fromkeys(names)))})" if names else ""
        yield (
            f"Gaps: {_requests(total.unpriced)} unpriced. The model's price is not known{of}, so its tokens "
            "are missing in the cost. You can set it: usage.prices in the configuration."
        )


def _requests(number: int) -> str:
    return "1 request" if number == 1 else f"{number:,} requests"


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _minute(at_s: float) -> str:
    return datetime.fromtimestamp(min(at_s, END_OF_TIME_S - 1), UTC).strftime("%Y-%m-%d %H:%M")
