"""Reads the use from a response that is one JSON document, without parsing what it says.

The usage stands behind the words, or the numbers, and the model before or behind them: so
both ends are looked at (``wire.json_ends``), and the whole is parsed only if they do not tell.
Of a large document only the ends are kept.
"""

import json
from typing import Final

from ai_mux.usage.reading import UNMETERED, read_answer
from ai_mux.usage.tally import Reading
from ai_mux.usage.usual import read_usual
from ai_mux.wire.answers import Dialect
from ai_mux.wire.json_ends import members_from, way_to

# The largest answer of words, 64,000 tokens, is about as large. More is numbers (embeddings) or
# pictures, at whose ends everything stands that is looked for.
WHOLE_BYTES: Final = 256 * 1024
"""What is longer is read from its ends only: 256 KiB of brackets take 10 ms to parse."""
# The request's tools stand in a response's last part; Codex sends 30 KB of them.
_END_BYTES: Final = 64 * 1024
_ANTHROPIC: Final = Dialect.ANTHROPIC
_USAGE: Final = b'"usage"'
_MODEL: Final = b'"model"'
_TIER: Final = b'"service_tier"'
# Behind a response's usage stands its metadata, 16 entries of the client's own choice.
_TRIES: Final = 32
_FEW_TRIES: Final = 8  # of an event, of which there may be several
# What Python holds for a piece beside its bytes.
_PIECE_BYTES: Final = 64
_TO_MODEL: Final = way_to(_MODEL).match


class Document:
    """Keeps of a document what may matter, however its bytes are cut."""

    __slots__ = ("_beginning", "_dialect", "_parts", "_size")

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._parts: list[bytes] = []
        self._size = 0
        self._beginning: bytes | None = None  # of one of which no more than the ends are kept

    def feed(self, data: bytes) -> None:
        """Keep the next bytes, or what may matter of them."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > WHOLE_BYTES:
            kept = b"".join(self._parts)
            if self._beginning is None:
                self._beginning = kept[:_END_BYTES]
            self._parts = [kept[-_END_BYTES:]]
            self._size = _END_BYTES

    @property
    def held(self) -> int:
        """How many bytes are kept."""
        beginning = 0 if self._beginning is None else _END_BYTES
        return self._size + _PIECE_BYTES * len(self._parts) + beginning

    def reading(self, *, whole: bool) -> Reading:
        """Return what the document says. Of one that was cut nothing: its ends prove nothing then."""
        if not whole:
            return UNMETERED
        return read_document(b"".join(self._parts), self._dialect, self._beginning)

    def give_up(self) -> None:
        """Forget what is kept."""
        self._parts.clear()
        self._size = 0
        self._beginning = None


def last_members(raw: bytes) -> dict[str, object] | None:
    """Return an answer of OpenAI's, however long, from its tier or usage on; None where that cannot be told.

    Args:
        raw: The document, or its end, up to its last bracket.
    """
    found, _ = _to_the_end(raw[-_END_BYTES:], Dialect.OPENAI, tries=_FEW_TRIES)
    return found or None


def read_document(end: bytes, dialect: Dialect, beginning: bytes | None = None) -> Reading:
    """Return what a document that has ended says of its use.

    Args:
        end: The document, or its end.
        dialect: Whose it is.
        beginning: Its beginning, where ``end`` is not all of it.
    """
    whole = beginning is None
    if whole and dialect is _ANTHROPIC:
        usual = read_usual(end)
        if usual is not None:
            return usual
    found = _from_ends(end if beginning is None else beginning, end, dialect, whole=whole)
    if found is None and whole:
        found = _parsed(end)
    return UNMETERED if found is None else read_answer(dialect, found)


def _from_ends(beginning: bytes, end: bytes, dialect: Dialect, *, whole: bool) -> dict[str, object] | None:
    """Return the members that matter, and others; none where there is no usage.

    Returns None where the ends do not tell, and of a whole document also where they might
    tell less than all of it.
    """
    found, sure = _to_the_end(end, dialect)
    if whole and not sure:
        return None
    if not found:
        return found
    model = _TO_MODEL(beginning)
    if model is not None:
        found["model"] = model[1].decode(errors="replace")
    elif "model" not in found and (model_at := end.rfind(_MODEL, 0, end.rfind(_USAGE))) >= 0:
        more = members_from(end, model_at)
        if more is None and whole:
            return None
        found["model"] = None if more is None else more.get("model")
    return found


def _to_the_end(end: bytes, dialect: Dialect, *, tries: int = _TRIES) -> tuple[dict[str, object], bool]:
    """Return the members from the tier on, or else from the usage on; and whether none is missed."""
    at = end.rfind(_USAGE)
    for _ in range(tries):
        if at < 0:
            return {}, True
        # OpenAI says the tier of the answer, and before what it used; Anthropic among what it used.
        tier_at = -1 if dialect is _ANTHROPIC else end.rfind(_TIER, 0, at)
        for start in (at,) if tier_at < 0 else (tier_at, at):
            found = members_from(end, start)
            if found is not None and "usage" in found:
                return found, tier_at < 0 or start == tier_at
        at = end.rfind(_USAGE, 0, at)  # what was found is only called so
    return {}, False


def _parsed(raw: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
