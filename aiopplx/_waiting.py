"""Room: callers who wait for single jobs: any number of them for one job, one poll for all.

This module knows nothing of how a job is looked at, or of batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiopplx._errors import AiopplxError
from aiopplx._job import Job
from aiopplx._poller import Watch


class Waiter:
    """The sink of one job that callers wait for. There is always room: each caller takes one result."""

    def __init__(self, forget: Callable[[Waiter], None]) -> None:
        self.watch: Watch | None = None
        self._forget = forget
        self._futures: set[asyncio.Future[Job | AiopplxError]] = set()

    def may_look(self, watch: Watch) -> bool:
        """Always."""
        return True

    def looked(self, watch: Watch) -> None:
        """Nothing to account for."""

    def done(self, watch: Watch, job: Job) -> None:
        """Wake every caller."""
        self._forget(self)
        for future in self._futures:
            if not future.done():
                future.set_result(job)

    def fail(self, error: AiopplxError) -> None:
        """Every caller gets a copy of this, with the names of the job on it."""
        watch = self.watch
        sub = watch.sub if watch is not None else None
        job_id = watch.job_id if watch is not None else ""
        key, tag = (sub.key, sub.tag) if sub is not None else ("", None)
        for future in self._futures:
            if not future.done():
                # As a value: an exception in the future of a caller who is gone by then would be one never retrieved.
                future.set_result(error.about(job_id=job_id, idempotency_key=key, tag=tag))

    @property
    def deserted(self) -> bool:
        """True if nobody waits any more."""
        return not self._futures

    async def wait(self, seconds: float | None) -> Job | None:
        """The job once it has ended; None if that takes longer than `seconds` (real ones)."""
        future: asyncio.Future[Job | AiopplxError] = asyncio.get_running_loop().create_future()
        self._futures.add(future)
        try:
            await asyncio.wait([future], timeout=seconds)
        finally:
            self._futures.discard(future)
        if not future.done():
            return None
        outcome = future.result()
        if isinstance(outcome, AiopplxError):
            raise outcome
        return outcome
