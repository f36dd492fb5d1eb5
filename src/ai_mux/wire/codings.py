"""Undoes content codings (RFC 9110, 8.4.1) to look into a body. What is passed on is never touched.

Rule 1: what comes out is bounded, in all and for one call, and so is what a call costs.
A few kilobytes may stand for gigabytes.

Rule 2: whatever is not exactly the coding is an error. Who goes by what was read here must
not be shown another body than the provider's decoder reads.

Decoders are imported when the first body needs them: most bodies need none.
"""

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from zstandard import ZstdDecompressionObj

# A header may list any number of codings. As many as curl undoes, and more than anybody applies.
_MOST_CODINGS: Final = 5
# Out of one call: what a read of 256 KiB holds if it is packed 64 times, which text never is.
# It takes some 30 ms to unpack.
_AT_ONCE: Final = 16 * 1024 * 1024
# Into a decoder at once. Bodies may consist of thousands of members, each of which copies the rest.
_SLICE: Final = 4096
# zstandard's decoder takes no limit. Four bytes are a block of at most 128 KiB (RFC 8878, 3.1.1.2),
# so that as many bytes make 4 MiB at the worst.
_ZSTD_SLICE: Final = 128
# What leaves a guarded decoder at once. Of what others must wait for, a turn of the loop is kept short.
_GUARDED_AT_ONCE: Final = 4 * 1024 * 1024
# Conversations are packed 4 to 20 times, lines that repeat 75 times; what is smaller may be as it likes.
_RATIO: Final = 128
_FREE: Final = 1024 * 1024
# RFC 9659: a decoder of this content coding need not, and ours will not, give it more memory.
_ZSTD_WINDOW: Final = 8 * 1024 * 1024
# Brotli's decoder may exceed its limit by as much again.
_BROTLI_STEP: Final = 256 * 1024

_GZIP: Final = 16 + zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS


class CodingError(Exception):
    """The body is not what its Content-Encoding says, or unpacks to too much."""


class _Stage(Protocol):
    """One coding of a body."""

    slice: int
    """How many bytes it takes at once."""

    def decode(self, piece: bytes, room: int) -> list[bytes]:
        """Return what comes out; it may stop after more than ``room`` bytes."""

    @property
    def has_ended(self) -> bool:
        """The coding is complete."""


class Decoder:
    """Undoes the codings of one body, however its bytes are cut."""

    __slots__ = ("_at_once", "_broken", "_left", "_ratio", "_stages")

    def __init__(self, stages: list[_Stage], limit: int, *, guarded: bool) -> None:
        self._stages = stages
        self._left = [_FREE if guarded else limit] * len(stages)
        self._ratio = _RATIO if guarded else 0
        self._at_once = _GUARDED_AT_ONCE if guarded else _AT_ONCE
        self._broken = False

    def feed(self, data: bytes) -> bytes:
        """Return what the next bytes stand for: at most 16 MiB, of a guarded one 4 MiB.

        Raises:
            CodingError: They are broken, or stand for more. So does every later call.
        """
        if self._broken:
            raise CodingError("the body was broken before")
        earned = self._ratio * len(data)
        try:
            for at, stage in enumerate(self._stages):
                self._left[at] += earned
                data = _decode(stage, data, min(self._left[at], self._at_once))
                self._left[at] -= len(data)
        except CodingError:
            self._broken = True
            raise
        return data

    def finish(self) -> None:
        """Note that the body has ended.

        Raises:
            CodingError: Its coding has not.
        """
        if self._broken or not all(stage.has_ended for stage in self._stages):
            raise CodingError("the body ended before its coding did")


def decoder(content_encoding: bytes, *, limit: int = 0, guarded: bool = False) -> Decoder | None:
    """Return what undoes these codings, the last one first; None where there is nothing to undo.

    Args:
        content_encoding: The field's value; of repeated fields, joined by commas.
        limit: How many bytes may come out in all.
        guarded: It is decided by what comes out, and others wait. Instead of the limit, what comes out
            is bounded by what went in; and what could be undone in two ways is refused.

    Raises:
        CodingError: One of them is unknown, or there are too many.
    """
    if not content_encoding:
        return None
    listed = [name.strip(b" \t").lower() for name in content_encoding.split(b",")]
    names = [name for name in listed if name and name != b"identity"]
    if not names:
        return None
    if len(names) > _MOST_CODINGS or not _STAGES.keys() >= set(names):
        raise CodingError("the body has a coding that is not known here")
    if guarded and b"deflate" in names:
        raise CodingError("two different codings are called deflate; use gzip, br or zstd")
    return Decoder([_STAGES[name]() for name in reversed(names)], limit, guarded=guarded)


def _decode(stage: _Stage, data: bytes, room: int) -> bytes:
    out: list[bytes] = []
    for start in range(0, len(data), stage.slice):
        pieces = stage.decode(data[start : start + stage.slice], room)
        room -= sum(map(len, pieces))
        if room < 0:
            raise CodingError("the body unpacks to too much")
        out += pieces
    return out[0] if len(out) == 1 else b"".join(out)


class _Zlib:
    """gzip (RFC 1952), of one or several members, or one of the two that are called deflate."""

    slice = _SLICE

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._inflate = zlib.decompressobj(wbits)

    def decode(self, piece: bytes, room: int) -> list[bytes]:
        out: list[bytes] = []
        while piece and room >= 0:
            if self._inflate.eof:
                if self._wbits != _GZIP:
                    raise CodingError("bytes follow the end of the coding")
                self._inflate = zlib.decompressobj(self._wbits)
            try:
                out.append(self._inflate.decompress(piece, room + 1))
            except zlib.error as exc:
                raise CodingError("the body is not valid gzip or deflate") from exc
            room -= len(out[-1])
            piece = self._inflate.unused_data
        return out

    @property
    def has_ended(self) -> bool:
        return self._inflate.eof


class _Deflate:
    """deflate: by the RFC in zlib's format (RFC 1950), by some senders without it (RFC 1951)."""

    slice = _SLICE

    def __init__(self) -> None:
        self._zlib: _Zlib | None = None
        self._first = b""

    def decode(self, piece: bytes, room: int) -> list[bytes]:
        if self._zlib is None:
            piece = self._first + piece
            if len(piece) < 2:
                self._first = piece
                return []
            # RFC 1950, 2.2: the method is 8, and both bytes together are a multiple of 31.
            has_header = piece[0] & 0x0F == 8 and int.from_bytes(piece[:2], "big") % 31 == 0
            self._zlib = _Zlib(zlib.MAX_WBITS if has_header else _RAW)
        return self._zlib.decode(piece, room)

    @property
    def has_ended(self) -> bool:
        return self._zlib is not None and self._zlib.has_ended


class _Brotli:
    """br (RFC 7932)."""

    slice = _SLICE

    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped]  # noqa: PLC0415 - few bodies need it

        self._error = brotli.error
        self._brotli = brotli.Decompressor()

    def decode(self, piece: bytes, room: int) -> list[bytes]:
        out: list[bytes] = []
        try:
            # It may have more to give although it says that it takes more: ask until nothing comes.
            while some := self._brotli.process(piece, output_buffer_limit=_BROTLI_STEP):
                out.append(some)
                room -= len(some)
                if room < 0:
                    break
                piece = b""
        except self._error as exc:
            raise CodingError("the body is not valid brotli") from exc
        return out

    @property
    def has_ended(self) -> bool:
        return bool(self._brotli.is_finished())


class _Zstd:
    """zstd (RFC 8878), of one or several frames, with windows of at most 8 MiB (RFC 9659)."""

    slice = _ZSTD_SLICE

    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 - few bodies need it

        self._error = zstandard.ZstdError
        self._new = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj
        self._frame: ZstdDecompressionObj = self._new()

    def decode(self, piece: bytes, room: int) -> list[bytes]:
        out: list[bytes] = []
        while piece and room >= 0:
            if self._frame.eof:
                self._frame = self._new()
            try:
                out.append(self._frame.decompress(piece))
            except self._error as exc:
                raise CodingError("the body is not valid zstd") from exc
            room -= len(out[-1])
            piece = self._frame.unused_data
        return out

    @property
    def has_ended(self) -> bool:
        return self._frame.eof


def _gzip() -> _Stage:
    return _Zlib(_GZIP)


# RFC 9110, 8.4.1.3: x-gzip is gzip.
_STAGES: Final[dict[bytes, Callable[[], _Stage]]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _Deflate,
    b"br": _Brotli,
    b"zstd": _Zstd,
}
