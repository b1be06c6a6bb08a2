"""What a session tells of what happens: streams of events, seconds in them, and numbers for a health page."""

from __future__ import annotations

import asyncio
import gc
import weakref

import anyio
import pytest

from aiopplx import ConfigError, Event, EventKind, JobStatus, PollPolicy, Session
from aiopplx.emulator import Emulator
from aiopplx.progress import Forecast, SessionStats
from aiopplx.testing import JumpingClock

KEY = "events-test-key-0123456789"


async def test_streams_equal_the_handler_until_the_session_ends() -> None:
    clock, told = JumpingClock(), list[Event]()
    async with Emulator(duration=60.0, answer_chars=200, clock=clock) as server:
        session = Session(KEY, base_url=server.url, clock=clock, on_event=told.append)
        streams = [session.events(), session.events(limit=500)]

        async def read(n: int) -> list[Event]:
            return [event async for event in streams[n]]

        readers = [asyncio.create_task(read(n)) for n in range(2)]
        async with session.batch(["Why?", "How?"]) as jobs:
            assert [job.ok async for job in jobs] == [True, True]
        await session.submit("When?")
        left = asyncio.create_task(session.ask("Where?"))
        while session.stats().running == 0:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        await session.aclose()
        with pytest.raises(ConfigError):
            await left
        with anyio.fail_after(60):
            assert [await reader for reader in readers] == [told, told]
    assert told[-1].kind is EventKind.LEFT, "also what is told while it is closed"
    with pytest.raises(ConfigError, match="closed"):
        session.events()


async def test_slow_reader_loses_the_oldest_events_and_knows() -> None:
    clock, told = JumpingClock(), list[Event]()
    async with (
        Emulator(duration=60.0, answer_chars=200, clock=clock) as server,
        Session(KEY, base_url=server.url, clock=clock, on_event=told.append) as session,
    ):
        stream = session.events(limit=2)
        await session.ask("Why?")
        await session.aclose()
        assert [event async for event in stream] == told[-2:]
        assert stream.missed == len(told) - 2 > 0


async def test_dropped_stream_is_forgotten() -> None:
    clock = JumpingClock()
    async with (
        Emulator(duration=0.0, answer_chars=200, clock=clock) as server,
        Session(KEY, base_url=server.url, clock=clock) as session,
    ):
        kept = session.events()
        stream = weakref.ref(kept)
        assert session._emitter.has_handlers()
        del kept
        gc.collect()
        assert stream() is None
        assert not session._emitter.has_handlers()  # events that nobody hears are not made any more
        assert (await session.ask("Why?")).ok


async def test_events_carry_seconds_since_the_submission() -> None:
    clock, told = JumpingClock(), list[Event]()
    async with (
        Emulator(duration=60.0, answer_chars=200, clock=clock) as server,
        Session(KEY, base_url=server.url, clock=clock, poll=PollPolicy.fixed(25.0), on_event=told.append) as session,
    ):
        job = await session.ask("Why?")
    polled = [event.seconds for event in told if event.kind is EventKind.POLLED]
    assert [event.kind for event in told if event.seconds is None] == []
    assert told[0].kind is EventKind.SUBMITTED
    assert told[0].seconds == pytest.approx(0.0, abs=1.0)
    assert polled == sorted(polled, key=lambda seconds: seconds or 0.0)
    assert told[-1].kind is EventKind.FINISHED
    assert told[-1].seconds == job.seconds


async def test_stats_say_what_a_session_does() -> None:
    clock = JumpingClock()
    async with Emulator(duration=60.0, answer_chars=200, clock=clock) as server:
        session = Session(KEY, base_url=server.url, clock=clock, max_cost=50.0, max_in_flight=7)
        assert session.stats() == SessionStats()
        async with session:
            async with session.batch(["Why?", "How?", {"question": ""}]) as jobs:
                running = SessionStats()
                async for _ in jobs:
                    running = max(running, session.stats(), key=lambda stats: stats.running)
            done = session.stats()
    assert running.running >= 1
    assert 1 <= running.in_flight <= 7
    assert done.accepted == 2
    assert done.ended == {JobStatus.COMPLETED: 2, JobStatus.REJECTED: 1}
    assert done.spent is not None
    assert done.spent > 0.0
    assert (done.running, done.in_flight, done.reserved, done.silent_for, done.stopped) == (0, 0, 0.0, 0.0, "")


async def test_stats_say_when_requests_leave_and_jobs_end() -> None:
    clock, seen = JumpingClock(), dict[EventKind, tuple[SessionStats, Forecast]]()

    def heard(event: Event) -> None:
        seen.setdefault(event.kind, (session.stats(), session.eta()))

    async with (
        Emulator(duration=60.0, answer_chars=200, clock=clock) as server,
        Session(KEY, base_url=server.url, clock=clock, on_event=heard) as session,
    ):
        server.faults.add("submit", "rate_limited_120", times=1)
        async with session.batch(["Why?"]) as jobs:
            assert [job.ok async for job in jobs] == [True]
    paused, _ = seen[EventKind.PAUSED]
    assert paused.silent_for == pytest.approx(120.0, rel=0.5)
    running, eta = seen[EventKind.POLLED]
    assert running.eta == eta
    assert (eta.running, running.silent_for) == (1, 0.0)


async def test_stats_say_why_nothing_is_submitted() -> None:
    async with Emulator(keys={"another-key-0123456789"}) as server, Session(KEY, base_url=server.url) as session:
        with pytest.raises(Exception, match="key"):
            await session.ask("Why?")
        assert "key" in session.stats().stopped
