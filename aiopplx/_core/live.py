"""The submissions that are alive in this session, by row and by job id: at most one for each.

Whoever asks for something that is already being sent or polled here finds it in these maps and listens to it, so a
job is polled once and paid once however many wait for it. What is known of a job's age and polls outlives its last
listener, in a bounded map: a `wait` that comes back goes on where the last one stopped.

This module knows nothing of what happens to a submission.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from aiopplx._policy.polling import Polls
from aiopplx._submission import Submission

REMEMBERED = 10_000
"""Jobs whose polls are remembered after the last listener left."""


class Live:
    """The maps, and the memory of jobs that were in them."""

    __slots__ = ("_polls", "_waited_for", "by_id", "by_row", "unread")

    def __init__(self) -> None:
        self.unread: set[object] = set()  # batches whose source may have more
        self.by_row: dict[int, Submission] = {}
        self.by_id: dict[str, Submission] = {}
        self._polls: OrderedDict[str, Polls] = OrderedDict()
        self._waited_for: dict[Submission, asyncio.Event] = {}

    def add_row(self, sub: Submission) -> None:
        """It has its row, and nobody else in this session has."""
        self.by_row[sub.row] = sub

    def add_job(self, sub: Submission) -> None:
        """It has its job, and nobody else in this session has."""
        self.by_id[sub.job_id] = sub

    def remove(self, sub: Submission) -> None:
        """Its phase is terminal, or it begins anew; a second call does nothing."""
        self.remove_row(sub)
        polls = sub.polls
        if polls is not None and self.by_id.get(sub.job_id) is sub:
            del self.by_id[sub.job_id]
            remembered = self._polls
            remembered[sub.job_id] = polls
            remembered.move_to_end(sub.job_id)
            if len(remembered) > REMEMBERED:
                remembered.popitem(last=False)

    def remove_row(self, sub: Submission) -> None:
        """Its row stands for something else by now."""
        if sub.row and self.by_row.get(sub.row) is sub:
            del self.by_row[sub.row]

    def polls_of(self, job_id: str) -> Polls | None:
        """What an earlier listener's polls of this job found; None if it was never polled here, or long ago."""
        return self._polls.get(job_id)

    async def until_sent(self, sub: Submission) -> None:
        """Wait until its sender is done: until then nobody knows what becomes of it."""
        event = self._waited_for.get(sub)
        if event is None:
            event = self._waited_for[sub] = asyncio.Event()
        await event.wait()

    def sent(self, sub: Submission) -> None:
        """Its sender is done: whoever wants the same may look what became of it."""
        waited_for = self._waited_for
        if waited_for and (event := waited_for.pop(sub, None)) is not None:
            event.set()
