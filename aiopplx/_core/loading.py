"""Reads back what the store has of a job that ended. This module knows nothing of how rows are written."""

from __future__ import annotations

import logging

from aiopplx._core.lifecycle import Lifecycle
from aiopplx._core.outcomes import as_stored
from aiopplx._events import log
from aiopplx._job import Job, JobStatus
from aiopplx._submission import Listener, Phase, Submission
from aiopplx.journal._errors import JournalError, ResultDamaged, removed
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Record

AGAIN = 2.0
"""Seconds after which a row is read again that was over, and is not any more."""


async def load(life: Lifecycle, listener: Listener) -> Job:
    """A job that an earlier run stored, or this one to save memory, under its listener's own names.

    One that is over has no holder, so its row may have been removed since (`keep_for`): it is UNREADABLE then, and the
    service may still have it. And a replica that took the store's place may not have heard of its end: another session
    collects the job again.

    Raises:
        JournalError: it cannot be read, or not within the listener's time limit. It is there, for the next run.
    """
    sub, clock = listener.sub, life.client.clock
    until = min(listener.deadline, clock.now() + sub.timeout)
    try:
        found = await life.reach.answer(_stored(life.store, sub), listener.deadline)
        while life.store.shares and found is not None and not found[0].state.is_final and clock.now() < until:
            await clock.sleep(AGAIN)
            found = await life.reach.answer(_stored(life.store, sub), listener.deadline)
    except JournalError as error:
        raise error.about(job_id=sub.job_id, idempotency_key=sub.key, tag=listener.tag) from None
    if found is None:
        return listener.named(sub.as_job(JobStatus.UNREADABLE, removed()))
    job = as_stored(sub, *found)
    if sub.phase is Phase.STORED:
        life.announcer.end_of(job, is_told=True)
    return listener.named(job)


async def _stored(store: Journal, sub: Submission) -> tuple[Record, bytes | None] | None:
    record = await store.get(pk=sub.row)
    return (record, await stored_result(store, record)) if record is not None else None


async def stored_result(store: Journal, record: Record) -> bytes | None:
    """The stored body of a row; None if there is none, or none that can be read back. Raises `JournalError`."""
    try:
        return await store.result(record.pk)
    except ResultDamaged as error:
        log(logging.WARNING, "%s", error)
        return None
