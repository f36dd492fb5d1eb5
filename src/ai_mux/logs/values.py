"""What a field's value may look like in a log line, for any value.

Rule 1: nothing here raises. A line must not be lost because a value cannot be shown.

Rule 2: a ``Secret`` shows nothing, at whatever depth it sits.

Rule 3: every value has a longest length, for most of them are chosen by clients and providers.
"""

import math
from collections.abc import Mapping
from itertools import islice
from typing import Final

from ai_mux.secret import Secret

# A request's head may have 128 KiB. A handful of such paths would fill the log's
# queue: a cheap way to keep other lines out of it. Real paths have 30 bytes.
LONGEST_PATH: Final = 2048
# Room for the largest thing logged on purpose, the first 4 KiB of an upstream's error.
LONGEST_VALUE: Final = 8192
# A debug log may list a head's fields, at most 512 of them.
MOST_MEMBERS: Final = 512
_DEEPEST: Final = 4


def cut(text: str, longest: int) -> str:
    """Return the text, or its first ``longest`` characters and an ellipsis."""
    return text if len(text) <= longest else text[:longest] + "…"


def plain(value: object, depth: int = 0) -> object:
    """Return a value that JSON can hold, for any value, without raising."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return cut(value, LONGEST_VALUE)
        case bytes() | bytearray():
            return cut(bytes(value[: LONGEST_VALUE + 1]).decode("latin-1"), LONGEST_VALUE)
        case Secret():
            return "[masked]"
        case Mapping() if depth < _DEEPEST:
            return {_text(key): plain(one, depth + 1) for key, one in islice(value.items(), MOST_MEMBERS)}
        case list() | tuple() | set() | frozenset() if depth < _DEEPEST:
            return [plain(one, depth + 1) for one in islice(value, MOST_MEMBERS)]
        case BaseException():
            return cut(f"{type(value).__name__}: {_text(value)}", LONGEST_VALUE)
    return cut(_text(value), LONGEST_VALUE)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # whatever a __str__ may raise
        return f"[{type(value).__name__}]"
