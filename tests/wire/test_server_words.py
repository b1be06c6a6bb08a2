"""Whatever the server says about a job is read, in any form, by both APIs."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from _bodies import reply
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import ActionRequired, JobFailed, ProtocolError, RequiredAction, ResultMissing
from aiopplx._job import Job, JobStatus, Snapshot, make_job, outcome_error
from aiopplx._wire.api import API
from aiopplx.agent import AGENT
from aiopplx.sonar import SONAR

APIS = [pytest.param(SONAR, id="sonar"), pytest.param(AGENT, id="agent")]


def with_text(api: API, text: str | None) -> dict[str, Any]:
    """The fields of a body that has this answer; None: no answer."""
    if api is SONAR:
        choice = {"message": {"role": "assistant", "content": text}}
        return {"response": {"choices": [choice], "usage": {"cost": {"total_cost": 0.25}}}}
    message = {"type": "message", "content": [{"type": "output_text", "text": text or ""}]}
    return {"output": [message] if text else [], "usage": {"cost": {"total_cost": 0.25}}}


def read(api: API, expected_id: str = "", **fields: Any) -> Snapshot:
    return api.read_job(reply({"id": "a-1", **fields}), expected_id)


def job_of(snapshot: Snapshot) -> Job:
    return make_job(snapshot.id, snapshot.status, outcome_error(snapshot), snapshot)


FORMS: list[Any] = [
    "out of pages",
    {"message": "out of pages"},
    {"message": "out of pages", "code": "no_pages", "type": "server_error"},
    {"msg": "out of pages", "code": 17},
    {"detail": "out of pages"},
    {"detail": [{"loc": ["body", "model"], "msg": "out of pages", "input": "the question"}]},
    {"error": {"message": "out of pages"}},
    {"error": {"error": ["out of pages"]}},
    {"reason": "out of pages"},
    {"message": {"text": "out of pages"}},
    ["out of pages", "and patience"],
    [{"message": "out of pages"}],
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("status", ["FAILED", "failed", "CANCELLED", "EXPIRED", "COMPLETED", "completed", None])
@pytest.mark.parametrize("api", APIS)
def test_error_in_any_form_is_in_the_words(api: API, status: str | None, form: Any):
    snapshot = read(api, status=status, failed_at=5, error=form)
    job = job_of(snapshot)
    assert snapshot.status in (JobStatus.FAILED, JobStatus.CANCELLED)
    assert isinstance(job.error, JobFailed)
    assert "out of pages" in job.error.message
    assert "out of pages" in job.server_message
    assert "the question" not in job.error.message
    assert not job.ok


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("name", ["error_message", "errors", "failure_reason", "message", "detail", "reason"])
@pytest.mark.parametrize("api", APIS)
def test_reason_under_any_name_is_in_the_words(api: API, name: str, form: Any):
    error = job_of(read(api, status="FAILED", **{name: form})).error
    assert error is not None
    assert "out of pages" in error.message


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_incomplete_run_says_why_in_any_form(form: Any):
    job = job_of(read(AGENT, status="incomplete", incomplete_details=form))
    assert job.status is JobStatus.INCOMPLETE
    assert "out of pages" in str(job.error)


@pytest.mark.parametrize("api", APIS)
def test_error_beside_an_answer_leaves_the_answer(api: API):
    job = job_of(read(api, status="COMPLETED", error={"message": "one search failed"}, **with_text(api, "text")))
    assert (job.ok, job.text, job.error) == (True, "text", None)
    assert job.server_message == "one search failed"


# An unknown status


@pytest.mark.parametrize(
    ("word", "is_unknown"),
    [("in_progress", False), ("In-Progress", False), ("QUEUED", False), ("FAILED", False), ("reticulates", True)],
)
@pytest.mark.parametrize("api", APIS)
def test_snapshot_says_whether_its_word_is_known(api: API, word: str, is_unknown: bool):
    assert read(api, status=word).is_unknown is is_unknown


EVIDENCE: list[tuple[dict[str, Any], bool, JobStatus]] = [
    ({}, False, JobStatus.IN_PROGRESS),
    ({}, True, JobStatus.COMPLETED),
    ({"completed_at": 5}, True, JobStatus.COMPLETED),
    ({"completed_at": 5}, False, JobStatus.COMPLETED),
    ({"error": {"message": "no"}}, False, JobStatus.FAILED),
    ({"error": {"message": "no"}}, True, JobStatus.FAILED),
    ({"error": {"message": "no"}, "completed_at": 5}, False, JobStatus.FAILED),
]


@pytest.mark.parametrize("word", ["DONE", "done", "Succeeded", "CANCELED_BY_USER", "expired", "ERROR", "reticulated"])
@pytest.mark.parametrize(("beside", "answered", "status"), EVIDENCE)
@pytest.mark.parametrize("api", APIS)
def test_unknown_status_is_what_stands_beside_it(
    api: API, word: str, beside: dict[str, Any], answered: bool, status: JobStatus
):
    snapshot = read(api, status=word, **beside, **with_text(api, "text" if answered else None))
    assert (snapshot.status, snapshot.server_status) == (status, word)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("name", ["error_message", "error", "errors", "last_error", "failure_reason"])
@pytest.mark.parametrize("api", APIS)
def test_unknown_status_beside_an_error_of_any_name_failed(api: API, name: str, form: Any):
    job = job_of(read(api, status="EVICTED", **{name: form}))
    assert job.status is JobStatus.FAILED
    assert "out of pages" in str(job.error)


@pytest.mark.parametrize("word", ["CANCELLED", "Stopped", "error"])
def test_sonar_job_that_says_when_it_failed_has_failed(word: str):
    job = job_of(read(SONAR, status=word, failed_at=5, error_message="stopped by the operator"))
    assert (job.status, job.server_status, job.failed_at) == (JobStatus.FAILED, word, 5)
    assert "stopped by the operator" in str(job.error)
    answered = job_of(read(SONAR, status=word, failed_at=5, **with_text(SONAR, "text")))
    assert (answered.ok, answered.text, answered.cost) == (False, "text", 0.25)


@pytest.mark.parametrize("word", ["RUNNING", "processing", "PENDING", "in_review", "queued", "streaming", "STARTED"])
@pytest.mark.parametrize("api", APIS)
def test_word_for_work_holds_beside_a_partial_answer(api: API, word: str):
    assert read(api, status=word, **with_text(api, "so far")).status in (JobStatus.IN_PROGRESS, JobStatus.CREATED)


def test_answer_that_says_why_it_ends_is_whole():
    choice = {"message": {"content": "text"}, "finish_reason": "stop"}
    assert read(SONAR, response={"choices": [choice]}).status is JobStatus.COMPLETED


# Completed without an answer


@pytest.mark.parametrize("content", [None, "", " \n"])
@pytest.mark.parametrize("reason", ["length", "content_filter", "novelty"])
def test_empty_answers_reason_is_on_job_and_error(content: str | None, reason: str):
    choice = {"message": {"content": content}, "finish_reason": reason}
    snapshot = read(SONAR, status="COMPLETED", response={"choices": [choice]})
    job = job_of(snapshot)
    assert isinstance(job.error, ResultMissing)
    assert (job.finish_reason, job.text) == (reason, "")
    assert f"finish_reason {reason}" in job.error.message
    assert not snapshot.may_have_more


def test_answer_that_ended_as_it_should_may_still_come():
    choice = {"message": {"content": ""}, "finish_reason": "stop"}
    assert read(SONAR, status="COMPLETED", response={"choices": [choice]}).may_have_more


def test_thought_without_an_answer_is_still_the_reasoning():
    choice = {"message": {"content": "", "reasoning_content": "Hm."}, "finish_reason": "length"}
    job = job_of(read(SONAR, status="COMPLETED", response={"choices": [choice]}))
    assert (job.reasoning, job.text, job.ok) == ("Hm.", "", False)


SAID: list[tuple[API, dict[str, Any]]] = [
    (SONAR, {"response": {"choices": [{"message": {"content": None, "refusal": "I cannot say."}}]}}),
    (SONAR, {"response": {"choices": [{"message": {"content": [{"type": "refusal", "refusal": "I cannot say."}]}}]}}),
    (AGENT, {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "I cannot say."}]}]}),
    (AGENT, {"output": [{"type": "message", "content": [{"type": "refusal", "text": "I cannot say."}]}]}),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("kind", ["error", "response.error", "tool_error"])
def test_error_among_the_output_is_in_the_words(kind: str, form: Any):
    output = [{"type": "message", "content": []}, {"type": kind, "error": form}]
    job = job_of(read(AGENT, status="completed", output=output))
    assert job.status is JobStatus.FAILED
    assert "out of pages" in str(job.error)
    asking = job_of(read(AGENT, status="completed", output=[*output, CALL]))
    assert isinstance(asking.error, ActionRequired)
    answered = job_of(read(AGENT, status="completed", output=[*output, *with_text(AGENT, "text")["output"]]))
    assert (answered.ok, answered.text) == (True, "text")


@pytest.mark.parametrize(("api", "body"), SAID)
def test_refusal_of_the_model_is_in_the_error(api: API, body: dict[str, Any]):
    job = job_of(read(api, status="completed", **body))
    assert isinstance(job.error, ResultMissing)
    assert "the model declined: I cannot say." in job.error.message
    assert "the job was charged" in job.error.message
    assert job.text == ""


# What waits for its caller


CALL = {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"}
APPROVAL = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "search", "server_label": "shop"}
SUBMIT = {
    "submit_tool_outputs": {"tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look_up"}}]}
}
TOOL_CALL = {"message": {"content": None, "tool_calls": [{"id": "call_1", "function": {"name": "look_up"}}]}}
# Calls that the server leaves to its caller have an id of the call. One that has its output waits for nobody.
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("custom_tool_call", "look_up", {"type": "custom_tool_call", "call_id": "call_1", "name": "look_up", "input": "x"}),
    ("computer_call", "", {"type": "computer_call", "call_id": "call_1", "action": {"type": "click"}}),
    ("local_shell_call", "", {"type": "local_shell_call", "call_id": "call_1", "action": {"command": ["ls"]}}),
]
ANSWERED = {"type": "shell_call", "call_id": "call_0", "action": {}}
OUTPUT = {"type": "shell_call_output", "call_id": "call_0", "output": "done"}
WAITING: list[tuple[API, dict[str, Any], RequiredAction]] = [
    (AGENT, {"status": "requires_action", "output": [CALL]}, RequiredAction("function_call", "look_up", "call_1")),
    (AGENT, {"status": "Requires-Action", "output": [CALL]}, RequiredAction("function_call", "look_up", "call_1")),
    (AGENT, {"status": "requires_action", "required_action": SUBMIT}, RequiredAction("function", "look_up", "call_1")),
    (
        AGENT,
        {"status": "requires_action", "output": [APPROVAL]},
        RequiredAction("mcp_approval_request", "shop.search", "mcpr_1"),
    ),
    # As OpenAI's Responses API, and servers in its form, say that a function was called.
    (AGENT, {"status": "completed", "output": [CALL]}, RequiredAction("function_call", "look_up", "call_1")),
    (
        AGENT,
        {"status": "completed", "output": [APPROVAL]},
        RequiredAction("mcp_approval_request", "shop.search", "mcpr_1"),
    ),
    *(
        (AGENT, {"status": status, "output": [call, ANSWERED, OUTPUT]}, RequiredAction(kind, named, "call_1"))
        for status in ("requires_action", "completed")
        for kind, named, call in CALLS
    ),
    (
        SONAR,
        {"status": "COMPLETED", "response": {"choices": [TOOL_CALL]}},
        RequiredAction("function_call", "look_up", "call_1"),
    ),
]


@pytest.mark.parametrize(("api", "body", "action"), WAITING)
def test_what_waits_for_its_caller_has_failed(api: API, body: dict[str, Any], action: RequiredAction):
    snapshot = read(api, **body, usage={"cost": {"total_cost": 0.25}})
    job = job_of(snapshot)
    assert job.status is JobStatus.FAILED
    assert isinstance(job.error, ActionRequired)
    assert job.error.actions == (action,)
    assert job.error.job_id == "a-1"
    assert str(action) in job.error.message
    assert ("billed so far: $0.2500" in job.error.message) is (api is AGENT)
    assert not snapshot.may_have_more


@pytest.mark.parametrize("api", APIS)
def test_what_waits_for_nothing_visible_is_polled_again(api: API):
    snapshot = read(api, status="requires_action")
    assert (snapshot.status, snapshot.may_have_more) == (JobStatus.FAILED, True)
    assert isinstance(outcome_error(snapshot), ActionRequired)


# Ids


IDS = ["a/b", "a+b=", "two words", "x" * 300, "é", "?", "#1", "%2F", "a\nb", "[1]", "../x", "aiopplx/1", "\N{ROCKET}"]


@pytest.mark.parametrize("job_id", IDS, ids=ascii)
@pytest.mark.parametrize("api", APIS)
def test_any_encodable_id_is_read_and_asked_for(api: API, job_id: str):
    assert read(api, job_id, id=job_id, status="queued").id == job_id
    path = api.get(job_id).path
    assert path.isascii()
    assert path.count("/") == api.get("plain").path.count("/")
    assert not {"?", "#", " ", "\n"} & set(path)


@pytest.mark.parametrize("api", APIS)
def test_number_for_an_id_is_named_in_errors(api: API):
    with pytest.raises(ProtocolError, match="without a usable id") as refused:
        read(api, id=12345, status="queued")
    assert refused.value.job_id == "12345"
    assert read(api, "12345", id=12345, status="queued").id == "12345"


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"id": "a-1", "status": "queued"}},
        {"result": {"response": {"id": "a-1"}}},
        {"job_id": "a-1", "status": "queued"},
        {"data": {"response_id": "a-1"}},
        {"id": None, "job_id": "a-1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("api", APIS)
def test_id_in_another_place_is_named_in_the_error(api: API, body: dict[str, Any]):
    with pytest.raises(ProtocolError, match="without a usable id") as refused:
        api.read_job(reply(body))
    assert refused.value.job_id == "a-1"


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("inner", [{"error": {"message": "out of pages"}}, {"response": {"detail": "out of pages"}}])
def test_words_inside_the_response_are_in_the_error(api: API, inner: dict[str, Any]):
    snapshot = read(api, status="FAILED", response=inner)
    assert (snapshot.status, snapshot.error_message) == (JobStatus.FAILED, "out of pages")


@pytest.mark.parametrize("api", APIS)
def test_words_of_an_idless_body_are_in_the_error(api: API):
    with pytest.raises(ProtocolError, match=r"without a usable id: out of pages \(no_pages\)"):
        api.read_job(reply({"error": {"message": "out of pages", "code": "no_pages"}}))


# A finished answer to a submission


def completion(**fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "text"}}
    usage = {"cost": {"total_cost": 0.25}}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 5, "choices": [choice], "usage": usage} | fields


@pytest.mark.parametrize("job_id", ["chatcmpl-1", "", None])
@pytest.mark.parametrize("odd", [{}, {"model": 5}, {"usage": {"cost": {"total_cost": "0.25"}}}, {"created": "x"}])
def test_finished_chat_completion_is_a_finished_job(job_id: str | None, odd: dict[str, Any]):
    snapshot = SONAR.read_job(reply(completion(id=job_id, **odd)))
    job = job_of(snapshot)
    assert (job.ok, job.text, job.cost, job.id) == (True, "text", 0.25, job_id or "")
    assert job_of(SONAR.read_job(reply(snapshot.raw), job.id)) == job


def test_chat_completion_without_a_text_is_final():
    body = completion(choices=[{"message": {"content": ""}}])
    snapshot = SONAR.read_job(reply(body))
    assert (snapshot.status, snapshot.is_empty, snapshot.may_have_more) == (JobStatus.COMPLETED, True, False)


@pytest.mark.parametrize("api", APIS)
def test_finished_answer_without_an_id_is_taken(api: API):
    body = {"status": "completed", **with_text(api, "text")}
    assert job_of(api.read_job(reply(body))).text == "text"
    with pytest.raises(ProtocolError):
        api.read_job(reply(body | {"status": "in_progress"}))
    with pytest.raises(ProtocolError):
        api.read_job(reply(body), "another")


# Numbers


@pytest.mark.parametrize("number", ["9" * 5_000, "9" * 25, "-" + "9" * 5_000, "1e400", "9" * 400 + ".5"])
@pytest.mark.parametrize("api", APIS)
def test_number_of_any_length_breaks_nothing(api: API, number: str):
    body = msgspec.json.encode({"id": "a-1", "status": "completed", "completed_at": 0, **with_text(api, "text")})
    for old in (b'"completed_at":0', b'"total_cost":0.25'):
        job = job_of(api.read_job(reply(body.replace(old, old.split(b":")[0] + b":" + number.encode()))))
        assert (job.ok, job.text) == (True, "text")
        msgspec.json.encode({name: str(value) for name, value in job.to_dict().items()})


@given(st.sampled_from([SONAR, AGENT]), st.recursive(st.none() | st.text() | st.integers() | st.booleans(), st.lists))
def test_error_of_any_value_is_read(api: API, error: Any):
    assert read(api, status="FAILED", error=error, error_message=error).status is JobStatus.FAILED


VALUES: list[Any] = [None, True, 0, 1.5, "", "x", "COMPLETED", [], {}, ["a"], {"a": 1}, [[]], 10**15, "9" * 50]
MESSAGES = [
    {name: value} for value in VALUES for name in ("content", "refusal", "tool_calls", "annotations", "thinking")
]
ITEMS = [
    {"type": kind, name: value}
    for value in VALUES
    for kind in ("message", "reasoning", "function_call", "mcp_approval_request", "x", 5)
    for name in ("content", "text", "id", "name", "results")
]
NAMES = [
    "status",
    "error",
    "error_message",
    "failed_at",
    "completed_at",
    "response",
    "choices",
    "output",
    "usage",
    "incomplete_details",
]


def test_bodies_of_random_parts_read_or_are_refused():
    random = Random(5)
    parts = [*VALUES, *({"choices": [{"message": message}]} for message in MESSAGES), *([item] for item in ITEMS)]
    read_whole = 0
    for _ in range(4_000):
        body = {name: random.choice(parts) for name in random.sample(NAMES, random.randint(1, 8))}
        body["id"] = random.choice(["a", "a", None, 5, "a/b"])
        for api in (SONAR, AGENT):
            try:
                snapshot = api.read_job(reply(body), random.choice(["", "a"]))
            except ProtocolError:
                continue
            job = job_of(snapshot)
            assert (job.text, job.cited, job.unresolved) == (job.to_dict()["text"], {}, 0)
            assert repr(job)
            read_whole += 1
    assert read_whole > 3_000
