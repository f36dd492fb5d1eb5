"""Where both sides' bytes arrive: one buffer for all connections.

A transport that makes its own ``bytes`` for each read takes 256 KiB for it and then
shrinks that to what came. Blocks of that size come from the kernel and go back to
it, so a small request costs two mappings and their page faults, some 10 % of its
time. One buffer is enough, because every read is taken out of it before the next.
"""

import asyncio
import mmap
from typing import Final

# What asyncio itself reads at most; a 2 MiB body arrives in eight pieces.
_SIZE: Final = 256 * 1024
# Each frame or chunk costs about a microsecond. Who sends them a few bytes each could have a core
# for himself; a piece with more of them than this is the last one in its turn of the loop.
CRUMBS: Final = 1000
# Slicing it makes ``bytes`` at once, where a bytearray's take a view in between.
_MEMORY: Final = mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
_BUFFER: Final = memoryview(_MEMORY)


class Receiver(asyncio.BufferedProtocol):
    """A protocol that receives ``bytes``, through the shared buffer."""

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next read goes."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take a read out of the buffer."""
        self.data_received(_MEMORY[:nbytes])

    def data_received(self, data: bytes) -> None:
        """Handle received bytes."""
        raise NotImplementedError
