"""Holds users to their limits: who may begin a request, and what it counts afterwards.

What is counted and when stands in ``allowance``, how windows slide in ``sliding``.

Rule 1: a reload forgets nothing, and a restart nothing that the ledger has.

Rule 2: memory is for those who have used something within their windows, whatever names come.

All but ``standing`` is called on the event loop, and by no other thread.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from ai_mux.clock import Clock
from ai_mux.limits import Limits
from ai_mux.usage.allowance import IMPLIED_CONCURRENT, Allowance, Standing
from ai_mux.usage.sliding import SteadyTime
from ai_mux.usage.store import Spent
from ai_mux.usage.tally import MicroUsd

__all__ = ["IMPLIED_CONCURRENT", "Lease", "Limiter", "Recollection", "Standing"]

# Of what settles, only every so many looks for users who are idle; it looks at as many.
_LOOKS: Final = 16
# What the ledger remembers is added in portions of so many users, between which requests have their turn.
_PORTION: Final = 100

# Returns what users spent from one time to another, in seconds since 1970: ``UsageStore.spent``.
Recollection = Callable[[float, float], Awaitable[Iterable[Spent]]]


class Lease:
    """One request that runs and counts."""

    __slots__ = ("_allowance", "_begun_ms", "_limiter")

    def __init__(self, limiter: "Limiter", allowance: Allowance, begun_ms: int) -> None:
        self._limiter = limiter
        self._allowance: Allowance | None = allowance
        self._begun_ms = begun_ms

    @property
    def is_counted(self) -> bool:
        """Something is counted of what it uses."""
        return self._allowance is not None and self._allowance.is_counted

    def settle(self, tokens: int, cost: MicroUsd, *, at_least_largest: bool = False) -> None:
        """Count what the request used, now that it has ended. A second call does nothing.

        Args:
            tokens: Tokens of all kinds.
            cost: What they cost.
            at_least_largest: What it used is not known, and counts no less than the user's largest.
        """
        allowance = self._allowance
        if allowance is not None:
            self._allowance = None
            self._limiter.settle(allowance, tokens, cost, at_least_largest)

    def withdraw(self) -> None:
        """Count the request for nothing: it was refused before any provider saw it. Instead of ``settle``."""
        allowance = self._allowance
        if allowance is not None:
            self._allowance = None
            allowance.take_back(self._begun_ms)
            self._limiter.settle(allowance, 0, MicroUsd(0), False)


class Limiter:
    """Counts what users run and have used, and refuses what their limits do not allow.

    Attributes:
        running: How many requests run now, of all users.
    """

    def __init__(self, clock: Clock) -> None:
        self.running = 0
        self._clock = clock
        self._time = SteadyTime(clock)
        self._allowances: dict[str, Allowance] = {}
        self._turns: list[str] = []
        self._settled = 0

    # A request

    def begin(self, name: str, limits: Limits) -> Lease:
        """Let a user's request begin, and count it.

        Raises:
            LimitReached: A limit is used up, or too much is running.
        """
        allowance = self._allowances.get(name)
        if allowance is None or allowance.limits is not limits:
            allowance = self._allowance(name, limits)
        now_ms = 0
        if allowance.is_limited:
            time = self._time
            now_ms = time.now_ms()
            allowance.begin(now_ms, time.wall_s)
        allowance.running += 1
        self.running += 1
        return Lease(self, allowance, now_ms)

    def check(self, name: str, limits: Limits) -> None:
        """Tell whether a request could begin now, and count nothing.

        Raises:
            LimitReached: It could not.
        """
        self._allowance(name, limits).check(self._time.now_ms(), self._time.wall_s)

    def settle(self, allowance: Allowance, tokens: int, cost: MicroUsd, at_least_largest: bool) -> None:
        """Count the end of a request. Called by its ``Lease``."""
        self.running -= 1
        allowance.running -= 1
        if allowance.is_counted:
            now_ms = self._time.now_ms()
            if at_least_largest:
                allowance.spend_unknown(tokens, cost, now_ms)
            else:
                allowance.spend(tokens, cost, now_ms)
            self._settled += 1
            if self._settled % _LOOKS == 0:
                self._forget_idle(now_ms, _LOOKS)

    # Whoever watches

    def standing(self, name: str, limits: Limits) -> list[Standing]:
        """Return how much of each limit a user has used: of ``concurrent``, then of the rules in order.

        Changes nothing, and may be called by any thread. A rule that came with a reload says that
        nothing is used, until the user's next request or ``restore``.
        """
        allowance = self._allowances.get(name) or Allowance()
        return allowance.standing(limits, self._time.peek_ms(), self._clock.time())

    # What lasts

    async def restore(self, limits: Mapping[str, Limits], spent: Recollection) -> None:
        """Add what the ledger remembers: at the start, and after a reload for rules that are new.

        Requests may run meanwhile, and it may come late or twice: what was counted here since
        the start, or added before, is not added again.

        Args:
            limits: Those of each user, by name. What others spent is of no interest.
            spent: Asks the ledger. Called once for each length of window, because stretches that
                do for a week's window are too long for a minute's.

        Raises:
            LedgerError: As ``spent`` raises it. The windows of other lengths may be restored.
        """
        for name in limits.keys() & self._allowances.keys():  # what ends from now on is counted here
            self._allowance(name, limits[name])
        for window_s in sorted({rule.window_s for one in limits.values() for rule in one.rules}):
            self._time.now_ms()
            remembered: dict[str, list[Spent]] = defaultdict(list)
            for stretch in await spent(self._time.wall_s - window_s, self._time.wall_s):
                if stretch.user in limits:
                    remembered[stretch.user].append(stretch)
            for count, (name, stretches) in enumerate(remembered.items()):
                if count % _PORTION == 0:
                    await asyncio.sleep(0)
                allowance = self._allowance(name, limits[name])
                allowance.recall(window_s, stretches, self._time.now_ms(), self._time.wall_s)

    def _allowance(self, name: str, limits: Limits) -> Allowance:
        """Return a user's counters, under these limits from now on."""
        allowance = self._allowances.get(name)
        now_ms = self._time.now_ms()
        if allowance is None:
            # Two looks for each that comes: however many names come and go, few are kept that are idle.
            self._forget_idle(now_ms, 2)
            allowance = self._allowances[name] = Allowance()
        if allowance.limits is not limits:
            allowance.go_by(limits, now_ms)
        return allowance

    def _forget_idle(self, now_ms: int, looks: int) -> None:
        """Look at some users, and forget who is idle: all have their turn, and no request pays for all."""
        if not self._turns:
            self._turns = list(self._allowances)
        for _ in range(min(looks, len(self._turns))):
            name = self._turns.pop()
            allowance = self._allowances.get(name)
            if allowance is not None and allowance.is_idle(now_ms):
                del self._allowances[name]
