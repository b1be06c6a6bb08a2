"""The values that a journal returns: the states of a submission, its record, the right to write it, and sums of money.

Plain values. This module knows nothing of the steps between the states, nor of how rows are stored.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from aiopplx.journal._names import tenant_of

Results = Literal["keep", "until_delivered", "refetch"]
"""How long result bodies are kept: for good; until `delivered`; not at all (the server has them for days).

With `until_delivered` the question and the user's columns go with the result. The bytes of a submission that has no
result stay, since it may be submitted again.
"""

CostsBy = Literal["tag", "api", "state"]
"""What costs are added up by."""


class State(enum.IntEnum):
    """How far a submission is known to have come. The numbers are stored in files: they must not change."""

    QUEUED = 0
    """Nothing was sent under this key, or all of it was refused."""
    SENDING = 1
    """It may have been sent. If found in this state after a restart, it is in doubt."""
    ACCEPTED = 2
    """The server has accepted it, as `job_id`."""
    DONE = 3
    """It has a result."""
    FAILED = 4
    """The server ended it without a result, or the user dropped it; `word` says which."""
    IN_DOUBT = 5
    """Sent, and no usable answer came: a job may exist."""
    EXPIRED = 6
    """The server accepted it, and no longer knows it."""
    REJECTED = 7
    """The server, or a check here, refused it: there is no job and no bill."""

    @property
    def is_final(self) -> bool:
        """True if it will not change without an action of the user."""
        return self >= State.DONE


REPLACEABLE = frozenset({State.QUEUED, State.REJECTED})
"""States in which no bill exists."""

REPLACEABLE_IF_ASKED = REPLACEABLE | {State.DONE, State.FAILED, State.EXPIRED}
"""States in which a question may be replaced by another if the user agrees to pay again: nothing can come any more."""

BILLED = frozenset({State.DONE, State.FAILED, State.EXPIRED, State.IN_DOUBT})
"""States in which there is, or may be, a bill; without a known cost it counts as unknown."""

RUNNING = frozenset({State.SENDING, State.ACCEPTED})
"""States in which there may be a bill later, or is one already that nobody knows of."""

OVER = frozenset({State.DONE, State.FAILED, State.EXPIRED, State.REJECTED})
"""States in which nothing can come any more: such a row may be removed after its time."""

REUSABLE = frozenset({State.QUEUED, State.SENDING, State.ACCEPTED, State.DONE})
"""States in which an equal question may be answered by this row: it has a result, or may get one."""

DELIVERABLE = frozenset(state for state in State if state.is_final)
"""States with an outcome to deliver. Such a row has no holder: every session that asks gets it."""


class Claim(msgspec.Struct, gc=False):
    """The right to write one row. Opaque: returned by `find_or_queue`, `adopt` or `claim`, and passed to `apply`.

    `fence` is a fencing token: a store that several sessions share gives each new claim of a row a higher number, so
    that steps of an earlier holder can be recognized.
    """

    pk: int
    fence: int


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a submission comes from: a row of the user's table, or an item of a batch.

    Attributes:
        run: the batch that asks; `""` for a call of its own. Of two runs of one process the later one has the greater
            text; a store puts those of later openings after those of earlier ones.
        place: the item's index in the source of that batch.
        question: the question, as the row asks it.
        meta: the user's own columns, JSON values by name.
    """

    run: str = ""
    place: int = 0
    question: str = ""
    meta: dict[str, Any] = {}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One submission in a journal.

    Attributes:
        pk: its row; rows are numbered in the order in which they were first queued.
        item: its name (`item_name`).
        tag: the caller's tag, None if there was none.
        key: the idempotency key, `""` if unknown (a job from elsewhere).
        body: the exact bytes of the submission, `b""` if unknown.
        sha: digest of the canonical request, `b""` if unknown.
        api: the API of the submission.
        kind: the label of its kind of job, by which costs and durations are learned; `""` if unknown.
        state: how far it came.
        attempts: how many times it was marked as being sent, under any key.
        first_sent: wall clock, seconds since 1970, when it was first marked under this key; None if never.
        job_id: the server's id, `""` if unknown.
        accepted_at: wall clock when its id became known here; None if it is unknown.
        ended_at: wall clock when its end was written; None before, and where a former format did not tell.
        word: the server's own word for how it ended, `""` before.
        error: why there is no result, or why it is in doubt; `""` otherwise.
        cost: US dollars as billed, None if not known.
        delivered: True if its outcome was delivered.
        has_result: True if `Journal.result` returns its body.
        updated: wall clock of the last change.
        age: seconds since `first_sent` by the store's own clock, when the record was read; None if it was never sent.
            At least 0, even if that clock was set back meanwhile.
        claim: the right to write it; None in a record that was only read, or that another session holds.
        is_held: another session holds it, and will write its outcome; `Journal.follow` waits for that.
        question: the question, if `body` does not have it (an adopted job that was asked for later); else `""`.
            `job_of` has it in both cases.
        meta: the user's own columns, as they came last with this submission.
    """

    pk: int
    item: str
    tag: str | int | None
    key: str
    body: bytes
    sha: bytes
    api: str
    state: State
    kind: str = ""
    attempts: int = 0
    first_sent: float | None = None
    job_id: str = ""
    accepted_at: float | None = None
    ended_at: float | None = None
    word: str = ""
    error: str = ""
    cost: float | None = None
    delivered: bool = False
    has_result: bool = False
    updated: float = 0.0
    age: float | None = None
    claim: Claim | None = None
    is_held: bool = False
    question: str = ""
    meta: dict[str, Any] = {}

    @property
    def tenant(self) -> str:
        """Whose submission it is (`ask(tenant=)`), by its name; `""` if nobody's in particular."""
        return tenant_of(self.item)


class Cost(msgspec.Struct, frozen=True):
    """What a group of submissions cost; `unknown` of them were, or may have been, billed an unknown amount.

    `name` is the tag, the API's name or the state's name; None is for submissions without a tag.
    """

    name: str | int | None
    submissions: int
    dollars: float
    unknown: int


class KindCosts(msgspec.Struct, frozen=True):
    """What a store knows of the costs of one kind of job.

    Attributes:
        running: submissions that run, or may run, and are not billed yet as far as is known.
        unknown: submissions that were, or may have been, billed an unknown amount.
        samples: the latest known costs in US dollars, newest first.
    """

    running: int = 0
    unknown: int = 0
    samples: tuple[float, ...] = ()


class Ledger(msgspec.Struct, frozen=True):
    """What a budget starts with.

    Attributes:
        spent: the sum of all known costs, US dollars.
        kinds: the rest by kind of job, under the kind's label.
    """

    spent: float = 0.0
    kinds: Mapping[str, KindCosts] = {}

    @property
    def unknown(self) -> int:
        """How many submissions were, or may have been, billed an unknown amount."""
        return sum(costs.unknown for costs in self.kinds.values())


class Room(msgspec.Struct, frozen=True):
    """The budget that the sessions of a shared store have together, in US dollars.

    Attributes:
        cap: what may be spent, None if nobody said.
        spent: the sum of all known costs.
        held: held back for submissions whose cost is not known.
        may_change: whether something runs whose end may make room.
    """

    cap: float | None
    spent: float
    held: float
    may_change: bool


def age_of(first_sent: float, now: float) -> float:
    """The age of a key in seconds; 0 for a key from the future, which means that the clock was set back."""
    return max(0.0, now - first_sent)


class Bills(NamedTuple):
    """Submissions of one tag, API and state: how many, their cost, and how many have no known cost. With `kind` set, of
    one kind too.
    """

    tag: str | int | None
    api: str
    state: State
    submissions: int
    dollars: float
    unpriced: int
    kind: str = ""


def ledger_of(bills: Iterable[Bills], samples: Mapping[str, Iterable[float]]) -> Ledger:
    """Bills that have a kind, and the latest known costs of each kind, newest first, as what a budget starts with."""
    bills = list(bills)
    running: dict[str, int] = {}
    unknown: dict[str, int] = {}
    for bill in bills:
        counts = running if bill.state in RUNNING else unknown if bill.state in BILLED else None
        if counts is not None and bill.unpriced:
            counts[bill.kind] = counts.get(bill.kind, 0) + bill.unpriced
    return Ledger(
        sum(bill.dollars for bill in bills),
        {
            kind: KindCosts(running.get(kind, 0), unknown.get(kind, 0), tuple(samples.get(kind, ())))
            for kind in sorted({*running, *unknown, *samples})
        },
    )


def added_up(bills: Iterable[Bills], by: CostsBy) -> list[Cost]:
    """Bills grouped by one of their names, most expensive first, whatever the order in which they are given."""
    groups: dict[tuple[bool, str | int | None], Cost] = {}
    for bill in bills:
        name = bill.tag if by == "tag" else bill.api if by == "api" else bill.state.name
        group = isinstance(name, str), name
        of = groups.get(group, Cost(name, 0, 0.0, 0))
        unknown = bill.unpriced if bill.state in BILLED else 0
        groups[group] = Cost(name, of.submissions + bill.submissions, of.dollars + bill.dollars, of.unknown + unknown)
    return sorted(groups.values(), key=lambda cost: (-cost.dollars, str(cost.name), isinstance(cost.name, str)))
