"""The table of steps equals the one written here by hand, and is complete."""

from __future__ import annotations

import inspect
import math

import msgspec
import pytest

from aiopplx.journal import _steps as steps
from aiopplx.journal._errors import ClaimLost, ImpossibleStep
from aiopplx.journal._records import Record, State
from aiopplx.journal._steps import Kind, Put, Step
from aiopplx.journal._taking import changes, keeps, may_take

Q, S, A, D, F, I, E, R = State  # noqa: E741 - one letter each: the table is to be read
INTENT, FACT, DENIAL = Kind

# Name, what it needs, from which states, to which, which columns change.
TABLE = [
    ("sending", INTENT, {Q, S, I}, S, {"attempts", "first_sent", "delivered", "error"}),
    ("back_to_queued", DENIAL, {S}, Q, {"first_sent"}),
    ("doubtful", DENIAL, {S, I}, I, {"error"}),
    ("accepted", FACT, {Q, S, I, E}, A, {"job_id", "accepted_at", "ended_at", "delivered", "error", "word"}),
    ("ended", FACT, {Q, S, A, I}, D, {"job_id", "accepted_at", "ended_at", "word", "error", "cost"}),
    ("ended", FACT, {Q, S, A, I}, F, {"job_id", "accepted_at", "ended_at", "word", "error", "cost"}),
    ("ended", FACT, {A}, E, {"job_id", "accepted_at", "ended_at", "word", "error", "cost"}),
    ("ended", DENIAL, {Q, S}, R, {"job_id", "accepted_at", "ended_at", "word", "error", "cost"}),
    ("refreeze", INTENT, {Q}, Q, {"body", "api", "kind"}),
    (
        "requeue",
        INTENT,
        {I, F, E, R},
        Q,
        {
            "key",
            "body",
            "api",
            "kind",
            "job_id",
            "first_sent",
            "accepted_at",
            "ended_at",
            "word",
            "error",
            "cost",
            "delivered",
        },
    ),
    ("dropped", FACT, {I}, F, {"ended_at", "word", "error"}),
]

ROW = Record(pk=1, item="tag:1", tag=1, key="k", body=b"{}", sha=b"s", api="sonar", state=Q)

EACH = {
    "sending": steps.sending(key="k", attempt=1),
    "back_to_queued": steps.back_to_queued(key="k"),
    "doubtful": steps.doubtful(key="k", error="?"),
    "accepted": steps.accepted(key="k", job_id="id"),
    **{f"ended {state.name}": steps.ended(state, key="k", word="w", raw=b"raw") for state in (D, F, E, R)},
    "refreeze": steps.refreeze(key="k", body=b"b", api="agent"),
    "requeue": steps.requeue(key="k", new_key="k2", body=b"b", api="agent"),
    "dropped": steps.dropped(key="k"),
}


def in_state(step: Step, state: State) -> Record:
    """A row in this state that a mark for the step's attempt would be new to."""
    return msgspec.structs.replace(ROW, state=state, attempts=max(0, step.attempts - 1))


def test_table_equals_the_one_written_here() -> None:
    found = [(rule.name, rule.kind, set(rule.origins), rule.leads_to, set(rule.columns)) for rule in steps.RULES]
    assert found == TABLE


def test_every_rule_has_a_function_that_makes_its_step() -> None:
    assert {step.rule for step in EACH.values()} == set(steps.RULES)
    assert all(callable(getattr(steps, rule.name)) for rule in steps.RULES)


def test_every_step_names_its_key() -> None:
    for rule in steps.RULES:
        key = inspect.signature(getattr(steps, rule.name)).parameters["key"]
        assert (key.kind, key.default) == (key.KEYWORD_ONLY, key.empty)


def test_columns_and_values_are_fields_of_record_and_step() -> None:
    record, step = ({field.name for field in msgspec.structs.fields(kind)} for kind in (Record, Step))
    for rule in steps.RULES:
        given = {name for name, put in rule.columns.items() if put in (Put.GIVEN, Put.GIVEN_OR_KEPT)}
        assert set(rule.columns) <= record
        assert given | set(rule.proof) <= step & record


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_step_leads_from_its_origins_to_one_state(name: str, state: State) -> None:
    step = EACH[name]
    row = in_state(step, state)
    if state in step.rule.origins:
        assert may_take(step, 1, row, is_live=True, is_latest=True, path="")
        assert changes(step, row, 5.0)["state"] is step.rule.leads_to
    elif state is not step.rule.leads_to:
        with pytest.raises(ImpossibleStep):
            may_take(step, 1, row, is_live=True, is_latest=True, path="")


@pytest.mark.parametrize("name", EACH)
def test_repeated_step_finds_itself_done(name: str) -> None:
    step = EACH[name]
    row = in_state(step, min(step.rule.origins))
    after = msgspec.structs.replace(row, **changes(step, row, 5.0))
    again = step if after.state not in step.rule.origins or step.rule.name == "sending" else None
    assert again is None or not may_take(again, 1, after, is_live=True, is_latest=True, path="")
    # The others lead to where they may be taken again, and change nothing then.
    assert again is not None or msgspec.structs.replace(after, **changes(step, after, 5.0)) == after


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize(("is_live", "is_latest"), [(True, True), (False, True), (False, False)])
def test_kind_says_who_lets_a_step_in(name: str, is_live: bool, is_latest: bool) -> None:
    step = EACH[name]
    needed = {INTENT: is_live, DENIAL: is_live or is_latest, FACT: True}[step.rule.kind]
    row = in_state(step, min(step.rule.origins))
    if needed:
        assert may_take(step, 1, row, is_live=is_live, is_latest=is_latest, path="")
    else:
        with pytest.raises(ClaimLost):
            may_take(step, 1, row, is_live=is_live, is_latest=is_latest, path="")


def test_only_what_a_session_will_do_is_an_intent() -> None:
    assert {rule.name for rule in steps.RULES if rule.kind is INTENT} == {"sending", "refreeze", "requeue"}


@pytest.mark.parametrize(
    ("attempts", "state", "attempt", "is_new"),
    [(0, Q, 1, True), (1, S, 2, True), (1, I, 2, True), (1, Q, 1, True), (1, S, 1, False), (3, S, 5, True)],
)
def test_mark_is_new_if_its_number_is(attempts: int, state: State, attempt: int, is_new: bool) -> None:
    row = msgspec.structs.replace(ROW, state=state, attempts=attempts)
    step = steps.sending(key="k", attempt=attempt)
    assert may_take(step, 1, row, is_live=True, is_latest=True, path="") is is_new


def test_end_without_an_id_keeps_the_known_one() -> None:
    row = msgspec.structs.replace(ROW, state=A, job_id="id", accepted_at=1.0)
    assert msgspec.structs.replace(row, **changes(EACH["ended DONE"], row, 5.0)).job_id == "id"


def test_body_is_kept_for_ends_with_a_result() -> None:
    kept = {(name, results) for name in EACH for results in ("keep", "refetch") if keeps(EACH[name], results)}
    assert kept == {("ended DONE", "keep"), ("ended FAILED", "keep"), ("ended REJECTED", "keep")}


def test_values_of_a_step_suit_any_store() -> None:
    step = steps.ended(D, key="k", word="\ud83d", error="é\ud83d", cost=math.nan)
    assert (step.word, step.error, step.cost) == ("?", "é?", None)


def test_step_shows_neither_question_nor_answer() -> None:
    shown = repr(steps.requeue(key="k", new_key="k2", body=b"the question", api="sonar"))
    assert "question" not in shown + repr(steps.ended(D, key="k", raw=b"the question"))
