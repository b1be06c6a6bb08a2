"""A journal's record as the `Job` that users get, decoded from the stored answer by the current version of the library.

Pure functions. This module does not know where a record comes from, nor how it is handled.
"""

from __future__ import annotations

from aiopplx._errors import AiopplxError, APIError, InDoubt, JobExpired, JobFailed, ProtocolError
from aiopplx._job import Job, JobStatus, Snapshot, make_job, outcome_error, took
from aiopplx._wire.call import Reply
from aiopplx.apis._registry import api_named, read_job
from aiopplx.journal._records import Record, State

STATUS_OF = {
    State.QUEUED: JobStatus.STOPPED,
    State.SENDING: JobStatus.IN_DOUBT,
    State.ACCEPTED: JobStatus.IN_PROGRESS,
    State.DONE: JobStatus.UNREADABLE,
    State.FAILED: JobStatus.FAILED,
    State.IN_DOUBT: JobStatus.IN_DOUBT,
    State.EXPIRED: JobStatus.EXPIRED,
    State.REJECTED: JobStatus.REJECTED,
}
"""The status that a user sees for a row in each state, without a stored answer."""


def job_of(record: Record, raw: bytes | None) -> Job:
    """A record as the `Job` that its session delivered: text, sources and cost are decoded from the stored answer.

    Args:
        record: from `JournalReader.rows` or `get`.
        raw: its stored answer, from `JournalReader.result(record.pk)`; None if there is none.
    """
    snapshot: Snapshot | None = None
    error: AiopplxError | None = None
    if raw:
        try:
            snapshot = read_job(api_named(record.api), Reply(200, {}, raw), record.job_id)
            error = outcome_error(snapshot)
        except ProtocolError as problem:
            error = problem
    status = snapshot.status if snapshot is not None else STATUS_OF[record.state]
    if snapshot is None and error is None:
        error = error_of(record)
    return make_job(
        record.job_id,
        status,
        error,
        snapshot,
        api=record.api,
        key=record.key,
        tag=record.tag,
        question=question_in(record),
        meta=record.meta,
        seconds=_seconds(record, snapshot),
    )


def question_in(record: Record) -> str:
    """What a row asks: the last words of the user; `""` if they are not known."""
    return record.question or (api_named(record.api).question_of(record.body) if record.body else "")


def _seconds(record: Record, snapshot: Snapshot | None) -> float | None:
    if record.accepted_at is None or record.ended_at is None or record.state is State.EXPIRED:
        return None
    measured = max(0.0, record.ended_at - record.accepted_at)
    return took(measured, snapshot, has_dates=api_named(record.api).has_dates)


def error_of(record: Record) -> AiopplxError | None:
    """Why a row without a stored answer has no result; None for one that was not sent, or is still running."""
    match record.state:
        case State.FAILED:
            return JobFailed(record.error or f"{record.word or 'FAILED'}, no reason given")
        case State.EXPIRED:
            return JobExpired(record.error or "the server does not know this job any more")
        case State.REJECTED:
            return APIError(record.error or "refused")
        case State.SENDING | State.IN_DOUBT:
            return in_doubt(record)
        case State.DONE:
            return ProtocolError(
                "the stored answer cannot be read; the service may still have it", remedy="session.get(id) asks it"
            )
        case State.QUEUED | State.ACCEPTED:
            return None


def in_doubt(record: Record) -> InDoubt:
    """The error of a submission whose outcome is unknown: what was known of it then, which may name its job."""
    error = InDoubt(
        record.error
        or "sent, and no usable answer came before that run ended. A job may exist and be billed; its id is unknown",
        remedy="session.in_doubt() lists it: resubmit(pay_again=True), adopt(job_id) or drop it",
        idempotency_key=record.key,
        tag=record.tag,
        attempts=record.attempts,
    )
    error.look_in = "journal"
    return error
