"""What a user sees of a journal's record in each of its states."""

from __future__ import annotations

import pytest

from aiopplx import JobStatus
from aiopplx.journal import Record, State, job_of

FAILED = b'{"id":"id","model":"sonar-deep-research","created_at":1,"status":"FAILED","error_message":"no luck"}'


def record(state: State, **more: object) -> Record:
    known = {"pk": 1, "item": "tag:1", "tag": 1, "key": "k", "body": b"", "sha": b"", "api": "sonar", "job_id": "id"}
    return Record(state=state, **{**known, **more})  # type: ignore[arg-type]  # named at each call


STATUS = {
    State.QUEUED: (JobStatus.STOPPED, "NoneType"),
    State.SENDING: (JobStatus.IN_DOUBT, "InDoubt"),
    State.ACCEPTED: (JobStatus.IN_PROGRESS, "NoneType"),
    State.DONE: (JobStatus.UNREADABLE, "ProtocolError"),
    State.FAILED: (JobStatus.FAILED, "JobFailed"),
    State.IN_DOUBT: (JobStatus.IN_DOUBT, "InDoubt"),
    State.EXPIRED: (JobStatus.EXPIRED, "JobExpired"),
    State.REJECTED: (JobStatus.REJECTED, "APIError"),
}


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_row_without_an_answer_becomes_a_bare_job(state: State) -> None:
    job = job_of(record(state), None)
    assert (job.status, type(job.error).__name__) == STATUS[state]
    assert (job.id, job.idempotency_key, job.tag, job.api) == ("id", "k", 1, "sonar")


def test_stored_answer_is_read_anew() -> None:
    job = job_of(record(State.FAILED, error="as it was told then"), FAILED)
    assert (job.status, job.model, job.raw) == (JobStatus.FAILED, "sonar-deep-research", FAILED)
    assert job.error is not None
    assert job.error.message == "no luck"


def test_answer_that_cannot_be_read_says_so() -> None:
    job = job_of(record(State.DONE), b"<html>")
    assert job.status is JobStatus.UNREADABLE
    assert job.error is not None


@pytest.mark.parametrize("api", ["agent", "of a later version"])
def test_record_of_any_api_is_a_job(api: str) -> None:
    assert job_of(record(State.ACCEPTED, api=api), None).api == api


def test_doubt_says_how_often_it_was_sent() -> None:
    job = job_of(record(State.IN_DOUBT, attempts=3, job_id=""), None)
    assert job.error is not None
    assert (job.error.attempts, job.error.is_in_doubt) == (3, True)
