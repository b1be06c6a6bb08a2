"""On a clock that jumps, a session and the emulator spend hours without waiting a second."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import pytest

from aiopplx import Event, EventKind, InDoubt, JobStatus, NetworkOptions, PollPolicy, RetryPolicy, Session
from aiopplx.emulator import Emulator, WireServer, faults, wire
from aiopplx.journal import MemoryJournal
from aiopplx.testing import Clock, JumpingClock

KEY = "clock-test-key-0123456789"
QUESTION = "Why did the Vasa sink?"


def session_at(url: str, clock: Clock, **more: object) -> Session:
    return Session(KEY, base_url=url, clock=clock, **{"api": "sonar", **more})  # type: ignore[arg-type]  # words of its own


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


async def test_job_of_half_an_hour_takes_no_time(clock: JumpingClock) -> None:
    began = clock.now()
    async with (
        Emulator(duration=1800.0, answer_chars=200, clock=clock) as server,
        session_at(server.url, clock) as session,
    ):
        with anyio.fail_after(60):  # a minute for a busy machine; what would have to be waited for is thirty
            job = await session.ask(QUESTION)
        assert job.ok
        assert 1800.0 <= clock.now() - began < 1800.0 + 150.0, "found by the first poll after its end"
        assert server.now() == pytest.approx(clock.wall())


async def test_run_is_the_same_to_the_second_each_time() -> None:
    async def run() -> list[tuple[str, str, float]]:
        clock, told = JumpingClock(), list[tuple[str, str, float]]()
        async with (
            Emulator(seed=3, answer_chars=200, clock=clock) as server,
            session_at(
                server.url,
                clock,
                poll=lambda job: 7.0,  # a policy draws each gap anew
                on_event=lambda event: told.append((event.kind.value, str(event.index), clock.now())),
            ) as session,
            session.batch([f"Why did ship {n} sink?" for n in range(3)]) as jobs,
        ):
            assert [job.ok async for job in jobs] == [True] * 3
        return sorted(told)

    assert await run() == await run()


async def test_stuck_job_times_out_by_the_clock(clock: JumpingClock) -> None:
    began = clock.now()
    async with Emulator(duration=1e9, clock=clock) as server, session_at(server.url, clock) as session:
        job = await session.ask(QUESTION, timeout=7200.0)
    assert job.status is JobStatus.TIMED_OUT
    assert 7200.0 <= clock.now() - began < 7230.0


async def test_requested_silence_is_kept_by_the_clock(clock: JumpingClock) -> None:
    began = clock.now()
    async with (
        Emulator(duration=10.0, answer_chars=200, rpm=1, limit_hints="retry-after", clock=clock) as server,
        session_at(server.url, clock) as session,
        session.batch(["one", "two", "three"]) as jobs,
    ):
        assert [job.ok async for job in jobs] == [True] * 3
    assert clock.now() - began >= 120.0, "the third is let in two minutes after the first"


async def test_delayed_answer_takes_its_seconds_of_the_clock(clock: JumpingClock) -> None:
    began = clock.now()
    async with Emulator(duration=10.0, answer_chars=200, clock=clock) as server:
        server.faults.add("submit", faults.Delay(45.0))
        async with session_at(server.url, clock) as session:
            job = await session.submit(QUESTION)
    assert job.attempts == 1
    assert clock.now() - began == pytest.approx(45.0)


async def test_answer_delayed_beyond_the_limit_is_in_doubt(clock: JumpingClock) -> None:
    began = clock.now()
    async with Emulator(clock=clock) as server:
        server.faults.add("submit", faults.Delay(600.0))
        async with session_at(server.url, clock, retry=RetryPolicy(on_doubt="hold")) as session:
            with pytest.raises(InDoubt):
                await session.submit(QUESTION)
    assert clock.now() - began == pytest.approx(60.0)


async def test_server_outside_the_clock_times_out_in_real_time(clock: JumpingClock) -> None:
    began = clock.now()
    async with (
        WireServer([wire.Silent()]) as server,
        session_at(
            server.url,
            clock,
            retry=RetryPolicy(on_doubt="hold"),
            network=NetworkOptions(submit_seconds=0.2),
        ) as session,
    ):
        with pytest.raises(InDoubt):
            await session.submit(QUESTION)
    assert clock.now() == began


async def test_outage_of_an_hour_is_outlasted_in_no_time(clock: JumpingClock) -> None:
    told: list[Event] = []
    began = clock.now()
    async with (
        Emulator(duration=300.0, answer_chars=200, clock=clock) as server,
        session_at(server.url, clock, on_event=told.append, timeout=7200.0) as session,
    ):
        server.faults.add("get", faults.Status(502, html=True))
        asking = asyncio.create_task(session.ask(QUESTION, timeout=7200.0))
        await clock.sleep(3600.0)
        server.faults.clear()
        job = await asking
    assert job.ok
    assert clock.now() - began < 3700.0
    assert EventKind.POLL_FAILED in {event.kind for event in told}


@pytest.mark.parametrize("where", ["file", "memory"])
async def test_journal_is_written_while_time_stands_still(where: str, clock: JumpingClock, tmp_path: Path) -> None:
    journal = tmp_path / "run.db" if where == "file" else MemoryJournal(now=clock.wall)
    questions = [f"Why did ship {n} sink?" for n in range(20)]
    began = clock.now()
    async with Emulator(duration=300.0, answer_chars=200, clock=clock) as server:
        for _ in range(2):
            async with (
                session_at(server.url, clock, journal=journal, poll=PollPolicy.fixed(5)) as session,
                session.batch(questions) as jobs,
            ):
                assert [job.ok async for job in jobs] == [True] * 20
        assert server.ledger.created == 20
    assert clock.now() - began < 310.0, "all of them at once, and all found by the first poll after their end"


async def test_jobs_that_run_together_take_the_time_of_one(clock: JumpingClock) -> None:
    began = clock.now()
    async with (
        Emulator(duration=3600.0, answer_chars=200, clock=clock) as server,
        session_at(server.url, clock, timeout=7200.0) as session,
        session.batch(map(str, range(30))) as jobs,
    ):
        assert [job.ok async for job in jobs] == [True] * 30
    assert clock.now() - began < 3600.0 + 150.0


async def test_calls_of_a_session_wait_by_its_clock(clock: JumpingClock) -> None:
    """An agent's run that is cancelled, and a place in `max_in_flight` that does not come free in time."""
    began = clock.now()
    async with (
        Emulator(duration=1800.0, answer_chars=200, clock=clock) as server,
        session_at(server.url, clock, api="agent", max_in_flight=1) as session,
    ):
        first = asyncio.create_task(session.ask(QUESTION))
        await server.until(lambda ledger: ledger.created == 1)
        second = await session.ask(QUESTION, timeout=60.0)
        assert second.status is JobStatus.REJECTED
        assert clock.now() - began == pytest.approx(60.0, abs=1.0)
        (job,) = server.ledger.jobs
        assert (await session.cancel(job.id)).status is JobStatus.CANCELLED
        assert (await first).status is JobStatus.CANCELLED
    assert clock.now() - began < 200.0


async def test_emulator_follows_a_clock_that_is_fast() -> None:
    clock = Clock(1000.0)
    async with (
        Emulator(duration=600.0, answer_chars=200, clock=clock) as server,
        session_at(server.url, clock) as session,
    ):
        began = clock.now()
        assert (await session.ask(QUESTION)).ok
        assert clock.now() - began >= 600.0


def test_emulator_takes_a_clock_or_a_scale(clock: JumpingClock) -> None:
    with pytest.raises(ValueError, match="not both"):
        Emulator(time_scale=2.0, clock=clock)
