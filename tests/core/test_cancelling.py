"""Jobs are cancelled at the server, and each end of an Agent API run has its own status."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, cast

import anyio
import pytest
from _faulty import QUESTION, QUESTIONS, SPEED, emulator, session_at, taken
from _scripted import Boom, Told

from aiopplx import (
    AgentRequest,
    APIError,
    Batch,
    Event,
    EventKind,
    InvalidRequest,
    Job,
    JobFailed,
    JobStatus,
    NotFound,
    PollPolicy,
    RetryPolicy,
    Session,
    TransportError,
)
from aiopplx._core.job.cancelling import CANCEL_SECONDS, cancel_all
from aiopplx._core.lifecycle import Lifecycle
from aiopplx._core.spending import Unbounded
from aiopplx._core.store.reaching import Reach
from aiopplx._events import Emitter
from aiopplx._http.client import Client
from aiopplx.agent import AGENT
from aiopplx.apis._registry import Routing
from aiopplx.emulator import AfterPolls, Emulator, JobRecord, faults
from aiopplx.journal._forgetful import ForgetfulJournal
from aiopplx.journal._memory import MemoryJournal
from aiopplx.testing import Clock, JumpingClock

UNKNOWN = "resp_00000000-0000-4000-8000-000000000001"
CANCEL = "POST /v1/responses/{id}/cancel"
GET = "GET /v1/responses/{id}"
NEVER = AfterPolls(1_000_000)


def running(**more: Any) -> Emulator:
    """A server whose jobs never end by themselves."""
    return emulator(**{"duration": NEVER, "cancel_delay": 0.0, **more})


def leaving_at(url: str, **more: Any) -> Session:
    """A session whose clock runs twice as fast only, and that waits for every id on its way: nothing here is a race."""
    return session_at(
        url,
        **{"api": "agent", "speed": 2.0, "poll": PollPolicy.fixed(0.1), "retry": RetryPolicy(leave_grace=60.0)} | more,
    )


def cancelled(server: Emulator) -> list[JobRecord]:
    return [job for job in server.ledger.jobs if job.cancelled]


def ending(server: Emulator) -> bool:
    """Every job ends at this moment; for a rule of faults that plays none."""
    server.advance(1000.0)
    return False


# --- one job ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["agent", "agent-v1", "auto"])
@pytest.mark.parametrize("by", [lambda job: job, lambda job: job.id], ids=("job", "id"))
async def test_running_job_is_cancelled_and_its_end_awaited(api: str, by: Callable[[Job], Job | str]) -> None:
    events: list[Event] = []
    async with running() as server, session_at(server.url, api=api, events=events) as session:
        job = await session.submit(AgentRequest(QUESTION, tag="mine"))
        ended = await session.cancel(by(job))

        assert ended.status is JobStatus.CANCELLED
        assert ended.done
        assert not ended.ok
        assert isinstance(ended.error, JobFailed)
        assert (ended.id, ended.tag, ended.idempotency_key) == (job.id, "mine", job.idempotency_key)
        assert [record.id for record in cancelled(server)] == [job.id]
        assert [event.job_id for event in events if event.kind is EventKind.CANCELLING] == [job.id]


async def test_every_waiter_learns_that_its_job_was_cancelled() -> None:
    async with running() as server, session_at(server.url, api="agent") as session:
        asking = asyncio.create_task(session.ask(QUESTION))
        await server.until(lambda ledger: ledger.created == 1)
        ended = await session.cancel(server.ledger.jobs[0].id)
        asked = await asking

        assert ended.status is asked.status is JobStatus.CANCELLED
        with pytest.raises(JobFailed):
            asked.result()


async def test_results_of_a_cancelled_job_are_kept() -> None:
    async with emulator(duration=AfterPolls(8)) as server, session_at(server.url, api="agent") as session:
        job = await session.submit(QUESTION)
        while not (await session.get(job.id)).sources:
            pass
        ended = await session.cancel(job)

        assert ended.status is JobStatus.CANCELLED
        assert ended.sources


@pytest.mark.parametrize("by", [lambda job: job, lambda job: job.id], ids=("job", "id"))
async def test_ended_job_is_returned_as_it_is(by: Callable[[Job], Job | str]) -> None:
    async with emulator() as server, session_at(server.url, api="agent") as session:
        job = await session.ask(QUESTION)
        again = await session.cancel(by(job))

        assert again.ok
        assert again.text == job.text
        assert server.ledger.requests[CANCEL] == 0


async def test_running_job_of_a_batch_is_the_pollers_alone() -> None:
    told = Told()
    async with (
        running(duration=1e9) as server,
        session_at(server.url, api="agent", poll=PollPolicy.fixed(1e6), on_event=told) as session,
        session.batch([QUESTION]) as jobs,
    ):
        await told.first(EventKind.SUBMITTED)
        with anyio.fail_after(10):
            ended = await session.cancel(server.ledger.jobs[0].id)
        (job,) = [job async for job in jobs]

        assert ended.status is job.status is JobStatus.CANCELLED
        assert (server.ledger.requests[CANCEL], server.ledger.requests[GET]) == (1, 1)


async def test_job_that_nobody_polls_is_polled_before_and_after() -> None:
    async with (
        running(duration=1e9) as server,
        session_at(server.url, api="agent", poll=PollPolicy.fixed(1e6)) as session,
    ):
        job = await session.submit(QUESTION)
        with anyio.fail_after(10):  # by its schedule it would be polled in a day, which takes twice as long here
            assert (await session.cancel(job)).status is JobStatus.CANCELLED

        assert (server.ledger.requests[CANCEL], server.ledger.requests[GET]) == (1, 2)


async def test_batch_hears_of_an_end_before_the_cancel() -> None:
    told = Told()
    async with (
        emulator(duration=100.0) as server,
        session_at(server.url, api="agent", speed=1.0, poll=PollPolicy.fixed(0.2), on_event=told) as session,
        session.batch([QUESTION]) as jobs,
    ):
        await told.first(EventKind.SUBMITTED)
        server.faults.add("cancel", faults.Delay(0.0), match=lambda _: ending(server))
        ended = await session.cancel(jobs.pending[0])
        (job,) = [job async for job in jobs]

        assert [request.status for request in server.ledger.log if request.on == "cancel"] == [400]
        assert ended.ok
        assert job.ok


async def test_unknown_id_is_not_found_and_cancels_nothing() -> None:
    async with emulator() as server, session_at(server.url, api="agent") as session:
        with pytest.raises(NotFound):
            await session.cancel(UNKNOWN)

        assert server.ledger.requests[CANCEL] == 0


@pytest.mark.parametrize("bad", ["", ".", "..", "x" * 2_049, "\ud800"], ids=lambda bad: ascii(bad[:8]))
async def test_invalid_id_is_refused_before_anything_is_sent(bad: str) -> None:
    async with emulator() as server, session_at(server.url, api="agent") as session:
        with pytest.raises(InvalidRequest):
            await session.cancel(bad)

        assert server.ledger.requests.total() == 0


@pytest.mark.parametrize("api", ["sonar", "auto"])
async def test_sonar_job_cannot_be_cancelled_and_is_not_touched(api: str) -> None:
    async with emulator() as server, session_at(server.url, api=api) as session:
        job = await session.submit(QUESTION)
        before = server.ledger.requests.total()
        for one in (job, job.id):
            with pytest.raises(InvalidRequest, match="cannot cancel"):
                await session.cancel(one)

        assert server.ledger.requests.total() == before
        assert (await session.wait(job)).ok


async def test_job_that_completes_before_the_cancel_is_a_result() -> None:
    async with emulator(duration=AfterPolls(2)) as server, session_at(server.url, api="agent") as session:
        job = await session.submit(QUESTION)
        ended = await session.cancel(job)

        assert server.ledger.requests[CANCEL] == 1
        assert ended.ok
        assert ended.text


async def test_job_that_ends_first_is_reported_as_it_ended() -> None:
    async with emulator(duration=100.0) as server, session_at(server.url, api="agent") as session:
        job = await session.submit(QUESTION)
        server.faults.add("cancel", faults.Delay(0.0), match=lambda _: ending(server))
        ended = await session.cancel(job)

        assert [request.status for request in server.ledger.log if request.on == "cancel"] == [400]
        assert ended.ok


async def test_refused_cancel_of_a_running_job_names_its_id() -> None:
    async with running() as server, session_at(server.url, api="agent") as session:
        job = await session.submit(QUESTION)
        server.faults.add("cancel", faults.NAMED["bad_request"])
        with pytest.raises(APIError) as raised:
            await session.cancel(job)

        assert raised.value.status == 400
        assert raised.value.job_id == job.id
        assert cancelled(server) == []


@pytest.mark.parametrize("fault", ["bad_gateway_html", "drop", "rate_limited", "accept_then_drop", "accept_then_500"])
async def test_cancel_is_repeated_after_a_passing_fault(fault: str) -> None:
    async with running() as server, session_at(server.url, api="agent") as session:
        job = await session.submit(QUESTION)
        server.faults.add("cancel", faults.NAMED[fault], times=2)
        ended = await session.cancel(job)

        assert ended.status is JobStatus.CANCELLED
        assert server.ledger.requests[CANCEL] == 3


async def test_cancel_that_always_fails_is_raised_and_stops_nothing() -> None:
    events: list[Event] = []
    async with running() as server, session_at(server.url, api="agent", events=events) as session:
        job = await session.submit(QUESTION)
        server.faults.add("cancel", faults.NAMED["drop"])
        with pytest.raises(TransportError):
            await session.cancel(job)

        assert not (await session.get(job.id)).done
        assert not [event for event in events if event.kind is EventKind.STOPPED]


async def test_cancelled_job_is_in_the_journal_as_it_ended() -> None:
    journal = MemoryJournal(now=time.time)
    async with running() as server:
        async with session_at(server.url, api="agent", journal=journal) as session:
            job = await session.submit(QUESTION, tag="mine")
            assert (await session.cancel(job)).status is JobStatus.CANCELLED
        async with session_at(server.url, api="agent", journal=journal) as session:
            again = await session.ask(QUESTION, tag="mine")

        assert again.status is JobStatus.CANCELLED
        assert again.id == job.id
        assert server.ledger.created == 1


# --- leaving a batch that cancels what it leaves ----------------------------------------------------------------------


async def by_break(batch: Batch, server: Emulator, ready: asyncio.Event) -> None:
    async with batch:
        await server.until(lambda ledger: ledger.created == len(QUESTIONS))
        ready.set()


async def by_an_exception(batch: Batch, server: Emulator, ready: asyncio.Event) -> None:
    with contextlib.suppress(Boom):
        async with batch:
            await server.until(lambda ledger: ledger.created == len(QUESTIONS))
            ready.set()
            raise Boom


async def by_cancellation(batch: Batch, server: Emulator, ready: asyncio.Event) -> None:
    async def work() -> None:
        async with batch as jobs:
            async for _ in jobs:
                pass

    task = asyncio.create_task(work())
    await server.until(lambda ledger: ledger.created == len(QUESTIONS))
    ready.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


WAYS = (by_break, by_an_exception, by_cancellation)


@pytest.mark.parametrize("way", WAYS)
async def test_leaving_in_any_way_cancels_running_jobs(way: Any) -> None:
    events: list[Event] = []
    async with running() as server, leaving_at(server.url, events=events) as session:
        batch = session.batch(QUESTIONS, cancel_on_exit=True)
        await way(batch, server, asyncio.Event())

        ids = {job.id for job in server.ledger.jobs}
        assert len(cancelled(server)) == len(QUESTIONS)
        assert {event.job_id for event in events if event.kind is EventKind.CANCELLING} == ids
        assert not [event for event in events if event.kind is EventKind.LEFT]
        assert {job.id for job in batch.pending} == ids
        assert {(await session.wait(id)).status for id in ids} == {JobStatus.CANCELLED}


@pytest.mark.parametrize("way", WAYS)
async def test_leaving_cancels_nothing_by_default(way: Any) -> None:
    events: list[Event] = []
    async with running() as server, leaving_at(server.url, events=events) as session:
        await way(session.batch(QUESTIONS), server, asyncio.Event())

        assert cancelled(server) == []
        assert server.ledger.requests[CANCEL] == 0
        assert len([event for event in events if event.kind is EventKind.LEFT]) == len(QUESTIONS)


async def test_closing_the_session_cancels_what_the_batch_leaves() -> None:
    async with running() as server:
        session = leaving_at(server.url)
        batch = session.batch(QUESTIONS, cancel_on_exit=True)
        await batch.__aenter__()
        await server.until(lambda ledger: ledger.created == len(QUESTIONS))
        await session.aclose()

        assert len(cancelled(server)) == len(QUESTIONS)


async def test_finished_job_is_not_cancelled() -> None:
    async with (
        emulator(duration=lambda question: 0.0 if "number 1" in question else 1e9) as server,
        leaving_at(server.url) as session,
    ):
        async with session.batch(QUESTIONS, cancel_on_exit=True) as jobs:
            finished = [await anext(jobs) for _ in range(3)]
            await server.until(lambda ledger: ledger.created == len(QUESTIONS))

        assert [job.ok for job in finished] == [True] * 3
        assert len(cancelled(server)) == len(QUESTIONS) - 3
        assert server.ledger.requests[CANCEL] == len(QUESTIONS) - 3


async def test_job_at_its_time_limit_is_cancelled_too() -> None:
    events: list[Event] = []
    clock = JumpingClock()
    async with (
        Emulator(clock=clock, duration=NEVER, cancel_delay=0.0) as server,
        Session("key", base_url=server.url, api="agent", clock=clock, on_event=events.append) as session,
        session.batch(QUESTIONS[:3], cancel_on_exit=True, timeout=600.0) as jobs,
    ):
        await clock.sleep(700.0)
        assert {job.status for job in jobs.pending} == {JobStatus.TIMED_OUT}

    assert len(cancelled(server)) == 3
    assert not [event for event in events if event.kind is EventKind.LEFT]


async def test_submission_on_its_way_is_cancelled_too() -> None:
    async with running() as server, leaving_at(server.url) as session:
        server.faults.add("submit", faults.Delay(0.005))
        async with session.batch(QUESTIONS, cancel_on_exit=True):
            await server.until(lambda ledger: ledger.created == len(QUESTIONS))

        assert len(cancelled(server)) == len(QUESTIONS)


async def test_sonar_jobs_of_a_cancelling_batch_are_left_running() -> None:
    events: list[Event] = []
    async with running() as server, leaving_at(server.url, api="auto", events=events) as session:
        items: list[str | AgentRequest] = [*QUESTIONS[:6], *(AgentRequest(text) for text in QUESTIONS[6:])]
        async with session.batch(items, cancel_on_exit=True):
            await server.until(lambda ledger: ledger.created == len(items))

        assert {job.api for job in cancelled(server)} == {"agent"}
        assert len(cancelled(server)) == 6
        assert server.ledger.requests[CANCEL] == 6
        told = {event.job_id for event in events if event.kind is EventKind.LEFT}
        assert told == {job.id for job in server.ledger.jobs if job.api == "sonar"}


@pytest.mark.parametrize("fault", [faults.Hang(3600.0), faults.RateLimited(retry_after="100"), faults.Status(503)])
async def test_leaving_takes_a_bounded_time_whatever_cancels_do(fault: faults.Fault) -> None:
    events: list[Event] = []
    async with (
        running() as server,
        leaving_at(server.url, events=events, speed=SPEED, retry=RetryPolicy(leave_grace=3600.0)) as session,
    ):
        server.faults.add("cancel", fault)
        async with session.batch(QUESTIONS, cancel_on_exit=True):
            await server.until(lambda ledger: ledger.created == len(QUESTIONS))
            began = time.monotonic()

        # Far above the ten seconds that it may take (which pass SPEED times as fast), far below what the server holds.
        assert time.monotonic() - began < 20.0
        assert CANCEL_SECONDS < 20.0
        assert cancelled(server) == []
        assert {event.job_id for event in events if event.kind is EventKind.LEFT} == {
            job.id for job in server.ledger.jobs
        }


async def test_refused_cancel_is_reported_and_the_others_go_through() -> None:
    events: list[Event] = []
    async with running() as server, leaving_at(server.url, events=events) as session:
        async with session.batch(QUESTIONS, cancel_on_exit=True):
            await server.until(lambda ledger: ledger.created == len(QUESTIONS))
            unlucky = server.ledger.jobs[4].id
            server.faults.add("cancel", faults.NAMED["bad_request"], match=unlucky)

        assert len(cancelled(server)) == len(QUESTIONS) - 1
        assert [event.job_id for event in events if event.kind is EventKind.LEFT] == [unlucky]
        warned = [event for event in events if event.kind is EventKind.WARNING and "not cancelled" in event.reason]
        assert [event.job_id for event in warned] == [unlucky]


# --- the ends of the Agent API, in batches ----------------------------------------------------------------------------


async def test_each_end_of_a_run_has_its_own_status() -> None:
    items = [
        AgentRequest("Does it fail?", tag="failed"),
        AgentRequest("Is it cut?", tag="cut", max_output_tokens=2000),
        AgentRequest("Is it cancelled?", tag="cancelled"),
        AgentRequest("Is it well?", tag="well"),
    ]
    async with (
        emulator(duration=AfterPolls(4), answer_chars=20_000, failing=lambda question: "fail" in question) as server,
        session_at(server.url, api="agent") as session,
        session.batch(items) as jobs,
    ):
        await server.until(lambda ledger: ledger.created == len(items))
        third = next(job for job in server.ledger.jobs if b"cancelled" in job.body)
        await session.cancel(third.id)
        found = {job.tag: job async for job in jobs}

        assert {tag: job.status for tag, job in found.items()} == {
            "failed": JobStatus.FAILED,
            "cut": JobStatus.INCOMPLETE,
            "cancelled": JobStatus.CANCELLED,
            "well": JobStatus.COMPLETED,
        }
        assert [job.tag for job in found.values() if job.ok] == ["well"]
        assert all(isinstance(job.error, JobFailed) for job in found.values() if not job.ok)
        assert found["failed"].cost in (None, 0.0)
        assert found["cut"].text
        assert found["cut"].sources
        assert found["cut"].cost
        assert "max_output_tokens" in str(found["cut"].error)


async def test_running_job_shows_what_it_has_so_far() -> None:
    async with emulator(duration=AfterPolls(6)) as server, session_at(server.url, api="agent") as session:
        job = await session.submit(QUESTION)
        seen = [await session.get(job.id) for _ in range(6)]

        assert [one.ok for one in seen] == [False] * 5 + [True]
        assert [one.done for one in seen] == [False] * 5 + [True]
        assert not seen[0].sources
        assert seen[-2].sources
        assert seen[-2].error is None
        assert seen[-2].sources == seen[-1].sources[: len(seen[-2].sources)]
        with pytest.raises(Exception, match="no result here"):
            seen[-2].result()


@pytest.mark.parametrize("word", ["requires_action", "reticulating", "IN_PROGRESS", " queued "])
async def test_run_with_any_word_for_running_is_waited_for(word: str) -> None:
    async with emulator(duration=AfterPolls(4)) as server, session_at(server.url, api="agent") as session:
        server.faults.add("get", faults.SayStatus(word))
        assert [job.ok for job in await taken(session.batch(QUESTIONS[:3]), [])] == [True] * 3


class _LastMoment:
    """A client whose calls end by themselves at the very moment at which they are given up."""

    clock = Clock(1000.0)

    async def call(self, *_: object) -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise TransportError("it broke just then") from None
        return ""


async def test_cancels_given_up_do_not_cancel_the_caller() -> None:
    told: list[Event] = []
    emitter = Emitter(told.append)
    life = Lifecycle(
        Reach(ForgetfulJournal(), _LastMoment.clock, emitter, patience=1.0, random=lambda: 0.5),
        Routing(AGENT),
        cast("Client", _LastMoment()),
        Unbounded(),
        emitter,
        max_in_flight=1,
        retry_failed=False,
        new_key=lambda: "a key",
    )
    jobs = [
        Job(id=f"resp_{n}", status=JobStatus.IN_PROGRESS, api="agent", idempotency_key=f"key {n}") for n in range(3)
    ]
    ending: set[str] = set()

    await cancel_all(life, jobs, ending)

    assert ending == set()
    assert {event.kind for event in told} == {EventKind.WARNING}
    assert {event.idempotency_key for event in told} == {"key 0", "key 1", "key 2"}
