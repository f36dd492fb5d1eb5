"""Reads from a response that passes by what it used.

Rule 1: who meters must not disturb. Nothing here raises, waits or changes a byte. What cannot
be read is looked at no more, and counts as unmetered; what had been read until then is kept.

Rule 2: a stream is searched, not parsed (``streams``); of a document only the ends are looked
at (``documents``).

Rule 3: what is held is bounded: the pieces between two looks, a line that has not ended, the
ends of a document; and what all meters hold together.

Rule 4: what a look costs is bounded by the bytes that came. Who sends little cannot make others wait.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from ai_mux.usage.documents import Document, read_document
from ai_mux.usage.events import ENDS, WINDOWS, parsed, said_type, take_openai, type_of
from ai_mux.usage.reading import UNMETERED, Cumulative
from ai_mux.usage.streams import Stream
from ai_mux.usage.tally import NOTHING_READ, Reading
from ai_mux.wire.answers import Dialect
from ai_mux.wire.codings import CodingError, Decoder, decoder
from ai_mux.wire.memory import Memory, up_to

# Out of one coded response, however long it lasts: an hour at 300 KB a second.
_DECODED_BYTES: Final = 1024 * 1024 * 1024
# Looking at what was unpacked costs as much as unpacking it, so a few packets must not stand for much.
# Streams of events, which say the same again and again, are packed 10 to 30 times.
_RATIO: Final = 64
_UNPACKED_FREELY_BYTES: Final = 256 * 1024
# As much is unpacked before it is seen to be too much: 4 MiB of gzip at the worst.
_SLICE: Final = 4096
# Of a Content-Type that is remembered; ours of interest have 50 at the most.
_TYPE_BYTES: Final = 128
_TELLING: Final = ENDS | {"error", WINDOWS}


class Held:
    """How many bytes all meters together may hold from one look to the next.

    Attributes:
        bytes: How many they hold.
    """

    __slots__ = ("_limit", "bytes")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.bytes = 0

    def grow(self, by: int) -> bool:
        """Note that a meter holds so much more, or less; False, and nothing noted, where that is too much."""
        if by > 0 and self.bytes + by > self._limit:
            return False
        self.bytes += by
        return True


# Sixteen responses of the longest lines, or a thousand of usual ones that came half.
HELD: Final = Held(64 * 1024 * 1024)


class Meter:
    """Reads one response's body; ``meter_for`` makes it. Nothing here raises.

    Attributes:
        pieces: Body bytes that were not looked at yet, without transfer framing.
        size: How long the body is, in bytes, as far as it was looked at; unpacked if it is packed and
            was read, else as it came. All of it counts once the meter is closed.
        take: Adds a piece: a bound method of a built-in type, which costs next to nothing.
        windows: Once the meter is closed, the last event that passed of those which say how far the
            provider's own limits are used.
    """

    __slots__ = (
        "_all_held",
        "_body",
        "_decoder",
        "_dialect",
        "_held",
        "_packed",
        "_reads",
        "pieces",
        "size",
        "take",
        "windows",
    )

    pieces: list[bytes]
    size: int
    take: Callable[[bytes], None]
    windows: Mapping[str, object] | None
    _dialect: Dialect
    _body: Stream | Document | None  # of a small document none is needed
    _decoder: Decoder | None
    _packed: int  # bytes that were unpacked
    _all_held: Held
    _held: int  # bytes of it that are this meter's
    _reads: bool

    def look(self) -> None:
        """Look at the pieces and forget them."""
        if not self._reads:
            self.size += sum(map(len, self.pieces))
        elif self.pieces:
            try:
                body = self._body
                if body is None:
                    body = self._body = Document(self._dialect)
                body.feed(self._joined())
                if body.held != self._held:
                    self._note_held(body.held)
            except Exception:  # whatever it is, the response goes on
                self._give_up()
        self.pieces.clear()

    def close(self, *, whole: bool) -> Reading:
        """Return what was read.

        Args:
            whole: The response came to its own end.
        """
        try:
            if self._body is None and self._reads and whole:  # a small document, as most are
                return read_document(self._joined(), self._dialect)
            return self._read(whole=whole)
        except Exception:  # as above
            return UNMETERED
        finally:
            self.pieces.clear()
            self._reads = False
            if self._body is not None:
                self._let_go(self._body)

    def _read(self, *, whole: bool) -> Reading:
        """Return what was read of a stream, or of a document that was looked at before its end."""
        if self._body is None:
            self.size += sum(map(len, self.pieces))
            return UNMETERED
        self.look()
        return self._body.reading(whole=whole)

    def _let_go(self, body: Stream | Document) -> None:
        if isinstance(body, Stream):
            self.windows = body.windows
        self._all_held.grow(-self._held)
        self._held = 0

    def _joined(self) -> bytes:
        data = b"".join(self.pieces)  # of one that is the piece itself
        if self._decoder is not None:
            return self._unpacked(data, self._decoder)
        self.size += len(data)
        return data

    def _unpacked(self, data: bytes, decoder: Decoder) -> bytes:
        out: list[bytes] = []
        for at in range(0, len(data), _SLICE):
            piece = data[at : at + _SLICE]
            self._packed += len(piece)
            out.append(decoder.feed(piece))
            self.size += len(out[-1])
            if self.size > _UNPACKED_FREELY_BYTES + _RATIO * self._packed:
                raise CodingError("the body unpacks to too much")
        return b"".join(out)

    def _note_held(self, held: int) -> None:
        if self._all_held.grow(held - self._held):
            self._held = held
        else:
            self._give_up()

    def _give_up(self) -> None:
        self._reads = False
        if self._body is not None:
            self._body.give_up()
        self._note_held(0)


def meter_for(dialect: Dialect, *, content_type: bytes, content_encoding: bytes, held: Held = HELD) -> Meter:
    """Return a meter for a response's body. Never raises.

    Args:
        dialect: Whose response it is.
        content_type: The field's value, or empty: what is neither JSON nor a stream of events is unmetered.
        content_encoding: The field's value, or empty: what has an unknown coding is unmetered.
        held: What all meters together may hold: one that finds no room gives up.
    """
    kind = _KINDS[content_type]
    meter = Meter()
    pieces: list[bytes] = []
    meter.pieces = pieces
    meter.take = pieces.append
    meter.size = meter._held = 0
    meter.windows = meter._body = meter._decoder = None
    meter._dialect = dialect
    meter._all_held = held
    meter._reads = kind is not None
    if kind is Stream:
        meter._body = Stream(dialect)
    if content_encoding and kind is not None:
        meter._packed = 0
        try:
            meter._decoder = decoder(content_encoding, limit=_DECODED_BYTES)
        except Exception:  # unknown, or its library is broken: the response passes all the same
            meter._reads = False
    return meter


def _kind(content_type: bytes) -> type[Stream | Document] | None:
    media_type = content_type[:_TYPE_BYTES].partition(b";")[0].strip().lower()
    if media_type == b"text/event-stream":
        return Stream
    return Document if media_type == b"application/json" or media_type.endswith(b"+json") else None


_KINDS: Final = Memory(_kind, keeps=up_to(_TYPE_BYTES), most=64)


# WebSocket


class Event(NamedTuple):
    """What a provider's WebSocket message says.

    Attributes:
        kind: A response has ended; an error; how far the provider's own limits are used; anything else.
        reading: What the response that has ended used.
        status: The error's status; 0 where it says none.
        windows: The whole message that says how far the limits are used.
    """

    kind: Literal["ended", "error", "windows", "other"]
    reading: Reading = NOTHING_READ
    status: int = 0
    windows: Mapping[str, object] = MappingProxyType({})


_OTHER: Final = Event("other")


def read_event(message: bytes) -> Event:
    """Read one whole message of OpenAI's, as it came. Never raises."""
    kind = type_of(message)
    if kind is not None and kind not in _TELLING:
        return _OTHER
    try:
        # Who writes the type elsewhere must be parsed: a response whose end is not seen would seem to go on.
        event = parsed(message) if kind else parsed(message, whole_bytes=len(message))
        kind = said_type(event)
        if kind in ENDS:
            figures = Cumulative(Dialect.OPENAI)
            take_openai(event, figures)
            return Event("ended", reading=figures.reading(whole=True))
        if kind == "error":
            return Event("error", status=_status(event.get("status", event.get("status_code"))))
        return Event("windows", windows=event) if kind == WINDOWS else _OTHER
    except Exception:  # its type is known all the same
        if kind in ENDS:
            return Event("ended", reading=UNMETERED)
        return Event("error") if kind == "error" else _OTHER


def _status(value: object) -> int:
    return value if type(value) is int and 100 <= value <= 599 else 0
