"""At a server that accepts no submission, everything that waits ends at its time limit; and one that does not answer is
told of in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import aiohttp
import aiohttp.abc
import pytest

from aiopplx import Event, EventKind, JobStatus, PollPolicy, RetryPolicy, Session
from aiopplx.emulator import Emulator, faults
from aiopplx.progress import SessionStats
from aiopplx.testing import Clock, JumpingClock


@pytest.mark.parametrize("fault", [faults.Status(500), faults.Status(503), faults.RateLimited()], ids=str)
async def test_batch_at_a_silent_server_ends_each_item(fault: faults.Fault):
    clock = Clock(60)
    async with Emulator() as server:
        server.faults.add("submit", fault)
        async with Session("a-key", base_url=server.url, timeout=30.0, clock=clock, api="sonar") as session:
            began = clock.now()
            async with session.batch(f"question {n}?" for n in range(60)) as jobs:
                ended = [job async for job in jobs]
            # Some seconds of a busy machine are in it.
            assert clock.now() - began < 360.0, "each for itself, one after the other, would take many minutes"
    assert len(ended) == 60
    assert {job.status for job in ended} <= {JobStatus.REJECTED, JobStatus.IN_DOUBT}
    waiting = [job for job in ended if job.attempts == 0]
    assert waiting
    assert all("nothing was billed" in str(job.error) for job in waiting)
    assert server.ledger.created == 0


async def test_server_that_takes_submissions_again_is_forgiven():
    async with Emulator(duration=0.0, answer_chars=100) as server:
        # One fewer than a submission is sent. After the first refusals the gate lets one submission through at a time,
        # and on a slow machine that can be the same one from the first refusal to the last.
        server.faults.add("submit", faults.Status(503), times=RetryPolicy().doubt_tries - 1)
        session = Session("a-key", base_url=server.url, clock=Clock(60), api="sonar")
        async with session, session.batch(f"question {n}?" for n in range(40)) as jobs:
            ended = [job async for job in jobs]
    assert all(job.ok for job in ended)
    assert server.ledger.created == 40


# --- it is told ------------------------------------------------------------------------------------------------------

TOLD = (EventKind.WARNING, EventKind.RESUMED)


class Heard:
    """A session in virtual time, what it told of its server, and its numbers when it did."""

    def __init__(self, server: Emulator, clock: JumpingClock, **options: Any) -> None:
        self.events: list[Event] = []
        self.stats: list[SessionStats] = []
        self.moments: list[float] = []
        self.clock = clock
        url = server.url.replace("127.0.0.1", "localhost")
        self.session = Session("a-key", base_url=url, clock=clock, on_event=self._heard, **options)

    def _heard(self, event: Event) -> None:
        if event.kind in TOLD:
            self.events.append(event)
            self.stats.append(self.session.stats())
            self.moments.append(self.clock.now())

    @property
    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self.events]


@pytest.mark.parametrize("is_theirs", [False, True], ids=["own connections", "http="])
async def test_submission_without_an_answer_is_told_in_seconds(is_theirs: bool):
    clock = JumpingClock()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Emulator(duration=1.0, answer_chars=100, clock=clock))
        options = {"http": await stack.enter_async_context(aiohttp.ClientSession())} if is_theirs else {}
        server.faults.add("submit", faults.Hang(50.0), times=1)
        heard = Heard(server, clock, api="sonar", **options)
        async with heard.session as session:
            began = clock.now()
            job = await session.ask("Why?")
            assert session.stats().unanswered_for == 0.0
    assert job.ok
    assert heard.kinds == [*TOLD]
    assert "connected, but no answer for 8 s; a submission waits for up to 60 s" in heard.events[0].reason
    assert heard.events[1].reason == "the server answers again"
    assert heard.moments[0] - began == pytest.approx(8.0, abs=1.0)
    assert [stats.unanswered_for for stats in heard.stats] == [pytest.approx(8.0, abs=1.0), 0.0]


async def test_polls_without_an_answer_are_told_once():
    clock = JumpingClock()
    async with Emulator(duration=60.0, answer_chars=100, clock=clock) as server:
        server.faults.add("get", faults.Hang(1e6), times=4)
        heard = Heard(server, clock, api="sonar", poll=PollPolicy.fixed(5.0))
        async with heard.session as session:
            job = await session.ask("Why?")
    assert job.ok
    assert heard.kinds == [*TOLD]
    assert heard.events[0].reason == "no answer for 8 s; jobs at the service go on"


async def test_many_that_hang_at_once_are_one_word():
    clock = JumpingClock()
    async with Emulator(duration=1.0, answer_chars=100, clock=clock) as server:
        server.faults.add("submit", faults.Hang(30.0), times=20)
        heard = Heard(server, clock, api="sonar", max_in_flight=20, rpm=10_000)
        async with heard.session as session, session.batch(f"question {n}?" for n in range(20)) as jobs:
            ended = [job async for job in jobs]
    assert all(job.ok for job in ended)
    assert heard.kinds == [*TOLD]


async def test_slow_submission_among_answered_polls_is_not_told():
    clock = JumpingClock()
    async with Emulator(duration=100.0, answer_chars=100, clock=clock) as server:
        heard = Heard(server, clock, api="sonar", poll=PollPolicy.fixed(5.0))
        async with heard.session as session:
            running = await session.submit("Why?")
            waiting = asyncio.ensure_future(session.wait(running.id))
            await clock.sleep(10.0)
            server.faults.add("submit", faults.Delay(40.0), times=1)
            assert (await session.ask("How?")).ok
            assert (await waiting).ok
    assert heard.events == []


async def test_server_that_only_fails_is_told_with_its_words():
    clock = JumpingClock()
    async with Emulator(duration=60.0, answer_chars=100, clock=clock) as server:
        server.faults.add("get", faults.Status(503), times=8)
        heard = Heard(server, clock, api="sonar", poll=PollPolicy.fixed(4.0))
        async with heard.session as session:
            assert (await session.ask("Why?")).ok
    assert heard.kinds == [*TOLD]
    assert heard.events[0].reason.startswith("no usable answer for ")
    assert "503" in heard.events[0].reason
    assert heard.stats[0].unanswered_for >= 8.0


class SlowNames(aiohttp.abc.AbstractResolver):
    """A name server that takes its time, as long as a packet filter that drops everything."""

    def __init__(self, clock: JumpingClock, seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        with self.clock.idle():
            await self.clock.sleep(self.seconds)
        flags = socket.AI_NUMERICHOST
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": flags}]

    async def close(self) -> None:
        """Nothing is held."""


async def test_submission_without_a_connection_is_told_as_not_sent():
    clock = JumpingClock()
    connector = aiohttp.TCPConnector(resolver=SlowNames(clock, 20.0))
    async with (
        Emulator(duration=1.0, answer_chars=100, clock=clock) as server,
        aiohttp.ClientSession(connector=connector) as http,
    ):
        heard = Heard(server, clock, api="sonar", http=http)
        async with heard.session as session:
            assert (await session.ask("Why?")).ok
    assert heard.kinds == [*TOLD]
    assert heard.events[0].reason == "no connection for 8 s; no submission was sent in that time"


async def test_second_outage_is_told_again():
    clock = JumpingClock()
    async with Emulator(duration=1.0, answer_chars=100, clock=clock) as server:
        heard = Heard(server, clock, api="sonar")
        async with heard.session as session:
            for _ in range(2):
                server.faults.add("submit", faults.Hang(20.0), times=1)
                assert (await session.ask("Why?")).ok
    assert heard.kinds == [*TOLD, *TOLD]


async def test_stats_say_when_an_absent_server_is_tried():
    clock, seen = JumpingClock(), list[SessionStats]()

    def paused(event: Event) -> None:
        if event.kind is EventKind.PAUSED:
            seen.append(session.stats())

    async with Emulator(duration=60.0, answer_chars=100, clock=clock) as server:
        session = Session(
            "a-key", base_url=server.url, clock=clock, api="sonar", poll=PollPolicy.fixed(1.0), on_event=paused
        )
        server.faults.add("get", faults.Status(500), times=8)
        async with session:
            assert (await session.ask("Why?")).ok
            assert session.stats().silent_for == 0.0
    assert seen
    assert all(stats.silent_for >= 1.0 for stats in seen)
