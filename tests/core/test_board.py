"""Following a batch: how each of its jobs stands, then each change, to the last end, whoever takes the jobs."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from _places import Held, outcome
from _scripted import NEVER, Scripted, opened, turns

from aiopplx import Batch, ConfigError, InvalidRequest, JobStatus, Session
from aiopplx._core.batch.board import KEPT, Board
from aiopplx._core.batch.results import READY
from aiopplx._job import Snapshot
from aiopplx._submission import Phase
from aiopplx.emulator import Emulator
from aiopplx.progress import BatchFollow, Update
from aiopplx.testing import Clock, JumpingClock

KEY = "board-test-key-0123456789"
QUESTIONS = [f"Why did ship number {n} sink?" for n in range(5)]
UNAUTHORIZED = (401, {"error": {"message": "bad key", "type": "invalid_api_key", "code": 401}})


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


def session_at(server: Emulator, clock: Clock, **more: object) -> Session:
    more.setdefault("poll", lambda job: 10.0)
    return Session(KEY, base_url=server.url, clock=clock, **{"api": "agent", **more})  # type: ignore[arg-type]  # words of its own


async def read(follow: BatchFollow) -> list[Update]:
    return [update async for update in follow]


async def taken(jobs: Batch) -> list[object]:
    return [job.id async for job in jobs]


def of(index: int, updates: list[Update]) -> list[Update]:
    return [update for update in updates if update.job.index == index]


# --- what is told ----------------------------------------------------------------------------------------------------


async def test_each_job_is_told_from_acceptance_to_end(clock: JumpingClock) -> None:
    async with (
        Emulator(duration=180.0, answer_chars=400, clock=clock) as server,
        session_at(server, clock) as session,
        session.batch([{"question": text, "tag": text, "meta": {"row": 1}} for text in QUESTIONS]) as jobs,
    ):
        reading = asyncio.create_task(read(jobs.follow()))
        ids = await taken(jobs)
        updates = await reading
    assert sorted(update.job.id for update in updates if update.job.done) == sorted(map(str, ids))
    for index, question in enumerate(QUESTIONS):
        mine = of(index, updates)
        assert [update.job.tag for update in mine] == [question] * len(mine)
        assert len({update.id for update in mine}) == len(mine), "each says something new"
        assert [update.job.done for update in mine] == [False] * (len(mine) - 1) + [True]
        found = [(len(update.job.queries), len(update.job.sources)) for update in mine[:-1]]
        assert found == sorted(found)
        assert found[0] == (0, 0) < found[-1], "and before its end"
        assert {update.job.question for update in mine[:-1]} == {question}
        assert {update.job.raw for update in mine} == {b""}, "the whole answer is not kept"
        seconds = [update.seconds or 0.0 for update in mine]
        assert seconds == sorted(seconds)
        end = mine[-1]
        assert end.job.status is JobStatus.COMPLETED
        assert (end.seconds or 0.0) >= 180.0
        summary = (end.job.response, end.job.raw, end.job.question, end.job.meta)
        assert summary == (None, b"", "", {}), "the batch hands out the rest"


async def test_followers_cost_no_poll_and_hear_the_same(clock: JumpingClock) -> None:
    async with Emulator(duration=60.0, answer_chars=200, clock=clock) as server, session_at(server, clock) as session:
        async with session.batch(QUESTIONS) as jobs:
            await taken(jobs)
        alone = [job.polls for job in server.ledger.jobs]
        async with session.batch(QUESTIONS) as jobs:
            readings = [asyncio.create_task(read(jobs.follow())) for _ in range(20)]
            await taken(jobs)
            told = [await reading for reading in readings]
    assert [job.polls for job in server.ledger.jobs[len(alone) :]] == alone
    assert all(updates == told[0] for updates in told)


async def test_late_follower_is_told_what_happened_before(server: Scripted) -> None:
    server.polls = lambda row: NEVER if row.question.endswith("running") else 1
    async with opened(server) as session, session.batch(["first", "running", ""]) as jobs:
        assert [(await anext(jobs)).index, (await anext(jobs)).index] == [2, 0]
        await server.until(lambda: len(server.rows) == 2)
        follow = jobs.follow()
        told = [await anext(follow) for _ in range(3)]
        assert [(update.job.index, update.job.status) for update in told] == [
            (2, JobStatus.REJECTED),
            (0, JobStatus.COMPLETED),
            (1, JobStatus.IN_PROGRESS),
        ]
        assert isinstance(told[0].job.error, InvalidRequest)
        second = jobs.follow()
        assert [(await anext(second)).id for _ in range(3)] == [update.id for update in told]
    assert await read(follow) == []


async def test_follower_that_comes_too_late_hears_how_it_went(server: Scripted) -> None:
    async with opened(server) as session:
        async with session.batch(QUESTIONS) as jobs:
            await taken(jobs)
            inside = await read(jobs.follow())
        after = await read(jobs.follow())
    assert {update.job.index for update in inside} == set(range(5))
    assert after == inside


async def test_job_of_an_earlier_run_is_told_when_read(tmp_path: Path, server: Scripted) -> None:
    journal = tmp_path / "research.db"
    async with opened(server, journal=journal) as session, session.batch(QUESTIONS[:2]) as jobs:
        await taken(jobs)
    async with opened(server, journal=journal) as session, session.batch(QUESTIONS[:3]) as jobs:
        reading = asyncio.create_task(read(jobs.follow()))
        await server.until(lambda: server.told == 3)
        await turns()
        assert not reading.done(), "two are not known yet"
        await taken(jobs)
        updates = await reading
    assert sorted(update.job.index for update in updates if update.job.done) == [0, 1, 2]
    assert {update.job.status for update in updates if update.job.done} == {JobStatus.COMPLETED}


async def test_outcome_put_back_in_the_journal_is_told_once(tmp_path: Path, server: Scripted) -> None:
    count = READY + 8
    async with (
        opened(server, journal=tmp_path / "research.db") as session,
        session.batch([f"question {n}" for n in range(count)]) as jobs,
    ):
        reading = asyncio.create_task(read(jobs.follow()))
        with anyio.fail_after(60):
            ended = [update.job.index for update in await reading if update.job.done]
        assert sorted(ended) == list(range(count))
        await taken(jobs)
        again = await read(jobs.follow())
    assert sorted(update.job.index for update in again) == list(range(count))


async def test_earlier_job_nobody_took_holds_up_no_follower(tmp_path: Path, server: Scripted) -> None:
    journal = tmp_path / "research.db"
    async with opened(server, journal=journal) as session, session.batch(QUESTIONS) as jobs:
        await taken(jobs)
    async with opened(server, journal=journal) as session:
        async with session.batch(QUESTIONS) as jobs:
            reading = asyncio.create_task(read(jobs.follow()))
            assert (await anext(jobs)).ok
            await turns()
        with anyio.fail_after(60):
            assert len(await reading) == 1


async def test_job_waiting_at_the_server_goes_not_back() -> None:
    batch = Held(1)
    (place,) = batch.places
    follow = told(batch)
    assert (await anext(follow)).id == "in_progress"
    place.polled(Snapshot(id="job-0", status=JobStatus.CREATED, server_status="queued"))
    batch.results.let_go()
    assert await read(follow) == []


async def test_finished_job_without_its_answer_is_told_as_running(clock: JumpingClock) -> None:
    async with (
        Emulator(duration=60.0, answer_chars=200, clock=clock) as server,
        session_at(server, clock, api="sonar") as session,
        session.batch(QUESTIONS[:1]) as jobs,
    ):
        server.faults.add("get", "null_response", times=2)
        reading = asyncio.create_task(read(jobs.follow()))
        job = await anext(jobs)
        updates = await reading
        server.faults.add("get", "null_response", times=2)
        one = [update async for update in session.follow(await session.submit(QUESTIONS[1]))]
    assert job.ok
    assert [update.job.done for update in updates] == [False] * (len(updates) - 1) + [True]
    assert one[-1].job.ok


async def test_follow_is_asked_for_inside_the_block(server: Scripted) -> None:
    async with opened(server) as session:
        batch = session.batch(QUESTIONS)
        with pytest.raises(ConfigError, match="inside its block"):
            batch.follow()
        async with batch:
            with pytest.raises(ConfigError, match="limit"):
                batch.follow(limit=0)


# --- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consumer", ["reads", "waits"])
async def test_follow_ends_after_the_last_end(consumer: str, server: Scripted) -> None:
    async with opened(server) as session, session.batch(QUESTIONS) as jobs:
        reading = asyncio.create_task(read(jobs.follow()))
        if consumer == "reads":
            await taken(jobs)
        with anyio.fail_after(60):
            assert len([update for update in await reading if update.job.done]) == 5


async def test_follow_waits_for_a_source_that_goes_on(server: Scripted) -> None:
    more = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "one"
        await more.wait()
        yield "two"

    async with opened(server) as session, session.batch(source()) as jobs:
        reading = asyncio.create_task(read(jobs.follow()))
        assert (await anext(jobs)).ok
        await turns()
        assert not reading.done()
        more.set()
        with anyio.fail_after(60):
            assert len([update for update in await reading if update.job.done]) == 2


@pytest.mark.parametrize("way", ["break", "error", "cancelled", "session"])
async def test_batch_that_is_left_ends_its_followers(way: str, server: Scripted) -> None:
    server.polls = lambda row: 1 if row.question == QUESTIONS[0] else NEVER
    readings: list[asyncio.Task[list[Update]]] = []

    async def use(session: Session) -> None:
        async with session.batch(QUESTIONS) as jobs:
            readings.append(asyncio.create_task(read(jobs.follow())))
            assert (await anext(jobs)).ok
            if way == "error":
                raise RuntimeError("the caller's own")
            if way == "cancelled":
                await asyncio.Event().wait()
            if way == "session":
                await session.aclose()

    async with opened(server) as session:
        using = asyncio.create_task(use(session))
        await server.until(lambda: server.told == 1 and len(server.rows) == 5)
        await turns()
        if way == "cancelled":
            using.cancel()
        await asyncio.wait([using])
        with anyio.fail_after(60):
            updates = await readings[0]
    assert [update.job.question or "ended" for update in updates if update.job.done] == ["ended"]
    if way == "error":
        assert isinstance(using.exception(), RuntimeError)


async def test_source_that_fails_ends_its_followers_too(server: Scripted) -> None:
    def source() -> object:
        yield "one"
        raise RuntimeError("the source's own")

    async with opened(server) as session, session.batch(source()) as jobs:  # type: ignore[call-overload]  # typed loosely
        reading = asyncio.create_task(read(jobs.follow()))
        with anyio.fail_after(60):
            assert [update.job.done for update in await reading if update.job.done] == [True]
        with pytest.raises(RuntimeError):
            await taken(jobs)


async def test_key_that_is_refused_for_polls_ends_a_follow(server: Scripted) -> None:
    server.polls = NEVER
    async with opened(server) as session, session.batch(QUESTIONS) as jobs:
        reading = asyncio.create_task(read(jobs.follow()))
        await server.until(lambda: len(server.rows) == 5)
        server.script = lambda asked: UNAUTHORIZED
        with anyio.fail_after(60):
            assert not any(update.job.done for update in await reading)


async def test_follow_that_is_closed_ends_its_reader_alone(server: Scripted) -> None:
    async with opened(server) as session, session.batch(QUESTIONS) as jobs:
        async with jobs.follow() as inside:
            await anext(inside)
        assert await read(inside) == []
        follow, other = jobs.follow(), asyncio.create_task(read(jobs.follow()))
        reading = asyncio.create_task(read(follow))
        await asyncio.sleep(0)
        follow.close()
        with anyio.fail_after(60):
            assert not any(update.job.done for update in await reading)
            await taken(jobs)
            assert len([update for update in await other if update.job.done]) == 5


# --- readers that are slow, cancelled or gone ------------------------------------------------------------------------


async def test_reader_that_is_cancelled_loses_no_update(server: Scripted) -> None:
    server.hold = lambda asked: True
    async with opened(server) as session, session.batch(QUESTIONS) as jobs:
        follow = jobs.follow()
        for _ in range(3):
            waiting = asyncio.ensure_future(anext(follow))
            await turns()
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
        server.hold = lambda asked: False
        server.release()
        await taken(jobs)
        with anyio.fail_after(60):
            assert len([update for update in await read(follow) if update.job.done]) == 5


async def test_slow_reader_gets_the_latest_of_each_job(clock: JumpingClock) -> None:
    async with (
        Emulator(duration=120.0, answer_chars=200, clock=clock) as server,
        session_at(server, clock) as session,
        session.batch(QUESTIONS) as jobs,
    ):
        follow = jobs.follow()
        assert not (await anext(follow)).job.done
        await taken(jobs)
        assert sorted((update.job.index, update.job.done) for update in await read(follow)) == [
            (index, True) for index in range(5)
        ]
        assert follow.missed == 0


def told(batch: Held, limit: int = 1000) -> BatchFollow:
    return batch.results.follow(limit, lambda: batch.results.are_told)


async def test_hanging_reader_keeps_so_many_updates_and_no_answer() -> None:
    batch = Held(30)
    follow = told(batch, 10)
    for n, place in enumerate(batch.places):
        place.deliver(place.named(outcome(n)))
    kept = await read(follow)
    assert [update.job.id for update in kept] == [f"job-{n}" for n in range(20, 30)], "the oldest went"
    assert follow.missed == 20 + 30, "of those that ran, and then of those that ended"
    assert {update.job.response for update in kept} == {None}


async def test_closed_follower_costs_no_updates_any_more() -> None:
    board = Board(asyncio.Event())
    first, second = (board.follow((), 5, lambda: False, 0.0) for _ in range(2))
    first.close()
    assert board.is_followed
    second.close()
    second.close()
    assert not board.is_followed


async def test_late_reader_hears_how_many_ends_it_missed() -> None:
    batch = Held(KEPT + 7)
    for n, place in enumerate(batch.places):
        place.deliver(place.named(outcome(n)))
        batch.take()
    late, later = told(batch), told(batch, 5)
    assert late.missed == 7
    assert [update.job.id for update in await read(late)] == [f"job-{n}" for n in range(7, KEPT + 7)]
    assert later.missed == 7 + KEPT - 5
    assert len(await read(later)) == 5


async def test_first_of_new_followers_hears_nothing_stale() -> None:
    batch = Held(1)
    (place,) = batch.places
    place.sub.phase = Phase.SENDING
    first = told(batch)
    place.accepted(Snapshot(id="job-0", status=JobStatus.CREATED, server_status="queued"))
    place.sub.phase = Phase.RUNNING
    assert (await anext(first)).id == "created"
    del first
    gc.collect()
    place.polled(Snapshot(id="job-0", status=JobStatus.IN_PROGRESS, server_status="in_progress"))
    assert (await anext(told(batch))).id == "in_progress"


async def test_dropped_follower_is_no_longer_told() -> None:
    batch = Held(1)
    gone = weakref.ref(told(batch))
    gc.collect()
    assert gone() is None
    assert not batch.results._board.is_followed


async def test_job_that_was_let_go_is_told_no_more() -> None:
    batch = Held(1)
    follow = told(batch)
    await anext(follow)
    batch.results.let_go()
    batch.places[0].accepted(Snapshot(id="job-0", status=JobStatus.CREATED, server_status="queued"))
    assert await read(follow) == []
