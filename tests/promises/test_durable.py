"""With a journal, a repeated run continues where it was and pays for nothing twice."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from _faulty import KEY, OTHERS, SPEED, emulator, session_at, taken
from _scripted import Scripted, Told, opened

from aiopplx import (
    AiopplxError,
    BudgetReached,
    Event,
    EventKind,
    InvalidRequest,
    Job,
    JobStatus,
    JournalError,
    OutOfCredit,
    PollPolicy,
    ResultMissing,
    RetryPolicy,
    Session,
)
from aiopplx._core.batch.results import READY
from aiopplx.emulator import AfterPolls, Emulator, faults
from aiopplx.journal._errors import (
    ItemConflict,
    JournalAway,
    JournalBroken,
    JournalFull,
    JournalLocked,
    JournalRefused,
    ResultDamaged,
)
from aiopplx.journal._memory import MemoryJournal, MemoryStore
from aiopplx.journal._records import Claim, Record, State
from aiopplx.journal._sqlite.journal import SqliteJournal
from aiopplx.journal._sqlite.reader import SqliteReader
from aiopplx.journal._steps import Step
from aiopplx.testing import Clock, JumpingClock

QUESTIONS = [*OTHERS]
ONCE = RetryPolicy(doubt_tries=1)
DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


async def run(url: str, journal: object, questions: Any = QUESTIONS, **more: Any) -> list[Job]:
    """One run of the same program: all that the batch hands out, in the order of the questions."""
    async with session_at(url, journal=journal, **more) as session, session.batch(questions) as jobs:
        return sorted([job async for job in jobs], key=lambda job: job.index or 0)


async def run_to_its_error(url: str, journal: object, questions: Any, **more: Any) -> tuple[list[Job], str]:
    """A run that something ends, as a process of its own: nothing of it is left, not even what stopped it."""
    found: list[Job] = []

    async def go() -> str:
        try:
            async with session_at(url, journal=journal, **more) as session:
                await taken(session.batch(questions), found)
        except AiopplxError as error:
            return type(error).__name__
        return ""

    name = await go()
    gc.collect()
    return found, name


async def until(true: Callable[[], bool]) -> None:
    """For what is told by no event: a row in a file, which another thread has written."""
    while not true():  # noqa: ASYNC110 - there is nothing to be woken by
        await asyncio.sleep(0.001)


async def until_accepted(journal: MemoryJournal, jobs: int) -> None:
    while (await journal.counts())[State.ACCEPTED] < jobs:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)


def states(path: Path) -> list[State]:
    return [row.state for row in rows(path)]


def rows(path: Path) -> list[Record]:
    with SqliteReader(path) as reader:
        return reader.rows()


def posts(server: Emulator) -> int:
    return sum(n for route, n in server.ledger.requests.items() if route.startswith("POST"))


def total(server: Emulator) -> int:
    return server.ledger.requests.total()


class Hooked:
    """A journal on which something can be done before or after each step: `hook("before", "sending")`."""

    def __init__(self, journal: Any, hook: Callable[[str, str], Awaitable[None] | None]) -> None:
        self._journal = journal
        self._hook = hook
        self.results = journal.results
        self.remembers = journal.remembers
        self.shares = journal.shares
        self.delivered = journal.delivered
        self.exhausted = journal.exhausted

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._journal, name)

        async def hooked(*words: Any, **more: Any) -> Any:
            called = words[1].rule.name if name == "apply" else name
            await self._call("before", called)
            result = await step(*words, **more)
            await self._call("after", called)
            return result

        return hooked

    async def _call(self, when: str, name: str) -> None:
        waiting = self._hook(when, name)
        if waiting is not None:
            await waiting


class Aged(MemoryJournal):
    """A journal whose submissions left `seconds` earlier than they did."""

    seconds = 0.0

    async def find_or_queue(self, item: str, **more: Any) -> Record:
        found = await super().find_or_queue(item, **more)
        if found.age is None:
            return found
        return msgspec.structs.replace(found, age=found.age + self.seconds)


def memory() -> MemoryJournal:
    return MemoryJournal(now=time.time)


# --- the same program again -------------------------------------------------------------------------------------------


async def test_repeated_run_gives_the_same_jobs_without_a_request(path: Path) -> None:
    async with emulator() as server:
        first = await run(server.url, path)
        before = total(server)
        again = await run(server.url, path)
        assert total(server) == before
    assert all(job.ok for job in first)
    assert [(job.id, job.idempotency_key, job.text, job.cost, job.api) for job in again] == [
        (job.id, job.idempotency_key, job.text, job.cost, job.api) for job in first
    ]


async def test_repeated_run_polls_running_jobs_and_sends_unsent_ones(path: Path) -> None:
    late = ["Which ship sank last?", "And which one never sank?"]
    async with Emulator(duration=600.0, answer_chars=200) as server:
        async with session_at(server.url, journal=path) as session, session.batch(QUESTIONS):
            await server.until(lambda ledger: ledger.created == len(QUESTIONS))
        server.advance(3600)

        async def source() -> Any:
            for question in (*QUESTIONS, *late):
                yield question
            await server.until(lambda ledger: ledger.created == 5)
            server.advance(3600)

        found = await run(server.url, path, source())
        assert posts(server) == server.ledger.created == 5
    assert [job.ok for job in found] == [True] * 5


async def test_job_of_an_earlier_run_is_polled_at_once(path: Path) -> None:
    """It may have ended days ago: the gap before the first poll is for jobs that have only begun."""
    async with Emulator(duration=600.0, answer_chars=200) as server:
        async with session_at(server.url, journal=path) as session:
            await session.submit(QUESTIONS[0], tag="x")
        server.advance(3600)
        hourly = PollPolicy.fixed(3600)
        found = await run(server.url, path, [{"question": QUESTIONS[0], "tag": "x"}], poll=hourly, speed=1.0)
    assert found[0].ok


async def test_questions_may_be_added_removed_and_edited_between_runs(path: Path) -> None:
    async with emulator() as server:
        first = await run(server.url, path)
        again = await run(server.url, path, ["What is new?", QUESTIONS[2], QUESTIONS[0] + " Really?"])
        assert server.ledger.created == 5
        back = await run(server.url, path, QUESTIONS)
        assert server.ledger.created == 5
    assert again[1].id == first[2].id
    assert [job.id for job in back] == [job.id for job in first]


async def test_each_equal_question_is_a_submission_of_its_own(path: Path) -> None:
    async with emulator() as server:
        first = await run(server.url, path, [QUESTIONS[0]] * 3)
        again = await run(server.url, path, [QUESTIONS[0]] * 4)
        assert server.ledger.created == 4
    assert len({job.id for job in first}) == 3
    assert {job.id for job in first} < {job.id for job in again}


async def test_question_is_found_by_its_tag_in_any_order(path: Path) -> None:
    tagged = [{"question": one, "tag": n} for n, one in enumerate(QUESTIONS)]
    async with emulator() as server:
        first = await run(server.url, path, tagged)
        again = await run(server.url, path, [QUESTIONS[0], *reversed(tagged)])
        assert server.ledger.created == 4
    assert [job.id for job in again[1:]] == [job.id for job in reversed(first)]
    assert [job.tag for job in again] == [None, 2, 1, 0]


async def test_tag_of_another_question_conflicts_before_anything_is_paid(path: Path) -> None:
    async with emulator() as server:
        await run(server.url, path, [{"question": QUESTIONS[0], "tag": "a"}])
        found = await run(server.url, path, [{"question": QUESTIONS[1], "tag": "a"}, QUESTIONS[2]])
        assert server.ledger.created == 2
        async with session_at(server.url, journal=path) as session:
            with pytest.raises(ItemConflict) as conflict:
                await session.ask(QUESTIONS[1], tag="a")
    assert found[0].status is JobStatus.REJECTED
    assert isinstance(found[0].error, ItemConflict)
    assert found[1].ok
    assert conflict.value.tag == "a"


async def test_refused_question_may_be_corrected_under_its_tag(path: Path) -> None:
    async with emulator() as server:
        server.faults.add("submit", faults.Status(422), match="Vasa")
        refused = await run(server.url, path, [{"question": QUESTIONS[0], "tag": "a"}])
        again = await run(server.url, path, [{"question": QUESTIONS[0], "tag": "a"}])
        corrected = await run(server.url, path, [{"question": QUESTIONS[1], "tag": "a"}])
    assert [job.status for job in (*refused, *again)] == [JobStatus.REJECTED] * 2
    assert server.ledger.requests["POST /async/chat/completions"] == 2
    assert corrected[0].ok


async def test_questions_without_credit_are_sent_after_a_top_up(path: Path) -> None:
    async with Emulator(duration=AfterPolls(1), answer_chars=200, credits=1.0) as server:
        questions = [f"Why did ship {n} sink?" for n in range(12)]
        handed, error = await run_to_its_error(server.url, path, questions)
        assert error == OutOfCredit.__name__
        paid = server.ledger.created
        assert 0 < paid < 12
        server.credits = None
        found = await run(server.url, path, questions)
        assert server.ledger.created == 12
    assert all(job.ok for job in found)
    assert sum(job.ok for job in handed) == paid


# --- one name, one submission -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["ask", "submit"])
async def test_calls_with_one_tag_make_one_job_across_restarts(call: str, path: Path) -> None:
    async with emulator() as server:
        server.faults.add("submit", faults.Drop(after_accept=True), times=2)
        async with session_at(server.url, journal=path) as session:
            calls = [getattr(session, call)(QUESTIONS[0], tag="order 7") for _ in range(8)]
            found = await asyncio.gather(*calls)
        async with session_at(server.url, journal=path) as session:
            found.append(await getattr(session, call)(QUESTIONS[0], tag="order 7"))
        assert server.ledger.created == 1
        assert posts(server) == 3
    assert len({(job.id, job.idempotency_key) for job in found}) == 1


async def test_call_waits_for_its_twin_within_its_own_limit(path: Path) -> None:
    async with emulator() as server:
        server.faults.add("submit", faults.Hang(after_accept=True), times=1)
        async with session_at(server.url, journal=path) as session:
            first = asyncio.create_task(session.ask(QUESTIONS[0], tag="a"))
            await until(lambda: server.ledger.created == 1)  # the server is silent on what it hangs on
            second = await session.ask(QUESTIONS[0], tag="a", timeout=3.0)
            first.cancel()
            await asyncio.wait([first])
        assert server.ledger.created == posts(server) == 1
    assert second.status is JobStatus.REJECTED


async def test_cancelled_waiting_call_does_not_hold_its_tag(path: Path) -> None:
    async with Emulator(duration=600.0, answer_chars=200) as server:
        async with session_at(server.url, journal=path, max_in_flight=1) as session:
            first = asyncio.create_task(session.ask(QUESTIONS[0]))
            await server.until(lambda ledger: ledger.created == 1)
            queued = asyncio.create_task(session.ask(QUESTIONS[1], tag="a"))
            await until(lambda: len(rows(path)) == 2)
            queued.cancel()
            await asyncio.wait([queued])
            again = asyncio.create_task(session.ask(QUESTIONS[1], tag="a"))
            server.advance(3600)
            assert (await first).ok
            await server.until(lambda ledger: ledger.created == 2)
            server.advance(3600)
            assert (await again).ok
        assert server.ledger.created == 2


async def test_finished_job_needs_no_request_after_a_restart(path: Path) -> None:
    async with emulator() as server:
        (job,) = await run(server.url, path, [{"question": QUESTIONS[0], "tag": "a"}])
        before = total(server)
        async with session_at(server.url, journal=path) as session:
            found = [await session.wait(job.id), await session.get(job.id)]
        assert total(server) == before
    assert [(one.text, one.tag, one.idempotency_key) for one in found] == [(job.text, "a", job.idempotency_key)] * 2


async def test_running_job_keeps_its_names_over_a_restart(path: Path) -> None:
    async with Emulator(duration=600.0, answer_chars=200) as server:
        async with session_at(server.url, journal=path) as session:
            job = await session.submit(QUESTIONS[0], tag="a")
        async with session_at(server.url, journal=path) as session:
            polled = await session.get(job.id)
            server.advance(3600)
            found = await session.wait(job.id)
        assert (polled.tag, polled.idempotency_key) == ("a", job.idempotency_key)
        assert (found.ok, found.tag, found.idempotency_key) == (True, "a", job.idempotency_key)
        before = total(server)
        async with session_at(server.url, journal=path) as session:
            assert (await session.ask(QUESTIONS[0], tag="a")).text == found.text
        assert total(server) == before


@pytest.mark.parametrize("call", ["get", "wait", "in_doubt", "batch"])
async def test_job_of_an_earlier_run_has_its_columns(call: str, path: Path) -> None:
    meta = {"company": "ACME, Inc.", "year": 2025}
    item = {"question": QUESTIONS[0], "meta": meta}
    async with Emulator(duration=600.0, answer_chars=200) as server:
        if call == "in_doubt":
            server.faults.add("submit", faults.Drop(after_accept=True), times=1)
        async with session_at(server.url, journal=path, retry=ONCE) as session:
            sent = [] if call == "in_doubt" else [await session.submit(QUESTIONS[0], tag="a", meta=meta)]
            if not sent:
                await session.ask(QUESTIONS[0], meta=meta)
        async with session_at(server.url, journal=path) as session:
            if call == "in_doubt":
                (found,) = await session.in_doubt()
            elif call == "get":
                found = await session.get(sent[0].id)
                assert not found.done
            else:
                server.advance(3600)
                if call == "wait":
                    found = await session.wait(sent[0].id)
                else:
                    (found,) = await taken(session.batch([{**item, "tag": "a"}]), [])
        assert (found.question, found.meta) == (QUESTIONS[0], meta)
        if call in ("wait", "batch"):
            async with session_at(server.url, journal=path) as session:
                again = await session.wait(found.id)
            assert (again.text, again.meta) == (found.text, meta)


async def test_columns_of_a_batch_are_journalled_in_order(path: Path) -> None:
    async with emulator() as server:
        await run(server.url, path, [{"question": f"{n}?", "meta": {"n": n}} for n in range(40)])
        order = [7, *range(40), 41]
        await run(server.url, path, [{"question": f"{n}?", "meta": {"n": n, "new": n}} for n in order if n != 3])
        with SqliteReader(path) as reader:
            found = [row.meta for row in reader.asked()]
            assert len(list(reader.asked(every_run=True))) == len(found) + 1
    assert found == [{"n": n, "new": n} for n in order if n != 3]


# --- doubt ------------------------------------------------------------------------------------------------------------


async def left_in_doubt(server: Emulator, journal: object, *, made: bool = True, **more: Any) -> Job:
    """The first question, sent once and never answered."""
    server.faults.add("submit", faults.Drop(after_accept=made), times=1)
    (job,) = await run(server.url, journal, QUESTIONS[:1], retry=ONCE, **more)
    assert job.status is JobStatus.IN_DOUBT
    return job


async def test_next_run_resends_doubtful_submissions_under_their_keys(path: Path) -> None:
    async with emulator() as server:
        doubtful = await left_in_doubt(server, path)
        (job,) = await run(server.url, path, QUESTIONS[:1])
        assert server.ledger.created_by_key == {doubtful.idempotency_key: 1}
    assert job.ok
    assert job.idempotency_key == doubtful.idempotency_key


async def test_submission_in_doubt_is_held_on_request(path: Path) -> None:
    async with emulator(idempotency="ignore") as server:
        await left_in_doubt(server, path, on_doubt="hold")
        before = total(server)
        (job,) = await run(server.url, path, QUESTIONS[:1], on_doubt="hold")
        assert total(server) == before
        async with session_at(server.url, journal=path, on_doubt="hold") as session:
            async with session.batch(QUESTIONS[:1]) as jobs:
                assert [one.status async for one in jobs] == [JobStatus.IN_DOUBT]
            assert [one.idempotency_key for one in await session.in_doubt()] == [job.idempotency_key]
        assert server.ledger.created == 1
    assert job.status is JobStatus.IN_DOUBT


@pytest.mark.parametrize(("age", "sent"), [(0.9 * DAY, True), (1.1 * DAY, False), (-60.0, True)])
async def test_key_older_than_a_day_is_not_relied_on(age: float, sent: bool) -> None:
    """A key from the future is new: a wall clock was set back."""
    journal = Aged(now=Clock(SPEED).wall)
    async with emulator() as server:
        await left_in_doubt(server, journal)
        journal.seconds = age
        (job,) = await run(server.url, journal, QUESTIONS[:1])
        assert posts(server) == (2 if sent else 1)
    assert job.ok is sent
    assert sent or job.status is JobStatus.IN_DOUBT


@pytest.mark.parametrize("refusal", [faults.NAMED["invalid_key"], faults.Status(404), faults.NAMED["rate_limited_120"]])
async def test_refusal_in_this_run_leaves_earlier_doubt(refusal: faults.Fault, path: Path) -> None:
    async with emulator() as server:
        await left_in_doubt(server, path)
        server.faults.add("submit", refusal, times=1)
        questions = [{"question": QUESTIONS[0], "timeout": 60}]
        found, _ = await run_to_its_error(server.url, path, questions)
        assert states(path)[0] in (State.IN_DOUBT, State.SENDING, State.DONE)
        assert found[0].status in (JobStatus.IN_DOUBT, JobStatus.COMPLETED)
        (job,) = await run(server.url, path, QUESTIONS[:1])
        assert server.ledger.created == 1
    assert job.ok


async def test_keyless_submission_is_never_resent_through_another_api(path: Path) -> None:
    """What decides is the API that it went to."""
    async with emulator() as server:
        await left_in_doubt(server, path, api="agent")
        (job,) = await run(server.url, path, QUESTIONS[:1], api="auto")
        assert server.ledger.created == 1
        assert job.status is JobStatus.IN_DOUBT
        assert job.api == "agent"


async def test_submission_waiting_after_a_refusal_is_not_in_doubt(path: Path) -> None:
    """A 429 made no job: whoever stops the run in the pause that follows has nothing to review."""
    async with emulator() as server:
        server.faults.add("submit", faults.RateLimited(retry_after="100"))
        async with session_at(server.url, journal=path, api="agent", speed=1.0) as session, session.batch(QUESTIONS):
            await server.until(lambda ledger: posts(server) >= 1)
            await until(lambda: states(path) == [State.QUEUED] * 3)
        assert states(path) == [State.QUEUED] * 3
        server.faults.clear()
        found = await run(server.url, path, api="agent")
    assert all(job.ok for job in found)
    assert server.ledger.created == 3


async def test_marked_but_unsent_submission_is_not_in_doubt() -> None:
    """The block is left while the mark is being written: nothing was sent, and the journal says so."""
    journal, marking = memory(), asyncio.Event()

    async def hook(when: str, step: str) -> None:
        if (when, step) == ("after", "sending"):
            marking.set()
            await asyncio.Event().wait()

    async with emulator() as server:
        hooked = Hooked(journal, hook)
        async with session_at(server.url, journal=hooked, api="agent") as session, session.batch(QUESTIONS[:1]):
            await marking.wait()
            assert (await journal.counts())[State.SENDING] == 1
        assert posts(server) == 0
        assert (await journal.counts())[State.QUEUED] == 1
        assert all(job.ok for job in await run(server.url, journal, QUESTIONS[:1], api="agent"))


async def test_doubt_is_resolved_by_resubmitting_under_a_new_key(path: Path) -> None:
    async with emulator() as server:
        await left_in_doubt(server, path, on_doubt="hold")
        async with session_at(server.url, journal=path, on_doubt="hold") as session:
            (doubtful,) = await session.in_doubt()
            with pytest.raises(InvalidRequest, match="pay_again=True"):
                await session.resubmit(doubtful, pay_again=False)
            job = await session.resubmit(doubtful, pay_again=True)
            assert job.idempotency_key != doubtful.idempotency_key
            assert (await session.wait(job)).ok
            assert await session.in_doubt() == []
        assert server.ledger.created == 2
        before = total(server)
        assert (await run(server.url, path, QUESTIONS[:1]))[0].id == job.id
        assert total(server) == before


async def test_doubt_resolved_twice_at_once_pays_once(path: Path) -> None:
    async with emulator() as server:
        await left_in_doubt(server, path, on_doubt="hold")
        async with session_at(server.url, journal=path, on_doubt="hold") as session:
            (doubtful,) = await session.in_doubt()
            calls = [session.resubmit(doubtful, pay_again=True) for _ in range(3)]
            found = await asyncio.gather(*calls, return_exceptions=True)
        assert server.ledger.created == 2
    assert sum(isinstance(one, Job) for one in found) == 1
    assert sum(isinstance(one, (InvalidRequest, JournalError)) for one in found) == 2


async def test_doubt_is_resolved_by_the_id_found(path: Path) -> None:
    async with emulator() as server:
        await left_in_doubt(server, path, on_doubt="hold")
        async with session_at(server.url, journal=path, on_doubt="hold") as session:
            (doubtful,) = await session.in_doubt()
            await session.adopt(server.ledger.jobs[0].id, instead_of=doubtful)
            assert await session.in_doubt() == []
        (job,) = await run(server.url, path, QUESTIONS[:1], on_doubt="hold")
        assert posts(server) == 1
    assert job.ok
    assert job.id == server.ledger.jobs[0].id


async def test_abandoned_doubt_is_not_sent_again(path: Path) -> None:
    async with emulator() as server:
        await left_in_doubt(server, path, made=False, on_doubt="hold")
        async with session_at(server.url, journal=path, on_doubt="hold") as session:
            dropped = await session.drop((await session.in_doubt())[0])
            assert dropped.status is JobStatus.FAILED
        (job,) = await run(server.url, path, QUESTIONS[:1])
        assert job.status is JobStatus.FAILED
        (job,) = await run(server.url, path, QUESTIONS[:1], retry_failed=True)
        assert server.ledger.created == 1
    assert job.ok


async def test_job_from_elsewhere_is_found_by_its_tag(path: Path) -> None:
    async with emulator() as server:
        async with session_at(server.url) as session:
            elsewhere = await session.submit(QUESTIONS[0])
        async with session_at(server.url, journal=path) as session:
            await session.adopt(elsewhere.id, tag="a")
            job = await session.ask(QUESTIONS[0], tag="a")
        assert server.ledger.created == 1
    assert job.ok
    assert job.id == elsewhere.id


async def test_adopted_job_that_failed_can_be_asked_again(path: Path) -> None:
    """Its question was never in the journal: whoever asks by its tag says it."""
    async with emulator(failing=lambda question: "Vasa" in question) as server:
        async with session_at(server.url) as session:
            elsewhere = await session.submit(QUESTIONS[0])
        async with session_at(server.url, journal=path) as session:
            await session.adopt(elsewhere.id, tag="a")
            assert (await session.ask(QUESTIONS[1], tag="a")).status is JobStatus.FAILED
            with pytest.raises(InvalidRequest, match="adopted"):
                await session.resubmit(await session.wait(elsewhere.id), pay_again=True)
        (job,) = await run(server.url, path, [{"question": QUESTIONS[1], "tag": "a"}], retry_failed=True)
    assert job.ok


async def test_failed_jobs_are_retried_on_request_under_new_keys(path: Path) -> None:
    bad = {QUESTIONS[1]}
    async with emulator(failing=lambda question: question in bad) as server:
        first = await run(server.url, path)
        bad.clear()
        before = total(server)
        again = await run(server.url, path)
        assert total(server) == before
        retried = await run(server.url, path, retry_failed=True)
        assert server.ledger.created == 4
    assert [job.status for job in again] == [job.status for job in first]
    assert again[1].status is JobStatus.FAILED
    assert isinstance(again[1].error, type(first[1].error))
    assert [job.id for job in retried[::2]] == [job.id for job in first[::2]]
    assert retried[1].ok
    assert retried[1].idempotency_key != first[1].idempotency_key


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("results", "polls"), [("keep", 0), ("until_delivered", 3), ("refetch", 3)])
async def test_results_are_stored_where_the_user_chose(results: str, polls: int, path: Path) -> None:
    async with emulator(duration=AfterPolls(1)) as server:
        first = await run(server.url, path, results=results)
        before = total(server)
        again = await run(server.url, path, results=results)
        assert posts(server) == 3
        assert total(server) - before == polls
    assert [job.text for job in again] == [job.text for job in first]


@pytest.mark.parametrize("ordered", [False, True])
async def test_slow_consumer_costs_neither_memory_nor_polls(ordered: bool, path: Path) -> None:
    """Results go to disk as they come and are read back as they are taken."""
    jobs_in_all, size = 120, 300_000
    async with Scripted() as server:
        server.text = lambda row: row.question.ljust(size, ".")
        async with (
            Session(KEY, base_url=server.url, poll=PollPolicy.fixed(0.01), journal=path) as session,
            session.batch(map(str, range(jobs_in_all)), ordered=ordered) as jobs,
        ):
            assert session._core is not None
            polls = session._core.life.poller._running
            tracemalloc.start()
            try:
                await server.until(lambda: server.told == jobs_in_all)
                # The file shows an outcome a moment before its poll knows of that, and lets go of it.
                await until(lambda: states(path).count(State.DONE) == jobs_in_all and not polls)
                held = tracemalloc.get_traced_memory()[0]
                texts = [job.text async for job in jobs]
            finally:
                tracemalloc.stop()
    assert held < (READY + 13) * size * 2  # the bytes of an answer, and its text
    assert sorted(text.rstrip(".") for text in texts) == sorted(map(str, range(jobs_in_all)))
    assert all(len(text) == size for text in texts)


async def test_unreadable_result_is_reported_and_polled_for_again(path: Path) -> None:
    """One damaged row does not hold up the others."""

    class Damaged(SqliteJournal):
        async def result(self, pk: int) -> bytes | None:
            if pk == 2:
                raise ResultDamaged("the stored result cannot be read back")
            return await super().result(pk)

    async with emulator() as server:
        first = await run(server.url, path)
        journal = await Damaged.open(path, now=time.time)
        again = await run(server.url, journal)
        damaged = next(job for job in again if not job.ok)
        async with session_at(server.url, journal=journal) as session:
            assert (await session.get(damaged.id)).ok
        await journal.close()
    assert damaged.status is JobStatus.UNREADABLE
    assert [job.id for job in again] == [job.id for job in first]


# --- a journal that cannot be opened, or written ----------------------------------------------------------------------


async def test_second_session_on_one_journal_names_the_first(path: Path) -> None:
    async with emulator() as server, session_at(server.url, journal=path) as session:
        with pytest.raises(JournalLocked):
            async with session_at(server.url, journal=path):
                pytest.fail("the journal has two writers")
        assert (await session.ask(QUESTIONS[0])).ok
    async with emulator() as server:
        with pytest.raises(JournalRefused) as refused:
            await run(server.url, path)
    assert refused.value.reason == "base_url"


async def test_journal_of_another_account_is_refused(path: Path) -> None:
    async with emulator() as server:
        await run(server.url, path)
        with pytest.raises(JournalRefused) as refused:
            await run(server.url, path, api_key="another-key-0123456789")
        assert refused.value.reason == "account"
        assert posts(server) == 3


class Filling:
    """A disk that is full between `fill` and `empty`: no step is written, as SQLite then has it."""

    def __init__(self) -> None:
        self.error: JournalError | None = None
        self.refused: list[str] = []

    def __call__(self, when: str, step: str) -> None:
        if self.error is not None and when == "before" and step not in ("get", "result", "rows"):
            self.refused.append(step)
            raise self.error

    def fill(self) -> None:
        self.error = JournalFull("no room", path="run.db")

    def break_for_good(self) -> None:
        self.error = JournalBroken("damaged", path="run.db", is_final=True)

    def empty(self) -> None:
        self.error = None


async def test_full_disk_stops_only_new_submissions() -> None:
    """Polls go on; a result waits at the server until there is room for it; then everything goes on."""
    disk, journal, events = Filling(), memory(), list[Event]()
    async with Emulator(duration=600.0, answer_chars=200) as server:
        hooked = Hooked(journal, disk)
        async with session_at(server.url, journal=hooked, events=events) as session:
            async with session.batch(QUESTIONS[:2]) as jobs:
                await server.until(lambda ledger: ledger.created == 2)
                await until_accepted(journal, 2)
                disk.fill()
                with pytest.raises(JournalFull):
                    await session.ask(QUESTIONS[2])
                assert posts(server) == 2
                server.advance(3600)
                await until(lambda: disk.refused.count("ended") >= 6)
                disk.empty()
                found = [job async for job in jobs]
            later = asyncio.create_task(session.ask(QUESTIONS[2]))
            await server.until(lambda ledger: ledger.created == 3)
            server.advance(3600)
            assert (await later).ok
    assert all(job.ok for job in found)
    assert [event.kind for event in events].count(EventKind.STOPPED) == 1
    # Told once of each job, however often it could not be written.
    unkept = [event.job_id for event in events if event.reason.startswith("not kept")]
    assert sorted(unkept) == sorted(job.id for job in found)
    assert (await journal.counts())[State.DONE] == 3


async def test_unwritable_outcome_does_not_outlive_its_time_limit() -> None:
    """The job stays as it was in the journal: the next run polls it, and has its result."""
    disk, journal = Filling(), memory()
    async with Emulator(duration=600.0, answer_chars=200) as server:
        async with session_at(server.url, journal=Hooked(journal, disk)) as session:
            asking = asyncio.create_task(session.ask(QUESTIONS[0], timeout=60.0, tag="a"))
            await until_accepted(journal, 1)
            disk.fill()
            server.advance(3600)
            async with asyncio.timeout(20.0):
                job = await asking
            assert job.status is JobStatus.TIMED_OUT
            assert "it has ended, and its outcome could not be written" in str(job.error)
            assert "goes on" not in str(job.error)
            assert "session.wait(job.id)" in str(job.error)
            assert (await journal.counts())[State.ACCEPTED] == 1
            disk.empty()
            assert (await session.ask(QUESTIONS[0], tag="a")).ok
        assert server.ledger.created == 1


@pytest.mark.parametrize("error", [JournalFull("no room", path="run.db"), JournalAway("out of reach", path="run.db")])
@pytest.mark.parametrize("is_shared", [False, True])
async def test_answer_that_came_at_once_is_handed_out_unwritten(
    error: JournalError, is_shared: bool, server: Scripted
) -> None:
    """A server that answers a submission with the answer need not have it at the next poll."""
    clock = JumpingClock()
    message = {"role": "assistant", "content": "It was too tall."}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    answer = {"id": "cmpl-1", "model": "sonar-deep-research", "object": "chat.completion", "choices": choices}
    gone = {"error": {"message": "no such job", "type": "not_found", "code": 404}}
    server.script = lambda asked: (200, answer) if asked.kind == "submit" else (404, gone)

    class Unending(MemoryJournal):
        async def apply(self, claim: Claim, step: Step) -> None:
            if step.rule.name == "ended":
                raise error
            await super().apply(claim, step)

    store, told = MemoryStore(now=clock.wall), Told()
    journal = Unending(store=store) if is_shared else Unending(now=clock.wall)
    async with opened(server, journal=journal, clock=clock, timeout=600.0, on_event=told) as session:
        async with session.batch([QUESTIONS[0]], run="one") as jobs:
            found = [job async for job in jobs]
        assert [(job.id, job.text, job.ok) for job in found] == [("cmpl-1", "It was too tall.", True)]
        assert server.requests["get"] == 0
        assert [event.reason.partition(":")[0] for event in told.of(EventKind.WARNING)] == ["not kept"]
        assert (await journal.counts())[State.ACCEPTED] == 1, "the next run polls it"


async def test_batch_on_a_full_disk_stops_reading_its_source() -> None:
    disk, read = Filling(), list[int]()

    def source() -> Any:
        for n in range(10_000):
            read.append(n)
            yield f"Why did ship {n} sink?"

    async with emulator() as server:
        disk.fill()
        found, error = await run_to_its_error(server.url, Hooked(memory(), disk), source())
        assert error == JournalFull.__name__
        assert posts(server) == 0
    assert len(read) < 100
    assert all(job.status is JobStatus.STOPPED for job in found)


async def test_same_batch_goes_on_once_the_disk_has_room() -> None:
    """The batch ends with what is wrong, and begun again it asks only what it had not asked: nothing is paid twice."""
    disk, journal = Filling(), memory()
    async with (
        emulator() as server,
        session_at(server.url, journal=Hooked(journal, disk), timeout=120.0) as session,
    ):
        read = 0

        def source() -> Any:
            nonlocal read
            for n in range(8):
                read += 1
                if read == 5:
                    disk.fill()
                yield f"Why did ship {n} sink?"

        async def ask_all() -> list[Job]:
            async with session.batch(source()) as jobs:
                return [job async for job in jobs]

        with pytest.raises(JournalFull):
            await ask_all()
        assert posts(server) < 8
        disk.empty()
        assert [job.ok for job in await ask_all()] == [True] * 8
        assert server.ledger.created == 8


async def test_failing_journal_stops_no_other_session_of_the_account() -> None:
    disk = Filling()
    async with (
        emulator() as server,
        session_at(server.url, journal=Hooked(memory(), disk)) as failing,
        session_at(server.url, journal=memory()) as other,
    ):
        disk.fill()
        with pytest.raises(JournalFull):
            await failing.ask(QUESTIONS[0])
        assert (await other.ask(QUESTIONS[0])).ok


async def test_broken_journal_still_hands_out_what_is_paid() -> None:
    disk, journal = Filling(), memory()
    async with (
        Emulator(duration=600.0, answer_chars=200) as server,
        session_at(server.url, journal=Hooked(journal, disk)) as session,
        session.batch(QUESTIONS) as jobs,
    ):
        await until_accepted(journal, 3)
        disk.break_for_good()
        server.advance(3600)
        found = [job async for job in jobs]
    assert [job.ok for job in found] == [True] * 3


async def test_unwritten_id_is_reported_and_its_job_collected() -> None:
    disk, journal, events = Filling(), memory(), list[Event]()

    def hook(when: str, step: str) -> None:
        if step == "accepted" and when == "before":
            disk.fill()
        disk(when, step)

    async with emulator() as server:
        async with (
            session_at(server.url, journal=Hooked(journal, hook), events=events) as session,
            session.batch(QUESTIONS[:1]) as jobs,
        ):
            await until(lambda: "ended" in disk.refused)
            disk.empty()
            found = [job async for job in jobs]
        assert server.ledger.created == 1
    assert found[0].ok
    told = [event for event in events if event.kind is EventKind.WARNING and "could not be written" in event.reason]
    assert [event.job_id for event in told] == [found[0].id]
    assert [row.state for row in await journal.rows(tuple(State))] == [State.DONE]


async def test_session_closed_while_writing_leaves_a_whole_journal(path: Path) -> None:
    async with emulator() as server:
        for step in ("find_or_queue", "sending", "accepted", "ended"):
            reached = asyncio.Event()

            def hook(when: str, name: str, step: str = step, reached: asyncio.Event = reached) -> None:
                if (when, name) == ("before", step):
                    reached.set()

            journal = await SqliteJournal.open(path, now=time.time)
            session = session_at(server.url, journal=Hooked(journal, hook))
            async with session, session.batch(QUESTIONS):
                await reached.wait()
            await journal.close()
        found = await run(server.url, path)
        assert all(job.ok for job in found)
        assert server.ledger.created == 3


# --- leaving at any moment --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["sonar", "agent"])
async def test_run_cancelled_anywhere_sends_nothing_that_is_not_written(api: str) -> None:
    """Cancelled at each of its first turns of the loop, and then gone on with: nothing unwritten, nothing twice."""
    journal = memory()
    marked: set[bytes] = set()

    async def hook(when: str, step: str) -> None:
        await asyncio.sleep(0)  # as many turns as a thread would take, and more places to be cancelled at
        if (when, step) == ("after", "sending"):
            marked.update(row.body for row in await journal.rows(tuple(State)) if row.attempts)

    unmarked: list[bytes] = []

    def seen(asked: Any) -> bool:
        if asked.body not in marked:
            unmarked.append(asked.body)
        return False

    async with emulator() as server:
        server.faults.add("submit", faults.Delay(0.0), match=seen)
        for turns in range(0, 120, 3):
            questions = [f"Why did ship {turns + n} sink?" for n in range(4)]
            task = asyncio.create_task(run(server.url, Hooked(journal, hook), questions, api=api))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert unmarked == []
        everything = [f"Why did ship {n} sink?" for n in range(121)]
        found = await run(server.url, Hooked(journal, hook), everything, api=api, on_doubt="resend")
        bodies = [job.body for job in server.ledger.jobs]
    asked = {job.index: job for job in found}
    assert all(job.ok for job in asked.values())
    if api == "sonar":
        assert len(bodies) == len(set(bodies)) == 121


# --- what it may cost -------------------------------------------------------------------------------------------------


async def test_budget_holds_over_runs_and_a_higher_one_continues(path: Path) -> None:
    questions = [f"Why did ship {n} sink?" for n in range(30)]
    async with Emulator(duration=AfterPolls(1), answer_chars=200) as server:
        first = await run(server.url, path, questions, max_cost=8.0)
        paid, spent = server.ledger.created, server.ledger.billed
        assert 0 < paid < 30
        assert spent <= 8.0 * 1.1
        again = await run(server.url, path, questions, max_cost=8.0)
        assert server.ledger.billed <= 8.0 * 1.1
        last = await run(server.url, path, questions, max_cost=1000.0)
        assert server.ledger.created == 30
    assert sum(job.ok for job in first) == paid
    stopped = [job for job in first if not job.ok]
    assert all(job.status is JobStatus.STOPPED and isinstance(job.error, BudgetReached) for job in stopped)
    assert sum(job.ok for job in again) >= paid
    assert all(job.ok for job in last)


@pytest.mark.parametrize("how", ["batch", "submit", "ask"])
async def test_left_jobs_keep_their_hold_and_nobody_waits(how: str) -> None:
    """Two fit under the cap. Each is left; a third does not fit, and says so instead of waiting for ever."""
    async with Emulator(duration=600.0, answer_chars=200) as server:
        async with session_at(server.url, journal=memory(), max_cost=3.0) as session:
            for count, question in enumerate(QUESTIONS[:2], 1):
                if how == "batch":
                    async with session.batch([question]):
                        await server.until(lambda ledger, count=count: ledger.created == count)
                elif how == "submit":
                    await session.submit(question)
                else:
                    call = asyncio.create_task(session.ask(question))
                    await server.until(lambda ledger, count=count: ledger.created == count)
                    call.cancel()
                    await asyncio.wait([call])
            with pytest.raises(BudgetReached) as reached:
                await session.ask(QUESTIONS[2])
        assert "time limit" not in reached.value.message
        assert server.ledger.created == 2


async def test_jobs_of_earlier_runs_keep_holds_until_collected(path: Path) -> None:
    """Three fit under the cap. Two run already, whatever is asked first; what they really cost makes room again."""
    async with Emulator(duration=600.0, answer_chars=200) as server:
        async with session_at(server.url, journal=path, max_cost=40.0) as session, session.batch(QUESTIONS[:2]):
            await server.until(lambda ledger: ledger.created == 2)
        new = [f"Why did ship {n} sink?" for n in range(5)]
        async with session_at(server.url, journal=path, max_cost=4.0) as session:
            async with session.batch(new) as jobs:
                await server.until(lambda ledger: ledger.created == 3)
                server.advance(3600)
                first = [job async for job in jobs]
            async with session.batch(QUESTIONS[:2]) as jobs:
                collected = [job async for job in jobs]
        assert server.ledger.billed <= 4.0 * 1.1
        assert server.ledger.created == 2 + sum(job.ok for job in first)
    assert sum(job.ok for job in first) == 1
    assert all(job.ok for job in collected)


async def test_call_waits_for_budget_within_its_time_limit() -> None:
    async with Emulator(duration=600.0, answer_chars=200) as server:
        async with session_at(server.url, journal=memory(), max_cost=1.5) as session, session.batch(QUESTIONS[:1]):
            await server.until(lambda ledger: ledger.created == 1)
            with pytest.raises(BudgetReached, match="time limit"):
                await session.ask(QUESTIONS[1], timeout=5.0)
        assert server.ledger.created == 1


@pytest.mark.parametrize("api", ["sonar", "agent"])
async def test_cost_of_an_empty_answer_frees_its_hold(path: Path, api: str) -> None:
    """One job that is expected to cost $1.30 fits beside one that cost less, and not beside one of unknown cost."""
    async with Emulator(duration=AfterPolls(1), answer_chars=200) as server:
        server.faults.add("get", faults.NAMED["empty_choices"], match=lambda asked: asked.job_id == first_id(server))
        async with session_at(server.url, journal=path, max_cost=2.5, api=api) as session:
            empty = await session.ask(QUESTIONS[0], tag=0)
            full = await session.ask(QUESTIONS[1], tag=1)
        costs = [record.cost for record in server.ledger.jobs]
        tagged = [{"question": question, "tag": n} for n, question in enumerate(QUESTIONS[:2])]
        again = await run(server.url, path, tagged, max_cost=2.5, api=api)
        assert server.ledger.created == 2
    assert isinstance(empty.error, ResultMissing)
    assert 0.0 < costs[0] < 1.2
    assert (empty.ok, empty.text, empty.cost) == (False, "", pytest.approx(costs[0]))
    assert (full.ok, full.cost) == (True, pytest.approx(costs[1]))
    assert [(row.state, row.cost) for row in rows(path)] == [(State.FAILED, empty.cost), (State.DONE, full.cost)]
    assert [(job.ok, job.cost, job.usage) for job in again] == [(job.ok, job.cost, job.usage) for job in (empty, full)]


def first_id(server: Emulator) -> str:
    return server.ledger.jobs[0].id


async def test_cost_of_an_empty_answer_settles_without_a_journal() -> None:
    async with Emulator(duration=AfterPolls(1), answer_chars=200) as server:
        server.faults.add("get", faults.NAMED["null_content"], match=lambda asked: asked.job_id == first_id(server))
        async with session_at(server.url, max_cost=2.5) as session, session.batch(QUESTIONS, max_in_flight=1) as jobs:
            found = [job async for job in jobs]
        billed = server.ledger.billed
    assert [type(job.error) for job in found[:2]] == [ResultMissing, type(None)]
    assert sum(job.cost or 0.0 for job in found) == pytest.approx(billed)


# --- two APIs ---------------------------------------------------------------------------------------------------------


async def test_run_moves_to_the_successor_and_collects_older_jobs(path: Path) -> None:
    questions = [f"Why did ship {n} sink?" for n in range(12)]
    async with Emulator(duration=AfterPolls(2), answer_chars=200) as server:

        async def source() -> Any:
            for n, question in enumerate(questions):
                if n == 6:
                    await server.until(lambda ledger: ledger.created == 6)
                    server.retire(readable=True)
                yield question

        first = await run(server.url, path, source(), api="auto")
        assert server.ledger.created_by_api == {"sonar": 6, "agent": 6}
        before = total(server)
        again = await run(server.url, path, questions, api="auto")
        assert total(server) == before
    assert all(job.ok for job in (*first, *again))
    assert [job.api for job in first] == ["sonar"] * 6 + ["agent"] * 6
    assert [(job.id, job.api, job.text) for job in again] == [(job.id, job.api, job.text) for job in first]
    assert [row.api for row in rows(path)] == ["sonar"] * 6 + ["agent"] * 6


async def test_next_run_collects_what_the_retired_api_still_has(path: Path) -> None:
    async with Emulator(duration=600.0, answer_chars=200) as server:
        async with session_at(server.url, journal=path, api="auto") as session, session.batch(QUESTIONS):
            await server.until(lambda ledger: ledger.created == 3)
        server.retire(readable=True)
        server.advance(3600)
        found = await run(server.url, path, QUESTIONS, api="agent")
        assert server.ledger.created == 3
    assert all(job.ok and job.api == "sonar" for job in found)


async def test_doubt_at_the_retired_api_stays_there(path: Path) -> None:
    """The first may have made a job; a second one at the other API would be another bill."""
    async with emulator() as server:
        await left_in_doubt(server, path, api="auto")
        server.retire(readable=True)
        (job,) = await run(server.url, path, QUESTIONS[:1], api="auto")
        assert server.ledger.created == 1
    assert job.status is JobStatus.IN_DOUBT
