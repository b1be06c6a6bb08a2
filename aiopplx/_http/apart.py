"""Waiting for the caller's code without depending on it: a bound on every end, and what its exceptions mean.

The caller's own parts (a source, a session given as `http=`, a store) may do anything with a cancellation: raise
something else, swallow it, or take for ever. Cancelling a task is only a request, so whoever waits for its end waits
a few seconds and no longer, and leaves it to itself after that. Nothing depends on such a task any more, the log has
a line about it, and whatever it raises one day is dropped.

These are real seconds: the caller's code knows nothing of a session's clock. This module knows nothing of what the
tasks do.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import logging
import threading
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final, TypeVar, cast

import anyio

from aiopplx._events import log
from aiopplx._waiting import until_done

T = TypeVar("T")

SWALLOWED: Final = 1.0
"""Real seconds in which an exchange of the caller's session should have ended once it was cancelled."""
ENDING: Final = 3.0
"""The same for a task that waits for such an exchange, among other things."""
CLOSING: Final = 5.0
"""Real seconds in which the caller's code should have closed what it has open."""


def is_ours(task: asyncio.Task[Any] | None) -> bool:  # Any: a task of whatever kind
    """Whether a `CancelledError` that comes out of the caller's code in this task is the task's own cancellation.

    If not, the caller's code raised it, or awaited something that was cancelled: that is an error like any other.
    """
    return task is not None and task.cancelling() > 0


def is_closed(task: asyncio.Task[Any] | None) -> bool:  # Any: as above
    """Whether the coroutine that runs now is being closed from outside, and is not run by its task, which this is.

    If so, a `GeneratorExit` in it is its end; if not, the caller's code raised it, as it may raise anything.
    """
    try:
        return asyncio.current_task() is not task
    except RuntimeError:
        return True


async def cancel_and_wait(tasks: Collection[asyncio.Future[Any]], seconds: float = ENDING) -> bool:  # Any: as above
    """Cancel these and wait until they have ended, at most `seconds`. Returns whether all have.

    A cancellation of this wait is raised once they have ended, as `asyncio.gather` does it: whoever is cancelled while
    it leaves must not leave tasks behind that were about to end.
    """
    for task in tasks:
        task.cancel()
    try:
        cancelled = await until_done(tasks, seconds)
    finally:
        for task in tasks:
            # Also where this coroutine is closed: an exception that nobody fetches would be told by the loop.
            task.add_done_callback(_drop)
    going = [task for task in tasks if not task.done()]
    if going:
        log(logging.WARNING, "%d cancelled tasks go on after %g s; they are left to themselves", len(going), seconds)
    if cancelled is not None:
        raise cancelled
    return not going


async def apart(coroutine: Coroutine[Any, Any, T]) -> T:  # Any: what a coroutine yields and is sent
    """Await the caller's coroutine in a task of its own, so that a cancellation reaches us whatever it does with it."""
    loop = asyncio.get_running_loop()
    task, ended = loop.create_task(coroutine), loop.create_future()
    # As `asyncio.wait` and `asyncio.shield` do it, with one callback: this is on the way of each exchange.
    task.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
    try:
        await ended
    finally:
        if not task.done():
            await cancel_and_wait([task], SWALLOWED)
    return task.result()


async def end_begun(task: asyncio.Task[Any]) -> None:  # Any: as above
    """Cancel a task once it has begun, and wait for its end a moment: what was asked for is at least tried."""
    try:
        if has_not_begun(task):
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(0)
    finally:
        await cancel_and_wait([task], SWALLOWED)


async def closed(coroutine: Coroutine[Any, Any, object], seconds: float = CLOSING) -> None:  # Any: as above
    """Run what closes something, the caller's code perhaps, at most so many seconds, also if this wait is cancelled.

    Raises:
        CancelledError: this wait was cancelled; it is raised once the closing has ended, or its time is up.
        TimeoutError: it goes on, and is left to itself.
        BaseException: what it raised.
    """
    task = asyncio.get_running_loop().create_task(coroutine)
    cancelled = await until_done([task], seconds)
    if not task.done():
        await cancel_and_wait([task], SWALLOWED)
        raise cancelled or TimeoutError
    if cancelled is not None:
        task.add_done_callback(_drop)
        raise cancelled
    task.result()


async def in_thread(work: Callable[[], T]) -> T:
    """Run what may block, such as a step on a disk, in a thread of its own, and wait for it.

    A cancellation ends the waiting and not the work. The thread is a daemon: threads of a pool are joined at the end of
    a program, which a disk that stalls would hold up.

    Raises:
        OSError: no thread can be started.
        BaseException: what the work raised.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(cast("T", value))
        else:
            answer.set_exception(error)

    def run() -> None:
        value, problem = None, None
        try:
            value = work()
        except BaseException as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there
            loop.call_soon_threadsafe(settle, value, problem)

    try:
        threading.Thread(target=run, name="aiopplx-disk", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"no thread can be started for it ({error})") from None
    return await answer


def has_not_begun(task: asyncio.Task[Any]) -> bool:  # Any: as above
    """Whether a task that was made never ran, so that what its coroutine says at its end stays unsaid."""
    coroutine = task.get_coro()
    return inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


def _drop(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
