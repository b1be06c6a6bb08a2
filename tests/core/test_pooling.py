"""One budget for several sessions, over a store that they share."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any, cast

import pytest
from _billed import ended
from _postgres import Server
from _rows import claim_of, take
from _scripted import KEY

from aiopplx import (
    AgentRequest,
    BudgetReached,
    Event,
    EventKind,
    Job,
    JobStatus,
    JournalOptions,
    PollPolicy,
    RetryPolicy,
    Session,
)
from aiopplx._core.shared.pooling import LOOK, Pooled
from aiopplx._policy.budget import Budget, expected
from aiopplx._submission import Submission
from aiopplx._wire.api import API
from aiopplx._wire.kinds import Kind
from aiopplx._wire.request import Request, ResearchRequest
from aiopplx.agent import AGENT
from aiopplx.emulator import AfterPolls, Emulator
from aiopplx.journal._names import item_name
from aiopplx.journal._postgres.journal import PostgresJournal
from aiopplx.journal._protocol import Pool
from aiopplx.journal._records import Claim, Ledger, Room, State
from aiopplx.journal._sqlite.journal import SqliteJournal
from aiopplx.sonar import SONAR
from aiopplx.testing import Clock, JumpingClock

SOON = PollPolicy.fixed(0.1)
KIND = Kind("sonar", "sonar-deep-research", "medium")


@pytest.fixture
async def service() -> AsyncIterator[Emulator]:
    async with Emulator(duration=AfterPolls(1), answer_chars=100) as service:
        yield service


@contextlib.asynccontextmanager
async def sessions(
    service: Emulator, url: str, *caps: float, told: list[Event] | None = None, **more: Any
) -> AsyncIterator[list[tuple[Session, PostgresJournal]]]:
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for cap in caps:
            journal = await PostgresJournal.open(url)
            stack.push_async_callback(journal.close)
            session = Session(
                KEY,
                base_url=service.url,
                journal=journal,
                max_cost=cap,
                poll=SOON,
                on_event=told.append if told is not None else None,
                **more,
            )
            made.append((await stack.enter_async_context(session), journal))
        yield made


async def asked(session: Session, name: str, count: int) -> list[Job]:
    async with session.batch({"question": f"Why {n}?", "tag": f"{name} {n}"} for n in range(count)) as batch:
        return [job async for job in batch]


async def test_sessions_together_spend_no_more_than_the_cap(service: Emulator, postgres: Server) -> None:
    cap = 5.0
    async with sessions(service, postgres.url(), *[cap] * 3) as made:
        jobs = await asyncio.gather(*(asked(session, f"{n}", 20) for n, (session, _) in enumerate(made)))
        room = await made[0][1].room()
        again = await made[0][1].recount()
    ended = [job for ours in jobs for job in ours]
    assert {job.status for job in ended} == {JobStatus.COMPLETED, JobStatus.STOPPED}
    costs = [job.cost for job in ended if job.cost is not None]
    held = expected(
        SONAR.kind_of(SONAR.freeze(ResearchRequest("Why?"), "k"))
    )  # for each, before twenty costs are known
    assert service.ledger.billed <= cap + sum(max(0.0, cost - held) for cost in costs)
    assert service.ledger.billed > cap - held - max(costs), "and most of it is used"
    assert room.spent == pytest.approx(service.ledger.billed)
    assert (room.held, again.spent, again.held) == (0.0, pytest.approx(room.spent), 0.0)


async def test_room_that_another_session_makes_is_used(service: Emulator, postgres: Server) -> None:
    """The second one waits for the first one's job, since both together might cost more than there is."""
    async with Emulator(duration=0.5, answer_chars=100) as slow, sessions(slow, postgres.url(), 2.0, 2.0) as made:
        (one, _), (other, journal) = made
        first = asyncio.create_task(one.ask("Why?", tag="first"))
        await slow.until(lambda ledger: ledger.created == 1)
        assert (await journal.room()).held > 1.0
        assert (await other.ask("Why else?", tag="second")).ok
        assert (await first).ok


async def left_by_a_dead_session(url: str, *, in_doubt: bool) -> None:
    """A submission without an answer, under the tag x, for which ten cents are held."""
    dead = await PostgresJournal.open(url)
    body = SONAR.freeze(ResearchRequest("Why?"), "k")
    record = await dead.find_or_queue(item_name("x", b""), tag="x", key="k", body=body, sha=b"", api="sonar")
    assert await dead.hold(claim_of(record), 0.1, again=False)
    await take(dead, record, "sending")
    if in_doubt:
        await take(dead, record, "doubtful", error="?")
    await dead.close()


@pytest.mark.parametrize("cap", [0.1, 50.0])
async def test_submission_in_doubt_is_sent_again_at_the_cap(service: Emulator, postgres: Server, cap: float) -> None:
    url = postgres.url()
    await left_by_a_dead_session(url, in_doubt=True)
    async with sessions(service, url, cap) as [(session, journal)]:
        job = await session.ask("Why?", tag="x", timeout=60)
        assert job.ok, job.error
        room, again = await journal.room(), await journal.recount()
        assert (room.spent, room.held) == (pytest.approx(again.spent), 0.0)
    assert service.ledger.created == 1


async def left_unanswered(where: str | Path, api: API, request: Request, amount: float) -> None:
    """A submission under the tag x whose answer a dead session never had; in a database the amount is held for it."""
    dead = await (PostgresJournal.open(where) if isinstance(where, str) else SqliteJournal.open(where, now=time.time))
    body = api.freeze(request, "k")
    record = await dead.find_or_queue(item_name("x", b""), tag="x", key="k", body=body, sha=b"", api=api.name)
    if isinstance(dead, PostgresJournal):
        assert await dead.hold(claim_of(record), amount, again=False)
    await take(dead, record, "sending")
    await dead.close()


# The Agent API has no idempotency keys, so each time that it is sent may be a bill.
@pytest.mark.parametrize("store", ["file", "database"])
@pytest.mark.parametrize(
    ("api", "request_of", "holds", "is_sent"),
    [
        (SONAR, ResearchRequest, 0.9, False),
        (SONAR, ResearchRequest, 1.1, True),
        (AGENT, AgentRequest, 1.9, False),
        (AGENT, AgentRequest, 2.1, True),
    ],
)
async def test_unanswered_submission_is_sent_again_within_the_cap(
    service: Emulator,
    postgres: Server,
    tmp_path: Path,
    store: str,
    api: API,
    request_of: Callable[[str], Request],
    holds: float,
    is_sent: bool,
) -> None:
    where = tmp_path / "run.db" if store == "file" else postgres.url()
    request = request_of("Why?")
    amount = expected(api.kind_of(api.freeze(request, "k")))
    await left_unanswered(where, api, request, amount)
    async with (
        Session(
            KEY,
            base_url=service.url,
            api="agent" if api is AGENT else "sonar",
            journal=JournalOptions(where, collect=False),
            max_cost=holds * amount,
            poll=SOON,
            retry=RetryPolicy(on_doubt="resend"),
        ) as session,
        session.batch([{"question": "Why?", "tag": "x"}]) as batch,
    ):
        [job] = [job async for job in batch]
    assert service.ledger.created == is_sent
    assert job.status is (JobStatus.COMPLETED if is_sent else JobStatus.IN_DOUBT)


async def test_collected_submission_is_sent_again_at_the_cap(service: Emulator, postgres: Server) -> None:
    """What its dead session held back for it is enough, though more would be held back by now."""
    url = postgres.url()
    await left_by_a_dead_session(url, in_doubt=False)
    async with sessions(service, url, 0.1) as [(_, journal)]:
        async with asyncio.timeout(60):
            while not (await journal.counts())[State.DONE]:  # noqa: ASYNC110 - the store tells of rows, not of counts
                await asyncio.sleep(0.02)
    assert service.ledger.created == 1


class Full:
    """A budget without room, which other sessions hold; what they hold changes `changes` times, once a minute."""

    def __init__(self, clock: Clock, changes: int = 0) -> None:
        self._clock = clock
        self._began = clock.now()
        self._changes = changes

    async def hold(self, claim: Claim, dollars: float, *, again: bool) -> bool:
        return False

    async def room(self, *, but: Collection[int] = ()) -> Room:
        minutes = min(self._changes, int((self._clock.now() - self._began) / 60.0))
        return Room(cap=5.0, spent=1.0 + minutes / 100.0, held=4.0, may_change=True)


class Rooms:
    """A budget that has so much room at each time that it is asked; some more is held, and may be let go or not."""

    def __init__(self, cap: float, *rests: float, may_change: bool) -> None:
        self.asked: list[float] = []
        self._cap = cap
        self._rests = list(rests)
        self._may_change = may_change

    async def hold(self, claim: Claim, dollars: float, *, again: bool) -> bool:
        self.asked.append(dollars)
        return dollars <= self._rests[0]

    async def room(self, *, but: Collection[int] = ()) -> Room:
        rest = self._rests[0]
        if len(self._rests) > 1:
            self._rests.pop(0)
        return Room(cap=self._cap, spent=3.0, held=self._cap - 3.0 - rest, may_change=self._may_change)


@pytest.mark.parametrize(
    ("cap", "rests", "may_change", "asked"),
    [
        (10.0, [4.0], True, [3.0]),
        (10.0, [2.0, 4.0], True, [3.0, 3.0]),  # others may make room, so it waits
        (10.0, [2.0], False, [3.0, 1.0]),  # nothing will change
        (5.0, [2.0], True, [3.0, 1.0]),  # there is no such room, whoever ends
        (5.0, [0.5, 0.6, 1.0], True, [3.0, 1.0, 3.0, 1.0]),
    ],
)
async def test_unknown_kind_holds_three_times_what_is_published(
    cap: float, rests: list[float], may_change: bool, asked: list[float]
) -> None:
    pool = Rooms(cap, *rests, may_change=may_change)
    clock = JumpingClock()
    money = Pooled(cast("Pool", pool), Budget(10.0, expected=lambda kind: 1.0), clock, Ledger())
    sub = Submission(cast("API", SONAR), "k", kind=KIND, timeout=600.0)
    sub.claim = Claim(1, 1)
    async with asyncio.timeout(60):
        await money.reserve(sub, math.inf)
    assert pool.asked == asked


async def test_own_first_job_of_a_kind_is_waited_for() -> None:
    """Its cost tells what the next one holds, though there is no room for three times what is published."""
    clock = JumpingClock()
    pool = Rooms(5.0, 2.0, may_change=True)
    money = Pooled(cast("Pool", pool), Budget(5.0, expected=lambda kind: 1.0), clock, Ledger())
    first, second = (Submission(cast("API", SONAR), key, kind=KIND, timeout=600.0) for key in "ab")
    first.claim, second.claim = Claim(1, 1), Claim(2, 1)
    async with asyncio.timeout(60):
        await money.reserve(first, math.inf)
        waiting = asyncio.create_task(money.reserve(second, math.inf))
        await clock.sleep(5 * LOOK)
        assert not waiting.done()
        money.settle(first, ended(0.5), is_billed=True)
        await waiting
    assert (set(pool.asked[2:-1]), pool.asked[-1]) == ({3.0}, 1.0)


@pytest.mark.parametrize(("changes", "minutes"), [(0, 10), (7, 17)])
async def test_budget_in_which_nothing_changes_is_not_waited_for(changes: int, minutes: int) -> None:
    """A session that died with its hold in a row which nobody collects, for example: its hold is held for good."""
    clock = JumpingClock()
    began = clock.now()
    money = Pooled(cast("Pool", Full(clock, changes)), Budget(5.0), clock, Ledger())
    sub = Submission(cast("API", SONAR), "k", kind=KIND, timeout=600.0)
    sub.claim = Claim(1, 1)
    async with asyncio.timeout(60):
        with pytest.raises(BudgetReached):
            await money.reserve(sub, math.inf)
    assert clock.now() - began == pytest.approx(minutes * 60.0, abs=2 * LOOK)


async def test_newer_cap_holds_and_is_told(service: Emulator, postgres: Server) -> None:
    told: list[Event] = []
    async with sessions(service, postgres.url(), 50.0, 0.5, told=told) as made:
        assert [event.reason for event in told if event.kind is EventKind.WARNING] == [
            "max_cost was $50.00 for all sessions of this journal, and is $0.50 from now on"
        ]
        with pytest.raises(BudgetReached, match=r"of \$0.50 spent"):
            await made[0][0].ask("Why?", tag="a")
    assert service.ledger.created == 0
