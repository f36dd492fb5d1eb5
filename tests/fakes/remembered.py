"""A ledger that remembers what users spent, as the real one tells it: in stretches, at their ends."""

from collections import defaultdict

from fakes.clock import FakeClock

from ai_mux.usage.store import Spent
from ai_mux.usage.tally import MicroUsd


class Remembered:
    """Rows of requests that have ended, by the wall clock.

    With ``whole_hours`` it tells of hours, each at its end, though that may be yet to come.
    """

    def __init__(self, clock: FakeClock, *, whole_hours: bool = False) -> None:
        self._clock = clock
        self._whole_hours = whole_hours
        self.rows: list[tuple[str, float, int, int]] = []
        self.asked: list[float] = []

    def put(self, user: str, tokens: int = 0, cost: int = 0) -> None:
        self.rows.append((user, self._clock.wall, tokens, cost))

    async def spent(self, since_s: float, now_s: float) -> list[Spent]:
        self.asked.append(now_s - since_s)
        step_s = 3600 if self._whole_hours else (now_s - since_s) / 60
        groups = defaultdict(list)
        for row in self.rows:
            if row[1] >= since_s:
                groups[row[0], int(row[1] / step_s)].append(row)
        return [
            Spent(
                user,
                (number + 1) * step_s if self._whole_hours else max(at for _, at, _, _ in rows),
                len(rows),
                sum(tokens for _, _, tokens, _ in rows),
                MicroUsd(sum(cost for _, _, _, cost in rows)),
            )
            for (user, number), rows in groups.items()
        ]
