"""What all requests came to since the start, for metrics: plain integers that each request adds to.

Rule 1: adding is cheap, for it happens on the way of every request. So requests are put down,
and added up many at a time, or when somebody looks. What is shown is made then.

Rule 2: what comes from outside is no label of its own without end: so many models and users
have one, those after them share ``other``.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from ai_mux.usage.tally import Metering, MicroUsd, Tokens

OTHER: Final = "other"
UNKNOWN: Final = "unknown"  # neither request nor response says which model it was
# A price list has some dozens of models, most of which nobody uses; invented ones stop here.
MOST_OTHER_MODELS: Final = 50
MOST_USERS: Final = 200
_MOST_ENDS: Final = 200  # of provider, status and end together: the usual ones are a score
_MOST_PROVIDERS: Final = 16
# A model's name is looked up as it is written; these are remembered, and then forgotten at once.
_MOST_SPELLINGS: Final = 1024
_LONGEST_MODEL: Final = 64
# From a refusal, which takes a millisecond, to a model that thinks for ten minutes.
HEAD_BOUNDS_MS: Final = (10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 600_000)
# Streams last longer; request_timeout does not bound them.
TOTAL_BOUNDS_MS: Final = (
    *(10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000),
    *(1_800_000, 3_600_000),
)
# More requests at a time would save little, and these hold up the event loop for less than 100 µs.
_ADDED_TOGETHER: Final = 64
_SORTED_TOGETHER: Final = 256
# Plain tuples, made for every request and taken apart for many at once.
#
# What is a label in the end: provider, status, user and model, how far its use was read, how it ended.
Labels = tuple[str, int, str, str, Metering, str]
# What is added up: tokens and their cost, bytes of both bodies, milliseconds to the head and in all.
Amounts = tuple[Tokens, MicroUsd | None, int, int, float | None, float]


class _Durations:
    """A histogram. Each bucket counts what is above the bound before it, and not above its own."""

    __slots__ = ("_fresh_ms", "bounds_ms", "counts", "sum_ms")

    def __init__(self, bounds_ms: tuple[int, ...]) -> None:
        self.bounds_ms = bounds_ms
        self.counts = [0] * (len(bounds_ms) + 1)
        self.sum_ms = 0.0
        self._fresh_ms: list[float] = []

    def add(self, durations_ms: Sequence[float]) -> None:
        """Add these."""
        self._fresh_ms += durations_ms
        if len(self._fresh_ms) >= _SORTED_TOGETHER:
            self._sort()

    def _sort(self) -> None:
        """Put into buckets what has come since the last time."""
        ordered, self._fresh_ms = sorted(self._fresh_ms), []
        below = 0
        for bucket, bound_ms in enumerate(self.bounds_ms):
            at_most = bisect_right(ordered, bound_ms, below)
            self.counts[bucket] += at_most - below
            below = at_most
        self.counts[-1] += len(ordered) - below
        self.sum_ms += sum(ordered)

    def cumulative(self) -> tuple[list[tuple[float, int]], float]:
        """Return how many were at most each bound, in seconds, the last of them infinite; and the sum."""
        self._sort()
        found, below = [], 0
        for bound_ms, count in zip((*self.bounds_ms, float("inf")), self.counts, strict=True):
            below += count
            found.append((bound_ms / 1000, below))
        return found, self.sum_ms / 1000


class _Provider:
    """What the requests to one provider came to."""

    __slots__ = ("bytes_in", "bytes_out", "head", "limited", "partial", "total", "unmetered", "unpriced")

    def __init__(self) -> None:
        self.head = _Durations(HEAD_BOUNDS_MS)
        self.total = _Durations(TOTAL_BOUNDS_MS)
        self.bytes_in = 0
        self.bytes_out = 0
        self.unmetered = 0
        self.partial = 0
        self.unpriced = 0
        self.limited = 0


class Used(NamedTuple):
    """What was used of one model.

    Attributes:
        provider: The provider's name.
        model: The model's name, or ``other``.
        tokens: By kind.
        cost_microusd: Of the tokens that have a price.
    """

    provider: str
    model: str
    tokens: Tokens
    cost_microusd: int


class Totals:
    """The sums since the start.

    Args:
        named: Says under which name a provider's model is counted, of a list that has an end: the
            price table's; None for a model that is not there. It is asked once for each spelling.

    Attributes:
        strangers: Requests that were answered without anybody's token, by status.
    """

    def __init__(self, named: Callable[[str, str], str | None] = lambda _provider, _model: None) -> None:
        self._named = named
        self._fresh: dict[Labels, list[Amounts]] = defaultdict(list)  # what is not added up yet
        self._fresh_count = 0
        self._ends: dict[tuple[str, int, str], int] = {}
        self._providers: dict[str, _Provider] = {}
        self._spelled: dict[tuple[str, str], list[int]] = {}  # as in ``_models``
        self._others: set[str] = set()
        self._models: dict[tuple[str, str], list[int]] = {}  # five kinds of tokens, and their cost
        self._users: dict[str, list[int]] = {}  # requests, tokens
        self.strangers: dict[int, int] = {}

    # Adding

    def add(self, labels: Labels, amounts: Amounts) -> None:
        """Add a request that has ended.

        Args:
            labels: What kind of request it was. ``tally.Record`` says what each is, but for the last:
                how it ended for its client.
            amounts: What it came to, likewise.
        """
        self._fresh[labels].append(amounts)
        self._fresh_count += 1
        if self._fresh_count >= _ADDED_TOGETHER:
            self._add_up()

    def stranger(self, status: int) -> None:
        """Add a request without a known user: nobody's token came with it, or it could not be read."""
        self.strangers[status] = self.strangers.get(status, 0) + 1

    # Adding up

    def _add_up(self) -> None:
        """Add what was put down since the last time."""
        fresh, self._fresh, self._fresh_count = self._fresh, defaultdict(list), 0
        for (provider, status, user, model, metering, end), requests in fresh.items():
            count = len(requests)
            self._count_ends((provider, status, end), count)
            row = self._providers.get(provider) or self._row(provider)
            if metering == "unmetered":
                row.unmetered += count
            elif metering == "partial":
                row.partial += count
            if status == 429 and end == "refused":
                row.limited += count
            self._add_amounts(provider, row, user, model, requests)

    def _add_amounts(
        self, provider: str, row: _Provider, user: str, model: str, requests: Sequence[Amounts]
    ) -> None:
        """Add what requests with the same labels came to, one amount of all of them after the other."""
        tokens, costs, came, went, heads_ms, totals_ms = zip(*requests, strict=True)
        row.head.add([ms for ms in heads_ms if ms is not None])
        row.total.add(totals_ms)
        row.bytes_in += sum(came)
        row.bytes_out += sum(went)
        of_user = self._users.get(user) or self._user(user)
        of_user[0] += len(requests)
        kinds = list(zip(*tokens, strict=True))
        if 0 in kinds[-1]:  # who used nothing paid nothing, and takes no model's label
            costs = tuple(cost for cost, used in zip(costs, tokens, strict=True) if any(used))
        if costs:
            of_model = self._spelled.get((provider, model)) or self._of_model(provider, model)
            for kind, amounts in enumerate(kinds):
                used = sum(amounts)
                of_model[kind] += used
                of_user[1] += used
            priced = [cost for cost in costs if cost is not None]
            row.unpriced += len(costs) - len(priced)
            of_model[5] += sum(priced)

    def _count_ends(self, key: tuple[str, int, str], count: int) -> None:
        """Count requests under their status or, where there are too many of those, under none."""
        if key not in self._ends and len(self._ends) >= _MOST_ENDS:
            key = (OTHER, -1, OTHER)
        self._ends[key] = self._ends.get(key, 0) + count

    def _row(self, provider: str) -> _Provider:
        if len(self._providers) >= _MOST_PROVIDERS:
            provider = OTHER
        return self._providers.setdefault(provider, _Provider())

    def _user(self, name: str) -> list[int]:
        if len(self._users) >= MOST_USERS:
            name = OTHER
        return self._users.setdefault(name, [0, 0])

    def _of_model(self, provider: str, model: str) -> list[int]:
        """Return what the model with this spelling is counted in."""
        if len(self._spelled) >= _MOST_SPELLINGS:
            self._spelled.clear()
        label = self._named(provider, model) or self._other_label(model or UNKNOWN)
        row = self._models.setdefault((provider, label), [0] * 6)
        self._spelled[provider, model] = row
        return row

    def _other_label(self, model: str) -> str:
        if model not in self._others:
            if len(self._others) >= MOST_OTHER_MODELS or len(model) > _LONGEST_MODEL:
                return OTHER
            self._others.add(model)
        return model

    # Showing

    def ends(self) -> Iterator[tuple[str, int, str, int]]:
        """Give provider, status (0: none; -1: one of many) and end, and how many requests had them."""
        self._add_up()
        for (provider, status, end), count in self._ends.items():
            yield provider, status, end, count

    def providers(self) -> Iterator[tuple[str, _Provider]]:
        """Give what the requests to each provider came to."""
        self._add_up()
        yield from self._providers.items()

    def models(self) -> Iterator[Used]:
        """Give what was used of each model."""
        self._add_up()
        for (provider, model), row in self._models.items():
            yield Used(provider, model, Tokens(*row[:5]), row[5])

    def users(self) -> Iterator[tuple[str, int, int]]:
        """Give each user's requests and tokens."""
        self._add_up()
        for name, (requests, tokens) in self._users.items():
            yield name, requests, tokens
