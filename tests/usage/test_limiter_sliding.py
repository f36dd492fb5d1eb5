"""A window tells the same as sums that are looked through one by one each time, whatever happens in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.usage.sliding import NOTHING_SEEN, Window

MOST = 2**62


class PlainWindow:
    """The same rules, spelt out: sums as they are begun, when the last of each came, its largest part."""

    def __init__(self, window_s: int) -> None:
        self.window_ms = window_s * 1000
        self.sums: list[list[int]] = []

    def slide(self, now_ms: int) -> None:
        self.sums = [one for one in self.sums if one[1] > now_ms - self.window_ms]

    def add(self, now_ms: int, amount: int) -> None:
        if amount <= 0:
            return
        amount = min(amount, MOST)
        if self.sums and (now_ms - self.sums[-1][0]) * 60 < self.window_ms:
            begun_ms, _, before, largest = self.sums[-1]
            self.sums[-1] = [begun_ms, now_ms, min(before + amount, MOST), max(largest, amount)]
        else:
            self.sums.append([now_ms, now_ms, amount, amount])

    def take_back(self, at_ms: int) -> None:
        found = next((one for one in self.sums if one[0] <= at_ms <= one[1]), None)
        if found and found[2]:
            found[2] -= 1

    def below_in_ms(self, now_ms: int, amount: int) -> int:
        left, wait_ms = sum(one[2] for one in self.sums), 0
        for _, last_ms, gone, _ in self.sums:
            if left < amount:
                break
            left -= gone
            wait_ms = last_ms + self.window_ms - now_ms
        return wait_ms


def pauses_ms(window_s: int) -> st.SearchStrategy[int]:
    step_ms = window_s * 1000 // 60
    edges = [0, 1, step_ms, step_ms + 1, window_s * 1000 - 1, window_s * 1000]
    return st.one_of(st.sampled_from(edges), st.integers(0, 3 * step_ms))


@st.composite
def histories(draw):
    window_s = draw(st.sampled_from([1, 7, 60, 61, 3600]))
    amounts = st.one_of(st.integers(-1, 20), st.sampled_from([MOST // 2, MOST, 2 * MOST]))
    happens = st.sampled_from(["add", "add", "add", "take back", "look"])
    step = st.tuples(pauses_ms(window_s), happens, amounts)
    return window_s, draw(st.lists(step, max_size=80))


@given(histories())
def test_a_window_tells_what_its_sums_tell(history):
    window_s, steps = history
    now_ms = 10**12
    window, plain, added_at_ms = Window(window_s, now_ms), PlainWindow(window_s), []
    for pause_ms, what, amount in steps:
        now_ms += pause_ms
        plain.slide(now_ms)
        assert window.is_empty(now_ms) is (not plain.sums)
        if what == "add":
            window.add(now_ms, amount)
            plain.add(now_ms, amount)
            added_at_ms += [now_ms] if amount > 0 else []
        else:
            window.slide(now_ms)
        if what == "take back" and added_at_ms:
            at_ms = added_at_ms[amount % len(added_at_ms)]
            window.take_back(at_ms)
            plain.take_back(at_ms)
        used = sum(one[2] for one in plain.sums)
        assert window.used == used
        assert window.below_in_ms(now_ms, max(1, amount)) == plain.below_in_ms(now_ms, max(1, amount))
        assert window.largest == max((one[3] for one in plain.sums), default=0)
        ends_ms = [one[1] + plain.window_ms - now_ms for one in plain.sums]
        assert window.seen(now_ms) == ((used, ends_ms[0], ends_ms[-1]) if ends_ms else NOTHING_SEEN)


@pytest.mark.parametrize("heir_s", [None, 60, 3600])
def test_what_was_added_longer_ago_than_the_window_is_not_taken_back_from_others(heir_s):
    window = Window(60, 0)
    window.add(0, 1)
    window.add(59_000, 1)
    window.slide(60_000)
    window = window if heir_s is None else window.heir(heir_s, 60_000)
    window.take_back(0)
    assert window.used == 1
    window.take_back(59_000)
    assert window.used == 0
    window.slide(119_000)
    window.add(119_001, 1)
    window.take_back(59_000)
    assert window.used == 1
