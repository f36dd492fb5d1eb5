"""What is said in a tunnel: the client asks for responses, the provider begins and ends them.

Rule 1: what a client asks for passes only when it may. For users of whom anything is to be
checked (models, limits, an expiry) nothing of a message passes before it is known what it
asks for, and its last byte not before all of it was looked into. What cannot be understood,
or could be in two ways, is refused. Everyone else's bytes pass at once.

Rule 2: the provider's bytes have passed before they are looked at, and nothing that is found
in them, or fails, changes or delays one of them.

Rule 3: what is held is bounded, by 1 MiB of a client's message and 4 MiB of an event.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ai_mux.errors import BadRequest, LimitReached, RequestError
from ai_mux.logs import Outcome
from ai_mux.proxy.admission import check_expiry
from ai_mux.proxy.models import MODEL, TOOLS, check_model, check_tools
from ai_mux.proxy.receiving import CRUMBS
from ai_mux.proxy.request import Request, asked_model
from ai_mux.proxy.responses import Response, Responses
from ai_mux.usage.events import type_of
from ai_mux.usage.meter import read_event
from ai_mux.users import User
from ai_mux.wire.answers import error_event
from ai_mux.wire.json_keys import TopLevelStrings
from ai_mux.wire.json_members import JsonRefused
from ai_mux.wire.messages import CLOSE, CONTINUATION, FINAL, RESERVED, TEXT, FrameCutter, Piece, whole_text

if TYPE_CHECKING:
    from ai_mux.proxy.server import Server

_TYPE: Final = "type"
_RESPONSE: Final = "response"
_CREATE: Final = "response.create"
# Adds to a response that runs; what comes of it may be another response, of the same model.
_STEER: Final = "response.steer"
# All that Codex or OpenAI's documentation knows. A message of another type might name a model elsewhere.
_TYPES: Final = frozenset({_CREATE, _STEER, "response.append", "response.cancel", "response.processed"})
_BEGUN: Final = "response.created"
# As much as of any other body until its model must be known.
_HELD_BYTES: Final = 2**20
_OVERHEARD_BYTES: Final = 2**16
# Of what must be understood: nothing but brackets, it takes a millisecond.
_AT_ONCE_BYTES: Final = 8 * 1024
# Clients write the type first.
_BEGINNING_BYTES: Final = 4096


class _Message:
    """A message of the client's that has not ended.

    Attributes:
        user: Who sends it.
        is_watched: There is more to look for in it.
        strings: Looks for it, once that has begun.
        checked: It passes only if it may, and was understood to its end.
        is_held: Nothing of it may pass yet.
        begun_at: When it began to come, in monotonic seconds.
        size: Bytes of its payload so far.
        response: What it asks for.
    """

    __slots__ = ("begun_at", "checked", "is_held", "is_watched", "response", "size", "strings", "user")

    def __init__(self, user: User, *, is_watched: bool, checked: bool, begun_at: float) -> None:
        self.user = user
        self.is_watched = is_watched
        self.strings: TopLevelStrings | None = None
        self.checked = self.is_held = checked
        self.begun_at = begun_at
        self.size = 0
        self.response: Response | None = None


class Conversation:
    """One tunnel's.

    Attributes:
        user: Who the client is; a reload puts the user there that they are from then on.
        refusal: The event that tells the client why the tunnel must end; None while it may go on.
    """

    __slots__ = (
        "_cutter",
        "_failed",
        "_held",
        "_may_ask",
        "_message",
        "_parts",
        "_pending",
        "_request",
        "_responses",
        "_server",
        "refusal",
        "user",
    )

    def __init__(self, request: Request, server: "Server") -> None:
        """Begin, after the handshake ``request``."""
        assert request.user is not None  # noqa: S101 - nobody gets here unknown
        self.user: User = request.user
        self.refusal: bytes | None = None
        self._request = request
        self._server = server
        self._responses = Responses(request, server)
        self._cutter = FrameCutter()
        self._message: _Message | None = None
        self._held = bytearray()  # of that message, what must not pass yet
        self._pending: list[bytes] = []  # what follows, not looked into yet
        self._parts: list[bytes] = []  # the payload of that
        self._may_ask = True
        self._failed = False

    # What the client says

    def said(self, data: bytes, *, may_ask: bool) -> tuple[bytes, bytes]:
        """Return what may pass to the provider now, and what is to be said again in the loop's next turn.

        Args:
            data: What the client has sent.
            may_ask: It may begin messages. If not, it passes up to the first, and the caller ends it there.
        """
        if self._message is None and may_ask and self._overhears_at_once(data):
            return data, b""
        later = b""
        if self._is_looked_into:
            data, later = data[:_AT_ONCE_BYTES], data[_AT_ONCE_BYTES:]
        pieces, rest = self._cutter.feed(data, CRUMBS)
        passes: list[bytes] = []
        self._may_ask = may_ask
        try:
            for piece in pieces:
                self._take(piece, passes)
            self._look(passes, is_last=False)
        except RequestError as error:
            self._refuse(error)
            rest = later = b""
        return b"".join(passes), rest + later

    @property
    def _is_looked_into(self) -> bool:
        """What comes next must be understood before it passes."""
        message = self._message
        return _is_checked(self.user) if message is None else message.checked

    def _take(self, piece: Piece, passes: list[bytes]) -> None:
        message = self._message
        is_control = piece.opcode >= CLOSE
        if piece.begins and not is_control and (message is None or piece.opcode != CONTINUATION):
            self._look(passes, is_last=False)
            message = self._message = self._begin(piece)
        if not piece.is_sound and _is_checked(self.user if message is None else message.user):
            raise _not_understood("one of its frames could be read in two ways")
        if piece.opcode == CLOSE and message is not None and message.is_held:
            self._forget()  # what has not begun for the provider never will
            message = None
        if message is None or not message.is_watched:
            passes.append(piece.raw)
        else:  # control frames, too: they stay where they are, between a message's frames
            self._pending.append(piece.raw)
            if not is_control:
                self._parts.append(piece.payload)
        if message is not None and not is_control:
            message.size += len(piece.masked)
            if piece.ends and piece.first >= FINAL:
                self._look(passes, is_last=True)
                self._message = None
            if message.response is not None:
                message.response.bytes_in = message.size

    def _begin(self, piece: Piece) -> _Message:
        """Begin a message with its first piece."""
        user, may_ask = self.user, self._may_ask
        is_text = piece.opcode == TEXT and not piece.first & RESERVED
        checked = may_ask and _is_checked(user)
        if checked and (not is_text or self._message is not None):
            raise _not_understood("it is not a text message by itself")
        now = self._server.clock.monotonic()
        return _Message(user, is_watched=is_text and may_ask, checked=checked, begun_at=now)

    def _look(self, passes: list[bytes], *, is_last: bool) -> None:
        """Look into what of the message has come, and let it pass or hold it."""
        message = self._message
        if message is None or not message.is_watched or not self._pending:
            return
        raw, payload = b"".join(self._pending), b"".join(self._parts)
        self._pending.clear()
        self._parts.clear()
        if not message.checked:
            passes.append(raw)
            try:
                self._overhear(message, payload)
            except Exception as error:  # whatever it is, the message passes
                message.is_watched = False
                self._note_bug(error)
            return
        self._held += raw
        self._check(message, payload, is_last=is_last)
        if not message.is_held:
            passes.append(bytes(self._held))
            self._held.clear()
        elif len(self._held) > _HELD_BYTES:
            raise _not_understood("it does not say at its beginning what it asks for")

    def _overhears_at_once(self, data: bytes) -> bool:
        """Note what is asked for by a whole message whose beginning says all. Most are such ones."""
        if _is_checked(self.user) or not self._cutter.is_between:
            return False
        text = whole_text(data)
        kind = None if text is None else type_of(text[0])
        if text is None or kind is None:
            return False
        if kind == _CREATE:
            beginning, size = text
            model = asked_model(beginning)
            if not model:
                return False
            now = self._server.clock.monotonic()
            self._responses.ask(self.user, model=model, asked_at=now).bytes_in = size
        return True

    def _overhear(self, message: _Message, payload: bytes) -> None:
        """Note what is asked for by whoever may ask for anything."""
        kind = type_of(payload) if message.strings is None else None
        if kind is None:
            strings = message.strings = message.strings or _scanner()
            try:
                _feed_until_type(strings, payload)
            except JsonRefused:
                message.is_watched = False  # the provider will say so
            if message.size > _OVERHEARD_BYTES:
                message.is_watched = False  # what comes of it will be seen when it begins
            kind = strings.found.get(_TYPE)
        if kind is not None:
            message.is_watched = False
            if kind == _CREATE:
                self._ask(message, asked_model(payload))

    def _check(self, message: _Message, payload: bytes, *, is_last: bool) -> None:
        """Find out what is asked for, and whether it may be."""
        user = message.user
        # In a response of its own a message could name a model as well: the Realtime API's do.
        strings = message.strings = message.strings or _scanner(() if user.models is None else (_RESPONSE,))
        try:
            strings.feed(payload)
            if is_last:
                strings.finish()
        except JsonRefused as exc:
            raise _not_understood(exc.reason) from exc
        kind, model = strings.found.get(_TYPE), strings.found.get(MODEL)
        if user.models is not None:
            check_tools(strings.listed, user.models)
            if model is not None:
                check_model(model, user.models)
        if kind is None or not message.is_held:
            return
        if user.models is not None:
            if kind not in _TYPES:
                raise _not_understood("it has a type that is not known here")
            if kind == _CREATE and model is None:
                if is_last:
                    raise _not_understood(f'there is no "{MODEL}" where one must be')
                return
        if self._may_ask:  # else the caller ends it where it begins
            check_expiry(user, self._server.clock)
            if kind == _CREATE:
                self._ask(message, model or asked_model(payload))
            elif kind == _STEER:
                self._server.accounting.check(user)
        message.is_held = False

    def _ask(self, message: _Message, model: str) -> None:
        message.response = self._responses.ask(message.user, model=model, asked_at=message.begun_at)

    def _forget(self) -> None:
        self._message = None
        self._held.clear()
        self._pending.clear()
        self._parts.clear()

    def _refuse(self, error: RequestError) -> None:
        self.refusal = error_event(error, self._request.id)
        message, user = self._message, self.user
        response, model, asked_at = None, "", self._server.clock.monotonic()
        if message is not None:
            user, response, asked_at = message.user, message.response, message.begun_at
            if message.strings is not None:
                model = message.strings.found.get(MODEL, "")
        self._server.log.info(
            "response.refused", request_id=self._request.id, user=user.name, status=error.status
        )
        if response is None:
            response = Response(user, None, model=model, asked_at=asked_at)
        self._responses.refuse(response, error)
        self._forget()

    # What the provider says

    def heard(self, messages: Sequence[bytes], passed: int) -> None:
        """Take note of messages that have passed to the client. Never raises.

        Args:
            messages: Whole ones, but for the steps of an answer.
            passed: How many bytes the provider has sent in all.
        """
        self._responses.passed = passed
        try:
            for message in messages:
                self._hear(message)
        except LimitReached as error:  # by a response that nobody had asked for
            self.refusal = error_event(error, self._request.id)
        except Exception as error:  # whatever it is, the tunnel goes on
            self._note_bug(error)

    def _hear(self, message: bytes) -> None:
        if type_of(message) == _BEGUN:
            self._responses.begin(self.user)
            return
        event = read_event(message)
        if event.kind == "ended":
            self._responses.end(self.user, event.reading)
        elif event.kind == "error":
            self._responses.fail(event.status)
        elif event.kind == "windows":
            server, admitted = self._server, self._request.admitted
            if admitted is not None:
                server.windows.note_event(admitted.destination.credential, event.windows, server.clock.time())

    def _note_bug(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            problem = type(error).__name__
            self._server.log.error("conversation.bug", request_id=self._request.id, problem=problem)

    # The end

    def close(self, outcome: Outcome = "cut", passed: int | None = None) -> None:
        """End the account of what still runs.

        Args:
            outcome: How the tunnel ended for it.
            passed: How many bytes the provider has sent in all.
        """
        if passed is not None:
            self._responses.passed = passed
        self._responses.close(outcome)


def _is_checked(user: User) -> bool:
    """Tell whether anything could stand against what this user asks for."""
    limits = user.limits
    return (
        user.models is not None
        or user.expires_at is not None
        or limits.concurrent is not None
        or bool(limits.rules)
    )


def _scanner(unwanted: tuple[str, ...] = ()) -> TopLevelStrings:
    return TopLevelStrings(_TYPE, optional=(MODEL,), unwanted=unwanted, array=TOOLS)


def _feed_until_type(strings: TopLevelStrings, payload: bytes) -> None:
    """Read on, and not far beyond the type, for whom nothing else matters."""
    strings.feed(payload[:_BEGINNING_BYTES])
    if _TYPE not in strings.found:
        strings.feed(payload[_BEGINNING_BYTES:])


def _not_understood(why: str) -> BadRequest:
    return BadRequest(
        f"Your requests are limited, so each must be understood here, and this one is not: {why}."
    )
