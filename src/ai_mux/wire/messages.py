"""WebSocket messages (RFC 6455, 5.2 to 5.4), for whoever must know what passes: events in JSON, as text.

The two directions have little in common. A client's messages are few, long and masked; what
of them may pass is decided while they come, so its bytes are cut into frames, and nothing is
thrown away. A provider sends thirty small ones a second and what they say seldom matters, so
most are known by their beginning and passed over.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from ai_mux.wire.websocket import Frames

CONTINUATION: Final = 0
TEXT: Final = 1
CLOSE: Final = 8  # the first of the control frames
FINAL: Final = 0x80
RESERVED: Final = 0x70  # for extensions, and the relay has seen to it that there are none (4.1)
_OPCODE: Final = 0x0F
_OPCODES: Final = frozenset({0, 1, 2, 8, 9, 10})
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_SHORT: Final = 126
_LONG: Final = 127
_EXTENDED: Final = {_SHORT: 2, _LONG: 8}  # the length follows in so many bytes
_WHOLE_TEXT: Final = FINAL | TEXT
_HEADER_BYTES: Final = 14
_LEAST_MASKED: Final = 6
_OPENING_BYTES: Final = 512  # Codex writes the type and the model into the first sixty
# A length's first byte must not have this bit; decoders differ in what they make of it.
_SIGN: Final = b"\x80"

# What an event says that is not worth a look: its type ends so, and stands at its beginning.
_DELTA: Final = b'.delta"'
_BEGINNING_BYTES: Final = 64
# The last event of a response repeats the whole of it, tools and instructions included; those
# are some hundred kilobytes.
_EVENT_BYTES: Final = 4 * 1024 * 1024


class Piece(NamedTuple):
    """Bytes of one frame, as they came.

    Attributes:
        raw: All of them.
        first: The frame's first byte, which may have come before.
        begins: It is among these.
        ends: The frame's last byte is.
        masked: What of its payload is among them.
        key: The masking key, or nothing.
        at: How much of the payload came before.
        is_sound: All endpoints read the frame alike, as far as its header has come.
    """

    raw: bytes
    first: int
    begins: bool
    ends: bool
    masked: bytes
    key: bytes
    at: int
    is_sound: bool

    @property
    def opcode(self) -> int:
        """What kind of frame it is."""
        return self.first & _OPCODE

    @property
    def payload(self) -> bytes:
        """What of the frame's payload is among these bytes (RFC 6455, 5.3)."""
        if not self.key or not self.masked:
            return self.masked
        return _unmasked(self.masked, self.key[self.at % 4 :] + self.key[: self.at % 4])


def whole_text(data: bytes) -> tuple[bytes, int] | None:
    """Return the first 512 bytes of a client's message, and its length, if ``data`` is one in one frame."""
    if len(data) < _LEAST_MASKED or data[0] != _WHOLE_TEXT or data[1] < _MASKED:
        return None
    header = _header_bytes(data[:2])
    size = len(data) - header
    if size != _payload_bytes(data[:header]):
        return None
    return _unmasked(data[header : header + _OPENING_BYTES], data[header - 4 : header]), size


def _unmasked(masked: bytes, key: bytes) -> bytes:
    size = len(masked)
    stream = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(masked, "little") ^ int.from_bytes(stream, "little")).to_bytes(size, "little")


class FrameCutter:
    """Cuts a client's bytes into frames, and passes all of them on."""

    __slots__ = ("_at", "_first", "_head", "_key", "_left", "_sound")

    def __init__(self) -> None:
        self._head = b""  # of a header that came in parts
        self._first = 0
        self._key = b""
        self._left = 0  # bytes of the frame's payload that are still to come
        self._at = 0  # bytes of it that have come
        self._sound = True

    @property
    def is_between(self) -> bool:
        """No frame has begun that has not ended."""
        return not self._left and not self._head

    def feed(self, data: bytes, most: int) -> tuple[list[Piece], bytes]:
        """Return at most so many pieces, and what is left of the bytes then. Joined, they are ``data``."""
        pieces: list[Piece] = []
        at, size = 0, len(data)
        while at < size and len(pieces) < most:
            begin, begins = at, False
            if not self._left:
                before = self._head
                begins = not before
                head = before + data[at : at + _HEADER_BYTES - len(before)]
                header = _header_bytes(head)
                if header > len(head):
                    self._head = head
                    pieces.append(Piece(data[at:], head[0], begins, False, b"", b"", 0, _is_sound(head)))
                    return pieces, b""
                at += header - len(before)
                self._begin(head[:header])
            masked = data[at : at + self._left]
            at += len(masked)
            self._left -= len(masked)
            raw, ends = data[begin:at], not self._left
            pieces.append(Piece(raw, self._first, begins, ends, masked, self._key, self._at, self._sound))
            self._at += len(masked)
        return pieces, data[at:]

    def _begin(self, header: bytes) -> None:
        self._head = b""
        self._first = header[0]
        self._at = 0
        self._left = _payload_bytes(header)
        self._key = header[-4:] if header[1] & _MASKED else b""
        self._sound = _is_sound(header)


def _is_sound(header: bytes) -> bool:
    """Tell whether all endpoints read a frame of the client's alike, as far as its header has come."""
    first, second = header[0], header[1] if len(header) > 1 else _MASKED
    if first & RESERVED or first & _OPCODE not in _OPCODES or not second & _MASKED:
        return False
    if first & _OPCODE >= CLOSE and (first < FINAL or second & _LENGTH >= _SHORT):
        return False  # 5.5: a control frame is whole, and short
    return second & _LENGTH != _LONG or header[2:3] < _SIGN  # 5.2


class EventFrames(Frames):
    """Follows a provider's frames, and finds the messages that are worth a look.

    Those are all texts but the small steps of an answer, whose type ends in ``.delta``. Of a
    message of more than 4 MiB the rest is left away.
    """

    __slots__ = ("_final", "_in_message", "_message", "_wanted")

    def __init__(self) -> None:
        super().__init__()
        self._in_message = False  # the present frame is part of a message, not a control frame
        self._final = False  # and it is the last part
        self._wanted = False  # the present message may be worth a look
        self._message = bytearray()  # what has come of it then

    def hear(self, data: bytes) -> Sequence[bytes]:
        """Follow the next bytes, and return the messages worth a look that end in them."""
        # Nearly always they are steps of an answer, each in one frame, with nothing cut.
        at, size, met = 0, len(data), 0
        if not (self._left or self._begun or self._unfinished):
            while size - at > 4 and data[at] == _WHOLE_TEXT:
                length = data[at + 1]
                if length < _SHORT:
                    end = at + 2 + length
                elif length == _SHORT:
                    end = at + 4 + (data[at + 2] << 8 | data[at + 3])
                else:
                    break
                beginning = at + _BEGINNING_BYTES
                if end > size or data.find(_DELTA, at, beginning if beginning < end else end) < 0:
                    break
                at = end
                met += 1
        self.met = met
        return self._hear(data, at) if at < size else ()

    def _hear(self, data: bytes, at: int) -> list[bytes]:
        found: list[bytes] = []
        if self._begun:
            data = self._begun + data
            self._begun = b""
        size, left = len(data), self._left
        while left or at < size:
            if not left:
                header = _header_bytes(data[at : at + _HEADER_BYTES])
                if at + header > size:
                    self._begun = data[at:]
                    break
                left = self._begin(data[at : at + header])
                at += header
            end = min(at + left, size)
            if self._in_message and self._wanted:
                self._take(data, at, end)
            left -= end - at
            at = end
            if left:
                break
            if self._in_message and self._final and self._wanted:
                found.append(bytes(self._message))
                self._message.clear()
        self._left = left
        return found

    def _begin(self, header: bytes) -> int:
        """Note a frame's header, and return how long its payload is."""
        self.met += 1
        first = header[0]
        opcode = first & _OPCODE
        self._in_message = opcode < CLOSE
        if self._in_message:
            if opcode != CONTINUATION:
                self._wanted = opcode == TEXT and not first & RESERVED
                self._message.clear()
            elif not self._unfinished:
                self._wanted = False
            self._unfinished = first < FINAL
            self._final = not self._unfinished
        elif opcode == CLOSE:
            self.closed = True
        return _payload_bytes(header)

    def _take(self, data: bytes, at: int, end: int) -> None:
        message = self._message
        size = len(message)
        if size < _BEGINNING_BYTES:
            message += data[at : min(end, at + _BEGINNING_BYTES)]
            at = min(end, at + _BEGINNING_BYTES)
            if message.find(_DELTA, 0, _BEGINNING_BYTES) > 0:
                self._wanted = False
                message.clear()
                return
            size = len(message)
        message += data[at : min(end, at + max(_EVENT_BYTES - size, 0))]


def _header_bytes(head: bytes) -> int:
    """Return how long the header is that begins so; 2 where it cannot be told yet."""
    if len(head) < 2:
        return 2
    return 2 + _EXTENDED.get(head[1] & _LENGTH, 0) + (4 if head[1] & _MASKED else 0)


def _payload_bytes(header: bytes) -> int:
    length = header[1] & _LENGTH
    extended = _EXTENDED.get(length)
    return length if extended is None else int.from_bytes(header[2 : 2 + extended], "big")


def text_frame(payload: bytes) -> bytes:
    """Return a whole text message in one frame, towards a client."""
    size = len(payload)
    if size < _SHORT:
        return bytes((_WHOLE_TEXT, size)) + payload
    return bytes((_WHOLE_TEXT, _SHORT)) + size.to_bytes(2, "big") + payload
