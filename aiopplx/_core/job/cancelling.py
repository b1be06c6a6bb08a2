"""Asking the server to cancel jobs, where their API can.

This module knows nothing of who asks for it, or of how a job is polled until it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from aiopplx._core.announcing import goes_on
from aiopplx._core.lifecycle import Lifecycle
from aiopplx._errors import AiopplxError
from aiopplx._job import Job
from aiopplx._wire.api import API

CANCEL_SECONDS = 10.0
"""Leaving a batch with `cancel_on_exit` takes no longer than this."""


async def ask_to_cancel(life: Lifecycle, job: Job, api: API, *, awaited: bool) -> None:
    """Ask the server to cancel a job, whose end is waited for here if it is `awaited`.

    Raises `AiopplxError` if the server does not agree.
    """
    await life.client.call(api.cancel(job.id), api.read_cancel)
    life.announcer.cancelling(job, awaited=awaited)


async def cancel_all(life: Lifecycle, jobs: Sequence[Job], ending: set[str]) -> None:
    """Ask the server to cancel the jobs that go on, where their API can, within `CANCEL_SECONDS` in all.

    One whose time limit was reached here goes on, too.

    The id of each job that the server agrees to cancel is added to `ending` at once: time may run out before the last.
    """
    running = [(job, life.routing.api_of(job.id, job.api)) for job in jobs if job.id and goes_on(job)]
    calls = [_try_to_cancel(life, job, api, ending) for job, api in running if api.has_cancel]
    # Not a cancel scope of anyio: it recognises its own cancellation by the message, which `gather` loses if a call
    # ends at the same moment. That would look like a cancellation by the user.
    with contextlib.suppress(TimeoutError):
        async with life.client.clock.timeout(CANCEL_SECONDS):
            await asyncio.gather(*calls)


async def _try_to_cancel(life: Lifecycle, job: Job, api: API, ending: set[str]) -> None:
    try:
        await ask_to_cancel(life, job, api, awaited=False)
    except AiopplxError as error:
        life.announcer.not_cancelled(job, error)
    else:
        ending.add(job.id)
