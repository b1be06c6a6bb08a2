"""What one listener does must not harm another: submissions that several want, leave, resume or share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import anyio
import msgspec
import pytest
from _faulty import taken
from _scripted import KEY, Asked, Scripted, is_get, is_submit
from _virtual import ask_for_silence

from aiopplx import (
    Event,
    EventKind,
    InDoubt,
    Job,
    JobStatus,
    JournalOptions,
    PollPolicy,
    RetryPolicy,
    Session,
)
from aiopplx._core.batch.results import READY
from aiopplx._core.spending import Bounded
from aiopplx._policy.budget import Balance
from aiopplx._submission import Phase
from aiopplx._wire.kinds import Kind
from aiopplx.journal import open_reader
from aiopplx.journal._errors import JournalAway
from aiopplx.journal._memory import MemoryJournal, MemoryStore
from aiopplx.journal._records import Claim, State
from aiopplx.journal._steps import Step
from aiopplx.testing import Clock

NEVER = float("inf")
BUSY = "Is anybody there?"
QUESTION = "Why did the Vasa sink?"
SOON = 20


def opened(server: Scripted, told: list[Event] | None = None, **more: Any) -> Session:
    more.setdefault("poll", PollPolicy.fixed(0.05))
    if told is not None:
        more["on_event"] = told.append
    return Session(KEY, base_url=server.url, api="sonar", **more)


def of_kind(told: list[Event], kind: EventKind) -> list[Event]:
    return [event for event in told if event.kind is kind]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state inside the library, which tells nobody of it."""
    with anyio.fail_after(SOON):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)


def balance_of(session: Session) -> Balance:
    """What the session's budget says, of all its jobs."""
    spending = session._core.life.spending
    assert isinstance(spending, Bounded)
    return spending.budget.balance(Kind())


async def turns(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def one_that_runs(server: Scripted, journal: Any) -> Job:
    """A job that an earlier run submitted and did not wait for, under the tag "x"."""
    async with opened(server, journal=journal) as session:
        return await session.submit(QUESTION, tag="x")


def stuck_if_busy(row: Any) -> float:
    return NEVER if row.question == BUSY else 1


# --- a resumed job that waits for a place ----------------------------------------------------------------------------


async def test_job_that_ends_before_its_slot_is_not_sent(tmp_path: Path) -> None:
    told: list[Event] = []
    path = tmp_path / "run.db"
    async with Scripted(polls=stuck_if_busy) as server:
        job = await one_that_runs(server, path)
        async with opened(server, told, journal=path, max_in_flight=1, max_cost=100.0) as session:
            busy = asyncio.create_task(session.ask(BUSY))
            await server.until(lambda: server.requests["get"] > 0)
            asking = asyncio.create_task(session.ask(QUESTION, tag="x"))
            life = session._core.life
            await until(lambda: job.id in life.live.by_id)
            with anyio.fail_after(SOON):
                assert (await session.wait(job.id)).ok
                assert (await asking).ok  # though the only place is still taken
            assert [row.question for row in server.rows.values()] == [QUESTION, BUSY]
            busy.cancel()
            await asyncio.wait([busy])
            assert life.slots.value == 1
            assert balance_of(session).in_flight == 0
    assert of_kind(told, EventKind.STOPPED) == []


@pytest.mark.parametrize("other", ["wait", "ask"])
async def test_leaving_a_waiting_job_harms_no_other_listener(other: str, tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    polls: dict[str, float] = {BUSY: NEVER, QUESTION: NEVER}
    async with Scripted(polls=lambda row: polls[row.question]) as server:
        job = await one_that_runs(server, path)
        async with opened(server, journal=path, max_in_flight=1) as session:
            busy = asyncio.create_task(session.ask(BUSY))
            await server.until(lambda: server.requests["get"] > 0)
            life = session._core.life
            async with session.batch([{"question": QUESTION, "tag": "x"}]) as jobs:
                await until(lambda: job.id in life.live.by_id)
                call = session.wait(job.id) if other == "wait" else session.ask(QUESTION, tag="x")
                calling = asyncio.create_task(call)
                await turns(50)
            assert [left.id for left in jobs.pending] == [job.id]
            polls[QUESTION] = 1
            busy.cancel()
            with anyio.fail_after(SOON):
                assert (await calling).ok


async def test_listener_of_a_waiting_job_keeps_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with Scripted(polls=NEVER) as server:
        job = await one_that_runs(server, path)
        async with opened(server, journal=path, max_in_flight=1) as session:
            busy = asyncio.create_task(session.ask(BUSY))
            await server.until(lambda: server.requests["get"] > 0)
            async with session.batch([{"question": QUESTION, "tag": "x"}]):
                await until(lambda: job.id in session._core.life.live.by_id)
                with anyio.fail_after(SOON):
                    assert not (await session.ask(QUESTION, tag="x", timeout=0.2)).ok
            busy.cancel()


# --- whose time is up ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["missing", "empty"])
async def test_doubtful_poll_ends_no_listener_before_its_time(answer: str) -> None:
    """One listener's time is up while the poll is out: the others have time for the second poll that it needs."""
    async with Scripted(polls=NEVER) as server, opened(server, clock=Clock(20), timeout=10_000.0) as session:
        job = await session.submit(QUESTION)
        server.hold = is_get
        short = asyncio.create_task(session.wait(job.id, timeout=2))
        long = asyncio.create_task(session.wait("job-0"))
        await server.until(lambda: len(server.held) == 1)
        now = session._core.client.clock.now
        (sub,) = session._core.life.live.by_id.values()
        sub.polls.is_fresh = False
        await until(lambda: now() >= sub.first_deadline())
        bad = (
            (404, {"error": {"message": "no such job", "type": "not_found", "code": 404}})
            if answer == "missing"
            else (200, server.summary(server.rows["job-0"], "COMPLETED"))
        )
        server.script = lambda asked: bad
        server.hold = lambda asked: False
        server.release()
        server.script = lambda asked: None
        server.polls = 1
        with anyio.fail_after(SOON):
            assert (await short).status is JobStatus.TIMED_OUT
            assert (await long).ok


# --- who joins -------------------------------------------------------------------------------------------------------


async def test_joining_a_parked_job_has_it_polled(tmp_path: Path) -> None:
    count = READY + 8
    tagged = [{"question": f"Question {n}?", "tag": n} for n in range(count)]
    journal = JournalOptions(tmp_path / "run.db", results="refetch")
    async with Scripted() as server, opened(server, journal=journal) as session, session.batch(tagged) as jobs:
        await server.until(lambda: server.told >= READY and server.requests["submit"] == count)
        schedule = session._core.life.poller._schedule
        await until(lambda: not len(schedule))
        parked = next(row for row in server.rows.values() if not row.told)
        tag = next(one["tag"] for one in tagged if one["question"] == parked.question)
        with anyio.fail_after(SOON):
            assert (await session.ask(parked.question, tag=tag)).ok
        assert len([job async for job in jobs]) == count


async def test_joining_listener_brings_the_right_to_write(tmp_path: Path) -> None:
    """A `wait` began when another session held the row. That one closed, and the row was asked for here."""
    store = MemoryStore(now=time.time)
    async with Scripted(polls=NEVER) as server:
        journal = store.session()
        job = await one_that_runs(server, journal)
        async with opened(server, journal=store.session()) as two:
            waiting = asyncio.create_task(two.wait(job.id))
            await server.until(lambda: server.requests["get"] > 0)
            await journal.close()
            asking = asyncio.create_task(two.ask(QUESTION, tag="x"))
            await until(lambda: len(two._core.life.live.by_id[job.id].listeners) == 2)
            server.polls = 1
            assert (await waiting).ok
            assert (await asking).ok
        assert store.rows[1].state is State.DONE


@pytest.mark.parametrize("in_tasks", [False, True], ids=["each a task", "each call a task"])
async def test_job_is_delivered_when_its_own_consumer_asks_again(tmp_path: Path, in_tasks: bool) -> None:
    """Another consumer of the batch says nothing of the job that the first still works at."""
    path = tmp_path / "run.db"

    def kept() -> set[object]:
        with open_reader(path) as journal:
            return {record.tag for record in journal.asked() if record.has_result}

    async with (
        Scripted() as server,
        opened(server, journal=JournalOptions(path, results="until_delivered")) as session,
        session.batch([{"question": f"Question {n}?", "tag": n} for n in range(4)]) as jobs,
    ):
        if in_tasks:  # one consumer, as `asyncio.wait_for` makes it on Python 3.11
            done = [await asyncio.create_task(cast("Coroutine[Any, Any, Job]", anext(jobs))) for _ in range(4)]
            with pytest.raises(StopAsyncIteration):
                await anext(jobs)
            await until(lambda: not kept())
            assert len(done) == 4
            return
        first, others = await anext(jobs), asyncio.Event()

        async def consumer() -> list[object]:
            found = [job.tag async for job in jobs]
            others.set()
            return found

        rest = asyncio.create_task(consumer())
        assert {first.tag, *await rest} == {0, 1, 2, 3}
        await until(lambda: kept() == {first.tag})
        with pytest.raises(StopAsyncIteration):
            await anext(jobs)
        await until(lambda: not kept())


async def test_results_outside_the_journal_stay_in_memory(tmp_path: Path) -> None:
    """They were delivered, and so removed, in an earlier run: what is fetched again cannot be read back."""
    journal = JournalOptions(tmp_path / "run.db", results="until_delivered")
    tagged = [{"question": f"Question {n}?", "tag": n} for n in range(60)]
    async with Scripted() as server:
        async with opened(server, journal=journal) as session:
            await taken(session.batch(tagged), [])
        async with opened(server, journal=journal) as session, session.batch(tagged) as jobs:
            before = server.requests["get"]
            await server.until(lambda: server.requests["get"] - before >= READY)
            await turns(200)
            with anyio.fail_after(SOON):
                found = [job async for job in jobs]
    assert len(found) == 60
    assert [job.error for job in found if not job.ok] == []


# --- who leaves ------------------------------------------------------------------------------------------------------


async def test_closing_session_waits_for_a_cancelled_calls_id() -> None:
    told: list[Event] = []
    async with Scripted() as server:
        server.hold = is_submit
        session = opened(server, told, retry=RetryPolicy(leave_grace=3600.0))
        asking = asyncio.create_task(session.ask(QUESTION))
        await server.until(lambda: len(server.held) == 1)
        asking.cancel()
        await turns(5)
        closing = asyncio.create_task(session.aclose())
        await turns(50)
        assert not closing.done()
        server.release()
        with anyio.fail_after(SOON):
            await asyncio.wait([asking, closing])
    assert [event.job_id for event in of_kind(told, EventKind.LEFT)] == ["job-0"]


async def test_call_cancelled_while_its_session_closes_keeps_its_grace() -> None:
    told: list[Event] = []
    async with Scripted() as server:
        server.hold = is_submit
        session = opened(server, told, retry=RetryPolicy(leave_grace=3600.0))
        asking = asyncio.create_task(session.ask(QUESTION))
        await server.until(lambda: len(server.held) == 1)
        closing = asyncio.create_task(session.aclose())
        await turns(5)
        asking.cancel()
        await turns(50)
        assert not closing.done()
        server.release()
        with anyio.fail_after(SOON):
            await asyncio.wait([asking, closing])
    assert [event.job_id for event in of_kind(told, EventKind.LEFT)] == ["job-0"]


@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize("call", ["ask", "submit"])
async def test_job_that_ended_while_its_call_left_is_told(call: str, remembers: bool, tmp_path: Path) -> None:
    told: list[Event] = []
    journal = tmp_path / "run.db" if remembers else None
    async with Scripted() as server:
        server.hold = is_submit
        server.script = lambda asked: _whole(server, asked)
        async with opened(server, told, retry=RetryPolicy(leave_grace=3600.0), journal=journal) as session:
            asking = asyncio.create_task(getattr(session, call)(QUESTION, tag="order 7"))
            await server.until(lambda: len(server.held) == 1)
            asking.cancel()
            await turns(5)
            server.release()
            await asyncio.wait([asking])
            (event,) = of_kind(told, EventKind.LEFT)
            assert (event.job_id, event.tag, event.status) == ("job-0", "order 7", JobStatus.COMPLETED)
            assert event.idempotency_key
            assert "has ended" in event.reason
            assert ("the journal or the service" in event.reason) is remembers
            server.script = lambda asked: (200, _whole_of(server))
            assert (await session.wait(event.job_id)).ok
    assert len(of_kind(told, EventKind.LEFT)) == 1


async def test_finished_answer_without_an_id_is_told_when_left() -> None:
    told: list[Event] = []
    async with Scripted() as server:
        server.hold = is_submit
        server.script = lambda asked: (200, {**_whole_of(server), "id": ""}) if asked.kind == "submit" else None
        async with opened(server, told, retry=RetryPolicy(leave_grace=3600.0)) as session:
            async with session.batch([BUSY]) as jobs:
                await server.until(lambda: len(server.held) == 1)
                asking = asyncio.create_task(session.ask(QUESTION))
                await server.until(lambda: len(server.held) == 2)
                asking.cancel()
                await turns(5)
                server.release()
                await asyncio.wait([asking])
                await until(lambda: session.stats().running == 0)
            assert [job.ok for job in jobs.pending] == [True]
    (event,) = of_kind(told, EventKind.LEFT)
    assert (event.job_id, event.status) == ("", JobStatus.COMPLETED)
    assert event.idempotency_key
    assert "was not kept" in event.reason


@pytest.mark.parametrize(("status", "count"), [(200, 1), (422, 0)])
async def test_outcome_of_the_turn_of_a_cancellation_is_told(status: int, count: int) -> None:
    """It was delivered to the call, which is cancelled before it goes on. A refusal costs nothing, and is not told."""
    told: list[Event] = []
    async with Scripted() as server:
        server.script = lambda asked: _whole(server, asked) if status == 200 else (status, {"error": "no"})
        calls: list[asyncio.Task[Job]] = []

        def ended(event: Event) -> None:
            told.append(event)
            if event.kind is EventKind.FINISHED:
                calls[0].cancel()

        async with opened(server, on_event=ended) as session:
            calls.append(asyncio.create_task(session.ask(QUESTION)))
            await asyncio.wait(calls)
            assert calls[0].cancelled()
    assert len(of_kind(told, EventKind.FINISHED)) == 1
    assert [event.status for event in of_kind(told, EventKind.LEFT)] == [JobStatus.COMPLETED] * count


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
@pytest.mark.parametrize("first", ["id", "job"])
async def test_each_who_waits_has_the_tag_they_gave(first: str, status: str) -> None:
    told: list[Event] = []
    async with Scripted(polls=NEVER) as server:
        async with opened(server) as session:
            job = await session.submit(QUESTION, tag="order 7")
        async with opened(server, told) as session:

            async def followed(wanted: Job | str) -> Job:
                return [update.job async for update in session.follow(wanted)][-1]

            mine = msgspec.structs.replace(job, tag="mine")
            wanted = [job.id, job, mine] if first == "id" else [job, job.id, mine]
            waiting = asyncio.gather(*map(session.wait, wanted), *map(followed, wanted))
            await server.until(lambda: server.requests["get"] > 0)
            whole = _whole_of(server)
            if status == "FAILED":
                whole = {"id": job.id, "model": "sonar-deep-research", "created_at": 1, "status": status}
            server.script = lambda asked: (200, whole)
            with anyio.fail_after(SOON):
                ended = await waiting
    unnamed = None if first == "id" else "order 7"  # who gives none has that of the job as it is known here
    tags = [unnamed, "order 7", "mine"] if first == "id" else ["order 7", unnamed, "mine"]
    assert [each.tag for each in ended[:3]] == tags
    assert [each.tag for each in ended[3:] if each.tag != "order 7"] == ["mine"]  # by then that tag is known
    if status == "FAILED":
        assert [each.error.tag for each in ended if each.error is not None] == [each.tag for each in ended]
    (event,) = of_kind(told, EventKind.FINISHED)
    assert (event.tag, event.idempotency_key) == ("order 7", job.idempotency_key)


async def test_time_is_up_under_the_tag_that_was_given() -> None:
    told: list[Event] = []
    async with Scripted(polls=NEVER) as server:
        async with opened(server) as session:
            job = await session.submit(QUESTION, tag="order 7")
        async with opened(server, told) as session:
            await asyncio.gather(session.wait(job.id, timeout=0.3), session.wait(job, timeout=0.3))
    assert {event.tag for event in of_kind(told, EventKind.TIMED_OUT)} == {None, "order 7"}


async def test_stored_job_comes_under_the_tag_that_was_given(tmp_path: Path) -> None:
    async with Scripted() as server, opened(server, journal=tmp_path / "run.db") as session:
        job = await session.ask(QUESTION, tag="order 7")
        running = msgspec.structs.replace(job, status=JobStatus.IN_PROGRESS, response=None, raw=b"", tag="mine")
        assert [(await session.wait(each)).tag for each in (job.id, running)] == ["order 7", "mine"]


async def _in_a_batch(session: Session, job_id: str) -> None:
    async with session.batch([{"question": QUESTION, "tag": "x"}]) as jobs:
        assert [job.ok async for job in jobs] == [True]


async def _asked(session: Session, job_id: str) -> None:
    assert (await session.ask(QUESTION, tag="x")).ok


async def _waited_for(session: Session, job_id: str) -> None:
    assert (await session.wait(job_id)).ok


async def _followed(session: Session, job_id: str) -> None:
    assert [update.job.ok async for update in session.follow(job_id)][-1]


Use = Callable[[Session, str], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("second", [_asked, _waited_for, _followed, _in_a_batch])
@pytest.mark.parametrize("first", [_asked, _in_a_batch])
async def test_job_is_left_once_nobody_waits_for_it(first: Use, second: Use, closes: bool, tmp_path: Path) -> None:
    told: list[Event] = []
    async with Scripted(polls=NEVER) as server:
        session = opened(server, told, journal=tmp_path / "run.db")
        async with session:
            life = session._core.life
            leaving = asyncio.create_task(first(session, ""))
            await server.until(lambda: len(server.rows) == 1)
            await until(lambda: "job-0" in life.live.by_id)
            staying = asyncio.create_task(second(session, "job-0"))
            live = life.live.by_id["job-0"]
            await until(lambda: len(live.listeners) == 2)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert of_kind(told, EventKind.LEFT) == []
            if not closes:
                staying.cancel()
                await asyncio.wait([staying])
        await asyncio.gather(staying, return_exceptions=True)  # the session was closed, or it was cancelled
    assert [(event.job_id, event.awaited) for event in of_kind(told, EventKind.LEFT)] == [("job-0", False)]
    assert len(server.rows) == 1
    assert live.listeners == ()
    assert life.announcer.left_jobs.withheld == {}


@pytest.mark.parametrize("second", [_asked, _waited_for, _followed, _in_a_batch])
async def test_job_that_somebody_still_gets_is_not_left(second: Use, tmp_path: Path) -> None:
    told: list[Event] = []
    async with Scripted(polls=NEVER) as server, opened(server, told, journal=tmp_path / "run.db") as session:
        leaving = asyncio.create_task(_asked(session, ""))
        await until(lambda: "job-0" in session._core.life.live.by_id)
        staying = asyncio.create_task(second(session, "job-0"))
        live = session._core.life.live.by_id["job-0"]
        await until(lambda: len(live.listeners) == 2)
        leaving.cancel()
        await asyncio.wait([leaving])
        whole = _whole_of(server)
        server.script = lambda asked: (200, whole)
        with anyio.fail_after(SOON):
            await staying
        assert session._core.life.announcer.left_jobs.withheld == {}
    assert of_kind(told, EventKind.LEFT) == []
    assert [event.job_id for event in of_kind(told, EventKind.FINISHED)] == ["job-0"]


def _whole_of(server: Scripted) -> dict[str, Any]:
    row = next(iter(server.rows.values()))
    return server.summary(row, "COMPLETED") | {"response": server._response(row)}


def _whole(server: Scripted, asked: Asked) -> tuple[int, Any] | None:
    if asked.kind != "submit" or asked.row is None:
        return None
    return 200, server.summary(asked.row, "COMPLETED") | {"response": server._response(asked.row)}


async def test_retried_submission_is_not_told_under_its_old_id(tmp_path: Path) -> None:
    """It is on the wire under a new key: whether that made a job is unknown, and the job that failed is not it."""
    told: list[Event] = []
    failed = {"model": "sonar-deep-research", "created_at": 1, "status": "FAILED", "error_message": "it broke"}
    async with Scripted() as server:
        server.script = lambda asked: (
            (200, failed | {"id": asked.row.id}) if asked.kind == "get" and asked.row else None
        )
        async with opened(server, journal=tmp_path / "run.db") as session:
            assert (await session.ask(QUESTION, tag="x")).status is JobStatus.FAILED
        server.hold = is_submit
        journal = JournalOptions(tmp_path / "run.db", retry_failed=True)
        retry = RetryPolicy(leave_grace=0.05)
        async with opened(server, journal=journal, retry=retry, on_event=told.append) as session:
            again = asyncio.create_task(session.ask(QUESTION, tag="x"))
            await server.until(lambda: len(server.held) == 1)
            again.cancel()
            await asyncio.wait([again])
    assert [(event.job_id, event.status) for event in of_kind(told, EventKind.LEFT)] == [("", JobStatus.IN_DOUBT)]


@pytest.mark.parametrize("turn", range(12))
async def test_resubmission_cancelled_at_any_turn_blocks_nobody(turn: int, tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with Scripted() as server:
        server.script = lambda asked: (500, {}) if asked.kind == "submit" else None
        hold = RetryPolicy(on_doubt="hold")
        async with opened(server, journal=path, retry=hold) as session:
            assert (await session.ask(QUESTION, tag="x")).status is JobStatus.IN_DOUBT
            server.script = lambda asked: None
            (doubtful,) = await session.in_doubt()
            again = asyncio.create_task(session.resubmit(doubtful, pay_again=True))
            await until_turn(again, turn, session)
            again.cancel()
            await asyncio.wait([again])
            with anyio.fail_after(SOON):
                await session.ask(QUESTION, tag="x")
            assert session._core.life.live.by_row == {}


async def until_turn(task: asyncio.Task[Any], turn: int, session: Session) -> None:
    """So many turns after the row was queued anew: that is when its sending begins."""
    live = session._core.life.live.by_row
    await until(lambda: task.done() or any(sub.phase is not Phase.NEW for sub in live.values()))
    await turns(turn)


# --- doubt of an earlier run -----------------------------------------------------------------------------------------


async def one_in_doubt(server: Scripted, path: Path) -> None:
    """A submission of an earlier run under the tag "x", whose answer was lost."""
    server.script = lambda asked: (500, {}) if asked.kind == "submit" else None
    async with opened(server, journal=path, retry=RetryPolicy(doubt_tries=1)) as session:
        assert (await session.ask(QUESTION, tag="x")).status is JobStatus.IN_DOUBT
    server.script = lambda asked: None


RESEND = RetryPolicy(on_doubt="resend")


async def test_doubt_without_a_slot_in_time_stays_doubt(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with Scripted(polls=NEVER) as server:
        await one_in_doubt(server, path)
        async with opened(server, journal=path, max_in_flight=1, retry=RESEND) as session:
            busy = asyncio.create_task(session.ask(BUSY))
            await server.until(lambda: server.requests["get"] > 0)
            job = await session.ask(QUESTION, tag="x", timeout=0.2)
            assert job.status is JobStatus.IN_DOUBT
            assert isinstance(job.error, InDoubt)
            assert "nothing was billed" not in str(job.error)
            busy.cancel()
            await asyncio.wait([busy])


async def test_doubt_unresolved_because_of_a_stop_stays_doubt(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with Scripted(polls=NEVER) as server:
        await one_in_doubt(server, path)
        refusal = {"error": {"message": "no credit", "type": "insufficient_quota", "code": 401}}
        async with opened(server, journal=path, retry=RESEND) as session:
            server.script = lambda asked: (401, refusal) if asked.kind == "submit" else None
            with pytest.raises(Exception, match="credit"):
                await session.ask(BUSY)
            assert (await session.ask(QUESTION, tag="x")).status is JobStatus.IN_DOUBT


async def test_doubt_beyond_the_budget_stays_doubt(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with Scripted(polls=NEVER) as server:
        await one_in_doubt(server, path)
        async with opened(server, journal=path, retry=RESEND, max_cost=0.5) as session:
            assert (await session.ask(QUESTION, tag="x")).status is JobStatus.IN_DOUBT


# --- rows that another session took ----------------------------------------------------------------------------------


class Taken(MemoryJournal):
    """Loses its claims right before a mark is written: another session has the row by then."""

    taker: Callable[[], Any] | None = None

    async def apply(self, claim: Claim, step: Step) -> None:
        if step.rule.name == "sending" and self.taker is not None:
            taker, self.taker = self.taker, None
            await taker()
        await super().apply(claim, step)


async def test_row_that_another_session_took_is_followed() -> None:
    told: list[Event] = []
    store = MemoryStore(now=time.time)
    journal = Taken(store=store)
    async with Scripted(polls=2) as server, opened(server, journal=store.session()) as two:
        asking: list[asyncio.Task[Job]] = []

        async def take() -> None:
            store.lose(journal)
            server.hold = is_submit
            asking.append(asyncio.create_task(two.ask(QUESTION, tag="x")))
            await server.until(lambda: len(server.held) == 1)
            server.hold = lambda asked: False

        journal.taker = take
        async with opened(server, told, journal=journal, max_in_flight=1, max_cost=10.0) as one:
            batch: list[Job] = []
            tagged = [{"question": QUESTION, "tag": "x"}, {"question": BUSY, "tag": "y"}]
            running = asyncio.create_task(taken(one.batch(tagged, max_in_flight=2), batch))
            await server.until(lambda: len(server.rows) == 2)  # the place goes to the next one meanwhile
            server.release()
            with anyio.fail_after(SOON):
                await running
                assert (await asking[0]).ok
            facts = balance_of(one)
            assert (facts.in_flight, one._core.life.slots.value) == (0, 1)
    assert sorted((job.tag, job.ok) for job in batch) == [("x", True), ("y", True)]
    assert server.requests["submit"] == 2
    assert of_kind(told, EventKind.STOPPED) == []


class Away(MemoryJournal):
    """Out of reach for the first two times that an outcome is to be written."""

    times = 2

    async def apply(self, claim: Claim, step: Step) -> None:
        if step.rule.name == "ended" and self.times:
            self.times -= 1
            raise JournalAway("the store is out of reach")
        await super().apply(claim, step)


async def test_outcome_waits_at_the_server_until_the_store_returns() -> None:
    journal = Away(now=time.time)
    async with Scripted() as server, opened(server, journal=journal, poll=PollPolicy.fixed(2), clock=Clock(150)) as one:
        assert (await one.ask(QUESTION)).ok
    assert journal.store.rows[1].state is State.DONE
    assert server.requests["get"] == 3


class GoneAtRetry(MemoryJournal):
    """Takes the mark of a first attempt, and no other."""

    async def apply(self, claim: Claim, step: Step) -> None:
        if step.rule.name == "sending" and step.attempts > 1:
            raise JournalAway("the store is out of reach")
        await super().apply(claim, step)


async def test_store_that_fails_at_a_retry_is_told() -> None:
    """As one that fails at the first attempt: nothing more is sent by this session, whatever became of this one."""
    told: list[Event] = []
    async with Scripted() as server:
        server.script = lambda asked: (500, {}) if asked.kind == "submit" else None
        journal, retry = GoneAtRetry(now=time.time), RetryPolicy(base=0.01)
        async with opened(server, told, journal=journal, retry=retry) as session:
            assert (await session.ask(QUESTION)).status is JobStatus.IN_DOUBT
    assert [event.reason for event in of_kind(told, EventKind.STOPPED)] == ["the store is out of reach"]


class GoneOnce(MemoryJournal):
    """Is out of reach for the first step that may send something, once all are written down."""

    told: list[Event]
    first = ""

    async def apply(self, claim: Claim, step: Step) -> None:
        if step.rule.name == "sending":
            if not self.first:
                self.first = step.key
                await until(lambda: len(self.store.rows) == 4)
                raise JournalAway("the store is out of reach")
            await until(lambda: bool(of_kind(self.told, EventKind.STOPPED)))
        await super().apply(claim, step)


async def test_store_that_works_again_is_told() -> None:
    """Whoever was told that nothing is sent any more would wait for ever to hear that it goes on."""
    told: list[Event] = []
    journal = GoneOnce(now=time.time)
    journal.told = told
    async with (
        Scripted() as server,
        opened(server, told, journal=journal) as session,
        session.batch([f"Why {n}?" for n in range(4)]) as jobs,
    ):
        found = [job async for job in jobs]
    assert [type(job.error) for job in found if not job.ok] == [JournalAway]
    kinds = (EventKind.STOPPED, EventKind.RESUMED)
    assert tuple(event.kind for event in told if event.kind in kinds) == kinds


# --- money -----------------------------------------------------------------------------------------------------------


async def test_waiting_for_an_own_job_frees_no_earlier_hold(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with Scripted(polls=NEVER) as server:
        async with opened(server, journal=path) as session:
            for n in range(2):
                await session.submit(f"Question {n}?", tag=n)
        async with opened(server, journal=path, max_cost=100.0) as session:
            job = await session.submit(QUESTION, tag="x")
            for _ in range(2):
                assert (await session.wait(job, timeout=0.1)).status is JobStatus.TIMED_OUT
            assert balance_of(session).left == 3  # with its own, which is not waited for at this moment


async def test_doubt_left_and_sent_again_is_one_bill(tmp_path: Path) -> None:
    async with Scripted(polls=NEVER) as server:
        server.hold = is_submit
        async with opened(
            server, journal=tmp_path / "run.db", max_cost=100.0, retry=RetryPolicy(on_doubt="resend", leave_grace=0.01)
        ) as session:
            asking = asyncio.create_task(session.ask(QUESTION, tag="x"))
            await server.until(lambda: len(server.held) == 1)
            asking.cancel()
            await asyncio.wait([asking])
            facts = balance_of(session)
            assert (facts.in_flight, facts.left) == (0, 1)
            server.hold = lambda asked: False
            await session.submit(QUESTION, tag="x")
            facts = balance_of(session)
            assert (facts.in_flight, facts.left) == (0, 1)


# --- nothing leaves that nobody wants --------------------------------------------------------------------------------


async def test_nothing_is_sent_after_a_silence_once_everyone_left() -> None:
    """The server asks for silence while the mark is written; whoever wanted it leaves before the silence ends."""
    async with Scripted(polls=NEVER) as server:
        journal = Silenced(now=time.time)
        async with opened(server, journal=journal, retry=RetryPolicy(leave_grace=5.0)) as session:
            await session.submit(BUSY)
            gate = session._core.client.gate
            clock = session._core.client.clock
            journal.before = lambda: ask_for_silence(gate, clock.now(), 0.3)
            asking = asyncio.create_task(session.ask(QUESTION))
            await journal.taking_back.wait()
            asking.cancel()
            await turns(5)
            journal.go_on.set()
            await asyncio.wait([asking])
        assert server.requests["submit"] == 1


class Silenced(MemoryJournal):
    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.before: Callable[[], Any] | None = None
        self.taking_back = asyncio.Event()
        self.go_on = asyncio.Event()

    async def apply(self, claim: Claim, step: Step) -> None:
        if step.rule.name == "sending" and self.before is not None:
            self.before()
            self.before = None
        if step.rule.name == "back_to_queued":
            self.taking_back.set()
            await self.go_on.wait()
        await super().apply(claim, step)


async def test_time_out_that_nobody_took_is_told_as_left() -> None:
    """The call is cancelled in the very turn in which its time is up: its job goes on all the same."""
    told: list[Event] = []
    asking: list[asyncio.Task[Job]] = []

    def heard(event: Event) -> None:
        told.append(event)
        if event.kind is EventKind.TIMED_OUT:
            asking[0].cancel()

    async with Scripted(polls=NEVER) as server, opened(server, on_event=heard) as session:
        asking.append(asyncio.create_task(session.ask(QUESTION, timeout=0.2)))
        await asyncio.wait(asking)
        assert asking[0].cancelled()
    assert [event.job_id for event in of_kind(told, EventKind.LEFT)] == ["job-0"]


@pytest.mark.parametrize("turn", range(4))
async def test_a_follower_cancelled_as_the_row_changes_is_cancelled(turn: int) -> None:
    store = MemoryStore(now=time.time)
    one, two = store.session(), store.session()
    await one.find_or_queue("item", tag="x", key="a key", body=b"", sha=b"s", api="sonar")
    following = asyncio.create_task(two.follow((1,), timeout=SOON))
    await turns(5)
    await one.close()
    await turns(turn)
    had_returned = following.done()
    following.cancel()
    await asyncio.wait([following])
    assert had_returned or following.cancelled()


# --- the order of things ---------------------------------------------------------------------------------------------


async def test_slot_is_kept_while_what_was_left_flies() -> None:
    async with Scripted() as server:
        server.hold = lambda asked: asked.kind == "submit" and asked.question == BUSY
        async with opened(server, max_in_flight=1, retry=RetryPolicy(leave_grace=3600.0)) as session:
            leaving = asyncio.create_task(session.ask(BUSY))
            await server.until(lambda: len(server.held) == 1)
            leaving.cancel()
            asking = asyncio.create_task(session.ask(QUESTION))
            await turns(100)
            assert server.requests["submit"] == 1
            server.release()
            with anyio.fail_after(SOON):
                assert (await asking).ok


async def test_an_outcome_is_delivered_before_it_is_told() -> None:
    pending: list[list[JobStatus]] = []
    batches: list[Any] = []

    def heard(event: Event) -> None:
        if event.kind is EventKind.FINISHED:
            pending.append([job.status for job in batches[0].pending])

    async with Scripted() as server, opened(server, on_event=heard) as session:
        batches.append(session.batch([QUESTION]))
        await taken(batches[0], [])
    assert pending == [[JobStatus.COMPLETED]]


async def test_who_is_merged_gives_back_what_it_holds() -> None:
    """One key asked twice without a journal: the server answers both with one job."""
    async with Scripted(polls=NEVER) as server, opened(server, max_in_flight=5, max_cost=100.0) as session:
        life = session._core.life
        first = asyncio.create_task(session.ask(QUESTION, idempotency_key="k"))
        await server.until(lambda: server.requests["get"] > 0)
        second = asyncio.create_task(session.ask(QUESTION, idempotency_key="k"))
        await until(lambda: len(life.live.by_id["job-0"].listeners) == 2)
        assert (life.slots.value, balance_of(session).in_flight) == (4, 1)
        server.polls = 1
        assert (await first).ok
        assert (await second).ok
        assert (life.slots.value, balance_of(session).in_flight) == (5, 0)


async def test_merged_submission_makes_a_strangers_job_count() -> None:
    async with Scripted(polls=NEVER) as server:
        async with opened(server) as other:
            await other.submit(QUESTION, idempotency_key="k")
        async with opened(server, max_cost=100.0) as session:
            life = session._core.life
            waiting = asyncio.create_task(session.wait("job-0"))
            await server.until(lambda: server.requests["get"] > 0)
            assert balance_of(session).in_flight == 0
            asking = asyncio.create_task(session.ask(QUESTION, idempotency_key="k"))
            await until(lambda: len(life.live.by_id["job-0"].listeners) == 2)
            assert balance_of(session).in_flight == 1
            server.polls = 1
            assert (await waiting).ok
            assert (await asking).ok
            assert balance_of(session).in_flight == 0


async def test_doubt_that_is_handed_out_keeps_its_hold() -> None:
    async with Scripted() as server:
        server.script = lambda asked: (500, {}) if asked.kind == "submit" else None
        async with opened(server, max_cost=100.0, retry=RetryPolicy(doubt_tries=1)) as session:
            assert (await session.ask(QUESTION)).status is JobStatus.IN_DOUBT
            facts = balance_of(session)
            assert (facts.in_flight, facts.left) == (0, 1)


class Writing(MemoryJournal):
    """Its first end of a job is written when it may."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.is_writing = asyncio.Event()
        self.go_on = asyncio.Event()

    async def apply(self, claim: Claim, step: Step) -> Any:
        if step.rule.name == "ended" and not self.is_writing.is_set():
            self.is_writing.set()
            await self.go_on.wait()
        return await super().apply(claim, step)


@pytest.mark.parametrize("is_joined", [False, True])
async def test_cancelled_get_keeps_nothing_of_its_job(is_joined: bool) -> None:
    """It found that the job had ended, and is cancelled while that is written. Somebody else may wait by then."""
    journal = Writing(now=time.time)
    async with Scripted(polls=0) as server, opened(server, journal=journal, max_cost=50.0) as session:
        job = await session.submit(QUESTION, tag="x")
        getting = asyncio.create_task(session.get(job.id))
        await journal.is_writing.wait()
        waiting = asyncio.create_task(session.wait(job.id)) if is_joined else None
        await turns(20)
        getting.cancel()
        await asyncio.wait([getting])
        journal.go_on.set()
        if waiting is not None:
            assert (await waiting).ok
        assert session._core is not None
        life = session._core.life
        assert (life.live.by_row, life.live.by_id, len(life.poller._schedule)) == ({}, {}, 0)
        assert isinstance(life.spending, Bounded)
        assert life.spending._reserved == {}
