"""Finds the row of a submission that is about to begin, or another submission of this session that has the same job.

One row is sent by one task at a time. Whoever wants what is being sent here waits until its sender is done; whoever
wants what another session holds waits until the store says that it changed. This module changes nothing of a
submission, and knows nothing of what a row means.
"""

from __future__ import annotations

from aiopplx._core.live import Live
from aiopplx._submission import POLLABLE, Submission
from aiopplx.journal._names import Occurrences, item_name, key_name, sha_of
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Origin, Record

FOLLOW = 30.0
"""Seconds after which a row that another session holds is asked for again, whatever the store's word on it."""


class Search:
    """The search of one submission.

    Args:
        store: where rows are.
        live: what is alive in this session.
        sub: the submission.
        occurrences: counts the equal requests without a tag of its batch; None for a call, which without a tag is like
            no other.
        needs_id: a row that another session holds is waited for until it has an id.

    Attributes:
        job_id: of the row as it was last seen; `""` if it has none.
    """

    __slots__ = ("_live", "_needs_id", "_occurrences", "_store", "_sub", "job_id")

    def __init__(
        self, store: Journal, live: Live, sub: Submission, occurrences: Occurrences | None, *, needs_id: bool
    ) -> None:
        self._store = store
        self._live = live
        self._sub = sub
        self._occurrences = occurrences
        self._needs_id = needs_id
        self.job_id = ""

    async def run(self) -> tuple[Record, Submission | None]:
        """Its row, and the live submission that has the job of it. If there is none, nobody else here is sending the
        row, but another session may hold it (`is_held`).

        Raises:
            JournalError: the store failed.
            ItemConflict: the row of its tag is of another question.
        """
        sub, store = self._sub, self._store
        if sub.row:
            claimed = await store.claim(sub.row)  # it has begun before, and its row was lost to another session
            assert claimed is not None, "rows are never removed"  # noqa: S101 - for mypy
            record = claimed
        else:
            record = await self._found_or_queued()
        while True:
            self.job_id = record.job_id
            if record.is_held:
                if record.job_id or not self._needs_id:
                    return record, None
                await store.follow((record.pk,), timeout=FOLLOW)
            else:
                other = self._live.by_row.get(record.pk)
                if other is None or (other.phase in POLLABLE and not other.waits_for_a_slot):
                    return record, other
                await self._live.until_sent(other)  # also one that waits for its slot: it is not polled before
            record = await store.claim(record.pk) or record

    async def _found_or_queued(self) -> Record:
        sub, occurrences = self._sub, self._occurrences
        request = sub.request
        assert request is not None, "a submission has its request until it is accepted"  # noqa: S101 - for mypy
        sha = sha_of(request.canonical())
        run = ""
        if occurrences is not None:
            item, run = occurrences.name(sub.tag, sha), occurrences.run
        else:
            item = item_name(sub.tag, sha) if sub.tag is not None else key_name(sub.key)
        return await self._store.find_or_queue(
            item,
            tag=sub.tag,
            key=sub.key,
            body=sub.body,
            sha=sha,
            api=sub.api.name,
            # Of a call without columns there is nothing to say.
            origin=Origin(run, sub.index or 0, request.asked, request.meta) if run or request.meta else None,
        )
