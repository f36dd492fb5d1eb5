"""The responses of one tunnel. Each is a request of its own, with its lease and its row.

Rule 1: a response counts from when it was asked for until its last event; between two of
them a tunnel counts for nothing.

Rule 2: what the provider begins unasked counts as well. A response that was steered has a
successor that nobody created, and what was not understood on its way there may be asking.

Rule 3: ends belong to beginnings in their order. Of a client that has several responses at
once, a row's tokens may be its neighbour's; the sums are right.
"""

from typing import TYPE_CHECKING, Final

from ai_mux.errors import LimitReached, RequestError
from ai_mux.logs import Outcome
from ai_mux.proxy.request import Request
from ai_mux.usage.limiter import Lease
from ai_mux.usage.reading import UNMETERED
from ai_mux.usage.tally import NOTHING_READ, Reading
from ai_mux.users import User

if TYPE_CHECKING:
    from ai_mux.proxy.server import Server

_ANSWERED: Final = 200  # as over HTTP, where a response that fails has begun with it
_UNKNOWN_ERROR: Final = 500


class Response:
    """A response that has not ended.

    Attributes:
        user: Who asked for it.
        lease: Its place among those that count; None where nothing was counted.
        model: What was asked for, as far as that is known.
        bytes_in: Of the message that asked for it.
        asked_at: When that began to come, in monotonic seconds.
        begun_at: When its first event came; None before.
    """

    __slots__ = ("asked_at", "begun_at", "bytes_in", "lease", "model", "user")

    def __init__(self, user: User, lease: Lease | None, *, model: str, asked_at: float) -> None:
        self.user = user
        self.lease = lease
        self.model = model
        self.bytes_in = 0
        self.asked_at = asked_at
        self.begun_at: float | None = None


class Responses:
    """Keeps their accounts.

    Attributes:
        passed: Bytes that the provider has sent. Whoever follows it says so before each call.
    """

    __slots__ = ("_entered", "_request", "_running", "_server", "passed")

    def __init__(self, request: Request, server: "Server") -> None:
        """Begin with none.

        Args:
            request: The handshake.
            server: Keeps the accounts of everyone.
        """
        self._request = request
        self._server = server
        self._running: list[Response] = []
        self._entered = 0  # of what the provider has sent, the bytes that stand in rows
        self.passed = 0

    def ask(self, user: User, *, model: str, asked_at: float) -> Response:
        """Count a response that is being asked for.

        Raises:
            LimitReached: The user has used up a limit.
        """
        response = Response(user, self._server.accounting.begin(user), model=model, asked_at=asked_at)
        self._running.append(response)
        return response

    def begin(self, user: User) -> None:
        """Note that the provider has begun one.

        Raises:
            LimitReached: Nobody had asked for it, and the user has used up a limit.
        """
        response = next((one for one in self._running if one.begun_at is None), None)
        if response is not None:
            response.begun_at = self._server.clock.monotonic()
            return
        refused = self._take_note(user)
        if refused is not None:
            raise refused

    def end(self, user: User, reading: Reading) -> None:
        """Note that one has ended, and what it used."""
        if not self._running:
            self._take_note(user)
        self._enter(self._running[0], _ANSWERED, reading, "done")

    def _take_note(self, user: User) -> LimitReached | None:
        """Count one that nobody has asked for; return why it should not have begun, if it should not."""
        now = self._server.clock.monotonic()
        response = Response(user, None, model="", asked_at=now)
        response.begun_at = now
        self._running.append(response)
        try:
            response.lease = self._server.accounting.begin(user)
        except LimitReached as error:
            return error
        return None

    def fail(self, status: int) -> None:
        """Note the provider's error: it answers the oldest that has not begun, else ends the oldest.

        Args:
            status: By the provider's word; 0 where it says none.
        """
        if self._running:
            failed = next((one for one in self._running if one.begun_at is None), self._running[0])
            self._enter(failed, status or _UNKNOWN_ERROR, NOTHING_READ, "done")

    def refuse(self, response: Response, error: RequestError) -> None:
        """Enter one that we refused, whether or not it had been counted by then."""
        response.begun_at = self._server.clock.monotonic()
        if response not in self._running:
            self._running.append(response)
        self._enter(response, error.status, NOTHING_READ, "refused")

    def close(self, outcome: Outcome) -> None:
        """Enter those that the tunnel's end has cut off. What they used is not known."""
        for response in tuple(self._running):
            status = 0 if response.begun_at is None else _ANSWERED
            self._enter(response, status, UNMETERED, outcome)

    def _enter(self, response: Response, status: int, reading: Reading, outcome: Outcome) -> None:
        self._running.remove(response)
        request, server = self._request, self._server
        assert request.admitted is not None  # noqa: S101 - a tunnel was admitted
        now = server.clock.monotonic()
        begun_at = response.begun_at
        sent, self._entered = self.passed - self._entered, self.passed
        server.accounting.enter(
            lease=response.lease,
            user=response.user.name,
            request_id=request.id,
            credential=request.admitted.destination.credential,
            provider=request.provider,
            path=request.head.path.decode("latin-1"),
            model=response.model,
            status=status,
            reading=reading if request.gateway.metered else NOTHING_READ,
            bytes_in=response.bytes_in,
            bytes_out=sent,
            head_ms=None if begun_at is None else (begun_at - response.asked_at) * 1000,
            total_ms=(now - response.asked_at) * 1000,
            end=outcome,
            remote=request.remote,
            method=request.head.method,
        )
