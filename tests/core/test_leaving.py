"""However a block is left, its work ends at once, nothing is left over, and running jobs are reported."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import random
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import pytest
from _scripted import NEVER, Asked, Boom, Scripted, is_get, is_submit, opened, turns

from aiopplx import ConfigError, Event, EventKind, JobStatus, RetryPolicy, Session

# An answer is waited for however long the test holds it back.
PATIENT = RetryPolicy(leave_grace=3600.0)


def left(told: list[Event]) -> list[Event]:
    return [event for event in told if event.kind is EventKind.LEFT]


class Clean:
    """Fails if anything is left over at the end of its block: a task, a descriptor, a thread, an unheard exception."""

    def __init__(self, server: Scripted) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._unheard: list[str] = []

    async def __aenter__(self) -> Self:
        gc.collect()
        self._handler = self._loop.get_exception_handler()
        self._hook = sys.unraisablehook
        self._loop.set_exception_handler(lambda loop, context: self._unheard.append(repr(context)))
        sys.unraisablehook = lambda unraisable: self._unheard.append(repr(unraisable))
        self._before = self._now()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.check()
                gc.collect()
                await turns(2)
        finally:
            self._loop.set_exception_handler(self._handler)
            sys.unraisablehook = self._hook
        assert self._unheard == []

    @staticmethod
    def _now() -> tuple[set[asyncio.Task[Any]], set[threading.Thread], int]:
        return asyncio.all_tasks(), set(threading.enumerate()), len(os.listdir("/proc/self/fd"))

    async def check(self) -> None:
        # Before any turn of the loop: what is left now was left by the block, and did not just need a moment.
        tasks, threads, _ = self._now()
        assert tasks - self._before[0] == set()
        assert threads - self._before[1] == set()
        await self._server.until(lambda: not self._server.connections)
        assert self._now() == self._before
        assert self._unheard == []


def all_told(server: Scripted, told: list[Event]) -> bool:
    """Is every job that the service has made told of, by its key at least?"""
    kinds = (EventKind.SUBMITTED, EventKind.LEFT, EventKind.FINISHED)
    return {row.key for row in server.rows.values()} <= {e.idempotency_key for e in told if e.kind in kinds}


# --- what applications do, and how they are stopped ------------------------------------------------------------------


async def one_batch(session: Session) -> None:
    async with session.batch([f"question {n}" for n in range(5)]) as jobs:
        async for job in jobs:
            assert job.ok


async def one_ordered_batch(session: Session) -> None:
    async with session.batch((f"question {n}" for n in range(5)), ordered=True, max_in_flight=2) as jobs:
        async for job in jobs:
            assert job.ok


async def nested_asks(session: Session) -> None:
    async with session.batch(["one", "two"]) as jobs:
        async for job in jobs:
            assert (await session.ask(f"and {job.text}?")).ok


async def two_batches(session: Session) -> None:
    async with session.batch(["one", "two"]) as first, session.batch(["three", "four"]) as second:
        async for job in first:
            assert job.ok
        async for job in second:
            assert job.ok


async def single_calls(session: Session) -> None:
    job = await session.submit("one")
    await session.get(job.id)
    await session.list()
    assert (await session.wait(job.id)).ok


async def crowd_of_asks(session: Session) -> None:
    async with asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(session.ask(f"question {n}"))


WORK = [one_batch, one_ordered_batch, nested_asks, two_batches, single_calls, crowd_of_asks]
Work = Callable[[Session], Awaitable[None]]
Way = Callable[[Coroutine[Any, Any, None], random.Random], Awaitable[None]]


async def moment(rng: random.Random) -> None:
    """Some moment of the work: so many turns of the loop, or so many milliseconds."""
    if rng.random() < 0.5:
        await turns(rng.randrange(120))
    else:
        await asyncio.sleep(rng.uniform(0, 0.03))


async def by_cancel(work: Coroutine[Any, Any, None], rng: random.Random) -> None:
    task = asyncio.create_task(work)
    await moment(rng)
    running = task.cancel()
    await asyncio.wait([task])
    # The work may have had its last await behind it.
    assert task.cancelled() == running or (not task.cancelled() and task.exception() is None)


async def by_move_on_after(work: Coroutine[Any, Any, None], rng: random.Random) -> None:
    with anyio.move_on_after(rng.uniform(0, 0.03)):
        await work


async def by_fail_after(work: Coroutine[Any, Any, None], rng: random.Random) -> None:
    with contextlib.suppress(TimeoutError), anyio.fail_after(rng.uniform(0, 0.03)):
        await work


async def by_timeout(work: Coroutine[Any, Any, None], rng: random.Random) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(rng.uniform(0, 0.03)):
            await work


async def by_sibling(work: Coroutine[Any, Any, None], rng: random.Random) -> None:
    boom = Boom()

    async def failing() -> None:
        await moment(rng)
        raise boom

    caught: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(work)
            group.create_task(failing())
    except* Boom as errors:
        caught.extend(errors.exceptions)
    assert caught == [boom]


WAYS: list[Way] = [by_cancel, by_move_on_after, by_fail_after, by_timeout, by_sibling]


async def in_session(server: Scripted, told: list[Event], work: Work, rng: random.Random) -> None:
    async with opened(server, told, max_in_flight=rng.choice([1, 2, 1000])) as session:
        await work(session)


async def broken_off(server: Scripted, told: list[Event], rng: random.Random) -> None:
    """The body itself ends it: by break, by an exception of its own, or by closing the session under the batch."""
    boom = Boom()
    stop_after, how = rng.randrange(4), rng.choice(["break", "raise", "close"])
    raised: BaseException | None = None
    try:
        async with (
            opened(server, told) as session,
            session.batch((f"question {n}" for n in itertools.count()), max_in_flight=3) as jobs,
        ):
            if stop_after == 0 and how == "raise":
                raise boom
            for n in itertools.count():
                assert (await anext(jobs)).ok
                if n >= stop_after and how == "break":
                    break
                if n >= stop_after and how == "raise":
                    raise boom
                if n >= stop_after:
                    await session.aclose()
    except (Boom, ConfigError) as error:
        raised = error
    assert (raised is boom) if how == "raise" else isinstance(raised, ConfigError if how == "close" else type(None))


# A tenth of them is enough for the further versions of Python.
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
async def test_thousand_random_ends_leave_nothing_over(seed: int, server: Scripted):
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()

    def lagging(asked: Asked) -> bool:
        lags = rng.random() < 0.6
        if lags:
            loop.call_later(rng.uniform(0, 0.008), server.release, asked)
        return lags

    server.hold = lagging
    server.polls = lambda row: 1 + len(row.question) % 2 + int(row.id[-1]) % 2
    async with Clean(server) as clean:
        for _ in range(100):
            told: list[Event] = []
            server.forget()
            if rng.random() < 0.25:
                await broken_off(server, told, rng)
            else:
                await rng.choice(WAYS)(in_session(server, told, rng.choice(WORK), rng), rng)
            await clean.check()
            assert all_told(server, told)


# --- cancellation at every await -------------------------------------------------------------------------------------


class Stepped:
    """A coroutine that is cancelled at its n-th suspension, exactly."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], n: int) -> None:
        self._coroutine = coroutine
        self._n = n
        self.reached = False

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        value: Any = None
        error: BaseException | None = None
        for step in itertools.count():
            try:
                waited = self._coroutine.throw(error) if error else self._coroutine.send(value)
            except StopIteration:
                return
            if step == self._n:
                self.reached = True
                task.cancel()
            value = error = None
            try:
                value = yield waited
            except BaseException as thrown:
                error = thrown


async def run_stepped(stepped: Stepped) -> None:
    await stepped


async def cancel_at_every_await(server: Scripted, run: Callable[[list[Event], int], Coroutine[Any, Any, None]]) -> None:
    """Runs it again and again, cancelled at its first await, at its second, and so on until it comes to its end."""
    async with Clean(server) as clean:
        for n in itertools.count():
            told: list[Event] = []
            server.forget()
            stepped = Stepped(run(told, n), n)
            task = asyncio.create_task(run_stepped(stepped))
            await asyncio.wait([task])
            end_of_journals()
            await clean.check()
            assert all_told(server, told)
            if not stepped.reached:
                assert task.exception() is None
                break
            assert task.cancelled()
        assert n >= 3


def end_of_journals() -> None:
    """A journal whose closing is cancelled goes on closing by itself; one that nobody closes is there for ever."""
    for thread in threading.enumerate():
        if thread.name == "aiopplx-journal":
            thread.join(5)


@pytest.mark.parametrize("work", WORK)
async def test_cancellation_at_every_await_leaves_nothing_over(work: Work, server: Scripted):
    rng = random.Random(0)
    await cancel_at_every_await(server, lambda told, n: in_session(server, told, work, rng))


@pytest.mark.parametrize("work", [one_batch, nested_asks, single_calls])
async def test_cancellation_at_every_await_with_a_journal_leaves_nothing(work: Work, server: Scripted, tmp_path: Path):
    async def journaled(told: list[Event], n: int) -> None:
        async with opened(server, told, journal=tmp_path / f"{n}.db") as session:
            await work(session)

    await cancel_at_every_await(server, journaled)


@pytest.mark.parametrize("work", WORK)
async def test_cancellation_after_any_number_of_turns_leaves_nothing(work: Work, server: Scripted):
    rng = random.Random(0)
    async with Clean(server) as clean:
        for n in [*range(40), *range(40, 400, 9)]:
            told: list[Event] = []
            server.forget()
            task = asyncio.create_task(in_session(server, told, work, rng))
            await turns(n)
            task.cancel()
            await asyncio.wait([task])
            await clean.check()
            assert all_told(server, told)


# --- the body's own exception ----------------------------------------------------------------------------------------


async def test_exception_of_the_body_comes_out_unwrapped(server: Scripted):
    boom = Boom("mine")

    async def body() -> None:
        async with opened(server) as session, session.batch(["one", "two"]) as jobs:
            async for _ in jobs:
                raise boom

    with pytest.raises(Boom) as caught:
        await body()
    assert caught.value is boom
    assert boom.__cause__ is None
    assert boom.__context__ is None


async def test_exception_of_the_body_survives_a_failing_source(server: Scripted):
    told: list[Event] = []

    def source() -> Iterator[str]:
        try:
            for n in itertools.count():
                yield f"question {n}"
        finally:
            raise KeyError("the source's own")

    boom = Boom()

    async def body() -> None:
        async with opened(server, told, max_in_flight=2) as session, session.batch(source()) as jobs:
            async for _ in jobs:
                raise boom

    with pytest.raises(Boom) as caught:
        await body()
    assert caught.value is boom
    assert [e.reason for e in told if e.kind is EventKind.WARNING] == [
        "the source failed while it was closed: KeyError"
    ]


async def test_cancelled_error_passes_through_an_ask(server: Scripted):
    server.polls = NEVER
    async with opened(server) as session:
        task = asyncio.create_task(session.ask("one"))
        await server.until(lambda: server.requests["get"] > 0)
        task.cancel("by me")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("by me",)


async def test_callers_own_deadline_is_a_plain_timeout(server: Scripted):
    server.polls = NEVER
    async with opened(server) as session, session.batch(["one"]) as jobs:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.03):
                await anext(jobs)
        assert type(caught.value) is TimeoutError
        # The batch goes on: only the waiting was cut short.
        server.polls = 1
        assert (await anext(jobs)).ok


# --- a submission that is out ----------------------------------------------------------------------------------------


async def consume(session: Session, questions: list[str], seen: list[Any], **options: Any) -> None:
    batch = session.batch(questions, **options)
    seen.append(batch)
    async with batch as jobs:
        async for _ in jobs:
            pass


async def test_leaving_a_batch_waits_for_ids_still_coming(server: Scripted):
    server.hold = is_submit
    told: list[Event] = []
    batches: list[Any] = []
    async with opened(server, told, retry=PATIENT) as session:
        task = asyncio.create_task(consume(session, ["one", "two", "three"], batches))
        await server.until(lambda: len(server.held) == 3)
        task.cancel()
        await turns(20)
        assert not task.done()
        server.release()
        await asyncio.wait([task])
        assert task.cancelled()
        ids = sorted(server.rows)
        assert sorted(job.id for job in batches[0].pending) == ids
        assert sorted(event.job_id for event in left(told)) == ids
        assert {event.idempotency_key for event in left(told)} == set(server.by_key)


async def test_leaving_a_batch_waits_only_for_ids(server: Scripted):
    """The other submitters have nothing out: what they wait for (room, the source, the pace) is not waited for."""
    server.hold = is_submit
    never = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "one"
        await never.wait()

    async def body(session: Session) -> None:
        async with session.batch(source()) as jobs:
            await anext(jobs)

    async with opened(server, retry=PATIENT) as session:
        task = asyncio.create_task(body(session))
        await server.until(lambda: len(server.held) == 1)
        task.cancel()
        await turns(5)
        server.release()
        with anyio.fail_after(10):
            await asyncio.wait([task])


@pytest.mark.parametrize("options", [{"max_in_flight": 1}, {"rpm": 60.0}])
async def test_nothing_is_submitted_after_leaving_the_block(options: dict[str, Any], server: Scripted):
    """While the one that is out is waited for, those behind it (for a slot, at the gate) must not follow."""
    server.hold = is_submit
    async with opened(server, retry=RetryPolicy(leave_grace=0.1), **options) as session:
        task = asyncio.create_task(consume(session, [f"question {n}" for n in range(5)], [], max_in_flight=5))
        await server.until(lambda: len(server.held) == 1)
        task.cancel()
        await turns(5)
        seen = server.requests["submit"]
        server.release()
        await asyncio.wait([task])
        await asyncio.wait_for(session.list(), 5)
        assert server.requests["submit"] == seen


async def test_submission_without_an_answer_is_left_after_the_grace(server: Scripted):
    server.hold = is_submit
    told: list[Event] = []
    batches: list[Any] = []
    async with opened(server, told, retry=RetryPolicy(leave_grace=0.05)) as session:
        task = asyncio.create_task(consume(session, ["one"], batches))
        await server.until(lambda: len(server.held) == 1)
        task.cancel()
        await asyncio.wait([task])
        (row,) = server.rows.values()
        (job,) = batches[0].pending
        assert (job.status, job.idempotency_key, job.id) == (JobStatus.IN_DOUBT, row.key, "")
        assert job.error.is_in_doubt
        assert [(e.idempotency_key, e.job_id, e.status) for e in left(told)] == [(row.key, "", JobStatus.IN_DOUBT)]


async def test_second_cancellation_ends_the_grace_in_doubt(server: Scripted):
    server.hold = is_submit
    told: list[Event] = []
    async with opened(server, told, retry=PATIENT) as session:
        tasks = [asyncio.create_task(consume(session, ["one"], [])), asyncio.create_task(session.ask("two"))]
        await server.until(lambda: len(server.held) == 2)
        for task in tasks:
            task.cancel()
        await turns(5)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert {event.idempotency_key for event in left(told)} == set(server.by_key)
        assert {event.status for event in left(told)} == {JobStatus.IN_DOUBT}


async def test_cancelled_ask_waits_for_the_id_of_its_submission(server: Scripted):
    server.hold = is_submit
    told: list[Event] = []
    async with opened(server, told, retry=PATIENT) as session:
        task = asyncio.create_task(session.ask("one", tag="mine"))
        await server.until(lambda: len(server.held) == 1)
        task.cancel()
        await turns(20)
        assert not task.done()
        server.release()
        await asyncio.wait([task])
        assert task.cancelled()
        assert [(event.job_id, event.tag) for event in left(told)] == [("job-0", "mine")]


async def test_cancelled_calls_without_an_answer_report_doubt(server: Scripted):
    server.hold = is_submit
    told: list[Event] = []
    async with opened(server, told, retry=RetryPolicy(leave_grace=0.05)) as session:
        tasks = [asyncio.create_task(session.ask("one")), asyncio.create_task(session.submit("two"))]
        await server.until(lambda: len(server.held) == 2)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert {event.idempotency_key for event in left(told)} == set(server.by_key)
        assert {event.status for event in left(told)} == {JobStatus.IN_DOUBT}


async def test_ask_cancelled_mid_run_frees_its_slot(server: Scripted):
    server.polls = lambda row: NEVER if row.question == "stuck" else 1
    told: list[Event] = []
    async with opened(server, told, max_in_flight=1) as session:
        task = asyncio.create_task(session.ask("stuck"))
        await server.until(lambda: server.requests["get"] > 0)
        task.cancel()
        await asyncio.wait([task])
        assert [event.job_id for event in left(told)] == ["job-0"]
        assert (await session.ask("next")).ok


# --- what is pending -------------------------------------------------------------------------------------------------


async def test_pending_has_running_and_undelivered_jobs(server: Scripted):
    server.polls = lambda row: NEVER if row.question == "stuck" else 1
    told: list[Event] = []
    async with opened(server, told) as session:
        async with session.batch(["one", "two", "stuck"]) as jobs:
            taken = await anext(jobs)
            await server.until(lambda: server.told == 2 and not server.held)
            await turns(20)
            assert {job.id for job in jobs.pending} == set(server.rows) - {taken.id}
        pending = {job.id: job for job in jobs.pending}
    assert set(pending) == set(server.rows) - {taken.id}
    assert sorted(job.status for job in pending.values()) == [JobStatus.COMPLETED, JobStatus.IN_PROGRESS]
    assert next(job.text for job in pending.values() if job.ok).startswith("answer to ")
    # What has finished does not go on: only the other is told of.
    assert [event.job_id for event in left(told)] == [job.id for job in pending.values() if not job.done]


async def test_batch_read_to_its_end_leaves_nothing(server: Scripted):
    told: list[Event] = []
    async with opened(server, told) as session:
        async with session.batch(["one", "two"]) as jobs:
            assert len([job async for job in jobs]) == 2
        assert jobs.pending == []
    assert left(told) == []


# --- the session is closed -------------------------------------------------------------------------------------------


async def test_session_closed_under_waiting_calls_raises_in_each(server: Scripted):
    """Nobody cancelled these tasks: a CancelledError would be taken for that, and a call that hangs is worse."""
    server.polls = NEVER
    server.hold = lambda asked: asked.question == "held"
    told: list[Event] = []
    session = opened(server, told, max_in_flight=3, retry=RetryPolicy(leave_grace=0.05))
    job = await session.submit("waited for")
    waiting = [
        asyncio.create_task(call)
        for call in (
            session.ask("running"),
            session.ask("running too"),
            session.ask("held"),
            session.ask("for a slot"),
            session.submit("held"),
            session.wait(job.id),
            session.wait(job),
            consume(session, ["for a slot too"], []),
        )
    ]
    await server.until(lambda: len(server.held) == 2 and server.requests["get"] >= 3)
    await turns(20)
    with anyio.fail_after(10):
        await session.aclose()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConfigError] * len(waiting)
    assert len({id(outcome) for outcome in outcomes}) == len(waiting)
    assert {event.idempotency_key for event in left(told)} >= {
        row.key for row in server.rows.values() if row.question != "waited for"
    }


async def test_session_closed_under_a_batch_keeps_its_results(server: Scripted):
    server.polls = NEVER
    session = opened(server)
    batches: list[Any] = []
    task = asyncio.create_task(consume(session, ["one", "two"], batches))
    await server.until(lambda: server.requests["get"] >= 2)
    await session.aclose()
    with pytest.raises(ConfigError, match="closed"):
        await task
    assert sorted(job.id for job in batches[0].pending) == ["job-0", "job-1"]


async def test_session_waits_for_a_batch_that_is_being_left(server: Scripted):
    server.hold = is_submit
    told: list[Event] = []
    session = opened(server, told, retry=PATIENT)
    leaving = asyncio.create_task(consume(session, ["one"], []))
    await server.until(lambda: len(server.held) == 1)
    leaving.cancel()
    await turns(5)
    closing = asyncio.create_task(session.aclose())
    await turns(20)
    assert not closing.done()
    server.release()
    with anyio.fail_after(10):
        await asyncio.wait([leaving, closing])
    assert [event.job_id for event in left(told)] == ["job-0"]


async def test_session_left_in_a_cancelled_scope_closes_its_connections(server: Scripted):
    """A cancelled anyio scope cancels each further await; closing must get through all the same."""
    server.polls = NEVER
    async with Clean(server):
        with anyio.CancelScope() as scope:
            async with opened(server) as session, session.batch(["one", "two"]) as jobs:
                await server.until(lambda: server.requests["get"] >= 2)
                scope.cancel()
                await anext(jobs)
        assert scope.cancelled_caught


async def test_session_left_in_a_cancelled_scope_waits_for_ids(server: Scripted):
    server.hold = is_submit
    told: list[Event] = []
    asking: list[asyncio.Task[Any]] = []

    async def body() -> None:
        with anyio.CancelScope() as scope:
            async with opened(server, told, retry=PATIENT) as session:
                asking.append(asyncio.create_task(session.ask("one")))
                await server.until(lambda: len(server.held) == 1)
                scope.cancel()

    leaving = asyncio.create_task(body())
    await server.until(lambda: len(server.held) == 1)
    await turns(20)
    assert not leaving.done()
    server.release()
    await leaving
    with pytest.raises(ConfigError, match="closed"):
        await asking[0]
    assert [event.job_id for event in left(told)] == ["job-0"]


async def test_no_task_of_a_batch_outlives_its_block(server: Scripted):
    """Not by one turn of the loop: whoever leaves a block may end the loop with it."""
    server.hold = lambda asked: asked.question.startswith("held")
    server.polls = NEVER
    questions = [f"{word} {n}" for n in range(3) for word in ("held", "running")]
    async with opened(server, max_in_flight=5, retry=RetryPolicy(leave_grace=0.01)) as session:
        before = asyncio.all_tasks()
        async with session.batch(questions):
            await server.until(lambda: server.requests["get"] > 3)
            assert asyncio.all_tasks() > before
        assert asyncio.all_tasks() == before


async def test_poll_in_flight_ends_with_its_last_waiter(server: Scripted):
    server.hold = is_get
    async with opened(server) as session:
        job = await session.submit("one")
        waiting = [asyncio.create_task(session.wait(job)) for _ in range(2)]
        await server.until(lambda: len(server.held) == 1)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await server.until(lambda: not server.held)


async def test_forgotten_batch_ends_with_the_session(server: Scripted):
    server.polls = NEVER
    async with Clean(server), opened(server) as session:
        await session.batch(["one"]).__aenter__()
        await server.until(lambda: server.requests["get"] > 0)
        gc.collect()
        seen = server.requests["get"]
        await server.until(lambda: server.requests["get"] > seen)


async def test_polls_in_flight_end_with_their_batch(server: Scripted):
    server.hold = is_get
    async with opened(server) as session:
        before = asyncio.all_tasks()
        task = asyncio.create_task(consume(session, [f"question {n}" for n in range(8)], []))
        await server.until(lambda: len(server.held) == 8)
        task.cancel()
        await asyncio.wait([task])
        assert asyncio.all_tasks() == before
        await server.until(lambda: not server.held)


async def test_sources_are_closed_with_the_block(server: Scripted):
    closed: list[str] = []

    def plain() -> Iterator[str]:
        try:
            yield from (f"question {n}" for n in itertools.count())
        finally:
            closed.append("plain")

    async def awaiting() -> AsyncIterator[str]:
        try:
            for n in itertools.count():
                yield f"question {n}"
        finally:
            await asyncio.sleep(0)
            closed.append("awaiting")

    class Reusable:
        def __iter__(self) -> Iterator[str]:
            return plain()

    async with opened(server, max_in_flight=2) as session:
        for source in (plain(), awaiting(), Reusable()):
            async with session.batch(source) as jobs:
                async for _ in jobs:
                    break
    assert closed == ["plain", "awaiting", "plain"]


# --- what the log says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 113])
@pytest.mark.parametrize("journal", [True, False], ids=["journal", "none"])
async def test_log_of_many_jobs_left_at_once_is_short(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, count: int, journal: bool
) -> None:
    """A person whose cell was interrupted reads it; without a journal the ids may be nowhere else."""
    told: list[Event] = []
    async with Scripted() as server:
        server.polls = NEVER
        keep = tmp_path / "j.db" if journal else None
        async with opened(server, journal=keep, on_event=told.append) as session:
            async with session.batch(str(number) for number in range(count)) as jobs:
                await server.until(lambda: session.stats().running == count)
            ids = {job.id for job in jobs.pending}
    assert {event.job_id for event in left(told)} == ids
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if count == 3:
        assert len(said) == 3
    elif journal:
        (line,) = said
        assert line.startswith("left 113 jobs, which go on, and are billed, at the service; the journal has their ids")
    else:
        assert [line.split(",")[0] for line in said] == ["left 100 jobs", "left 13 jobs"]
        assert all(job_id in " ".join(said) for job_id in ids)


async def test_log_has_ids_of_jobs_only_submitted(caplog: pytest.LogCaptureFixture) -> None:
    """A web app answers `submit` with an id, and is stopped: the next process, or a person, has to find its jobs."""
    async with Scripted() as server, opened(server) as session:
        over, polled = [await session.submit(question) for question in ("waited for", "polled once")]
        await session.wait(over.id)
        assert (await session.get(polled.id)).done
        running = await session.submit("neither")
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [f"left 1 job, which goes on, and is billed, at the service: {running.id}"]
