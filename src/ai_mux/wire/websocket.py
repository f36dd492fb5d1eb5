"""WebSocket (RFC 6455), as much of it as a relay needs: the handshake's rules, and where frames begin.

The relay passes bytes, not messages. It looks at frame headers for two reasons: to
know when it may put a Close frame of its own between two frames, and where a client
begins a message that it may not send any more.
"""

import os
import re
from typing import Final

from ai_mux.errors import BadRequest, UpgradeRequired, UpstreamError
from ai_mux.wire.http1 import RequestHead, ResponseHead

# RFC 6455, 4.1: the base64 of 16 bytes, whose last character carries two bits.
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
_VERSION: Final = b"13"
# RFC 6455, 7.4.1: an endpoint is "going away", such as a server going down.
GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008  # for what has no code of its own

_CONTINUATION: Final = 0  # opcodes (RFC 6455, 5.2); from Close on they are control frames
_CLOSE: Final = 8
_OPCODE: Final = 0x0F
_FINAL: Final = 0x80
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F


def check_handshake(head: RequestHead) -> None:
    """Check a request that asks for a WebSocket (RFC 6455, 4.2.1).

    Raises:
        BadRequest: It has no valid key.
        UpgradeRequired: It is of another version than 13.
    """
    values = [value for name, value in head.notable if name == b"sec-websocket-version"]
    if values != [_VERSION]:
        raise UpgradeRequired(
            "Only version 13 of the WebSocket protocol is relayed here; use that, or HTTP.",
            fields=(("Sec-WebSocket-Version", "13"),),
        )
    keys = [value for name, value in head.notable if name == b"sec-websocket-key"]
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise BadRequest("A WebSocket handshake needs one Sec-WebSocket-Key, the base64 of 16 bytes.")


def check_switch(head: ResponseHead) -> None:
    """Check a 101 that answers a handshake without extensions (RFC 6455, 4.1).

    What proves to the client that it was understood, Sec-WebSocket-Accept, is for the
    client to check: it passes as it came.

    Raises:
        UpstreamError: It switches to something that was not asked for.
    """
    fields = head.fields
    if fields.get(b"upgrade", b"").lower() != b"websocket" or b"upgrade" not in head.options:
        raise UpstreamError("it switched protocols, but not to WebSocket")
    if b"\nsec-websocket-extensions:" in head.raw.lower():
        raise UpstreamError("it switched to WebSocket with extensions that nobody asked for")
    if b"content-length" in fields or b"transfer-encoding" in fields:
        raise UpstreamError("it switched protocols with a body")


def close_frame(code: int, *, masked: bool) -> bytes:
    """Return a Close frame (RFC 6455, 5.5.1). Frames towards a server are masked (5.3)."""
    payload = code.to_bytes(2, "big")
    if not masked:
        return bytes((_FINAL | _CLOSE, len(payload))) + payload
    mask = os.urandom(4)
    scrambled = bytes(byte ^ key for byte, key in zip(payload, mask, strict=False))
    return bytes((_FINAL | _CLOSE, _MASKED | len(payload))) + mask + scrambled


class Frames:
    """Follows the frames of one direction, by their headers alone (RFC 6455, 5.2).

    What no endpoint would accept is followed as well as it can be: judging frames is
    the endpoints' business.

    Attributes:
        closed: A Close frame went by; after it nothing may be sent in this direction.
        met: How many headers were in the bytes that were followed last.
    """

    __slots__ = ("_begun", "_left", "_unfinished", "closed", "met")

    def __init__(self) -> None:
        self._begun = b""  # of a header that came in pieces
        self._left = 0  # bytes of the present frame's payload that are still to come
        self._unfinished = False  # a message has begun whose last frame has not
        self.closed = False
        self.met = 0

    @property
    def between(self) -> bool:
        """The last frame ended exactly here, so that another may begin."""
        return not self._left and not self._begun

    @property
    def is_in_message(self) -> bool:
        """A message has begun whose last frame has not; only control frames may come between (5.4)."""
        return self._unfinished

    def feed(self, data: bytes, *, may_begin: bool = True) -> int:
        """Follow the next bytes, and return how many of them.

        Args:
            data: The bytes.
            may_begin: A message may begin in them. If not, they are followed only up to there: the
                frame and the message (5.4) that have begun may end, and control frames come between.
        """
        at = self._left
        met = 0
        known = len(self._begun)
        if known:
            data = self._begun + data
            self._begun = b""
        size = len(data)
        while at < size:
            # At the first byte, for its frame would be one that has begun by the second.
            if not may_begin and (at or not known) and self._begins_message(data[at]):
                self._left = 0
                return at - known
            payload = at + 2
            if payload > size:
                break
            length = data[at + 1] & _LENGTH
            if length == 126:
                payload += 2
                length = int.from_bytes(data[at + 2 : payload], "big")
            elif length == 127:
                payload += 8
                length = int.from_bytes(data[at + 2 : payload], "big")
            if data[at + 1] & _MASKED:
                payload += 4
            if payload > size:
                break
            met += 1
            opcode = data[at] & _OPCODE
            if opcode < _CLOSE:
                self._unfinished = data[at] < _FINAL
            elif opcode == _CLOSE:
                self.closed = True
            at = payload + length
        if at < size:
            self._begun = data[at:]
            self._left = 0
        else:
            self._left = at - size
        self.met = met
        return size - known

    def _begins_message(self, first: int) -> bool:
        """Tell whether a frame with this first byte begins a message: it continues none, nor controls."""
        opcode = first & _OPCODE
        return opcode < _CLOSE and not (opcode == _CONTINUATION and self._unfinished)
