"""How the figures in Anthropic's and OpenAI's usage objects read.

Rule 1: a figure is a whole number from 0 to a milliard, or it is not taken. ``true``, ``1.0``,
``"7"``, ``-1`` and ``10**30`` are none; ``null`` and what is not there say nothing.

Rule 2: of a figure that comes several times the largest counts, because figures in a stream
are cumulative. So repeated events and events out of order count nothing twice.

Rule 3: a reading is whole once the last figures were read, and all were valid: those that the
provider's protocol puts last, whether or not its client waited for what follows them; else
those before a response's own end. A reading is partial where there were other figures;
"none" where an error came in their place; else unmetered.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from ai_mux.usage.tally import NO_TOKENS, NOTHING_READ, Reading, Tokens
from ai_mux.wire.answers import Dialect

UNMETERED: Final = Reading(NO_TOKENS, "unmetered")

# Dialect.X costs as much as a call (until Python 3.12).
_ANTHROPIC: Final = Dialect.ANTHROPIC
# A thousand times the largest context; and a milliard rows of them still fit 63 bits.
_MOST: Final = 10**9
_UNSAID: Final = -1
_WRONG: Final = -2
_NAME_CHARACTERS: Final = 128

_TOTALS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
_SPLIT: Final = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
# What Anthropic's server used beside the answer, to shorten the conversation or to ask another model.
# The totals hold the rounds of the answer itself (iterations of the type "message") but not these.
_BESIDE: Final = ("compaction", "advisor_message")

# How far an answer is: its prompt was read; it is being written; it was written.
Stage = Literal["begun", "running", "ended"]
_Figures = list[int]
"""Input and output, then the parts of the input. Less than 0 is none: not said, or wrong."""


def name(value: object) -> str | None:
    """Return a model's or a tier's name; None for what is none: empty, too long, not printable ASCII."""
    if type(value) is str and 0 < len(value) <= _NAME_CHARACTERS and value.isascii() and value.isprintable():
        return value
    return None


def read_answer(dialect: Dialect, answer: Mapping[str, object]) -> Reading:
    """Return what a whole answer says of its use.

    Args:
        dialect: Whose answer it is.
        answer: Its members ``model``, ``usage`` and ``service_tier`` matter, whatever they are.
    """
    usage = answer.get("usage")
    model = name(answer.get("model"))
    if not isinstance(usage, dict):
        return UNMETERED if model is None else UNMETERED._replace(model=model)
    figures = _figures(dialect, usage)
    return _reading(dialect, figures, last=figures[1] >= 0, model=model, tier=_tier(answer, usage))


class Cumulative:
    """The figures of a stream, as its events bring them.

    Attributes:
        refused: An error came in the place of figures.
        spoilt: Some figures could not be read.
        model: The model, by the stream's word.
    """

    __slots__ = ("_dialect", "_largest", "_stage", "_tier", "model", "refused", "spoilt")

    def __init__(self, dialect: Dialect) -> None:
        self.refused = False
        self.spoilt = False
        self.model: str | None = None
        self._dialect = dialect
        self._largest: _Figures | None = None
        self._stage: Stage = "begun"
        self._tier: str | None = None

    def take(self, answer: Mapping[str, object], stage: Stage) -> None:
        """Take what an event says of the answer into account.

        Args:
            answer: See ``read_answer``.
            stage: How far the answer is, by the event's word.
        """
        self.model = name(answer.get("model")) or self.model
        usage = answer.get("usage")
        if not isinstance(usage, dict):
            self.spoilt = self.spoilt or usage is not None
            return
        figures = _figures(self._dialect, usage)
        self.spoilt = self.spoilt or _WRONG in figures
        if figures[1] >= 0 and stage != "begun" and self._stage != "ended":
            self._stage = stage
        self._largest = figures if self._largest is None else list(map(max, figures, self._largest))
        if self._tier != "fast":  # which only the first event says
            self._tier = _tier(answer, usage) or self._tier

    def reading(self, *, whole: bool) -> Reading:
        """Return what was read so far.

        Args:
            whole: The stream came to its own end.
        """
        if self._largest is not None:
            last = self._stage == "ended" or (whole and self._stage == "running")
            last = last and not self.spoilt
            return _reading(self._dialect, self._largest, last=last, model=self.model, tier=self._tier)
        nothing = NOTHING_READ if self.refused and not self.spoilt else UNMETERED
        return nothing._replace(model=self.model)


def _reading(
    dialect: Dialect, figures: _Figures, *, last: bool, model: str | None, tier: str | None
) -> Reading:
    if figures[0] < 0 and max(figures) < 0:
        return UNMETERED._replace(model=model)
    tokens = _anthropic_tokens(figures) if dialect is _ANTHROPIC else _openai_tokens(figures)
    whole = last and figures[0] >= 0 and _WRONG not in figures
    return Reading(tokens, "whole" if whole else "partial", model, tier)


def _figures(dialect: Dialect, usage: dict[str, object]) -> _Figures:
    return _anthropic_figures(usage) if dialect is _ANTHROPIC else _openai_figures(usage)


def _figure(value: object) -> int:
    if type(value) is int and 0 <= value <= _MOST:
        return value
    return _UNSAID if value is None else _WRONG


def _of(value: object) -> Callable[[str], object]:
    """Return what gets an object's members; of what is no object, but should be, every member is wrong."""
    if isinstance(value, dict):
        return value.get
    return _nothing if value is None else _wrong


def _nothing(_key: str) -> None:
    return None


def _wrong(_key: str) -> object:
    return _WRONG


# Anthropic: input tokens are those that are neither read from a cache nor written to one.


def _anthropic_figures(usage: dict[str, object]) -> _Figures:
    if usage.get("iterations"):
        usage = _with_what_is_beside(usage)
    get, part = usage.get, _of(usage.get("cache_creation"))
    return [
        _figure(get("input_tokens")),
        _figure(get("output_tokens")),
        _figure(get("cache_read_input_tokens")),
        _figure(get("cache_creation_input_tokens")),
        _figure(part("ephemeral_5m_input_tokens")),
        _figure(part("ephemeral_1h_input_tokens")),
    ]


def _anthropic_tokens(figures: _Figures) -> Tokens:
    given, output, read, written, for_5m, for_1h = figures
    for_1h = for_1h if for_1h > 0 else 0
    # The split may be missing, or of an earlier event than the total: what it does not tell of was
    # written for five minutes, the default.
    for_5m = for_5m if for_5m > written - for_1h else written - for_1h
    return Tokens(
        given if given > 0 else 0,
        read if read > 0 else 0,
        for_5m if for_5m > 0 else 0,
        for_1h,
        output if output > 0 else 0,
    )


def _with_what_is_beside(usage: dict[str, object]) -> dict[str, object]:
    """Return a usage object with what it leaves out of its totals added to them."""
    iterations = usage["iterations"]
    beside = [
        one
        for one in (iterations if isinstance(iterations, list) else ())
        if isinstance(one, dict) and one.get("type") in _BESIDE
    ]
    if not beside:
        return usage
    both = [usage, *beside]
    splits = [split for one in both if isinstance(split := one.get("cache_creation"), dict)]
    return {**usage, **_sums(both, _TOTALS), "cache_creation": _sums(splits, _SPLIT)}


def _sums(objects: Sequence[Mapping[str, object]], keys: Sequence[str]) -> dict[str, object]:
    """Return what the objects hold together; where one of them is wrong, so is the sum."""
    sums: dict[str, object] = {}
    for key in keys:
        figures = [_figure(one.get(key)) for one in objects]
        said = [figure for figure in figures if figure != _UNSAID]
        if said:
            sums[key] = _WRONG if _WRONG in said else sum(said)
    return sums


# OpenAI: input tokens are all of the prompt, those read from a cache and written to one included. What is
# written is kept for 30 minutes, or for 12 hours at a higher price, as Anthropic's for an hour.


def _openai_figures(usage: dict[str, object]) -> _Figures:
    get = usage.get
    if "input_tokens" in usage or "output_tokens" in usage:  # responses
        given, output, details = get("input_tokens"), get("output_tokens"), get("input_tokens_details")
    else:  # chat completions, embeddings
        given, output, details = get("prompt_tokens"), get("completion_tokens"), get("prompt_tokens_details")
    if output is None and given is not None and given == get("total_tokens"):
        output = 0  # an embedding has none
    part = _of(details)
    split = _of(part("cache_write_tokens_details"))
    return [
        _figure(given),
        _figure(output),
        _figure(part("cached_tokens")),
        _figure(part("cache_write_tokens")),
        _figure(split("ttl_30m_tokens")),
        _figure(split("ttl_12h_tokens")),
    ]


def _openai_tokens(figures: _Figures) -> Tokens:
    given, output, read, written, for_30m, for_12h = figures
    # What is said of a part cannot be more than the whole.
    rest = given if given > 0 else 0
    if read > 0:
        read = min(read, rest)
        rest -= read
    if written <= 0 and for_30m <= 0 and for_12h <= 0:  # as most often
        written = for_12h = 0
    else:
        for_12h = min(max(for_12h, 0), rest)
        written = min(max(for_30m, written - for_12h, 0), rest - for_12h)
        rest -= written + for_12h
    return Tokens(rest, read if read > 0 else 0, written, for_12h, output if output > 0 else 0)


# Tiers


def _tier(answer: Mapping[str, object], usage: Mapping[str, object]) -> str | None:
    """Return the tier: OpenAI says it of the answer, Anthropic of its use."""
    if usage.get("speed") == "fast":  # Anthropic's, a tier by another name: other prices for the same tokens
        return "fast"
    return name(usage.get("service_tier")) or name(answer.get("service_tier"))
