"""Following a job: what is known of it now, then each change, to its end.

A follower is a late listener, like a call of `wait`, and has no slot of `max_in_flight`. It keeps only the latest
update that was not read: an update says how the job stands, not what is new, so a slow reader misses nothing that still
matters, and costs the memory of one update. Following hurries nothing: the job is polled when it would have been polled
anyway.

This module knows nothing of how updates reach a browser.
"""

from __future__ import annotations

import asyncio
import types
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Self

import msgspec

from aiopplx._core.calls import Caller, Calls, Wanted
from aiopplx._core.loading import load
from aiopplx._errors import AiopplxError
from aiopplx._job import Job, JobStatus, Snapshot


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """How a job stands at one moment, from `Session.follow`.

    Attributes:
        job: the job. While it runs, `job.queries` and `job.sources` have what it has searched for and found so far,
            where the API tells (the Agent API); when it has ended, the job has its result or its error.
        seconds: since the server accepted it; None if nobody knows. Of a job that has ended, how long it took.
        id: changes whenever the update says something new, and is the same in every process: for the `id:` of a
            server-sent event, which comes back as `Last-Event-ID` (`follow(after=)`).
    """

    job: Job
    seconds: float | None
    id: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values: those of `Job.to_dict`, with `seconds` so far, `queries`, and `done`."""
        job = self.job
        return {**job.to_dict(), "seconds": self.seconds, "queries": job.queries, "eta": job.eta, "done": job.done}


def updated(job: Job, seconds: float | None) -> Update:
    """The update that says how a job stands."""
    found = "" if job.done or job.response is None else f"-{len(job.queries)}-{len(job.sources)}"
    return Update(job=job, seconds=seconds, id=f"{job.status.lower()}{found}")


def running(status: JobStatus) -> JobStatus:
    """How a job stands that is polled on: one that the server calls finished, without an answer, may still get it."""
    return JobStatus.IN_PROGRESS if status.is_final else status


_LIMITS = frozenset(status.value.lower() for status in (JobStatus.TIMED_OUT, JobStatus.STOPPED))
"""Ids of updates that told the end of somebody's waiting, and none of the job: whoever had one is told anew."""


class Follower(Caller, eq=False, kw_only=True):
    """The listener of a `Follow`.

    Attributes:
        now: the session's monotonic clock.
        read: the id of the last update that the reader had; `""` if it had none.
        latest: how the job stands, as far as this follower knows.
        news: set when the reader should look again.
    """

    now: Callable[[], float]
    read: str = ""
    is_bulk: bool = True
    latest: Update | None = None
    news: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def polled(self, snapshot: Snapshot | None) -> None:
        """See `Listener`."""
        if snapshot is not None:
            self.tell(self.named(self.sub.as_job(running(snapshot.status), None, snapshot)))

    def begin(self) -> None:
        """How the job stands, before its next poll: what others who follow it know, or the little that is sure."""
        sub = self.sub
        for other in sub.listeners:
            if isinstance(other, Follower) and other.latest is not None:
                self.tell(self.named(other.latest.job))
                return
        if not self.read:
            self.tell(self.named(sub.as_job(JobStatus.IN_PROGRESS)))

    def tell(self, job: Job) -> None:
        """The job stands like this now."""
        if job.status is JobStatus.CREATED and (self.read or self.latest is not None):
            return  # told to be running, as whoever begins to follow is told before the first poll: no news
        polls = self.sub.polls
        self.latest = updated(job, self.now() - polls.since if polls is not None and polls.has_age else None)
        if self.latest.id != self.read:
            self.news.set()

    def deliver(self, job: Job | None) -> None:
        """See `Listener`."""
        Caller.deliver(self, job)
        self.news.set()

    def fail(self, error: AiopplxError) -> None:
        """See `Caller`."""
        Caller.fail(self, error)
        self.news.set()


class Following(AsyncIterator[Update]):
    """Updates for one reader. An async context manager for those who want to end it at a certain moment."""

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: types.TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End it, from another task too: whoever reads it gets no further update. Jobs go on."""


class Follow(Following):
    """The updates of one job: `async for update in session.follow(job): ...`.

    The first says how the job stands now; the last has its outcome. The iterator ends after that. It also ends, without
    an outcome, when the session is closed: the job goes on at the service, and another session can follow it.

    Leaving the loop early ends it too. It is an async context manager for those who want that at a certain moment.
    """

    def __init__(self, calls: Calls, wanted: Wanted | Job, *, seconds: float, after: str) -> None:
        self._calls = calls
        self._wanted = wanted
        self._seconds = seconds
        self._after = "" if after in _LIMITS else after
        self._follower: Follower | None = None
        self._is_over = False
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """End it, from another task too: whoever reads it gets no further update. The job goes on."""
        follower = self._follower
        self._let_go()
        if follower is not None:
            follower.news.set()

    async def __anext__(self) -> Update:
        """The next update. Raises `AiopplxError` if the journal cannot be read."""
        if self._is_over:
            raise StopAsyncIteration
        try:
            update = await self._next()
        except BaseException:
            self._let_go()  # as an async generator would: whoever is cancelled here does not come back
            raise
        if update is None or update.job.done:
            self._let_go()
        # Told before, to the same reader at another server or in another process.
        if update is None or (update.job.done and update.id == self._after):
            raise StopAsyncIteration
        return update

    async def _next(self) -> Update | None:
        """None if the session was closed, or this iterator."""
        follower = self._follower
        if follower is None:
            reached = await self._reach()
            if isinstance(reached, Job):
                return updated(reached, reached.seconds)
            self._follower = follower = reached
            if self._is_over:
                return None  # it was closed while the journal was asked
            follower.begin()
        while not follower.served.done():
            if self._is_over:
                return None
            update = follower.latest
            if update is not None and update.id != follower.read:
                follower.read = update.id
                return update
            follower.news.clear()
            await follower.news.wait()
        outcome = follower.served.result()
        if isinstance(outcome, AiopplxError):
            return None
        job = outcome or await load(self._calls.life, follower)
        return updated(job, job.seconds)

    async def _reach(self) -> Follower | Job:
        if isinstance(self._wanted, Job):
            return self._wanted
        make = partial(Follower, now=self._calls.now, read=self._after)
        return await self._calls.reach(self._wanted, make, seconds=self._seconds)

    def _let_go(self) -> None:
        self._is_over = True
        follower, self._follower = self._follower, None
        if follower is not None:
            self._calls.forget(follower)

    def __del__(self) -> None:
        # Dropped in the midst of the loop. The job must not be polled for ever on its behalf.
        follower = self._follower
        if follower is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._calls.forget, follower)
