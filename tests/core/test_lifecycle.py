"""The life of a submission: its table of transitions against the journal's steps, and who may change it.

What a user sees of it follows: one job is polled once and told once, whoever waits, and money is settled by whoever
learns its cost.
"""

from __future__ import annotations

import ast
import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _faulty import KEY, emulator, session_at, taken
from _scripted import Scripted, Told, is_get
from _source import modules, tree_of

from aiopplx import BudgetReached, Event, EventKind, Job, JobStatus, JournalOptions, PollPolicy, RetryPolicy, Session
from aiopplx._core.batch.results import READY
from aiopplx._submission import NEXT, ROWS, TERMINAL, Phase, Submission
from aiopplx.emulator import Emulator, faults
from aiopplx.journal import MemoryStore, State
from aiopplx.journal import _steps as steps
from aiopplx.testing import Clock

QUESTION = "Why did the Vasa sink?"
ANSWER = {
    "id": "r",
    "model": "m",
    "created": 1,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "It sank."}}],
}
FAILED = {"model": "sonar-deep-research", "created_at": 1, "status": "FAILED", "error_message": "it broke"}

# --- the table -------------------------------------------------------------------------------------------------------

WRITES: dict[tuple[Phase, Phase], tuple[steps.Rule, ...]] = {
    (Phase.NEW, Phase.QUEUED): (steps.REQUEUE,),
    (Phase.NEW, Phase.FINISHED): (steps.DOUBTFUL,),
    (Phase.QUEUED, Phase.SENDING): (steps.SENDING,),
    (Phase.QUEUED, Phase.FINISHED): (steps.ENDINGS[State.REJECTED],),
    (Phase.UNANSWERED, Phase.RESENDING): (steps.SENDING,),
    (Phase.SENDING, Phase.QUEUED): (steps.BACK_TO_QUEUED,),
    (Phase.SENDING, Phase.RUNNING): (steps.ACCEPTED,),
    (Phase.RESENDING, Phase.RUNNING): (steps.ACCEPTED,),
    (Phase.SENDING, Phase.MERGED): (steps.ACCEPTED,),
    (Phase.RESENDING, Phase.MERGED): (steps.ACCEPTED,),
    (Phase.SENDING, Phase.FINISHED): (steps.ENDINGS[State.REJECTED], steps.DOUBTFUL, steps.BACK_TO_QUEUED),
    (Phase.UNANSWERED, Phase.FINISHED): (steps.ENDINGS[State.REJECTED], steps.DOUBTFUL),
    (Phase.RESENDING, Phase.FINISHED): (steps.DOUBTFUL,),
    (Phase.RUNNING, Phase.FINISHED): (
        steps.ENDINGS[State.DONE],
        steps.ENDINGS[State.FAILED],
        steps.ENDINGS[State.EXPIRED],
    ),
}
"""The steps that each transition writes; all others write none."""


def transitions() -> Iterator[tuple[Phase, Phase]]:
    return ((before, after) for before, following in NEXT.items() for after in following)


@pytest.mark.parametrize(("before", "after"), [*transitions()], ids=lambda phase: phase.name)
def test_each_transition_is_a_journal_step_or_none(before: Phase, after: Phase) -> None:
    written = WRITES.get((before, after), ())
    for rule in written:
        assert rule.origins & ROWS[before], f"{rule.name} cannot be taken from a row of {before.name}"
        assert rule.leads_to in ROWS[after], f"{rule.name} leads to no row of {after.name}"
    if not written:
        # The row stays what it is, so each of its states must be one that the next phase stands on too.
        assert ROWS[before] & ROWS[after]


def test_steps_are_written_only_where_there_is_a_transition() -> None:
    assert set(WRITES) <= set(transitions())


def test_every_phase_is_reachable_and_every_end_final() -> None:
    reached = {Phase.NEW, *(after for _, after in transitions())}
    assert reached == set(Phase)
    assert all(not NEXT[phase] for phase in TERMINAL)


@pytest.mark.parametrize("before", Phase, ids=lambda phase: phase.name)
def test_transition_outside_the_table_is_refused(before: Phase) -> None:
    for after in Phase:
        sub = Submission(None, "a key", phase=before)  # type: ignore[arg-type]  # no API is asked here
        if after in NEXT[before]:
            sub.to(after)
            assert sub.phase is after
        else:
            with pytest.raises(RuntimeError, match=f"{before.name} cannot become {after.name}"):
                sub.to(after)
            assert sub.phase is before


SUBS = re.compile(r"(\w+\.)*(sub|live|running)")
"""What submissions are called where they are changed."""


def test_only_the_lifecycle_changes_a_phase_or_fact() -> None:
    fields = set(Submission.__struct_fields__)
    callers: set[str] = set()
    writers: set[str] = set()
    for name, path in modules().items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "to":
                callers.add(name)
            if any(_is_fact(target, fields) for target in _changed(node)):
                writers.add(name)
    assert callers == {"aiopplx._core.lifecycle"}
    assert writers - {"aiopplx._submission"} == {"aiopplx._core.lifecycle"}


def _changed(node: ast.AST) -> list[ast.expr]:
    """What is assigned to, or changed in place by a method of its own."""
    if isinstance(node, ast.Assign):
        return [
            part for target in node.targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])
        ]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return [node.func.value] if node.func.attr in ("append", "remove", "clear", "extend", "pop", "insert") else []
    return [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []


def _is_fact(target: ast.expr, fields: set[str]) -> bool:
    is_named = isinstance(target, ast.Attribute) and SUBS.fullmatch(ast.unparse(target.value))
    return bool(is_named) and target.attr in fields


# --- whose doubt, whose money -----------------------------------------------------------------------------------------


async def test_batch_left_before_a_retry_reports_its_doubt() -> None:
    told = Told()
    async with emulator() as server, session_at(server.url, on_event=told, retry=RetryPolicy(base=3000.0)) as session:
        server.faults.add("submit", faults.Drop(after_accept=True))
        async with session.batch([QUESTION]) as jobs:
            await told.first(EventKind.RETRYING)
        assert [job.status for job in jobs.pending] == [JobStatus.IN_DOUBT]
    assert [event.status for event in told.of(EventKind.LEFT)] == [JobStatus.IN_DOUBT]


async def test_call_cancelled_after_a_refusal_owes_and_reports_nothing() -> None:
    told = Told()
    slow = RetryPolicy(throttled_base=3000.0)
    async with emulator() as server, session_at(server.url, on_event=told, retry=slow, max_cost=1.5) as session:
        server.faults.add("submit", faults.RateLimited(status=425), times=1)
        asking = asyncio.create_task(session.ask(QUESTION))
        await told.first(EventKind.RETRYING)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert server.ledger.created == 0
        assert (await session.ask("And who first measured the speed of light?")).ok  # there is room for one
    assert not told.of(EventKind.LEFT)


async def test_one_tag_asked_four_times_is_paid_once(tmp_path: Path) -> None:
    async with Scripted(polls=6) as server, opened(server, journal=tmp_path / "run.db") as session:
        jobs = await asyncio.gather(*(session.ask(QUESTION, tag="one") for _ in range(4)))
        assert all(job.ok for job in jobs)
        assert server.requests == Counter(submit=1, get=6)


async def test_one_tag_asked_four_times_is_one_bill(tmp_path: Path) -> None:
    async with emulator() as server:
        async with session_at(server.url, journal=tmp_path / "free.db") as session:
            cost = (await session.ask(QUESTION, tag="one")).cost
        assert cost is not None
        # Room for this job and for the hold of one more, and for no second bill of it.
        cap = cost + 1.3 + cost / 2
        async with session_at(server.url, journal=tmp_path / "run.db", max_cost=cap) as session:
            await asyncio.gather(*(session.ask(QUESTION, tag="one") for _ in range(4)))
            assert (await session.ask("Who first measured the speed of light?")).ok


async def test_cost_that_a_later_wait_reads_settles_the_bill() -> None:
    async with emulator() as server:
        async with session_at(server.url) as session:
            cost = (await session.ask(QUESTION)).cost
        assert cost is not None
        async with session_at(server.url, max_cost=cost + 1.3 + cost / 2) as session:
            server.faults.add("get", faults.Delay(0.05))
            async with session.batch([{"question": QUESTION, "timeout": 0.5}]) as jobs:
                (job,) = [job async for job in jobs]
            assert job.status is JobStatus.TIMED_OUT
            server.faults.clear()
            assert (await session.wait(job.id)).ok
            assert (await session.ask("Who first measured the speed of light?")).ok


async def test_bill_that_stays_unknown_keeps_its_hold() -> None:
    async with emulator() as server, session_at(server.url, max_cost=2.0) as session:
        async with session.batch([{"question": QUESTION, "timeout": 0.5}]) as jobs:
            server.faults.add("get", faults.Delay(0.05))
            (job,) = [job async for job in jobs]
        assert job.status is JobStatus.TIMED_OUT
        with pytest.raises(BudgetReached):
            await session.ask("Who first measured the speed of light?")


# --- one job, many listeners ------------------------------------------------------------------------------------------


def opened(server: Scripted, **more: Any) -> Session:
    more.setdefault("poll", PollPolicy.fixed(0.1))
    return Session(KEY, base_url=server.url, api="sonar", **more)


async def test_two_consumers_of_a_loaded_batch_both_end(tmp_path: Path) -> None:
    questions = [f"Question {n}?" for n in range(6)]
    async with emulator() as server:
        for _ in range(2):  # the second run loads every result from the journal
            async with (
                session_at(server.url, journal=tmp_path / "run.db") as session,
                session.batch(questions) as jobs,
            ):
                found = await asyncio.wait_for(asyncio.gather(_all(jobs), _all(jobs)), 20)
            assert sorted(job.index for part in found for job in part) == list(range(6))


async def _all(jobs: Any) -> list[Any]:
    return [job async for job in jobs]


@pytest.mark.parametrize("way", ["ask", "batch"])
async def test_job_is_polled_once_whoever_waits(way: str) -> None:
    told = Told()
    async with Scripted(polls=9) as server, opened(server, on_event=told) as session:
        if way == "ask":
            made = asyncio.create_task(session.ask(QUESTION, tag="mine"))
        else:
            made = asyncio.create_task(taken(session.batch([{"question": QUESTION, "tag": "mine"}]), []))
        await told.first(EventKind.SUBMITTED)
        waited = await asyncio.gather(*(session.wait("job-0") for _ in range(3)))
        await made
        assert [job.ok for job in waited] == [True] * 3
        assert server.requests["get"] == 9
    finished = told.of(EventKind.FINISHED)
    assert [(event.tag, event.job_id) for event in finished] == [("mine", "job-0")]


async def test_wait_that_reaches_its_limit_ends_alone() -> None:
    events: list[Event] = []
    async with Scripted(polls=float("inf")) as server, opened(server, on_event=events.append) as session:
        job = await session.submit(QUESTION, tag="mine")
        short = await session.wait(job, timeout=0.3)
        assert short.status is JobStatus.TIMED_OUT
        server.polls = 1
        assert (await session.wait(job)).ok
        assert (await session.wait(job)).ok
    kinds = Counter(event.kind for event in events if event.kind in (EventKind.FINISHED, EventKind.TIMED_OUT))
    assert kinds == {EventKind.TIMED_OUT: 1, EventKind.FINISHED: 1}


async def test_waiter_with_more_time_outlasts_the_batch_item() -> None:
    async with Scripted(polls=12) as server, opened(server) as session:
        async with session.batch([{"question": QUESTION, "timeout": 0.5}]) as jobs:
            await server.until(lambda: server.requests["get"] > 0)
            waiting = asyncio.create_task(session.wait("job-0"))
            (job,) = [job async for job in jobs]
        assert job.status is JobStatus.TIMED_OUT
        assert (await waiting).ok
        assert server.requests["get"] in (12, 13)  # the last poll of the one may be one more for the other


async def test_parked_job_is_polled_for_whoever_waits() -> None:
    """The consumer is slow, so the batch has no room; a caller of its own does not wait for that."""
    count = READY + 8
    questions = [f"Question {n}?" for n in range(count)]
    async with Scripted() as server, opened(server) as session, session.batch(questions) as jobs:
        await server.until(lambda: server.told >= READY and server.requests["submit"] == count)
        parked = next(row for row in server.rows.values() if not row.told)
        assert (await asyncio.wait_for(session.wait(parked.id), 20)).ok
        assert len([job async for job in jobs]) == count


async def test_second_batch_joins_the_jobs_of_the_first(tmp_path: Path) -> None:
    tagged = [{"question": f"Question {n}?", "tag": n} for n in range(5)]
    async with Scripted(polls=6) as server, opened(server, journal=tmp_path / "run.db") as session:
        first, second = [], []
        await asyncio.gather(taken(session.batch(tagged), first), taken(session.batch(tagged), second))
        assert sorted(job.tag for job in first) == sorted(job.tag for job in second) == list(range(5))
        assert all(job.ok for job in (*first, *second))
        assert server.requests == Counter(submit=5, get=30)


async def test_cancelling_a_job_of_a_batch_finishes_it_once() -> None:
    told = Told()
    async with (
        Emulator(duration=1e9) as server,
        Session(
            KEY, base_url=server.url, api="agent", poll=PollPolicy.fixed(2), clock=Clock(150), on_event=told
        ) as session,
        session.batch([{"question": QUESTION, "tag": "mine"}]) as jobs,
    ):
        await told.first(EventKind.SUBMITTED)
        (running,) = jobs.pending
        cancelled = await session.cancel(running)
        (job,) = [job async for job in jobs]
    assert cancelled.status is job.status is JobStatus.CANCELLED
    finished = told.of(EventKind.FINISHED)
    assert [event.tag for event in finished] == ["mine"]


async def test_poll_history_outlives_the_last_listener() -> None:
    ages: list[tuple[float, int]] = []

    def rule(job: Any) -> float:
        ages.append((job.age, job.polls))
        return 0.1

    async with Scripted(polls=float("inf")) as server, opened(server, poll=rule) as session:
        job = await session.submit(QUESTION)
        for _ in range(2):
            assert (await session.wait(job, timeout=0.3)).status is JobStatus.TIMED_OUT
    polls = [polls for _, polls in ages]
    assert polls == sorted(polls)
    assert polls[-1] >= 4
    assert [age for age, _ in ages] == sorted(age for age, _ in ages)


# --- a job of an earlier run ------------------------------------------------------------------------------------------


async def test_call_without_a_place_ends_alone(tmp_path: Path) -> None:
    """Its time is up while it waits for a place; the job runs, and somebody else waits for it."""
    path = tmp_path / "run.db"
    async with Scripted(polls=float("inf")) as server:
        async with opened(server, journal=path) as session:
            left = await session.submit(QUESTION, tag="left")
        async with opened(server, journal=path, max_in_flight=1) as session:
            holding = asyncio.create_task(session.ask("Who holds the only place?"))
            await server.until(lambda: len(server.rows) == 2)
            short = asyncio.create_task(session.ask(QUESTION, tag="left", timeout=0.3))
            await asyncio.sleep(0)
            waiting = asyncio.create_task(session.wait(left.id))
            ended = await short
            assert (ended.status, ended.id) == (JobStatus.TIMED_OUT, left.id)
            server.polls = 1
            assert (await waiting).ok
            assert (await holding).ok


async def test_job_of_another_session_is_named_at_the_limit() -> None:
    store = MemoryStore(now=time.time)
    async with (
        Scripted(polls=float("inf")) as server,
        opened(server, journal=store.session()) as one,
        opened(server, journal=store.session()) as two,
    ):
        running = asyncio.create_task(one.ask(QUESTION, tag="shared"))
        await server.until(lambda: server.requests["get"] > 0)
        ended = await two.ask(QUESTION, tag="shared", timeout=0.3)
        assert (ended.status, ended.id) == (JobStatus.TIMED_OUT, "job-0")
        server.polls = 1
        assert (await running).ok
        assert server.requests["submit"] == 1


async def _batched(session: Session, job_id: str) -> Job:
    async with session.batch([{"question": QUESTION, "tag": "x"}]) as jobs:
        return await anext(jobs)


async def _submitted(session: Session, job_id: str) -> Job:
    job = await session.submit(QUESTION, tag="x")
    return job if job.done else await session.wait(job)


async def _asked(session: Session, job_id: str) -> Job:
    return await session.ask(QUESTION, tag="x")


async def _waited(session: Session, job_id: str) -> Job:
    return await session.wait(job_id)


async def _followed(session: Session, job_id: str) -> Job:
    return [update.job async for update in session.follow(job_id)][-1]


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
@pytest.mark.parametrize("results", ["keep", "refetch", "until_delivered", "shared"])
async def test_cost_and_end_are_told_in_one_run_only(results: Any, status: str, tmp_path: Path) -> None:
    store = MemoryStore(now=time.time)
    finished: list[Event] = []
    answer = {**ANSWER, "usage": {"prompt_tokens": 7, "cost": {"total_cost": 0.5}}}
    ends = {"FAILED": FAILED | {"id": "job-0"}, "COMPLETED": {**FAILED, "id": "job-0", "response": answer}}
    ends["COMPLETED"] |= {"status": "COMPLETED", "error_message": None}
    async with Scripted() as server:
        server.script = lambda asked: (200, ends[status]) if is_get(asked) else None
        for use in (_asked, _asked, _batched, _submitted, _waited, _followed):
            journal = store.session() if results == "shared" else JournalOptions(tmp_path / "run.db", results=results)
            events: list[Event] = []
            async with opened(server, journal=journal, on_event=events.append) as session:
                streamed = session.events()
                ended = [await use(session, "job-0") for _ in range(2)]
            assert {job.status.value for job in ended} == {status}
            assert [event async for event in streamed] == events
            loaded = [event for event in events if event.kind is EventKind.LOADED]
            if finished:
                assert [(event.job_id, event.status, event.cost) for event in loaded] == [("job-0", status, None)]
                assert [event for event in events if event.cost or event.usage] == []
            finished += [event for event in events if event.kind is EventKind.FINISHED]
        cost = 0.5 if status == "COMPLETED" else None
        assert [(event.tag, event.cost) for event in finished] == [("x", cost)]
        assert server.requests["submit"] == 1


async def test_failed_row_keeps_its_place_in_the_batch(tmp_path: Path) -> None:
    items = [{"question": f"Question {n}?", "tag": n} for n in range(3)]
    events: list[Event] = []
    async with Scripted() as server:
        server.script = lambda asked: (
            (200, FAILED | {"id": asked.row.id}) if asked.kind == "get" and asked.row else None
        )
        for on_event in (None, events.append):
            async with opened(server, journal=tmp_path / "run.db", on_event=on_event) as session:
                found = await taken(session.batch(items), [])
    assert {(job.tag, job.index, job.status) for job in found} == {(n, n, JobStatus.FAILED) for n in range(3)}
    loaded = [event for event in events if event.kind is EventKind.LOADED]
    assert sorted((event.tag, event.index) for event in loaded) == [(n, n) for n in range(3)]


async def test_handler_that_ends_the_loop_keeps_no_listener_waiting() -> None:
    """Every listener has its outcome before the first of them is told of."""

    class Stop(BaseException):
        pass

    def stop(event: Event) -> None:
        if event.kind is EventKind.TIMED_OUT:
            raise Stop

    async with Scripted(polls=float("inf")) as server, opened(server, on_event=stop) as session:
        job = await session.submit(QUESTION)
        waits = [asyncio.create_task(session.wait(job, timeout=0.2)) for _ in range(2)]
        ends = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 20)
    assert [end.status for end in ends] == [JobStatus.TIMED_OUT] * 2
