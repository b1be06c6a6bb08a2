"""What a row of the journal means for a submission that is asked for again."""

from __future__ import annotations

from itertools import product

import pytest

from aiopplx._policy.recovery import KEY_LIFE, RESENDS, Decision, decide
from aiopplx.journal import Record, State

UNKNOWN = (State.SENDING, State.IN_DOUBT)


def row(state: State, *, has_result: bool = False, age: float | None = 60.0, attempts: int = 1) -> Record:
    return Record(
        pk=1,
        item="tag:1",
        tag=1,
        key="a key",
        body=b"{}",
        sha=b"",
        api="sonar",
        state=state,
        attempts=attempts,
        has_result=has_result,
        age=age,
    )


def decided(record: Record, *, may_resend: bool = True, retry_failed: bool = False) -> Decision:
    return decide(record, may_resend=may_resend, retry_failed=retry_failed)


@pytest.mark.parametrize(
    ("state", "has_result", "retry_failed", "decision"),
    [
        (State.QUEUED, False, False, Decision.SEND),
        (State.QUEUED, False, True, Decision.SEND),
        (State.ACCEPTED, False, False, Decision.POLL),
        (State.ACCEPTED, False, True, Decision.POLL),
        (State.DONE, True, False, Decision.LOAD),
        (State.DONE, True, True, Decision.LOAD),
        (State.DONE, False, False, Decision.REFETCH),
        (State.DONE, False, True, Decision.REFETCH),
        (State.FAILED, True, False, Decision.LOAD),
        (State.FAILED, True, True, Decision.REQUEUE),
        (State.FAILED, False, False, Decision.DONE),
        (State.FAILED, False, True, Decision.REQUEUE),
        (State.EXPIRED, False, False, Decision.DONE),
        (State.EXPIRED, False, True, Decision.REQUEUE),
        (State.REJECTED, False, False, Decision.DONE),
        (State.REJECTED, False, True, Decision.REQUEUE),
    ],
    ids=str,
)
def test_decision_for_a_row_with_a_known_outcome(
    state: State, has_result: bool, retry_failed: bool, decision: Decision
) -> None:
    for may_resend in (True, False):
        assert decided(row(state, has_result=has_result), may_resend=may_resend, retry_failed=retry_failed) is decision


@pytest.mark.parametrize("state", UNKNOWN)
@pytest.mark.parametrize(
    ("age", "attempts", "may_resend", "decision"),
    [
        (60.0, 1, True, Decision.RESEND),
        (60.0, 1, False, Decision.HOLD),
        (None, 0, True, Decision.RESEND),
        (0.0, 1, True, Decision.RESEND),
        (KEY_LIFE - 1, 1, True, Decision.RESEND),
        (KEY_LIFE, 1, True, Decision.HOLD),
        (60.0, RESENDS - 1, True, Decision.RESEND),
        (60.0, RESENDS, True, Decision.HOLD),
    ],
    ids=str,
)
def test_decision_for_a_row_with_an_unknown_outcome(
    state: State, age: float | None, attempts: int, may_resend: bool, decision: Decision
) -> None:
    for retry_failed in (True, False):
        record = row(state, age=age, attempts=attempts)
        assert decided(record, may_resend=may_resend, retry_failed=retry_failed) is decision


def test_possibly_paid_rows_are_not_resent_without_keys() -> None:
    for state, has_result, retry_failed in product(State, (True, False), (True, False)):
        record = row(state, has_result=has_result)
        decision = decided(record, may_resend=False, retry_failed=retry_failed)
        if decision is Decision.SEND:
            assert state is State.QUEUED
        assert decision is not Decision.RESEND
