"""When a token stops working: a date or a time by RFC 3339."""

import re
from datetime import UTC, datetime
from typing import Final

from ai_mux.config import values
from ai_mux.config.report import Wrong
from ai_mux.config.tree import Node

_FORM: Final = 'write a date like "2030-12-31", or a time like "2030-12-31T18:00:00Z"'
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# RFC 3339, section 5.6; its note lets a blank stand for the T.
_TIME: Final = re.compile(
    rf"{_DATE.pattern}[T ][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(?:\.[0-9]{{1,9}})?(Z|[-+][0-9]{{2}}:[0-9]{{2}})?"
)
_DAY_S: Final = 86_400.0
# The last second that has a date. Whoever writes 9999-12-31 means never, and gets that.
_LAST_S: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


def expires_at(node: Node) -> float:
    """Return from when on something is good for nothing, in seconds since 1970.

    A date counts to its end, in UTC: on the day that is written, it is still good.
    """
    written = values.text(node).upper()
    if _DATE.fullmatch(written):
        return _within_calendar(_seconds(f"{written}T00:00:00Z") + _DAY_S)
    if not (parts := _TIME.fullmatch(written)):
        raise Wrong(f"is no date and no time; {_FORM}")
    if parts[1] is None:
        raise Wrong("has no time zone; end it in Z for UTC, or in an offset like +02:00")
    return _within_calendar(_seconds(written))


def _seconds(written: str) -> float:
    try:
        return datetime.fromisoformat(written).timestamp()
    except ValueError:
        raise Wrong(f"is no day or no time that exists; {_FORM}") from None


def _within_calendar(at_s: float) -> float:
    if at_s < 0:
        raise Wrong("is before 1970; write a later one")
    return min(at_s, _LAST_S)
