"""What the modules for web frameworks share: errors as statuses, and follows that end with the app."""

from __future__ import annotations

import asyncio
import logging

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
    JobFailed,
    JobStatus,
    JournalError,
    NotFound,
    OutOfCredit,
    RateLimited,
    Session,
    TransportError,
)
from aiopplx.contrib._backend import DONE, Follows, is_over, said, status_of
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
    told = [line.getMessage() for line in caplog.records if line.name == "aiopplx.contrib"]
    assert told == [f"the app stops; 1 job goes on, and is billed, at the service: {job.id}"]


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
