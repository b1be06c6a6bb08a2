"""What a journal hands out: the states of a submission, its record, the right to write it, and sums of money.

Plain values. This module knows nothing of the steps between the states, nor of how rows are kept.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

Results = Literal["keep", "until_delivered", "refetch"]
"""What becomes of result bodies: kept for good; kept until `delivered`; never stored (the server has them for days)."""

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


REPLACEABLE = frozenset({State.QUEUED, State.REJECTED})
"""States in which no bill exists."""

BILLED = frozenset({State.DONE, State.FAILED, State.EXPIRED, State.IN_DOUBT})
"""States in which there is, or may be, a bill: one that is not known counts as unknown."""

DELIVERABLE = frozenset(state for state in State if state.is_final)
"""States in which there is an outcome to be handed out. Such a row is held by nobody: whoever asks may have it."""


class Claim(msgspec.Struct, gc=False):
    """The right to write one row. Opaque: it comes from `find_or_queue`, `adopt` or `claim`, and goes to `apply`.

    `fence` is a fencing token: a store that several sessions share gives a higher number with each new claim of a row,
    so that the steps of an earlier holder can be told from those of the present one.
    """

    pk: int
    fence: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One submission as a journal knows it.

    Attributes:
        pk: its row; rows are numbered in the order in which they were first queued.
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
        delivered: True if its outcome was handed out.
        has_result: True if `Journal.result` has its body.
        updated: wall clock of the last change.
        age: seconds since `first_sent` by the store's own clock, when the record was read; None if it was never sent.
            At least 0, also where that clock was set back meanwhile.
        claim: the right to write it; None in a record that was only read, and in one that another session holds.
        is_held: another session holds it. What becomes of it is that session's to write; `Journal.follow` waits for it.
    """

    pk: int
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
    delivered: bool = False
    has_result: bool = False
    updated: float = 0.0
    age: float | None = None
    claim: Claim | None = None
    is_held: bool = False


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


def age_of(first_sent: float, now: float) -> float:
    """The age of a key. One from the future is new: the clock was set back, and the key is no older for that."""
    return max(0.0, now - first_sent)


class Bills(NamedTuple):
    """Submissions of one tag, API and state: how many, what they cost, and how many have no known cost."""

    tag: str | int | None
    api: str
    state: State
    submissions: int
    dollars: float
    unpriced: int


def added_up(bills: Iterable[Bills], by: CostsBy) -> list[Cost]:
    """Bills by one of their names, dearest first, in an order that does not depend on the one they came in."""
    groups: dict[tuple[bool, str | int | None], Cost] = {}
    for bill in bills:
        name = bill.tag if by == "tag" else bill.api if by == "api" else bill.state.name
        group = isinstance(name, str), name
        of = groups.get(group, Cost(name, 0, 0.0, 0))
        unknown = bill.unpriced if bill.state in BILLED else 0
        groups[group] = Cost(name, of.submissions + bill.submissions, of.dollars + bill.dollars, of.unknown + unknown)
    return sorted(groups.values(), key=lambda cost: (-cost.dollars, str(cost.name), isinstance(cost.name, str)))
