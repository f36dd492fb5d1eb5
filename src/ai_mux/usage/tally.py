"""What one request used, as it is counted, priced, kept and shown.

Facts only. Tokens are counted by kind because each kind has a price of its own; sums
of money are whole millionths of a dollar, so that a million small sums stay exact.
"""

from typing import Final, Literal, NamedTuple, NewType

MicroUsd = NewType("MicroUsd", int)
"""Millionths of a US dollar. Notional: what the tokens would cost by the API's list price."""

# What became of reading a request's use: read to its end; read as far as the response came
# ("partial"); there must have been some, and it could not be read; or there is none to read
# (an error, a count of tokens, a list of models).
Metering = Literal["whole", "partial", "unmetered", "none"]


class Tokens(NamedTuple):
    """Tokens by kind. No token is in two kinds.

    Attributes:
        input: Of the prompt, neither read from a cache nor written to one.
        cache_read: Of the prompt, read from a cache.
        cache_write_5m: Of the prompt, written to a cache for five minutes, or for as long as the
            provider chooses.
        cache_write_1h: Of the prompt, written to a cache for an hour.
        output: Of the answer, its reasoning included.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


NO_TOKENS: Final = Tokens()


class Reading(NamedTuple):
    """What was read from one response.

    Attributes:
        tokens: What it used.
        metering: What became of reading it.
        model: The model, by the response's word; None where it does not say.
        tier: The service tier, by the response's word; None where it does not say.
    """

    tokens: Tokens
    metering: Metering
    model: str | None = None
    tier: str | None = None


NOTHING_READ: Final = Reading(NO_TOKENS, "none")


class Record(NamedTuple):
    """One request, or one response of a WebSocket, as it is kept. Never any content.

    Attributes:
        ended_at: When it ended, in seconds since 1970 UTC.
        request_id: The id that the client was told, ours or the provider's.
        user: Whose token it was.
        credential: The provider's name and the kind of its credential: ``claude:login``, ``chatgpt:api-key``.
        provider: The provider's name.
        path: As the client wrote it, without the query, cut after 256 characters.
        model: By the response's word, else by the request's; empty where neither is known.
        status: What the client was answered; 0 if it left before that.
        metering: What became of reading its use.
        tokens: What it used.
        cost: None where the model has no known price.
        bytes_in: Of the request's body.
        bytes_out: Of the response's body.
        head_ms: Milliseconds to the response's head; None if there was none.
        total_ms: Milliseconds in all.
    """

    ended_at: float
    request_id: str
    user: str
    credential: str
    provider: str
    path: str
    model: str
    status: int
    metering: Metering
    tokens: Tokens
    cost: MicroUsd | None
    bytes_in: int
    bytes_out: int
    head_ms: float | None
    total_ms: float
