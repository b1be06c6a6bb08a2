"""Whatever the caller's own code raises, nothing hangs: every paid job is handed out, and leaving is bounded.

The caller's code runs in many places: handlers of events, handlers and filters of the log, the poll rule, sources,
items, a session given as `http=`, a store. Each of them raises each kind of exception here, and some do not end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from _scripted import Boom, Scripted, Told, opened

from aiopplx import (
    ConfigError,
    EventKind,
    InvalidRequest,
    Job,
    JobStatus,
    NetworkOptions,
    PollPolicy,
    RetryPolicy,
    Session,
)
from aiopplx.journal import MemoryJournal, MemoryStore
from aiopplx.testing import Clock

SOON = 20.0
QUESTIONS = [f"question {n}" for n in range(6)]
QUICK = RetryPolicy(base=1, max_delay=2, leave_grace=20)


class Odd(BaseException):
    """Neither an `Exception` nor the end of the program."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "Exception": Boom,
    "BaseException": Odd,
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "TimeoutError": TimeoutError,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "OSError": lambda: OSError(5, "I/O error"),
    "group": lambda: BaseExceptionGroup("several", [Odd(), Boom()]),
    "aiohttp's": aiohttp.ClientError,
}
ENDS: dict[str, Callable[[], BaseException]] = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}


class Fails:
    """Raises at the `first`-th call and at those that follow it, `times` in all."""

    def __init__(self, error: Callable[[], BaseException], *, first: int = 1, times: float = 1) -> None:
        self._error = error
        self._first = first
        self._last = first + times - 1
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self._first <= self.calls <= self._last:
            raise self._error()

    @property
    def has_raised(self) -> bool:
        return self.calls >= self._first


# --- the places ------------------------------------------------------------------------------------------------------

Words = dict[str, Any]


class Place:
    """A place where the caller's code runs: what a session and its source are made of so that it does."""

    def __init__(self, fails: Fails, stack: AsyncExitStack) -> None:
        self.fails = fails
        self.stack = stack
        self.words: Words = {}
        self.source: Any = QUESTIONS
        self.run: str | None = None


async def on_event(place: Place) -> None:
    place.fails._last = 1e9
    place.words["on_event"] = lambda event: place.fails()


async def log_handler(place: Place) -> None:
    place.fails._last = 1e9

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            place.fails()

    _hear(place, Handler())


async def log_filter(place: Place) -> None:
    place.fails._last = 1e9
    logger = logging.getLogger("aiopplx")

    def unwilling(record: logging.LogRecord) -> bool:
        place.fails()
        return True

    logger.addFilter(unwilling)
    place.stack.callback(logger.removeFilter, unwilling)
    _hear(place, logging.NullHandler())


def _hear(place: Place, handler: logging.Handler) -> None:
    logger = logging.getLogger("aiopplx")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    place.stack.callback(logger.setLevel, level)
    place.stack.callback(logger.removeHandler, handler)


async def poll_rule(place: Place) -> None:
    def rule(job: object) -> float:
        place.fails()
        return 1.0

    place.words["poll"] = rule


async def source(place: Place) -> None:
    def items() -> Iterator[str]:
        for question in QUESTIONS:
            yield question
            place.fails()

    place.fails._first = 3
    place.source = Raw(items())


async def awaited_source(place: Place) -> None:
    place.fails._first = 3
    place.source = RawAwaited(place.fails)


class Raw:
    """An iterator that is no generator, so that a StopIteration is what it says."""

    def __init__(self, items: Iterator[str]) -> None:
        self._items = items

    def __iter__(self) -> Raw:
        return self

    def __next__(self) -> str:
        return next(self._items)


class RawAwaited:
    def __init__(self, fails: Fails) -> None:
        self._left = list(QUESTIONS)
        self._fails = fails

    def __aiter__(self) -> RawAwaited:
        return self

    async def __anext__(self) -> str:
        await asyncio.sleep(0)
        self._fails()
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)


async def item(place: Place) -> None:
    class Item(dict[str, object]):
        def __iter__(self) -> Iterator[str]:
            place.fails()
            return super().__iter__()

        def keys(self) -> Any:
            place.fails()
            return super().keys()

        def items(self) -> Any:
            place.fails()
            return super().items()

    place.source = [QUESTIONS[0], Item(question="an odd one"), *QUESTIONS[1:]]


def http_hook(signal: str, method: str) -> Callable[[Place], Any]:
    async def make(place: Place) -> None:
        async def hook(session: object, context: object, params: Any) -> None:
            if getattr(params, "method", method) == method:
                place.fails()

        trace = aiohttp.TraceConfig()
        getattr(trace, signal).append(hook)
        place.words["http"] = await place.stack.enter_async_context(aiohttp.ClientSession(trace_configs=[trace]))

    return make


async def middleware(place: Place) -> None:
    async def fail(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await handler(request)
        place.fails()
        return response

    place.fails._first = 2
    place.words["http"] = await place.stack.enter_async_context(aiohttp.ClientSession(middlewares=[fail]))


def store(method: str, first: int = 1) -> Callable[[Place], Any]:
    async def make(place: Place) -> None:
        place.fails._first = first
        journal = MemoryJournal(store=MemoryStore(now=Clock().wall))
        place.words["journal"] = Failing(journal, method, place.fails)
        place.run = "a run"  # sessions may share this store, and the questions have no tags

    return make


class Failing:
    """A store one of whose methods fails."""

    def __init__(self, journal: MemoryJournal, method: str, fails: Fails) -> None:
        self._journal = journal
        self._method = method
        self._fails = fails

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._journal, name)
        if name != self._method:
            return value
        if not asyncio.iscoroutinefunction(value):
            return lambda *args, **words: (self._fails(), value(*args, **words))[1]

        async def call(*args: Any, **words: Any) -> Any:
            self._fails()
            return await value(*args, **words)

        return call


PLACES: dict[str, Callable[[Place], Any]] = {
    "on_event": on_event,
    "log handler": log_handler,
    "log filter": log_filter,
    "poll rule": poll_rule,
    "source": source,
    "awaited source": awaited_source,
    "item": item,
    "hook before a submission": http_hook("on_request_start", "POST"),
    "hook after a submission": http_hook("on_request_end", "POST"),
    "hook before a poll": http_hook("on_request_start", "GET"),
    "hook after a poll": http_hook("on_request_end", "GET"),
    "hook at a connection": http_hook("on_connection_create_start", "POST"),
    "middleware": middleware,
    "store, new row": store("find_or_queue", 2),
    "store, first step": store("apply"),
    "store, a step in the middle": store("apply", 9),
    "store, a late step": store("apply", 17),
    "store, delivered": store("delivered"),
    "store, exhausted": store("exhausted"),
}


@asynccontextmanager
async def placed(name: str, fails: Fails, server: Scripted) -> AsyncIterator[tuple[Place, Session]]:
    async with AsyncExitStack() as stack:
        place = Place(fails, stack)
        await PLACES[name](place)
        # A hundred times as fast, since the schedule that takes the place of a rule begins with half a minute.
        yield place, opened(server, **{"retry": QUICK, "poll": PollPolicy.fixed(1), "clock": Clock(100), **place.words})


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", PLACES)
async def test_callers_code_that_raises_loses_no_job(
    name: str, error: str, server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1, "aiopplx")
    fails = Fails(ERRORS[error])
    jobs: list[Job] = []
    raised: list[BaseException] = []
    async with placed(name, fails, server) as (place, session):
        with anyio.move_on_after(SOON) as scope:
            async with session:
                try:
                    async with session.batch(place.source, run=place.run) as batch:
                        async for job in batch:
                            jobs.append(job)
                except (Exception, Odd, BaseExceptionGroup, GeneratorExit, asyncio.CancelledError) as problem:
                    raised.append(problem)
    assert not scope.cancel_called, "it hung until then, and what ended it may look like an error of the place"
    assert fails.has_raised
    # A job that the server has is there, whatever else ended.
    assert {job.id for job in jobs if job.ok} == set(server.rows)
    # What was not sent is told: by its own job, by the error of the batch, or it was sent after all.
    assert len(server.rows) >= len(QUESTIONS) or raised or any(not job.ok for job in jobs) or "source" in name
    if name in ("on_event", "log handler", "log filter", "poll rule", "store, delivered", "store, exhausted"):
        assert (len(jobs), raised) == (len(QUESTIONS), [])
    if "hook" in name or name == "middleware":
        assert (len(jobs), raised) == (len(QUESTIONS), [])
        assert all(job.ok for job in jobs)


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("name", PLACES)
def test_end_of_the_program_passes_and_work_ends(name: str, error: str) -> None:
    """As in a notebook, where the loop runs on after the end of one cell. It is told once, by being raised."""
    told: list[object] = []
    raised: list[BaseException] = []

    async def program() -> list[Job]:
        jobs: list[Job] = []
        async with Scripted() as server, placed(name, Fails(ENDS[error]), server) as (place, session), session:
            place.fails._last = place.fails._first
            try:
                async with session.batch(place.source, run=place.run) as batch:
                    async for job in batch:
                        jobs.append(job)
            except (Exception, KeyboardInterrupt, SystemExit) as problem:
                raised.append(problem)
        return jobs

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _, context: told.append(context.get("future")))
        task = loop.create_task(program())
        begun = time.monotonic()
        ends = 0
        while not task.done():
            try:
                loop.run_until_complete(asyncio.wait_for(asyncio.shield(task), SOON))
            except (KeyboardInterrupt, SystemExit) as problem:
                ends += isinstance(problem, ENDS[error])  # type: ignore[arg-type]  # both are classes
        # Twice where two tasks pass it on; in the caller's own frame where that is what called.
        assert ends >= 1 or isinstance(raised[0], ENDS[error])  # type: ignore[arg-type]  # as above
        assert time.monotonic() - begun < SOON
        assert task.result() or raised
        if name in ("source", "awaited source", "item"):  # what submits has died of it: so does its batch
            assert isinstance(raised[0], ENDS[error])  # type: ignore[arg-type]  # as above
        gc.collect()
        assert told == []


# --- what does not end -----------------------------------------------------------------------------------------------


class Stubborn:
    """Code that swallows every cancellation, until the test lets it go."""

    def __init__(self) -> None:
        self.is_in = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self) -> None:
        self.is_in.set()
        while not self.let_go.is_set():
            with suppress(asyncio.CancelledError):
                await self.let_go.wait()


async def hanging_source(stubborn: Stubborn, stack: AsyncExitStack) -> tuple[Words, Any]:
    async def items() -> AsyncIterator[str]:
        yield QUESTIONS[0]
        await stubborn()
        yield QUESTIONS[1]

    return {}, items()


async def source_that_hangs_while_it_is_closed(stubborn: Stubborn, stack: AsyncExitStack) -> tuple[Words, Any]:
    async def items() -> AsyncIterator[str]:
        try:
            for question in QUESTIONS[:2]:
                yield question
            stubborn.is_in.set()
            yield "never"
        finally:
            await stubborn()

    return {}, items()


def hanging_client(method: str) -> Callable[[Stubborn, AsyncExitStack], Any]:
    async def make(stubborn: Stubborn, stack: AsyncExitStack) -> tuple[Words, Any]:
        async def hang(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
            if request.method == method and not stubborn.let_go.is_set():
                await stubborn()
                raise Boom
            response: aiohttp.ClientResponse = await handler(request)
            return response

        return {"http": await stack.enter_async_context(aiohttp.ClientSession(middlewares=[hang]))}, QUESTIONS[:1]

    return make


async def hanging_store(stubborn: Stubborn, stack: AsyncExitStack) -> tuple[Words, Any]:
    class Hanging(MemoryJournal):
        async def apply(self, *args: Any) -> None:
            await stubborn()

    return {"journal": Hanging(now=Clock().wall)}, QUESTIONS[:1]


HANGS: dict[str, Callable[[Stubborn, AsyncExitStack], Any]] = {
    "source": hanging_source,
    "closing source": source_that_hangs_while_it_is_closed,
    "client, submission": hanging_client("POST"),
    "client, poll": hanging_client("GET"),
    "store": hanging_store,
}


async def left_while(hang: Callable[[Stubborn, AsyncExitStack], Any], way: str) -> tuple[int, int]:
    """Leave a batch in one of three ways while the caller's code hangs: submissions at that moment, and in the end."""
    stubborn = Stubborn()
    async with AsyncExitStack() as stack, Scripted(polls=3) as server:
        words, given = await hang(stubborn, stack)
        session = opened(server, retry=RetryPolicy(leave_grace=0.2), max_in_flight=3, **words)
        try:

            async def consume() -> None:
                async with session, session.batch(given) as jobs:
                    if way == "break":
                        await stubborn.is_in.wait()
                        return
                    async for _ in jobs:
                        pass

            consumer = asyncio.create_task(consume())
            await stubborn.is_in.wait()
            if way == "cancel":
                consumer.cancel()
            elif way == "aclose":
                await session.aclose()
            ends = await asyncio.gather(consumer, return_exceptions=True)
            assert isinstance(ends[0], ConfigError | asyncio.CancelledError | None)
            then = server.requests["submit"]
        finally:
            stubborn.let_go.set()
        for _ in range(100):
            await asyncio.sleep(0)
        return then, server.requests["submit"]


async def test_leaving_is_bounded_whatever_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "aiopplx")
    ways = [left_while(hang, way) for hang in HANGS.values() for way in ("break", "cancel", "aclose")]
    with anyio.fail_after(40):
        ends = await asyncio.gather(*ways)
    assert [(then, end) for then, end in ends if then != end] == []


async def test_time_limit_holds_though_its_poll_never_ends(server: Scripted) -> None:
    stubborn = Stubborn()
    async with AsyncExitStack() as stack:
        stack.callback(stubborn.let_go.set)
        words, _ = await hanging_client("GET")(stubborn, stack)
        network = NetworkOptions(poll_seconds=0.05)
        async with opened(server, network=network, clock=Clock(100), **words) as session:
            with anyio.fail_after(SOON):
                job = await session.ask("one", timeout=60)
        assert job.status is JobStatus.TIMED_OUT
        assert job.id == "job-0"


async def test_cancelled_call_ends_though_its_client_swallows_that(server: Scripted) -> None:
    stubborn = Stubborn()
    async with AsyncExitStack() as stack:
        stack.callback(stubborn.let_go.set)
        words, _ = await hanging_client("GET")(stubborn, stack)
        async with opened(server, **words) as session:
            with anyio.fail_after(SOON):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await session.get("job-0")


async def test_client_that_turns_cancellation_into_errors_is_left(server: Scripted) -> None:
    async def turn(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise Boom from None
        raise AssertionError("it is cancelled")

    async with aiohttp.ClientSession(middlewares=[turn]) as http, opened(server, http=http) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await session.get("job-0")


# --- a client that is closed midway ----------------------------------------------------------------------------------


async def test_client_closed_midway_leaves_its_jobs_pending(server: Scripted) -> None:
    told = Told()
    server.polls = float("inf")
    http = aiohttp.ClientSession()
    async with opened(server, http=http, on_event=told) as session, session.batch(QUESTIONS) as batch:
        await told.first(EventKind.POLLED)
        await http.close()
        with anyio.fail_after(SOON):
            with pytest.raises(ConfigError, match="http= is closed"):
                await anext(batch)
        assert {job.id for job in batch.pending} == set(server.rows)
        with pytest.raises(ConfigError, match="http= is closed"):
            await session.get("job-0")


# --- two at once -----------------------------------------------------------------------------------------------------


async def test_second_aclose_returns_when_the_first_has_ended(server: Scripted) -> None:
    server.hold = lambda asked: asked.kind == "submit"
    session = opened(server, retry=RetryPolicy(leave_grace=3600.0))
    asking = asyncio.create_task(session.ask("one"))
    await server.until(lambda: len(server.held) == 1)
    first, second = (asyncio.create_task(session.aclose()) for _ in range(2))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not second.done()
    server.release()
    await second
    assert first.done()
    with pytest.raises(ConfigError):
        await asking


@pytest.mark.parametrize("count", [2, 5])
async def test_one_of_several_resubmissions_of_a_row_is_made(count: int, server: Scripted, tmp_path: Path) -> None:
    server.script = lambda asked: (500, {}) if asked.kind == "submit" else None
    async with opened(server, journal=tmp_path / "run.db", retry=RetryPolicy(on_doubt="hold")) as session:
        await session.ask("one", tag="x")
        server.script = lambda asked: None
        (doubtful,) = await session.in_doubt()
        calls = [session.resubmit(doubtful, pay_again=True) for _ in range(count)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, Job) for end in ends) == 1
    assert sum(isinstance(end, InvalidRequest) for end in ends) == count - 1
    assert server.requests["submit"] == 2
