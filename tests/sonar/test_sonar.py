"""The Sonar API: its calls, and the reading of its answers, whole or odd."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from _bodies import ANY_JSON, paths, reply, with_odd, without
from _captured import payload
from hypothesis import given
from hypothesis import strategies as st

from aiopplx._errors import InvalidRequest, ProtocolError
from aiopplx._job import Answer, JobStatus, Readable, Snapshot, outcome_error
from aiopplx._text.thought import split
from aiopplx._wire.api import API
from aiopplx._wire.call import Lane
from aiopplx._wire.request import ResearchRequest
from aiopplx.sonar import SONAR, SONAR_V1, CompletionResponse

JOB_ID = "2c387cce-a2a3-4fd6-8757-b77602e7e87c"
COMPLETED = payload("async-get-completed.real-trimmed")
TEXT: str = COMPLETED["response"]["choices"][0]["message"]["content"]


def read(body: object, expected_id: str = "") -> Snapshot:
    return SONAR.read_job(reply(body), expected_id)


def answer_of(body: object) -> Answer:
    response = read(body).response
    assert response is not None
    return response.answer()


def outcome_of(body: object) -> tuple[str, str]:
    """The status, and the class of what is wrong with it."""
    snapshot = read(body)
    error = outcome_error(snapshot)
    return snapshot.status.value, type(error).__name__ if error is not None else ""


def job(**fields: Any) -> dict[str, Any]:
    return {"id": "a-1", "status": "COMPLETED", "completed_at": 2, **fields}


def saying(content: Any) -> dict[str, Any]:
    return job(response={"choices": [{"message": {"content": content}}]})


def test_api_satisfies_its_protocol():
    api: API = SONAR
    assert (api.name, api.has_idempotency, api.has_list, api.has_cancel) == ("sonar", True, True, False)
    assert api.results_live == 7 * 24 * 3600


# Calls


def test_frozen_request_is_the_body_that_the_server_documents():
    body = json.loads(SONAR.freeze(ResearchRequest("Why?", reasoning_effort="low", extra={"top_k": 5}), "k-1"))
    assert body == {
        "request": {
            "model": "sonar-deep-research",
            "messages": [{"role": "user", "content": "Why?"}],
            "reasoning_effort": "low",
            "top_k": 5,
        },
        "idempotency_key": "k-1",
    }


def test_freezing_equal_requests_gives_equal_bytes():
    one = ResearchRequest.of({"question": "q", "top_p": 1, "extra": {"a": 1, "b": {"c": 1, "d": 2}}})
    other = ResearchRequest.of({"extra": {"b": {"d": 2, "c": 1}, "a": 1}, "top_p": 1, "question": "q"})
    assert SONAR.freeze(one, "k") == SONAR.freeze(one, "k") == SONAR.freeze(other, "k")
    assert SONAR.freeze(one, "k") == SONAR_V1.freeze(one, "k") != SONAR.freeze(one, "j")


def test_idempotency_key_is_not_within_the_request():
    body = json.loads(SONAR.freeze(ResearchRequest("q", idempotency_key="mine", tag="t"), "mine"))
    assert set(body["request"]) == {"model", "messages"}


def test_freezing_refuses_what_the_server_refuses():
    with pytest.raises(InvalidRequest, match="question: must not be empty"):
        SONAR.freeze(ResearchRequest(" "), "k")


@given(st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text), st.text())
def test_frozen_request_round_trips(question: str, key: str):
    body = json.loads(SONAR.freeze(ResearchRequest(question), key))
    assert body["request"]["messages"][0]["content"] == question
    assert body["idempotency_key"] == key


@pytest.mark.parametrize(("api", "base"), [(SONAR, "/async/chat/completions"), (SONAR_V1, "/v1/async/sonar")])
def test_calls_go_to_the_paths_of_the_chosen_family(api: API, base: str):
    submit, get = api.submit(b"{}"), api.get(JOB_ID)
    assert (submit.lane, submit.method, submit.path, submit.body) == (Lane.SUBMIT, "POST", base, b"{}")
    assert (get.lane, get.method, get.path, get.body) == (Lane.POLL, "GET", f"{base}/{JOB_ID}", None)
    assert api.list(limit=None, next_token="").path == base
    assert api.list(limit=5, next_token="").path == f"{base}?limit=5"


@given(st.text(min_size=1))
def test_page_token_survives_its_way_into_the_path(token: str):
    call = SONAR.list(limit=2, next_token=token)
    assert call.path.isascii()
    assert parse_qs(urlsplit(call.path).query) == {"limit": ["2"], "next_token": [token]}


@pytest.mark.parametrize(
    "job_id", ["", ".", "..", "x" * 2_049, "\u4e00" * 683, "\ud800"], ids=lambda bad: ascii(bad[:8])
)
def test_invalid_id_is_not_polled(job_id: str):
    with pytest.raises(InvalidRequest, match="not a job id"):
        SONAR.get(job_id)


def test_empty_page_is_not_requested():
    with pytest.raises(InvalidRequest, match="limit: must be at least 1"):
        SONAR.list(limit=0, next_token="")


def test_cancel_is_refused_as_not_offered():
    with pytest.raises(InvalidRequest, match="cannot cancel a job"):
        SONAR.cancel(JOB_ID)


# What real bodies say


def test_submitted_job_reads_as_created():
    snapshot = read(payload("async-submit-created.real"))
    assert (snapshot.id, snapshot.status, snapshot.server_status) == (JOB_ID, JobStatus.CREATED, "CREATED")
    assert (snapshot.model, snapshot.created_at, snapshot.started_at) == ("sonar-deep-research", 1785329708, None)
    assert snapshot.response is None


def test_running_job_reads_as_in_progress():
    snapshot = read(payload("async-get-in-progress.reconstructed"), JOB_ID)
    assert (snapshot.status, snapshot.started_at, snapshot.response) == (JobStatus.IN_PROGRESS, 1785329708, None)


def test_failed_job_keeps_the_servers_reason():
    snapshot = read(payload("async-get-failed.reconstructed"))
    assert (snapshot.status, snapshot.failed_at) == (JobStatus.FAILED, 1785329801)
    assert snapshot.error_message == "Internal error while processing the request"


def test_completed_job_reads_whole():
    body = msgspec.json.encode(COMPLETED)
    snapshot = read(body, JOB_ID)
    assert (snapshot.status, snapshot.completed_at) == (JobStatus.COMPLETED, 1785329933)
    assert snapshot.raw is body
    response = snapshot.response
    assert isinstance(response, CompletionResponse)
    assert isinstance(response, Readable)
    answer = response.answer()
    assert (answer.text, answer.reasoning, answer.finish_reason) == (TEXT, None, "stop")
    assert answer.model == "sonar-deep-research"
    assert len(answer.sources) == len(answer.citations) == 19
    assert [source.url for source in answer.sources] == answer.citations
    assert (answer.sources[1].title, answer.sources[1].source, answer.sources[1].date) == ("Our Concepts", "web", None)
    assert answer.usage is not None
    assert msgspec.structs.asdict(answer.usage) == {
        "input_tokens": 139,
        "output_tokens": 12817,
        "total_tokens": 12956,
        "reasoning_tokens": 26112,
        "citation_tokens": 2933,
        "search_queries": 38,
        "cost": 0.37702,
    }
    assert response.usage is not None
    assert response.usage.cost is not None
    assert response.usage.cost.search_queries_cost == 0.19


def test_synchronous_answer_in_a_job_gives_reasoning_and_text():
    answer = answer_of(job(response=payload("sync-deep-research-think.real")))
    assert answer.text == "Hello!"
    assert answer.reasoning is not None
    assert answer.reasoning.startswith("The user is asking me to say hello")
    assert answer.reasoning.endswith('"Hello" itself.')
    assert answer.usage is not None
    assert (answer.usage.cost, answer.usage.search_queries) == (0.005973, None)
    assert (answer.sources, answer.citations) == ([], [])


def test_list_reads_as_snapshots_each_with_its_own_bytes():
    page = SONAR.read_page(reply(payload("async-list.reconstructed")))
    assert [snapshot.status for snapshot in page.jobs] == [JobStatus.COMPLETED, JobStatus.CREATED]
    assert (page.next_token, page.skipped) == ("", 0)
    assert json.loads(page.jobs[1].raw)["id"] == page.jobs[1].id == "00000000-0000-4000-8000-000000000002"


def test_extras_that_the_document_names_are_typed():
    source = {"url": "https://a.org", "title": "A"}
    step = {
        "thought": "look",
        "type": "web_search",
        "web_search": {"search_keywords": ["a"], "search_results": [source]},
        "fetch_url_content": {"contents": [source]},
        "execute_python": {"code": "1", "result": "1"},
        "finance_search": {"search_keywords": [], "search_results": []},
    }
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "text", "reasoning_steps": [step], "tool_calls": [call]}
    body = job(
        response={
            "choices": [{"index": 0, "message": message}],
            "images": [{"image_url": "https://a.org/i", "origin_url": "https://a.org", "width": 1, "height": 2}],
            "videos": [{"url": "https://a.org/v", "duration": 5}],
            "related_questions": ["And then?"],
            "novelty": {"a": 1},
        }
    )
    response = read(body).response
    assert isinstance(response, CompletionResponse)
    kept = msgspec.to_builtins(response)
    assert response.choices is not None
    assert response.choices[0].message is not None
    steps = response.choices[0].message.reasoning_steps
    assert steps is not None
    assert steps[0].web_search is not None
    assert steps[0].web_search.search_results is not None
    assert steps[0].web_search.search_results[0].url == "https://a.org"
    assert kept["choices"][0]["message"]["tool_calls"] == [call]
    assert (kept["images"][0]["width"], kept["videos"][0]["duration"]) == (1, 5)
    assert kept["related_questions"] == ["And then?"]


# Status


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("created", JobStatus.CREATED),
        ("QUEUED", JobStatus.CREATED),
        ("queued", JobStatus.CREATED),
        ("in_progress", JobStatus.IN_PROGRESS),
        ("Completed", JobStatus.COMPLETED),
        (" FAILED ", JobStatus.FAILED),
        ("CANCELLED", JobStatus.IN_PROGRESS),
        ("dreaming", JobStatus.IN_PROGRESS),
    ],
)
def test_status_is_an_open_word_in_any_case(word: str, status: JobStatus):
    snapshot = read({"id": "a-1", "status": word})
    assert (snapshot.status, snapshot.server_status) == (status, word)


@pytest.mark.parametrize("status", [None, 5, [], {}])
def test_job_without_a_status_gets_one_from_its_fields(status: Any):
    assert read({**saying("text"), "status": status}).status is JobStatus.COMPLETED
    assert read({**saying("text"), "status": status, "completed_at": None}).status is JobStatus.IN_PROGRESS
    assert read({"id": "a-1", "status": status, "failed_at": 5}).status is JobStatus.FAILED
    assert read({"id": "a-1", "status": status}).status is JobStatus.IN_PROGRESS


# The answer


@pytest.mark.parametrize(
    "response",
    [
        None,
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": ""}}]},
        {"choices": [{"message": {"content": " \n"}}]},
        {"choices": [{"message": {"content": []}}]},
        {"choices": [None]},
        {"choices": "none"},
        "text",
    ],
)
def test_completed_job_without_a_text_is_empty(response: Any):
    snapshot = read(job(response=response))
    assert (snapshot.status, snapshot.is_empty) == (JobStatus.COMPLETED, True)


@pytest.mark.parametrize("choices", [None, [], [{"message": {"content": None}}], [{"message": {"content": " \n"}}]])
def test_bill_of_an_empty_answer_is_read(choices: Any):
    body = {**COMPLETED, "response": {**COMPLETED["response"], "choices": choices}}
    answer, whole = answer_of(body), answer_of(COMPLETED)
    assert answer.usage == whole.usage
    assert answer.usage is not None
    assert answer.usage.cost == COMPLETED["response"]["usage"]["cost"]["total_cost"]
    assert (answer.text, answer.sources) == ("", whole.sources)
    assert outcome_of(body) == ("COMPLETED", "ResultMissing")
    assert outcome_of(COMPLETED) == ("COMPLETED", "")


@pytest.mark.parametrize("status", ["CREATED", "IN_PROGRESS", "FAILED", "PENDING_REVIEW", None])
def test_only_a_completed_job_counts_as_empty(status: str | None):
    snapshot = read(job(status=status, response={"choices": [], "usage": {"cost": {"total_cost": 0.25}}}))
    assert not snapshot.is_empty
    assert snapshot.status is not JobStatus.COMPLETED


def test_bill_of_a_failed_job_is_read():
    body = job(status="FAILED", response={"choices": [], "usage": {"cost": {"total_cost": 0.25}}})
    usage = answer_of(body).usage
    assert usage is not None
    assert usage.cost == 0.25
    assert outcome_of(body) == ("FAILED", "JobFailed")


@pytest.mark.parametrize(
    ("content", "reasoning", "text"),
    [
        ("plain", None, "plain"),
        ("<think>a</think>b", "a", "b"),
        ("\n <think>\na\n</think>\n\nb\n", "a", "b\n"),
        ("<think></think>b", "", "b"),
        ("<think>a</think>", "a", ""),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("<think>never closed, and perhaps the answer", None, "<think>never closed, and perhaps the answer"),
        ("it says <think>a</think>", None, "it says <think>a</think>"),
        ("", None, ""),
    ],
)
def test_think_part_at_the_start_is_the_reasoning(content: str, reasoning: str | None, text: str):
    assert split(content) == (reasoning, text)


@given(st.text(alphabet="<think>/ \nab", max_size=40))
def test_splitting_a_content_loses_no_word_of_it(content: str):
    reasoning, text = split(f"<think>{content}")
    whole = text if reasoning is None else f"<think>{reasoning}</think>{text}"
    assert re.sub(r"\s", "", whole) == re.sub(r"\s", "", f"<think>{content}")


def test_text_without_a_think_part_is_not_copied():
    response = read(COMPLETED).response
    assert isinstance(response, CompletionResponse)
    assert response.answer().text is response.answer().text


def test_answer_of_nothing_but_reasoning_is_kept():
    answer = answer_of(saying("<think>a</think>"))
    assert (answer.reasoning, answer.text) == ("a", "")


def test_content_in_parts_is_joined():
    assert answer_of(saying(["a", {"type": "text", "text": "b"}, {"type": "image_url"}, 5, None])).text == "ab"


def test_text_is_found_in_the_first_choice_with_one():
    choices = [None, {"message": {"content": ""}, "delta": {"content": ""}}, {"delta": {"content": "late"}}]
    assert answer_of(job(response={"choices": choices})).text == "late"


def test_sources_and_citations_stand_in_for_each_other():
    choices = [{"message": {"content": "a [1]"}}]
    cited = answer_of(job(response={"choices": choices, "citations": ["https://a.org"], "search_results": None}))
    assert [source.url for source in cited.sources] == ["https://a.org"]
    found = answer_of(job(response={"choices": choices, "search_results": [{"url": "https://a.org"}]}))
    assert found.citations == ["https://a.org"]


# Odd bodies


PATHS = sorted(paths(COMPLETED), key=str)
TO_TEXT = ("response", "choices", 0, "message", "content")


@given(st.sampled_from([path for path in PATHS if path != ("id",)]), ANY_JSON)
def test_one_odd_field_loses_nothing_but_itself(path: tuple[Any, ...], odd: Any):
    body = msgspec.json.encode(with_odd(COMPLETED, path, odd))
    snapshot = read(body, JOB_ID)
    assert snapshot.raw is body
    if path == TO_TEXT[: len(path)]:
        return
    assert snapshot.response is not None
    answer = snapshot.response.answer()
    assert answer.text == TEXT
    if path[:2] not in {("response", "search_results"), ("response", "citations")}:
        assert len(answer.sources) == len(answer.citations) == 19
    if path[:2] != ("response", "usage"):
        assert answer.usage is not None
        assert answer.usage.cost == 0.37702
    if path != ("status",):
        assert snapshot.status is JobStatus.COMPLETED


@pytest.mark.parametrize("path", [path for path in PATHS if path != ("id",)], ids=str)
def test_any_field_may_be_missing(path: tuple[Any, ...]):
    body = without(COMPLETED, path)
    snapshot = read(body, JOB_ID)
    assert (snapshot.response is not None) is (path != ("response",))
    assert snapshot.is_empty is (path == TO_TEXT[: len(path)])


def test_odd_source_leaves_the_others_in_their_places():
    answer = answer_of(with_odd(COMPLETED, ("response", "search_results", 3), None))
    assert answer.sources[3].url == ""
    assert answer.sources[4].url == COMPLETED["response"]["search_results"][4]["url"]
    assert len(answer.sources) == 19


def test_number_written_as_text_is_still_a_number():
    body = with_odd(COMPLETED, ("response", "usage", "prompt_tokens"), "139")
    body["created_at"] = 1785329708.0
    snapshot = read(body)
    assert snapshot.created_at == 1785329708
    assert answer_of(body).usage == answer_of(COMPLETED).usage


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0.37702", b"NaN"),
        (b"0.37702", b"-Infinity"),
        (b"0.37702", b"1e999"),
    ],
)
def test_invalid_number_is_dropped(old: bytes, new: bytes):
    answer = answer_of(msgspec.json.encode(COMPLETED).replace(old, new))
    assert answer.text == TEXT
    assert answer.usage is not None
    assert (answer.usage.cost, answer.usage.output_tokens) == (None, 12817)


@pytest.mark.parametrize("broken", [b"\xff\xfe", b"\\ud83d", b"\x01"])
def test_text_with_a_broken_character_keeps_the_others(broken: bytes):
    text = answer_of(msgspec.json.encode(saying("before * after")).replace(b"*", broken)).text
    assert text.startswith("before ")
    assert text.endswith(" after")
    text.encode()


def test_byte_order_mark_is_passed_over():
    body = b"\xef\xbb\xbf" + msgspec.json.encode(COMPLETED)
    assert answer_of(body).text == TEXT
    assert read(body).raw is body


def test_deep_unknown_field_raises_only_a_library_error():
    body = b'{"id": "a-1", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(ProtocolError, match="nested too deeply"):
        read(body)


UNUSABLE: list[tuple[object, str]] = [
    (b"", "an empty body"),
    (b"\xef\xbb\xbf \n", "an empty body"),
    (b"<!DOCTYPE html><title>502</title>", "a page of HTML"),
    (b"  <html>", "a page of HTML"),
    (b'{"id": "a-1", "stat', "cut short or malformed"),
    (msgspec.json.encode(COMPLETED)[:-1], "cut short or malformed"),
    (b"upstream connect error", "something that is not JSON"),
    (b"\x1f\x8b\x08\x00", "something that is not JSON"),
    (payload("async-list.reconstructed"), "a list of jobs"),
    ({"requests": []}, "a list of jobs"),
    ([COMPLETED], "a list of jobs"),
    ([], "a list of jobs"),
    ("a-1", "a single value"),
    (5, "a single value"),
    (None, "a single value"),
    (True, "a single value"),
    ({}, "without a usable id"),
    ({"id": None, "status": "CREATED"}, "without a usable id"),
    ({"id": True, "status": "CREATED"}, "without a usable id"),
    ({"id": "", "status": "CREATED"}, "without a usable id"),
    ({"id": "..", "status": "CREATED"}, "without a usable id"),
    ({"id": "x" * 3_000, "status": "CREATED"}, "cannot be asked for under 'xxx"),
    ({"error": {"message": "no"}}, "without a usable id"),
]


@pytest.mark.parametrize(("body", "what"), UNUSABLE)
def test_body_that_is_not_a_job_is_refused(body: object, what: str):
    for expected_id in ("", JOB_ID):
        with pytest.raises(ProtocolError, match=what) as refused:
            read(body, expected_id)
        assert refused.value.status == 200
        assert refused.value.request_id == "r-1"
        assert refused.value.__context__ is None


def test_another_jobs_body_is_refused():
    with pytest.raises(ProtocolError, match="another job"):
        read(COMPLETED, "00000000-0000-4000-8000-000000000002")


def test_refused_body_is_kept_up_to_four_kib():
    with pytest.raises(ProtocolError) as refused:
        read(b"<html>" + b"x" * 10_000)
    assert refused.value.body == "<html>" + "x" * 4090


@given(st.binary(max_size=200) | ANY_JSON.map(msgspec.json.encode))
def test_any_bytes_read_as_job_page_or_protocol_error(body: bytes):
    for reader in (lambda: SONAR.read_job(reply(body), ""), lambda: SONAR.read_page(reply(body))):
        try:
            reader()
        except ProtocolError as error:
            assert str(error).startswith("the server answered with")  # noqa: PT017  # a reading is as good


# The list


def test_bad_row_is_skipped_and_counted():
    rows: list[Any] = [
        {"id": "a"},
        None,
        5,
        {"id": None},
        {"id": ".."},
        {"status": "CREATED"},
        {"id": "b", "model": 5},
    ]
    page = SONAR.read_page(reply({"requests": rows, "next_token": "t"}))
    assert [snapshot.id for snapshot in page.jobs] == ["a", "b"]
    assert (page.next_token, page.skipped) == ("t", 5)


def test_bad_character_in_one_row_loses_no_other():
    body = b'{"requests": [{"id": "a", "model": "*"}, {"id": "b", "created_at": NaN}], "next_token": "t"}'
    page = SONAR.read_page(reply(body.replace(b"*", b"\xff")))
    assert [snapshot.id for snapshot in page.jobs] == ["a", "b"]
    assert page.next_token == "t"
    page = SONAR.read_page(reply(b'{"requests": [{"id": "a", "model": "\xff"}, {"id": "b"}]}'))
    assert [snapshot.id for snapshot in page.jobs] == ["a", "b"]


@pytest.mark.parametrize("token", [None, 5, [], ""])
def test_token_other_than_text_ends_the_list(token: Any):
    assert SONAR.read_page(reply({"requests": [], "next_token": token})).next_token == ""


@pytest.mark.parametrize(
    "body", [b"", b"<html>", [], COMPLETED, {"requests": None}, {"requests": {}}, 5, b'{"requests": [{']
)
def test_body_that_is_not_a_list_is_refused(body: object):
    with pytest.raises(ProtocolError):
        SONAR.read_page(reply(body))


@pytest.mark.parametrize(
    "said",
    [{"error_message": {"message": "out of pages"}}, {"error": "out of pages"}, {"error": {"message": "out of pages"}}],
    ids=str,
)
def test_failure_reason_is_found_in_any_form(said: dict[str, object]):
    body = msgspec.json.encode({"id": "a", "model": "m", "created_at": 1, "status": "FAILED", **said})
    assert SONAR.read_job(reply(body), "a").error_message == "out of pages"
