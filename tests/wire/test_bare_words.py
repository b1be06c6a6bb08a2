"""What a server says in no structure is read all the same: an answer, a reason or a job that is a mere text."""

from __future__ import annotations

import json
from itertools import product
from random import Random
from typing import Any

import pytest
from _bodies import reply

from aiopplx._errors import ProtocolError
from aiopplx._job import Job, JobStatus, Snapshot, make_job, outcome_error
from aiopplx._wire.api import API
from aiopplx._wire.words import _is_remark
from aiopplx.agent import AGENT
from aiopplx.apis._registry import read_job
from aiopplx.sonar import SONAR

APIS = [pytest.param(SONAR, id="sonar"), pytest.param(AGENT, id="agent")]
TEXT = "It sank for want of ballast [1]."
ANSWERS = ["output", "output_text", "response", "result", "answer", "completion", "text", "content", "data"]


def read(api: API, expected_id: str = "j", **fields: Any) -> Snapshot:
    return read_job(api, reply({"id": "j", "object": "response", **fields}), expected_id)


def job_of(snapshot: Snapshot) -> Job:
    return make_job(snapshot.id, snapshot.status, outcome_error(snapshot), snapshot)


def text_of(snapshot: Snapshot) -> str:
    return snapshot.response.answer().text if snapshot.response is not None else ""


# --- an answer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("word", ["COMPLETED", "completed", "done", "Succeeded"])
@pytest.mark.parametrize("api", APIS)
def test_text_of_a_completed_job_is_its_answer(api: API, word: str, name: str) -> None:
    found = read(api, status=word, **{name: TEXT})
    assert (found.id, found.status, text_of(found)) == ("j", JobStatus.COMPLETED, TEXT)
    assert job_of(found).ok
    # Beside the fields of the API that are empty, as well.
    empty = {"response": None, "output": []} | {name: TEXT}
    assert text_of(read(api, status=word, **empty)) == TEXT
    assert text_of(read(api, status=word, data={name: TEXT, "status": word})) == TEXT


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("word", ["IN_PROGRESS", "queued", "RUNNING", "CREATED", None])
@pytest.mark.parametrize("api", APIS)
def test_text_of_a_job_that_runs_ends_nothing(api: API, word: str | None, name: str) -> None:
    if word is None and name in ("output_text", "answer", "completion"):
        return  # nothing else has these
    assert not read(api, status=word, **{name: TEXT}).status.is_final


@pytest.mark.parametrize("name", ["output", "response", "result", "data"])
@pytest.mark.parametrize("text", ["ok", "Success", "completed", "DONE", "true", " "])
def test_word_for_an_end_is_no_answer(name: str, text: str) -> None:
    found = read(SONAR, status="COMPLETED", **{name: text})
    assert (found.status, found.is_empty) == (JobStatus.COMPLETED, True)


@pytest.mark.parametrize(
    "name", ["input", "prompt", "question", "messages", "instructions", "request", "body", "model"]
)
@pytest.mark.parametrize("api", APIS)
def test_what_was_asked_is_never_the_answer_or_reason(api: API, name: str) -> None:
    for word in ("completed", "failed"):
        found = job_of(read(api, status=word, **{name: "Why did the Vasa sink?"}))
        assert not found.ok
        assert "Vasa" not in f"{found.text}{found.server_message}{found.error}"


# --- a reason ---------------------------------------------------------------------------------------------------------


SAID: dict[str, Any] = {
    "text": "out of pages",
    "object": {"message": "out of pages"},
    "with code": {"code": "pages", "message": "out of pages"},
    "list": ["out of pages"],
    "list of objects": [{"message": "out of pages"}],
    "within": {"error": {"details": [{"reason": "out of pages"}]}},
}
SAID |= {f"{name} as JSON": json.dumps(said) for name, said in SAID.items() if name != "text"}
"""The forms in which a reason or a remark comes."""

REASONS = [
    *("error", "errors", "errorMessage", "last_error", "failure_reason", "failureReason", "reason", "status_reason"),
    *("status_message", "status_details", "detail", "details", "message", "cause", "fault", "exception", "problem"),
    *("response", "result", "output", "data", "content", "answer", "completion", "output_text", "text", "status_text"),
    *("diagnostic", "diagnostics", "notes", "comment", "info", "explanation", "why", "description", "summary", "hint"),
    *("logs", "events", "warnings", "stderr", "end_reason", "termination_reason", "stop_reason", "fail_msg"),
]


@pytest.mark.parametrize("name", REASONS)
@pytest.mark.parametrize("api", APIS)
def test_failed_job_has_its_reason_under_any_name(api: API, name: str) -> None:
    for form, word, wrap in product(SAID, ("FAILED", "cancelled", "RETICULATED"), ("", "response", "data")):
        said: dict[str, Any] = {name: SAID[form]}
        end = "failed_at" if word != "cancelled" else "cancelled_at"
        found = job_of(read(api, **{"status": word, end: 5} | ({wrap: said} if wrap else said)))
        assert found.status in (JobStatus.FAILED, JobStatus.CANCELLED), (form, word, wrap)
        assert "out of pages" in found.server_message, (form, word, wrap)
        assert "out of pages" in str(found.error), (form, word, wrap)


@pytest.mark.parametrize("api", APIS)
def test_thoughts_and_searches_of_a_run_are_no_reason(api: API) -> None:
    done: list[dict[str, Any]] = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Vasa"}], "content": "Vasa"},
        {"type": "search_results", "queries": ["Vasa"], "results": [{"title": "Vasa", "snippet": "Vasa"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Vasa"}]},
    ]
    choices = [{"message": {"role": "assistant", "content": "Vasa", "reasoning_content": "Vasa"}}]
    said = {"output": done, "response": {"choices": choices, "output": done}, "title": "Vasa", "reasoning": "Vasa"}
    said |= {"messages": [{"role": "user", "content": "Vasa"}], "instructions": "Vasa", "reasoning_summary": "Vasa"}
    for word in ("failed", "FAILED"):
        found = job_of(read(api, status=word, **said))
        assert (found.status, found.server_message) == (JobStatus.FAILED, "")


ERROR_ROWS: list[dict[str, Any]] = [
    {"type": "error", "error": {"message": "out of pages"}},
    {"type": "error", "message": "out of pages"},
    {"type": "web_search_call", "status": "failed", "error": "out of pages"},
    {"level": "ERROR", "message": "out of pages"},
    {"severity": "fatal", "msg": "out of pages"},
    {"kind": "step_failed", "reason": "out of pages"},
    {"name": "search", "errorMessage": "out of pages"},
]


@pytest.mark.parametrize("row", ERROR_ROWS, ids=str)
@pytest.mark.parametrize("name", ["output", "logs", "events", "steps", "trace"])
@pytest.mark.parametrize("api", APIS)
def test_error_among_its_steps_is_the_reason(api: API, name: str, row: dict[str, Any]) -> None:
    rows = [{"level": "info", "type": "search", "message": "began"}, row]
    for fields in ({name: rows}, {"response": {name: rows}}):
        found = job_of(read(api, status="failed", **fields))
        assert found.status is JobStatus.FAILED
        assert "out of pages" in found.server_message
        assert "began" not in found.server_message
    # What it says of itself stands for all.
    assert read(api, status="failed", error="no GPU", **{name: rows}).error_message == "no GPU"


@pytest.mark.parametrize(
    "fields",
    [
        {"response": {"choices": [], "prompt_feedback": {"block_reason": "SAFETY"}}},
        {"response": {"candidates": [], "promptFeedback": {"blockReason": "SAFETY"}}},
        {"prompt_feedback": {"block_reason": "SAFETY"}},
        {"data": {"stop_details": "SAFETY"}},
        {"result": {"response": {"end_reason": "SAFETY"}}},
    ],
    ids=str,
)
@pytest.mark.parametrize("api", APIS)
def test_reason_of_an_empty_answer_is_found_inside(api: API, fields: dict[str, Any]) -> None:
    found = job_of(read(api, status="completed", **fields))
    assert not found.ok
    assert "SAFETY" in str(found.error)
    assert found.server_message == "SAFETY"


# --- a remark ---------------------------------------------------------------------------------------------------------


def answered(api: API) -> dict[str, Any]:
    if api is SONAR:
        return {"status": "COMPLETED", "response": {"choices": [{"message": {"content": TEXT}}]}}
    return {"status": "completed", "output": [{"type": "message", "content": [{"type": "output_text", "text": TEXT}]}]}


REMARKS = [
    *("warnings", "warning", "notice", "notices", "remark", "remarks", "note", "notes", "message", "status_message"),
    *("statusMessage", "status_details", "detail", "details", "hint", "info", "advice", "comment", "diagnostics"),
    *("error", "errors", "last_error", "error_message", "deprecation_notice", "status_reason", "problems"),
    *("status_text", "status_description"),
]


@pytest.mark.parametrize("name", REMARKS)
@pytest.mark.parametrize("api", APIS)
def test_remark_beside_an_answer_is_kept(api: API, name: str) -> None:
    body = answered(api)
    long = json.loads(json.dumps(body).replace(TEXT, TEXT * 300))  # stands between the fields of the job
    for form in SAID:
        said = {name: SAID[form]}
        bodies = [body | said, long | said, said | long]
        if api is SONAR:
            bodies += [inside(body, "response", **said), inside(body, "response", "choices", 0, "message", **said)]
        if name != "message" or api is AGENT:  # the message of a choice is its answer
            bodies += [inside(body, *(("response", "choices", 0) if api is SONAR else ("output", 0)), **said)]
        for each in bodies:
            found = job_of(read(api, **each))
            assert (found.ok, TEXT in found.text) == (True, True), (form, each)
            assert "out of pages" in found.server_message, (form, each)


def inside(body: dict[str, Any], *path: Any, **fields: Any) -> dict[str, Any]:
    """A copy of the body with these fields in the object at the path."""
    copied: dict[str, Any] = json.loads(json.dumps(body))
    place: Any = copied
    for step in path:
        place = place[step]
    place.update(fields)
    return copied


@pytest.mark.parametrize("api", APIS)
def test_only_what_is_about_the_job_is_a_remark(api: API) -> None:
    said = {
        **dict.fromkeys(("title", "summary", "description", "instructions", "input", "prompt", "user"), "Why?"),
        **{"messages": [{"role": "user", "content": "Why?"}], "reasoning_details": [{"text": "Why?"}]},
        **{"metadata": {"note": "Why?"}, "request": {"message": "Why?"}, "tools": [{"error": "Why?"}]},
        **{"message": "ok", "status_message": "Success", "warnings": [], "error": None, "notes": "", "detail": {}},
        "usage": {"details": {"reason": "Why?"}},
    }
    body = answered(api) | {name: value for name, value in said.items() if api is SONAR or name != "usage"}
    assert job_of(read(api, **body)).server_message == ""


def test_error_item_is_a_remark_beside_an_answer() -> None:
    run = answered(AGENT)
    run["output"].insert(0, {"type": "error", "message": "one search failed"})
    found = job_of(read(AGENT, **run))
    assert (found.ok, found.text) == (True, TEXT)
    assert "one search failed" in found.server_message


# --- an approval ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "has_ended"),
    [("paused_for_approval", True), ("blocked", True), ("in_progress", False), ("running", False), ("paused", False)],
)
def test_approval_beside_any_word_that_ends_is_asked_for(word: str, has_ended: bool) -> None:
    item = {"type": "mcp_approval_request", "id": "ap1", "name": "delete", "server_label": "files"}
    found = read(AGENT, status=word, output=[item])
    assert (found.status is JobStatus.FAILED, bool(found.actions)) == (has_ended, has_ended)


# --- a body within a body ---------------------------------------------------------------------------------------------


def wrapped(body: dict[str, Any], wraps: tuple[str, ...]) -> Any:
    """A body in these wrappers, the innermost first: `text` makes a text of it, another is the name of a field."""
    value: Any = body
    for wrap in wraps:
        value = json.dumps(value) if wrap == "text" else {wrap: value, "statusCode": 200}
    return value


def some_wraps() -> list[tuple[str, ...]]:
    """Up to three fields, each of which may hold its content as a text."""
    random = Random(8)
    found: set[tuple[str, ...]] = {("text",), ("text", "body"), ("text", "body", "text")}
    while len(found) < 25:
        fields = [random.choice(["body", "data", "result", "response"]) for _ in range(random.randrange(1, 3))]
        found.add(tuple(wrap for name in fields for wrap in random.choice([("text", name), (name,)])))
    return sorted(found)


@pytest.mark.parametrize("wraps", some_wraps(), ids=" ".join)
@pytest.mark.parametrize("api", APIS)
def test_job_is_read_in_any_wrapper(api: API, wraps: tuple[str, ...]) -> None:
    job = {"id": "j", "object": "response", **answered(api)}
    found = read_job(api, reply(wrapped(job, wraps)), "j")
    assert (found.id, found.status, text_of(found)) == ("j", JobStatus.COMPLETED, TEXT)
    runs = read_job(api, reply(wrapped({"id": "j", "status": "in_progress"}, wraps)), "j")
    assert (runs.id, runs.status) == ("j", JobStatus.IN_PROGRESS)
    with pytest.raises(ProtocolError):
        read_job(api, reply(wrapped(job | {"id": "other"}, wraps)), "j")


@pytest.mark.parametrize("wraps", some_wraps(), ids=" ".join)
@pytest.mark.parametrize("api", APIS)
def test_id_of_a_submission_in_any_wrapper_is_named(api: API, wraps: tuple[str, ...]) -> None:
    body = reply(wrapped({"id": "j-77", "status": "queued"}, wraps))
    if "statusCode" not in str(wrapped({}, wraps)):  # the job itself, as a text
        assert read_job(api, body).id == "j-77"
        return
    with pytest.raises(ProtocolError) as caught:
        read_job(api, body)
    assert caught.value.job_id == "j-77"


def test_what_was_used_is_no_remark() -> None:
    """Every answer of the Agent API has these, and none is read a second time for them."""
    usage = ["input_tokens_details", "output_tokens_details", "tool_calls_details", "tool_calls_cost_details"]
    assert not any(map(_is_remark, usage))
    assert _is_remark("status_details")
