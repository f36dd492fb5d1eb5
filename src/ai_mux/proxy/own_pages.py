"""What users see of their own use: made in a thread, once at a time, and not more often than it changes.

Rule 1: a report reads from a disk, so it is never made on the event loop, nor in the
threads that resolve names: whoever asks for pages without end waits only for himself.

Rule 2: a page is its user's alone. It is remembered under the very object that the token led to.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ai_mux.clock import Clock
from ai_mux.errors import Unavailable
from ai_mux.users import User

_FRESH_S: Final = 1.0  # the ledger itself is a quarter of a second behind
_KEPT: Final = 256
# The ledger itself waits up to two seconds for its last rows, thrice; after that, a file system hangs.
_LONGEST_S: Final = 10.0


class OwnPages:
    """Makes the documents of ``GET /usage``.

    Args:
        begin: Begins one, on the event loop, and returns what makes it, in a thread: that blocks, and
            does not raise for what a disk may do.
        clock: Tells how old a page is.
    """

    def __init__(self, begin: Callable[[User], Callable[[], bytes]], clock: Clock) -> None:
        self._begin = begin
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage-page")
        self._made: dict[User, tuple[float, asyncio.Future[bytes]]] = {}

    async def page(self, user: User) -> bytes:
        """Return this user's page, at most a second old.

        Raises:
            Unavailable: The disk does not answer.
        """
        now = self._clock.monotonic()
        made_at, page = self._made.get(user, (0.0, None))
        if page is None or (page.done() and (now - made_at >= _FRESH_S or page.exception() is not None)):
            if len(self._made) >= _KEPT:
                self._made = {one: made for one, made in self._made.items() if not made[1].done()}
            page = asyncio.get_running_loop().run_in_executor(self._thread, self._begin(user))
            self._made[user] = (now, page)
        try:
            async with asyncio.timeout(_LONGEST_S):
                return await asyncio.shield(page)  # others may wait for the same one
        except TimeoutError:
            raise Unavailable("What you have used cannot be read now. Try again.", retry_after_s=10) from None

    def close(self) -> None:
        """Make no more of them."""
        self._thread.shutdown(wait=False, cancel_futures=True)
