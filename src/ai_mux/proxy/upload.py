"""A request's body on its way from the client to the provider.

Rule 1: Nothing is held back. Once an upstream connection is attached, every piece
goes on as it came; only the transfer framing is ours.

Rule 2: Until the response's head is there, a copy is kept by reference, so that the
request can be sent once more after a 401. The copy is bounded for each request and
in all; past that it is dropped, and the request cannot be replayed.

Rule 3: Where the body must be looked into, every piece is before it goes on, and the
last one stays until all of them have been. For that alone a body waits. A large piece is
looked into bit by bit; what is read meanwhile waits behind it.

Rule 4: While no upstream connection is attached (a renewal, a connect), reading goes
on into that copy, because a paused connection does not show that the client has left.
"""

import asyncio
from collections.abc import Generator
from types import coroutine
from typing import Final, Protocol

from ai_mux.errors import BadRequest, TooLarge
from ai_mux.proxy.receiving import CRUMBS
from ai_mux.proxy.turn import Waiter
from ai_mux.wire.chunked import LAST_CHUNK, ChunkDecoder, ChunkError, chunk
from ai_mux.wire.http1 import CHUNKED

# Claude Code's largest requests stay under its own limit of 32 MB; most are 50 to 200 KB.
KEPT_BYTES_EACH: Final = 8 * 1024 * 1024
KEPT_BYTES_IN_ALL: Final = 128 * 1024 * 1024
# What Python holds for a piece beside its bytes: without it, a body sent byte by byte
# would cost many times what the budget says.
_PIECE_BYTES: Final = 64
# Up to here one write of head and body costs less than two system calls.
_JOINED_BYTES: Final = 64 * 1024


class ReplayBudget:
    """How many bytes all requests together may keep for a replay."""

    __slots__ = ("_left",)

    def __init__(self, limit: int = KEPT_BYTES_IN_ALL) -> None:
        self._left = limit

    def take(self, size: int) -> bool:
        """Reserve ``size`` bytes; False where they are not left."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """Return bytes that ``take`` reserved."""
        self._left += size


class Sink(Protocol):
    """Where the body goes: ``proxy.upstream.UpstreamConnection``."""

    def write(self, data: bytes) -> None:
        """Send bytes; ask for a pause when too many are waiting."""

    def request_sent(self) -> None:
        """Note that the last byte of the request was given to the transport."""


class BodyScan(Protocol):
    """Who looks into a body: ``proxy.models.ModelScan``. It holds little of it."""

    @property
    def is_known(self) -> bool:
        """What it looks for is found, and may pass."""

    @property
    def is_behind(self) -> bool:
        """Not all that was fed has been looked into."""

    def feed(self, data: bytes) -> None:
        """Begin to look into the next bytes, without their transfer framing. Not while it is behind.

        Raises:
            RequestError: They may not pass, or nothing was found where it must be.
        """

    def go_on(self) -> None:
        """Look into more of them, for a few milliseconds at most.

        Raises:
            RequestError: They may not pass, or nothing was found where it must be.
        """

    def finish(self) -> None:
        """Learn that the body has ended.

        Raises:
            RequestError: It may not pass.
        """


class Upload:
    """One request's body.

    Attributes:
        complete: All of it has been read from the client, and looked into where that must be.
        is_crumbled: The piece that was fed last held a great many chunks.
        replayable: All that was read so far is still kept.
        received: Bytes of the body read so far, without their framing.
    """

    __slots__ = (
        "_budget",
        "_decoder",
        "_ended",
        "_held",
        "_kept",
        "_kept_bytes",
        "_limit",
        "_remaining",
        "_scan",
        "_sink",
        "_unread",
        "_waiter",
        "complete",
        "is_crumbled",
        "received",
        "replayable",
    )

    def __init__(self, length: int, limit: int, budget: ReplayBudget) -> None:
        """Begin to read a body.

        Args:
            length: In bytes, or ``CHUNKED``.
            limit: More bytes than this are refused.
            budget: What all requests together may keep.
        """
        self._decoder = ChunkDecoder() if length == CHUNKED else None
        self._remaining = length
        self._limit = limit
        self._budget = budget
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._sink: Sink | None = None
        self._scan: BodyScan | None = None
        self._held: bytes | None = None  # the piece that is being looked into, as it will go on
        self._ended = False  # that is the last one
        self._unread = b""  # what came behind it
        self._waiter: Waiter | None = None
        self.complete = length == 0
        self.is_crumbled = False
        self.replayable = True
        self.received = 0

    # Reading from the client

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes from the client, and return those behind the body's end.

        Raises:
            BadRequest: The chunked coding is broken.
            TooLarge: The body exceeds the limit.
            RequestError: What looks into the body refuses it.
        """
        if self._held is not None:
            self._unread += data
            return b""
        if self._decoder is not None:
            return self._feed_chunked(data)
        rest = b""
        size = len(data)
        if size > self._remaining:
            data, rest = data[: self._remaining], data[self._remaining :]
            size = self._remaining
        self._remaining -= size
        self.received += size
        if self._scan is not None:
            return self._examine(self._scan, data, data, ended=not self._remaining, rest=rest)
        if not self._remaining:
            self.complete = True
        if size:
            self._pass_on(data)
        if self.complete and self._sink is not None:
            self._sink.request_sent()
        return rest

    def _feed_chunked(self, data: bytes) -> bytes:
        assert self._decoder is not None  # noqa: S101 - the caller has looked
        try:
            pieces = self._decoder.feed(data)
        except ChunkError as exc:
            raise BadRequest(f"The request's chunked body is not valid: {exc}.") from exc
        ended = self._decoder.done
        self.is_crumbled = len(pieces) > CRUMBS
        size = sum(map(len, pieces))
        self.received += size
        if self.received > self._limit:
            raise TooLarge
        framed = b"".join(map(chunk, pieces))
        if ended:
            framed += LAST_CHUNK
        rest = self._decoder.rest if ended else b""
        if self._scan is not None:
            return self._examine(self._scan, b"".join(pieces), framed, ended=ended, rest=rest)
        self.complete = ended
        if framed:
            self._pass_on(framed)
        if ended and self._sink is not None:
            self._sink.request_sent()
        return rest

    def _pass_on(self, framed: bytes) -> None:
        sink = self._sink
        if self.replayable:
            cost = len(framed) + _PIECE_BYTES
            if self._kept_bytes + cost <= KEPT_BYTES_EACH and self._budget.take(cost):
                self._kept.append(framed)
                self._kept_bytes += cost
            else:
                self.replayable = False
                if sink is not None:
                    self._drop_copy()
        if sink is not None:
            sink.write(framed)
        elif not self.replayable:
            self._kept.append(framed)

    @property
    def is_full(self) -> bool:
        """Nothing more should be read from the client until a sink is attached."""
        return self._sink is None and not self.replayable and not self._is_waited_for

    @property
    def beginning(self) -> bytes:
        """The first piece of the body, as long as the copy is kept; a chunked body's with its framing."""
        return self._kept[0] if self._kept else self._held or b""

    # Looking into it

    def examine(self, scan: BodyScan) -> None:
        """Look into what was read so far, and from now on into every piece before it goes on.

        Called before anything is sent. The caller sees to it that ``look_on`` follows.

        Raises:
            RequestError: What was read may not pass.
        """
        self._scan = scan
        framed = body = b"".join(self._kept)
        self._drop_copy()  # it is kept again once it was looked into
        if self._decoder is not None:  # those pieces were framed anew
            body = b"".join(ChunkDecoder().feed(framed))
        ended, self.complete = self.complete, False
        self._examine(scan, body, framed, ended=ended, rest=b"")

    @property
    def is_behind(self) -> bool:
        """``look_on`` is to be called, in another turn of the loop."""
        return self._held is not None

    @property
    def is_far_behind(self) -> bool:
        """It is behind, and has more to read after that: nothing more should be read from the client."""
        return bool(self._unread)

    def look_on(self) -> bytes:
        """Look into more of what was read, and return the bytes behind the body's end. Only while behind.

        Raises:
            RequestError: As ``feed``.
        """
        scan = self._scan
        assert scan is not None  # noqa: S101 - nothing else is behind
        scan.go_on()
        if scan.is_behind:
            return b""
        self._looked_into(scan)
        rest, self._unread = self._unread, b""
        return self.feed(rest) if rest and not self.complete else rest

    @coroutine
    def known(self) -> Generator[Waiter, None, None]:
        """Wait until what is looked for has been found. A refusal comes out of ``feed``, not of here."""
        if self._is_waited_for:
            self._waiter = waiter = Waiter()
            yield waiter

    @property
    def _is_waited_for(self) -> bool:
        """More must be read before anything may be sent."""
        return self._scan is not None and not self._scan.is_known and not self.complete

    def _examine(self, scan: BodyScan, piece: bytes, framed: bytes, *, ended: bool, rest: bytes) -> bytes:
        self._held, self._ended = framed, ended
        scan.feed(piece)
        if scan.is_behind:
            self._unread = rest
            return b""
        self._looked_into(scan)
        return rest

    def _looked_into(self, scan: BodyScan) -> None:
        """Pass on the piece that was looked into."""
        if self._ended:
            scan.finish()
            self.complete = True
        framed, self._held = self._held, None
        if framed:
            self._pass_on(framed)
        if self._ended and self._sink is not None:
            self._sink.request_sent()
        if self._waiter is not None and not self._is_waited_for:
            # Not from here: whoever wakes must have done with the piece, and this one is still to be kept.
            asyncio.get_running_loop().call_soon(self._waiter.wake)
            self._waiter = None

    # Sending to the provider

    def attach(self, sink: Sink, head: bytes) -> None:
        """Send the head and what was read so far, and everything else as it comes."""
        kept = self._kept
        if not kept:
            sink.write(head)
        elif len(kept[0]) <= _JOINED_BYTES:
            sink.write(head + kept[0])
        else:
            sink.write(head)
            sink.write(kept[0])
        for piece in kept[1:]:
            sink.write(piece)
        self._sink = sink
        if not self.replayable:
            self._drop_copy()
        if self.complete:
            sink.request_sent()

    def detach(self) -> None:
        """Send nothing more to the present sink; keep what is needed for another."""
        self._sink = None

    def forget(self) -> None:
        """Drop the copy: the response has begun, so there will be no replay."""
        self.replayable = False
        if self._kept:
            self._drop_copy()

    def _drop_copy(self) -> None:
        self._budget.give(self._kept_bytes)
        self._kept_bytes = 0
        self._kept = []
