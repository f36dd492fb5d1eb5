"""The time that a report is about, from what a person types.

A date is a whole day: as a beginning it means its first moment, as an end its last, so
that ``--since yesterday --until yesterday`` is yesterday. Anything else is a moment.
Days begin at midnight UTC, as in the ledger: one day for everybody, wherever they are.
"""

import re
from datetime import UTC, datetime
from typing import Final

DAY_S: Final = 86400

FORM: Final = "a date (2026-11-22), a time (2026-11-22T14:00Z), an age (30m, 24h, 7d, 2w), today or yesterday"

_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": DAY_S, "w": 7 * DAY_S}
_AGE: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# RFC 3339, section 5.6. Seconds, minutes and the zone may be missing: an hour of a report
# ("2026-11-22T14") can be given back as it was printed, and without a zone it is UTC too.
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?)?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def stretch(written: str, now_s: float) -> tuple[float, float]:
    """Return when the time that was written begins and ends, in seconds since 1970 UTC.

    Args:
        written: In one of the forms of ``FORM``.
        now_s: Seconds since 1970 UTC.

    Raises:
        ValueError: It is in none of them; the message says which there are.
    """
    if written in {"today", "yesterday"}:
        begins = midnight(now_s) - (DAY_S if written == "yesterday" else 0)
        return begins, begins + DAY_S
    if age := _AGE.fullmatch(written):
        at = now_s - int(age[1]) * _UNIT_S[age[2]]
        return _kept(at), _kept(at)
    try:
        if _DATE.fullmatch(written):
            begins = _moment(written)
            return _kept(begins), _kept(begins + DAY_S)
        if _TIME.fullmatch(written):
            at = _moment(written.upper())
            return _kept(at), _kept(at)
    except ValueError:  # such as the 30th of February
        raise ValueError(f"there is no such time; write {FORM}") from None
    raise ValueError(f"write {FORM}; all in UTC unless a zone is given")


def midnight(now_s: float) -> float:
    """Return when the day of this moment began, in UTC."""
    return now_s // DAY_S * DAY_S


def _moment(written: str) -> float:
    at = datetime.fromisoformat(written)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _kept(at_s: float) -> float:
    """Return a time that can be told: nothing was counted before 1970."""
    return max(at_s, 0.0)
