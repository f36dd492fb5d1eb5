"""Windows that slide, and the time by which they do. Pure: time is an argument.

Rule 1: nothing leaves too early. What was added stands for at least as long as the
window is, so no stretch of that length ever holds more than was let into it.

Rule 2: a window is kept in at most 61 sums. What comes within a 60th of it becomes one
sum, which leaves as a whole when the last of it is old enough: at most a 60th too late.

Rule 3: time neither goes back nor stands still, whatever happens to the machine's clocks.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from ai_mux.clock import Clock

_STEPS: Final = 60
# Far more than any sum of real requests, and it still fits the array's 64 bits.
_MOST: Final = 2**62
# Who remembers has another reading of the clock, and writes a little later or earlier than we count.
_ABOUT_MS: Final = 1000
_LONG_AGO: Final = -(2**62)


class SteadyTime:
    """Milliseconds that neither go back nor stand still.

    The wall clock can be set back, and the monotonic one may stand still while a
    machine sleeps. This is the monotonic one, set forward whenever the wall clock has
    got further. A clock that goes to and fro sets it forward once, not every time.

    Attributes:
        wall_s: What the wall clock said at the last reading, in seconds since 1970. For
            telling people when, and for what others wrote down by that clock.
    """

    __slots__ = ("_ahead_s", "_monotonic", "_wall", "wall_s")

    def __init__(self, clock: Clock) -> None:
        self._wall = clock.time
        self._monotonic = clock.monotonic
        self._ahead_s = -math.inf
        self.now_ms()

    def now_ms(self) -> int:
        """Return the time. Its differences mean something; it may be ahead of the wall clock."""
        # The wall clock first: a pause between the two must not look like a jump forward.
        wall_s = self.wall_s = self._wall()
        monotonic_s = self._monotonic()
        ahead_s = wall_s - monotonic_s
        if ahead_s > self._ahead_s:
            self._ahead_s = ahead_s
        else:
            ahead_s = self._ahead_s
        return round((monotonic_s + ahead_s) * 1000)

    def peek_ms(self) -> int:
        """Return the time and change nothing: for other threads than the one that counts."""
        wall_s, monotonic_s = self._wall(), self._monotonic()
        return round((monotonic_s + max(self._ahead_s, wall_s - monotonic_s)) * 1000)


class Past(NamedTuple):
    """What somebody else remembers of a window.

    Attributes:
        at_ms: When it was used, at the latest.
        amount: How much.
        largest: The most that one request used of it, as far as known.
    """

    at_ms: int
    amount: int
    largest: int


class Seen(NamedTuple):
    """A window, as whoever watches sees it.

    Attributes:
        used: How much is.
        frees_in_ms: In how many milliseconds the first of it leaves; None where nothing is used.
        whole_in_ms: In how many milliseconds the last of it leaves, likewise.
    """

    used: int
    frees_in_ms: int | None
    whole_in_ms: int | None


NOTHING_SEEN: Final = Seen(0, None, None)


class _Sum:
    """What is added to still: the newest of a window's sums.

    Attributes:
        last_ms: When the last of it came; ``_LONG_AGO`` where nothing did.
        amount: How much it is.
        largest: The largest part of it.
    """

    __slots__ = ("amount", "largest", "last_ms")

    def __init__(self, last_ms: int, amount: int, largest: int) -> None:
        self.last_ms = last_ms
        self.amount = amount
        self.largest = largest


class _Sums(NamedTuple):
    """A window's sums. Replaced as a whole: another thread sees those before, or those after.

    Attributes:
        last_ms: Of each sum but the newest, as in ``_Sum``.
        amounts: Likewise.
        largest: Likewise.
        newest: The newest.
    """

    last_ms: "array[int]"
    amounts: "array[int]"
    largest: "array[int]"
    newest: _Sum


_EMPTY: Final = array("q")


class Window:
    """How much of something was used within the last ``window_s`` seconds.

    Every method takes the time and none may be given an earlier one than the last. ``used``
    and ``largest`` are those of the last ``add`` or ``slide``.

    Attributes:
        used: How much.
        largest: The most that was added at once.
        due_ms: Before this time ``slide`` finds nothing that is too old, and need not be called.
    """

    __slots__ = (
        "_begun_ms",
        "_gone_ms",
        "_known_from_ms",
        "_newest",
        "_step_ms",
        "_sums",
        "_window_ms",
        "due_ms",
        "largest",
        "used",
    )

    def __init__(self, window_s: int, now_ms: int) -> None:
        self._window_ms = window_s * 1000
        self._step_ms = math.ceil(self._window_ms / _STEPS)
        self._known_from_ms = now_ms  # whatever was used since then was added
        self._gone_ms = _LONG_AGO  # when the last of what has left came
        self._clear()

    def _clear(self) -> None:
        self.used = self.largest = 0
        self._replace(_EMPTY, _EMPTY, _EMPTY, _Sum(_LONG_AGO, 0, 0), _LONG_AGO)

    def _replace(
        self,
        last_ms: "array[int]",
        amounts: "array[int]",
        largest: "array[int]",
        newest: _Sum,
        begun_ms: int,
    ) -> None:
        """Have these sums from now on, the newest of which was begun then."""
        self._sums = _Sums(last_ms, amounts, largest, newest)
        self._newest = newest
        self._begun_ms = begun_ms
        oldest_ms = last_ms[0] if last_ms else newest.last_ms
        # Also when the newest takes no more, so that ``add`` has one thing to ask.
        self.due_ms = min(begun_ms + self._step_ms, oldest_ms + self._window_ms)

    def add(self, now_ms: int, amount: int) -> None:
        """Count ``amount`` as used now; negative counts as nothing."""
        newest = self._newest
        together = newest.amount + amount
        if now_ms < self.due_ms and amount > 0 and together <= _MOST:
            # What nearly every request does: it adds to the newest sum.
            newest.last_ms = now_ms
            newest.amount = together
            self.used += amount
            if amount > newest.largest:
                newest.largest = amount
                self.largest = max(self.largest, amount)
            return
        self.slide(now_ms)
        if amount > 0:
            self._append(now_ms, amount, amount)

    def take_back(self, at_ms: int) -> None:
        """Count one less of what was added at ``at_ms``, one at a time; what has left already stays so."""
        if at_ms <= self._gone_ms:
            return
        last_ms, amounts, _, newest = self._sums
        at = bisect_left(last_ms, at_ms)
        if at < len(last_ms):
            if amounts[at]:
                amounts[at] -= 1
                self.used -= 1
        elif at_ms <= newest.last_ms and newest.amount:
            newest.amount -= 1
            self.used -= 1

    def slide(self, now_ms: int) -> None:
        """Let go of what is too old."""
        if now_ms < self.due_ms:
            return
        last_ms, amounts, largest, newest = self._sums
        too_old_ms = now_ms - self._window_ms
        if newest.last_ms <= too_old_ms:
            self._gone_ms = max(self._gone_ms, newest.last_ms)
            self._clear()
        elif last_ms and last_ms[0] <= too_old_ms:
            count = bisect_right(last_ms, too_old_ms)
            self._gone_ms = last_ms[count - 1]
            self.used -= sum(amounts[:count])
            self.largest = max(newest.largest, max(largest[count:], default=0))
            self._replace(last_ms[count:], amounts[count:], largest[count:], newest, self._begun_ms)

    def is_empty(self, now_ms: int) -> bool:
        """Tell whether nothing is left of what was added."""
        return self._newest.last_ms <= now_ms - self._window_ms

    def below_in_ms(self, now_ms: int, amount: int) -> int:
        """Return in how many milliseconds less than ``amount`` will be used, if nothing more is; 0 for now.

        Args:
            now_ms: The time of the last ``slide``.
            amount: At least 1.
        """
        surplus = self.used - amount
        if surplus < 0:
            return 0
        for last_ms, gone, _ in self._entries():
            surplus -= gone
            if surplus < 0:
                return last_ms + self._window_ms - now_ms
        raise AssertionError("the sums are less than what is used")

    def seen(self, now_ms: int) -> "Seen":
        """Return what is used and when it leaves; change nothing."""
        last_ms, amounts, _, newest = self._sums
        too_old_ms = now_ms - self._window_ms
        if newest.last_ms <= too_old_ms:
            return NOTHING_SEEN
        gone = bisect_right(last_ms, too_old_ms)
        first_ms = last_ms[gone] if gone < len(last_ms) else newest.last_ms
        end_ms = self._window_ms - now_ms
        return Seen(sum(amounts[gone:]) + newest.amount, first_ms + end_ms, newest.last_ms + end_ms)

    # What is known from elsewhere

    def heir(self, window_s: int, now_ms: int) -> "Window":
        """Return a window of another length that knows what this one knows."""
        self.slide(now_ms)
        heir = Window(window_s, now_ms)
        heir._known_from_ms = max(self._known_from_ms, now_ms - self._window_ms)
        heir._gone_ms = self._gone_ms
        for entry in self._entries():
            heir._append(*entry)
        return heir

    def recall(self, past: Iterable[Past], now_ms: int, *, pending: int = 0) -> None:
        """Add what somebody remembers, but for what was added here and is remembered there, too.

        The stretches that are remembered may be long, and one may have begun before this window
        and ended after: so not they are told apart, but what was added here is taken off
        those that ended since, the latest first.

        Does nothing from the second time on, nor once the window knows all that it can hold.

        Args:
            past: In any order.
            now_ms: The time.
            pending: How much of what was added here is not remembered there yet.
        """
        self.slide(now_ms)
        if now_ms - self._known_from_ms >= self._window_ms:
            return
        both = max(0, self.used - pending)
        entries = self._entries()
        for at_ms, amount, largest in sorted(past, reverse=True):
            rest = amount
            if at_ms >= self._known_from_ms - _ABOUT_MS:
                rest = max(0, amount - both)
                both -= amount - rest
            if rest > 0:
                entries.append((at_ms, rest, min(largest, rest)))
        self._known_from_ms = _LONG_AGO
        self._clear()
        for entry in sorted(entries):
            self._append(*entry)

    def _entries(self) -> list[tuple[int, int, int]]:
        """Return all sums, oldest first: when the last of it came, how much it is, the largest part of it."""
        last_ms, amounts, largest, newest = self._sums
        entries = list(zip(last_ms, amounts, largest, strict=True))
        if newest.last_ms > _LONG_AGO:
            entries.append((newest.last_ms, newest.amount, newest.largest))
        return entries

    def _append(self, at_ms: int, amount: int, largest: int) -> None:
        """Add to the newest sum, or begin one."""
        newest = self._newest
        if amount > _MOST:
            amount = largest = _MOST
        if at_ms < self._begun_ms + self._step_ms:
            amount = min(amount, _MOST - newest.amount)
            newest.last_ms = at_ms
            newest.amount += amount
            newest.largest = max(newest.largest, largest)
        else:
            last_ms, amounts, most, _ = self._sums
            if newest.last_ms > _LONG_AGO:
                last_ms = last_ms + array("q", [newest.last_ms])
                amounts = amounts + array("q", [newest.amount])
                most = most + array("q", [newest.largest])
            self._replace(last_ms, amounts, most, _Sum(at_ms, amount, largest), at_ms)
        self.used += amount
        self.largest = max(self.largest, largest)
