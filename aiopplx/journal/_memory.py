"""The journal that lasts as long as its process: for sessions without a file, and as the reference model for tests.

Several sessions may share one `MemoryStore`, as they would share a database: each has a `MemoryJournal` of its own, and
a row in progress has one holder. The store grows with the number of submissions, and is for one event loop. This module
knows nothing of files, threads or clocks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

import msgspec

from aiopplx.journal._errors import JournalClosed
from aiopplx.journal._records import Claim, Cost, CostsBy, Ledger, Origin, Record, Results, State
from aiopplx.journal._steps import Step
from aiopplx.journal.store import (
    DELIVERABLE,
    OVER,
    REUSABLE,
    RUNNING,
    Bills,
    added_up,
    age_of,
    changes,
    duplicate,
    job_name,
    keeps,
    key_taken,
    kind_label,
    ledger_of,
    may_take,
    name_taken,
    sha_of,
)
from aiopplx.journal.store import item_name as name_of


class _Claimed(msgspec.Struct):
    """Who may write a row: the number of its latest claim, and the session that holds it, if any; and who wrote it."""

    fence: int = 0
    holder: MemoryJournal | None = None
    touched: MemoryJournal | None = None


class MemoryStore:
    """Rows that several sessions share. `session()` gives each of them its journal.

    A session holds the rows that it claimed until it closes. Final rows have no holder. All sessions of a store count
    as one opening of it: a question queued by one is not replaced by another.

    Args:
        now: the store's wall clock, seconds since 1970. Ages are measured by it.

    Attributes:
        rows: each row by its number.
        bodies: the answer of a row, by its number.
        by_item, by_key, by_job: the number of a row by what names it, by its idempotency key, and by its job's id.
        past: the bills of rows that were removed.
        learnt: what was learnt of the service, by name.
        is_exhausted: the source of the last batch was read to its end.
    """

    def __init__(self, *, now: Callable[[], float]) -> None:
        self.now = now
        self.is_exhausted = True
        self.rows: dict[int, Record] = {}
        self.bodies: dict[int, bytes] = {}
        self.past: list[Bills] = []
        self.learnt: dict[str, bytes] = {}
        self.by_item: dict[str, int] = {}
        self.by_key: dict[str, int] = {}
        self.by_job: dict[str, int] = {}
        self._claimed: dict[int, _Claimed] = {}
        self._fence = 0
        self._rows = 0
        self._followers: dict[int, set[asyncio.Event]] = {}

    def session(self, *, results: Results = "keep") -> MemoryJournal:
        """The journal of a new session."""
        return MemoryJournal(store=self, results=results)

    def lose(self, journal: MemoryJournal) -> None:
        """A session holds nothing any more, as when its lease expires: others may claim its rows.

        Its claims stay the latest ones until then.
        """
        for pk, claimed in self._claimed.items():
            if claimed.holder is journal:
                claimed.holder = None
                self._wake(pk)

    def release(self, pk: int) -> None:
        """Nobody holds the row any more, and earlier claims are not live."""
        self._fence += 1
        self._claimed[pk].fence, self._claimed[pk].holder = self._fence, None
        self._wake(pk)

    # --- who holds a row ---------------------------------------------------------------------------------------------

    def claimed(self, pk: int, journal: MemoryJournal) -> Record:
        """The row for a session that wants to write it: with a claim, unless another session holds it."""
        claimed = self._claimed[pk]
        if claimed.holder is None and self.rows[pk].state not in DELIVERABLE:
            self._fence += 1
            claimed.fence, claimed.holder = self._fence, journal
        is_held = self.is_held(pk, journal)
        return self.seen(pk, journal, claim=None if is_held else Claim(pk, claimed.fence))

    def seen(self, pk: int, journal: MemoryJournal, *, claim: Claim | None = None) -> Record:
        """The row for a session that only reads it."""
        row = self.rows[pk]
        age = age_of(row.first_sent, self.now()) if row.first_sent is not None else None
        return msgspec.structs.replace(row, age=age, claim=claim, is_held=self.is_held(pk, journal))

    def is_held(self, pk: int, journal: MemoryJournal) -> bool:
        """True if another session holds it."""
        return self._claimed[pk].holder not in (None, journal)

    def is_free(self, pk: int) -> bool:
        """True if nobody holds it."""
        return self._claimed[pk].holder is None

    def held(self, journal: MemoryJournal, but: Collection[int]) -> list[Claim]:
        """The claims of what a session holds, other than these rows."""
        return [
            Claim(pk, claimed.fence)
            for pk, claimed in self._claimed.items()
            if claimed.holder is journal and pk not in but
        ]

    def is_live(self, claim: Claim, journal: MemoryJournal) -> bool:
        """True if this claim still allows writing: its session holds the row, or nobody has to because it is final."""
        return self.is_latest(claim, journal) and (
            self._claimed[claim.pk].holder is journal or self.rows[claim.pk].state in DELIVERABLE
        )

    def is_anothers(self, pk: int, journal: MemoryJournal) -> bool:
        """True if the last step of the row was taken by another session."""
        return self._claimed[pk].touched not in (None, journal)

    def touch(self, pk: int, journal: MemoryJournal) -> None:
        """This session takes a step of the row."""
        self._claimed[pk].touched = journal

    def is_latest(self, claim: Claim, journal: MemoryJournal) -> bool:
        """True if no later claim was given, and no other session holds the row."""
        claimed = self._claimed.get(claim.pk)
        return claimed is not None and claimed.fence == claim.fence and claimed.holder in (None, journal)

    # --- rows --------------------------------------------------------------------------------------------------------

    def add(self, row: Record, journal: MemoryJournal) -> Record:
        """A new row, held by the session that made it."""
        self._fence += 1
        self.rows[row.pk] = row
        self._claimed[row.pk] = _Claimed(self._fence, journal)
        self.by_item[row.item] = row.pk
        if row.key:
            self.by_key[row.key] = row.pk
        if row.job_id:
            self.by_job[row.job_id] = row.pk
        return self.claimed(row.pk, journal)

    def put(self, row: Record, *, by: MemoryJournal | None = None) -> None:
        """Write a row. A final one loses its holder; one that starts over is held by the claim's session."""
        claimed = self._claimed[row.pk]
        self.rows[row.pk] = row
        if row.state in DELIVERABLE:
            claimed.holder = None
        elif by is not None:
            claimed.holder = by
        self._wake(row.pk)

    def next_pk(self) -> int:
        """The number of the next row."""
        self._rows += 1
        return self._rows

    def remove(self, row: Record) -> None:
        """A row that is over goes to the past. Its key stays used."""
        self.past.append(_bill(row))
        del self.rows[row.pk], self._claimed[row.pk], self.by_item[row.item]
        self.bodies.pop(row.pk, None)
        self.by_job.pop(row.job_id, None)

    def name_of_key(self, key: str) -> str:
        """The name of the submission that has, or had, this key."""
        row = self.rows.get(self.by_key[key])
        return row.item if row is not None else "removed after its time"

    # --- waiting for others ------------------------------------------------------------------------------------------

    async def follow(self, pks: Collection[int], journal: MemoryJournal, timeout: float) -> None:
        """See `Journal`."""
        changed = asyncio.Event()
        for pk in pks:
            self._followers.setdefault(pk, set()).add(changed)
        try:
            # Checked after registering: a later change wakes us, and an earlier one is seen now.
            if all(pk in self.rows and self.is_held(pk, journal) for pk in pks):
                # Not `wait_for`, which loses a cancellation that comes in the turn of the change (Python 3.11).
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await changed.wait()
        finally:
            for pk in pks:
                self._followers[pk].discard(changed)
                if not self._followers[pk]:
                    del self._followers[pk]

    def _wake(self, pk: int) -> None:
        for changed in self._followers.get(pk, ()):
            changed.set()


class MemoryJournal:
    """A `Journal` in memory: one session's view of a store.

    Args:
        now: wall clock, seconds since 1970, for a store of its own.
        store: a store shared with other sessions, in place of `now`.
        results: how long result bodies are kept.

    Attributes:
        shares: other sessions may have the same store.
    """

    remembers = True

    def __init__(
        self, *, now: Callable[[], float] | None = None, store: MemoryStore | None = None, results: Results = "keep"
    ) -> None:
        if store is None and now is not None:
            store = MemoryStore(now=now)
        elif store is None or now is not None:
            raise TypeError("a MemoryJournal takes a clock (now=) or a store (store=), not both")
        self.store = store
        self.shares: bool = now is None
        self.results: Results = results
        self._closed = False

    def _open(self) -> MemoryStore:
        if self._closed:
            raise JournalClosed("the journal is closed")
        return self.store

    # --- finding and queueing ----------------------------------------------------------------------------------------

    async def find_or_queue(
        self,
        item: str,
        *,
        tag: str | int | None,
        key: str,
        body: bytes,
        sha: bytes,
        api: str,
        origin: Origin | None = None,
    ) -> Record:
        """See `Journal`. It keeps the columns, and not the order of a run: it is read while its process lives."""
        store = self._open()
        pk = store.by_item.get(item)
        if pk is not None:
            found = store.rows[pk]
            if found.sha and found.sha != sha:
                raise name_taken(item, tag, found.state.name)
            if origin is not None:
                question = "" if found.body else origin.question
                store.rows[pk] = msgspec.structs.replace(found, question=question, meta=origin.meta)
            return store.claimed(pk, self)
        if key in store.by_key:
            raise key_taken(item, tag, store.name_of_key(key))
        row = Record(
            pk=store.next_pk(),
            item=item,
            tag=tag,
            key=key,
            body=body,
            sha=sha,
            api=api,
            kind=kind_label(api, body),
            state=State.QUEUED,
            updated=store.now(),
            meta=origin.meta if origin is not None else {},
        )
        return store.add(row, self)

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """See `Journal`."""
        store = self._open()
        if job_id in store.by_job:
            return store.claimed(store.by_job[job_id], self)
        item = job_name(job_id) if tag is None else name_of(tag, sha_of(b""))
        if item in store.by_item:
            raise name_taken(item, tag, store.rows[store.by_item[item]].state.name)
        now = store.now()
        row = Record(
            pk=store.next_pk(),
            item=item,
            tag=tag,
            key="",
            body=b"",
            sha=b"",
            api=api,
            kind=kind_label(api, b""),
            state=State.ACCEPTED,
            job_id=job_id,
            accepted_at=now,
            updated=now,
        )
        return store.add(row, self)

    async def claim(self, pk: int) -> Record | None:
        """See `Journal`."""
        store = self._open()
        return store.claimed(pk, self) if pk in store.rows else None

    async def free(self, limit: int, *, but: Collection[int] = ()) -> list[Record]:
        """See `Journal`."""
        store = self._open()
        found = (
            [pk for pk, row in store.rows.items() if row.state in RUNNING and store.is_free(pk) and pk not in but]
            if self.shares
            else []
        )
        return [store.claimed(pk, self) for pk in found[: max(0, limit)]]

    async def held(self, but: Collection[int]) -> list[Claim]:
        """See `Journal`."""
        store = self._open()
        return store.held(self, but) if self.shares else []

    async def alike(self, sha: bytes, *, api: str, item: str, beginning: str) -> list[Record]:
        """See `Journal`."""
        store = self._open()
        equal = [row for row in reversed(store.rows.values()) if (row.sha, row.api) == (sha, api)]
        may_be_had = (row.pk for row in equal if row.state in REUSABLE)
        named = (row.pk for row in equal if row.item.startswith(beginning))
        found = {next(may_be_had, None), next(named, None), store.by_item.get(item)}
        return [store.seen(pk, self) for pk in sorted(pk for pk in found if pk is not None)]

    async def release(self, claim: Claim) -> None:
        """See `Journal`."""
        store = self._open()
        if store.is_live(claim, self) and store.rows[claim.pk].state not in DELIVERABLE:
            store.release(claim.pk)

    async def forget(self, seconds: float, *, limit: int = 500) -> int:
        """See `Journal`."""
        store = self._open()
        if not self.shares:
            return 0
        now = store.now()
        found = [
            row
            for row in store.rows.values()
            if row.state in OVER
            and row.ended_at is not None
            and row.ended_at < now - seconds * (1.0 if row.delivered else 2.0)
        ]
        for row in found[:limit]:
            store.remove(row)
        return len(found[:limit])

    def may_intend(self) -> bool:
        """See `Journal`. Nobody else can take a row that is held."""
        return True

    async def follow(self, pks: Collection[int], *, timeout: float) -> None:
        """See `Journal`."""
        await self._open().follow(pks, self, timeout)

    # --- steps -------------------------------------------------------------------------------------------------------

    async def apply(self, claim: Claim, step: Step) -> bool | None:
        """See `Journal`."""
        store = self._open()
        row = store.rows.get(claim.pk)
        is_live = store.is_live(claim, self)
        is_latest = store.is_latest(claim, self)
        if not may_take(step, claim.pk, row, is_live=is_live, is_latest=is_latest, path="") or row is None:
            return store.is_anothers(claim.pk, self)
        if step.job_id:
            self._check_id(row, step.job_id)
        if step.new_key:
            self._begin_anew(row, step.new_key)
        if keeps(step, self.results):
            store.bodies[row.pk] = step.raw
        changed = changes(step, row, store.now()) | {"has_result": row.pk in store.bodies}
        new = msgspec.structs.replace(row, **changed)
        if new.job_id:
            store.by_job[new.job_id] = row.pk
        store.put(new, by=self if is_live else None)
        store.touch(row.pk, self)
        return False

    def _check_id(self, row: Record, job_id: str) -> None:
        other = self.store.by_job.get(job_id)
        if other is not None and other != row.pk:
            raise duplicate(job_id, self.store.rows[other].key, path="")
        self.store.by_job.pop(row.job_id, None)

    def _begin_anew(self, row: Record, new_key: str) -> None:
        store = self.store
        if new_key in store.by_key:
            raise key_taken(row.item, row.tag, store.name_of_key(new_key))
        store.past.append(_bill(row))
        store.bodies.pop(row.pk, None)
        store.by_key[new_key] = row.pk
        store.by_job.pop(row.job_id, None)

    def delivered(self, claim: Claim, key: str, state: State) -> None:
        """See `Journal`."""
        row = self.store.rows.get(claim.pk)
        if self._closed or row is None or (row.key, row.state) != (key, state) or state not in DELIVERABLE:
            return
        if self.results == "until_delivered":
            self.store.bodies.pop(row.pk, None)
            body = b"" if row.state is State.DONE else row.body
            row = msgspec.structs.replace(row, body=body, question="", meta={})
        has_result = row.pk in self.store.bodies
        self.store.put(msgspec.structs.replace(row, delivered=True, has_result=has_result, updated=self.store.now()))

    def exhausted(self, is_exhausted: bool) -> None:
        """See `Journal`."""
        if not self._closed:
            self.store.is_exhausted = is_exhausted

    # --- reading -----------------------------------------------------------------------------------------------------

    async def result(self, pk: int) -> bytes | None:
        """See `Journal`."""
        return self._open().bodies.get(pk)

    async def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """See `Journal`."""
        store = self._open()
        if pk is None:
            pk = store.by_item.get(item) if item else store.by_job.get(job_id) if job_id else self._current(key)
        return store.seen(pk, self) if pk is not None and pk in store.rows else None

    def _current(self, key: str) -> int | None:
        pk = self.store.by_key.get(key)
        row = self.store.rows.get(pk) if pk is not None else None
        return pk if row is not None and row.key == key else None

    async def rows(self, states: Collection[State], *, after: int = 0, limit: int = 500) -> list[Record]:
        """See `Journal`."""
        store = self._open()
        found = [pk for pk, row in store.rows.items() if pk > after and row.state in states]
        return [store.seen(pk, self) for pk in found[:limit]]

    async def counts(self) -> dict[State, int]:
        """See `Journal`."""
        found = dict.fromkeys(State, 0)
        for row in self._open().rows.values():
            found[row.state] += 1
        return found

    async def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """See `Journal`."""
        return added_up(self._bills(), by)

    async def ledger(self, samples: int = 200) -> Ledger:
        """See `Journal`."""
        known: dict[str, list[float]] = {}
        for row in reversed(self.store.rows.values()):
            if row.cost is not None:
                known.setdefault(row.kind, []).append(row.cost)
        return ledger_of(self._bills(), {kind: costs[:samples] for kind, costs in known.items()})

    async def recall(self, name: str) -> bytes | None:
        """See `Journal`."""
        return self._open().learnt.get(name)

    async def remember(self, name: str, value: bytes) -> None:
        """See `Journal`."""
        self._open().learnt[name] = value

    def _bills(self) -> list[Bills]:
        store = self._open()
        return [*store.past, *(_bill(row) for row in store.rows.values())]

    async def close(self) -> None:
        """See `Journal`."""
        if not self._closed:
            self._closed = True
            self.store.lose(self)


def _bill(row: Record) -> Bills:
    return Bills(row.tag, row.api, row.state, 1, row.cost or 0.0, row.cost is None, row.kind)
