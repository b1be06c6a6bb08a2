"""What a cap bounds: over models, sessions and restarts, whoever reads a cost, and by how much it can be passed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aiopplx import AgentRequest, BudgetReached, Job, JobStatus, PollPolicy, ResearchRequest, Session
from aiopplx._core.spending import Bounded
from aiopplx._policy.budget import UNSEEN, Balance
from aiopplx._wire.kinds import Kind
from aiopplx.emulator import Emulator, faults
from aiopplx.journal import MemoryStore
from aiopplx.testing import JumpingClock

MIXED: list[Callable[[str], Any]] = [
    lambda text: ResearchRequest(text, reasoning_effort="low"),
    lambda text: ResearchRequest(text, reasoning_effort="high"),
    lambda text: ResearchRequest(text, model="sonar-pro"),
    lambda text: AgentRequest(text, preset="medium"),
    lambda text: AgentRequest(text, preset="high"),
    lambda text: AgentRequest(text, preset="xhigh"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


def served(clock: JumpingClock, **more: Any) -> Emulator:
    return Emulator(clock=clock, **({"duration": 30.0, "answer_chars": 200} | more))


def opened(server: Emulator, clock: JumpingClock, max_cost: float, journal: Any = None, **more: Any) -> Session:
    more.setdefault("api", "sonar")
    poll = PollPolicy.fixed(1.0)
    return Session("key", base_url=server.url, clock=clock, max_cost=max_cost, journal=journal, poll=poll, **more)


def balance_of(session: Session) -> Balance:
    spending = session._running().life.spending
    assert isinstance(spending, Bounded)
    return spending.budget.balance(Kind())


# --- over models, batches and restarts -------------------------------------------------------------------------------


CAP = 6.0
CHEAP = [AgentRequest(f"Cheap {n}?", effort="medium") for n in range(25)]
DEAR = [ResearchRequest(f"Dear {n}?", reasoning_effort="high") for n in range(40)]


@pytest.mark.parametrize(
    "runs",
    [[[[*CHEAP, *DEAR]]], [[CHEAP, DEAR]], [[CHEAP], [DEAR]], [[CHEAP], [DEAR], [DEAR, CHEAP]]],
    ids=["one batch", "two batches", "two runs", "three runs"],
)
async def test_cheap_model_says_nothing_about_a_dear_one(
    path: Path, clock: JumpingClock, runs: list[list[list[Any]]]
) -> None:
    """25 costs of a cent each do not let forty jobs of a dollar through a cap of six."""
    async with served(clock) as server:
        for batches in runs:
            async with opened(server, clock, CAP, path, api="auto") as session:
                for batch in batches:
                    async with session.batch(batch) as jobs:
                        assert {job.status async for job in jobs} <= {JobStatus.COMPLETED, JobStatus.STOPPED}
        assert sum(job.cost < 0.1 for job in server.ledger.jobs) == len(CHEAP)
        assert sum(job.cost > 0.3 for job in server.ledger.jobs) == server.ledger.created - len(CHEAP) > 2
        assert 0.5 * CAP < server.ledger.billed <= CAP


async def test_ten_of_an_unseen_kind_await_one_end(clock: JumpingClock) -> None:
    source = [f"Why did ship {n} sink?" for n in range(40)]
    async with served(clock) as server, opened(server, clock, 1000.0) as session, session.batch(source) as jobs:
        first = await anext(jobs)
        before = [job for job in server.ledger.jobs if job.created_at < server.ledger.jobs[0].finished_at]
        assert len(before) == UNSEEN
        assert first.ok
        assert [job.ok async for job in jobs] == [True] * 39


async def test_unseen_kind_nobody_waits_for_says_what_helps(clock: JumpingClock) -> None:
    async with served(clock) as server, opened(server, clock, 1000.0) as session:
        left = [await session.submit(f"Why did ship {n} sink?") for n in range(UNSEEN)]
        with pytest.raises(BudgetReached, match=r"no cost of such a job .* is known yet, .* Waiting for one of them"):
            await session.submit("And this one?")
        await session.wait(left[0])
        await session.submit("And this one?")
        assert server.ledger.created == UNSEEN + 1


@pytest.mark.parametrize("seed", range(8))
async def test_cap_is_kept_over_mixed_models_and_restarts(path: Path, clock: JumpingClock, seed: int) -> None:
    """Batches of several kinds, calls, jobs that are left and waited for later; the cap counts all of it."""
    rng = random.Random(seed)
    cap = rng.uniform(4.0, 8.0)
    ids: list[str] = []
    async with served(clock, seed=seed, duration=lambda question: rng.uniform(1.0, 60.0)) as server:
        for run in range(3):
            async with opened(server, clock, cap, path, api="auto") as session:
                for n in range(3):
                    makers = rng.sample(MIXED, rng.randint(1, 3))
                    takes = rng.randint(1, 30)
                    async with session.batch(
                        [rng.choice(makers)(f"{run} {n} {i}?") for i in range(30)], max_in_flight=rng.randint(1, 30)
                    ) as jobs:
                        async for _ in jobs:
                            takes -= 1
                            if not takes:
                                break
                    with contextlib.suppress(BudgetReached):
                        ids.append((await session.submit(rng.choice(MIXED)(f"{run} {n}?"))).id)
                    if ids and rng.random() < 0.5:
                        await session.wait(ids.pop(rng.randrange(len(ids))))
        assert 0.5 * cap < server.ledger.billed <= 1.1 * cap


# --- a cost that becomes known ---------------------------------------------------------------------------------------


async def by_wait(session: Session, job: Job) -> Job:
    return await session.wait(job.id)


async def by_get(session: Session, job: Job) -> Job:
    await session.wait(job.id, timeout=1e-3)
    await session._running().client.clock.sleep(60.0)
    return await session.get(job.id)


READERS = [by_wait, by_get]
Read = Callable[[Session, Job], Awaitable[Job]]


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("journal", [True, False], ids=["journal", "none"])
async def test_loop_of_submit_and_read_spends_what_it_costs(
    path: Path, clock: JumpingClock, read: Read, journal: bool
) -> None:
    async with served(clock) as server, opened(server, clock, 12.0, path if journal else None) as session:
        for n in range(10):
            job = await read(session, await session.submit(f"Why did ship {n} sink?"))
            assert job.ok
            balance = balance_of(session)
            assert (balance.reserved, balance.left, balance.in_flight) == (0.0, 0, 0)
            assert balance.spent == pytest.approx(server.ledger.billed)


async def test_unanswered_submission_is_sent_again_at_the_cap(path: Path, clock: JumpingClock) -> None:
    """What an earlier run has sent is reserved, and sending it again under its key makes no second bill."""
    async with served(clock) as server:
        server.faults.add("submit", faults.Hang(after_accept=True))
        async with opened(server, clock, 50.0, path) as session:
            asking = asyncio.create_task(session.ask("Why did the Vasa sink?", tag="x"))
            await server.until(lambda ledger: ledger.created == 1)
            asking.cancel()
            await asyncio.wait([asking])
        server.faults.clear()
        async with opened(server, clock, 2.5, path) as session:
            job = await session.ask("Why did the Vasa sink?", tag="x")
    assert (job.ok, server.ledger.created) == (True, 1)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
async def test_cost_of_an_earlier_run_replaces_its_reservation(path: Path, clock: JumpingClock, read: Read) -> None:
    """And it is written down: a third run begins with what was spent, and with nothing reserved."""
    async with served(clock) as server:
        async with opened(server, clock, 20.0, path) as session:
            left = [await session.submit(f"Why did ship {n} sink?") for n in range(3)]
        async with opened(server, clock, 20.0, path) as session:
            assert (balance_of(session).left, balance_of(session).spent) == (3, 0.0)
            for n, job in enumerate(left):
                assert (await read(session, job)).ok
                assert (balance_of(session).left, balance_of(session).in_flight) == (2 - n, 0)
            assert balance_of(session).spent == pytest.approx(server.ledger.billed)
        async with opened(server, clock, 20.0, path) as session:
            balance = balance_of(session)
            assert (balance.left, balance.unknown, balance.reserved) == (0, 0, 0.0)
            assert balance.spent == pytest.approx(server.ledger.billed)


async def test_jobs_that_a_batch_left_are_settled_by_wait(path: Path, clock: JumpingClock) -> None:
    async with served(clock) as server, opened(server, clock, 20.0, path) as session:
        batch = session.batch([f"Why did ship {n} sink?" for n in range(5)])
        async with batch:
            await server.until(lambda ledger: ledger.created == 5)
        assert balance_of(session).left == 5
        for job in batch.pending:
            assert (await session.wait(job)).ok
        balance = balance_of(session)
        assert (balance.left, balance.reserved, balance.spent) == (0, 0.0, pytest.approx(server.ledger.billed))


async def test_job_that_two_read_is_paid_for_once(clock: JumpingClock) -> None:
    store = MemoryStore(now=clock.wall)
    async with served(clock) as server, opened(server, clock, 20.0, store.session()) as session:
        job = await session.submit("Why did the Vasa sink?", tag="x")
        await clock.sleep(60.0)
        await asyncio.gather(session.get(job.id), session.wait(job.id), session.ask("Why did the Vasa sink?", tag="x"))
        await session.get(job.id)
        balance = balance_of(session)
        assert (balance.left, balance.in_flight, balance.unknown) == (0, 0, 0)
        assert balance.spent == pytest.approx(server.ledger.billed)
        assert server.ledger.created == 1


async def test_run_left_at_its_first_ten_goes_on(path: Path, clock: JumpingClock) -> None:
    """The next run takes the ten up before it comes to a question that has to wait for their costs."""
    source = [f"Why did ship {n} sink?" for n in range(30)]
    async with served(clock) as server:
        async with opened(server, clock, 1000.0, path) as session, session.batch(source):
            await server.until(lambda ledger: ledger.created == UNSEEN)
        async with opened(server, clock, 1000.0, path) as session, session.batch(source) as jobs:
            assert [job.ok async for job in jobs] == [True] * 30
        assert server.ledger.created == 30
