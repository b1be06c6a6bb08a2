"""Callers who wait for single jobs: any number of them for one job, one poll for all.

This module knows nothing of how a job is looked at, or of batches.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from aiopplx._core.poller import Poller
from aiopplx._core.watch import Watch
from aiopplx._errors import AiopplxError
from aiopplx._http.clock import Clock
from aiopplx._job import Job
from aiopplx._wire.api import API


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

    async def wait(self, clock: Clock, seconds: float | None) -> Job | None:
        """The job once it has ended; None if that takes longer than `seconds`."""
        future: asyncio.Future[Job | AiopplxError] = asyncio.get_running_loop().create_future()
        self._futures.add(future)
        try:
            await clock.wait_all([future], seconds)
        finally:
            self._futures.discard(future)
        if not future.done():
            return None
        outcome = future.result()
        if isinstance(outcome, AiopplxError):
            raise outcome
        return outcome


class Waiting:
    """Everybody who waits for a job by its id: one watch for each job, shared by all of them.

    Args:
        poller: looks at the jobs.
        clock: what `seconds` are told by.
        waiters: where each waiter stands while it waits, so that a session that ends or stops can tell it.
    """

    def __init__(self, poller: Poller, clock: Clock, waiters: set[Waiter]) -> None:
        self._poller = poller
        self._clock = clock
        self._waiters = waiters
        self._by_job: dict[tuple[str, bool], Waiter] = {}

    async def wait(self, api: API, job_id: str, seconds: float) -> Job:
        """The job once it has ended, or what it is after `seconds`."""
        job = await self._wait(api, job_id, seconds, last=False)
        if job is None:
            # The time is up: one more look decides what the job is. Whoever has longer goes on waiting.
            job = await self._wait(api, job_id, None, last=True)
        assert job is not None, "without a time limit there is always a job"  # noqa: S101 - told to the type checker
        return job

    async def _wait(self, api: API, job_id: str, seconds: float | None, *, last: bool) -> Job | None:
        name = (job_id, last)
        waiter = self._by_job.get(name) or self._start(api, name)
        try:
            return await waiter.wait(self._clock, seconds)
        finally:
            if waiter.deserted and waiter in self._waiters and waiter.watch is not None:
                self._forget(waiter, name)
                self._poller.drop([waiter.watch])

    def _start(self, api: API, name: tuple[str, bool]) -> Waiter:
        waiter = Waiter(lambda one: self._forget(one, name))
        now = self._clock.now()
        job_id, last = name
        deadline = now if last else math.inf
        watch = Watch(waiter, api, job_id, api.get(job_id), None, accepted_at=now, deadline=deadline, fresh=False)
        waiter.watch = watch
        self._by_job[name] = waiter
        self._waiters.add(waiter)
        self._poller.watch(watch)
        self._poller.look_now(watch)
        return waiter

    def _forget(self, waiter: Waiter, name: tuple[str, bool]) -> None:
        if self._by_job.get(name) is waiter:
            del self._by_job[name]
        self._waiters.discard(waiter)
