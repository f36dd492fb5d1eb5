"""What a limit is: so much of something within so long. Facts; ``usage.limiter`` applies them."""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Quantity(Enum):
    """What is limited within a window."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    COST = "cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """So much of something within so long, such as ``60/min``.

    Attributes:
        quantity: Of what.
        amount: How much, at least 1: requests, tokens of all kinds, or millionths of a dollar.
        window_s: Within how many seconds; the window slides.
        text: As the operator wrote it, for messages.
    """

    quantity: Quantity
    amount: int
    window_s: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one user may use.

    Attributes:
        concurrent: How many requests at once; None for any number.
        rules: What holds within windows; all of them must.
    """

    concurrent: int | None = None
    rules: tuple[Rule, ...] = ()


NO_LIMITS: Final = Limits()
