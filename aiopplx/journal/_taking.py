"""May a row take a step, has it taken it already, and what becomes of its columns: the same answers for every store.

This module knows nothing of how rows are kept, nor of who holds one.
"""

from __future__ import annotations

from aiopplx.journal._errors import ClaimLost, ImpossibleStep
from aiopplx.journal._records import Record, Results, State
from aiopplx.journal._steps import SENDING, Kind, Put, Step


def may_take(step: Step, pk: int, row: Record | None, *, is_live: bool, is_free: bool, path: str) -> bool:
    """True if the row takes this step; False if the step finds itself done.

    Args:
        step: what was asked for.
        pk: of which row.
        row: as it is; None if there is none.
        is_live: the claim under which it was asked for still holds.
        is_free: no other session holds the row.
        path: the journal's file, for what errors say.

    Raises:
        ClaimLost: it needs a live claim.
        ImpossibleStep: the row's state, or its key, does not allow it.
    """
    if row is None:
        raise _impossible(step, pk, None, path=path)
    kind = step.rule.kind
    if not is_live and (kind is Kind.INTENT or (kind is Kind.DENIAL and not is_free)):
        raise _claim_lost(step, pk, path=path)
    if row.key == step.key and row.state in step.rule.origins and _is_new(step, row):
        return True
    if _is_done(step, row):
        return False
    raise _impossible(step, pk, row, path=path)


def _is_new(step: Step, row: Record) -> bool:
    """False for a mark that was made already. One that was taken back (QUEUED) may be made again."""
    if step.rule is not SENDING:
        return True
    return row.attempts < step.attempts or (row.attempts == step.attempts and row.state is State.QUEUED)


def _is_done(step: Step, row: Record) -> bool:
    if row.state is not step.rule.leads_to or row.key != (step.new_key or step.key):
        return False
    # An id that the step does not say is the one that the row has.
    said = ((getattr(step, column), getattr(row, column)) for column in step.rule.proof)
    return all(not wanted or wanted == found for wanted, found in said)


def changes(step: Step, row: Record, now: float) -> dict[str, object]:
    """What the step makes of a row's columns, for a store that keeps records."""
    found: dict[str, object] = {"state": step.rule.leads_to, "updated": now}
    for column, put in step.rule.columns.items():
        before: object = getattr(row, column)
        match put:
            case Put.GIVEN:
                found[column] = getattr(step, column)
            case Put.GIVEN_OR_KEPT:
                found[column] = getattr(step, column) or before
            case Put.NEW_KEY:
                found[column] = step.new_key
            case Put.NOW:
                found[column] = now
            case Put.ONCE | Put.ONCE_WITH_ID:
                is_said = put is Put.ONCE or step.job_id
                found[column] = now if before is None and is_said else before
            case _:
                found[column] = put
    return found


def keeps(step: Step, results: Results) -> bool:
    """True if the body that came with this step is stored. "Not found" is no result of a job that expired."""
    return bool(step.raw) and results != "refetch" and step.rule.leads_to is not State.EXPIRED


def _impossible(step: Step, pk: int, row: Record | None, *, path: str) -> ImpossibleStep:
    """The error for a step that the row's state, or its key, does not allow."""
    if row is None:
        what = f"there is no row {pk}"
    elif row.key != step.key:
        what = f"row {pk} is {row.state.name} under another key by now"
    else:
        what = f"row {pk} is {row.state.name}"
    return ImpossibleStep(
        f"{what}, so it cannot take the step {step.rule.name!r}; it was left as it is",
        step=step.rule.name,
        state=row.state.name if row is not None else "",
        path=path,
    )


def _claim_lost(step: Step, pk: int, *, path: str) -> ClaimLost:
    """The error for a step that needs a claim which has been lost."""
    return ClaimLost(
        f"row {pk} is no longer this session's to write, so it cannot take the step {step.rule.name!r}; it was left as"
        " it is",
        path=path,
        idempotency_key=step.key,
    )
