"""What one user runs and has used, and whether one more request may begin. Time is an argument.

Rule 1: a request counts when it begins, its tokens and its cost when it ends, because
nobody knows them before. It may begin only while less than the limit is used, so a limit
is exceeded at most by what ran when it was reached.

Rule 2: each request that runs is expected to use as much as the largest of its user within
that window, and none begins where nothing would be left. A limit on tokens or cost brings
a limit on how many run at once.

Rule 3: nobody is refused for longer than needed: ``retry-after`` is when there is room.

Rule 4: other limits for the same user begin with what the former ones have counted.

Rule 5: nobody looks before it matters. A look tells for how many more requests there will be
room whatever happens meanwhile; these begin without another, unless a window has to slide.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ai_mux.errors import LimitReached
from ai_mux.limits import NO_LIMITS, Limits, Quantity, Rule
from ai_mux.usage.refusal import at_once, spoken_for, used_up
from ai_mux.usage.sliding import NOTHING_SEEN, Past, Window
from ai_mux.usage.store import Spent

# Where tokens or cost are limited and ``concurrent`` is not: more than the programs of one
# person start at once, and still a bound for what is used beyond a limit.
IMPLIED_CONCURRENT: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How much of one limit is used.

    Attributes:
        limit: Of what.
        rule: The rule; None for ``concurrent``.
        amount: How much there is in all: requests, tokens, or millionths of a dollar; None for
            any number of requests at once.
        used: How much is used now; for ``concurrent``, how many requests are running.
        left: What is left, at least 0; None as for ``amount``.
        frees_at: When some of it comes back if nothing more is used, in seconds since 1970 UTC;
            None where nothing is used, and for ``concurrent``.
        whole_at: When all of it is back, likewise.
    """

    limit: Literal["concurrent", "requests", "tokens", "cost"]
    rule: Rule | None
    amount: int | None
    used: int
    left: int | None
    frees_at: float | None = None
    whole_at: float | None = None


class Allowance:
    """One user's counters, under the limits that hold for them now.

    Attributes:
        limits: Those limits.
        running: How many of the user's requests run.
        is_limited: There is something to check when a request begins.
        is_counted: There is something to count when it begins and when it ends.
    """

    __slots__ = (
        "_bounds",
        "_cost",
        "_places",
        "_requests",
        "_rules",
        "_sure",
        "_sure_until_ms",
        "_tokens",
        "_windows",
        "is_counted",
        "is_limited",
        "limits",
        "running",
    )

    def __init__(self) -> None:
        self.limits = NO_LIMITS
        self.running = 0
        self.is_limited = self.is_counted = False
        self._places: int | None = None
        # How many requests may begin without a look, and until when.
        self._sure = 0
        self._sure_until_ms = -math.inf
        self._windows: dict[tuple[Quantity, int], Window] = {}
        # The same windows by what they are for: to explain a refusal, to find out whether there is one
        # (the amount, and whether what runs is expected to use some of it), and to count each quantity.
        self._rules: tuple[tuple[Rule, Window], ...] = ()
        self._bounds: tuple[tuple[Window, int, bool], ...] = ()
        self._requests: tuple[Window, ...] = ()
        self._tokens: tuple[Window, ...] = ()
        self._cost: tuple[Window, ...] = ()

    def go_by(self, limits: Limits, now_ms: int) -> None:
        """Use these limits from now on.

        The former ones' windows count on until the next change: a WebSocket that was opened
        under them may ask by them once more, and must not make the later ones forget.
        """
        windows = {(rule.quantity, rule.window_s): window for rule, window in self._rules}
        for rule in limits.rules:
            key = (rule.quantity, rule.window_s)
            windows[key] = self._windows.get(key) or self._new_window(rule, now_ms)
        self.limits = limits
        self._sure = 0
        self._places = places(limits)
        self._windows = windows
        self._rules = tuple((rule, windows[rule.quantity, rule.window_s]) for rule in limits.rules)
        self._bounds = tuple(
            (window, rule.amount, rule.quantity is not Quantity.REQUESTS) for rule, window in self._rules
        )
        self._requests = self._windows_of(Quantity.REQUESTS)
        self._tokens = self._windows_of(Quantity.TOKENS)
        self._cost = self._windows_of(Quantity.COST)
        self.is_counted = bool(windows)
        self.is_limited = self.is_counted or self._places is not None

    def _windows_of(self, quantity: Quantity) -> tuple[Window, ...]:
        return tuple(window for (of, _), window in self._windows.items() if of is quantity)

    def _new_window(self, rule: Rule, now_ms: int) -> Window:
        """Return a window for a new rule, with what the longest of its kind knows."""
        lengths_s = [window_s for quantity, window_s in self._windows if quantity is rule.quantity]
        if lengths_s:
            return self._windows[rule.quantity, max(lengths_s)].heir(rule.window_s, now_ms)
        window = Window(rule.window_s, now_ms)
        if rule.quantity is Quantity.REQUESTS:
            window.add(now_ms, self.running)
        return window

    # A request

    def check(self, now_ms: int, wall_s: float) -> None:
        """Tell whether a request may begin.

        Raises:
            LimitReached: It may not. Where several limits are in the way, the one that is for longest.
        """
        running, room = self.running, self._places
        may_begin = room is None or running < room
        for window, amount, is_spent in self._bounds:
            if now_ms >= window.due_ms:
                window.slide(now_ms)
            expected = running * window.largest if is_spent else 0
            if window.used + expected >= amount:
                may_begin = False
        if not may_begin:
            raise self._refusal(now_ms, wall_s)

    def _refusal(self, now_ms: int, wall_s: float) -> LimitReached:
        """Return why a request may not begin. The windows have slid."""
        refusal: LimitReached | None = None
        longest_ms = 0
        for rule, window in self._rules:
            wait_ms = window.below_in_ms(now_ms, rule.amount)
            if wait_ms > longest_ms:
                longest_ms, refusal = wait_ms, used_up(rule, wait_ms, wall_s)
        if refusal is not None:
            return refusal
        running = self.running
        if self._places is not None and running >= self._places:
            return at_once(running, self._places, implied=self.limits.concurrent is None)
        for rule, window in self._rules:
            expected = running * window.largest
            if rule.quantity is not Quantity.REQUESTS and window.used + expected >= rule.amount:
                return spoken_for(rule, running)
        raise AssertionError("nothing is in the way")

    def begin(self, now_ms: int, wall_s: float) -> None:
        """Let a request begin, and count it; ``running`` is the caller's to count.

        Raises:
            LimitReached: As ``check`` does.
        """
        if self._sure > 0 and now_ms < self._sure_until_ms:
            self._sure -= 1
        else:
            self.check(now_ms, wall_s)
            self._foresee()
        for window in self._requests:
            window.add(now_ms, 1)

    def _foresee(self) -> None:
        """Find out for how many more requests there will be room, now that there was for one.

        It holds until somebody uses more than the largest so far: what is expected of those
        that run is until then no less than what they will use.
        """
        running = self.running
        sure = [] if self._places is None else [self._places - 1 - running]
        for window, amount, is_spent in self._bounds:
            room = amount - 1 - window.used
            if not is_spent:
                sure.append(room)
            elif window.largest:
                sure.append(room // window.largest - running)
        self._sure = min(sure, default=0)
        self._sure_until_ms = min((window.due_ms for window, _, _ in self._bounds), default=math.inf)

    def take_back(self, begun_ms: int) -> None:
        """Count a request for nothing that began then."""
        for window in self._requests:
            window.take_back(begun_ms)

    def spend(self, tokens: int, cost: int, now_ms: int) -> None:
        """Count what a request has used."""
        for window in self._tokens:
            if tokens > window.largest:
                self._sure = 0
            window.add(now_ms, tokens)
        for window in self._cost:
            if cost > window.largest:
                self._sure = 0
            window.add(now_ms, cost)

    def spend_unknown(self, tokens: int, cost: int, now_ms: int) -> None:
        """Count what a request may have used: this, or as much as any before, if that is more."""
        self._sure = 0
        for window in self._tokens:
            window.add(now_ms, max(tokens, window.largest))
        for window in self._cost:
            window.add(now_ms, max(cost, window.largest))

    # Whoever watches, and whoever remembers

    def standing(self, limits: Limits, now_ms: int, wall_s: float) -> list[Standing]:
        """Return how much of each limit is used: of ``concurrent``, then of the rules in their order.

        Changes nothing, so that any thread may ask.
        """
        room = places(limits)
        left = None if room is None else max(0, room - self.running)
        told = [Standing(limit="concurrent", rule=None, amount=room, used=self.running, left=left)]
        for rule in limits.rules:
            window = self._windows.get((rule.quantity, rule.window_s))
            seen = NOTHING_SEEN if window is None else window.seen(now_ms)
            told.append(
                Standing(
                    limit=rule.quantity.value,
                    rule=rule,
                    amount=rule.amount,
                    used=seen.used,
                    left=max(0, rule.amount - seen.used),
                    frees_at=None if seen.frees_in_ms is None else wall_s + seen.frees_in_ms / 1000,
                    whole_at=None if seen.whole_in_ms is None else wall_s + seen.whole_in_ms / 1000,
                )
            )
        return told

    def recall(self, window_s: int, spent: Iterable[Spent], now_ms: int, wall_s: float) -> None:
        """Add what the ledger remembers to the windows of this length; see ``Window.recall``."""
        stretches = list(spent)
        self._sure = 0
        for (quantity, length_s), window in self._windows.items():
            if length_s == window_s:
                past = (_past(one, quantity, now_ms, wall_s) for one in stretches)
                # Requests count from their beginning here, and from their end there.
                pending = self.running if quantity is Quantity.REQUESTS else 0
                window.recall(past, now_ms, pending=pending)

    def is_idle(self, now_ms: int) -> bool:
        """Tell whether there is nothing left to remember."""
        return not self.running and all(window.is_empty(now_ms) for window in self._windows.values())


def places(limits: Limits) -> int | None:
    """Return how many requests may run at once; None for any number."""
    if limits.concurrent is None and any(rule.quantity is not Quantity.REQUESTS for rule in limits.rules):
        return IMPLIED_CONCURRENT
    return limits.concurrent


def _past(spent: Spent, quantity: Quantity, now_ms: int, wall_s: float) -> Past:
    """Return what the ledger says of one stretch. What is from the future is from now."""
    at_ms = now_ms - max(0, round((wall_s - spent.at_s) * 1000))
    if quantity is Quantity.REQUESTS:
        return Past(at_ms, spent.requests, 1)
    amount = spent.tokens if quantity is Quantity.TOKENS else spent.cost
    # The ledger has sums; the largest of several was at least their mean.
    return Past(at_ms, amount, -(-amount // max(1, spent.requests)))
