"""What gateways and other servers of these APIs send in a form of their own is read as what it says."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from aiopplx import AuthenticationError, JobStatus, OutOfCredit, ProtocolError, RateLimited
from aiopplx._job import Snapshot
from aiopplx._wire.call import Lane, Reply, error_of, error_said, refusal_in
from aiopplx.agent._api import AGENT
from aiopplx.apis._registry import read_job
from aiopplx.sonar._api import SONAR


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def sonar(**fields: Any) -> Snapshot:
    answer = {"choices": [{"message": {"content": "As [1] says."}, "finish_reason": "stop"}]}
    body = {"id": "j", "status": "COMPLETED", "response": answer} | fields
    return read_job(SONAR, reply(body), "j")


def agent(*items: Any, **fields: Any) -> Snapshot:
    text = {"type": "message", "content": [{"type": "output_text", "text": "As [1] says."}]}
    body = {"id": "j", "status": "completed", "output": [*items, text]} | fields
    return read_job(AGENT, reply(body), "j")


def pages(snapshot: Snapshot) -> list[tuple[str, str | None]]:
    assert snapshot.response is not None
    return [(source.url, source.title) for source in snapshot.response.answer().sources]


# --- addresses --------------------------------------------------------------------------------------------------------

A, B = "https://a.example/1", "https://b.example/2"
PAGES: dict[str, list[Any]] = {
    "url": [{"url": A, "title": "A"}, {"url": B}],
    "link": [{"link": A, "title": "A"}, {"link": B}],
    "uri": [{"uri": A, "title": "A"}, {"uri": B, "url": ""}],
    "href": [{"href": A, "title": "A"}, {"href": B, "url": None}],
    "web_url": [{"web_url": A, "title": "A"}, {"source_url": B}],
    "mixed": [{"url": A, "title": "A"}, {"link": B}],
    "inner": [{"web": {"uri": A, "title": "A"}}, {"document": {"link": B}}],
}


@pytest.mark.parametrize("name", PAGES)
def test_page_has_its_address_under_any_name(name: str) -> None:
    given = PAGES[name]
    choices = [{"message": {"content": "As [1] says."}, "finish_reason": "stop"}]
    whole = [(A, "A"), (B, None)]
    for fields in ({"search_results": given}, {"citations": given}, {"search_results": given, "citations": [A, B]}):
        assert pages(sonar(response={"choices": choices, **fields})) == whole
        at_once = reply({"id": "j", "object": "chat.completion", "choices": choices, **fields})
        assert pages(read_job(SONAR, at_once, "j")) == whole
    assert pages(agent({"type": "search_results", "results": given})) == whole
    assert pages(agent({"type": "fetch_url_results", "contents": given})) == whole


def test_pages_as_texts_and_unreadable_ones_keep_their_places() -> None:
    given = [A, {"title": "no address"}, {"link": "javascript:alert(1)"}, {"uri": B}]
    choices = [{"message": {"content": "As [4] says."}}]
    found = pages(sonar(response={"choices": choices, "search_results": given}))
    assert [url for url, _ in found] == [A, "", "", B]


# --- a status that the rest of the job is ahead of --------------------------------------------------------------------


@pytest.mark.parametrize("word", ["CREATED", "IN_PROGRESS", "in_progress", "QUEUED", "PENDING", "RUNNING", "", "NEW"])
def test_job_that_says_when_it_failed_has_failed(word: str) -> None:
    failed = sonar(status=word, response=None, failed_at=3, error_message="no model is free")
    assert (failed.status, failed.error_message) == (JobStatus.FAILED, "no model is free")
    run = read_job(AGENT, reply({"id": "j", "status": word.lower(), "failed_at": 3, "output": []}), "j")
    assert run.status is JobStatus.FAILED


NEVER = [0, 0.0, "", "  ", False, True, {}, [], None, -1, "0001-01-01T00:00:00Z", "null", "None", "never", "n/a", "-"]
NEVER += ["0", "0.0", "0000-00-00 00:00:00", "1970-01-01T00:00:00Z", "-1", {"seconds": 0}, {"$date": None}]
"""What servers send for a moment that is not set."""
SAID = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "half an ans"}]}]


@pytest.mark.parametrize("value", NEVER, ids=repr)
@pytest.mark.parametrize("name", ["failed_at", "completed_at", "cancelled_at", "finishedAt"])
@pytest.mark.parametrize("word", ["CREATED", "IN_PROGRESS", "RUNNING", "", "RETICULATED"])
def test_moment_that_is_not_set_says_nothing(word: str, name: str, value: Any) -> None:
    part = {"choices": [{"message": {"content": "As"}, "finish_reason": "null"}]}
    for response in (None, part):
        without = sonar(status=word, response=response, completed_at=None)
        assert sonar(status=word, response=response, **{"completed_at": None, name: value}).status is without.status
    body = {"id": "j", "status": word.lower(), "output": SAID}
    alone, beside = (read_job(AGENT, reply(each), "j").status for each in (body, body | {name: value}))
    assert alone is beside


MOMENTS = [
    3,
    1760000000.5,
    "2026-11-27T04:00:00Z",
    "2026-11-27",
    "Fri, 27 Nov 2026 04:00:00 GMT",
    "1760000000",
    {"s": 5},
]


@pytest.mark.parametrize("moment", MOMENTS, ids=repr)
def test_moment_of_a_failure_has_many_forms(moment: Any) -> None:
    assert sonar(status="WEIRD", response=None, failed_at=moment).status is JobStatus.FAILED
    assert sonar(status="IN_PROGRESS", response=None, failed_at=moment).status is JobStatus.FAILED
    body = {"id": "j", "status": "errored", "failed_at": moment, "output": SAID}
    assert read_job(AGENT, reply(body), "j").status is JobStatus.FAILED, "whatever text stands beside it"


ENDS = {
    JobStatus.FAILED: ["failed_at", "failedAt", "errored_at", "expired_at", "FAILED_AT", "failed-at", "failed_time"],
    JobStatus.CANCELLED: ["cancelled_at", "canceled_at", "cancelledAt", "aborted_at", "stopped_at", "terminatedTime"],
    JobStatus.COMPLETED: ["completedAt", "finished_at", "ended_at", "finishedAt", "end_time", "completion_time"],
}
NAMED = [(name, status) for status, names in ENDS.items() for name in names]


@pytest.mark.parametrize("moment", [5, "2026-11-27T04:00:00Z"], ids=str)
@pytest.mark.parametrize(("name", "status"), NAMED)
def test_moment_of_an_end_is_the_status(name: str, status: JobStatus, moment: Any) -> None:
    for word in ("DONE", "RETICULATED"):
        assert sonar(status=word, response=None, **{name: moment}).status is status
        assert read_job(AGENT, reply({"id": "j", "status": word, "output": [], name: moment}), "j").status is status
    # A known word for a job that goes on is overruled by all but a mere end, which is no answer yet.
    behind = JobStatus.IN_PROGRESS if status is JobStatus.COMPLETED else status
    assert sonar(status="IN_PROGRESS", response=None, **{name: moment}).status is behind
    run = {"id": "j", "status": "in_progress", "output": SAID, name: moment}
    assert read_job(AGENT, reply(run), "j").status is behind
    ended = sonar(status="IN_PROGRESS", **{name: moment})
    assert (ended.status, ended.response is not None) == (status, True)


@pytest.mark.parametrize(
    "name", ["expires_at", "cancel_requested_at", "cancelling_at", "created_at", "updatedAt", "at"]
)
@pytest.mark.parametrize("word", ["IN_PROGRESS", "RETICULATED"])
def test_other_moments_say_nothing_of_an_end(word: str, name: str) -> None:
    assert sonar(status=word, response=None, **{name: 5}).status is JobStatus.IN_PROGRESS
    run = {"id": "j", "status": word.lower(), "output": [], name: 5}
    assert read_job(AGENT, reply(run), "j").status is JobStatus.IN_PROGRESS


@pytest.mark.parametrize(
    ("moments", "status"),
    [
        (("failed_at", "completed_at", "cancelled_at"), JobStatus.FAILED),
        (("completed_at", "cancelled_at"), JobStatus.COMPLETED),
        (("cancelled_at",), JobStatus.CANCELLED),
    ],
)
@pytest.mark.parametrize("word", ["IN_PROGRESS", "DONE", ""])
def test_moments_that_contradict_keep_a_whole_answer(word: str, moments: tuple[str, ...], status: JobStatus) -> None:
    assert sonar(status=word, **dict.fromkeys(moments, 5)).status is (
        JobStatus.COMPLETED if word in ("", "DONE") and status is JobStatus.CANCELLED else status
    )


def test_moment_behind_a_long_answer_is_seen() -> None:
    response = {"choices": [{"message": {"content": "x" * 9_000 + "[1]"}}]}
    body = {"id": "j", "status": "IN_PROGRESS", "response": response, "cancelled_at": 5, "model": "m"}
    assert read_job(SONAR, reply(body), "j").status is JobStatus.CANCELLED


@pytest.mark.parametrize("word", ["CREATED", "IN_PROGRESS"])
def test_job_with_its_date_and_whole_answer_has_ended(word: str) -> None:
    assert sonar(status=word, completed_at=3).status is JobStatus.COMPLETED
    assert sonar(status=word, completed_at=None).status.is_final is False
    part = {"choices": [{"message": {"content": "As"}, "finish_reason": None}]}
    assert sonar(status=word, completed_at=3, response=part).status.is_final is False


WAITING = [
    "requires_action",
    "needs_input",
    "awaiting-approval",
    "AWAITING_USER_INPUT",
    "inputRequired",
]
NOT_WAITING = [
    *("waiting_for_capacity", "pending", "queued_for_action", "needs_gpu", "input_received", "approved", ""),
    # The queue of a user, or the moderation of an input, is a wait for the server.
    *("PENDING_INPUT", "pending_user_queue", "waiting_for_client_slot", "awaiting_input_moderation"),
]


@pytest.mark.parametrize("word", [*WAITING, *NOT_WAITING])
def test_status_that_waits_for_its_caller_has_ended(word: str) -> None:
    found = [
        sonar(status=word, response=None),
        read_job(AGENT, reply({"id": "j", "status": word, "output": []}), "j"),
    ]
    assert [snapshot.actions is not None for snapshot in found] == [word in WAITING] * 2


@pytest.mark.parametrize(
    "said",
    [
        {"state": "FAILED"},
        {"jobStatus": "failed"},
        {"run_state": "Failed"},
        {"status": {"state": "failed"}},
        {"status": None, "phase": "FAILED"},
    ],
    ids=str,
)
def test_status_under_another_name_is_the_status(said: dict[str, Any]) -> None:
    for api in (SONAR, AGENT):
        for word in ("FAILED", "failed"):
            told = {
                name: {"state": word} if isinstance(value, dict) else value and word for name, value in said.items()
            }
            snapshot = read_job(api, reply({"id": "j", **told, "reason": "out of memory"}), "j")
            assert (snapshot.status, snapshot.server_status) == (JobStatus.FAILED, word)
            assert snapshot.error_message == "out of memory"


@pytest.mark.parametrize("name", ["billing_status", "moderationStatus", "http_state", "payment_phase", "user_state"])
@pytest.mark.parametrize("word", ["failed", "completed", "FAILED", "COMPLETED"])
def test_status_of_something_else_ends_no_job(name: str, word: str) -> None:
    for api in (SONAR, AGENT):
        assert read_job(api, reply({"id": "j", name: word}), "j").status is JobStatus.IN_PROGRESS


@pytest.mark.parametrize("name", ["default", "is_default", "because", "terror", "tdefaults"])
def test_word_that_ends_like_error_is_none(name: str) -> None:
    for api in (SONAR, AGENT):
        assert read_job(api, reply({"id": "j", "status": "SEARCHING", name: "medium"}), "j").status.is_final is False


@pytest.mark.parametrize("name", ["lasterror", "innererror", "joberror", "errormessage", "faultstring", "err", "cause"])
def test_word_made_of_error_is_one(name: str) -> None:
    for api in (SONAR, AGENT):
        assert read_job(api, reply({"id": "j", "status": "GONE", name: "no GPU"}), "j").error_message == "no GPU"


# --- deep bodies ------------------------------------------------------------------------------------------------------


FIELDS = [
    *("id", "job_id", "status", "state", "error", "message", "failed_at", "cancelled_at", "created_at", "completed_at"),
    *("model", "output", "response", "choices", "usage", "data", "stop_reason", "incomplete_details", "x"),
]


@pytest.mark.parametrize("name", FIELDS)
def test_body_of_any_depth_is_read_or_refused(name: str) -> None:
    wraps = [
        ("", "[", "]", ""),
        ("", f'{{"{name}":', "}", ""),
        ("", '{"id":[', "]}", ""),
        ('[{"msg":"x","loc":[', "[", "]", "]}]"),
    ]
    # Where the stack of the reader ends depends on who calls it.
    depths = [5, 120, 480, *range(820 + FIELDS.index(name) % 8, 1010, 8)]
    for api in (SONAR, AGENT):
        for before, opened, closed, after in wraps:
            for depth in depths:
                deep = f"{before}{opened * depth}1{closed * depth}{after}"
                for given in ("", '"id":"j","status":"SEARCHING",'):
                    raw = f'{{{given}"{name}":{deep}}}'.encode()
                    for expected_id in ("", "j"):
                        with suppress(ProtocolError):
                            read_job(api, Reply(200, {}, raw), expected_id)


# --- why a text ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"choices": [{"message": {"content": "A"}, "stop_reason": "max_tokens"}]}, "max_tokens"),
        ({"choices": [{"message": {"content": "A"}, "finish_reason": "stop", "stop_reason": 7}]}, "stop"),
        ({"choices": [{"message": {"content": "A"}, "native_finish_reason": "MAX_TOKENS"}]}, "MAX_TOKENS"),
        ({"choices": [{"message": {"content": "A"}}], "stop_reason": "max_tokens"}, "max_tokens"),
        ({"choices": [{"message": {"content": "A"}, "stop_reason": 7}]}, None),
    ],
)
def test_reason_under_another_name_is_the_finish_reason(fields: dict[str, Any], reason: str | None) -> None:
    snapshot = sonar(response=fields)
    assert snapshot.response is not None
    assert snapshot.response.answer().finish_reason == reason


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"choices": [{"message": {"content": ""}, "finish_details": {"type": "max_tokens"}}]}, "max_tokens"),
        ({"choices": [{"message": {"content": ""}, "finishReason": "SAFETY"}]}, "SAFETY"),
        ({"choices": [], "promptFeedback": None, "block_reason": "OTHER"}, "OTHER"),
        ({"choices": [{"message": {"content": ""}, "error": {"message": "upstream died"}}]}, "upstream died"),
        ({"choices": [{"message": {"content": "", "error": "upstream died"}}]}, "upstream died"),
        ({"choices": [{"message": {"content": ""}, "finish_details": {"type": "stop"}}]}, None),
    ],
)
def test_reason_of_an_empty_answer_has_many_names(fields: dict[str, Any], words: str | None) -> None:
    found = sonar(response=fields)
    assert found.error_message == words
    assert found.status is (JobStatus.FAILED if words == "upstream died" else JobStatus.COMPLETED)


@pytest.mark.parametrize(("reason", "words"), [("max_tokens", "finish_reason max_tokens"), ("end_turn", None)])
def test_run_without_an_answer_says_why_it_stopped(reason: str, words: str | None) -> None:
    found = read_job(AGENT, reply({"id": "j", "status": "completed", "output": [], "stop_reason": reason}), "j")
    assert (found.status, found.error_message) == (JobStatus.COMPLETED, words)


def test_run_whose_message_is_incomplete_says_so() -> None:
    cut = {"type": "message", "status": "incomplete", "content": [{"type": "output_text", "text": "As"}]}
    whole = {**cut, "status": "completed"}
    ends = [
        read_job(AGENT, reply({"id": "j", "status": "completed", "output": output, **more}), "j")
        for output, more in (([cut], {}), ([cut, whole], {}), ([whole], {"stop_reason": "max_tokens"}))
    ]
    reasons = [end.response.answer().finish_reason for end in ends if end.response is not None]
    assert reasons == ["incomplete", "stop", "max_tokens"]


# --- an id that is only in a header -----------------------------------------------------------------------------------


@pytest.mark.parametrize("api", [SONAR, AGENT], ids=["sonar", "agent"])
@pytest.mark.parametrize("body", [b"", {}, {"ok": True}, b"<html>", {"id": None}], ids=str)
@pytest.mark.parametrize(
    ("headers", "job_id"),
    [
        ({"location": "https://api.example/async/chat/completions/j%2F1?x=1"}, "j/1"),
        ({"location": "/v1/responses/resp_1/"}, "resp_1"),
        ({"content_location": "resp_1"}, ""),
        ({"operation_location": "/jobs/resp_1#now"}, "resp_1"),
        ({"location": "/v1/responses"}, ""),
        ({"location": "https://api.example/"}, ""),
        ({}, ""),
    ],
)
def test_id_in_the_address_of_the_job_is_named(api: Any, body: Any, headers: dict[str, str], job_id: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_job(api, reply(body, 202, **headers))
    assert caught.value.job_id in (
        job_id,
        "api.example" if headers.get("location", "").endswith("example/") else job_id,
    )


# --- errors in the form of RFC 9457 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "problem", "kind", "name", "words"),
    [
        (403, {"type": "https://e.example/out-of-credit", "title": "No"}, OutOfCredit, "out_of_credit", ""),
        (400, {"type": "https://e.example/e#insufficient_quota"}, OutOfCredit, "insufficient_quota", ""),
        (401, {"type": "about:blank", "title": "Unauthorized"}, AuthenticationError, "", "Unauthorized"),
        (429, {"type": "urn:problem:rate-limit-exceeded"}, RateLimited, "rate_limit_exceeded", ""),
        (
            403,
            {"type": "/e/low", "title": "Not enough credit.", "detail": "3 of 5"},
            OutOfCredit,
            "low",
            "credit: 3 of 5",
        ),
        (403, {"title": "Forbidden", "detail": "in its own words"}, AuthenticationError, "", "in its own words"),
    ],
)
def test_problem_is_the_error_that_it_names(
    status: int, problem: dict[str, Any], kind: type[Exception], name: str, words: str
) -> None:
    body = reply({"status": status, "title": "Refused", **problem}, status, content_type="application/problem+json")
    error = error_of(body, Lane.SUBMIT)
    assert (type(error), error.type) == (kind, name)
    assert words in error.message


def test_problem_in_a_success_is_a_refusal() -> None:
    meant = refusal_in(reply({"type": "about:blank", "title": "Too Many Requests", "status": 429}))
    assert meant is not None
    assert meant.status == 429
    for other in ({"status": "COMPLETED", "title": "x"}, {"id": "j", "status": 500, "title": "x"}, {"status": 429}):
        assert refusal_in(reply(other)) is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"code": 402, "message": "no pages left"}, 402),
        ({"statusCode": 429, "message": "no pages left"}, 429),
        ({"status_code": "400", "detail": "no pages left", "request_id": "r"}, 400),
        ({"statusCode": 401, "body": '{"error": {"message": "no pages left"}}'}, 401),
        ({"statusCode": 400, "body": {"message": "no pages left"}}, 400),
        ({"statusCode": 403, "body": "no pages left"}, 403),
    ],
    ids=str,
)
def test_status_of_an_error_is_a_refusal(body: dict[str, Any], status: int) -> None:
    meant = refusal_in(reply(body))
    assert meant is not None
    assert meant.status == status
    assert "no pages left" in str(error_of(meant, Lane.SUBMIT))
    # A body that names a job is none, nor is one whose number means something else.
    inside = {"statusCode": status, "body": json.dumps({"id": "j", "message": "no pages left"})}
    named = [body | {"id": "j"}, body | {"job_id": "j"}, inside]
    for other in (*named, {"code": 0, "message": "ok"}, {"code": 4021, "message": "x"}, {"code": 402}):
        assert refusal_in(reply(other)) is None


ERRORS: list[tuple[Any, str]] = [
    ({"error": {"message": "no such file", "code": 404}}, "no such file"),
    ({"error": {"message": "no such file"}, "id": "file_1"}, "no such file"),
    ({"id": "file_1", "object": "file", "error": "expired", "created_at": 5}, "expired"),
    ({"error": "expired", "request_id": "1"}, "expired"),
    ({"errors": [{"detail": "expired"}], "jsonapi": {"version": "1.0"}, "meta": {"id": "x"}}, "expired"),
    ({"errorMessage": "expired", "errorType": "Gone", "traceId": "x"}, "expired"),
    ({"error": {"message": "x"}, "rows": []}, "x"),
    ({"timestamp": "2026", "status": 404, "error": "Not Found", "path": "/x", "message": "gone"}, "gone (Not Found)"),
    ({"fault": {"faultstring": "no quota"}}, "no quota"),
    ({"title": "Gone", "status": 410, "detail": "after 30 days"}, "Gone: after 30 days"),
    (
        {"id": "resp_1", "object": "response", "error": {"message": "broke"}, "usage": {"x": {"y": 1}}, "output": [1]},
        "broke",
    ),
]
FILES: list[Any] = [
    {"error": {"message": "x"}, "rows": [1]},
    {"error": 0.25, "mean": {"by_day": [1, 2]}},
    {"mean": 3.5, "error": 0.25, "errors": 3},
    {"error": None, "message": "fine"},
    {"error": "", "id": "x"},
    {"errors": [], "id": "x"},
    {"errors": {}, "id": "x"},
    {"id": "resp_1", "object": "response", "error": None},
    {"message": "all is well", "id": "x"},
    [{"error": "x"}],
    "error",
    b"a,b\n",
    b"<html><title>Error</title></html>",
    b'{"error": {"message": "cut',
    b"",
]


@pytest.mark.parametrize(("body", "said"), ERRORS)
def test_content_that_is_an_error_is_no_file(body: Any, said: str) -> None:
    assert error_said(reply(body)) == said
    assert error_said(reply(body, content_type="application/json; charset=utf-8")) == said
    # A server that calls it a file means one.
    assert not error_said(reply(body, content_disposition="attachment; filename=report.json"))


@pytest.mark.parametrize("body", FILES, ids=ascii)
def test_content_that_may_be_a_file_is_one(body: Any) -> None:
    assert not error_said(reply(body))
