"""Answers, jobs and states in forms that no document has, in any place, under any status, in any wrapper."""

from __future__ import annotations

import json
import sys
from itertools import product
from random import Random
from typing import Any

import pytest
from _bodies import reply

from aiopplx._errors import ProtocolError
from aiopplx._job import Job, JobStatus, make_job, outcome_error
from aiopplx._wire.api import API
from aiopplx._wire.forms import answers_in
from aiopplx._wire.status import status_of
from aiopplx.agent import AGENT
from aiopplx.apis._registry import read_job
from aiopplx.sonar import SONAR

APIS = [pytest.param(SONAR, id="sonar"), pytest.param(AGENT, id="agent")]
TEXT = "It sank for want of ballast [1]."
ASKED = "Why did the Vasa sink?"
THOUGHT = "Let me see."


def read(api: API, body: Any, expected_id: str = "j") -> Job:
    snapshot = read_job(api, reply(body), expected_id)
    return make_job(snapshot.id, snapshot.status, outcome_error(snapshot), snapshot)


def message(content: Any = TEXT) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


PARTS: list[dict[str, Any]] = [{"type": "output_text", "text": TEXT}]
ITEM = {"type": "message", "role": "assistant", "content": PARTS}
FORMS: dict[str, Any] = {
    "text": TEXT,
    "texts": ["It sank for ", "want of ballast [1]."],
    "parts": PARTS,
    "parts with a thought": [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": TEXT}],
    "parts of another service": {"parts": [{"thought": True, "text": THOUGHT}, {"text": TEXT}]},
    "text in an object": {"text": TEXT},
    "value in a text": {"type": "text", "text": {"value": TEXT}},
    "content in an object": {"content": TEXT},
    "message": message(),
    "message with parts": message(PARTS),
    "conversation": [{"role": "user", "content": ASKED}, message()],
    "item": ITEM,
    "items": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]},
        {"type": "web_search_call", "action": {"query": ASKED}},
        ITEM,
    ],
    "output in an object": {"output": [ITEM]},
    "completion": {"choices": [{"message": message(), "finish_reason": "stop"}]},
    "completion of one choice": {"choices": {"message": {"content": TEXT}}},
    "completion of a text": {"choices": [{"text": TEXT}]},
    "completion of a bare message": {"choices": [{"message": TEXT}]},
    "completion of a text in an object": {"choices": [{"message": message({"text": TEXT})}]},
    "completion of texts": {"choices": [{"message": message([TEXT])}]},
    "choices": [{"message": message(), "finish_reason": "stop"}],
    "candidates": {"candidates": [{"content": {"parts": [{"thought": True, "text": THOUGHT}, {"text": TEXT}]}}]},
    "message in an object": {"message": message()},
    **{f"{name} in an object": {name: TEXT} for name in ("output_text", "answer", "result", "response", "report")},
}
FORMS |= {f"{name} as JSON": json.dumps(form) for name, form in FORMS.items() if name != "text"}
PLACES = [
    *("output", "output_text", "response", "result", "answer", "completion", "text", "content", "data", "outputs"),
    *("results", "final_answer", "report", "generated_text", "choices"),
]
COMPLETED = ["COMPLETED", "completed", "DONE", "Succeeded", "JOB_STATE_SUCCEEDED", "finished"]
RUNNING = ["in_progress", "IN_PROGRESS", "queued", "CREATED", "running", "JOB_STATE_PROCESSING"]
WRAPS = ["data", "result", "response", "body", "job", "payload", "output"]


def wrapped(random: Random, body: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """A body in up to three wrappers, each of which may say that all is well, and hold it as a text or in a list."""
    for _ in range(random.randrange(1, 4)):
        held: Any = random.choice([body, body, json.dumps(body), [body]])
        body = {random.choice(names): held}
        if random.random() < 0.5:
            body |= {"code": 0, "status": random.choice([200, "success", "ok"]), "requestId": "r-9", "message": "OK"}
    return body


def is_text(job: Job, form: Any) -> bool:
    """Whether the answer is the text; JSON without the form of a service may be the answer itself."""
    return job.ok and job.text in (TEXT, form) and job.reasoning in (None, THOUGHT)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("api", APIS)
def test_answer_is_found_in_any_place_and_form(api: API, form: str) -> None:
    random = Random(form)
    for place in PLACES:
        if place == "choices" and form.startswith("text") and " in " not in form:
            continue  # several texts are several choices
        status = random.choice(COMPLETED)
        body = {"id": "j", "status": status, "input": ASKED, place: FORMS[form], "request": {"id": "x"}}
        for expected_id in ("j", ""):
            found = read(api, body, expected_id)
            assert is_text(found, FORMS[form]), (place, status)
            assert found.id == "j"
        with pytest.raises(ProtocolError):
            read(api, body, "other")
        # A status that nobody knows, beside the moment of an end.
        assert is_text(read(api, body | {"status": "RETICULATED", "completed_at": 5}), FORMS[form]), place
        runs = read(api, body | {"status": random.choice(RUNNING)})
        assert not runs.status.is_final, (place, runs.server_status)


@pytest.mark.parametrize("form", ["text in an object", "message", "message with parts", "answer in an object"])
@pytest.mark.parametrize("api", APIS)
def test_what_stands_beside_a_text_comes_with_it(api: API, form: str) -> None:
    beside = {"citations": ["https://a.example"], "usage": {"input_tokens": 7, "cost": {"total_cost": 0.25}}}
    for place, as_text in product(("output", "result", "data", "response"), (False, True)):
        for held in (FORMS[form] | beside, FORMS[form]):
            outside = beside if held is FORMS[form] else {}
            if as_text and form in ("text in an object", "answer in an object"):
                continue  # JSON that may be the answer itself
            body = {"id": "j", "status": "completed", place: json.dumps(held) if as_text else held, **outside}
            found = read(api, body)
            assert is_text(found, FORMS[form]), body
            assert (found.cost, found.usage and found.usage.input_tokens) == (0.25, 7), body
            assert [source.url for source in found.sources] == ["https://a.example"], body
    # The keys of an answer that is JSON are its own.
    found = read(api, {"id": "j", "status": "completed", "output": json.dumps({"answer": "a"} | beside)})
    assert (found.cost, found.sources) == (None, [])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("api", APIS)
def test_answer_is_found_in_nested_wrappers(api: API, form: str) -> None:
    random = Random(form)
    for _ in range(12):
        name = random.choice(["status", "state", "jobStatus"])
        job = {"id": "j", name: random.choice(COMPLETED), random.choice(PLACES[:5]): FORMS[form], "error": None}
        body = wrapped(random, job, WRAPS)
        found = read(api, body)
        assert is_text(found, FORMS[form]), body
        assert found.id == "j"
        assert found.server_message == ""


@pytest.mark.parametrize("api", APIS)
def test_failure_is_found_in_nested_wrappers(api: API) -> None:
    random = Random(8)
    forms: list[Any] = [
        "out of pages",
        {"message": "out of pages"},
        ["out of pages"],
        {"error": {"why": "out of pages"}},
    ]
    forms += [json.dumps(form) for form in forms[1:]]
    names = ["error", "errorMessage", "reason", "status_details", "message", "result", "logs", "info", "notes", "cause"]
    for name, form in product(names, forms):
        job = {"id": "j", "status": random.choice(["failed", "FAILED", "GONE"]), "failed_at": 5, name: form}
        body = wrapped(random, job, WRAPS[:-1])
        found = read(api, body)
        assert (found.id, found.status) == ("j", JobStatus.FAILED), body
        assert "out of pages" in found.server_message, body


def test_error_beside_a_wrapped_job_is_told() -> None:
    for outside in ({"error": "out of pages"}, {"message": "out of pages"}, {"warnings": ["out of pages"]}):
        for job in ({"status": "failed"}, {"status": "completed", "output": TEXT}):
            assert "out of pages" in read(AGENT, {"data": {"id": "j", **job}, **outside}).server_message


# --- what is not the answer -------------------------------------------------------------------------------------------

ECHOES = [
    *("input", "request", "instructions", "prompt", "question", "query", "original_request", "params", "metadata"),
    *("config", "user", "arguments", "context", "system", "reasoning", "thinking", "tools", "tool_calls", "plan"),
    *("search_results", "citations", "queries", "history"),
]


@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("api", APIS)
def test_echo_is_neither_answer_nor_reason(api: API, name: str) -> None:
    for form, wrap in product(FORMS.values(), ("", "data", "response", "output")):
        body = {wrap: {name: form}} if wrap else {name: form}
        for status in ({"status": "COMPLETED"}, {"status": "FAILED", "failed_at": 5}):
            found = read(api, {"id": "j", **status, **body})
            assert not found.ok, body
            assert "ballast" not in f"{found.text}{found.server_message}{found.error}", body


PAGE = {"title": TEXT, "url": "https://e.example"}
NOT_SAID: list[dict[str, Any]] = [
    {"results": [{**PAGE, "content": TEXT}]},
    {"data": [{"title": "Vasa", "link": "https://e.example", "text": TEXT}]},
    {"result": {"status": "ok", "message": TEXT}},
    {"output": [{"type": "web_search_call", "query": TEXT, "text": TEXT}]},
    {"output": [{"type": "search_results", "queries": [TEXT], "results": [{**PAGE, "content": TEXT}]}]},
    {"output": [{"type": "reasoning", "text": TEXT, "content": [{"type": "reasoning_text", "text": TEXT}]}]},
    {"output": {"type": "reasoning", "text": TEXT}},
    {"output": [{"type": "function_call", "name": "f", "arguments": TEXT, "call_id": "c"}]},
    {"output": [{"type": "refusal", "refusal": TEXT}]},
    {"output": [{"role": "tool", "content": TEXT}]},
    {"output": [{"role": "user", "content": TEXT}]},
    {"content": [{"type": "thinking", "thinking": TEXT}]},
    {"candidates": [{"content": {"parts": [{"thought": True, "text": TEXT}]}}]},
    {"choices": [{"message": {"role": "assistant", "reasoning_content": TEXT, "content": ""}}]},
    {"messages": [message(), {"role": "user", "content": ASKED}]},
    {"body": {"messages": [{"role": "user", "content": TEXT}], "model": "m"}},
]


@pytest.mark.parametrize("body", NOT_SAID, ids=lambda body: json.dumps(body)[:40])
@pytest.mark.parametrize("api", APIS)
def test_thought_page_or_tool_is_no_answer(api: API, body: dict[str, Any]) -> None:
    for wrap in ("", "response", "data"):
        assert not read(api, {"id": "j", "status": "COMPLETED", **({wrap: body} if wrap else body)}).text


@pytest.mark.parametrize("text", ['{"text": "a", "answer": "b"}', '{"verdict": true}', '["a", "b"]', '[{"a": 1}]'])
@pytest.mark.parametrize("place", ["output", "response", "result", "answer"])
@pytest.mark.parametrize("api", APIS)
def test_answer_that_is_json_stays_whole(api: API, place: str, text: str) -> None:
    found = read(api, {"id": "j", "status": "COMPLETED", place: text})
    assert (found.ok, found.text) == (True, text)


@pytest.mark.parametrize("api", APIS)
def test_id_within_a_job_is_never_the_jobs(api: API) -> None:
    inner = [{"id": "x", **ITEM}, {"id": "y", "type": "function_call", "call_id": "z", "name": "f"}]
    for body in (
        {"status": "completed", "output": inner, "id": "j"},
        {"status": "completed", "response": {"id": "x", "choices": [{"message": message()}]}, "id": "j"},
        {"status": "completed", "result": {"id": "x", "output": inner}, "request": {"id": "y"}, "id": "j"},
        {"status": "completed", "data": {"id": "x", "answer": TEXT, "status": "completed"}, "id": "j"},
    ):
        for expected_id in ("j", ""):
            found = read(api, body, expected_id)
            assert (found.id, found.text) == ("j", TEXT)
        for other in ("y", "z"):
            with pytest.raises(ProtocolError):
                read(api, body, other)


# --- a thought --------------------------------------------------------------------------------------------------------

THOUGHTS: list[Any] = [
    THOUGHT,
    [THOUGHT],
    {"text": THOUGHT},
    [{"text": THOUGHT}],
    [{"type": "summary_text", "text": THOUGHT}],
    [{"type": "thinking", "thinking": THOUGHT}],
]


@pytest.mark.parametrize(
    "name",
    ["reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks", "thought", "thoughts"],
)
def test_thought_beside_a_text_is_the_reasoning(name: str) -> None:
    for said in THOUGHTS:
        beside = {name: said}
        sonar = [{"choices": [{"message": message() | beside}]}, {"choices": [{"message": message(), **beside}]}]
        bodies = [(SONAR, {"status": "COMPLETED", "response": response}) for response in sonar]
        bodies += [(AGENT, {"status": "completed", "output": [ITEM | beside]})]
        bodies += [(api, {"status": "completed", "result": {"answer": TEXT, **beside}}) for api in (SONAR, AGENT)]
        for api, body in bodies:
            found = read(api, {"id": "j", "object": "response", **body})
            assert (found.text, found.reasoning) == (TEXT, THOUGHT), body


@pytest.mark.parametrize("kind", ["thinking", "reasoning", "thought", "reasoning_text", "redacted_thinking"])
def test_thought_in_a_part_or_item_is_the_reasoning(kind: str) -> None:
    names = ["text", "thinking", "thought", "thoughts", "reasoning", "content", "summary", "reasoning_content"]
    for name, said in product(names, THOUGHTS):
        part = {"type": kind, name: said}
        bodies: list[tuple[API, Any]] = [
            (SONAR, {"status": "COMPLETED", "response": {"choices": [{"message": message([part, *PARTS])}]}}),
            (AGENT, {"status": "completed", "output": [ITEM | {"content": [part, *PARTS]}]}),
            (AGENT, {"status": "completed", "output": [part, ITEM]}),
        ]
        for api, body in bodies:
            found = read(api, {"id": "j", "object": "response", **body})
            assert (found.text, found.reasoning) == (TEXT, THOUGHT), body


# --- a status ---------------------------------------------------------------------------------------------------------


def spelt(word: str) -> list[Any]:
    """A status in the ways in which servers write one."""
    objects = [{name: word} for name in ("state", "status", "code", "value", "name", "phase", "type", "current")]
    texts = [
        word.upper(),
        word.title(),
        f" {word}\n",
        f"STATUS_{word.upper()}",
        f"job_{word}",
        f"JobStatus.{word.upper()}",
    ]
    return [word, *texts, *objects, [word], [{"state": word}], json.dumps(word), json.dumps({"state": word})]


@pytest.mark.parametrize("name", ["status", "state", "jobStatus", "phase", "task_state", "processing_status"])
@pytest.mark.parametrize("api", APIS)
def test_status_is_read_however_it_is_written(api: API, name: str) -> None:
    for wrap in ("", "data", "job"):
        for word, ended in (("failed", JobStatus.FAILED), ("in_progress", JobStatus.IN_PROGRESS)):
            for said in spelt(word):
                job = {"id": "j", "object": "response", name: said}
                body = {wrap: job, "ok": True} if wrap else job
                assert read(api, body).status is ended, body
        for said in spelt("completed"):
            job = {"id": "j", name: said, "output" if api is AGENT else "response": {"text": TEXT}}
            found = read(api, {wrap: job, "ok": True} if wrap else job)
            assert (found.status, found.text) == (JobStatus.COMPLETED, TEXT), job


OTHERS = ["user", "User", "human", "system", "developer", "tool", "function", "tool_result", "function_call_output"]


@pytest.mark.parametrize("role", OTHERS)
def test_message_of_another_is_no_answer(role: str) -> None:
    echo, said = {"role": role, "content": ASKED}, {"role": "assistant", "content": TEXT}
    for messages in ([echo], [echo, said], [said, echo]):
        choices = [{"message": message, "finish_reason": "stop"} for message in messages]
        output = [{"type": "message", **message} for message in messages]
        for status in ("completed", "failed", "done"):
            sonar = read(SONAR, {"id": "j", "status": status, "response": {"choices": choices}})
            agent = read(AGENT, {"id": "j", "status": status, "object": "response", "output": output})
            assert (sonar.text, agent.text) == ((TEXT,) * 2 if said in messages else ("", "")), messages


@pytest.mark.parametrize("role", ["assistant", "Assistant", "model", "ai", "bot", "researcher", "agent", "", None])
def test_role_that_nobody_knows_is_the_models(role: str | None) -> None:
    message = {"role": role, "content": TEXT}
    assert read(SONAR, {"id": "j", "status": "COMPLETED", "response": {"choices": [{"message": message}]}}).text == TEXT
    run = {"id": "j", "status": "completed", "output": [{"type": "message", **message}]}
    assert read(AGENT, run).text == TEXT


def test_status_is_not_looked_for_without_end() -> None:
    deep: object = "failed"
    for _ in range(2 * sys.getrecursionlimit()):
        deep = [deep]
    assert status_of({"status": deep}) == ""
    assert status_of({"status": [["failed"]]}) == "failed"


# --- anything ---------------------------------------------------------------------------------------------------------

FIELDS = [
    *("id", "status", "state", "output", "response", "result", "data", "choices", "message", "messages", "content"),
    *(
        "text",
        "type",
        "role",
        "error",
        "usage",
        "parts",
        "candidates",
        "answer",
        "body",
        "thinking",
        "reasoning",
        "done",
    ),
    *("warnings", "finish_reason", "created_at", "completed_at", "failed_at", "job", "citations", "search_results"),
    *("output_text", "delta", "object", "prompt_feedback", "logs", "value"),
]
VALUES: list[Any] = [
    *("completed", "COMPLETED", "failed", "text", "message", "assistant", "user", "thinking", "response", "hello"),
    *("{}", "[]", "{", '"', "", "j", "x" * 300, None, True, False, 0, 1, -5, 1e300, 10**30),
]


def any_value(random: Random, depth: int) -> Any:
    chance = random.random()
    if not depth or chance < 0.35:
        return random.choice(VALUES)
    if chance < 0.75:
        return {random.choice(FIELDS): any_value(random, depth - 1) for _ in range(random.randrange(5))}
    if chance < 0.9:
        return [any_value(random, depth - 1) for _ in range(random.randrange(4))]
    return json.dumps(any_value(random, depth - 1))


@pytest.mark.parametrize("seed", range(4))
def test_any_body_of_known_fields_is_read_or_refused(seed: int) -> None:
    random = Random(seed)
    jobs = 0
    for _ in range(250):
        body = any_value(random, 6)
        if isinstance(body, dict):
            body |= {"id": "j", "status": random.choice(["completed", "COMPLETED", "done", "failed", "weird"])}
        for api, expected_id in product((SONAR, AGENT), ("", "j")):
            try:
                job = read(api, body, expected_id)
            except ProtocolError:
                continue
            jobs += 1
            assert job.to_dict()["text"] == job.text
            assert isinstance(job.reasoning, str | None)
            assert job.unresolved >= 0
    assert jobs > 200


def test_huge_body_of_wrappers_is_read_within_bounds() -> None:
    names = ["data", "result", "response", "body", "payload", "output", "answer", "completion", "content"]
    body: dict[str, Any] = {name: {inner: {each: {"x": [1]} for each in names} for inner in names} for name in names}
    assert not read(SONAR, {"id": "j", "status": "done", **body}).text
    assert 0 < len(list(answers_in(json.dumps({"status": "done", **body}).encode()))) <= 3 * 50
