"""Which step may follow which state: one table for every journal, and what is said when a step may not be taken.

This module knows nothing of how rows are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aiopplx.journal._protocol import Cost, CostsBy, DuplicateJob, ImpossibleStep, ItemConflict, Results, State

DROPPED = "DROPPED"
DROPPED_ERROR = "given up by the user while in doubt; a job may exist and be billed"

ENDINGS: Mapping[State, frozenset[State]] = {
    State.DONE: frozenset({State.SENDING, State.ACCEPTED}),
    State.FAILED: frozenset({State.SENDING, State.ACCEPTED}),
    State.EXPIRED: frozenset({State.ACCEPTED}),
    State.REJECTED: frozenset({State.QUEUED, State.SENDING}),
}
"""From which states a submission ends in each way."""

FROM: Mapping[str, frozenset[State]] = {
    "sending": frozenset({State.QUEUED, State.SENDING, State.IN_DOUBT}),
    "accepted": frozenset({State.SENDING, State.IN_DOUBT, State.EXPIRED}),
    "doubtful": frozenset({State.SENDING, State.IN_DOUBT}),
    "back_to_queued": frozenset({State.SENDING}),
    "refreeze": frozenset({State.QUEUED}),
    "requeue": frozenset({State.IN_DOUBT, State.FAILED, State.EXPIRED, State.REJECTED}),
    "drop": frozenset({State.IN_DOUBT}),
    "taken": frozenset(state for state in State if state.is_final),
}
"""From which states each step may be taken. `ended` is in `ENDINGS`."""

REPLACEABLE = frozenset({State.QUEUED, State.REJECTED})
"""States in which no bill exists."""

BILLED = frozenset({State.DONE, State.FAILED, State.EXPIRED, State.IN_DOUBT})
"""States in which there is, or may be, a bill: one that is not known counts as unknown."""


def endings(state: State) -> frozenset[State]:
    """From which states a submission may end in this one.

    Raises:
        ValueError: it is not an end.
    """
    if state not in ENDINGS:
        raise ValueError(f"{state.name} is not how a submission ends; one of {', '.join(s.name for s in ENDINGS)} is")
    return ENDINGS[state]


def keeps(state: State, results: Results) -> bool:
    """True if the body that came with this end is stored. "Not found" is no result of a job that expired."""
    return results != "refetch" and state is not State.EXPIRED


def billed(cost: float | None) -> float | None:
    """A cost that can be added up; None for anything else (a server may say NaN)."""
    return cost if cost is not None and math.isfinite(cost) and cost >= 0.0 else None


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


def impossible(
    step: str, pk: int, state: State | None, *, path: str, job_id: str = "", key: str = ""
) -> ImpossibleStep:
    """The error for a step that the state does not allow."""
    what = f"row {pk} is {state.name}" if state is not None else f"there is no row {pk}"
    return ImpossibleStep(
        f"{what}, so it cannot take the step {step!r}; it was left as it is",
        step=step,
        state=state.name if state is not None else "",
        path=path,
    )


def duplicate(job_id: str, other_key: str, *, path: str) -> DuplicateJob:
    """The error for an id that another row has."""
    return DuplicateJob(
        "the server gave the id of another submission to this one: whether this one made a job, and which, is unknown."
        " Nothing was overwritten",
        path=path,
        job_id=job_id,
        idempotency_key=other_key,
    )


def name_taken(item: str, tag: str | int | None, state: State) -> ItemConflict:
    """The error for a name that stands for another request."""
    return ItemConflict(
        f"{tag!r} is in the journal for another request ({state.name}); nothing was sent. Give the new question a tag"
        " of its own, or ask the old one unchanged",
        tag=tag,
        item=item,
    )


def key_taken(item: str, tag: str | int | None, other: str) -> ItemConflict:
    """The error for an idempotency key that was used already."""
    return ItemConflict(
        f"the journal has this key for another submission ({other}); one key stands for one submission. Nothing was"
        " sent",
        field="idempotency_key",
        tag=tag,
        item=item,
    )
