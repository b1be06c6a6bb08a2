"""Reads an async source in one task, from its first item to its end, whoever asks for the items.

A batch has many submitters, and each asks for an item when it has room. But what a source holds open over its items, a
timeout, a task group or a scope of anyio, belongs to the task that entered it: that is the one which it cancels, and
the one that must leave it (PEP 789). In a submitter such a cancellation would hit a submission on the wire, in place
of the source. So one task reads, as `async for` in a function would. A cancellation that comes while nobody asks for
an item is thrown into the source, where it stands: there it becomes the source's `TimeoutError`, the `ExceptionGroup`
of its task group, or the end of its scope. A source that is closed is cancelled in the same way.

This module knows nothing of what items are.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Generic, NamedTuple, TypeVar, cast

from aiopplx._http.apart import ENDING, closed

T = TypeVar("T")


class Read(NamedTuple, Generic[T]):
    """What came of one step of a source: an item, or what it raised."""

    item: T | None
    error: BaseException | None = None


class Reader(Generic[T]):
    """Reads an async iterator. One task at a time may ask for the next item."""

    __slots__ = ("_asked", "_given", "_has_read", "_is_closing", "_task", "_unasked")

    def __init__(self, given: AsyncIterator[T]) -> None:
        self._given = given
        self._task: asyncio.Task[None] | None = None
        # What nobody has yet: an item whose wait was cancelled, and what the source gave in answer to a cancellation.
        self._unasked: deque[Read[T]] = deque()
        self._asked = asyncio.Event()
        self._has_read = asyncio.Event()
        self._is_closing = False

    async def read(self) -> Read[T]:
        """The next item, or the error that ends them. If this wait is cancelled, the item is for whoever asks next."""
        if not self._unasked:
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())
            self._asked.set()
            await self._has_read.wait()
        read = self._unasked.popleft()
        if not self._unasked:
            self._has_read.clear()
        return read

    async def close(self) -> None:
        """Close it, if it is a generator: nobody else does, and it may hold a file or a cursor.

        Raises what the generator raises, and `TimeoutError` if it takes too long.
        """
        self._is_closing = True
        task = self._task
        if task is asyncio.current_task():
            return  # the source itself leaves the batch: it is closed once it lets go
        if task is None:
            await closed(self._close_generator())
        elif not task.done():
            task.cancel()
            await closed(_end_of(task), ENDING)

    async def _run(self) -> None:
        try:
            while not self._is_closing:
                step: Awaitable[T]
                try:
                    await self._asked.wait()
                except asyncio.CancelledError as error:
                    if not inspect.isasyncgen(self._given):
                        raise
                    step = cast("AsyncGenerator[T, None]", self._given).athrow(error)
                else:
                    step = anext(self._given)
                self._asked.clear()
                self._unasked.append(Read(await step))
                self._has_read.set()
        except BaseException as error:
            # Also what ends a program: whoever asked raises it.
            self._unasked.append(Read(None, error))
            self._has_read.set()
        finally:
            if self._is_closing:
                await self._close_generator()

    async def _close_generator(self) -> None:
        if inspect.isasyncgen(self._given):
            await cast("AsyncGenerator[T, None]", self._given).aclose()


async def _end_of(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
    task.result()
