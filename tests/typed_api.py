"""What the type checkers say of the public surface: read by pyright and mypy in strict mode, never run.

Each `assert_type` is what an editor shows a user. Each line with an ignore must be an error: both checkers refuse an
ignore that ignores nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import assert_type

import aiohttp
import msgspec

from aiopplx import (
    AiopplxError,
    Batch,
    Estimate,
    Event,
    EventKind,
    Job,
    JobError,
    JobStatus,
    JournalOptions,
    NetworkOptions,
    PollPolicy,
    ResearchRequest,
    RetryPolicy,
    RunningJob,
    Session,
    Source,
    Usage,
)
from aiopplx.agent import JobFile
from aiopplx.emulator import Emulator, JobRecord, Ledger, WireServer, faults
from aiopplx.progress import EventStream, Follow, Forecast, SessionStats, Update
from aiopplx.testing import Clock, JumpingClock


class Finding(msgspec.Struct):
    """What an answer is read into."""

    year: int


class Frame:
    """A DataFrame, by what it can do."""

    def to_dicts(self) -> list[dict[str, object]]:
        """Its rows."""
        return []


async def following(session: Session, job: Job) -> None:
    """What a progress page and a health page read."""
    assert_type(session.follow(job, after="", timeout=60.0), Follow)
    async for update in session.follow("an-id"):
        assert_type(update, Update)
        assert_type(update.job.queries, list[str])
    assert_type(session.events(limit=10), EventStream)
    async for event in session.events():
        assert_type(event, Event)
        assert_type(event.seconds, float | None)
    assert_type(session.stats(), SessionStats)
    assert_type(session.stats().ended, Mapping[JobStatus, int])


async def tables(session: Session) -> None:
    """A table is a source like any other."""
    assert_type(session.batch(Frame()), Batch)
    estimate = await session.estimate(Frame())
    assert_type(estimate, Estimate)
    assert_type(estimate.high, float | None)


async def sessions(http: aiohttp.ClientSession, on_event: Callable[[Event], None]) -> None:
    """Every word of the constructor, and both ways to end."""
    async with Session() as session:
        assert_type(session, Session)
    plain = Session("key", base_url="https://example.org", api="sonar", rpm=60, max_in_flight=10, timeout=600)
    assert_type(await plain.aclose(), None)
    Session(poll=PollPolicy.fixed(10), http=http, on_event=on_event, retry=RetryPolicy())
    Session(journal="run.db", network=NetworkOptions(allow_insecure=True), clock=Clock(60))
    Session(journal=JournalOptions("run.db", results="refetch", wait=60), clock=JumpingClock())
    Session(results="keep")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - it lives in JournalOptions
    Session(poll=lambda job: 2.0 if job.age > 200 else 20.0)
    Session(rpm="60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - a number
    Session("key", "https://example.org")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - by keyword only


async def batches(session: Session, lazy: Iterator[str], later: AsyncIterator[ResearchRequest]) -> None:
    """Sources of every kind, and jobs out of all of them."""
    async with session.batch(["one", "two"]) as jobs:
        assert_type(jobs, Batch)
        async for job in jobs:
            assert_type(job, Job)
    session.batch(lazy, ordered=True, timeout=60, max_in_flight=5)
    session.batch(later)
    session.batch([{"question": "one", "tag": 1}, {"question": "two", "reasoning_effort": "low"}])
    session.batch([ResearchRequest("one", tag="first")])
    session.batch([1, 2])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType] - no questions


async def single_jobs(session: Session) -> None:
    """A web backend's calls."""
    assert_type(await session.ask("why?", tag="a", timeout=5, reasoning_effort="high"), Job)
    assert_type(await session.files("resp_1"), list[JobFile])
    assert_type(await session.download("resp_1", "file_1", "table.csv"), Path)
    submitted = await session.submit({"question": "why?"}, idempotency_key="mine")
    assert_type(await session.wait(submitted), Job)
    assert_type(await session.wait(submitted.id, timeout=25), Job)
    assert_type(await session.get("id"), Job)
    assert_type(await session.cancel(submitted), Job)
    assert_type(await session.list(limit=5), list[Job])
    async for job in session.list():
        assert_type(job, Job)
    await session.wait(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - a job or its id


def one_job(job: Job) -> None:
    """What a job has."""
    assert_type(job.ok, bool)
    assert_type(job.status, JobStatus)
    assert_type(job.text, str)
    assert_type(job.reasoning, str | None)
    assert_type(job.sources, list[Source])
    assert_type(job.usage, Usage | None)
    assert_type(job.cost, float | None)
    assert_type(job.error, AiopplxError | None)
    assert_type(job.tag, str | int | None)
    assert_type(job.raw, bytes)
    assert_type(job.result(), Job)
    assert_type(job.parse(Finding), Finding)
    assert_type(job.parse(Finding).year, int)
    job.ok = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - a value


def errors_and_events(error: JobError, event: Event, running: RunningJob) -> None:
    """Facts, typed."""
    assert_type(error.job_id, str)
    assert_type(error.retry_after, float | None)
    assert_type(error.is_in_doubt, bool)
    assert_type(event.kind, EventKind)
    assert_type(Forecast().half, float | None)
    assert_type(event.delay, float)
    assert_type(PollPolicy()(running), float)


async def the_emulator() -> None:
    """A user's own tests."""
    async with Emulator(duration=0.5, seed=7) as server:
        assert_type(server, Emulator)
        assert_type(server.url, str)
        server.faults.add("submit", faults.Drop(after_accept=True), times=2)
        ledger: Ledger = server.ledger
        assert_type(ledger.created, int)
        records: list[JobRecord] = list(ledger.jobs)
        assert_type(records[0].billed, bool)
    async with WireServer([]) as raw:
        assert_type(raw, WireServer)
