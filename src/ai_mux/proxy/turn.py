"""Runs one request's coroutine from the callbacks that move it on.

An ``asyncio.Task`` runs each step in a turn of the event loop of its own. A request
waits twice, for its head and for its end, and both times a transport's callback
knows that the wait is over; so it goes on right there, some 10 % of a small
request's time earlier and cheaper. What needs a Task (a connect, a renewal, any
``asyncio.timeout``) gets one from ``aside``.

Rule 1: a coroutine that runs here awaits nothing but a ``Waiter`` or ``aside``.

Rule 2: ``wake`` goes on at once, within the caller. Whoever wakes touches nothing
afterwards that the coroutine may have changed.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Waiter:
    """What a coroutine waits for: one at a time. Each wait is woken once, or never."""

    __slots__ = ("_resume",)

    def __init__(self) -> None:
        self._resume: Callable[[], None] | None = None

    def __await__(self) -> Generator["Waiter", None, None]:
        yield self

    def wake(self) -> None:
        """Let the coroutine go on, if it still waits here."""
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()


class Turn:
    """A coroutine that is moved on by callbacks, from its first step to its last."""

    __slots__ = ("_coroutine", "_waiter")

    def __init__(self, coroutine: Coroutine[Waiter, None, None]) -> None:
        self._coroutine: Coroutine[Waiter, None, None] | None = coroutine
        self._waiter: Waiter | None = None

    def start(self) -> None:
        """Run until the first wait. What the coroutine raises, this raises."""
        self._step()

    def cancel(self) -> None:
        """Raise ``CancelledError`` where the coroutine waits. Does nothing after its end."""
        waiter = self._waiter
        if self._coroutine is not None and waiter is not None:
            waiter._resume = None
            self._step(asyncio.CancelledError())

    def _step(self, error: BaseException | None = None) -> None:
        """Run until the next wait, or raise ``error`` where it waits now."""
        coroutine = self._coroutine
        if coroutine is None:
            return
        self._waiter = None
        try:
            waiter = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration:
            self._coroutine = None
            return
        except BaseException:
            self._coroutine = None
            raise
        waiter._resume = self._step
        self._waiter = waiter


async def aside(
    work: Coroutine[Any, Any, T],
    tasks: set[asyncio.Task[Any]],
    *,
    unwanted: Callable[[T], None] | None = None,
) -> T:
    """Do in a Task what cannot be done in a ``Turn``, and return or raise its outcome.

    Cancelling the wait cancels the Task, and does not wait for it.

    Args:
        work: What to do.
        tasks: Holds the Task while it runs.
        unwanted: Told the result if it comes when nobody waits for it any more.
    """
    task = asyncio.ensure_future(work)
    waiter = Waiter()
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(lambda _: waiter.wake())
    try:
        await waiter
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(lambda _: _give_up(task, unwanted))
        raise
    return task.result()


def _give_up(task: asyncio.Task[T], unwanted: Callable[[T], None] | None) -> None:
    """Take note of an outcome that nobody waits for any more."""
    if not task.cancelled() and task.exception() is None and unwanted is not None:
        unwanted(task.result())
