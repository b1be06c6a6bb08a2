"""Waiting for the caller's code without depending on it: a bound on every end, and what its exceptions mean.

The caller's own parts (a source, a session given as `http=`, a store) may do anything with a cancellation: raise
something else, swallow it, or take for ever. Cancelling a task is only a request, so whoever waits for its end waits
`ENDING` seconds and no longer, and leaves it to itself after that. Nothing depends on such a task any more, the log has
a line about it, and whatever it raises one day is dropped.

These are real seconds: the caller's code knows nothing of a session's clock. This module knows nothing of what the
tasks do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine
from typing import Any, Final, TypeVar

import anyio

from aiopplx._events import log

T = TypeVar("T")

ENDING: Final = 2.0
"""Real seconds in which whatever was cancelled should have ended."""


def is_ours(task: asyncio.Task[Any] | None) -> bool:  # Any: a task of whatever kind
    """Whether a `CancelledError` that comes out of the caller's code in this task is the task's own cancellation.

    If not, the caller's code raised it, or awaited something that was cancelled: that is an error like any other.
    """
    return task is not None and task.cancelling() > 0


async def ended(tasks: Collection[asyncio.Future[Any]], seconds: float = ENDING) -> bool:  # Any: as above
    """Cancel these and wait until they have ended, at most `seconds`. Returns whether all have."""
    for task in tasks:
        task.cancel()
    if not tasks:
        return True
    going: set[asyncio.Future[Any]] = set()
    try:
        # A cancelled scope of anyio would cancel this wait anew, and leave tasks that were about to end.
        with anyio.CancelScope(shield=True):
            _, going = await asyncio.wait(tasks, timeout=seconds)
    finally:
        for task in tasks:
            # Also where this wait itself is cancelled: an exception that nobody fetches would be told by the loop.
            task.add_done_callback(_drop)
    if going:
        log(logging.WARNING, "%d cancelled tasks go on after %g s; they are left to themselves", len(going), seconds)
    return not going


async def apart(coroutine: Coroutine[Any, Any, T]) -> T:  # Any: what a coroutine yields and is sent
    """Await the caller's coroutine in a task of its own, so that a cancellation reaches us whatever it does with it."""
    task = asyncio.get_running_loop().create_task(coroutine)
    try:
        await asyncio.wait([task])
    finally:
        if not task.done():
            await ended([task])
    return task.result()


def _drop(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
