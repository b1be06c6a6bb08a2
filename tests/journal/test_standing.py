"""What a person reads of a journal: where submissions stand, and what may be decided about them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import pytest

from aiopplx.journal import (
    Choice,
    Record,
    SqliteJournal,
    Stage,
    State,
    choices_of,
    open_reader,
    records_at,
    stage_of,
    stages_of,
    steps,
    words_of,
)

Q, S, A, D, F, I, E, R = State  # noqa: E741 - one letter each: the table is to be read
ALL = frozenset(get_args(Choice))

# State, its words, its stage while a session is at work and afterwards, and what may be decided.
TABLE: list[tuple[State, str, Stage, Stage, frozenset[str]]] = [
    (Q, "to send", "waiting", "waiting", frozenset()),
    (S, "being sent", "waiting", "in doubt", ALL),
    (A, "running", "running", "running", frozenset()),
    (D, "done", "finished", "finished", frozenset()),
    (F, "failed", "failed", "failed", frozenset({"resubmit"})),
    (I, "in doubt", "in doubt", "in doubt", ALL),
    (E, "expired", "failed", "failed", frozenset({"resubmit"})),
    (R, "rejected", "failed", "failed", frozenset({"resubmit"})),
]


def test_every_state_has_its_line() -> None:
    assert [line[0] for line in TABLE] == list(State)


@pytest.mark.parametrize(("state", "words", "active", "left", "choices"), TABLE, ids=[line[0].name for line in TABLE])
def test_state_has_words_a_stage_and_choices(
    state: State, words: str, active: Stage, left: Stage, choices: frozenset[str]
) -> None:
    record = Record(pk=1, item="", tag=None, key="k", body=b"", sha=b"", api="", state=state)
    assert words_of(state) == words
    assert (stage_of(state, is_active=True), stage_of(state, is_active=False)) == (active, left)
    assert choices_of(record) == choices


def test_choices_are_steps_that_the_table_lets_be_taken() -> None:
    """From the state itself, or from IN_DOUBT where it leads there first."""
    rules = {"resubmit": steps.REQUEUE, "adopt": steps.ACCEPTED, "drop": steps.DROP}
    for state, _, _, _, choices in TABLE:
        froms = {state, I} if state in steps.DOUBTFUL.origins else {state}
        assert all(rules[choice].origins & froms for choice in choices)


async def test_sending_is_in_doubt_once_its_session_is_gone(tmp_path: Path) -> None:
    place = tmp_path / "j.db"
    journal = await SqliteJournal.open(place, now=time.time)
    try:
        for number in range(3):
            record = await journal.find_or_queue(
                f"tag:{number}", tag=number, key=f"k{number}", body=b"{}", sha=b"%d" % number, api="sonar"
            )
            if number and record.claim is not None:
                await journal.apply(record.claim, steps.sending(key=record.key, attempt=1))
        with open_reader(place) as reader:
            assert stages_of(reader) == {"waiting": 3}
            assert list(records_at(reader, "in doubt")) == []
    finally:
        await journal.close()
    with open_reader(place) as reader:
        assert stages_of(reader) == {"waiting": 1, "in doubt": 2}
        assert [record.key for record in records_at(reader, "in doubt")] == ["k1", "k2"]
        assert [record.key for record in records_at(reader)] == ["k0", "k1", "k2"]
