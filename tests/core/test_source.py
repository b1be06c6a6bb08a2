"""A source is read lazily, one item at a time, and never past its end or its error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from aiopplx import InvalidRequest, ResearchRequest
from aiopplx._core.batch.source import PAUSE, Source, SourceEnded


def always() -> bool:
    return True


def unheard() -> None:
    pass


def plain(count: int) -> Iterator[int]:
    yield from range(count)


async def awaited(count: int) -> AsyncIterator[int]:
    for n in range(count):
        yield n


async def read_all(source: Source[Any]) -> list[tuple[int, Any]]:
    found = []
    while True:
        try:
            found.append(await source.read(always))
        except SourceEnded:
            return found


@pytest.mark.parametrize(
    "given", [lambda: [0, 1, 2], lambda: plain(3), lambda: awaited(3)], ids=("list", "gen", "async")
)
async def test_items_come_in_order_each_with_its_index(given: Callable[[], Any]) -> None:
    source: Source[int] = Source(given(), unheard)
    assert await read_all(source) == [(0, 0), (1, 1), (2, 2)]
    assert (source.count, source.is_exhausted, source.error) == (3, True, None)


@pytest.mark.parametrize("given", [lambda: plain(3), lambda: awaited(3)], ids=("gen", "async"))
async def test_end_is_told_once_however_many_read(given: Callable[[], Any]) -> None:
    told: list[bool] = []
    source: Source[int] = Source(given(), lambda: told.append(source.is_exhausted))
    read = await asyncio.gather(
        *(source.read(lambda: not source.is_exhausted) for _ in range(9)), return_exceptions=True
    )
    assert sum(isinstance(item, SourceEnded) for item in read) == 6
    assert told == [True]


@pytest.mark.parametrize("given", ["a question", b"bytes", {"question": "?"}, ResearchRequest("?"), 7, None])
def test_what_is_no_iterable_of_questions_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="a batch takes an iterable"):
        Source(given, unheard)


async def test_nothing_is_read_before_it_is_asked_for() -> None:
    read: list[int] = []
    source: Source[None] = Source((read.append(n) for n in range(5)), unheard)
    assert read == []
    await source.read(always)
    assert read == [0]


def failing() -> Iterator[int]:
    yield 0
    raise OSError("the disk is gone")


async def failing_later() -> AsyncIterator[int]:
    yield 0
    raise OSError("the disk is gone")


@pytest.mark.parametrize("given", [failing, failing_later])
async def test_error_of_the_source_ends_it_and_is_kept(given: Callable[[], Any]) -> None:
    source: Source[int] = Source(given(), unheard)
    assert await read_all(source) == [(0, 0)]
    assert isinstance(source.error, OSError)
    assert (source.count, source.is_exhausted) == (1, True)


@pytest.mark.parametrize("kind", [plain, awaited])
async def test_nothing_is_read_once_it_is_not_wanted(kind: Callable[[int], Any]) -> None:
    source: Source[int] = Source(kind(PAUSE * 2), unheard)
    for _ in range(PAUSE):
        await source.read(always)
    with pytest.raises(SourceEnded):  # a plain source asks where it pauses
        await source.read(lambda: False)
    assert (source.count, source.is_exhausted, source.error) == (PAUSE, False, None)


async def test_long_list_lets_the_loop_turn() -> None:
    turns = 0

    async def turning() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(turning())
    await read_all(Source(range(PAUSE * 4), unheard))
    task.cancel()
    assert turns >= 4


async def test_reader_that_is_cancelled_ends_nothing_for_the_others() -> None:
    go_on = asyncio.Event()

    class Slow:
        """Its items come when they may, and a cancelled wait for one loses none."""

        def __aiter__(self) -> Slow:
            return self

        async def __anext__(self) -> str:
            await go_on.wait()
            return "an item"

    source: Source[str] = Source(Slow(), unheard)
    reading = asyncio.create_task(source.read(always))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    go_on.set()
    assert await source.read(always) == (0, "an item")


@pytest.mark.parametrize("kind", [plain, awaited])
async def test_generator_not_read_to_its_end_is_closed(kind: Callable[[int], Any]) -> None:
    given = kind(3)
    source: Source[int] = Source(given, unheard)
    await source.read(always)
    await source.close()
    with pytest.raises(StopIteration if kind is plain else StopAsyncIteration):
        next(given) if kind is plain else await anext(given)


# --- what a source holds open over its items --------------------------------------------------------------------------


class Holding:
    """A source with a timeout, a task group or a scope over its items; `end` ends that while nobody asks for one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._end: Callable[[], object] = unheard

    async def __call__(self) -> AsyncIterator[int]:
        if self.kind == "timeout":
            async with asyncio.timeout(None) as limit:
                self._end = lambda: limit.reschedule(asyncio.get_running_loop().time())
                for n in range(2):
                    yield n  # noqa: ASYNC119 - a source may do so
        elif self.kind == "task group":
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._end = lambda: failed.set_exception(OSError("the disk is gone"))
            async with asyncio.TaskGroup() as group:
                group.create_task(waiting_for(failed))
                for n in range(2):
                    yield n  # noqa: ASYNC119 - a source may do so
        else:
            with anyio.CancelScope() as scope:
                self._end = scope.cancel
                for n in range(2):
                    yield n  # noqa: ASYNC119 - a source may do so
        yield 9

    async def end(self) -> None:
        self._end()
        for _ in range(20):
            await asyncio.sleep(0)


async def waiting_for(future: asyncio.Future[None]) -> None:
    await future


async def read_apart(source: Source[int]) -> tuple[int, int] | None:
    """The next item, read by a task of its own, as each submitter is; None at the end."""
    try:
        return await asyncio.create_task(source.read(always))
    except SourceEnded:
        return None


@pytest.mark.parametrize(
    ("kind", "after", "error"),
    [("timeout", None, TimeoutError), ("task group", None, ExceptionGroup), ("scope", (1, 9), type(None))],
)
async def test_what_a_source_holds_open_ends_in_it(kind: str, after: Any, error: type[BaseException]) -> None:
    holding = Holding(kind)
    source: Source[int] = Source(holding(), unheard)
    assert await read_apart(source) == (0, 0)
    await holding.end()
    assert await read_apart(source) == after
    assert isinstance(source.error, error)
    assert await read_apart(source) is None
    await source.close()


@pytest.mark.parametrize("kind", ["timeout", "task group", "scope"])
async def test_source_that_is_closed_leaves_in_its_own_task(kind: str) -> None:
    source: Source[int] = Source(Holding(kind)(), unheard)
    assert await read_apart(source) == (0, 0)
    await asyncio.create_task(source.close())
    assert source.error is None


async def test_items_that_nobody_asked_for_are_all_kept() -> None:
    go_on = asyncio.Event()
    scope = anyio.CancelScope()

    async def given() -> AsyncIterator[str]:
        with scope:
            await go_on.wait()
            yield "whose reader was cancelled"  # noqa: ASYNC119 - a source may do so
            yield "never"  # noqa: ASYNC119 - a source may do so
        yield "after the scope ended"

    source: Source[str] = Source(given(), unheard)
    reading = asyncio.create_task(source.read(always))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    go_on.set()
    await asyncio.sleep(0)
    scope.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert [await source.read(always) for _ in range(2)] == [
        (0, "whose reader was cancelled"),
        (1, "after the scope ended"),
    ]
    await source.close()
