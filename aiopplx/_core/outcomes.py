"""The ends of a submission: as a status, as a step of its row, as a job, and as an error that says what to do.

Pure functions. This module knows nothing of what causes an end.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from aiopplx._core.store.reaching import SILENT
from aiopplx._errors import AiopplxError, APIError, BudgetReached, InDoubt, JobError, JobTimeout, ProtocolError
from aiopplx._job import Job, JobStatus, Snapshot
from aiopplx._policy.retry import ends_doubt, is_final_refusal, without_bill
from aiopplx._submission import DOUBTFUL, POLLABLE, Submission
from aiopplx._text.safe import plain
from aiopplx._wire.words import remarks_in, words_in
from aiopplx.journal import _steps as steps
from aiopplx.journal._errors import JournalAway, JournalBroken, JournalError, JournalFull
from aiopplx.journal._jobs import job_of
from aiopplx.journal._records import BILLED, Record, State
from aiopplx.journal._steps import Step

_STATES: Mapping[JobStatus, State] = {
    JobStatus.COMPLETED: State.DONE,
    JobStatus.FAILED: State.FAILED,
    JobStatus.CANCELLED: State.FAILED,
    JobStatus.INCOMPLETE: State.FAILED,
    JobStatus.EXPIRED: State.EXPIRED,
}
_REFUSALS: Mapping[JobStatus, State] = {JobStatus.REJECTED: State.REJECTED, JobStatus.IN_DOUBT: State.IN_DOUBT}


def state_of(job: Job) -> State | None:
    """The state of a row of which this is the outcome; None where that may still change (a time limit, say)."""
    return _REFUSALS.get(job.status, _end_of(job))


def _end_of(job: Job) -> State | None:
    state = _STATES.get(job.status)
    return State.FAILED if state is State.DONE and not job.ok else state


def ending_step(key: str, job: Job) -> Step | None:
    """The row's step for a job that ended; None where that may still change (a time limit, an unreadable answer)."""
    state = _end_of(job)
    if state is None:
        return None
    error = job.error.message if job.error is not None else ""
    return steps.ended(state, key=key, job_id=job.id, word=job.server_status, raw=job.raw, error=error, cost=job.cost)


def refusal_step(key: str, job: Job) -> Step | None:
    """The row's step for a submission that ended without a job; None if it may be sent again as it is."""
    error = job.error
    said = error.message if error is not None else ""
    if job.status is JobStatus.IN_DOUBT:
        return steps.doubtful(key=key, error=said)
    if job.status is JobStatus.REJECTED and is_final_refusal(error):
        return steps.ended(State.REJECTED, key=key, error=said)
    return None


def status_of_refusal(error: AiopplxError, stop: AiopplxError | None) -> JobStatus:
    """The status of a submission that ended without a job. `stop` is the error that stops all submissions, if any."""
    if isinstance(error, InDoubt):
        return JobStatus.IN_DOUBT
    if isinstance(error, (BudgetReached, JournalError)) or (stop is not None and isinstance(error, type(stop))):
        return JobStatus.STOPPED
    return JobStatus.REJECTED


def unwritten_for_now(error: JournalError) -> bool:
    """Whether the same step may succeed later: a full disk may get room, and a store out of reach may come back.

    An outcome that can never be written is handed out without that, or it would wait for ever.
    """
    return isinstance(error, (JournalFull, JournalAway)) or (isinstance(error, JournalBroken) and not error.is_final)


def still_in_doubt(error: AiopplxError) -> AiopplxError:
    """The error of a submission that was in doubt and is not sent again: it stays in doubt, unless `error` settles it.

    Args:
        error: why it is not sent again.
    """
    if isinstance(error, InDoubt) or (isinstance(error, APIError) and ends_doubt(error.status)):
        return error
    why = without_bill(error.message)
    return InDoubt(
        f"an earlier attempt was sent and no usable answer came, and it was not sent again ({why}). A job may exist and"
        " be billed; its id is unknown"
    )


def is_owed(record: Record) -> bool:
    """Whether a job ended and its bill is not known: if it can still be read, it replaces what is reserved."""
    return record.state in BILLED and record.cost is None


def as_stored(sub: Submission, record: Record, raw: bytes | None) -> Job:
    """The job of a submission that ended in an earlier run, from its row and, if it was kept, its result."""
    return msgspec.structs.replace(job_of(record, raw), index=sub.index, attempts=sub.attempts)


def stop_of(job: Job, stop: AiopplxError | None) -> AiopplxError | None:
    """The session-wide error behind a job that is STOPPED. `stop` is the one that stops all submissions, if any."""
    reason = job.error if isinstance(job.error, JournalError) else stop or job.error
    return reason.about() if reason is not None else None


def may_be_billed(job: Job) -> bool:
    """Whether there is, or may be, a job at the service: if nobody has this outcome, somebody is to be told."""
    return bool(job.id) or job.ok or isinstance(job.error, (InDoubt, JobTimeout))


def as_left(sub: Submission) -> Job | None:
    """The job of a submission that is being left; None if it was not sent, or was refused."""
    if sub.job_id and (sub.phase in POLLABLE or sub.phase in DOUBTFUL):
        return sub.as_job(JobStatus.IN_PROGRESS)
    if sub.phase in DOUBTFUL:
        return sub.as_job(
            JobStatus.IN_DOUBT,
            InDoubt(
                "sent, and left before an answer came. A job may exist and be billed; its id is unknown: sending it"
                " again under this same key cannot pay twice where the server honours keys"
            ),
        )
    return None


def heard(snapshot: Snapshot | None) -> Snapshot | None:
    """The snapshot with all that the server says about the job, which is not looked for at each poll."""
    if snapshot is None or snapshot.error_message:
        return snapshot
    said = words_in(snapshot.raw) or remarks_in(snapshot.raw, is_sought=True)
    return msgspec.structs.replace(snapshot, error_message=said)


def timed_out(why: str, snapshot: Snapshot | None) -> JobTimeout:
    """The error of a listener whose time is up, with what the server says about the job beside its status."""
    if snapshot is not None and (said := plain(snapshot.error_message or "")):
        why = f"{why}: {said}"
    return JobTimeout(
        f"still not finished at its time limit ({why}). The job goes on, and is billed, at the service",
        remedy="session.wait(job.id) takes it up again",
    )


def not_kept() -> JobTimeout:
    """The error of a listener whose time is up, of a job that has ended: its outcome was not written down."""
    return JobTimeout(
        "it has ended, and its outcome could not be written to the journal within its time limit. Its answer waits at"
        " the service, and nothing more is billed for it",
        remedy="See what keeps the journal from writing; session.wait(job.id) then collects the answer",
    )


def busy_item() -> JobError:
    """Another call of this session was submitting the same item for the whole time limit."""
    return JobError("timed out waiting for another call that is submitting the same item; this call was not billed")


def silent_store() -> JournalError:
    """The store did not say whether the item is known."""
    return JournalAway(f"not sent, and nothing was billed: {SILENT}")


def unsure() -> JournalError:
    """This session was not sure to be the holder of the row for as long as somebody waited."""
    return JournalAway(
        "not sent: the journal could not be asked for so long that another session may have taken this over;"
        " nothing was billed"
    )


def no_slot() -> JobError:
    """`max_in_flight` jobs were running for the whole time limit."""
    return JobError(
        "not sent: max_in_flight jobs were running for as long as this call's time limit; nothing was billed"
    )


def nobody_waits() -> JobError:
    """All listeners left before it was sent."""
    return JobError("not sent: nobody waits for it any more; nothing was billed")


def two_keys_one_id(job_id: str, other_key: str) -> InDoubt:
    """The server gave one id to two submissions."""
    return InDoubt(
        f"the server gave the id of another submission (key {other_key}) to this one: whether this one made a job, and"
        " which, is unknown. Nothing was overwritten",
        job_id=job_id,
    )


def unexpected(problem: BaseException, *, is_doubtful: bool) -> AiopplxError:
    """A fault in this library, or in a policy of the caller's; or the end of a program that goes on all the same."""
    why = f"submitting failed unexpectedly: {type(problem).__name__}"
    return InDoubt(f"{why}. A job may exist and be billed; its id is unknown") if is_doubtful else ProtocolError(why)
