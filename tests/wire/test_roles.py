"""What is the answer among what a model says, by role, channel, phase, recipient and status, in all forms of a body."""

from __future__ import annotations

import random
from typing import Any

import pytest
from _bodies import reply

from aiopplx import JobStatus
from aiopplx._job import Answer
from aiopplx._wire.roles import Part, answering, part_of
from aiopplx.agent import AGENT
from aiopplx.apis._registry import read_job
from aiopplx.sonar import SONAR

ANSWER = "The Vasa sank in 1628."
WAY = "I look that up now."
MARKS: list[tuple[dict[str, str], bool]] = [
    ({"phase": "commentary"}, False),
    ({"phase": "preamble"}, False),
    ({"channel": "commentary"}, False),
    ({"channel": "analysis"}, True),
    ({"channel": "Thinking"}, True),
    ({"channel": "commentary", "recipient": "functions.search"}, False),
    ({"recipient": "browser.open"}, False),
    ({"phase": "final_answer", "channel": "analysis"}, True),
]
"""What is said beside an answer, and whether it is thought."""
FINAL: list[dict[str, str]] = [
    {},
    {"phase": "final_answer"},
    {"channel": "final"},
    {"channel": "final", "recipient": "all"},
    {"recipient": "user"},
]
Said = list[tuple[str, dict[str, str]]]


def items(said: Said) -> tuple[Any, Any]:
    parts = [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": t}], **m} for t, m in said
    ]
    return AGENT, {"id": "resp_1", "object": "response", "status": "completed", "output": parts}


def parts(said: Said) -> tuple[Any, Any]:
    content = [{"type": "output_text", "text": text, **marks} for text, marks in said]
    output = [{"type": "message", "role": "assistant", "content": content}]
    return AGENT, {"id": "resp_1", "object": "response", "status": "completed", "output": output}


def choices(said: Said) -> tuple[Any, Any]:
    rows = [{"index": n, "message": {"role": "assistant", "content": t, **m}} for n, (t, m) in enumerate(said)]
    return SONAR, {"id": "j", "model": "m", "created_at": 1, "status": "COMPLETED", "response": {"choices": rows}}


def choices_of_texts(said: Said) -> tuple[Any, Any]:
    rows = [{"index": n, "text": text, **marks} for n, (text, marks) in enumerate(said)]
    return SONAR, {"id": "j", "model": "m", "created_at": 1, "status": "COMPLETED", "response": {"choices": rows}}


def parts_of_a_choice(said: Said) -> tuple[Any, Any]:
    content = [{"type": "text", "text": text, **marks} for text, marks in said]
    rows = [{"index": 0, "message": {"role": "assistant", "content": content}}]
    return SONAR, {"id": "j", "model": "m", "created_at": 1, "status": "COMPLETED", "response": {"choices": rows}}


def conversation(said: Said) -> tuple[Any, Any]:
    rows = [{"role": "user", "content": "Why?"}, *({"role": "assistant", "content": t, **m} for t, m in said)]
    return SONAR, {"id": "j", "status": "completed", "messages": rows}


FORMS = [items, parts, choices, choices_of_texts, parts_of_a_choice, conversation]


def answer_of(form: Any, said: Said) -> Answer:
    api, body = form(said)
    snapshot = read_job(api, reply(body))
    assert snapshot.status is JobStatus.COMPLETED
    assert snapshot.response is not None
    return snapshot.response.answer()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("marks", "is_thought"), MARKS, ids=str)
@pytest.mark.parametrize("final", FINAL, ids=str)
@pytest.mark.parametrize("is_last", [True, False])
def test_what_is_said_on_the_way_is_no_answer(
    form: Any, marks: dict[str, str], is_thought: bool, final: dict[str, str], is_last: bool
) -> None:
    said = [(WAY, marks), (ANSWER, final)]
    answer = answer_of(form, said if is_last else said[::-1])
    assert answer.text == ANSWER
    if form is not conversation:
        assert answer.reasoning == WAY


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("marks", "is_thought"), MARKS, ids=str)
def test_what_is_said_on_the_way_may_be_all(form: Any, marks: dict[str, str], is_thought: bool) -> None:
    answer = answer_of(form, [(WAY, marks)])
    assert (answer.text, answer.reasoning) == (WAY, None)


@pytest.mark.parametrize("form", FORMS)
def test_thought_comes_after_what_was_said_to_people(form: Any) -> None:
    answer = answer_of(form, [("Hm.", {"channel": "analysis"}), (WAY, {"channel": "commentary"})])
    assert answer.text == WAY


@pytest.mark.parametrize("form", [items, parts])
def test_unknown_marks_cost_nobody_an_answer(form: Any) -> None:
    first, second = ("First.", {"channel": "tomorrow"}), ("Second.", {"phase": "tomorrow"})
    assert "First." in (text := answer_of(form, [first, second]).text)
    assert "Second." in text
    assert answer_of(form, [first, (ANSWER, {"channel": "final"})]).text == ANSWER


@pytest.mark.parametrize("status", ["failed", "superseded", "CANCELLED", "discarded"])
def test_message_that_was_not_kept_is_no_answer(status: str) -> None:
    said = [("An old try.", {"status": status}), (ANSWER, {"status": "completed"})]
    assert answer_of(items, said).text == ANSWER
    assert answer_of(items, said[:1]).text == "An old try."


@pytest.mark.parametrize("form", [items, choices])
def test_run_that_only_speaks_on_the_way_runs(form: Any) -> None:
    for marks, is_over in (({"phase": "commentary"}, False), ({"phase": "final_answer"}, True), ({}, True)):
        api, body = form([(WAY, marks)])
        snapshot = read_job(api, reply({**body, "status": "searching_deeply"}))
        assert snapshot.status.is_final is is_over


@pytest.mark.parametrize("form", FORMS)
def test_no_word_is_lost_and_the_answer_is_final(form: Any) -> None:
    dice = random.Random(8)
    marks = [marks for marks, _ in MARKS] + FINAL
    for _ in range(300):
        said = [(f"Sentence {n}.", dice.choice(marks)) for n in range(dice.randint(1, 5))]
        answer = answer_of(form, said)
        assert answer.text
        kinds = {text: part_of(m.get("channel"), m.get("phase"), m.get("recipient")) for text, m in said}
        kept = answering((kind, text) for text, kind in kinds.items())
        assert [text for text in kinds if text in answer.text and text not in kept] == []
        if form in (items, parts):
            assert [text for text in kinds if text not in f"{answer.text} {answer.reasoning}"] == []
            assert [text for text in kept if text not in answer.text] == []


@pytest.mark.parametrize("odd", [None, 7, [], {}, "", " ", "x" * 200, True])
def test_odd_marks_say_nothing_final(odd: Any) -> None:
    assert part_of(odd, odd, odd, odd) in (Part.UNSAID, Part.UNKNOWN)
