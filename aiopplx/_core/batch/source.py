"""A source of items, read lazily: one at a time, and never past its end or its error.

This module knows nothing of what items are, or of what is done with them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Generic, TypeVar, cast

from aiopplx._core.batch.reading import Reader
from aiopplx._policy.given import Frame, iterator_of

T = TypeVar("T")


PAUSE = 16
"""Items of a plain iterable between two turns of the loop."""


class SourceEnded(Exception):
    """There are no more items, or no more are wanted."""


class Source(Generic[T]):
    """Items of an iterable or async iterable, each with its index.

    Args:
        given: what the user gave.
        at_end: called once, when the source was read to its end.

    Attributes:
        count: how many items were read.
        is_exhausted: nothing more is read: it was read to its end, or failed.
        error: what the source itself raised.

    Raises:
        InvalidRequest: it is a single question, not iterable, or something whose items are not questions (a file gives
            its lines with their ends), or a table without a column of questions; the message has the right call.
        TableError: a row of a table cannot be used.
    """

    def __init__(self, given: Iterable[T] | AsyncIterable[T] | Frame, at_end: Callable[[], object]) -> None:
        self.count = 0
        self.is_exhausted = False
        self.error: BaseException | None = None
        iterator = iterator_of(given)
        is_async = isinstance(given, AsyncIterable)
        self._plain = None if is_async else cast("Iterator[T]", iterator)
        self._reader = Reader(cast("AsyncIterator[T]", iterator)) if is_async else None
        self._reading = asyncio.Lock()
        self._at_end = at_end

    async def read(self, is_wanted: Callable[[], bool]) -> tuple[int, T]:
        """The next item and its index.

        Args:
            is_wanted: asked again after each wait: another reader may have found the end meanwhile.

        Raises:
            SourceEnded: see `error` for why.
        """
        if self.is_exhausted:
            raise SourceEnded
        plain = self._plain
        if plain is None:
            item = await self._next_awaited(cast("Reader[T]", self._reader), is_wanted)
        else:
            if self.count and self.count % PAUSE == 0:
                await asyncio.sleep(0)  # a long list must not hold the loop
                if not is_wanted():
                    raise SourceEnded
            try:
                item = next(plain)
            except BaseException as error:  # nothing was awaited: a CancelledError is the source's own
                self._stop(error)
                raise SourceEnded from None
        self.count += 1
        return self.count - 1, item

    async def _next_awaited(self, reader: Reader[T], is_wanted: Callable[[], bool]) -> T:
        async with self._reading:
            if not is_wanted():
                raise SourceEnded
            read = await reader.read()
            if read.error is not None:
                self._stop(read.error)
                raise SourceEnded
            return cast("T", read.item)

    def _stop(self, error: BaseException) -> None:
        self.is_exhausted = True
        if isinstance(error, StopIteration | StopAsyncIteration):
            self._at_end()
        else:
            self.error = error
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise error

    async def close(self) -> None:
        """Close a generator that was not read to its end: nobody else does, and it may hold a file or a cursor.

        Raises whatever the generator raises, and `TimeoutError` if it takes too long.
        """
        if self._reader is not None:
            await self._reader.close()
        elif inspect.isgenerator(self._plain):
            self._plain.close()
