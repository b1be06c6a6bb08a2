"""Whatever is asked, left, cancelled and closed at random: nothing is lost, paid twice, told twice or left over.

Random lives with fixed seeds: two sessions, most of them on one store, do everything that a user can do, at a server
that fails three times in ten. Then cancellation at every turn of the loop of each thing that a user can await.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from _faulty import KEY
from _scripted import KEY as SCRIPTED_KEY
from _scripted import Scripted
from _servers import JobServer

from aiopplx import (
    AiopplxError,
    ConfigError,
    Event,
    EventKind,
    Job,
    JournalOptions,
    PollPolicy,
    RetryPolicy,
    Session,
)
from aiopplx._core.shared.holding import is_collected
from aiopplx._core.spending import Bounded
from aiopplx._wire.kinds import Kind
from aiopplx.emulator import AfterPolls, Emulator, faults
from aiopplx.journal._memory import MemoryStore
from aiopplx.journal._records import State
from aiopplx.testing import Clock, JumpingClock

SPEED = 200.0
ENDS = 40.0
"""Real seconds in which any of this has ended, on a machine that is busy with others."""
PATIENCE = 1.5
"""Real seconds for which a user waits before leaving. Two sessions may wait for each other's rows for longer."""
RETRY = RetryPolicy(doubt_tries=6, call_tries=8, first_contact_tries=10_000)
POLL = msgspec.structs.replace(
    PollPolicy.fixed(2), unreadable_polls=500, empty_polls=50, missing_grace=1e6, refused_pause=4.0
)

# --- what is left over -----------------------------------------------------------------------------------------------


def left_over(session: Session, places: int) -> dict[str, object]:
    """What a session keeps of jobs that nobody waits for: nothing, if all is well."""
    core = session._core
    assert core is not None
    life, poller = core.life, core.life.poller
    found: dict[str, object] = {
        "rows": life.live.by_row,
        "jobs": life.live.by_id,
        "places": places - life.slots.value,
        "scheduled": len(poller._schedule),
        "deadlines": len(poller._deadlines),
        "polls": poller._running or poller._out,
        "calls": core.calls._callers,
        "batches": core.calls.members,
    }
    if isinstance(life.spending, Bounded):
        found |= {"reserved": life.spending._reserved, "in flight": life.spending.budget.balance(Kind()).in_flight}
    if life.collector is not None and not session._closed:
        # What it holds in a store that it shares is polled on, for other sessions.
        assert all(map(is_collected, [*life.live.by_row.values(), *life.live.by_id.values()]))
        found = {name: found[name] for name in ("places", "deadlines", "calls", "batches")}
    return {name: value for name, value in found.items() if value}


# --- a random life ---------------------------------------------------------------------------------------------------


@dataclass
class World:
    """What all users of one life share: what was told to whom, and which jobs are known."""

    chance: random.Random
    told: set[str] = field(default_factory=set[str])
    ids: list[str] = field(default_factory=list[str])
    asked: Counter[str] = field(default_factory=Counter[str])
    finished: Counter[tuple[int, str]] = field(default_factory=Counter[tuple[int, str]])
    problems: list[str] = field(default_factory=list[str])
    numbers: Any = field(default_factory=itertools.count)

    def item(self) -> dict[str, object]:
        """A question: one of a few that have a tag, or one of its own."""
        if self.chance.random() < 0.6:
            number = self.chance.randrange(12)
            self.asked[f"Shared question {number:02}?"] += 1
            return {"question": f"Shared question {number:02}?", "tag": number}
        return {"question": f"Own question {next(self.numbers):04}?"}

    def tell(self, job: Job) -> None:
        self.told |= {job.id, job.idempotency_key}
        if job.id and job.id not in self.ids:
            self.ids.append(job.id)

    def tell_error(self, error: AiopplxError) -> None:
        self.told |= {error.job_id, error.idempotency_key}

    def heard(self, session: int) -> Callable[[Event], None]:
        def on_event(event: Event) -> None:
            # FINISHED tells of an outcome that came in the very turn in which its caller was cancelled.
            if event.kind in (EventKind.LEFT, EventKind.FINISHED):
                self.told |= {event.job_id, event.idempotency_key}
            if event.kind is EventKind.FINISHED and event.job_id:
                self.finished[session, event.job_id] += 1

        return on_event


async def user(world: World, session: Session, steps: int) -> None:
    """Does this and that, and leaves when it takes too long or on a whim."""
    chance = world.chance
    for _ in range(steps):
        act = chance.choice((asks, asks, submits, waits, runs_a_batch, runs_a_batch, cancels))
        whim = chance.random() < 0.3
        patience = chance.uniform(0.0, 0.05) if whim else PATIENCE
        try:
            with anyio.move_on_after(patience) if chance.random() < 0.5 else _cancelled_after(patience):
                await act(world, session)
        except AiopplxError as error:
            world.tell_error(error)


@contextlib.contextmanager
def _cancelled_after(seconds: float) -> Any:
    """As a user's own task that is cancelled once, natively, where a scope would cancel again and again."""
    task = asyncio.current_task()
    assert task is not None
    fired: list[bool] = []

    def fire() -> None:
        fired.append(True)
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, fire)
    try:
        yield
    except asyncio.CancelledError:
        if not fired or task.uncancel():
            raise
    finally:
        timer.cancel()


async def asks(world: World, session: Session) -> None:
    item = world.item()
    timeout = world.chance.choice((1.0, 20.0, 600.0))
    world.tell(await session.ask({**item, "timeout": timeout}))


async def submits(world: World, session: Session) -> None:
    world.tell(await session.submit(world.item()))


async def waits(world: World, session: Session) -> None:
    if world.ids:
        world.tell(await session.wait(world.chance.choice(world.ids), timeout=world.chance.choice((1.0, 20.0, 600.0))))


async def cancels(world: World, session: Session) -> None:
    if world.ids:
        world.tell(await session.cancel(world.chance.choice(world.ids)))


async def runs_a_batch(world: World, session: Session) -> None:
    chance = world.chance
    items = [world.item() for _ in range(chance.randrange(1, 60))]
    batch = session.batch(
        items,
        ordered=chance.random() < 0.5,
        max_in_flight=chance.choice((None, 3)),
        timeout=chance.choice((20.0, 600.0)),
        cancel_on_exit=chance.random() < 0.2,
    )
    stops_at = chance.choice((0, 3, 1000))
    slow = chance.random() < 0.3
    got: list[Job] = []
    try:
        async with batch as jobs:
            if slow:
                await asyncio.sleep(chance.uniform(0.0, 0.2))
            async for job in jobs:
                got.append(job)
                if len(got) > stops_at:
                    break
    finally:
        for job in (*got, *batch.pending):
            world.tell(job)
        twice = [index for index, count in Counter(job.index for job in (*got, *batch.pending)).items() if count > 1]
        if twice:
            world.problems.append(f"places {twice} of a batch were handed out and left, or twice one of these")


async def session_life(world: World, number: int, make: Callable[..., Session]) -> None:
    chance = world.chance
    places = chance.choice((2, 10, 1000))
    cap = chance.choice((None, 3.0, 1000.0))
    closes_early = chance.random() < 0.3
    session = make(
        max_in_flight=places,
        max_cost=cap,
        on_event=world.heard(number),
        clock=Clock(SPEED),
        poll=POLL,
        retry=RETRY,
        timeout=3600.0,
    )
    async with session, asyncio.TaskGroup() as users:
        for _ in range(6):
            users.create_task(_until_closed(world, session))
        if closes_early:
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            core = session._core
            await session.aclose()
            session._core = core  # to be looked at
            if over := left_over(session, places):
                world.problems.append(f"after it was closed: {over}")
            session._core = None
            return
        while len(users._tasks) > 0:  # noqa: ASYNC110 - they are the group's own
            await asyncio.sleep(0.01)
        if over := left_over(session, places):
            world.problems.append(f"when all had left: {over}")


async def _until_closed(world: World, session: Session) -> None:
    with contextlib.suppress(AiopplxError):  # of a session that was closed
        await user(world, session, 4)


@dataclass
class Service:
    """A server and what it says of itself: how often each key, and each question, was paid."""

    url: str
    key: str
    api: str
    keys: Callable[[], Counter[str]]
    questions: Callable[[], list[str]]
    mend: Callable[[], None]
    retire: Callable[[], None]


@contextlib.asynccontextmanager
async def service(seed: int) -> AsyncIterator[Service]:
    """The emulator, whose Sonar API is retired in mid-run, or a server of another make."""
    if seed % 2:
        async with JobServer(rate=0.3, seed=seed, speed=SPEED) as server:
            yield Service(
                server.url,
                server.key,
                "sonar",
                lambda: server.seen.created,
                lambda: [task.question for task in server.tasks.values()],
                lambda: setattr(server, "rate", 0.0),
                lambda: None,
            )
        return
    async with Emulator(duration=AfterPolls(2), answer_chars=200, seed=seed) as emulator:
        bad: list[tuple[str, faults.Fault]] = [
            ("submit", faults.Drop(after_accept=True)),
            ("submit", faults.Status(500)),
            ("submit", faults.Delay(0.05)),
            ("get", faults.Drop()),
            ("get", faults.Status(502, html=True)),
            ("get", faults.Delay(0.02)),
        ]
        for on, fault in bad:
            emulator.faults.add(on, fault, rate=0.1)  # type: ignore[arg-type]  # `on` is one of its words
        yield Service(
            emulator.url,
            KEY,
            "auto",
            lambda: emulator.ledger.created_by_key,
            lambda: [job.body.decode() for job in emulator.ledger.jobs],
            emulator.faults.clear,
            lambda: emulator.retire(readable=True),
        )


async def life(seed: int, path: Path) -> World:
    """Two sessions, and a third on the same store that collects what they left."""
    world = World(random.Random(seed))
    how = world.chance.choice(("memory", "memory", "memory", "file", "none"))
    async with service(seed) as server:
        store = MemoryStore(now=Clock(SPEED).wall)

        def make(**more: Any) -> Session:
            journal: Any = {"memory": store.session(), "none": None}.get(how, path)
            if how == "file" and seed % 3:
                journal = JournalOptions(path, results=("refetch", "until_delivered")[seed % 2])
            return Session(server.key, base_url=server.url, api=server.api, journal=journal, **more)

        lives = [session_life(world, n, make) for n in range(2)]
        if how == "file":
            for one in lives:
                await one
                server.retire()
        else:
            retiring = asyncio.get_running_loop().call_later(world.chance.uniform(0.0, 0.4), server.retire)
            await asyncio.gather(*lives)
            retiring.cancel()
        for journal in {row.holder for row in store._claimed.values() if row.holder is not None}:
            await journal.close()
        if how != "none":
            await collect(world, server, make)
            seen = server.questions()
            for question in world.asked:
                times = sum(question in one for one in seen)
                if times > 1:
                    world.problems.append(f"{question} was paid {times} times")
        untold = set(server.keys()) - world.told
        if how == "memory":
            untold -= {row.key for row in store.rows.values() if row.state is not State.QUEUED}
        if how == "file":
            untold = set()
        if untold:
            world.problems.append(f"paid and never told: {untold}")
        twice = {key: count for key, count in server.keys().items() if count > 1}
        if twice:
            world.problems.append(f"paid twice: {twice}")
        often = {job: count for job, count in world.finished.items() if how == "none" and count > 1}
        if often:
            world.problems.append(f"told as finished more than once: {often}")
    return world


async def collect(world: World, server: Service, make: Callable[..., Session]) -> None:
    """The same program again, in fair weather: everything that was asked under a tag has its end."""
    server.mend()
    items = [{"question": f"Shared question {number:02}?", "tag": number} for number in range(12)]
    session = make(clock=Clock(SPEED), poll=POLL, retry=RETRY, max_in_flight=5)
    async with session:
        async with session.batch(items) as jobs:
            found = [job async for job in jobs]
        core = session._core
        assert core is not None
        while core.life.poller._running:  # noqa: ASYNC110 - the last poll writes what was learnt, which nobody waits for
            await asyncio.sleep(0.001)
        if over := left_over(session, 5):
            world.problems.append(f"at the end: {over}")
    for job in found:
        world.tell(job)
    if sorted(job.tag for job in found if isinstance(job.tag, int)) != list(range(12)):
        world.problems.append(f"not all came out: {[job.tag for job in found]}")


@pytest.mark.parametrize("seed", range(12))
async def test_a_random_life_loses_nothing_and_leaves_nothing(seed: int, tmp_path: Path) -> None:
    with anyio.fail_after(ENDS):
        world = await life(seed, tmp_path / "run.db")
    assert world.problems == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1060))
async def test_many_random_lives_lose_nothing(seed: int, tmp_path: Path) -> None:
    with anyio.fail_after(ENDS):
        world = await life(seed, tmp_path / "run.db")
    assert world.problems == []


# --- cancelled at every turn -----------------------------------------------------------------------------------------

TURNS = (*range(100), *range(100, 600, 7))
"""Turns of the loop after which a thing is cancelled: each of the first, where most goes on, and some later ones."""


class Watched:
    """A session at a server of the test's own, and what it has told; an outcome is told by whoever got it."""

    def __init__(self, server: Scripted, path: Path | None, **more: Any) -> None:
        self.server = server
        self.told: set[str] = set(server.by_key)
        self.session = Session(
            SCRIPTED_KEY,
            base_url=server.url,
            api="sonar",
            journal=path,
            poll=PollPolicy.fixed(2),
            retry=RetryPolicy(leave_grace=3600.0),
            clock=JumpingClock(),
            on_event=self._heard,
            max_cost=1e6,
            **more,
        )

    def _heard(self, event: Event) -> None:
        if event.kind in (EventKind.LEFT, EventKind.FINISHED):
            self.told |= {event.job_id, event.idempotency_key}

    def tell(self, *jobs: Job) -> None:
        for job in jobs:
            self.told |= {job.id, job.idempotency_key}

    @property
    def untold(self) -> set[str]:
        return set(self.server.by_key) - self.told

    # --- what is cancelled

    async def asks(self) -> None:
        self.tell(await self.session.ask("A question?"))

    async def submits(self) -> None:
        job = await self.session.submit("A question?")
        self.tell(job)

    async def waits(self) -> None:
        job = await self.session.submit("A question?")
        self.tell(job)
        await self.session.wait(job)

    async def batches(self) -> None:
        batch = self.session.batch([f"Question {n}?" for n in range(5)])
        try:
            async with batch as jobs:
                async for job in jobs:
                    self.tell(job)
        finally:
            self.tell(*batch.pending)

    async def leaves(self) -> None:
        batch = self.session.batch([f"Question {n}?" for n in range(5)])
        try:
            async with batch:
                await turns(20)
        finally:
            self.tell(*batch.pending)


async def turns(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


@pytest.mark.parametrize("journal", [False, True], ids=["forgets", "remembers"])
@pytest.mark.parametrize("what", ["asks", "submits", "waits", "batches", "leaves"])
async def test_cancelled_at_any_turn_nothing_hangs_or_is_lost(what: str, journal: bool, tmp_path: Path) -> None:
    async with Scripted(polls=2) as server:
        watched = Watched(server, tmp_path / "run.db" if journal else None, max_in_flight=3)
        async with watched.session as session:
            await session.submit("The first one, which opens what is opened at first use.")
            watched.told |= set(server.by_key)
            for turn in TURNS:
                before = asyncio.all_tasks()
                task = asyncio.create_task(getattr(watched, what)())
                await turns(turn)
                task.cancel()
                with anyio.fail_after(ENDS):
                    await asyncio.wait([task])
                # What a poll heard is written down, whoever leaves; the poll has its own last step after that.
                assert session._core is not None
                with anyio.fail_after(ENDS):
                    while session._core.life.poller._unwritten:
                        await turns(1)
                await turns(1)
                assert asyncio.all_tasks() == before, f"a task is left when it is cancelled at turn {turn}"
                assert left_over(session, 3) == {}, f"left over when it is cancelled at turn {turn}"
                assert watched.untold == set(), f"lost when it is cancelled at turn {turn}"


@pytest.mark.parametrize("journal", [False, True], ids=["forgets", "remembers"])
async def test_a_close_cancelled_at_any_turn_ends_everything(journal: bool, tmp_path: Path) -> None:
    async with Scripted(polls=2) as server:
        before = asyncio.all_tasks()
        for turn in range(1, 41):
            watched = Watched(server, tmp_path / f"{turn}.db" if journal else None)
            await watched.session.__aenter__()
            calls = (watched.asks(), watched.batches(), watched.submits(), watched.waits())
            others = [asyncio.create_task(call) for call in calls]
            await turns(30)
            closing = asyncio.create_task(watched.session.aclose())
            await turns(turn)
            closing.cancel()
            with anyio.fail_after(ENDS):
                await asyncio.wait([closing])
                ends = await asyncio.gather(*others, return_exceptions=True)
                assert {type(end) for end in ends} <= {ConfigError, type(None)}
                while asyncio.all_tasks() != before:  # noqa: ASYNC110 - what was cut short is ending
                    await asyncio.sleep(0.001)
            assert watched.untold == set(), f"lost when it is cancelled at turn {turn}"
