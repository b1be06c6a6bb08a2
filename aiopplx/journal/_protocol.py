"""What a store of submissions promises, whatever keeps it, and what a reader of one may ask.

A step is on disk when its call returns; what is not yet true on disk must not have been done. From this comes the
order in which a session keeps its promises, each a call that has returned before the next thing happens:

1. `find_or_queue`, before a submission is promised to anybody: a second run finds it, and does not pay for it again.
2. `sending`, before its first byte leaves: a row that is not marked was never sent, so that it may be sent.
3. `accepted`, before the job is polled: the id of what is paid for outlives the process.
4. `ended`, before the result is handed out: nobody has seen a result that a crash can take back.
5. `delivered`, after it was dealt with, and not waited for: a crash before that delivers twice, and pays once.

Each promise is kept by the one before it, so a crash between two of them leaves a row that says less than was done,
never more: `SENDING` may have been sent or not, `ACCEPTED` may have ended. What follows from that (send again, poll,
hold) is policy, and not said here.

Several sessions may share one store. To read a row gives no right to write it; that right is a `Claim`, held by one
session at a time for as long as the row is on its way. A row that another session holds is handed out all the same,
without a claim and with `is_held`: whoever wants its outcome waits for it with `follow`. Which steps need a claim that
is still live is said in `_steps`.

This module knows nothing of SQLite, of files, of HTTP, or of any policy.
"""

from __future__ import annotations

import types
from collections.abc import Collection
from typing import Protocol, Self

from aiopplx.journal._errors import (
    ClaimLost,
    DuplicateJob,
    ImpossibleStep,
    ItemConflict,
    JournalAway,
    JournalBroken,
    JournalClosed,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalRefused,
    Reason,
    ResultDamaged,
)
from aiopplx.journal._names import Occurrences, fingerprint, item_name, job_name, sha_of
from aiopplx.journal._records import Claim, Cost, CostsBy, Ledger, Record, Results, State
from aiopplx.journal._steps import Step

__all__ = [
    "Claim",
    "ClaimLost",
    "Cost",
    "CostsBy",
    "DuplicateJob",
    "ImpossibleStep",
    "ItemConflict",
    "Journal",
    "JournalAway",
    "JournalBroken",
    "JournalClosed",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalReader",
    "JournalRefused",
    "Ledger",
    "Occurrences",
    "Reason",
    "Record",
    "ResultDamaged",
    "Results",
    "State",
    "Step",
    "fingerprint",
    "item_name",
    "job_name",
    "sha_of",
]


class Journal(Protocol):
    """Where submissions are written down, and found again: one session's view of a store.

    Steps are carried out in the order in which they were asked for. A step once asked for is carried out even if the
    caller is cancelled meanwhile; a later call on the same row then finds it done.

    All calls that write raise `JournalFull` or `JournalBroken` where they could not (the row is as before, and the same
    step may be asked for again; `JournalBroken.is_final` says that it cannot), `JournalAway` where the store is out of
    reach for now, and `JournalClosed` after `close`.
    """

    @property
    def results(self) -> Results:
        """What becomes of result bodies."""
        ...

    @property
    def remembers(self) -> bool:
        """True if what was written can be found again. Only the store of a session without a journal says False."""
        ...

    async def find_or_queue(
        self, item: str, *, tag: str | int | None, key: str, body: bytes, sha: bytes, api: str
    ) -> Record:
        """The submission of this name: as it was left, if the journal has it; newly QUEUED otherwise.

        The record has a claim, unless another session holds the row: then it has `is_held`.

        Of a known submission key, body and API are the stored ones, and those given are dropped. One that is known for
        another request (`sha`) takes on the new request only if no bill can exist (never sent, or REJECTED) and it was
        not asked for since the journal was opened: then somebody corrected a question between two runs.

        Raises:
            ItemConflict: the name is known for another request, or `key` for another name. Nothing was changed.
        """
        ...

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """A job from elsewhere, as ACCEPTED; the record that has this id already, if one does.

        With a tag, a later submission under it finds this job, whatever it asks. Claimed as by `find_or_queue`.

        Raises:
            ItemConflict: the tag is that of another submission. (One that is in doubt is resolved by `accepted`.)
        """
        ...

    async def claim(self, pk: int) -> Record | None:
        """Take the right to write a row that was read.

        Returns:
            The row as it is now, with its claim; with `is_held` and no claim if another session has it; None if there
            is no such row. A row that is final is held by nobody: each session that asks has a claim to it, and the
            first to begin it anew (`requeue`, `sending`) is its holder.
        """
        ...

    async def apply(self, claim: Claim, step: Step) -> None:
        """Take a step (one that a function of `_steps` has made). One that was taken already does nothing.

        Raises:
            ClaimLost: the row is another session's by now, and this step needs a claim. The row is as before.
            ImpossibleStep: the row is in a state, or under a key, that does not allow it. The row is as before.
            DuplicateJob: another submission has the step's job id. Both rows are as before.
            ItemConflict: the new key of a `requeue` was used before. The row is as before.
        """
        ...

    async def follow(self, pks: Collection[int], *, timeout: float) -> None:
        """Wait until one of these rows, which another session holds, has changed or was freed.

        Returns at once if one of them is not held by another session (any more), and after `timeout` real seconds at
        the latest. What became of it is for the caller to read.
        """
        ...

    def delivered(self, claim: Claim) -> None:
        """The outcome was handed out. Returns at once: it is written with the next step, or shortly.

        A crash before that hands the outcome out twice, never pays for it twice. Of a row that has no outcome, and
        after `close`, nothing is written.
        """
        ...

    def exhausted(self, is_exhausted: bool) -> None:
        """Mark the source of the questions as (not) exhausted: while it is not, there may be more than is known here.

        Returns at once: it is on disk with the next step at the latest. After `close` nothing is written.
        """
        ...

    async def result(self, pk: int) -> bytes | None:
        """The stored body of a row's outcome, as it came; None if there is none.

        Raises:
            ResultDamaged: there is one, and it cannot be read.
        """
        ...

    async def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """The record with this row number, name, id or key: of those given, the first. None if there is none."""
        ...

    async def rows(self, states: Collection[State], *, after: int = 0, limit: int = 500) -> list[Record]:
        """Records in one of these states whose `pk` is above `after`, lowest first: a page of at most `limit`.

        They show what other sessions hold as well, and give no right to write.
        """
        ...

    async def counts(self) -> dict[State, int]:
        """How many records there are in each state; every state is named."""
        ...

    async def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """What was spent, dearest first."""
        ...

    async def ledger(self, samples: int = 200) -> Ledger:
        """What a budget starts from, with at most so many known costs."""
        ...

    async def close(self) -> None:
        """Write what is still to be written, free the rows that this session holds, and let go.

        A second call does nothing.
        """
        ...


class JournalReader(Protocol):
    """A journal for reading only, at any time: while a run goes on, and after a crash. It changes nothing.

    Its calls return at once, and are for one thread; what they see is what was committed at that moment. All raise
    `JournalError` where the store cannot be read.
    """

    @property
    def path(self) -> str:
        """Where the journal is, for a person."""
        ...

    def counts(self) -> dict[State, int]:
        """How many records there are in each state; every state is named."""
        ...

    def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """What was spent, dearest first."""
        ...

    def ledger(self, samples: int = 200) -> Ledger:
        """Dollars spent, bills of unknown amount, and the latest known costs."""
        ...

    def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """The record with this row number, name, id or key: of those given, the first. None if there is none."""
        ...

    def rows(self, states: Collection[State] = tuple(State), *, after: int = 0, limit: int = 500) -> list[Record]:
        """Records in one of these states whose `pk` is above `after`, lowest first: a page of at most `limit`."""
        ...

    def result(self, pk: int) -> bytes | None:
        """The stored body of a row's outcome, as it came; None if there is none.

        Raises:
            ResultDamaged: there is one, and it cannot be read.
        """
        ...

    def facts(self) -> dict[str, object]:
        """Of the journal itself.

        `base_url`, `created` (seconds since 1970), `made_by` (version), `openings`, `clean` (its last opening ended in
        order), and `exhausted`: the last source of questions was read to its end. While it was not, there may be more
        questions than are known here.
        """
        ...

    def writer(self) -> tuple[int, str] | None:
        """Process and host that have the journal open for writing, as they said; None if nobody seems to."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None: ...
