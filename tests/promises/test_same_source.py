"""The same source is the same questions, however the batch before it ended: nothing is paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiopplx import ConfigError, Event, EventKind, Job, JobStatus, OutOfCredit, PollPolicy, RetryPolicy, Session
from aiopplx.emulator import Emulator, faults
from aiopplx.testing import JumpingClock

SOURCE = [f"Why did ship {n % 9} sink?" for n in range(12)]
"""Nine questions, three of which stand twice."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def opened(server: Emulator, clock: JumpingClock, journal: Path | None, told: list[Event] | None = None, **more: Any):
    return Session(
        "key",
        base_url=server.url,
        api="sonar",
        clock=clock,
        journal=journal,
        poll=PollPolicy.fixed(1.0),
        on_event=told.append if told is not None else None,
        **more,
    )


async def taken(session: Session, source: Any = SOURCE) -> list[Job]:
    async with session.batch(source) as jobs:
        return [job async for job in jobs]


# --- the ways in which a batch can end -------------------------------------------------------------------------------


async def exhausted(server: Emulator, session: Session) -> None:
    await taken(session)


async def left_early(server: Emulator, session: Session) -> None:
    async with session.batch(SOURCE) as jobs:
        async for _ in jobs:
            break


async def left_before_the_first_job(server: Emulator, session: Session) -> None:
    async with session.batch(SOURCE):
        await server.until(lambda ledger: ledger.created >= 4)


async def cancelled(server: Emulator, session: Session) -> None:
    run = asyncio.create_task(taken(session))
    await server.until(lambda ledger: ledger.created >= 4)
    run.cancel()
    await asyncio.wait([run])


async def out_of_credit(server: Emulator, session: Session) -> None:
    server.credits = server.ledger.billed + 2.5
    with contextlib.suppress(OutOfCredit):  # one that has paid for everything already ends well
        await taken(session)
    server.credits = None
    session.resume()


async def source_failed(server: Emulator, session: Session) -> None:
    def source() -> Iterator[str]:
        yield from SOURCE[:7]
        raise LookupError("the source is gone")

    with pytest.raises(LookupError):
        await taken(session, source())


async def async_source_failed(server: Emulator, session: Session) -> None:
    async def source() -> AsyncIterator[str]:
        for question in SOURCE[:7]:
            yield question
        raise LookupError("the source is gone")

    async with contextlib.aclosing(source()) as questions:
        with pytest.raises(LookupError):
            await taken(session, questions)


async def closed(server: Emulator, session: Session) -> None:
    run = asyncio.create_task(taken(session))
    await server.until(lambda ledger: ledger.created >= 4)
    await session.aclose()
    with pytest.raises(ConfigError):
        await run


async def timed_out(server: Emulator, session: Session) -> None:
    async with session.batch(SOURCE, timeout=1e-3) as jobs:
        ends = {job.status async for job in jobs}
    assert ends <= {JobStatus.TIMED_OUT, JobStatus.COMPLETED, JobStatus.IN_DOUBT}


WAYS = [
    exhausted,
    left_early,
    left_before_the_first_job,
    cancelled,
    out_of_credit,
    source_failed,
    async_source_failed,
    closed,
    timed_out,
]
Way = Callable[[Emulator, Session], Awaitable[None]]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_source_given_again_pays_for_nothing_twice(path: Path, way: Way) -> None:
    """In the same session, and, for good measure, in the next one."""
    clock = JumpingClock()
    async with Emulator(clock=clock, duration=30.0, answer_chars=200) as server:
        session = opened(server, clock, path)
        async with session:
            await way(server, session)
            if way is not closed:
                jobs = await taken(session)
                assert [job.ok for job in jobs] == [True] * len(SOURCE)
        async with opened(server, clock, path) as session:
            again = await taken(session)
        assert [job.ok for job in again] == [True] * len(SOURCE)
        assert server.ledger.created == len(SOURCE)


@pytest.mark.parametrize("seed", range(6))
async def test_any_sequence_of_ends_pays_for_each_question_once(path: Path, seed: int) -> None:
    """Interrupted, run again, run a third time, as in a notebook; a fifth of all answers to submissions is lost."""
    rng = random.Random(seed)
    clock = JumpingClock()
    async with Emulator(clock=clock, seed=seed, duration=30.0, answer_chars=200) as server:
        server.faults.add("submit", faults.Drop(after_accept=True), rate=0.2)
        for _ in range(3):
            async with opened(server, clock, path) as session:
                way: Way = exhausted
                for _ in range(rng.randint(1, 3)):
                    if way is not closed:
                        way = rng.choice(WAYS)
                        await way(server, session)
        async with opened(server, clock, path) as session:
            jobs = await taken(session)
        assert [job.ok for job in jobs] == [True] * len(SOURCE)
        assert server.ledger.created == len(SOURCE)
        assert set(server.ledger.created_by_key.values()) == {1}


async def test_budget_reached_and_raised_pays_for_nothing_twice(path: Path) -> None:
    clock = JumpingClock()
    async with Emulator(clock=clock, duration=30.0, answer_chars=200) as server:
        for max_cost in (2.0, 5.0, 50.0):
            async with opened(server, clock, path, max_cost=max_cost) as session:
                for _ in range(2):
                    jobs = await taken(session)
            assert server.ledger.billed <= max_cost
        assert [job.ok for job in jobs] == [True] * len(SOURCE)
        assert server.ledger.created == len(SOURCE)


async def test_two_batches_at_once_share_their_equal_questions(path: Path) -> None:
    clock = JumpingClock()
    async with Emulator(clock=clock, duration=30.0, answer_chars=200) as server:
        async with opened(server, clock, path) as session:
            one, two = await asyncio.gather(taken(session), taken(session, SOURCE[::-1]))
        assert server.ledger.created == len(SOURCE)
    assert Counter(job.id for job in one) == Counter(job.id for job in two)


async def test_repeat_beyond_those_of_the_first_batch_is_new(path: Path) -> None:
    clock = JumpingClock()
    server = Emulator(clock=clock, duration=1.0, answer_chars=200)
    async with server, opened(server, clock, path) as session:
        for count, made in ((2, 2), (1, 2), (3, 3), (2, 3)):
            assert len(await taken(session, ["Why?"] * count)) == count
            assert server.ledger.created == made


@pytest.mark.parametrize("call", ["ask", "submit"])
async def test_untagged_call_is_always_a_new_submission(path: Path, call: str) -> None:
    """In one session, beside a batch with the question, and after a restart."""
    clock = JumpingClock()
    async with Emulator(clock=clock, duration=1.0, answer_chars=200) as server:
        for run in range(2):
            async with opened(server, clock, path) as session:
                await taken(session, ["Why?"])
                for _ in range(2):
                    await getattr(session, call)("Why?")
            assert server.ledger.created == 1 + 2 * (run + 1)


async def test_call_under_its_own_key_is_found_by_it(path: Path) -> None:
    clock = JumpingClock()
    async with Emulator(clock=clock, duration=1.0, answer_chars=200) as server:
        for _ in range(2):
            async with opened(server, clock, path) as session:
                for _ in range(2):
                    assert (await session.ask("Why?", idempotency_key="order 7")).ok
        assert server.ledger.created == 1


async def test_repeated_batch_without_a_journal_is_a_new_one() -> None:
    clock = JumpingClock()
    server = Emulator(clock=clock, duration=1.0, answer_chars=200)
    async with server, opened(server, clock, None) as session:
        for n in range(2):
            await taken(session, ["Why?"])
            assert server.ledger.created == n + 1


# --- whatever may be billed is told ----------------------------------------------------------------------------------


@pytest.mark.parametrize("journal", [True, False], ids=["journal", "none"])
@pytest.mark.parametrize("seed", range(8))
async def test_no_job_is_made_that_nobody_is_told_of(path: Path, seed: int, journal: bool) -> None:
    """Batches and calls are left at any moment, and a fifth of the answers to submissions is lost."""
    rng = random.Random(seed)
    clock = JumpingClock()
    told: list[Event] = []
    keys: set[str] = set()
    async with Emulator(clock=clock, seed=seed, duration=30.0, answer_chars=200) as server:
        server.faults.add("submit", faults.Drop(after_accept=True), rate=0.2)
        server.faults.add("submit", faults.Status(503), rate=0.1)
        more: dict[str, Any] = {"retry": RetryPolicy(leave_grace=1.0), "max_in_flight": 8}
        async with opened(server, clock, path if journal else None, told, **more) as session:
            for n in range(6):
                after = server.ledger.created + rng.randint(0, 8)
                batch = session.batch([f"Ship {seed} {n} {i}?" for i in range(10)])
                async with batch as jobs:
                    takes = rng.randint(0, 10)
                    if takes:
                        async for job in jobs:
                            keys.add(job.idempotency_key)
                            takes -= 1
                            if not takes:
                                break
                    else:
                        with contextlib.suppress(TimeoutError):
                            async with clock.timeout(5.0):
                                await server.until(lambda ledger, after=after: ledger.created >= after)
                keys |= {job.idempotency_key for job in batch.pending}
                asking = asyncio.create_task(session.ask(f"Ship {seed} {n}?"))
                await clock.sleep(rng.uniform(0.0, 20.0))
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    keys.add((await asking).idempotency_key)
        keys |= {event.idempotency_key for event in told if event.kind is EventKind.LEFT}
        assert server.ledger.created > 10
        assert set(server.ledger.created_by_key) <= keys
