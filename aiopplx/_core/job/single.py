"""One job, by its id: its status, and its cancellation.

A job that is live in this session is running as far as anybody knows, and the poller polls it: it is not polled
a second time here. This module knows nothing of sessions, of batches, or of how an id is read.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from aiopplx._core.calls import Calls, Wanted, closed_error
from aiopplx._core.job.cancelling import ask_to_cancel
from aiopplx._core.lifecycle import Lifecycle
from aiopplx._core.loading import stored_result
from aiopplx._errors import APIError
from aiopplx._job import Job, JobStatus, make_job, outcome_error
from aiopplx._submission import Phase
from aiopplx._wire.api import API
from aiopplx._wire.call import NO_ENDPOINT
from aiopplx.apis._registry import read_job
from aiopplx.journal._errors import JournalError
from aiopplx.journal._jobs import job_of, question_in
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Record

T = TypeVar("T")

CANCEL_TAKES = 3.0
"""Seconds after an accepted cancel at which the job is polled: polls go on to say `in_progress` for a moment."""


async def get(life: Lifecycle, api: API, job_id: str) -> Job:
    """The job from the store if that has its result, else from one poll. An end that the poll finds is written down.

    Raises:
        NotFound: the server knows no such job.
        JournalError: the store cannot be read; `JournalAway`: it has not answered within `RetryPolicy.call_seconds`.
        AiopplxError: no usable answer within the bounds of the `RetryPolicy`.
    """
    record, raw = await _looked_up(life, job_id, _with_result(life.store, job_id))
    if record is not None:
        if raw:
            return job_of(record, raw)
        api = life.routing.named(record.api)
    snapshot = await life.client.call(api.get(job_id), lambda reply: read_job(api, reply, job_id))
    if record is not None and snapshot.status.is_final and not snapshot.is_empty:
        await life.learn(api, record, snapshot)
    if snapshot.status.is_final:
        life.announcer.left_jobs.is_over(job_id)
    error = outcome_error(snapshot)
    if record is None:
        return make_job(job_id, snapshot.status, error, snapshot, api=api.name)
    return make_job(
        job_id,
        snapshot.status,
        error,
        snapshot,
        api=api.name,
        key=record.key,
        tag=record.tag,
        question=question_in(record),
        meta=record.meta,
    )


async def cancel(calls: Calls, api: API, job_id: str, *, seconds: float) -> Job:
    """Ask the server to cancel a job, and wait until it has ended.

    Args:
        calls: of the session.
        api: the job's.
        job_id: the server's id.
        seconds: for which the end of the job is waited for once the server has agreed.

    Returns:
        The job as it ended, whatever it ended as; `TIMED_OUT` if it still ran then.

    Raises:
        InvalidRequest: the API cannot cancel jobs, or this is not a job id. Nothing was sent.
        NotFound: the server knows no such job.
        ConfigError: the session was closed meanwhile.
        JournalError: the store cannot be read, as for `get`.
        AiopplxError: it was not cancelled.
    """
    life = calls.life
    api.cancel(job_id)  # refuses what cannot be cancelled, before anything is asked
    live = life.live.by_id.get(job_id)
    is_asked = live is None and life.store.shares
    record = await _looked_up(life, job_id, life.store.get(job_id=job_id)) if is_asked else None
    if live is not None and live.phase is Phase.RUNNING:
        found = live.as_job(JobStatus.IN_PROGRESS)
    elif record is not None and record.is_held:
        found = job_of(record, None)  # the session that holds it polls it, and it runs as far as that one knows
    else:
        # The server says "already terminal" of finished and of unknown ids alike, so poll before asking.
        found = await get(life, api, job_id)
        if found.done:
            return found
    try:
        await ask_to_cancel(life, found, api, awaited=True)
    except APIError as error:
        # It has ended, perhaps: a poll tells. This is rare, and whoever waits for the job hears of it from the poller.
        found = await get(life, api, job_id)
        if not found.done:
            raise _not_cancelled(error, job_id) from None
        return found
    await life.client.clock.sleep(CANCEL_TAKES)
    if calls.is_closed:
        raise closed_error()
    return await calls.wait(Wanted(api, job_id, found.idempotency_key, found.tag), seconds=seconds, is_due=True)


async def _looked_up(life: Lifecycle, job_id: str, call: Awaitable[T]) -> T:
    """What the store answers about a job, within the bound of a single call. Raises `JournalError`, with the id."""
    try:
        return await life.reach.within(call, life.client.policy.call_seconds)
    except JournalError as error:
        raise error.about(job_id=job_id) from None


async def _with_result(store: Journal, job_id: str) -> tuple[Record | None, bytes | None]:
    record = await store.get(job_id=job_id)
    return record, await stored_result(store, record) if record is not None and record.has_result else None


def _not_cancelled(error: APIError, job_id: str) -> APIError:
    """Why a job goes on that was to be cancelled: a poll has just found it, so it is known to the server."""
    if error.status not in NO_ENDPOINT:
        return error.about(job_id=job_id)
    return APIError(
        f"not cancelled: the server has this job, and no endpoint to cancel it. It goes on and is billed"
        f" ({error.message})",
        job_id=job_id,
        status=error.status,
        type=error.type,
        request_id=error.request_id,
    )
