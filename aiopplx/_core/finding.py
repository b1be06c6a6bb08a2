"""Finds the row of a submission that is about to begin, or another submission of this session that has the same job.

One row is sent by one task at a time. Whoever wants what is being sent here waits until its sender is done; whoever
wants what another session holds waits until the store says that it changed. This module changes nothing of a
submission, and knows nothing of what a row means.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from aiopplx._core.live import Live
from aiopplx._core.store.reaching import Reach
from aiopplx._policy.recovery import WITHOUT_RESULT
from aiopplx._submission import POLLABLE, Named, Submission
from aiopplx.journal._errors import ItemConflict, removed
from aiopplx.journal._names import Names, alike_names, item_name, key_name, sha_of, short_name
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import REUSABLE, Origin, Record, State

T = TypeVar("T")

FOLLOW = 30.0
"""Seconds after which a row that another session holds is asked for again, whatever the store's word on it."""


class Search:
    """The search of one submission.

    Args:
        reach: asks the store, where rows are.
        live: what is alive in this session.
        sub: the submission.
        names: counts the equal requests without a tag of its batch; None for a call, which without a tag is like
            no other.
        needs_id: a row that another session holds is waited for until it has an id.

    Attributes:
        job_id: of the row as it was last seen; `""` if it has none.
        asks_the_store: the search waits for the store, and not for whoever has the row in hand.
        named: see `Submission`.
    """

    __slots__ = ("_live", "_names", "_needs_id", "_reach", "_sub", "asks_the_store", "job_id", "named")

    def __init__(self, reach: Reach, live: Live, sub: Submission, names: Names | None, *, needs_id: bool) -> None:
        self._reach = reach
        self._live = live
        self.asks_the_store: bool = False
        self._sub = sub
        self._names = names
        self._needs_id = needs_id
        self.job_id = ""
        self.named: Named | None = sub.named

    async def run(self) -> tuple[Record, Submission | None]:
        """Its row, and the live submission that has the job of it. If there is none, nobody else here is sending the
        row, but another session may hold it (`is_held`).

        Raises:
            JournalError: the store failed.
            ItemConflict: the row of its tag is of another question.
        """
        sub, store = self._sub, self._reach.store
        if sub.row:
            # It has begun before, and its row was lost to another session.
            record = await self._claimed(sub.row, sub.key)
        else:
            record = await self._asked(self._found_or_queued())
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
            record = await self._claimed(record.pk, record.key)

    async def _claimed(self, pk: int, key: str) -> Record:
        record = await self._asked(self._reach.store.claim(pk))
        if record is not None:
            return record
        sub = self._sub
        if sub.body and self.named is not None:
            body = sub.body if key == sub.key else sub.api.rekeyed(sub.body, key)
            record = await self._asked(queued_again(self._reach.store, sub, self.named, key=key, body=body))
        if record is None:
            raise removed()
        return record

    async def _asked(self, call: Awaitable[T]) -> T:
        # No reason to wait for the first attempt may outlast the time that the job may take.
        self.asks_the_store = True
        answer = await self._reach.within(call, self._sub.timeout)
        self.asks_the_store = False
        return answer

    async def _found_or_queued(self) -> Record:
        sub, names = self._sub, self._names
        request = sub.request
        assert request is not None, "a submission has its request until it is accepted"  # noqa: S101 - for mypy
        canonical, run = request.canonical(), ""
        if names is not None:
            sha, run = names.sha(canonical), names.run
            item = names.name(sub.tag, sha, sub.key)
            if names.reuse is not None:
                item = await self._reusable(item, sha, names.reuse, names.tenant)
        else:
            sha = sha_of(canonical)
            item = item_name(sub.tag, sha) if sub.tag is not None else key_name(sub.key)
        # Of a call without columns there is nothing to say.
        origin = Origin(run, sub.index or 0, request.asked, request.meta) if run or request.meta else None
        self.named = item, sha, origin
        return await self._reach.store.find_or_queue(
            item, tag=sub.tag, key=sub.key, body=sub.body, sha=sha, api=sub.api.name, origin=origin
        )

    async def _reusable(self, item: str, sha: bytes, seconds: float, tenant: str) -> str:
        """The name of a submission of the same request that is young enough, or runs; else the name for a new one.

        A tag that is known stands for its own submission. By the store's clock a submission is as old as its first
        attempt.
        """
        sub, beginning = self._sub, alike_names(sha, tenant=tenant)
        rows = await self._reach.store.alike(sha, api=sub.api.name, item=item, beginning=beginning)
        is_known = any(row.item in (item, short_name(item)) for row in rows)
        newest = max((row for row in rows if _may_be_had(row, sha, sub)), key=_pk, default=None)
        if sub.tag is not None and is_known:
            return item
        if newest is not None and (newest.state is not State.DONE or newest.age is None or newest.age < seconds):
            return newest.item
        if sub.tag is not None:
            return item
        before = max((row for row in rows if row.item.startswith(beginning)), key=_pk, default=None)
        if before is None or (newest is not None and newest.pk > before.pk):
            before = newest
        elif before.state not in WITHOUT_RESULT and before is not newest:
            return before.item  # it is in doubt
        # A failure is no answer: who asks again has a submission of its own, under the next name for all sessions.
        return f"{beginning}{before.pk if before is not None else 0}"


async def queued_again(store: Journal, sub: Submission, named: Named, *, key: str, body: bytes) -> Record | None:
    """The row of a submission whose own is not there any more, under the same name and key; None if it can have none.

    A store of which a replica takes the place may not have the latest rows. The key of a row that was removed after its
    time is used up.
    """
    item, sha, origin = named
    try:
        return await store.find_or_queue(
            item, tag=sub.tag, key=key, body=body, sha=sha, api=sub.api.name, origin=origin
        )
    except ItemConflict:
        return None


def _may_be_had(row: Record, sha: bytes, sub: Submission) -> bool:
    return row.state in REUSABLE and (row.sha, row.api) == (sha, sub.api.name)


def _pk(row: Record) -> int:
    return row.pk
