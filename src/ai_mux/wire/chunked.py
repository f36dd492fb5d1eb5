"""The chunked transfer coding (RFC 9112, section 7.1).

Two ways to look at it. ``ChunkDecoder`` takes chunks apart; it reads requests,
whose bodies are framed anew, and responses on their way to an HTTP/1.0 client.
``ChunkWatcher`` only finds the end of a response that passes unchanged.
"""

from collections.abc import Callable
from typing import Final

from httptools import HttpParserError, HttpResponseParser

LAST_CHUNK: Final = b"0\r\n\r\n"

# A chunk-size line with extensions, and one trailer line: far over what any client
# sends, and small enough that a hostile one cannot make us hold much.
_LINE_BYTES: Final = 4 * 1024
_TRAILER_BYTES: Final = 16 * 1024
_SIZE_DIGITS: Final = 15


class ChunkError(ValueError):
    """The bytes are not a valid chunked body. The decoder cannot be used afterwards."""


class ChunkDecoder:
    """Takes a chunked body apart, however its bytes are cut.

    Stricter than the RFC allows a recipient to be: CRLF only, no blanks around
    the size, and chunk extensions are read over.

    Attributes:
        done: The last chunk and its trailer section have been read.
        rest: What followed them in the piece that held their end.
    """

    __slots__ = ("_line", "_remaining", "_state", "_trailer_bytes", "done", "rest")

    _SIZE, _DATA, _DATA_END, _TRAILER = range(4)

    def __init__(self) -> None:
        self._state = self._SIZE
        self._remaining = 0
        self._line = b""
        self._trailer_bytes = 0
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the body's pieces that ``data`` completes.

        Raises:
            ChunkError: The bytes are no valid chunked body.
        """
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while at < size:
            if self._state == self._DATA:
                piece = data[at : at + self._remaining]
                at += len(piece)
                self._remaining -= len(piece)
                pieces.append(piece)
                if not self._remaining:
                    self._state = self._DATA_END
                continue
            end = data.find(b"\n", at)
            part = data[at:] if end < 0 else data[at : end + 1]
            at += len(part)
            self._line += part
            if len(self._line) > _LINE_BYTES:
                raise ChunkError("a chunk's size line or a trailer is too long")
            if end < 0:
                # Between chunks only CRLF can stand; do not wait for more of anything else.
                if self._state == self._DATA_END and self._line not in (b"", b"\r"):
                    raise ChunkError("a chunk is longer than its size")
                break
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
                raise ChunkError("a line of the chunked coding does not end in CRLF")
            self._read_line(line[:-2])
            if self.done:
                self.rest = data[at:]
                break
        return pieces

    def _read_line(self, line: bytes) -> None:
        if self._state == self._DATA_END:
            if line:
                raise ChunkError("a chunk is longer than its size")
            self._state = self._SIZE
        elif self._state == self._SIZE:
            digits = line.partition(b";")[0]
            # int() takes "+5", "0x5", "5_0" and blanks; a smuggler's toolbox.
            if not digits or len(digits) > _SIZE_DIGITS or digits.strip(b"0123456789abcdefABCDEF"):
                raise ChunkError("a chunk's size is not a hexadecimal number")
            self._remaining = int(digits, 16)
            self._state = self._DATA if self._remaining else self._TRAILER
        elif line:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _TRAILER_BYTES:
                raise ChunkError("the trailer section is too long")
        else:
            self.done = True


def chunk(piece: bytes) -> bytes:
    """Return ``piece``, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class ChunkWatcher:
    """Finds the end of a chunked response whose bytes pass unchanged.

    llhttp walks the chunks in C, at 0.15 µs a chunk, unless it is given an
    ``on_body``. It does not tell where in a piece the message ended, so that is
    found out by feeding the last byte of a possible end on its own.

    Attributes:
        done: The response has ended, exactly with the last byte fed.
        on_body: Given to llhttp where the body is metered: it is told what is in the chunks.
    """

    __slots__ = ("_begun", "_parser", "done", "on_body")

    def __init__(self, head: bytes, *, on_body: Callable[[bytes], None] | None = None) -> None:
        """Begin with the response's head, which was found valid before.

        Args:
            head: As it came.
            on_body: Gets the body without its framing, as it is fed. A bound method of a built-in
                type costs a tenth of a microsecond a piece.
        """
        if on_body is not None:
            self.on_body = on_body
        self.done = False
        self._begun = 0
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._parser.feed_data(head)

    def on_message_begin(self) -> None:
        """Count the beginning of a message; a second one is junk behind the first."""
        self._begun += 1

    def on_message_complete(self) -> None:
        """Note that the last chunk has been read."""
        self.done = True
        self._parser = None  # it refers to this object: do not leave a cycle behind each response

    def feed(self, data: bytes) -> None:
        """Look at the next piece, before any of it is passed on.

        Raises:
            ChunkError: It is no valid chunked body, or something follows its end.
        """
        parser = self._parser
        if parser is None:
            raise ChunkError("bytes follow the response")
        try:
            if len(data) < 4 or data.endswith(b"\r\n\r\n"):
                # This piece may end the message. llhttp skips CR and LF between
                # messages without a word, and those would be junk as well.
                parser.feed_data(memoryview(data)[:-1])
                if self.done:
                    raise ChunkError("bytes follow the response")
                parser.feed_data(data[-1:])
            else:
                parser.feed_data(data)
                if self.done:  # an end is always CRLF CRLF
                    raise ChunkError("bytes follow the response")
        except HttpParserError as exc:
            raise ChunkError(f"the response's chunks are not valid: {exc}") from exc
        if self._begun > 1:
            raise ChunkError("a second message follows the response")
