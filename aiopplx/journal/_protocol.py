"""The protocol of a store of submissions, and that of a reader of one.

A step is on disk when its call returns; nothing may be done before the step that announces it is on disk. This gives
the order in which a session keeps its promises. Each is a call that has returned before the next thing happens:

1. `find_or_queue`, before a submission is promised to anyone: a second run finds it, and does not pay for it again.
2. `sending`, before its first byte leaves: a row without this mark was never sent, and may safely be sent.
3. `accepted`, before the job is polled: the id of a paid job survives the process.
4. `ended`, before the result is delivered: no caller has seen a result that a crash can take back.
5. `delivered`, after the caller has dealt with it, without waiting for the disk: a crash before it is written delivers
twice, but pays once.

Each promise rests on the one before it, so a crash between two of them leaves a row that says less than was done, never
more: a row in `SENDING` may or may not have been sent, one in `ACCEPTED` may have ended. What to do about it (send
again, poll, hold) is policy, and not decided here.

Several sessions may share one store. Reading a row gives no right to write it; that right is a `Claim`, which one
session at a time has while the row is in progress. A row that another session holds is returned nevertheless, without a
claim and with `is_held`: a session that wants its outcome waits with `follow`. `_steps` says which steps need a live
claim. A store for one session at a time has claims too, which end with that session: the session that has the store
open holds every row, and every earlier claim was another session's.

This module knows nothing of SQLite, of files, of HTTP, or of any policy.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator
from typing import Protocol, Self

from aiopplx.journal._records import Claim, Cost, CostsBy, Ledger, Origin, Record, Results, Room, State
from aiopplx.journal._steps import Step


class Journal(Protocol):
    """Where submissions are recorded and found again: one session's view of a store.

    Steps are carried out in the order of their calls. Once called, a step is carried out even if the caller is
    cancelled meanwhile; a later call on the same row then finds it done.

    All calls that write raise `JournalFull` or `JournalBroken` if they cannot (the row is unchanged, and the same step
    may be tried again, unless `JournalBroken.is_final`), `JournalAway` if the store cannot be reached at the moment,
    and `JournalClosed` after `close`.
    """

    @property
    def results(self) -> Results:
        """How long result bodies are kept."""
        ...

    @property
    def remembers(self) -> bool:
        """True if what was written can be found again. Only the store of a session without a journal returns False."""
        ...

    @property
    def shares(self) -> bool:
        """True if other sessions may have the same store open at the same time, in this process or in another one."""
        ...

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
        """The submission of this name: as it was left, if the journal has it; otherwise newly QUEUED.

        The record has a claim, unless another session holds the row: then it has `is_held`.

        For a known submission the stored key, body, API are used, and the given ones dropped. If the name is
        known for another request (`sha`), the row takes on the new request only if no bill can exist (never sent, or
        REJECTED) and it was not asked for since the journal was opened: a question was corrected between two runs.

        `origin` says where the question comes from this time. It is written together with the row, in place of what an
        earlier run said of it, so the record has the columns as they are now.

        Raises:
            ItemConflict: the name is known for another request, or `key` for another name. Nothing was changed.
        """
        ...

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """A job from elsewhere, as ACCEPTED; the existing record, if one has this id already.

        With a tag, a later submission with that tag finds this job, whatever its question. Claimed as by
        `find_or_queue`.

        Raises:
            ItemConflict: the tag belongs to another submission. (One that is in doubt is resolved by `accepted`.)
        """
        ...

    async def claim(self, pk: int) -> Record | None:
        """Take the right to write a row that was read.

        Returns:
            The row as it is now, with its claim; with `is_held` and without a claim if another session holds it; None
            if it does not exist. A final row has no holder: every session that asks gets a claim, and the first one to
            start it anew (`requeue`, `sending`) becomes its holder.
        """
        ...

    async def free(self, limit: int, *, but: Collection[int] = ()) -> list[Record]:
        """Take the right to write rows that may be billed and that nobody holds: their session has ended, or is dead.

        These are rows in SENDING and ACCEPTED. Of a row in QUEUED nothing was sent, so it is left for whoever asks for
        it; a final row has no holder. Rows that were freed by `release` are among them. Two sessions that ask at once
        get different rows. In a store for one session at a time there are none.

        Args:
            limit: the most rows that are taken.
            but: rows that are left to others.

        Returns:
            The rows, lowest `pk` first, each with its claim.
        """
        ...

    async def held(self, but: Collection[int]) -> list[Claim]:
        """The claims of the rows in progress that this session holds, other than these rows. It changes nothing.

        A session may hold a row without knowing it: its caller was cancelled while the row was found, or the answer to
        `free` was lost. In a store for one session at a time there are none: no other session waits for them.
        """
        ...

    async def alike(self, sha: bytes, *, api: str, item: str, beginning: str) -> list[Record]:
        """What there is for whoever would rather reuse an answer to this very request at this API, in one look.

        It gives no right to write, as `get`.

        Args:
            sha: of the canonical request (`store.sha_of`).
            api: the name of the API.
            item: the name of the submission itself.
            beginning: of the names of submissions that may be reused.

        Returns:
            At most three rows, lowest `pk` first: the one of that name; the newest of this request that has a result or
            may still get one (in QUEUED, SENDING, ACCEPTED or DONE); and the newest of it whose name begins so.
        """
        ...

    async def release(self, claim: Claim) -> None:
        """Give up the right to write a row that is left as it is, so that another session may claim it.

        Does nothing if the claim is not live any more. In a store for one session at a time it stays as it is.
        """
        ...

    async def apply(self, claim: Claim, step: Step) -> bool | None:
        """Take a step (made by a function of `steps`). A step that was already taken does nothing.

        What the claim must be depends on the kind of the step (`step.rule.kind`). An intent needs a live claim. A fact
        needs none, only the row's key. A denial is taken under a live claim; under one that is not live any more it is
        taken only while no session has claimed the row since. In a store for one session at a time the session that has
        it open holds every row, so a denial under an earlier claim is always refused there. `store.may_take` decides
        all of this.

        Returns:
            True if another session had taken this very step already, so that it has told what came of it. False or None
            if this session has, now or by an earlier call whose answer was lost.

        Raises:
            ClaimLost: another session owns the row, or has owned it since, and this step needs a claim, or is a denial.
                The row is unchanged.
            ImpossibleStep: the row's state, or its key, does not allow the step. The row is unchanged.
            DuplicateJob: another submission has the step's job id. Both rows are unchanged.
            ItemConflict: the new key of a `requeue` was used before. The row is unchanged.
        """
        ...

    async def forget(self, seconds: float, *, limit: int = 500) -> int:
        """Remove submissions that ended so long ago by the store's clock, with question, columns and result.

        Their keys, ids and bills are kept. What is in progress or in doubt is never removed. An outcome that was not
        delivered is kept for twice as long. A store for one session at a time removes nothing.

        Args:
            seconds: since the end, of one that was delivered.
            limit: the most that are removed at once.

        Returns:
            How many were removed.
        """
        ...

    def may_intend(self) -> bool:
        """Whether this session is sure, at this moment, to hold what it has claimed.

        Asked after a step that announces that something is sent, and before it is: a process that stood still in
        between may have lost its rows. False only for a while: then the step is applied again.
        """
        ...

    async def follow(self, pks: Collection[int], *, timeout: float) -> None:
        """Wait until one of these rows, which another session holds, has changed or was freed.

        Returns at once if one of them is not held by another session (any more), and after `timeout` real seconds at
        the latest. The caller then reads the rows.
        """
        ...

    def delivered(self, claim: Claim, key: str, state: State) -> None:
        """This outcome was delivered. Returns at once: this is written with the next step, or shortly after.

        A crash before that delivers the outcome twice, but never pays for it twice. Nothing is written for a row
        without an outcome, or after `close`; nor for one that was submitted again meanwhile, or that has another
        outcome by now (a job that had expired was found after all).

        Args:
            claim: the right to write the row.
            key: the key of the submission whose outcome it was.
            state: which outcome.
        """
        ...

    def exhausted(self, is_exhausted: bool) -> None:
        """Mark the source of the questions as (not) exhausted: until it is, there may be more questions than the store
        knows.

        Returns at once: it is on disk with the next step at the latest. After `close` nothing is written.
        """
        ...

    async def result(self, pk: int) -> bytes | None:
        """The stored body of a row's outcome, unchanged; None if there is none.

        Raises:
            ResultDamaged: there is one, and it cannot be read.
        """
        ...

    async def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """The record with this row number, name, id or key: the first of these that is given. None if there is none."""
        ...

    async def rows(self, states: Collection[State], *, after: int = 0, limit: int = 500) -> list[Record]:
        """Records in one of these states whose `pk` is above `after`, lowest first: a page of at most `limit`.

        They include rows that other sessions hold, and give no right to write.
        """
        ...

    async def counts(self) -> dict[State, int]:
        """The number of records in each state; every state is present."""
        ...

    async def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """What was spent, most expensive first."""
        ...

    async def ledger(self, samples: int = 200) -> Ledger:
        """What a budget starts with, including at most `samples` known costs of each kind of job."""
        ...

    async def recall(self, name: str) -> bytes | None:
        """What was last remembered under this name, in this session or an earlier one; None if nothing was."""
        ...

    async def remember(self, name: str, value: bytes) -> None:
        """Keep what this session has learnt (a limit, how long jobs take) for later ones, in place of what was there.

        The store does not know what it means. It is one row, rewritten as a whole: a few kilobytes, and seldom. What a
        program notes (`JournalOptions.notes`) comes under names that begin with `store.NOTE`.
        """
        ...

    async def close(self) -> None:
        """Write everything that is pending, free the rows that this session holds, and close.

        A second call does nothing.
        """
        ...


class Pool(Protocol):
    """A shared store that keeps one budget for all its sessions. `Journal.apply` settles it with the step that ends.

    What is spent and held is never more than the cap, but for what jobs cost above what was held back for them.
    """

    async def cap(self, dollars: float) -> float | None:
        """Set the cap of all sessions. Returns the one before, None if there was none."""
        ...

    async def hold(self, claim: Claim, dollars: float, *, again: bool) -> bool:
        """Hold back so much for a row, in place of what it held before; False if there is no room for it.

        It is let go when the row ends with a known cost or was refused. One of unknown cost stays held. Asked again, it
        finds itself done, as long as the cap is not passed by then. A row in SENDING or IN_DOUBT keeps what it held if
        there is no room; any other row then holds nothing.

        Args:
            claim: of the row.
            dollars: the amount.
            again: the row is sent again, to a server that knows its key, so that no second bill can come of it. Where
                there is no room for more, a row in SENDING or IN_DOUBT is content with what it holds, unless the cap is
                passed already. If False, such a row needs room for the amount beside what it holds.

        Raises:
            ClaimLost: another session owns the row.
        """
        ...

    async def room(self, *, but: Collection[int] = ()) -> Room:
        """What is spent and held. What a session that is gone held for what it never sent is let go first.

        Args:
            but: rows that wait for room themselves, so that none comes of them.
        """
        ...

    async def recount(self) -> Room:
        """Set what is spent and held from the rows, after somebody has changed them by hand."""
        ...


class JournalReader(Protocol):
    """A journal for reading only, at any time: during a run, and after a crash. It changes nothing.

    Its calls block until the store has answered: a file does at once, a database over its network. They are for one
    thread, and see what was committed at that moment. All raise `JournalError` if the store cannot be read.
    """

    @property
    def path(self) -> str:
        """The journal's location, for a person."""
        ...

    def counts(self) -> dict[State, int]:
        """The number of records in each state; every state is present."""
        ...

    def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """What was spent, most expensive first."""
        ...

    def ledger(self, samples: int = 200) -> Ledger:
        """What a budget starts with, including at most `samples` known costs of each kind of job."""
        ...

    def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """The record with this row number, name, id or key: the first of these that is given. None if there is none."""
        ...

    def rows(self, states: Collection[State] = tuple(State), *, after: int = 0, limit: int = 500) -> list[Record]:
        """Records in one of these states whose `pk` is above `after`, lowest first: a page of at most `limit`."""
        ...

    def replacement(self, *, key: str = "", job_id: str = "") -> Record | None:
        """The record that the user has had made in place of the one with this key or id; None if there is none."""
        ...

    def asked(self, *, every_run: bool = False) -> Iterator[Record]:
        """The records of what the last run asked, in the order of its source, each with the columns of its row.

        A submission that several rows ask for comes once for each. Then follow those that belong to no run: single
        calls, adopted jobs, and rows of journals of formats 1 and 2. Rows that only earlier runs asked for are left
        out, unless the last run has not read its source to the end: until it has, nobody knows which of them it asks
        for too.

        Args:
            every_run: leave nothing out; rows of earlier runs come after those of later ones.
        """
        ...

    def result(self, pk: int) -> bytes | None:
        """The stored body of a row's outcome, unchanged; None if there is none.

        Raises:
            ResultDamaged: there is one, and it cannot be read.
        """
        ...

    def facts(self) -> dict[str, object]:
        """Facts about the journal itself.

        `base_url`, `created` (seconds since 1970), `made_by` (version), `openings`, `clean` (it was closed properly
        after its last opening), `exhausted`: the last source of questions was read to its end, until when there may be
        more questions than the journal knows; and `notes`: what programs have noted, bytes by name.
        """
        ...

    def writer(self) -> tuple[int, str] | None:
        """Process and host that have the journal open for writing, by their own account; None if nobody seems to."""
        ...

    def close(self) -> None:
        """Close it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None: ...
