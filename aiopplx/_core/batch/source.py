"""A source of items, read lazily: one at a time, and never past its end or its error.

This module knows nothing of what items are, or of what is done with them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from io import IOBase
from os import PathLike
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

from aiopplx._core.batch.reading import Reader
from aiopplx._errors import InvalidRequest
from aiopplx._wire.request import Request

T = TypeVar("T")


class _Polars(Protocol):
    @property
    def to_dicts(self) -> object: ...


class _Arrow(Protocol):
    @property
    def to_pylist(self) -> object: ...


class _Pandas(Protocol):
    @property
    def to_dict(self) -> object: ...
    @property
    def columns(self) -> object: ...


Frame: TypeAlias = "_Polars | _Arrow | _Pandas"
"""A DataFrame, by what it can do: polars, pyarrow, pandas and their like."""

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
        iterator = _iterator_of(given)
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


def _iterator_of(source: Iterable[T] | AsyncIterable[T] | Frame) -> Iterator[T] | AsyncIterator[T]:
    if _is_table(source):
        return cast("Iterator[T]", _asked_in(source))
    if said := _not_questions(source):
        raise InvalidRequest(f"a batch takes an iterable or async iterable of questions{said}")
    if isinstance(source, AsyncIterable):
        return aiter(source)
    try:
        return iter(cast("Iterable[T]", source))
    except TypeError:
        raise InvalidRequest(
            f"a batch takes an iterable or async iterable of questions, not {type(source).__name__}"
        ) from None


def _is_table(source: object) -> bool:
    # Of the class: to ask a LazyFrame itself for its columns makes polars work, and warn.
    kind = type(source)
    return hasattr(kind, "__dataframe__") or (hasattr(kind, "columns") and hasattr(kind, "shape"))


def _asked_in(frame: Any) -> Iterator[Request]:
    """The questions of a DataFrame.

    Raises:
        InvalidRequest: it has no column of questions, or cannot be read; the message has the right call.
        TableError: a row cannot be used.
    """
    # Only for those who have tables.
    from aiopplx.tables import TableError, questions, read_memory
    from aiopplx.tables._frames import is_frame

    if not is_frame(frame):
        raise InvalidRequest(
            'a batch cannot read the rows of this table: give one column of it, batch(table["question"])'
        )
    try:
        columns = read_memory(frame).columns
    except TableError as error:
        raise InvalidRequest(f'a batch takes a DataFrame with a column "question": {error.problem}') from None
    if "question" not in columns:
        raise InvalidRequest(
            f'a batch takes a DataFrame with a column "question", and this one has {", ".join(columns[:20])}:'
            ' batch(aiopplx.questions(table, question="COLUMN")) names another one, and template="... {COLUMN} ..."'
            " makes the question of several"
        )
    try:
        return questions(frame, question="question")
    except TableError as error:
        raise TableError(
            f"{error}. Options are those of aiopplx.questions: batch(aiopplx.questions(table, ...))"
        ) from None


def _not_questions(source: Any) -> str:
    """What is wrong with an iterable whose items are not the questions that it seems to hold; `""` if nothing is."""
    if isinstance(source, (str, Request)):
        return "; for a single one use session.ask(question) or batch([question])"
    if isinstance(source, (bytes, bytearray, memoryview)):
        kind = type(cast("object", source)).__name__
        return f", not {kind}: decode it, and give its lines: batch(data.decode().splitlines())"
    if isinstance(source, Mapping):
        return (
            ", and a mapping is one question with its fields: session.ask(mapping) or batch([mapping]). If its"
            " values are the questions: batch(mapping.values())"
        )
    if isinstance(source, IOBase) or (hasattr(source, "readline") and hasattr(source, "seek")):
        return ', not a file, whose lines have ends: batch(line.strip() for line in open("questions.txt"))'
    if isinstance(source, PathLike):
        return ", not a path: batch(aiopplx.questions(path)) reads the file"
    if type(source).__name__ == "LazyFrame":
        return ", and a LazyFrame has no rows yet: batch(frame.collect())"
    if getattr(source, "ndim", 1) != 1:
        return f", not an array of {source.ndim} dimensions: give one column of it, batch(array[:, 0])"
    if callable(source) and not hasattr(source, "__iter__") and not hasattr(source, "__aiter__"):
        return ", not the function that makes one: call it, batch(questions())"
    return ""
