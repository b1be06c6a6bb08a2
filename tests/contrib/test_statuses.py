"""What the modules for web frameworks share: errors as statuses, and follows that end with the app."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from aiopplx import (
    AiopplxError,
    APIError,
    AuthenticationError,
    BudgetReached,
    ConfigError,
    EndpointRetired,
    InDoubt,
    InvalidRequest,
    Job,
    JobExpired,
    JobFailed,
    JobStatus,
    JobTimeout,
    JournalError,
    NotFound,
    OutOfCredit,
    ProtocolError,
    RateLimited,
    Session,
    TransportError,
)
from aiopplx.contrib._backend import DONE, Follows, is_over, known, said, status_of
from aiopplx.emulator import Emulator
from aiopplx.testing import JumpingClock

STATUSES: dict[type[AiopplxError], int] = {
    InvalidRequest: 422,
    NotFound: 404,
    RateLimited: 503,
    AuthenticationError: 503,
    OutOfCredit: 503,
    EndpointRetired: 503,
    BudgetReached: 503,
    ConfigError: 503,
    TransportError: 502,
    JobFailed: 502,
    InDoubt: 502,
    APIError: 502,
    JournalError: 502,
}


@pytest.mark.parametrize("kind", STATUSES)
def test_error_has_its_status_and_says_no_more(kind: type[AiopplxError], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "aiopplx.contrib")
    error = kind("what only the operator can mend")
    told = said(error)
    assert status_of(error) == STATUSES[kind]
    assert told["error"] == kind.__name__
    if STATUSES[kind] == 503:
        assert told["detail"] == "research is paused"
        assert "what only the operator can mend" in caplog.text, "the operator reads it in the log"
    else:
        assert told["detail"] == error.message
        assert caplog.text == ""


@pytest.mark.parametrize(("status", "told"), [(400, 422), (422, 422), (409, 502), (500, 502), (None, 502)])
def test_refusal_by_the_service_is_the_callers_mistake(status: int | None, told: int) -> None:
    assert status_of(APIError("invalid response id", status=status)) == told


REFUSED = APIError("invalid response id", status=400)
NO_JOB: dict[str, tuple[JobStatus, AiopplxError, int]] = {
    "unknown": (JobStatus.EXPIRED, JobExpired("the server does not know this job", status=404), 404),
    "refused": (JobStatus.UNREADABLE, REFUSED, 422),
}
A_JOB: dict[str, tuple[JobStatus, AiopplxError]] = {
    "never readable": (JobStatus.UNREADABLE, ProtocolError("a page of HTML", status=200)),
    "still running": (JobStatus.TIMED_OUT, JobTimeout("still not finished")),
    "failed": (JobStatus.FAILED, JobFailed("no sources")),
}


@pytest.mark.parametrize("what", NO_JOB)
def test_id_of_no_job_is_an_error(what: str) -> None:
    status, error, told = NO_JOB[what]
    with pytest.raises(APIError) as raised:
        known(Job(id="an-id", status=status, error=error))
    assert status_of(raised.value) == told
    assert said(raised.value)["detail"] == error.message


@pytest.mark.parametrize("what", A_JOB)
def test_job_whatever_became_of_it_is_no_error(what: str) -> None:
    status, error = A_JOB[what]
    job = Job(id="an-id", status=status, error=error)
    assert known(job) is job


async def test_page_asking_while_the_app_stops_hears_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clock = JumpingClock()
    async with (
        Emulator(duration=600.0, answer_chars=200, clock=clock) as server,
        Session("any-key", base_url=server.url, clock=clock) as session,
    ):
        follows = Follows(session)
        job = await session.submit("Why?")
        with follows.reading(session.follow(job)) as follow:
            await anext(follow)
            follows.end()
            follows.end()
            assert [update async for update in follow] == []
        with follows.reading(session.follow(job)) as late:
            assert [update async for update in late] == []
    told = [line.getMessage() for line in caplog.records if line.levelno == logging.WARNING]
    assert told == [f"stopping; 1 job goes on, and is billed, at the service: {job.id}"]


@pytest.mark.parametrize("has_journal", [False, True])
@pytest.mark.parametrize("count", [2, 12])
async def test_ids_are_logged_once_in_a_shutdown(
    count: int, has_journal: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Whoever waits for them: asked for, in a batch, by two at once, followed, waited for, or only submitted."""
    clock = JumpingClock()
    journal = tmp_path / "j.db" if has_journal else None
    async with Emulator(duration=6000.0, answer_chars=200, clock=clock) as server:
        async with Session("any-key", base_url=server.url, clock=clock, journal=journal) as session:
            follows = Follows(session)
            submitted = [await session.submit(f"Submitted {n}?") for n in range(count)]
            asked = [asyncio.create_task(session.ask(f"Asked {n % count}?")) for n in range(count + 1)]
            batches = [session.batch([f"In a batch {n}?" for n in range(count)]) for _ in range(2)]
            for batch in batches:
                await batch.__aenter__()
            waiting = asyncio.create_task(follows.wait(submitted[0]))
            with follows.reading(session.follow(submitted[1])) as follow:
                await anext(follow)
                await server.until(lambda ledger: ledger.created >= 3 * count)
                while len(session.pending) < 2 * count + 2:  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0)
                ids = {job.id for job in session.pending} | {job.id for job in submitted}
                session.log_pending()
                follows.end()
                assert [update async for update in follow] == []
            assert (await waiting).status is JobStatus.TIMED_OUT
            asked[0].cancel()
            await asyncio.wait(asked[:1])
            late = await session.submit("After the signal?")
        for batch in batches:
            await batch.aclose()
        await asyncio.gather(*asked, return_exceptions=True)
    warnings = " ".join(line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING)
    expected = {job.id for job in session.pending} | ids
    if has_journal:  # which has the ids of those that were only submitted
        expected -= {job.id for job in submitted[2:]}
    else:
        expected.add(late.id)
    assert {each: warnings.count(each) for each in expected} == dict.fromkeys(expected, 1)


@pytest.mark.parametrize("status", JobStatus)
def test_browser_is_sent_away_only_after_an_end(status: JobStatus) -> None:
    ours = {JobStatus.TIMED_OUT, JobStatus.STOPPED}
    assert is_over(Job(id="a-job", status=status)) is (status.is_final and status not in ours)
    assert (status.lower() in DONE) is (status.is_final and status not in ours)


async def test_call_that_waits_returns_as_the_app_stops() -> None:
    clock = JumpingClock()
    async with (
        Emulator(duration=600.0, answer_chars=200, clock=clock) as server,
        Session("any-key", base_url=server.url, clock=clock) as session,
    ):
        follows = Follows(session)
        job = await session.submit("Why?")
        waiting = asyncio.create_task(follows.wait(job, timeout=300.0))
        async for _ in session.follow(job):
            break
        follows.end()
        began = clock.now()
        waited, late = await waiting, await follows.wait(job.id, timeout=300.0)
        assert clock.now() - began < 10.0
        assert (waited.id, waited.status) == (late.id, late.status) == (job.id, JobStatus.TIMED_OUT)
        follows = Follows(session)
        assert (await follows.wait(job, timeout=0.5)).status is JobStatus.TIMED_OUT
        assert (await follows.wait(job)).ok
