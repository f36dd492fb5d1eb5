"""A clock that stands still until it is told."""

from dataclasses import dataclass


@dataclass
class FakeClock:
    """Both clocks. ``pass_s`` moves both; ``wall`` alone is what a user or NTP changes."""

    wall: float = 1_800_000_000.0
    mono: float = 5_000.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def pass_s(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds
