"""The journal that lasts as long as its process: for sessions without a file, and as the model for tests.

It grows with the number of submissions. This module knows nothing of files, threads or clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from aiopplx.journal._names import sha_of
from aiopplx.journal._protocol import Claim, Cost, CostsBy, JournalClosed, Ledger, Record, Results, State, job_name
from aiopplx.journal._protocol import item_name as name_of
from aiopplx.journal._steps import (
    BILLED,
    DROPPED,
    DROPPED_ERROR,
    FROM,
    Bills,
    added_up,
    billed,
    duplicate,
    endings,
    impossible,
    keeps,
    key_taken,
    name_taken,
)

_FENCE = 1


class MemoryJournal:
    """A `Journal` in memory.

    Args:
        now: wall clock, seconds since 1970; only stored, never compared.
        results: what becomes of result bodies.
    """

    def __init__(self, *, now: Callable[[], float], results: Results = "keep") -> None:
        self.results: Results = results
        self._now = now
        self._closed = False
        self.is_unread = False
        self._rows: dict[int, Record] = {}
        self._bodies: dict[int, bytes] = {}
        self._past: list[Bills] = []
        self._by_item: dict[str, int] = {}
        self._by_key: dict[str, int] = {}
        self._by_job: dict[str, int] = {}

    # --- finding and queueing ----------------------------------------------------------------------------------------

    async def find_or_queue(
        self, item: str, *, tag: str | int | None, key: str, body: bytes, sha: bytes, api: str
    ) -> Record:
        """See `Journal`."""
        self._check_open()
        pk = self._by_item.get(item)
        if pk is not None:
            found = self._rows[pk]
            if found.sha and found.sha != sha:
                raise name_taken(item, tag, found.state)
            return found
        if key in self._by_key:
            raise key_taken(item, tag, self._rows[self._by_key[key]].item)
        return self._add(item=item, tag=tag, key=key, body=body, sha=sha, api=api, state=State.QUEUED)

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """See `Journal`."""
        self._check_open()
        if job_id in self._by_job:
            return self._rows[self._by_job[job_id]]
        item = job_name(job_id) if tag is None else name_of(tag, sha_of(b""))
        if item in self._by_item:
            raise name_taken(item, tag, self._rows[self._by_item[item]].state)
        return self._add(
            item=item,
            tag=tag,
            key="",
            body=b"",
            sha=b"",
            api=api,
            state=State.ACCEPTED,
            job_id=job_id,
        )

    def _add(
        self,
        *,
        item: str,
        tag: str | int | None,
        key: str,
        body: bytes,
        sha: bytes,
        api: str,
        state: State,
        job_id: str = "",
    ) -> Record:
        now = self._now()
        row = Record(
            pk=len(self._rows) + 1,
            fence=_FENCE,
            item=item,
            tag=tag,
            key=key,
            body=body,
            sha=sha,
            api=api,
            state=state,
            job_id=job_id,
            accepted_at=now if job_id else None,
            updated=now,
        )
        self._rows[row.pk] = row
        self._by_item[item] = row.pk
        if key:
            self._by_key[key] = row.pk
        if job_id:
            self._by_job[job_id] = row.pk
        return row

    # --- steps -------------------------------------------------------------------------------------------------------

    async def sending(self, claim: Claim) -> None:
        """See `Journal`."""
        row = self._may("sending", claim)
        now = self._now()
        first = now if row.first_sent is None else row.first_sent
        self._put(row, now, state=State.SENDING, attempts=row.attempts + 1, first_sent=first, taken=False, error="")

    async def accepted(self, claim: Claim, job_id: str) -> None:
        """See `Journal`."""
        row = self._rows.get(claim.pk)
        if row is not None and row.state is State.ACCEPTED and row.job_id == job_id:
            self._check_open()
            return
        row = self._may("accepted", claim)
        self._name(row, job_id)
        now = self._now()
        self._put(row, now, state=State.ACCEPTED, job_id=job_id, accepted_at=now, taken=False, error="", word="")

    async def ended(
        self,
        claim: Claim,
        state: State,
        *,
        job_id: str = "",
        word: str = "",
        raw: bytes = b"",
        error: str = "",
        cost: float | None = None,
    ) -> None:
        """See `Journal`."""
        row = self._may("ended", claim, endings(state))
        if job_id:
            self._name(row, job_id)
        stored = bool(raw) and keeps(state, self.results)
        if stored:
            self._bodies[row.pk] = raw
        now = self._now()
        self._put(
            row,
            now,
            state=state,
            job_id=job_id or row.job_id,
            accepted_at=now if job_id and row.accepted_at is None else row.accepted_at,
            word=word,
            error=error,
            cost=billed(cost),
            has_result=stored,
        )

    def unread(self, is_unread: bool) -> None:
        """See `Journal`."""
        if not self._closed:
            self.is_unread = is_unread

    def taken(self, claim: Claim) -> None:
        """See `Journal`."""
        row = self._rows.get(claim.pk)
        if self._closed or row is None or row.state not in FROM["taken"]:
            return
        if self.results == "until_taken":
            self._bodies.pop(row.pk, None)
        self._put(row, taken=True, has_result=row.pk in self._bodies)

    async def doubtful(self, claim: Claim, error: str) -> None:
        """See `Journal`."""
        self._put(self._may("doubtful", claim), state=State.IN_DOUBT, error=error)

    async def back_to_queued(self, claim: Claim) -> None:
        """See `Journal`."""
        self._put(self._may("back_to_queued", claim), state=State.QUEUED, first_sent=None)

    async def refreeze(self, claim: Claim, *, body: bytes, api: str) -> None:
        """See `Journal`."""
        self._put(self._may("refreeze", claim), body=body, api=api)

    async def requeue(self, claim: Claim, *, key: str, body: bytes, api: str) -> None:
        """See `Journal`."""
        row = self._may("requeue", claim)
        if key in self._by_key:
            raise key_taken(row.item, row.tag, self._rows[self._by_key[key]].item)
        self._past.append(_bill(row))
        self._bodies.pop(row.pk, None)
        self._by_key[key] = row.pk
        self._by_job.pop(row.job_id, None)
        self._put(
            row,
            state=State.QUEUED,
            key=key,
            body=body,
            api=api,
            job_id="",
            first_sent=None,
            accepted_at=None,
            word="",
            error="",
            cost=None,
            taken=False,
            has_result=False,
        )

    async def drop(self, claim: Claim) -> None:
        """See `Journal`."""
        self._put(self._may("drop", claim), state=State.FAILED, word=DROPPED, error=DROPPED_ERROR)

    def _may(self, step: str, claim: Claim, states: frozenset[State] | None = None) -> Record:
        self._check_open()
        row = self._rows.get(claim.pk)
        if row is None or claim.fence != _FENCE or row.state not in (FROM[step] if states is None else states):
            raise impossible(step, claim.pk, row.state if row is not None else None, path="")
        return row

    def _name(self, row: Record, job_id: str) -> None:
        other = self._by_job.get(job_id)
        if other is not None and other != row.pk:
            raise duplicate(job_id, self._rows[other].key, path="")
        self._by_job.pop(row.job_id, None)
        self._by_job[job_id] = row.pk

    def _put(self, row: Record, now: float | None = None, **changes: object) -> None:
        self._rows[row.pk] = msgspec.structs.replace(row, updated=self._now() if now is None else now, **changes)

    def _check_open(self) -> None:
        if self._closed:
            raise JournalClosed("the journal is closed")

    # --- reading -----------------------------------------------------------------------------------------------------

    async def result(self, pk: int) -> bytes | None:
        """See `Journal`."""
        self._check_open()
        return self._bodies.get(pk)

    async def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """See `Journal`."""
        self._check_open()
        if pk is None:
            pk = self._by_item.get(item) if item else self._by_job.get(job_id) if job_id else self._current(key)
        return self._rows.get(pk) if pk is not None else None

    def _current(self, key: str) -> int | None:
        pk = self._by_key.get(key)
        return pk if pk is not None and self._rows[pk].key == key else None

    async def rows(self, states: Collection[State], *, after: int = 0, limit: int = 500) -> list[Record]:
        """See `Journal`."""
        self._check_open()
        return [row for pk, row in self._rows.items() if pk > after and row.state in states][:limit]

    async def counts(self) -> dict[State, int]:
        """See `Journal`."""
        self._check_open()
        found = dict.fromkeys(State, 0)
        for row in self._rows.values():
            found[row.state] += 1
        return found

    async def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """See `Journal`."""
        self._check_open()
        return added_up(self._bills(), by)

    async def ledger(self, samples: int = 200) -> Ledger:
        """See `Journal`."""
        self._check_open()
        bills = self._bills()
        known = [row.cost for row in reversed(self._rows.values()) if row.cost is not None]
        return Ledger(
            sum(bill.dollars for bill in bills),
            sum(bill.unpriced for bill in bills if bill.state in BILLED),
            tuple(known[:samples]),
        )

    def _bills(self) -> list[Bills]:
        return [*self._past, *(_bill(row) for row in self._rows.values())]

    async def close(self) -> None:
        """See `Journal`."""
        self._closed = True


def _bill(row: Record) -> Bills:
    return Bills(row.tag, row.api, row.state, 1, row.cost or 0.0, row.cost is None)
