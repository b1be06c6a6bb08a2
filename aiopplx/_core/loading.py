"""Reads back what the store has of a job that ended. This module knows nothing of how rows are written."""

from __future__ import annotations

import logging

from aiopplx._core.lifecycle import Lifecycle
from aiopplx._core.outcomes import as_stored
from aiopplx._events import log
from aiopplx._job import Job
from aiopplx._submission import Phase, Submission
from aiopplx.journal._errors import ResultDamaged
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Record


async def load(life: Lifecycle, sub: Submission) -> Job:
    """A job that an earlier run stored, or this one to save memory. Raises `JournalError`."""
    record = await life.store.get(pk=sub.row)
    assert record is not None, "rows are not removed while a session holds them"  # noqa: S101 - for mypy
    job = as_stored(sub, record, await stored_result(life.store, record))
    if sub.phase is Phase.STORED and not life.store.shares:  # in a shared one its holder has told it
        life.announcer.end_of(job)
    return job


async def stored_result(store: Journal, record: Record) -> bytes | None:
    """The stored body of a row; None if there is none, or none that can be read back. Raises `JournalError`."""
    try:
        return await store.result(record.pk)
    except ResultDamaged as error:
        log(logging.WARNING, "%s", error)
        return None
