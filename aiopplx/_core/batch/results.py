"""What a batch hands out: a place for each item, and a bound on the outcomes that wait in memory for the consumer.

A result is tens of kilobytes, and a consumer may be slower than the service. So a job is polled only while there is
room for its outcome: `READY` of them, counting those whose poll is out. Beyond that a place is parked, its job not
polled, and the result waits at the server. If results are handed out in the order of the source, the next one in that
order always has room: the others wait for it. Where the store keeps results nothing is parked: a result that does not
fit in memory is read back when it is handed out.

What happens to the jobs is shown on a board, for whoever follows the batch. This module knows nothing of sources, of
submitting, or of what a poll is.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable

from aiopplx._core.batch.board import BatchFollow, Board, Standing
from aiopplx._job import Job, Snapshot
from aiopplx._submission import Phase, Submission

READY = 40
"""Outcomes held in memory for a consumer that is slower than the service. There are fewer polls at once than this:
otherwise a poll that ends would find no room for the next job until the consumer has had its turn."""


class Place(Standing, eq=False, kw_only=True):
    """The place of one item in its batch: it listens for the item's job, and holds it until it is handed out.

    Attributes:
        results: its batch's.
        job: the outcome; None before it is there, and where the store has it.
        is_parked: its job is not polled until there is room.
        is_kept: the outcome of the current poll goes into the store, and can be read back from there. False for a
            result that is fetched again because the store does not have it: it is not written a second time.
    """

    results: Results
    job: Job | None = None
    is_parked: bool = False
    is_kept: bool = False

    def has_room(self) -> bool:
        """See `Listener`."""
        return self.results.has_room(self)

    def polled(self, snapshot: Snapshot | None) -> None:
        """See `Listener`."""
        self.results.polled(self)
        if snapshot is not None:
            self.results.stands(self, snapshot)

    def accepted(self, snapshot: Snapshot) -> None:
        """See `Listener`."""
        self.results.stands(self, snapshot)

    def deliver(self, job: Job | None) -> None:
        """See `Listener`."""
        self.results.deliver(self, job)


class Results:
    """The places of one batch.

    Args:
        ordered: hand out in the order of the source; else in the order in which outcomes come.
        is_stored: the store can read results back.
        unpark: has a job polled again.
        now: the session's monotonic clock.
        is_bulk: those who wait for a single job go first.

    Attributes:
        out: places whose outcome is awaited.
        news: set whenever a consumer should look again.
        placed: how many places there are, one for each item that was read.
        handed_out: how many of them the consumer has had.
    """

    def __init__(
        self,
        *,
        ordered: bool,
        is_stored: bool,
        unpark: Callable[[Submission], None],
        now: Callable[[], float],
        is_bulk: bool = True,
    ) -> None:
        self.out: dict[Place, None] = {}
        self.news = asyncio.Event()
        self.placed = 0
        self.handed_out = 0
        self._ordered = ordered
        self._is_stored = is_stored
        self._board = Board(self.news)
        self._unpark = unpark
        self._now = now
        self._is_bulk = is_bulk
        self._ready: deque[Place] = deque()
        self._ready_by_index: dict[int, Place] = {}
        self._polled: set[Place] = set()
        self._parked: list[tuple[int, Place]] = []  # the next in order first, or the one that was parked first
        self._times_parked = 0

    def place(self, sub: Submission, index: int) -> Place:
        """A new place, for the outcome of this submission."""
        request = sub.request
        if request is None:  # refused before there was one
            place = Place(sub=sub, tag=sub.tag, index=index, takes_slot=True, is_bulk=self._is_bulk, results=self)
        else:
            place = Place(
                sub=sub,
                tag=sub.tag,
                index=index,
                takes_slot=True,
                is_bulk=self._is_bulk,
                asked=request.asked,
                meta=request.meta,
                results=self,
            )
        self.out[place] = None
        self.placed += 1
        return place

    # --- what comes in -----------------------------------------------------------------------------------------------

    def has_room(self, place: Place) -> bool:
        """Whether there is room for one more outcome. If so, it is reserved; if not, the place is parked."""
        if self._is_stored:
            place.is_kept = place.sub.phase is Phase.RUNNING and place.sub.claim is not None
            if place.is_kept:
                return True
        polled = self._polled
        is_free = len(self._ready) + len(self._ready_by_index) + len(polled) < READY
        if is_free or place in polled or (self._ordered and place.index == self.handed_out):
            polled.add(place)
            return True
        if not place.is_parked:
            place.is_parked = True
            self._times_parked += 1
            turn = place.index or 0 if self._ordered else self._times_parked
            heapq.heappush(self._parked, (turn, place))
        return False

    def polled(self, place: Place) -> None:
        """The poll ended and the job runs on: its room is free again."""
        self._polled.discard(place)
        self._unpark_next()

    def stands(self, place: Place, snapshot: Snapshot) -> None:
        """The job runs, as an answer of the server says."""
        if self._board.is_followed and place in self.out:
            self._board.stands(place, snapshot, self._now())

    def deliver(self, place: Place, job: Job | None) -> None:
        """The outcome came. If memory is full and the store has it, it is read back when it is handed out."""
        self._polled.discard(place)
        if place not in self.out:
            return  # the batch has let go of it
        del self.out[place]
        if job is not None:
            self._board.ended(place, job)
        else:
            self._board.untold += 1
        place.job = job
        if place.is_kept and job is not None and job.ok and self._is_full() and place.sub.claim is not None:
            place.job = None
        if self._ordered:
            self._ready_by_index[place.index or 0] = place
        else:
            self._ready.append(place)
        self.news.set()

    def _is_full(self) -> bool:
        return len(self._ready) + len(self._ready_by_index) >= READY

    # --- what goes out -----------------------------------------------------------------------------------------------

    def next(self) -> Place | None:
        """The place whose turn it is, if its outcome is there."""
        if self._ordered:
            return self._ready_by_index.pop(self.handed_out, None)
        return self._ready.popleft() if self._ready else None

    def put_back(self, place: Place) -> None:
        """It could not be handed out: it stays the first."""
        if self._ordered:
            self._ready_by_index[place.index or 0] = place
        else:
            self._ready.appendleft(place)

    def read_back(self, place: Place, job: Job) -> None:
        """The outcome that the store had."""
        if place.sub.phase is Phase.STORED:  # else it ended here, and was told
            self._board.untold -= 1
            self._board.ended(place, job)

    def count_handed_out(self) -> None:
        """The consumer has one more. A second consumer may have waited for just that."""
        self.handed_out += 1
        self.news.set()
        self._unpark_next()

    def _unpark_next(self) -> None:
        while self._parked:
            _, place = heapq.heappop(self._parked)
            place.is_parked = False
            if place in self.out:
                self._unpark(place.sub)
                return

    def follow(self, limit: int, is_over: Callable[[], bool]) -> BatchFollow:
        """How each job stands, then each change; see `Board.follow`."""
        return self._board.follow(self.out, limit, is_over, self._now())

    @property
    def are_told(self) -> bool:
        """Whether whoever follows knows the end of each job that has a place."""
        return not self.out and not self._board.untold

    @property
    def is_empty(self) -> bool:
        """Whether every place was handed out."""
        return self.handed_out == self.placed

    # --- the rest ----------------------------------------------------------------------------------------------------

    def undelivered(self) -> list[Job]:
        """Outcomes in memory that were not handed out."""
        return [place.job for place in (*self._ready, *self._ready_by_index.values()) if place.job is not None]

    def let_go(self) -> list[Place]:
        """Drop everything. Returns the places whose outcome was awaited."""
        out = list(self.out)
        self.out.clear()
        self._ready.clear()
        self._ready_by_index.clear()
        self._polled.clear()
        self._parked.clear()
        self.news.set()
        return out
