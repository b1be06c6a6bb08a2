"""Whether a row may take a step, whether it has taken it already, and its columns afterwards: the same for every store.

This module knows nothing of how rows are stored, beyond how SQL says what becomes of a column, nor of who holds one.
"""

from __future__ import annotations

from aiopplx.journal._errors import ClaimLost, ImpossibleStep
from aiopplx.journal._kinds import kind_label
from aiopplx.journal._records import Record, Results, State
from aiopplx.journal._steps import DROPPED, SENDING, Kind, Put, Rule, Step


def may_take(step: Step, pk: int, row: Record | None, *, is_live: bool, is_latest: bool, path: str) -> bool:
    """True if the row may take this step; False if it has taken it already.

    Args:
        step: the step.
        pk: the number of the row.
        row: the row as it is; None if it does not exist.
        is_live: the caller's claim is still live.
        is_latest: no claim of the row was given after the caller's, and no other session holds it.
        path: the journal's file, for error messages.

    Raises:
        ClaimLost: the step needs a live claim.
        ImpossibleStep: the row's state, or its key, does not allow the step.
    """
    if row is None:
        raise _impossible(step, pk, None, path=path)
    kind = step.rule.kind
    if not is_live and (kind is Kind.INTENT or (kind is Kind.DENIAL and not is_latest)):
        raise _claim_lost(step, pk, path=path)
    if row.key == step.key and row.state in step.rule.origins and _is_new(step, row):
        return True
    if _is_done(step, row):
        return False
    raise _impossible(step, pk, row, path=path)


def _is_new(step: Step, row: Record) -> bool:
    """False for a mark that was already made. A mark that was taken back (QUEUED) may be made again."""
    if step.rule is not SENDING:
        return True
    return row.attempts < step.attempts or (row.attempts == step.attempts and row.state is State.QUEUED)


def _is_done(step: Step, row: Record) -> bool:
    if row.state is not step.rule.leads_to or row.key != (step.new_key or step.key):
        return False
    if row.word == DROPPED and step.word != DROPPED:
        return False  # the user gave it up: it has not ended at the server, and what that cost is not written here
    # A step without an id means the id that the row has.
    said = ((getattr(step, column), getattr(row, column)) for column in step.rule.proof)
    return all(not wanted or wanted == kept for wanted, kept in said)


def changes(step: Step, row: Record, now: float) -> dict[str, object]:
    """The row's columns after the step, for a store of records."""
    changes: dict[str, object] = {"state": step.rule.leads_to, "updated": now}
    for column, put in step.rule.columns.items():
        before: object = getattr(row, column)
        match put:
            case Put.GIVEN:
                changes[column] = getattr(step, column)
            case Put.GIVEN_OR_KEPT:
                changes[column] = getattr(step, column) or before
            case Put.NEW_KEY:
                changes[column] = step.new_key
            case Put.KIND:
                changes[column] = kind_label(step.api, step.body)
            case Put.NOW:
                changes[column] = now
            case Put.ONCE | Put.ONCE_WITH_ID:
                is_said = put is Put.ONCE or step.job_id
                changes[column] = now if before is None and is_said else before
            case _:
                changes[column] = put
    return changes


_IN_ANOTHER_TABLE = frozenset({"body"})
_EMPTY_IS_NULL = frozenset({"job_id", "key"})
"""Texts that are unique if known; unknown ones are NULL in a table."""


def assignments(rule: Rule, now: str) -> list[str]:
    """The same for a store of tables: what the row of a job is set to, in SQL.

    Args:
        rule: the step's.
        now: the store's own moment, in SQL.
    """
    return [_assignment(name, put, now) for name, put in rule.columns.items() if name not in _IN_ANOTHER_TABLE]


def _assignment(name: str, put: Put | str | bool | None, now: str) -> str:
    match put:
        case Put.GIVEN:
            value = f"nullif(:{name}, '')" if name in _EMPTY_IS_NULL else f":{name}"
        case Put.GIVEN_OR_KEPT:
            value = f"coalesce(nullif(:{name}, ''), {name})"
        case Put.NEW_KEY:
            value = ":new_key"
        case Put.KIND:
            value = ":kind"
        case Put.NOW:
            value = now
        case Put.ONCE:
            value = f"coalesce({name}, {now})"
        case Put.ONCE_WITH_ID:
            value = f"CASE WHEN :job_id = '' THEN {name} ELSE coalesce({name}, {now}) END"
        case str():
            value = "NULL" if name in _EMPTY_IS_NULL else f"'{put}'"
        case _:
            value = "NULL" if put is None else str(put).lower()
    return f"{name} = {value}"


def keeps(step: Step, results: Results) -> bool:
    """True if the step's body is stored. The "not found" of an expired job is not a result."""
    return bool(step.raw) and results != "refetch" and step.rule.leads_to is not State.EXPIRED


def _impossible(step: Step, pk: int, row: Record | None, *, path: str) -> ImpossibleStep:
    """The error for a step that the row's state, or its key, does not allow."""
    if row is None:
        what = f"row {pk} does not exist"
    elif row.key != step.key:
        what = f"row {pk} is now {row.state.name} under another key"
    else:
        what = f"row {pk} is {row.state.name}"
    return ImpossibleStep(
        f"{what}, so it cannot take the step {step.rule.name!r}; nothing was changed",
        step=step.rule.name,
        state=row.state.name if row is not None else "",
        path=path,
    )


def _claim_lost(step: Step, pk: int, *, path: str) -> ClaimLost:
    """The error for a step whose claim was lost."""
    return ClaimLost(
        f"another session now owns row {pk}, so this session cannot take the step {step.rule.name!r}; nothing was"
        " changed",
        path=path,
        idempotency_key=step.key,
    )
