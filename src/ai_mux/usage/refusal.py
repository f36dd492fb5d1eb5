"""What users read when a limit refuses them: which one, and until when."""

import math
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from ai_mux.errors import LimitReached
from ai_mux.limits import Quantity, Rule

# What runs may end at any moment.
_SOON_S: Final = 1
_UNITS: Final = ((604800, "week"), (86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_PARTS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def used_up(rule: Rule, wait_ms: int, wall_s: float) -> LimitReached:
    """Return the refusal of a request for which nothing is left within a window.

    Args:
        rule: The limit that is used up for longest.
        wait_ms: For how long.
        wall_s: The time by the wall clock, in seconds since 1970.
    """
    retry_after_s = math.ceil(wait_ms / 1000)
    resets_at = math.ceil(wall_s + wait_ms / 1000)
    until = f"{_moment(resets_at, wall_s)}, in {_span(retry_after_s)}"
    return LimitReached(
        f"{_limit(rule)} is used up; there will be room at {until}.",
        retry_after_s=retry_after_s,
        resets_at=resets_at,
    )


def at_once(running: int, places: int, *, implied: bool) -> LimitReached:
    """Return the refusal of a request while too many are running.

    Args:
        running: How many are.
        places: How many may.
        implied: Nobody set this limit: it comes with one on tokens or cost.
    """
    why = "a limit on tokens or cost allows no more at once" if implied else f"your limit is {places} at once"
    return LimitReached(
        f"{_running(running)}, and {why}. Try again when one has ended.", retry_after_s=_SOON_S
    )


def spoken_for(rule: Rule, running: int) -> LimitReached:
    """Return the refusal of a request while those that run may use what is left."""
    return LimitReached(
        f"{_running(running)} and may use what is left of {_limit(rule, your='your')}. "
        "Try again when one has ended.",
        retry_after_s=_SOON_S,
    )


def _limit(rule: Rule, your: str = "Your") -> str:
    if rule.quantity is Quantity.REQUESTS:
        amount = _requests(rule.amount)
    elif rule.quantity is Quantity.TOKENS:
        amount = f"{rule.amount:,} token{'s' * (rule.amount != 1)}"
    else:
        amount = f"{_dollars(rule.amount)} of notional cost"
    return f"{your} limit of {amount} per {_window(rule.window_s)} ({rule.text})"


def _requests(count: int) -> str:
    return f"{count:,} request{'s' * (count != 1)}"


def _running(count: int) -> str:
    return "A request of yours is running" if count == 1 else f"{count} requests of yours are running"


def _dollars(micro_usd: int) -> str:
    whole, millionths = divmod(micro_usd, 1_000_000)
    cents = f".{millionths:06}".rstrip("0").ljust(3, "0") if millionths else ""
    return f"${whole:,}{cents}"


def _window(window_s: int) -> str:
    length_s, unit = next(one for one in _UNITS if window_s % one[0] == 0)
    count = window_s // length_s
    return unit if count == 1 else f"{count} {unit}s"


def _moment(at_s: int, now_s: float) -> str:
    at, now = datetime.fromtimestamp(at_s, UTC), datetime.fromtimestamp(now_s, UTC)
    return f"{at:%H:%M:%S} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _span(seconds: int) -> str:
    """Return a length of time in its two largest units, or one; the moment beside it is exact."""
    for (length_s, unit), (next_s, next_unit) in pairwise(_PARTS):
        if seconds >= length_s:
            rest = seconds % length_s // next_s
            return f"{seconds // length_s} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{seconds} s"
