"""The Agent API: its calls, its requests, the reading of its answers, and the translation from Sonar's requests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec
import pytest
from _bodies import ANY_JSON, paths, reply, with_odd, without
from _captured import Document, payload
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from aiopplx._errors import ActionRequired, InvalidRequest, ProtocolError, ResultMissing
from aiopplx._job import Answer, JobStatus, Readable, Snapshot, Source, outcome_error
from aiopplx._wire.api import API
from aiopplx._wire.call import Lane, Reply, error_of
from aiopplx._wire.messages import JSONSchema, JSONSchemaFormat, Regex, RegexFormat, UserLocation, WebSearchOptions
from aiopplx._wire.request import ResearchRequest
from aiopplx.agent import (
    AGENT,
    AGENT_ALIAS,
    MAX_BODY,
    AgentRequest,
    AgentResponse,
    FetchURLResultsItem,
    FetchURLTool,
    FunctionCallItem,
    FunctionTool,
    InputFile,
    InputImage,
    InputMessage,
    InputText,
    MessageItem,
    PeopleSearchResultsItem,
    Reasoning,
    SearchResultsItem,
    UnknownItem,
    WebSearchFilters,
    WebSearchTool,
    cited,
    translate,
)
from aiopplx.sonar import SONAR

FIELDS, AGENT_FIELDS = ResearchRequest.__struct_fields__, AgentRequest.__struct_fields__

RUN_ID = "resp_d60f3e03-57e0-4048-994f-69b29a6d2ce7"
DOCUMENT = Document("agent-background")
SCHEMAS = DOCUMENT.schemas
REQUEST = Draft202012Validator(SCHEMAS["ResponsesRequest"])
COMPLETED = payload("agent-completed.real-trimmed")
TEXT: str = COMPLETED["output"][2]["content"][0]["text"]


def read(body: object, expected_id: str = "") -> Snapshot:
    return AGENT.read_job(reply(body), expected_id)


def response_of(body: object) -> AgentResponse:
    response = read(body).response
    assert isinstance(response, AgentResponse)
    return response


def answer_of(body: object) -> Answer:
    return response_of(body).answer()


def run(*output: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": "completed", "output": list(output), **fields}


def message(*texts: str) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text} for text in texts],
    }


def search(*results: dict[str, Any]) -> dict[str, Any]:
    return {"type": "search_results", "queries": ["q"], "results": list(results)}


def fetched(*urls: str) -> dict[str, Any]:
    return {"type": "fetch_url_results", "contents": [{"url": url, "title": "T", "snippet": "S"} for url in urls]}


def found(number: int, url: str) -> dict[str, Any]:
    return {"id": number, "url": url, "title": "T", "snippet": "S", "source": "web"}


def frozen(request: ResearchRequest | AgentRequest) -> Any:
    """The body of a submission, held against the document."""
    body = json.loads(AGENT.freeze(request, "k-1"))
    assert list(REQUEST.iter_errors(body)) == []
    assert set(body) <= set(SCHEMAS["ResponsesRequest"]["properties"])
    return body


def refused(request: ResearchRequest | AgentRequest) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        AGENT.freeze(request, "k")
    return caught.value


def test_api_satisfies_its_protocol():
    api: API = AGENT
    assert (api.name, api.has_idempotency, api.has_list, api.has_cancel) == ("agent", False, False, True)
    assert api.results_live == 7 * 24 * 3600


# Calls


@pytest.mark.parametrize(("api", "base"), [(AGENT, "/v1/responses"), (AGENT_ALIAS, "/v1/agent")])
def test_calls_go_to_the_chosen_path(api: API, base: str):
    submit, get, cancel = api.submit(b"{}"), api.get(RUN_ID), api.cancel(RUN_ID)
    assert (submit.lane, submit.method, submit.path, submit.body) == (Lane.SUBMIT, "POST", base, b"{}")
    assert (get.lane, get.method, get.path, get.body) == (Lane.POLL, "GET", f"{base}/{RUN_ID}", None)
    assert (cancel.lane, cancel.method, cancel.path) == (Lane.CANCEL, "POST", f"{base}/{RUN_ID}/cancel")
    for call in (submit, get, cancel):
        path = call.path.replace(RUN_ID, "{id}")
        assert call.method.lower() in DOCUMENT.content["paths"][path]


@pytest.mark.parametrize("job_id", ["", ".", "..", "x" * 2_049, "\ud800"], ids=lambda job_id: ascii(job_id[:8]))
def test_invalid_id_is_neither_polled_nor_cancelled(job_id: str):
    for call in (AGENT.get, AGENT.cancel):
        with pytest.raises(InvalidRequest, match="not a job id"):
            call(job_id)


def test_list_is_refused_as_not_offered():
    with pytest.raises(InvalidRequest, match="cannot list"):
        AGENT.list(limit=None, next_token="")
    with pytest.raises(InvalidRequest, match="cannot list"):
        AGENT.read_page(reply({"requests": []}))


# What real bodies say


def test_queued_run_reads_as_created():
    snapshot = read(payload("agent-submit-queued.real"))
    assert (snapshot.id, snapshot.status, snapshot.server_status) == (RUN_ID, JobStatus.CREATED, "queued")
    assert (snapshot.model, snapshot.response, snapshot.error_message) == ("medium", None, None)


def test_running_run_shows_its_results_so_far():
    snapshot = read(payload("agent-in-progress.real-trimmed"), RUN_ID)
    assert (snapshot.status, snapshot.server_status) == (JobStatus.IN_PROGRESS, "in_progress")
    assert snapshot.response is not None
    answer = snapshot.response.answer()
    assert [source.id for source in answer.sources] == [12, 17]
    assert (answer.text, answer.usage, answer.finish_reason) == ("", None, None)


def test_completed_run_reads_whole():
    body = msgspec.json.encode(COMPLETED)
    snapshot = read(body, RUN_ID)
    assert (snapshot.status, snapshot.model, snapshot.error_message) == (
        JobStatus.COMPLETED,
        "openai/gpt-6-luna",
        None,
    )
    assert snapshot.raw is body
    response = snapshot.response
    assert isinstance(response, AgentResponse)
    assert isinstance(response, Readable)
    answer = response.answer()
    assert (answer.text, answer.reasoning, answer.finish_reason) == (TEXT, None, "stop")
    assert answer.citations == [source.url for source in answer.sources]
    assert answer.citations == [
        "https://docs.pinecone.io/guides/manage-cost/understanding-cost",
        "https://www.pinecone.io/blog/v2-pricing/",
        "https://qdrant.tech/pricing/",
    ]
    assert (answer.sources[1].date, answer.sources[0].date, answer.sources[0].source) == ("2021-10-04", None, "web")
    assert answer.usage is not None
    assert msgspec.structs.asdict(answer.usage) == {
        "input_tokens": 24463,
        "output_tokens": 1085,
        "total_tokens": 25548,
        "reasoning_tokens": 487,
        "citation_tokens": None,
        "search_queries": 3,
        "cost": 0.01599,
    }


def test_structs_hold_every_field_of_a_real_body():
    def told(body: Any, struct: Any) -> None:
        if isinstance(body, dict):
            for name, value in body.items():
                assert name in struct, name
                told(value, struct[name])
        elif isinstance(body, list):
            for value, kept in zip(body, struct, strict=True):
                told(value, kept)
        else:
            assert body == struct

    for name in ("agent-completed.real-trimmed", "agent-in-progress.real-trimmed", "agent-incomplete.real"):
        told(payload(name), msgspec.to_builtins(response_of(payload(name))))


def test_incomplete_run_keeps_its_bill_and_reason():
    snapshot = read(payload("agent-incomplete.real"))
    assert (snapshot.status, snapshot.error_message) == (JobStatus.INCOMPLETE, "max_output_tokens")
    assert snapshot.response is not None
    answer = snapshot.response.answer()
    assert (answer.text, answer.finish_reason) == ("", "max_output_tokens")
    assert answer.usage is not None
    assert (answer.usage.cost, answer.usage.reasoning_tokens, answer.usage.search_queries) == (1e-05, 16, None)


def test_cancelled_run_keeps_what_it_found():
    error = {"code": "cancelled", "message": "cancelled", "type": "cancelled"}
    details = {"reason": "cancelled"}
    snapshot = read(
        run(search(found(1, "https://a.org")), status="cancelled", error=error, incomplete_details=details, usage=None)
    )
    assert (snapshot.status, snapshot.error_message) == (JobStatus.CANCELLED, "cancelled")
    assert snapshot.response is not None
    answer = snapshot.response.answer()
    assert (answer.citations, answer.usage, answer.finish_reason) == (["https://a.org"], None, "cancelled")


def test_failed_run_says_message_and_code():
    error = {"code": "upstream_error", "message": "The model broke off", "type": "server_error"}
    snapshot = read(run(status="failed", error=error))
    assert (snapshot.status, snapshot.error_message) == (
        JobStatus.FAILED,
        "The model broke off (upstream_error, server_error)",
    )
    assert read(run(status="failed", error={"type": "server_error"})).error_message == "server_error"
    assert read(run(status="failed", error={"message": "no", "code": 500})).error_message == "no (500)"
    assert read(run(status="failed", error=None)).error_message is None


def test_server_times_are_kept_but_not_reported():
    snapshot = read(COMPLETED)
    assert (snapshot.created_at, snapshot.started_at, snapshot.completed_at, snapshot.failed_at) == (None,) * 4
    assert response_of(COMPLETED).created_at == 1791572975


def test_run_without_searches_has_no_sources():
    details = {"fetch_url": {"invocation": 1, "cost_usd": 0.00359}}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "tool_calls_details": details}
    answer = answer_of(run(message("text"), usage=usage))
    assert answer.sources == []
    assert answer.usage is not None
    assert (answer.usage.search_queries, answer.usage.cost) == (0, None)


# Status


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("queued", JobStatus.CREATED),
        ("QUEUED", JobStatus.CREATED),
        ("in_progress", JobStatus.IN_PROGRESS),
        ("requires_action", JobStatus.FAILED),
        ("cancelling", JobStatus.IN_PROGRESS),
        ("dreaming", JobStatus.IN_PROGRESS),
        (" Completed ", JobStatus.COMPLETED),
        ("failed", JobStatus.FAILED),
        ("cancelled", JobStatus.CANCELLED),
        ("incomplete", JobStatus.INCOMPLETE),
    ],
)
def test_status_is_an_open_word_in_any_case(word: str, status: JobStatus):
    snapshot = read(run(message("text"), status=word))
    assert (snapshot.status, snapshot.server_status) == (status, word)


@pytest.mark.parametrize("status", [None, 5, [], {}, " "])
def test_run_without_a_status_gets_one_from_its_fields(status: Any):
    assert read(run(message("text"), status=status, completed_at=5)).status is JobStatus.COMPLETED
    assert read(run(message("text"), status=status)).status is JobStatus.IN_PROGRESS
    assert read(run(status=status, completed_at=5)).status is JobStatus.IN_PROGRESS
    assert read(run(status=status, error={"message": "no"})).status is JobStatus.FAILED


# The answer


@pytest.mark.parametrize(
    "output",
    [
        None,
        [],
        [None],
        17,
        [search(found(1, "https://a.org"))],
        [message()],
        [message("")],
        [message(" \n")],
        [{"type": "message", "content": None}],
        [{"type": "message", "content": [{"type": "refusal", "text": "no"}]}],
        [{"type": "novelty", "text": "text"}],
    ],
)
def test_completed_run_without_text_is_empty_but_billed(output: Any):
    body = {"id": "resp_1", "status": "completed", "output": output, "usage": COMPLETED["usage"]}
    snapshot = read(body)
    assert (snapshot.status, snapshot.is_empty) == (JobStatus.COMPLETED, True)
    assert isinstance(outcome_error(snapshot), ResultMissing)
    answer = answer_of(body)
    assert answer.text == ""
    assert answer.usage == answer_of(COMPLETED).usage
    assert answer.usage is not None
    assert answer.usage.cost == COMPLETED["usage"]["cost"]["total_cost"]


@pytest.mark.parametrize("status", ["queued", "in_progress", "failed", "cancelled", "incomplete", "thinking"])
def test_only_a_completed_run_counts_as_empty(status: str):
    assert not read({"id": "resp_1", "status": status, "output": []}).is_empty


def test_completed_run_that_calls_a_function_has_a_response():
    call = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
        "status": "completed",
    }
    assert isinstance(outcome_error(read(run(call))), ActionRequired)
    assert outcome_error(read(run(call, message("all the same an answer")))) is None
    response = response_of(run(call))
    assert [item.name for item in response.function_calls()] == ["f"]
    assert isinstance(response.output[0], FunctionCallItem)


def test_text_is_that_of_all_messages_in_order():
    body = run(message("a", "b"), search(), message("c"), {"type": "message", "content": "d"})
    assert answer_of(body).text == "ab\n\nc\n\nd"


def test_partial_text_of_a_running_run_is_there():
    snapshot = read(run(message("so far"), status="in_progress"))
    assert snapshot.response is not None
    assert snapshot.response.answer().text == "so far"


def test_reasoning_items_are_the_reasoning():
    first = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "short"}]}
    both = {**first, "content": [{"type": "reasoning_text", "text": "long"}, {"type": "reasoning_text", "text": "er"}]}
    assert answer_of(run(first, both, message("text"))).reasoning == "short\n\nlong\n\ner"
    assert answer_of(run({"type": "reasoning", "summary": []}, message("text"))).reasoning is None


def test_known_items_are_typed_and_others_kept_whole():
    novelty = {"type": "sandbox_results", "code": "1", "results": [{"stdout": "1"}]}
    theirs = {"type": "unknown", "item_name": "x", "payload": {"a": 1}}
    people = {**search(found(3, "https://p.org")), "type": "people_search_results"}
    body = run(search(), fetched("https://a.org"), people, novelty, theirs, message("text"))
    output = response_of(body).output
    kinds = [SearchResultsItem, FetchURLResultsItem, PeopleSearchResultsItem, UnknownItem, UnknownItem, MessageItem]
    assert [type(item) for item in output] == kinds
    assert output[3] == UnknownItem(item_name="sandbox_results", payload=novelty)
    assert output[4] == UnknownItem(item_name="x", payload={"a": 1})
    assert answer_of(body).citations == ["https://a.org", "https://p.org"]


# Sources and the marks that name them


def test_page_found_and_read_is_one_numbered_source():
    body = run(fetched("https://a.org", "https://b.org"), search(found(1, "https://a.org")), message("text"))
    assert [(source.id, source.url) for source in answer_of(body).sources] == [
        (None, "https://b.org"),
        (1, "https://a.org"),
    ]


def test_page_found_under_two_numbers_answers_to_both():
    body = run(search(found(1, "https://a.org")), search(found(11, "https://a.org")), message("text"))
    sources = answer_of(body).sources
    assert set(cited("one [web:1], two [web:11]", sources)) == {"[web:1]", "[web:11]"}
    repeated = run(search(found(1, "https://a.org")), search(found(1, "https://a.org")), message("text"))
    assert len(answer_of(repeated).sources) == 1


# From a capture of a run with three parallel searches, which came back with the numbers 11-20, 21-30 and 1-10.
PARALLEL = run(
    search(found(11, "https://www.pinecone.io/pricing/"), found(12, "https://docs.pinecone.io/")),
    search(found(21, "https://weaviate.io/pricing"), found(22, "https://weaviate.io/support-plans")),
    search(found(1, "https://qdrant.tech/pricing/"), found(2, "https://qdrant.tech/cloud/")),
    fetched("https://www.pinecone.io/pricing/", "https://weaviate.io/pricing", "https://qdrant.tech/pricing/"),
    message("Pinecone has a minimum. [web:11] Weaviate too. [web:21] Qdrant has not. [web:1]"),
)


def test_mark_names_a_result_by_number_wherever_it_stands():
    answer = answer_of(PARALLEL)
    assert len(answer.sources) == 6
    marks = cited(answer.text, answer.sources)
    assert {mark: source.url for mark, source in marks.items()} == {
        "[web:11]": "https://www.pinecone.io/pricing/",
        "[web:21]": "https://weaviate.io/pricing",
        "[web:1]": "https://qdrant.tech/pricing/",
    }
    assert list(marks) == ["[web:11]", "[web:21]", "[web:1]"]


def test_bare_mark_names_the_number_too():
    body = run(search(found(1, "https://a.org"), found(3, "https://c.org")), message("Released.[1][3]"))
    answer = answer_of(body)
    assert [source.url for source in cited(answer.text, answer.sources).values()] == ["https://a.org", "https://c.org"]


def test_mark_of_a_page_only_read_counts_from_zero():
    answer = answer_of(run(fetched("https://a.org"), message("79 characters. [web:0]")))
    assert {mark: source.url for mark, source in cited(answer.text, answer.sources).items()} == {
        "[web:0]": "https://a.org"
    }


def test_mark_among_sources_without_numbers_counts_from_one():
    sources = [Source(url="https://a.org"), Source(), Source(url="https://c.org")]
    marks = cited("a [1], b [2], c [3], d [4], e [0]", sources)
    assert {mark: source.url for mark, source in marks.items()} == {"[1]": "https://a.org", "[3]": "https://c.org"}


def test_what_only_resembles_a_mark_is_ignored():
    sources = [Source(url="https://a.org", id=1)]
    assert cited("[1](https://b.org) [2026] [one] [web:] [-1] [99999999999999999999]", sources) == {}
    assert cited("[1]", []) == {}


@given(st.text(alphabet="[]web:0123 (", max_size=40), st.lists(st.integers(0, 3) | st.none(), max_size=4))
def test_marks_come_from_the_text_and_point_into_sources(text: str, ids: list[int | None]):
    sources = [Source(url=f"https://{place}.org", id=number) for place, number in enumerate(ids)]
    for mark, source in cited(text, sources).items():
        assert mark in text
        assert source in sources


# Odd bodies


PATHS = sorted((path for path in paths(COMPLETED) if path != ("id",)), key=str)
TO_TEXT = ("output", 2, "content", 0, "text")
TO_TYPES = {("output", 2, "type"), ("output", 2, "content", 0, "type")}


@given(st.sampled_from(PATHS), ANY_JSON)
def test_one_odd_field_loses_nothing_but_itself(path: tuple[Any, ...], odd: Any):
    body = msgspec.json.encode(with_odd(COMPLETED, path, odd))
    snapshot = read(body, RUN_ID)
    assert snapshot.raw is body
    # A word in a place that tells kinds apart is a new kind, and no oddity.
    if path == TO_TEXT[: len(path)] or (path in TO_TYPES and isinstance(odd, str)) or path == ("status",):
        return
    assert snapshot.status is JobStatus.COMPLETED
    assert snapshot.response is not None
    answer = snapshot.response.answer()
    assert answer.text == TEXT
    if path[0] != "output":
        assert len(answer.sources) == len(answer.citations) == 3
    if path[0] != "usage":
        assert answer.usage is not None
        assert answer.usage.cost == 0.01599


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_any_field_may_be_missing(path: tuple[Any, ...]):
    body = without(COMPLETED, path)
    snapshot = read(body, RUN_ID)
    assert snapshot.response is not None
    assert snapshot.is_empty is (path == TO_TEXT[: len(path)])


def test_number_written_as_text_is_still_a_number():
    body = with_odd(COMPLETED, ("usage", "cost", "total_cost"), "0.01599")
    body["created_at"] = 1791572975.0
    assert answer_of(body).usage == answer_of(COMPLETED).usage


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999"])
def test_invalid_number_is_dropped(number: bytes):
    answer = answer_of(msgspec.json.encode(COMPLETED).replace(b"0.01599", number))
    assert answer.text == TEXT
    assert answer.usage is not None
    assert (answer.usage.cost, answer.usage.output_tokens) == (None, 1085)


@pytest.mark.parametrize("broken", [b"\xff\xfe", b"\\ud83d", b"\x01"])
def test_text_with_a_broken_character_keeps_the_others(broken: bytes):
    text = answer_of(msgspec.json.encode(run(message("before * after"))).replace(b"*", broken)).text
    assert text.startswith("before ")
    assert text.endswith(" after")
    text.encode()


UNUSABLE: list[tuple[object, str]] = [
    (b"", "an empty body"),
    (b"<!DOCTYPE html><title>502</title>", "a page of HTML"),
    (b'{"id": "resp_1", "stat', "cut short or malformed"),
    (b"upstream connect error", "something that is not JSON"),
    (b'{"id": "resp_1", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ([COMPLETED], "a list of jobs"),
    ({"object": "list", "data": [COMPLETED]}, "a list of jobs"),
    ("resp_1", "a single value"),
    (None, "a single value"),
    ({}, "without a usable id"),
    ({"id": None, "status": "queued"}, "without a usable id"),
    ({"id": "..", "status": "queued"}, "without a usable id"),
    ({"response_id": "resp_1", "status": "cancelling"}, "without a usable id"),
    (payload("agent-get-404.real"), "without a usable id"),
]


@pytest.mark.parametrize(("body", "what"), UNUSABLE)
def test_body_that_is_not_a_run_is_refused(body: object, what: str):
    for expected_id in ("", RUN_ID):
        with pytest.raises(ProtocolError, match=what) as caught:
            read(body, expected_id)
        assert (caught.value.status, caught.value.request_id) == (200, "r-1")
        assert caught.value.__context__ is None


def test_another_runs_body_is_refused():
    with pytest.raises(ProtocolError, match="another job"):
        read(COMPLETED, "resp_00000000-0000-4000-8000-000000000002")


@given(st.binary(max_size=200) | ANY_JSON.map(msgspec.json.encode))
def test_any_bytes_read_as_a_run_or_protocol_error(body: bytes):
    for reader in (lambda: AGENT.read_job(reply(body), ""), lambda: AGENT.read_cancel(reply(body))):
        try:
            reader()
        except ProtocolError as error:
            assert str(error).startswith("the server answered with")  # noqa: PT017  # a reading is as good


# Cancelling


def test_cancellation_is_read_as_the_servers_word():
    assert AGENT.read_cancel(reply(payload("agent-cancel-accepted.real"))) == "cancelling"
    assert AGENT.read_cancel(reply(run(status="cancelled"))) == "cancelled"


WHY = "the widget was jammed"


@pytest.mark.parametrize(
    "body",
    [
        WHY,
        {"error": {"message": WHY}},
        {"detail": WHY},
        {"success": False, "error": WHY},
        {"cancelled": False, "message": WHY},
        {"status": "rejected", "reason": WHY},
        {"status": "not_cancelled", "error": {"message": WHY}},
        json.dumps({"error": {"message": WHY}}),
    ],
    ids=str,
)
def test_refusal_in_a_success_says_why(body: object):
    with pytest.raises(ProtocolError, match=WHY):
        AGENT.read_cancel(reply(body))
    if "status" not in body:
        for read in (AGENT.read_files, SONAR.read_page):
            with pytest.raises(ProtocolError, match=WHY):
                read(reply(body))


@pytest.mark.parametrize("body", [{}, {"status": None}, [], b"<html>", b"", "cancelling"])
def test_cancellation_without_a_word_is_refused(body: object):
    with pytest.raises(ProtocolError):
        AGENT.read_cancel(reply(body))


# The native request


def test_question_is_sent_with_the_effort_of_deep_research():
    assert frozen(AgentRequest("Why?")) == {"input": "Why?", "effort": "high", "background": True}


@pytest.mark.parametrize("version", ["", "@2026-10-16.0"])
@pytest.mark.parametrize("name", ["fast", "low", "medium", "high", "xhigh"])
def test_preset_is_sent_as_the_effort_of_its_name(name: str, version: str):
    said = {"input": "q", "effort": name + version, "background": True}
    assert frozen(AgentRequest("q", preset=name + version)) == said
    assert frozen(AgentRequest("q", effort=name + version)) == said
    assert frozen(AgentRequest("q", effort=name + version, preset="low")) == said
    assert frozen(ResearchRequest("q", model=name + version)) == said


@pytest.mark.parametrize("name", ["wide-research", "fast-search", "pro-search", "deep-research", "new-name"])
def test_preset_that_is_no_effort_stays_a_preset(name: str):
    assert frozen(AgentRequest("q", preset=name)) == {"input": "q", "preset": name, "background": True}


@pytest.mark.parametrize("model", ["high@", "@2026-10-16.0", "sonar@2026-10-16.0", "highest"])
def test_model_that_is_no_release_of_it_is_refused(model: str):
    assert refused(ResearchRequest("q", model=model)).field == "model"


@pytest.mark.parametrize("other", ["effort", "preset"])
def test_profile_beside_an_effort_or_preset_is_refused(other: str):
    problem = refused(AgentRequest("q", profile={"type": "custom", "id": "p"}, **{other: "low"}))
    assert problem.field == "profile"
    assert "leave one of them out" in problem.message


def test_earlier_release_gets_the_same_request_with_its_word():
    body = AGENT.freeze(AgentRequest("q", effort="low@2026-10-16.0", tools=[{"type": "sandbox"}]), "k")
    older = AGENT.older(body)
    assert older is not None
    assert json.loads(older) == {
        "input": "q",
        "preset": "low@2026-10-16.0",
        "background": True,
        "tools": [{"type": "sandbox"}],
    }
    assert AGENT.older(older) is None
    assert AGENT.kind_of(older) == AGENT.kind_of(body)


def test_only_a_400_about_effort_tells_an_earlier_release():
    assert AGENT.is_behind(error_of(refusal(400, "effort")))
    assert not AGENT.is_behind(error_of(refusal(400, "preset")))
    assert not AGENT.is_behind(error_of(refusal(400, None)))
    assert not AGENT.is_behind(error_of(refusal(422, "effort")))


def refusal(status: int, param: str | None) -> Reply:
    said = {"error": {"message": "unknown field", "type": "invalid_request", "code": status, "param": param}}
    return Reply(status, {}, json.dumps(said).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"effort": "xhigh"},
        {"preset": "wide-research"},
        {"model": "openai/gpt-6-luna"},
        {"models": ["a/b", "c/d"]},
        {"profile": {"type": "custom", "id": "p"}},
    ],
)
def test_preset_is_not_added_beside_a_model_or_preset(fields: dict[str, Any]):
    assert frozen(AgentRequest("q", **fields)) == {"input": "q", "background": True, **fields}


def test_every_field_is_sent_under_its_own_name():
    fields: dict[str, Any] = {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "function_call_output", "call_id": "c", "output": "1"},
        ],
        "effort": "high",
        "model": "a/b",
        "models": ["a/b"],
        "instructions": "",
        "tools": [
            {
                "type": "web_search",
                "filters": {"search_domain_filter": ["-a.org"], "search_recency_filter": "week"},
                "user_location": {"country": "SG", "latitude": 1.5},
                "search_context_size": "high",
                "search_type": "fast",
                "max_results": 50,
                "max_tokens": 1000,
                "max_tokens_per_page": 100,
            },
            {"type": "fetch_url", "max_urls": 10, "total_budget_tokens": 120_000},
            {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
            {"type": "finance_search"},
        ],
        "tool_choice": {"type": "web_search"},
        "parallel_tool_calls": False,
        "max_tool_calls": 0,
        "max_steps": 100,
        "max_output_tokens": 1,
        "reasoning": {"effort": "max"},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "description": "d", "strict": True},
        },
        "temperature": 0,
        "top_p": 1,
        "language_preference": "fr",
        "previous_response_id": "resp_0",
        "metadata": {"a": "b"},
        "prompt_cache_key": "c",
        "service_tier": "flex",
        "skills": [{"type": "builtin", "name": "office"}],
        "step_budget_reminder": True,
        "truncation": "auto",
        "store": True,
    }
    others = {"preset", "profile"}  # in place of `effort`
    unsent = {
        "background": True,
        "stream": False,
        "stream_options": {"include_usage": True},
        "tag": 7,
        "idempotency_key": "k",
        "timeout": 60,
        "extra": {},
        "meta": {"row": 9},
    }
    assert set(fields) | set(unsent) | others == set(AGENT_FIELDS)
    body = frozen(AgentRequest.of({**fields, **unsent}))
    fields["input"][0]["type"] = "message"
    assert body == {**fields, "background": True}
    documented = set(SCHEMAS["ResponsesRequest"]["properties"])
    assert documented - set(body) == {"stream", "stream_options"} | others


def test_structs_are_sent_as_the_mappings_they_represent():
    request = AgentRequest(
        [
            InputMessage(
                "user", [InputText("a"), InputImage("https://a.org/i.png"), InputFile(file_url="https://a.org")]
            )
        ],
        tools=[
            WebSearchTool(
                filters=WebSearchFilters(
                    search_after_date_filter=date(2026, 3, 1), search_before_date_filter="3/9/2026"
                ),
                user_location=UserLocation(country="SG"),
            ),
            FetchURLTool(max_urls=2),
            FunctionTool("f"),
        ],
        reasoning=Reasoning("low"),
    )
    body = frozen(request)
    assert body["input"][0]["content"][1] == {"type": "input_image", "image_url": "https://a.org/i.png"}
    assert body["tools"] == [
        {
            "type": "web_search",
            "filters": {"search_after_date_filter": "03/01/2026", "search_before_date_filter": "03/09/2026"},
            "user_location": {"country": "SG"},
        },
        {"type": "fetch_url", "max_urls": 2},
        {"type": "function", "name": "f"},
    ]
    assert body["reasoning"] == {"effort": "low"}


def test_key_is_not_in_the_body():
    request = AgentRequest("q", idempotency_key="mine")
    assert b"k-1" not in AGENT.freeze(request, "k-1")
    assert b"mine" not in AGENT.freeze(request, "mine")
    assert AGENT.freeze(request, "a") == AGENT.freeze(request, "b") == AGENT_ALIAS.freeze(request, "c")


# Made at version 0.1, before a request had a method for it. A journal finds a question again by these digests.
def test_canonical_bytes_are_those_in_old_journals():
    everything = AgentRequest(
        [InputMessage("user", [InputText("a")])],
        tools=[
            WebSearchTool(
                filters=WebSearchFilters(
                    search_after_date_filter=date(2026, 3, 1), search_before_date_filter="3/9/2026"
                )
            ),
            FetchURLTool(max_urls=2),
            {"type": "finance_search"},
        ],
        reasoning=Reasoning("low"),
        metadata={"b": "2", "a": "1"},
        temperature=0,
    )
    mapped = AgentRequest.of({
        "input": [
            {"role": "user", "content": "a"},
            {"type": "function_call_output", "call_id": "c", "output": "1"},
        ],
        "tool_choice": {"type": "web_search"},
        "temperature": 0,
        "skills": [{"type": "builtin"}],
        "extra": {"n": 1},
    })
    assert [
        hashlib.sha256(request.canonical()).hexdigest()
        for request in (
            AgentRequest("Why?"),
            AgentRequest.of({"input": "Why?", "effort": "low", "tag": 7}),
            everything,
            mapped,
        )
    ] == [
        "3a0899405d06599384ad9ba66f626174b624bf0ce97565b0619269efd4c83e2a",
        "f4fba23f5e1d0fbb3bd9daa1479a35eea03e489fc3c6c441b40d6c65855afa65",
        "da0c3ae5cb1ebd9e138355291312e1736e46e678606aa17639f493441a19996c",
        "0f662d029ea7c4eb537f36d35ac4ae3c22ca231a32a372acf427ea489fc4c573",
    ]


def test_freezing_equal_requests_gives_equal_bytes():
    one = AgentRequest.of({"input": "q", "top_p": 1, "metadata": {"a": "1", "b": "2"}})
    other = AgentRequest.of({"metadata": {"b": "2", "a": "1"}, "top_p": 1, "input": "q"})
    assert AGENT.freeze(one, "k") == AGENT.freeze(other, "k")


@given(st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text))
def test_frozen_question_round_trips(question: str):
    assert frozen(AgentRequest(question))["input"] == question
    assert frozen(ResearchRequest(question))["input"] == question


def test_text_mapping_and_request_freeze_to_the_same_body():
    request = AgentRequest("Why?")
    assert AgentRequest.of("Why?") == AgentRequest.of({"input": "Why?", "preset": None}) == request
    assert AgentRequest.of(request) is request


def test_extra_goes_along_and_cannot_replace_a_field():
    body = json.loads(AGENT.freeze(AgentRequest("q", extra={"novelty": 1}), "k"))
    assert body["novelty"] == 1
    assert refused(AgentRequest("q", extra={"preset": "low"})).field == "extra.preset"
    assert refused(AgentRequest("q", extra={"background": False})).field == "extra.background"


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"input": " "}, "input", "must not be empty"),
    ({"input": []}, "input", "must not be empty"),
    ({"input": 5}, "input", "a question or a list"),
    ({"input": None}, "input", "a question or a list"),
    ({"input": [5]}, "input[0]", "must be a mapping"),
    ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role", "must be one of user, assistant"),
    ({"input": [{"role": "user", "content": " "}]}, "input[0].content", "must not be empty"),
    ({"input": [{"role": "user", "content": []}]}, "input[0].content", "must not be empty"),
    (
        {"input": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        "input[0].content[0].type",
        "must be one of input_text",
    ),
    (
        {"input": [{"type": "function_call_output", "output": {1, 2}.__iter__()}]},
        "input[0].output",
        "JSON cannot express",
    ),
    ({"effort": ""}, "effort", "must not be empty"),
    ({"models": []}, "models", "1 to 5"),
    ({"models": ["a/b"] * 6}, "models", "1 to 5"),
    ({"max_steps": 0}, "max_steps", "1 to 100"),
    ({"max_steps": 101}, "max_steps", "1 to 100"),
    ({"max_output_tokens": 0}, "max_output_tokens", "whole number"),
    ({"model": "anthropic/claude-sonnet-5"}, "max_output_tokens", "Anthropic"),
    ({"temperature": 2.5}, "temperature", "0 to 2"),
    ({"top_p": float("nan")}, "top_p", "0 to 1"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "at most 16"),
    ({"metadata": {"a": "x" * 513}}, "metadata.a", "at most 512"),
    ({"metadata": {"x" * 65: ""}}, "metadata", "64"),
    ({"metadata": {"a": 1}}, "metadata.a", "must be text"),
    ({"reasoning": {"effort": "very"}}, "reasoning.effort", "must be one of none, minimal"),
    ({"tool_choice": "web_search"}, "tool_choice", "must be one of none, auto, required"),
    ({"tools": {"type": "web_search"}}, "tools", "must be a list"),
    ({"tools": [{}]}, "tools[0].type", "must not be empty"),
    ({"tools": [{"type": "web_search", "filter": {}}]}, "tools[0]", "no field `filter`"),
    ({"tools": [WebSearchTool(max_results=51)]}, "tools[0].max_results", "1 to 50"),
    ({"tools": [FetchURLTool(max_urls=11)]}, "tools[0].max_urls", "1 to 10"),
    ({"tools": [FunctionTool(" ")]}, "tools[0].name", "must not be empty"),
    (
        {"tools": [{"type": "web_search", "filters": {"search_domain_filter": ["https://a.org"]}}]},
        "tools[0].filters.search_domain_filter[0]",
        "without a scheme",
    ),
    (
        {"tools": [WebSearchTool(filters=WebSearchFilters(search_after_date_filter="2026-03-01"))]},
        "tools[0].filters.search_after_date_filter",
        "MM/DD/YYYY",
    ),
    (
        {
            "tools": [
                WebSearchTool(
                    filters=WebSearchFilters(search_recency_filter="day", search_after_date_filter="3/1/2026")
                )
            ]
        },
        "tools[0].filters.search_recency_filter",
        "cannot be combined with",
    ),
    (
        {"tools": [WebSearchTool(user_location=UserLocation(country="Singapore"))]},
        "tools[0].user_location.country",
        "two-letter",
    ),
    ({"response_format": RegexFormat(Regex("a"))}, "response_format", "cannot be a regex"),
    ({"response_format": list[int]}, "response_format.json_schema.schema", "`object`"),
    (
        {"response_format": JSONSchemaFormat(JSONSchema({"type": "object"}, name="a b"))},
        "response_format.json_schema.name",
        "letters",
    ),
    ({"store": False}, "store", "cannot be collected"),
    ({"background": False}, "background", "in the background"),
    ({"stream": True}, "stream", "cannot be streamed"),
    ({"service_tier": "slow"}, "service_tier", "must be one of"),
    ({"skills": ["office"]}, "skills[0]", "must be a mapping"),
    ({"timeout": 0}, "timeout", "above 0"),
    ({"idempotency_key": "ü"}, "idempotency_key", "ASCII"),
]


@pytest.mark.parametrize(
    ("fields", "field", "rule"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_request_that_the_server_would_refuse_is_refused(fields: dict[str, Any], field: str, rule: str):
    error = refused(AgentRequest(**{"input": "q", "tag": "t", **fields}))
    assert error.field == field
    assert rule in error.message
    assert error.tag == "t"


def test_body_larger_than_the_server_takes_is_refused():
    error = refused(AgentRequest("x" * MAX_BODY, tag=3))
    assert (error.field, error.tag) == ("input", 3)
    assert "32.0 MiB; the server accepts at most 32" in error.message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("question", "`input`"),
        ("messages", "`input`"),
        ("max_tokens", "`max_output_tokens`"),
        ("instruction", "`instructions`"),
        ("zzzz", "`extra`"),
    ],
)
def test_unknown_field_is_refused_with_the_nearest_known_one(name: str, hint: str):
    with pytest.raises(InvalidRequest, match=hint) as caught:
        AgentRequest.of({"input": "q", name: "x", "tag": "t"})
    assert (caught.value.field, caught.value.tag) == (name, "t")


class Finding(msgspec.Struct):
    name: str


class Tree(msgspec.Struct):
    children: list[Tree]


@dataclass
class Plain:
    name: str


def test_python_type_becomes_a_schema_with_a_top_object():
    assert frozen(AgentRequest("q", response_format=Finding))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "Finding", "schema": msgspec.json.schema(Finding)["$defs"]["Finding"]},
    }
    tree = frozen(AgentRequest("q", response_format=Tree))["response_format"]["json_schema"]["schema"]
    assert tree["type"] == "object"
    assert Draft202012Validator(tree).is_valid({"children": [{"children": []}]})
    assert not Draft202012Validator(tree).is_valid({"children": [{}]})
    assert frozen(AgentRequest("q", response_format=Plain))["response_format"]["json_schema"]["name"] == "Plain"
    unnamed = JSONSchemaFormat(JSONSchema({"type": "object"}))
    assert frozen(AgentRequest("q", response_format=unnamed))["response_format"]["json_schema"]["name"] == "answer"
    assert "response_format" not in frozen(AgentRequest.of({"input": "q", "response_format": {"type": "text"}}))


# Translation


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("sonar", {"effort": "fast"}),
        ("sonar-pro", {"effort": "low"}),
        ("sonar-reasoning-pro", {"effort": "medium"}),
        ("sonar-deep-research", {"effort": "high"}),
        ("medium", {"effort": "medium"}),
        ("advanced-deep-research", {"preset": "advanced-deep-research"}),
        ("openai/gpt-6-luna", {"model": "openai/gpt-6-luna", "tools": [{"type": "web_search"}]}),
    ],
)
def test_model_becomes_an_effort_or_a_model_with_search(model: str, said: dict[str, Any]):
    assert frozen(ResearchRequest("q", model=model)) == {"input": "q", "background": True, **said}


def test_field_with_a_counterpart_is_translated():
    request = ResearchRequest(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "https://a.org/i.png"}},
                    {"type": "image_url", "image_url": "data:image/png;base64,AA"},
                ],
            },
        ],
        max_tokens=500,
        temperature=0.5,
        top_p=0.9,
        reasoning_effort="low",
        language_preference="fr",
        search_domain_filter=["a.org"],
        search_after_date_filter=date(2026, 3, 1),
        search_before_date_filter="3/9/2026",
        last_updated_after_filter="1/2/2026",
        last_updated_before_filter="11/12/2026",
        web_search_options=WebSearchOptions(
            search_context_size="high", user_location=UserLocation(country="SG"), image_results_enhanced_relevance=False
        ),
        response_format=Finding,
        search_mode="web",
        return_images=False,
        return_related_questions=False,
        disable_search=False,
        enable_search_classifier=True,
        stream=False,
        stream_mode="full",
    )
    assert frozen(request) == {
        "background": True,
        "effort": "high",
        "instructions": "Be brief.\n\nBe kind.",
        "input": [
            {"type": "message", "role": "user", "content": "Hello"},
            {"type": "message", "role": "assistant", "content": "Hi"},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": "https://a.org/i.png"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA"},
                ],
            },
        ],
        "max_output_tokens": 500,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning": {"effort": "low"},
        "language_preference": "fr",
        "tools": [
            {
                "type": "web_search",
                "filters": {
                    "search_domain_filter": ["a.org"],
                    "search_after_date_filter": "03/01/2026",
                    "search_before_date_filter": "03/09/2026",
                    "last_updated_after_filter": "01/02/2026",
                    "last_updated_before_filter": "11/12/2026",
                },
                "user_location": {"country": "SG"},
                "search_context_size": "high",
            }
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "Finding", "schema": msgspec.json.schema(Finding)["$defs"]["Finding"]},
        },
    }


def test_recency_is_a_filter_of_the_search_tool():
    body = frozen(ResearchRequest("q", search_recency_filter="week"))
    assert body["tools"] == [{"type": "web_search", "filters": {"search_recency_filter": "week"}}]


def test_lone_question_beside_a_system_message_stays_text():
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    body = frozen(ResearchRequest(messages=said))
    assert (body["input"], body["instructions"]) == ("Why?", "Be brief.")


def test_tag_timeout_and_key_go_along():
    request = translate(ResearchRequest("q", tag="t", timeout=9.0, idempotency_key="mine"))
    assert (request.tag, request.timeout, request.idempotency_key) == ("t", 9.0, "mine")


LOST: dict[str, Any] = {
    "stop": ["x"],
    "search_mode": "academic",
    "search_language_filter": ["en"],
    "return_images": True,
    "return_related_questions": True,
    "image_domain_filter": ["a.org"],
    "image_format_filter": ["png"],
    "disable_search": True,
    "response_format": RegexFormat(Regex("a")),
    "model": "sonar-reasoning",
}
TRANSLATED = {
    "question",
    "messages",
    "max_tokens",
    "temperature",
    "top_p",
    "reasoning_effort",
    "web_search_options",
    "search_domain_filter",
    "search_recency_filter",
    "search_after_date_filter",
    "search_before_date_filter",
    "last_updated_after_filter",
    "last_updated_before_filter",
    "language_preference",
}
NOT_SENT = {"enable_search_classifier", "stream", "stream_mode", "extra", "meta", "tag", "idempotency_key", "timeout"}


def test_every_research_field_is_translated_lost_or_not_sent():
    assert set(LOST) | TRANSLATED | NOT_SENT == set(FIELDS)


@pytest.mark.parametrize("name", LOST)
def test_field_without_a_counterpart_is_refused_by_name(name: str):
    error = refused(ResearchRequest("q", tag=5, **{name: LOST[name]}))
    assert error.field == name
    assert f"{name}: " in error.message
    assert error.tag == 5


def test_one_refusal_names_every_field_without_a_counterpart():
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "pdf_url", "pdf_url": "https://a.org"}]},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "a"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": [{"type": "file_url", "file_url": "https://a.org"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "a"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "b"}, {"type": "video_url", "video_url": "https://a.org"}],
        },
    ]
    extra = {"top_k": 5, "presence_penalty": 1, "novelty": 1}
    options = WebSearchOptions(search_type="pro", image_results_enhanced_relevance=True)
    request = ResearchRequest(messages=messages, extra=extra, web_search_options=options, **LOST)
    assert set(refused(request).field.split(", ")) == {
        *LOST,
        "messages[0].content[1]",
        "messages[1].content",
        "messages[2].role",
        "messages[4].content[0]",
        "messages[6].content[1]",
        "web_search_options.search_type",
        "web_search_options.image_results_enhanced_relevance",
        "extra.top_k",
        "extra.presence_penalty",
        "extra.novelty",
    }


def test_picture_among_the_instructions_is_refused():
    said = [
        {"role": "system", "content": [{"type": "image_url", "image_url": "https://a.org"}]},
        {"role": "user", "content": "q"},
    ]
    assert refused(ResearchRequest(messages=said)).field == "messages[0].content[0]"


def test_rules_of_the_request_itself_come_first():
    assert refused(ResearchRequest(" ", stop="x")).field == "question"
    assert refused(ResearchRequest("q", search_domain_filter=["https://a.org"])).field == "search_domain_filter[0]"


@given(st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in LOST.items()}))
def test_refusal_names_exactly_the_fields_given(fields: dict[str, Any]):
    request = ResearchRequest("q", **fields)
    if not fields:
        assert frozen(request)["effort"] == "high"
        return
    assert set(refused(request).field.split(", ")) == set(fields)


SECRET = "the words of the question"


@pytest.mark.parametrize(
    "request_",
    [
        AgentRequest(SECRET + "\0"),
        AgentRequest(SECRET, instructions=SECRET + "\ud83d"),
        AgentRequest(SECRET, preset=SECRET, max_steps=0),
        AgentRequest([{"role": SECRET, "content": SECRET}]),
        AgentRequest([{"role": "user", "content": [{"type": "input_text", "text": SECRET, SECRET: SECRET}]}]),
        AgentRequest([{"role": "user", "content": {"text": SECRET}}]),
        AgentRequest([{"type": "function_call_output", "output": object(), "call_id": SECRET}]),
        AgentRequest(SECRET, tools=[{"type": "web_search", "filters": {"search_recency_filter": SECRET}}]),
        AgentRequest(SECRET, tools=[{"type": "web_search", "user_location": {"country": SECRET}}]),
        AgentRequest(SECRET, tools=[{"type": "function", "name": SECRET, "parameters": SECRET}]),
        AgentRequest(SECRET, metadata={"a": SECRET * 100}),
        AgentRequest(SECRET, tool_choice=SECRET),
        AgentRequest(SECRET, extra={"a": object(), SECRET: SECRET}),
        ResearchRequest(SECRET, stop=SECRET, model=SECRET, extra={"a": SECRET}),
        ResearchRequest(messages=[{"role": "user", "content": [{"type": "pdf_url", "pdf_url": SECRET}]}]),
    ],
)
def test_refusal_repeats_no_words_of_the_question(request_: ResearchRequest | AgentRequest):
    error = refused(request_)
    assert SECRET not in str(error)
    assert SECRET not in repr(error)
    assert error.__context__ is None or SECRET not in str(error.__context__)


def test_checking_refuses_what_freezing_refuses():
    AgentRequest("q").check()
    with pytest.raises(InvalidRequest):
        AgentRequest("").check()
    assert AgentRequest("q").wire()["background"] is True
