"""Where the end of every request is entered: its limits, the totals, the ledger, the audit log.

Rule 1: who counts must not disturb. Nothing here waits, and nothing that fails here
reaches the request whose end is entered.

Rule 2: what a request used counts against its limits before anything else is done, so
that whoever asks next, on any connection, meets it.

Rule 3: what could not be read counts against limits all the same, by an estimate that is
rather too high: whoever leaves before the figures come must not get off cheaply. The
ledger keeps what is known.
"""

from typing import Final, Protocol

from ai_mux.clock import Clock
from ai_mux.limits import Limits
from ai_mux.logs import Log, Outcome
from ai_mux.logs.audit import Audit
from ai_mux.usage.ledger import Ledger
from ai_mux.usage.limiter import Lease, Limiter
from ai_mux.usage.prices import Prices
from ai_mux.usage.tally import NO_TOKENS, Metering, MicroUsd, Reading, Record, Tokens
from ai_mux.usage.totals import Totals

_LONGEST_PATH: Final = 256
# English and code are about four bytes a token, as OpenAI's and Anthropic's documents say.
_PROMPT_BYTES: Final = 4
# An event of 150 to 300 bytes carries one token (OpenAI) or several (Anthropic).
_ANSWER_BYTES: Final = 32
# Who is refused a thousand times a second fills no disk: more than these in a second are only counted.
_REFUSALS_A_SECOND: Final = 10
_UNSURE: Final[frozenset[Metering]] = frozenset({"unmetered", "partial"})
_NOTHING: Final = MicroUsd(0)
# Makes a Record of the values of its fields, in half the time that calling it takes.
_new: Final = tuple.__new__


class Asker(Protocol):
    """Who asks: ``users.User``."""

    @property
    def name(self) -> str:
        """The user's name."""

    @property
    def limits(self) -> Limits:
        """How much they may use."""


class Accounting:
    """Begins and ends the accounts of requests.

    Attributes:
        limiter: Holds users to their limits.
        totals: What metrics show.
        prices: What tokens cost; a reload puts others in place.
        ledger: Keeps one row for each request; None where nothing is to be kept.
        audit: Gets one line for each request; None where none is wanted.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        log: Log,
        limiter: Limiter,
        totals: Totals,
        prices: Prices,
        ledger: Ledger | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.limiter = limiter
        self.totals = totals
        self.prices = prices
        self.ledger = ledger
        self.audit = audit
        self._time = clock.time
        self._log = log
        self._failed = False
        self._second = 0
        self._refused: dict[str, int] = {}  # of this second, by user

    def begin(self, user: Asker) -> Lease:
        """Count a request of this user, and let it take its place among those that run.

        Raises:
            LimitReached: The user has used up a limit.
        """
        return self.limiter.begin(user.name, user.limits)

    def check(self, user: Asker) -> None:
        """Tell whether ``begin`` would let this user in now, and count nothing.

        Raises:
            LimitReached: It would not.
        """
        self.limiter.check(user.name, user.limits)

    def enter(  # noqa: PLR0917 - by keywords it would take a tenth longer
        self,
        lease: Lease | None,
        request_id: str,
        user: str,
        credential: str,
        provider: str,
        path: str,
        model: str,
        status: int,
        reading: Reading,
        bytes_in: int,
        bytes_out: int,
        head_ms: float | None,
        total_ms: float,
        end: Outcome,
        remote: str,
        method: bytes,
        answer_bytes: int | None = None,
    ) -> None:
        """Enter the end of a request that was for a provider. Never raises.

        Args:
            lease: What ``begin`` gave; None for a request that counts against no limit.
            request_id: The id that the client was told.
            user: Whose request it was.
            credential: See ``tally.Record``, as for all that is not said here.
            provider: The provider's name.
            path: Without the query.
            model: What the request asked for, where the response does not say.
            status: What the client was answered; 0 if it left before.
            reading: What was read of the response.
            bytes_in: Of the request's body.
            bytes_out: Of the response's body.
            head_ms: Milliseconds to the response's head, or None.
            total_ms: Milliseconds in all.
            end: How it ended for its client.
            remote: Where the client is. For the audit log alone.
            method: As it came. For the audit log alone.
            answer_bytes: Of the response's body, unpacked; None for ``bytes_out``.
        """
        tokens, metering, said, tier = reading
        if said:
            model = said
        cost: MicroUsd | None = None
        try:
            now_s = self._time()
            if tokens is not NO_TOKENS:
                cost = self.prices.cost(provider, model, tokens, tier, now_s)
            if lease is None:
                pass
            elif metering in _UNSURE and lease.is_counted:
                guess = _estimated(tokens, bytes_in, bytes_out if answer_bytes is None else answer_bytes)
                dear = self.prices.cost(provider, model, guess, tier, now_s)
                lease.settle(guess.total, dear or _NOTHING, at_least_largest=metering == "unmetered")
            else:
                lease.settle(sum(tokens), cost or _NOTHING)
            self.totals.add(
                (provider, status, user, model, metering, end),
                (tokens, cost, bytes_in, bytes_out, head_ms, total_ms),
            )
            if status == 429 and end == "refused" and not self._has_room(user, now_s):
                return
            record = _new(
                Record,
                (
                    now_s,
                    request_id,
                    user,
                    credential,
                    provider,
                    path if len(path) <= _LONGEST_PATH else path[:_LONGEST_PATH],
                    model,
                    status,
                    metering,
                    tokens,
                    cost,
                    bytes_in,
                    bytes_out,
                    head_ms,
                    total_ms,
                ),
            )
            if self.ledger is not None:
                self.ledger.put(record)
            if self.audit is not None:
                self.audit.put(_line(record, end, remote, method))
        except Exception as error:  # a bug here must cost a row, not a request
            if lease is not None:
                lease.settle(0, _NOTHING)
            if not self._failed:
                self._failed = True
                self._log.error("accounting.failed", problem=type(error).__name__, request_id=request_id)

    def note(
        self,
        *,
        request_id: str,
        user: str,
        path: str,
        status: int,
        bytes_in: int,
        bytes_out: int,
        head_ms: float | None,
        total_ms: float,
        end: Outcome,
        remote: str,
        method: bytes,
    ) -> None:
        """Let the audit log know of the end of a request that has no row: a stranger's, or for no provider.

        Args:
            request_id: The id that the client was told.
            user: Whose request it was; empty where it was nobody's.
            path: See ``enter``, as for all below.
            status: What the client was answered.
            bytes_in: Of the request's body.
            bytes_out: Of the response's body.
            head_ms: To the response's head.
            total_ms: In all.
            end: How it ended.
            remote: Where the client is.
            method: As it came.
        """
        if self.audit is not None:
            record = Record(
                ended_at=self._time(),
                request_id=request_id,
                user=user,
                credential="",
                provider="",
                path=path[:_LONGEST_PATH],
                model="",
                status=status,
                metering="none",
                tokens=NO_TOKENS,
                cost=None,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                head_ms=head_ms,
                total_ms=total_ms,
            )
            self.audit.put(_line(record, end, remote, method))

    def _has_room(self, user: str, now_s: float) -> bool:
        """Tell whether one more refusal of this user is entered in this second."""
        if int(now_s) != self._second:
            self._second = int(now_s)
            self._refused.clear()
        count = self._refused[user] = self._refused.get(user, 0) + 1
        return count <= _REFUSALS_A_SECOND


def _estimated(tokens: Tokens, bytes_in: int, answer_bytes: int) -> Tokens:
    """Return what a request may have used of which no more is known than this."""
    prompt = tokens.total - tokens.output
    return tokens._replace(
        input=tokens.input if prompt else bytes_in // _PROMPT_BYTES,
        output=max(tokens.output, answer_bytes // _ANSWER_BYTES),
    )


def _line(record: Record, end: Outcome, remote: str, method: bytes) -> dict[str, object]:
    """Return what the audit log says of a request: who, where, how much, and no content."""
    line: dict[str, object] = {
        "request_id": record.request_id,
        "remote": remote,
        "method": method.decode("latin-1"),
        "path": record.path,
        "user": record.user or None,
    }
    if record.provider:
        line["provider"] = record.provider
        line["credential"] = record.credential
        line["model"] = record.model or None
    line["status"] = record.status or None
    line["end"] = end
    if record.provider:
        line["metering"] = record.metering
        line["tokens"] = record.tokens._asdict()
        line["cost_microusd"] = record.cost
    line["bytes_in"] = record.bytes_in
    line["bytes_out"] = record.bytes_out
    line["head_ms"] = None if record.head_ms is None else round(record.head_ms, 1)
    line["total_ms"] = round(record.total_ms, 1)
    return line
