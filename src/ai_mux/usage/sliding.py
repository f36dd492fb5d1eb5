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
_ALWAYS: Final = -(2**62)


class SteadyTime:
    """Milliseconds that neither go back nor stand still.

    The wall clock can be set back, and the monotonic one may stand still while a
    machine sleeps. This is the monotonic one, set forward whenever the wall clock has
    got further. A clock that goes to and fro sets it forward once, not every time.

    Attributes:
        wall_s: What the wall clock said at the last reading, in seconds since 1970. For
            telling people when, and for what others wrote down by that clock.
    """

    __slots__ = ("_ahead_s", "_clock", "wall_s")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_s = -math.inf
        self.now_ms()

    def now_ms(self) -> int:
        """Return the time. Its differences mean something; it may be ahead of the wall clock."""
        # The wall clock first: a pause between the two must not look like a jump forward.
        wall_s = self.wall_s = self._clock.time()
        monotonic_s = self._clock.monotonic()
        self._ahead_s = max(self._ahead_s, wall_s - monotonic_s)
        return round((monotonic_s + self._ahead_s) * 1000)

    def peek_ms(self) -> int:
        """Return the time and change nothing: for other threads than the one that counts."""
        wall_s, monotonic_s = self._clock.time(), self._clock.monotonic()
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


class Window:
    """How much of something was used within the last ``window_s`` seconds.

    Every method takes the time and none may be given an earlier one than the last. ``used``
    and ``largest`` are those of the last ``add`` or ``slide``.

    Attributes:
        used: How much.
        largest: The most that was added at once.
    """

    __slots__ = (
        "_amounts",
        "_begun_ms",
        "_known_from_ms",
        "_largest",
        "_last_ms",
        "_window_ms",
        "largest",
        "used",
    )

    def __init__(self, window_s: int, now_ms: int) -> None:
        self._window_ms = window_s * 1000
        self.used = 0
        self.largest = 0
        # One entry a sum: when the last of it came, how much it is, the largest part of it.
        self._last_ms = array("q")
        self._amounts = array("q")
        self._largest = array("q")
        self._begun_ms = 0  # when the newest sum was begun
        self._known_from_ms = now_ms  # whatever was used since then was added

    def add(self, now_ms: int, amount: int) -> None:
        """Count ``amount`` as used now; negative counts as nothing."""
        last_ms, amounts = self._last_ms, self._amounts
        if last_ms and last_ms[0] <= now_ms - self._window_ms:
            self.slide(now_ms)
        if amount <= 0:
            return
        if (
            not last_ms
            or (now_ms - self._begun_ms) * _STEPS >= self._window_ms
            or amounts[-1] + amount > _MOST
        ):
            self._append(now_ms, amount, amount)
            return
        # What nearly every request does: it adds to the newest sum.
        last_ms[-1] = now_ms
        amounts[-1] += amount
        self.used += amount
        if amount > self._largest[-1]:
            self._largest[-1] = amount
            self.largest = max(self.largest, amount)

    def take_back(self, at_ms: int) -> None:
        """Count one less of what was added at ``at_ms``, one at a time; what has left already stays so."""
        at = bisect_left(self._last_ms, at_ms)
        if at < len(self._last_ms) and self._amounts[at]:
            self._amounts[at] -= 1
            self.used -= 1

    def slide(self, now_ms: int) -> None:
        """Let go of what is too old."""
        last_ms = self._last_ms
        if last_ms and last_ms[0] <= now_ms - self._window_ms:
            count = bisect_right(last_ms, now_ms - self._window_ms)
            self.used -= sum(self._amounts[:count])
            del last_ms[:count], self._amounts[:count], self._largest[:count]
            self.largest = max(self._largest, default=0)

    def is_empty(self, now_ms: int) -> bool:
        """Tell whether nothing is left of what was added."""
        return not self._last_ms or self._last_ms[-1] <= now_ms - self._window_ms

    def below_in_ms(self, now_ms: int, amount: int) -> int:
        """Return in how many milliseconds less than ``amount`` will be used, if nothing more is; 0 for now.

        Args:
            now_ms: The time of the last ``slide``.
            amount: At least 1.
        """
        surplus = self.used - amount
        if surplus < 0:
            return 0
        for last_ms, gone in zip(self._last_ms, self._amounts, strict=True):
            surplus -= gone
            if surplus < 0:
                return last_ms + self._window_ms - now_ms
        raise AssertionError("the sums are less than what is used")

    def seen(self, now_ms: int) -> "Seen":
        """Return what is used and when it leaves; change nothing."""
        # Another thread may come between the two copies, but what it removes, it removes in front.
        last_ms, amounts = self._last_ms[:], self._amounts[:]
        count = len(last_ms) - bisect_right(last_ms, now_ms - self._window_ms)
        if not count:
            return NOTHING_SEEN
        end_ms = self._window_ms - now_ms
        return Seen(sum(amounts[-count:]), last_ms[-count] + end_ms, last_ms[-1] + end_ms)

    # What is known from elsewhere

    def heir(self, window_s: int, now_ms: int) -> "Window":
        """Return a window of another length that knows what this one knows."""
        self.slide(now_ms)
        heir = Window(window_s, now_ms)
        heir._known_from_ms = max(self._known_from_ms, now_ms - self._window_ms)
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
        entries = list(self._entries())
        for at_ms, amount, largest in sorted(past, reverse=True):
            rest = amount
            if at_ms >= self._known_from_ms - _ABOUT_MS:
                rest = max(0, amount - both)
                both -= amount - rest
            if rest > 0:
                entries.append((at_ms, rest, min(largest, rest)))
        self._known_from_ms = _ALWAYS
        del self._last_ms[:], self._amounts[:], self._largest[:]
        self.used = self.largest = 0
        for entry in sorted(entries):
            self._append(*entry)

    def _entries(self) -> Iterable[tuple[int, int, int]]:
        return zip(self._last_ms, self._amounts, self._largest, strict=True)

    def _append(self, at_ms: int, amount: int, largest: int) -> None:
        if amount > _MOST:
            amount = largest = _MOST
        if self._last_ms and (at_ms - self._begun_ms) * _STEPS < self._window_ms:
            if self._amounts[-1] + amount > _MOST:
                amount = _MOST - self._amounts[-1]
            self._last_ms[-1] = at_ms
            self._amounts[-1] += amount
            self._largest[-1] = max(self._largest[-1], largest)
        else:
            self._begun_ms = at_ms
            self._last_ms.append(at_ms)
            self._amounts.append(amount)
            self._largest.append(largest)
        self.used += amount
        self.largest = max(self.largest, largest)
