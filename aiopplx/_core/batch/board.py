"""How the jobs of one batch stand, for whoever follows it.

The batch's places tell a board what happens to their jobs, and it tells those who follow: an update for each change,
made once for all of them. A follower keeps the latest update of each job that was not read yet, and of too many the
oldest goes. Of a job that has ended only a summary is told: answers are large, and the batch hands them out anyway.
So a follower that hangs costs the batch neither time nor much memory, and a late one is told what happened before.

This module knows nothing of how jobs are submitted or polled, or of who takes them.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from aiopplx._core.job.following import Following, Update, running, updated
from aiopplx._job import Job, JobStatus, Snapshot
from aiopplx._submission import POLLABLE, Listener

KEPT = 1000
"""Jobs that ended last, and are told to a follower that comes later."""


class Standing(Listener, eq=False, kw_only=True):
    """A listener that shows on a board how its job stands.

    Attributes:
        latest: the last update that was told; None if none was.
    """

    latest: Update | None = None


class Board:
    """How the jobs of one batch stand.

    Args:
        news: set when whoever reads should look again.

    Attributes:
        untold: how many jobs ended in an earlier run, and are known once they are read back.
    """

    def __init__(self, news: asyncio.Event) -> None:
        self.untold = 0
        self._news = news
        self._ended: deque[Job] = deque(maxlen=KEPT)
        self._dropped = 0
        # Weak: one that its reader dropped in the midst is read by nobody any more.
        self._followers: weakref.WeakSet[BatchFollow] | None = None

    def follow(self, out: Iterable[Standing], limit: int, is_over: Callable[[], bool], now: float) -> BatchFollow:
        """A new follower, which is told how each job stands, and what comes.

        Args:
            out: the jobs that have not ended.
            limit: updates that are kept for it.
            is_over: whether nothing more will be told.
            now: monotonic seconds.
        """
        if self._followers is None:
            self._followers = weakref.WeakSet()
        follow = BatchFollow(self._news, limit, is_over, self._followers.discard)
        is_first = not self._followers
        self._followers.add(follow)
        follow.missed = self._dropped
        for job in self._ended:
            follow.put(updated(job, job.seconds))
        for place in out:
            if is_first:
                place.latest = None  # nobody followed, so that it may be old
            if place.latest is not None:
                follow.put(place.latest)
            elif place.sub.phase in POLLABLE:
                self._tell(place, JobStatus.IN_PROGRESS, None, now)
        return follow

    @property
    def is_followed(self) -> bool:
        """Whether an update would be read by anybody; if not, it need not be made."""
        return bool(self._followers)

    def stands(self, place: Standing, snapshot: Snapshot, now: float) -> None:
        """Its job runs, as an answer of the server says."""
        self._tell(place, running(snapshot.status), snapshot, now)

    def ended(self, place: Standing, job: Job) -> None:
        """Its job ended."""
        place.latest = None
        self._dropped += len(self._ended) == KEPT
        summary = msgspec.structs.replace(job, response=None, raw=b"", question="", meta={})
        self._ended.append(summary)
        if self._followers:
            self._put(updated(summary, summary.seconds))

    def _tell(self, place: Standing, status: JobStatus, snapshot: Snapshot | None, now: float) -> None:
        if status is JobStatus.CREATED and place.latest is not None:
            return  # told to be running, as a late follower is told before the next poll: no news
        polls = place.sub.polls
        seconds = now - polls.since if polls is not None and polls.has_age else None
        update = updated(place.named(place.sub.as_job(status, None, snapshot)), seconds)
        if place.latest is None or place.latest.id != update.id:
            # Kept as long as the job runs: what it has found is in the response, and the whole answer is for nobody.
            update = msgspec.structs.replace(update, job=msgspec.structs.replace(update.job, raw=b""))
            place.latest = update
            self._put(update)

    def _put(self, update: Update) -> None:
        for follow in self._followers or ():
            follow.put(update)
        self._news.set()


class BatchFollow(Following):
    """The updates of the jobs of one batch: `async for update in batch.follow(): ...`; see `Batch.follow`.

    It is for one reader; others call `Batch.follow` themselves.

    Attributes:
        missed: how many updates were dropped so far, because the reader was too slow or came too late.
    """

    def __init__(
        self,
        news: asyncio.Event,
        limit: int,
        is_over: Callable[[], bool],
        on_close: Callable[[BatchFollow], object],
    ) -> None:
        self.missed: int = 0
        self._news = news
        self._limit = limit
        self._is_over = is_over
        self._on_close = on_close
        self._is_closed = False
        self._updates: dict[int | None, Update] = {}  # by the index of the job, the one that waits longest first

    async def __anext__(self) -> Update:
        """The next update. Whoever is cancelled here has lost none, and may ask again."""
        while not self._updates:
            if self._is_closed or self._is_over():
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._updates.pop(next(iter(self._updates)))

    def close(self) -> None:
        """End it, from another task too: whoever reads it gets no further update."""
        self._is_closed = True
        self._updates.clear()
        self._on_close(self)
        self._news.set()

    def put(self, update: Update) -> None:
        """A job stands like this now."""
        updates = self._updates
        updates[update.job.index] = update
        if len(updates) > self._limit:
            del updates[next(iter(updates))]
            self.missed += 1
