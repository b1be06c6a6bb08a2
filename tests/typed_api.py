"""What the type checkers say of the public surface: read by pyright and mypy in strict mode, never run.

Each `assert_type` is what an editor shows a user. Each line with an ignore must be an error: both checkers refuse an
ignore that ignores nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Unpack, assert_type

import aiohttp
import msgspec

from aiopplx import (
    AgentRequest,
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
    ResearchFields,
    ResearchRequest,
    RetryPolicy,
    RunningJob,
    Session,
    Source,
    Usage,
)
from aiopplx.agent import JobFile
from aiopplx.emulator import Emulator, JobRecord, Ledger, WireServer, faults
from aiopplx.progress import BatchFollow, EventStream, Follow, Forecast, SessionStats, Update
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
    async with session.batch(["a question"]) as jobs:
        assert_type(jobs.follow(limit=10), BatchFollow)
        async for update in jobs.follow():
            assert_type(update, Update)
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
    Session(results="keep")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - it lives in JournalOptions
    Session(poll=lambda job: 2.0 if job.age > 200 else 20.0)
    Session(rpm="60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - a number
    Session("key", "https://example.org")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - by keyword only


async def batches(session: Session, lazy: Iterator[str], later: AsyncIterator[ResearchRequest]) -> None:
    """Sources of every kind, and jobs out of all of them."""
    async with session.batch(["one", "two"]) as jobs:
        assert_type(jobs, Batch[None])
        async for job in jobs:
            assert_type(job, Job[None])
    assert_type(session.batch(lazy, ordered=True, timeout=60, max_in_flight=5), Batch[None])
    assert_type(session.batch(later), Batch)
    assert_type(session.batch([{"question": "one", "tag": 1}, {"question": "two", "reasoning_effort": "low"}]), Batch)
    session.batch([1, 2])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue] - numbers


async def tags_keep_their_type(
    session: Session, known: Job[int], bare: Job, item: ResearchRequest, any_of_them: str | ResearchRequest[int]
) -> None:
    """What a caller gave as a tag comes back as that, on jobs of every kind of call."""
    async with session.batch([ResearchRequest("one", tag="first")], ordered=True) as jobs:
        assert_type(jobs, Batch[str])
        assert_type(jobs.pending, list[Job[str]])
        async for job in jobs:
            assert_type(job, Job[str])
            assert_type(job.tag, str)
            assert_type(job.result().tag, str)
    assert_type(session.batch(AgentRequest(str(n), tag=n) for n in range(9)), Batch[int])
    assert_type(session.batch(["one", item, {"question": "two"}]), Batch)
    assert_type(await session.ask("why?", tag=5), Job[int])
    assert_type(await session.ask("why?"), Job[None])
    assert_type(await session.ask({"question": "why?", "tag": 5}), Job)
    assert_type(await session.ask({"question": "why?"}, tag=5, search_mode="web"), Job[int])
    assert_type(await session.ask(ResearchRequest("why?", tag="a"), timeout=5), Job[str])
    assert_type(await session.ask(ResearchRequest("why?", tag="a"), tag=5), Job[int])
    assert_type(await session.ask(item), Job)
    whatever: Job = await session.ask(any_of_them)
    assert_type(await session.submit("why?", tag=5, timeout=60), Job[int])
    assert_type(await session.submit(item), Job)
    assert_type(await session.wait(known), Job)  # under the tag of whoever submitted it
    assert_type(bare.tag, str | int | None)
    wide: Job = known
    narrow: Job[int] = bare  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - it may have any tag
    some: Batch = session.batch([ResearchRequest("one", tag="first")])
    Job[float]  # type: ignore[type-var]  # pyright: ignore[reportInvalidTypeArguments] - text or a whole number
    del whatever, wide, narrow, some


async def keywords_are_known(session: Session, item: ResearchRequest) -> None:
    """A misspelt field, or a value that it cannot have, is an error before anything runs."""
    await session.ask("why?", temperature=0.2, search_domain_filter=["example.com"], extra={"new": 1}, meta={"row": 7})
    await session.submit("why?", reasoning_effort="low", response_format=Finding, max_tokens=None)
    await session.ask("why?", reasoning_efort="high")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await session.submit("why?", modle="sonar")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await session.ask("why?", reasoning_effort="hi")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await session.submit("why?", max_tokens="9")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await session.ask("why?", tag=1.5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await passed_on(session, search_mode="sec")


async def passed_on(session: Session, **fields: Unpack[ResearchFields]) -> Job:
    """A function of a user's own that takes the same keywords."""
    return await session.ask("why?", **fields)


async def single_jobs(session: Session) -> None:
    """A web backend's calls."""
    assert_type(await session.ask("why?", tag="a", timeout=5, reasoning_effort="high"), Job[str])
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
