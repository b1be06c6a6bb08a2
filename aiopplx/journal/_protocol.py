"""What a journal promises, whatever keeps it: the states of a submission, its record, the steps between them.

A step is on disk when its call returns; what was not yet true on disk must not have been done. The order is the
engine's to keep: `find_or_queue` before a submission is promised to anybody, `sending` before its first byte,
`accepted` before it is looked at, `ended` before its result is handed out, `taken` afterwards. This module knows
nothing of SQLite, of files, of HTTP, or of any policy: what to do about a row left in some state is not said here.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Literal, NamedTuple, Protocol

import msgspec

from aiopplx.journal._errors import (
    DuplicateJob,
    ImpossibleStep,
    ItemConflict,
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

__all__ = [
    "Claim",
    "Cost",
    "CostsBy",
    "DuplicateJob",
    "ImpossibleStep",
    "ItemConflict",
    "Journal",
    "JournalBroken",
    "JournalClosed",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalRefused",
    "Ledger",
    "Occurrences",
    "Reason",
    "Record",
    "ResultDamaged",
    "Results",
    "State",
    "fingerprint",
    "item_name",
    "job_name",
    "sha_of",
]

Results = Literal["keep", "until_taken", "refetch"]
"""What becomes of result bodies: kept for good; kept until `taken`; never stored (the server has them for days)."""

CostsBy = Literal["tag", "api", "state"]


class State(enum.IntEnum):
    """How far a submission is known to have come. The numbers are in files: they do not change."""

    QUEUED = 0
    """Nothing has left under this key, or what left was refused in full."""
    SENDING = 1
    """Bytes may have left. Found so after a restart, it is in doubt."""
    ACCEPTED = 2
    """The server has it, under `job_id`."""
    DONE = 3
    """There is a result."""
    FAILED = 4
    """The server ended it without one, or the user dropped it; `word` says which."""
    IN_DOUBT = 5
    """Sent, and no usable answer came: a job may exist."""
    EXPIRED = 6
    """The server once accepted it and knows it no longer."""
    REJECTED = 7
    """The server, or a check here, refused it: there is no job and no bill."""

    @property
    def is_final(self) -> bool:
        """True if nothing more will come of it without the user's own word."""
        return self >= State.DONE


class Claim(NamedTuple):
    """The right to change one row: the row, and the number under which the claim was given (a fencing token).

    A store that several processes share gives a higher number to each new holder of a row, and refuses the steps of an
    earlier one.
    """

    pk: int
    fence: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One submission as a journal knows it.

    Attributes:
        pk: its row; rows are numbered in the order in which they were first queued.
        fence: the number of the claim under which this copy was handed out.
        item: its name (`item_name`).
        tag: the user's own tag, None if there was none.
        key: the idempotency key, `""` if it is not known (a job from elsewhere).
        body: the exact bytes of the submission, `b""` if they are not known.
        sha: digest of the canonical request, `b""` if it is not known.
        api: the API that it goes, or went, to.
        state: how far it came.
        attempts: how many times it was marked as being sent under any key.
        first_sent: wall clock, seconds since 1970, when it was first marked under this key; None if never.
        job_id: the server's id, `""` if none is known.
        accepted_at: wall clock when its id was known here; None if it is not.
        word: the server's own word for how it ended, `""` before.
        error: why there is no result, or why it is in doubt; `""` otherwise.
        cost: US dollars as billed, None if not known.
        taken: True if its outcome was handed out.
        has_result: True if `Journal.result` has its body.
        updated: wall clock of the last change.
    """

    pk: int
    fence: int
    item: str
    tag: str | int | None
    key: str
    body: bytes
    sha: bytes
    api: str
    state: State
    attempts: int = 0
    first_sent: float | None = None
    job_id: str = ""
    accepted_at: float | None = None
    word: str = ""
    error: str = ""
    cost: float | None = None
    taken: bool = False
    has_result: bool = False
    updated: float = 0.0

    @property
    def claim(self) -> Claim:
        """What each step of this row is asked with."""
        return Claim(self.pk, self.fence)


class Cost(msgspec.Struct, frozen=True):
    """What a group of submissions cost: `unknown` of them were, or may have been, billed an amount not known here.

    `name` is the tag, the API's name or the state's; None stands for submissions without a tag.
    """

    name: str | int | None
    submissions: int
    dollars: float
    unknown: int


class Ledger(msgspec.Struct, frozen=True):
    """What a budget starts from: dollars spent, bills of unknown amount, and the latest known costs, newest first."""

    spent: float
    unknown: int
    samples: tuple[float, ...]


class Journal(Protocol):
    """Where submissions are written down, and found again.

    Each step changes one row, if it is in a state that allows it, and raises `ImpossibleStep` if not. Steps are carried
    out in the order in which they were asked for. A step once asked for is carried out even if the caller is cancelled
    meanwhile; a later call on the same row then finds it done.

    All steps raise `JournalFull` or `JournalBroken` where they could not be written (the row is as before, and the same
    step may be asked for again), and `JournalClosed` after `close`.

    A store that several processes share hands out a row to one of them at a time, under a lease that it renews by
    itself: `rows` passes over what another holds, `find_or_queue` raises `JournalLocked` for it, and a step under a
    claim that has run out raises `JournalBroken`, with the row unchanged.
    """

    @property
    def results(self) -> Results:
        """What becomes of result bodies."""
        ...

    async def find_or_queue(
        self, item: str, *, tag: str | int | None, key: str, body: bytes, sha: bytes, api: str
    ) -> Record:
        """The submission of this name: as it was left, if the journal has it; newly QUEUED otherwise.

        Of a known submission key, body and API are the stored ones, and those given are dropped. One that is known for
        another request (`sha`) takes on the new request only if no bill can exist (never sent, or REJECTED) and it was
        not asked for since the journal was opened: then somebody corrected a question between two runs.

        Raises:
            ItemConflict: the name is known for another request, or `key` for another name. Nothing was changed.
        """
        ...

    async def sending(self, claim: Claim) -> None:
        """QUEUED (or, to send the same bytes again, SENDING or IN_DOUBT) to SENDING. Before the first byte leaves."""
        ...

    async def accepted(self, claim: Claim, job_id: str) -> None:
        """SENDING to ACCEPTED. Also IN_DOUBT (its id was found) and EXPIRED (it was there after all).

        Asked for again with the same id, it does nothing.

        Raises:
            DuplicateJob: another submission has this id. Both rows are as before.
        """
        ...

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
        """The outcome and its body, both or neither.

        DONE and FAILED come after ACCEPTED, or straight after SENDING if the answer to the submission had it all (give
        `job_id` then); EXPIRED after ACCEPTED; REJECTED after QUEUED or SENDING.

        Args:
            claim: which row.
            state: DONE, FAILED, EXPIRED or REJECTED.
            job_id: the server's id, if `accepted` was not asked for before.
            word: the server's own word (`"COMPLETED"`, `"cancelled"`).
            raw: the answer's bytes as they came; `b""` if there is nothing worth keeping. Not stored of EXPIRED.
            error: why there is no result.
            cost: US dollars as billed, None if not known.

        Raises:
            DuplicateJob: another submission has this id.
        """
        ...

    def taken(self, claim: Claim) -> None:
        """The outcome was handed out. Returns at once: it is written with the next step, or shortly.

        A crash before that hands the outcome out twice, never pays for it twice. Of a row that has no outcome, and
        after `close`, nothing is written.
        """
        ...

    def unread(self, is_unread: bool) -> None:
        """Note whether a source is being read that may hold more questions than the journal knows.

        Returns at once: it is on disk with the next step at the latest. After `close` nothing is written.
        """
        ...

    async def doubtful(self, claim: Claim, error: str) -> None:
        """SENDING (or IN_DOUBT) to IN_DOUBT."""
        ...

    async def back_to_queued(self, claim: Claim) -> None:
        """SENDING to QUEUED: nothing that was sent under this key can have made a job.

        Only where that holds for every attempt under the key: a refused second attempt says nothing of a first one
        that was not answered.
        """
        ...

    async def refreeze(self, claim: Claim, *, body: bytes, api: str) -> None:
        """Other bytes under the same key, for a row that is QUEUED: the API changed before anything was created."""
        ...

    async def requeue(self, claim: Claim, *, key: str, body: bytes, api: str) -> None:
        """A new submission in an old one's place, under a new key: it pays again. Only by the user's own word.

        IN_DOUBT, FAILED, EXPIRED or REJECTED to QUEUED. Key, id and cost of the old one stay in the journal's past, and
        count in `costs` and `ledger`.

        Raises:
            ItemConflict: `key` was used before.
        """
        ...

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """A job from elsewhere, as ACCEPTED; the record that has this id already, if one does.

        With a tag, a later submission under it finds this job, whatever it asks.

        Raises:
            ItemConflict: the tag is that of another submission. (One that is in doubt is resolved by `accepted`.)
        """
        ...

    async def drop(self, claim: Claim) -> None:
        """IN_DOUBT to FAILED, with the word `DROPPED`: the user gave it up. It is not sent again unasked."""
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
        """Records in one of these states whose `pk` is above `after`, lowest first: a page of at most `limit`."""
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
        """Write what is still to be written, and let go. A second call does nothing."""
        ...
