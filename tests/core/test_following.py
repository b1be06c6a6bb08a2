"""Following a job: an update for each change, to its end, whoever else waits for it."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import anyio
import pytest
from _places import Held

from aiopplx import ConfigError, JobStatus, Session
from aiopplx._core.job.following import Follower
from aiopplx.emulator import Emulator
from aiopplx.progress import Follow, Update
from aiopplx.testing import Clock, JumpingClock

KEY = "following-test-key-0123456789"
QUESTION = "Why did the Vasa sink?"


def session_at(server: Emulator, clock: Clock, **more: object) -> Session:
    more.setdefault("poll", lambda job: 10.0)  # a policy draws each gap anew
    return Session(KEY, base_url=server.url, clock=clock, **{"api": "agent", **more})  # type: ignore[arg-type]  # words of its own


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


async def test_updates_tell_what_was_found_so_far(clock: JumpingClock) -> None:
    async with Emulator(duration=180.0, answer_chars=400, clock=clock) as server, session_at(server, clock) as session:
        job = await session.submit(QUESTION)
        updates = [update async for update in session.follow(job)]
    found = [(len(update.job.queries), len(update.job.sources)) for update in updates]
    assert found == sorted(found), "more and more"
    assert len({update.id for update in updates}) == len(updates), "each says something new"
    assert found[0] == (0, 0) < found[-2], "and before its end"
    assert [update.job.done for update in updates] == [False] * (len(updates) - 1) + [True]
    seconds = [update.seconds for update in updates if update.seconds is not None]
    assert seconds == sorted(seconds)
    assert seconds[-1] >= 180.0
    assert updates[-1].job.ok
    assert updates[-1].job.queries
    assert updates[-1].to_dict()["done"] is True


async def test_job_waiting_at_the_server_runs_only_once(clock: JumpingClock) -> None:
    async with (
        Emulator(duration=60.0, answer_chars=200, clock=clock) as server,
        session_at(server, clock, poll=lambda job: 0.1) as session,  # so soon that the server has not begun
    ):
        job = await session.submit(QUESTION)
        told = [update.id async for update in session.follow(job)]
        async with session.batch([QUESTION]) as jobs:
            while session.stats().running == 0:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
            follow = jobs.follow()
            assert [done.ok async for done in jobs] == [True]
            late = [update.id async for update in follow]
    assert job.status is JobStatus.CREATED
    assert len(set(told)) == len(told), "each says something new"
    assert told[0] == "in_progress"
    assert "created" not in told + late


async def test_any_number_of_followers_cost_no_poll(clock: JumpingClock) -> None:
    async with Emulator(duration=60.0, answer_chars=200, clock=clock) as server, session_at(server, clock) as session:
        alone = await session.ask(QUESTION)
        job = await session.submit(QUESTION)
        told: list[list[Update]] = [[] for _ in range(20)]

        async def follow(updates: list[Update]) -> None:
            async for update in session.follow(job.id):
                updates.append(update)

        async with anyio.create_task_group() as group:
            for updates in told:
                group.start_soon(follow, updates)
    assert {updates[-1].job.polls for updates in told} == {alone.polls}
    assert all(updates == told[0] for updates in told), "each got each update, once"


async def test_two_hundred_followers_leave_nothing_behind(clock: JumpingClock) -> None:
    async with Emulator(duration=60.0, answer_chars=200, clock=clock) as server, session_at(server, clock) as session:

        async def watch(job_id: str, stays: bool) -> None:
            async with session.follow(job_id) as follow:
                async for _ in follow:
                    if not stays:
                        break

        for n in range(2):
            job = await session.submit(f"{QUESTION} {n}")
            async with anyio.create_task_group() as group:
                for place in range(200):
                    group.start_soon(watch, job.id, place % 4 > 0)
            gc.collect()
            assert [thing for thing in gc.get_objects() if isinstance(thing, Follow | Follower)] == []
            assert (session.stats().running, session.pending) == (0, [])


async def test_second_follower_begins_with_what_the_first_was_told(clock: JumpingClock) -> None:
    async with Emulator(duration=180.0, answer_chars=400, clock=clock) as server, session_at(server, clock) as session:
        job = await session.submit(QUESTION)
        first = session.follow(job)
        update = await anext(first)
        while not update.job.queries:
            update = await anext(first)
        assert (await anext(session.follow(job))).id == update.id


async def test_follower_does_not_make_its_job_urgent() -> None:
    (place,) = Held(1).places
    sub = place.sub
    sub.listeners = (place, Follower(sub=sub, tag=None, now=lambda: 0.0))
    assert sub.is_bulk, "it is polled when the batch would have it polled"


async def test_follower_takes_no_place_of_a_batch(clock: JumpingClock) -> None:
    async with (
        Emulator(duration=30.0, answer_chars=200, clock=clock) as server,
        session_at(server, clock, max_in_flight=1) as session,
    ):
        job = await session.submit(QUESTION)
        follow = session.follow(job)
        await anext(follow)
        assert session.stats().in_flight == 0
        async with session.batch([QUESTION]) as jobs:
            assert [done.ok async for done in jobs] == [True]
        assert [update.job.done async for update in follow][-1]


async def test_reader_that_comes_back_is_told_nothing_twice(clock: JumpingClock) -> None:
    async with Emulator(duration=60.0, answer_chars=200, clock=clock) as server:
        async with session_at(server, clock) as session:
            job = await session.submit(QUESTION)
            first = await anext(session.follow(job))
            second = await anext(session.follow(job, after=first.id))
            assert second.id != first.id
        async with session_at(server, clock) as other:  # as another process would
            rest = [update async for update in other.follow(job.id, after=second.id)]
            assert rest[-1].job.ok
            assert second.id not in [update.id for update in rest]
            assert [update async for update in other.follow(job.id, after=rest[-1].id)] == []


async def test_slow_reader_gets_the_latest_update_only(clock: JumpingClock) -> None:
    async with Emulator(duration=120.0, answer_chars=200, clock=clock) as server, session_at(server, clock) as session:
        job = await session.submit(QUESTION)
        follow = session.follow(job)
        first = await anext(follow)
        ended = await session.wait(job)
        rest = [update async for update in follow]
    assert not first.job.done
    assert [update.job for update in rest] == [ended]


async def test_job_that_ended_has_one_update(tmp_path: Path, clock: JumpingClock) -> None:
    async with Emulator(duration=30.0, answer_chars=200, clock=clock) as server:
        async with session_at(server, clock, journal=tmp_path / "research.db") as session:
            job = await session.ask(QUESTION, tag="vasa")
            (update,) = [update async for update in session.follow(job)]
            assert update.job == job
        job_record = server.ledger.jobs[0]
        polls = job_record.polls
        async with session_at(server, clock, journal=tmp_path / "research.db") as session:
            (update,) = [update async for update in session.follow(job.id)]
            assert update.job.text == job.text
            assert update.job.tag == "vasa"
        assert job_record.polls == polls, "the journal has it"


async def test_follower_leaves_a_journal_s_outcome_undelivered(tmp_path: Path, clock: JumpingClock) -> None:
    async with Emulator(duration=30.0, answer_chars=200, clock=clock) as server:
        async with session_at(server, clock, journal=tmp_path / "research.db") as session:
            job = await session.submit(QUESTION, tag="vasa")
            assert [update async for update in session.follow(job)][-1].job.ok
        async with (
            session_at(server, clock, journal=tmp_path / "research.db") as session,
            session.batch([{"question": QUESTION, "tag": "vasa"}]) as jobs,
        ):
            assert [done.id async for done in jobs] == [job.id], "who asked for it still gets it"


@pytest.mark.parametrize("way", ["break", "cancelled", "dropped", "block"])
async def test_job_is_not_polled_for_a_reader_who_left(way: str, clock: JumpingClock) -> None:
    async with Emulator(duration=600.0, answer_chars=200, clock=clock) as server, session_at(server, clock) as session:
        job = await session.submit(QUESTION)

        async def read(follow: Follow) -> None:
            async for update in follow:
                if way == "break":
                    break
                assert not update.job.done

        if way == "block":
            async with session.follow(job) as follow:
                await anext(follow)
        elif way == "dropped":
            await anext(session.follow(job))
        else:
            reading = asyncio.create_task(read(session.follow(job)))
            while session.stats().running == 0:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
            if way == "cancelled":
                reading.cancel()
            await asyncio.wait([reading])
        gc.collect()
        await asyncio.sleep(0)
        assert session.stats().running == 0


async def test_closed_session_ends_a_follow_without_a_word(clock: JumpingClock) -> None:
    async with Emulator(duration=600.0, answer_chars=200, clock=clock) as server:
        session = session_at(server, clock)
        job = await session.submit(QUESTION)
        follow = session.follow(job)
        await anext(follow)
        rest = asyncio.create_task(_all(follow))
        await asyncio.sleep(0)
        await session.aclose()
        with anyio.fail_after(60):
            assert not any(update.job.done for update in await rest)
        with pytest.raises(StopAsyncIteration):
            await anext(follow)
        with pytest.raises(ConfigError, match="closed"):
            session.follow(job)


async def _all(follow: Follow) -> list[Update]:
    return [update async for update in follow]


async def test_follow_ends_at_its_time_limit(clock: JumpingClock) -> None:
    async with Emulator(duration=600.0, answer_chars=200, clock=clock) as server, session_at(server, clock) as session:
        job = await session.submit(QUESTION)
        updates = [update async for update in session.follow(job, timeout=60.0)]
        assert updates[-1].job.status is JobStatus.TIMED_OUT
        assert (await session.wait(job)).ok


@pytest.mark.parametrize("after", ["timed_out", "in_progress"])
async def test_reader_back_after_a_time_limit_hears_the_next(clock: JumpingClock, after: str) -> None:
    async with Emulator(duration=600.0, answer_chars=200, clock=clock) as server, session_at(server, clock) as session:
        job = await session.submit(QUESTION)
        told = [update.id async for update in session.follow(job, timeout=5.0)]
        assert told == ["in_progress", "timed_out"]
        again = [update.id async for update in session.follow(job, timeout=5.0, after=after)]
        assert again[-1] == "timed_out"
        assert ("in_progress" in again) is (after == "timed_out"), "it runs, which is news to whoever knew of a limit"
        rest = [update async for update in session.follow(job, after=after)]
    assert rest[-1].job.ok


async def test_unknown_job_ends_a_follow_like_a_wait(clock: JumpingClock) -> None:
    unknown = "resp_00000000-0000-0000-0000-000000000000"
    async with Emulator(clock=clock) as server, session_at(server, clock) as session:
        waited = await session.wait(unknown)
        updates = [update async for update in session.follow(unknown)]
    assert updates[-1].job.status is waited.status


async def test_closed_follow_ends_its_reader_and_no_job(clock: JumpingClock) -> None:
    async with Emulator(duration=600.0, answer_chars=200, clock=clock) as server, session_at(server, clock) as session:
        job = await session.submit(QUESTION)
        follow = session.follow(job)
        await anext(follow)
        assert [pending.id for pending in session.pending] == [job.id]
        reading = asyncio.create_task(_all(follow))
        await asyncio.sleep(0)
        follow.close()
        with anyio.fail_after(60):
            assert not any(update.job.done for update in await reading)
        assert session.pending == []
        assert (await session.wait(job)).ok


async def test_submission_that_ended_counts_once() -> None:
    clock = JumpingClock()
    async with (
        Emulator(clock=clock, answer_chars=200) as server,
        Session("any-key", base_url=server.url, clock=clock) as session,
    ):
        job = await session.submit("Why?")
        for _ in range(3):
            assert (await session.wait(job.id)).ok
        stats = session.stats()
    assert (stats.accepted, stats.ended) == (1, {JobStatus.COMPLETED: 1})
