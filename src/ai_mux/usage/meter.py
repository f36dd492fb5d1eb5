"""Reads from a response that passes by what it used.

Rule 1: who meters must not disturb. Nothing here raises, waits or changes a byte. What cannot
be read is looked at no more, and counts as unmetered; what had been read until then is kept.

Rule 2: a stream is searched, not parsed (``streams``); of a document only the ends are looked
at (``documents``).

Rule 3: what is held is bounded: the pieces between two looks, a line that has not ended, the
ends of a document.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from ai_mux.usage.documents import Document, read_document
from ai_mux.usage.events import ENDS, WINDOWS, said_type, take_openai, type_of
from ai_mux.usage.reading import UNMETERED, Cumulative
from ai_mux.usage.streams import Stream
from ai_mux.usage.tally import NOTHING_READ, Reading
from ai_mux.wire.answers import Dialect
from ai_mux.wire.codings import Decoder, decoder

# Out of one coded response, however long it lasts: an hour at 300 KB a second.
_DECODED_BYTES: Final = 1024 * 1024 * 1024
# Of a Content-Type that is remembered; ours of interest have 50 at the most.
_TYPE_BYTES: Final = 128
_TELLING: Final = ENDS | {"error", WINDOWS}


class Meter:
    """Reads one response's body. Nothing here raises.

    Attributes:
        pieces: Body bytes that were not looked at yet, without transfer framing.
        take: Adds a piece: a bound method of a built-in type, which costs next to nothing.
    """

    __slots__ = ("_body", "_decoder", "_dialect", "_reads", "pieces", "take")

    def __init__(
        self, dialect: Dialect, body: Stream | Document | None, decoder: Decoder | None, *, reads: bool
    ) -> None:
        self.pieces: list[bytes] = []
        self.take: Callable[[bytes], None] = self.pieces.append
        self._dialect = dialect
        self._body = body
        self._decoder = decoder
        self._reads = reads

    def look(self) -> None:
        """Look at the pieces and forget them."""
        if self._reads and self.pieces:
            try:
                if self._body is None:
                    self._body = Document(self._dialect)
                self._body.feed(self._joined())
            except Exception:  # whatever it is, the response goes on
                self._give_up()
        self.pieces.clear()

    def close(self, *, whole: bool) -> Reading:
        """Return what was read.

        Args:
            whole: The response came to its own end.
        """
        try:
            if self._body is not None:
                self.look()
                return self._body.reading(whole=whole)
            if self._reads and whole:  # a small document, as most are
                return read_document(self._joined(), self._dialect)
        except Exception:  # as above
            return UNMETERED
        finally:
            self.pieces.clear()
        return UNMETERED

    @property
    def windows(self) -> Mapping[str, object] | None:
        """The last event that passed of those which say how far the provider's own limits are used."""
        return self._body.windows if isinstance(self._body, Stream) else None

    def _joined(self) -> bytes:
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return data if self._decoder is None else self._decoder.feed(data)

    def _give_up(self) -> None:
        self._reads = False
        if self._body is not None:
            self._body.give_up()


def meter_for(dialect: Dialect, *, content_type: bytes, content_encoding: bytes) -> Meter:
    """Return a meter for a response's body. Never raises.

    Args:
        dialect: Whose response it is.
        content_type: The field's value, or empty: what is neither JSON nor a stream of events is unmetered.
        content_encoding: The field's value, or empty: what has an unknown coding is unmetered.
    """
    kind = _kind(content_type[:_TYPE_BYTES])
    reads = kind is not None
    undo = None
    if content_encoding and reads:
        try:
            undo = decoder(content_encoding, limit=_DECODED_BYTES)
        except Exception:  # unknown, or its library is broken: the response passes all the same
            reads = False
    return Meter(dialect, Stream(dialect) if kind is Stream else None, undo, reads=reads)


@lru_cache(maxsize=64)
def _kind(content_type: bytes) -> type[Stream | Document] | None:
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"text/event-stream":
        return Stream
    return Document if media_type == b"application/json" or media_type.endswith(b"+json") else None


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
        event = json.loads(message.decode())
        kind = said_type(event) if isinstance(event, dict) else None
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
