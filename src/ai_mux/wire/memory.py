"""What a function has found, for arguments that come back again and again.

Looking it up costs half of what ``functools.lru_cache`` takes, which makes a tuple first.

Rule 1: what is remembered comes from outside, so its number is bounded, and the caller
says which arguments are kept at all. Others are worked out each time.

Rule 2: when it is full, all is forgotten, and what still comes back is found anew.
"""

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memory(dict[K, V]):
    """Look up with ``memory[argument]``, which raises what the function raises."""

    __slots__ = ("_find", "_keeps", "_most")

    def __init__(self, find: Callable[[K], V], *, keeps: Callable[[K], bool], most: int) -> None:
        """Remember what ``find`` returns.

        Args:
            find: Works it out, from the argument alone.
            keeps: Tells whether an argument may be kept.
            most: How many are kept.
        """
        super().__init__()
        self._find = find
        self._keeps = keeps
        self._most = most

    def __missing__(self, argument: K) -> V:
        found = self._find(argument)
        if self._keeps(argument):
            if len(self) >= self._most:
                self.clear()
            self[argument] = found
        return found


def up_to(size: int) -> Callable[[bytes], bool]:
    """Return what keeps arguments of at most ``size`` bytes."""
    return lambda argument: len(argument) <= size
