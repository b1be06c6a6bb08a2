"""A session and what its account shares with other processes: departures, silences, and a database that goes away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from _postgres import Server, pooled
from _shared import KEY, World, world_at

from aiopplx import Event, EventKind, JobStatus, PollPolicy, Session
from aiopplx._core.shared.pacing import Pacing
from aiopplx._errors import ConfigError
from aiopplx._policy.departures import Fetched
from aiopplx.emulator import AfterPolls, Emulator
from aiopplx.emulator.faults import RateLimited
from aiopplx.journal import JournalAway
from aiopplx.journal._postgres.account import Reserved
from aiopplx.journal._postgres.hearing import Hearing
from aiopplx.testing import JumpingClock

SOON = PollPolicy.fixed(0.1)


@pytest.fixture
async def world(postgres: Server) -> AsyncIterator[World]:
    async with world_at(postgres.url()) as world:
        yield world


@pytest.fixture
async def service() -> AsyncIterator[Emulator]:
    async with Emulator(duration=AfterPolls(1), answer_chars=100) as service:
        yield service


async def until(events: asyncio.Queue[Event], kind: EventKind) -> list[Event]:
    """What happened up to the first event of this kind, which is the last of them."""
    seen = [await events.get()]
    while seen[-1].kind is not kind:
        seen.append(await events.get())
    return seen


@pytest.mark.parametrize(
    ("words", "shared"),
    [
        ({"rpm": 6_000.0}, {"submit"}),
        ({"tier": 5}, {"submit", "poll"}),
        ({"tier": 5, "api": "agent"}, {"submit"}),
    ],
)
async def test_session_takes_its_departures_from_the_database(
    world: World, service: Emulator, words: dict[str, Any], shared: set[str]
) -> None:
    database, _ = await world.database()
    rows = f"SELECT name, tat FROM {world.address.schema}.account"
    async with Session(KEY, base_url=service.url, shared=world.url, poll=SOON, **words) as session:
        before = {row["name"]: row["tat"] for row in await database.fetch(rows)}
        assert (await session.ask("Why?")).status is JobStatus.COMPLETED
    after = {row["name"]: row["tat"] for row in await database.fetch(rows)}
    assert {name.rpartition(" ")[2] for name in after if after[name] != before[name]} == shared
    assert KEY not in str(after)


async def test_departures_that_others_took_are_waited_for(world: World, service: Emulator) -> None:
    account = await world.account(base_url=service.url)
    await account.reserve("submit", 100, 1.0, 0.0)
    async with Session(KEY, base_url=service.url, shared=world.url, rpm=60) as session:
        job = await session.ask("Why?", timeout=5.0)
    assert (job.status, service.ledger.created) == (JobStatus.REJECTED, 0)


async def test_silence_is_passed_on(world: World, service: Emulator) -> None:
    account = await world.account(base_url=service.url)
    heard: asyncio.Queue[str] = asyncio.Queue()
    account.hearing.on("c", heard.put_nowait)
    service.faults.add("submit", RateLimited(retry_after="120"))
    async with Session(KEY, base_url=service.url, shared=world.url, rpm=6_000) as session:
        asking = asyncio.create_task(session.ask("Why?"))
        assert account.seconds_in(await heard.get()) == pytest.approx(120.0, abs=20.0)
        asking.cancel()
        await asyncio.wait([asking])


async def test_silence_of_another_process_is_obeyed(world: World, service: Emulator) -> None:
    account = await world.account(base_url=service.url)
    async with Session(KEY, base_url=service.url, shared=world.url, rpm=6_000) as session:
        await account.silence(1_000.0)
        while not session.stats().silent_for:
            await account.silent()  # which takes a while, in which the session hears of it
        assert session.stats().silent_for > 900.0
        job = await session.ask("Why?", timeout=5.0)
    assert (job.status, service.ledger.requests.total()) == (JobStatus.REJECTED, 0)


async def test_silence_from_before_the_opening_is_obeyed(world: World, service: Emulator) -> None:
    account = await world.account(base_url=service.url)
    await account.silence(1_000.0)
    async with Session(KEY, base_url=service.url, shared=world.url, rpm=6_000) as session:
        while session.stats().silent_for < 900.0:
            await account.silent()  # which takes a while, in which the session looks as well
        job = await session.ask("Why?", timeout=5.0)
    assert (job.status, service.ledger.requests.total()) == (JobStatus.REJECTED, 0)


@pytest.mark.slow
async def test_nothing_is_sent_while_the_database_is_away(postgres: Server, service: Emulator) -> None:
    events: asyncio.Queue[Event] = asyncio.Queue()
    async with Session(
        KEY, base_url=service.url, shared=postgres.url(), rpm=6_000, poll=SOON, on_event=events.put_nowait
    ) as session:
        postgres.stop()
        asking = [asyncio.create_task(session.ask(f"Why {n}?")) for n in range(5)]
        try:
            reason = (await until(events, EventKind.PAUSED))[-1].reason
            assert "cannot be reached" in reason
            assert reason.count("nothing is sent") == 1
            assert service.ledger.created == 0
        finally:
            postgres.start()
        jobs = await asyncio.gather(*asking)
    assert {job.status for job in jobs} == {JobStatus.COMPLETED}
    told = [event.kind for event in iter_now(events) if event.kind in (EventKind.PAUSED, EventKind.RESUMED)]
    assert told == [EventKind.RESUMED], "each is told once"


def iter_now(events: asyncio.Queue[Event]) -> list[Event]:
    return [events.get_nowait() for _ in range(events.qsize())]


class Failing:
    """A shared account whose first call of each kind fails as nobody expects, and which is never away."""

    def __init__(self) -> None:
        self.hearing = Hearing("channel")
        self.calls: Counter[str] = Counter()

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if self.calls[name] == 1:
            raise RuntimeError(name)

    async def reserve(self, name: str, count: int, interval: float, saved: float) -> Reserved:
        self._called("reserve")
        return Reserved(first=0.0, silent=0.0)

    async def silent(self) -> float:
        self._called("silent")
        return 0.0


async def test_unexpected_failure_does_not_end_the_sharing(caplog: pytest.LogCaptureFixture) -> None:
    clock, account = JumpingClock(), Failing()
    wanted: set[Any] = set()
    fetched = Fetched(lambda: [call() for call in wanted])
    limits = SimpleNamespace(on_want=wanted, fetched={"submit": fetched})
    client: Any = SimpleNamespace(clock=clock, gate=SimpleNamespace(limits=limits))
    membership: Any = SimpleNamespace(came=lambda: None)
    pacing = Pacing(cast("Any", account), client, membership, lambda: True)
    with anyio.fail_after(20):
        while fetched.delay(clock.now()) or account.calls["silent"] < 2:
            fetched.want(clock.now())
            await clock.sleep(0.5)
    await pacing.aclose()
    assert account.calls["reserve"] == 2
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True, True]


async def test_departure_that_a_closed_session_wanted_is_fetched() -> None:
    clock, account = JumpingClock(), Failing()
    account.calls.update(("reserve", "silent"))  # the calls that fail are over
    wanted: set[Any] = set()
    fetched = Fetched(lambda: [call() for call in wanted])
    client: Any = SimpleNamespace(
        clock=clock, gate=SimpleNamespace(limits=SimpleNamespace(on_want=wanted, fetched={"submit": fetched}))
    )
    fetched.want(clock.now())  # and whoever heard of it closed before it was fetched
    pacing = Pacing(cast("Any", account), client, cast("Any", SimpleNamespace(came=lambda: None)), lambda: True)
    with anyio.fail_after(20):
        while fetched.delay(clock.now()) > 0.0:
            fetched.want(clock.now())
            await clock.sleep(0.5)
    await pacing.aclose()


async def test_database_that_is_not_there_ends_the_opening(service: Emulator) -> None:
    with pytest.raises(JournalAway):
        async with Session(KEY, base_url=service.url, shared="postgresql:///x?host=/nowhere&user=u", rpm=60):
            pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"shared": "postgresql:///x"}, "rpm= or tier="),
        ({"shared": "research.db", "rpm": 60}, "postgresql://"),
        ({"shared": "postgresql:///x?schema=A", "rpm": 60}, "small letters"),
    ],
)
def test_sharing_that_cannot_be_is_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Session(KEY, **words)


async def test_session_that_shares_is_opened_as_a_block() -> None:
    with pytest.raises(ConfigError, match="async with Session"):
        await Session(KEY, shared="postgresql:///x", rpm=60).ask("Why?")


@pytest.mark.slow
async def test_silence_is_obeyed_where_nothing_is_heard(postgres: Server, service: Emulator) -> None:
    with pooled(postgres) as folder:
        url = postgres.url().replace(str(postgres.folder), str(folder))
        told: list[Event] = []
        async with (
            world_at(url) as world,
            Session(KEY, base_url=service.url, shared=url, rpm=6_000, poll=SOON, on_event=told.append) as session,
        ):
            assert [event.kind for event in told] == [EventKind.WARNING]
            assert (await session.ask("Why?")).ok
            await (await world.account(base_url=service.url)).silence(1_000.0)
            job = await session.ask("Why else?", timeout=5.0)
    assert (job.status, service.ledger.created) == (JobStatus.REJECTED, 1)
