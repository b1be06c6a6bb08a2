"""An id that was received is told, wherever it stands, and never believed by itself."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopplx import JobStatus, ProtocolError
from aiopplx._text import names
from aiopplx._wire.api import API
from aiopplx._wire.call import Reply
from aiopplx._wire.naming import candidates
from aiopplx.agent import AGENT
from aiopplx.apis._registry import read_job
from aiopplx.sonar import SONAR

APIS = [pytest.param(SONAR, id="sonar"), pytest.param(AGENT, id="agent")]
ID = "4f7c-9a1b"


def reply(body: Any, **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(202, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def refused(api: API, body: Any, **headers: str) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        read_job(api, reply(body, **headers))
    return caught.value


# --- what names a job -------------------------------------------------------------------------------------------------

OF_WORK = ["job", "task", "run", "response", "operation", "completion", "research", "execution", "prediction", "async"]
ENDINGS = ["id", "uuid", "guid", "identifier", "ref"]


def spelt(words: list[str]) -> list[str]:
    camel = words[0] + "".join(word.title() for word in words[1:])
    return [
        "_".join(words),
        "-".join(words),
        camel,
        camel[0].upper() + camel[1:],
        "_".join(words).upper(),
        words[0] + words[1].upper(),
    ]


@pytest.mark.parametrize("work", OF_WORK)
@pytest.mark.parametrize("api", APIS)
def test_id_of_work_is_told_however_it_is_spelt(api: API, work: str) -> None:
    for ending in ENDINGS:
        for name in spelt([work, ending]):
            for body in ({name: ID}, {"id": None, "status": "queued", name: ID}, {"data": {name: ID}}, [{name: ID}]):
                error = refused(api, body)
                assert (error.job_id, error.named) == (ID, (ID,)), body
                assert f"{name} says '{ID}'" in error.message


BODIES: list[Any] = [
    {"jobid": ID},
    {"taskId": 12345},
    {"_id": ID},
    {"_id": {"$oid": ID}},
    {"uuid": ID, "status": "queued"},
    {"id": {"value": ID}},
    {"id": [ID]},
    {"id": {"id": ID, "kind": "job"}},
    {"id": 12345},
    {"job": {"id": ID}},
    {"data": {"attributes": {"uuid": ID}}},
    {"result": [{"id": ID}]},
    [{"id": ID}],
    [ID],
    ID,
    f" {ID}\n".encode(),
    {"ticket_id": ID},
    {"request_id": ID},
    {"name": f"operations/{ID}"},
    {"name": f"projects/p/locations/l/operations/{ID}", "done": False},
    {"links": {"self": f"https://x.example/v1/jobs/{ID}"}},
    {"_links": {"self": {"href": f"/async/chat/completions/{ID}"}}},
    {"urls": {"get": f"https://x.example/v1/predictions/{ID}", "cancel": f"/v1/predictions/{ID}/cancel"}},
    {"status_url": f"/jobs/{ID}/status?x=1"},
    {"pollingUrl": f"/v1/tasks/{ID}"},
    {"href": f"/v1/responses/{ID}"},
    f'{{"model": "sonar", "job_id": "{ID}", "status": "CRE'.encode(),
    f'{{"id": "{ID}", "status": "CRE'.encode(),
    f'{{"model": {{"id": 5}}, "run": "x", "task_id": "{ID}", "a'.encode(),
    f"<?xml version='1.0'?><Response><JobId>{ID}</JobId></Response>".encode(),
    f'<job id="{ID}"><status>queued</status></job>'.encode(),
    f"job_id={ID}&status=queued".encode(),
    f"status: queued\njob_id: {ID}\n".encode(),
]


UUID = "resp_123e4567-e89b-42d3-a456-426614174000"


@pytest.mark.parametrize(
    "body",
    [
        f"job accepted: {UUID}".encode(),
        f"Accepted as {UUID}.\nPoll it in a minute.".encode(),
        {"message": f"job {UUID} was accepted"},
        {"status": "ok", "data": {"statusMessage": f"queued ({UUID})"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("api", APIS)
def test_id_in_a_sentence_is_told(api: API, body: Any) -> None:
    assert refused(api, body).named == (UUID,)
    assert refused(api, body, x_job_id=ID).named == (ID, UUID)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: ascii(body)[:60])
@pytest.mark.parametrize("api", APIS)
def test_id_in_any_place_is_told(api: API, body: Any) -> None:
    expected = "12345" if "12345" in str(body) else ID
    assert refused(api, body).job_id == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Location", f"https://x.example/v1/responses/{ID}"),
        ("Location", f"/v1/jobs/{ID}/status"),
        ("Content-Location", f"/anything/{ID}"),
        ("Operation-Location", f"https://x.example/jobs/{ID}?api=1"),
        ("Azure-AsyncOperation", f"https://x.example/operations/{ID}"),
        ("x-job-id", ID),
        ("X-TaskId", ID),
        ("x-vendor-run-uuid", ID),
        ("Job-Id", ID),
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}", b'{"status": "queued"}', b"accepted", b"<html><title>x</title></html>"])
@pytest.mark.parametrize("api", APIS)
def test_id_in_a_header_is_told(api: API, body: bytes, name: str, value: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_job(api, Reply(202, {name.lower(): value}, body))
    assert caught.value.named == (ID,)


# --- what does not ----------------------------------------------------------------------------------------------------

NO_JOB: list[Any] = [
    {"user_id": ID},
    {"user": {"id": ID}},
    {"parent_job_id": ID},
    {"previous_response_id": ID},
    {"trace_id": ID, "span_id": ID},
    {"conversation": {"id": ID}},
    {"metadata": {"job_id": ID}},
    {"input": [{"id": ID}]},
    {"error": {"id": ID, "message": "no"}},
    {"idempotency_key": ID},
    {"model": "sonar", "object": "job", "status": "queued"},
    {"links": {"docs": "https://x.example/docs/jobs"}, "href": "https://x.example/v1/jobs"},
    {"job_id": ""},
    {"job_id": None, "taskId": False, "run_id": 0, "uuid": {}},
    {"job_id": "x" * 5_000},
    {"paid": ID, "valid": ID, "grid": ID},
    [{"id": "a-1"}, {"id": "a-2"}],
    {"name": "sonar"},
    "queued",
    b"accepted",
    b"<!DOCTYPE html><html><div id='root'></div></html>",
]


@pytest.mark.parametrize("body", NO_JOB, ids=lambda body: ascii(body)[:60])
@pytest.mark.parametrize("api", APIS)
def test_id_of_something_else_names_no_job(api: API, body: Any) -> None:
    error = refused(api, body, x_request_id=ID, traceparent=ID, x_session_id=ID)
    assert (error.job_id, error.named) == ("", ())


@pytest.mark.parametrize(
    ("body", "headers", "named"),
    [
        ({"uuid": "b", "task_id": "a"}, {}, ("a", "b")),
        ({"task_id": "a"}, {"x_job_id": "b"}, ("a", "b")),
        ({"uuid": "a"}, {"x_job_id": "c", "location": "/v1/jobs/b"}, ("a", "b", "c")),
        ({"ticket_id": "b"}, {"x_job_id": "a"}, ("a", "b")),
        ({"job_id": "a", "run_id": "b"}, {}, ("a", "b")),
        ({"run_id": "b", "job": {"uuid": "a"}}, {}, ("b", "a")),
        ({"task_id": "a", "taskId": "a", "links": {"self": "/tasks/a"}}, {"location": "/v1/jobs/a"}, ("a",)),
        ({"request_id": "c", "ticket_id": "a"}, {}, ("a",)),
        ({"request_id": "c"}, {"x_request_id": "c"}, ()),
        ({"request_id": "c"}, {"x_request_id": "d"}, ("c",)),
    ],
)
@pytest.mark.parametrize("api", APIS)
def test_candidates_are_all_told_the_likeliest_first(
    api: API, body: Any, headers: dict[str, str], named: tuple[str, ...]
) -> None:
    error = refused(api, body, **headers)
    assert (error.named, error.job_id) == (named, named[0] if named else "")
    assert all(f"says '{job_id}'" in error.message for job_id in named)


# --- the answer to a poll ---------------------------------------------------------------------------------------------

DONE: dict[str, Any] = {"status": "completed", "output": [{"type": "message", "content": "The answer."}]}
ANSWER: dict[str, Any] = {"choices": [{"message": {"content": "The answer."}}]}
COMPLETED: dict[str, Any] = {"status": "COMPLETED", "response": ANSWER}


@pytest.mark.parametrize("name", ["job_id", "taskId", "uuid", "_id", "request_id", "ticket_id"])
@pytest.mark.parametrize(("api", "body"), [(SONAR, COMPLETED), (AGENT, DONE)], ids=["sonar", "agent"])
def test_job_that_was_asked_for_may_name_itself_otherwise(api: API, body: dict[str, Any], name: str) -> None:
    for form in ({name: ID, **body}, {"data": {name: ID, **body}}, {"id": None, name: ID, **body}):
        snapshot = read_job(api, reply(form), ID)
        assert (snapshot.id, snapshot.status) == (ID, JobStatus.COMPLETED)
        assert snapshot.response is not None
        assert snapshot.response.answer().text == "The answer."
    running = read_job(api, reply({name: ID, "status": "in_progress"}), ID)
    assert (running.id, running.status) == (ID, JobStatus.IN_PROGRESS)


def test_finished_job_is_named_by_its_response() -> None:
    body = {"status": "COMPLETED", "response": {"id": ID, **ANSWER}}
    assert read_job(SONAR, reply(body), ID).status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    "other",
    [
        {"id": "another", "job_id": ID},
        {"job_id": "another"},
        {"job_id": "another", "uuid": ID},
        {"parent_job_id": ID},
        {"user_id": ID},
        {"metadata": {"job_id": ID}},
    ],
    ids=str,
)
@pytest.mark.parametrize(("api", "body"), [(SONAR, COMPLETED), (AGENT, DONE)], ids=["sonar", "agent"])
def test_another_jobs_answer_is_never_this_ones(api: API, body: dict[str, Any], other: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_job(api, reply({**other, **body}), ID)
    assert caught.value.named == ()


# --- any body ---------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "job_id", "data", "job", "links", "href", "self", "uuid", "x", "name", "user"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(value=JSON, raw=st.binary(max_size=60), location=st.text(max_size=30))
def test_any_body_is_searched_within_bounds(value: Any, raw: bytes, location: str) -> None:
    for found in (candidates(value, {"location": location}), candidates(None, {"x-job-id": location}, raw)):
        ids = [each.id for each in found]
        assert len(ids) == len(set(ids))
        assert all(ids)
        assert [each.rank for each in found] == sorted(each.rank for each in found)


NAMES = ["job_id", "jobId", "taskId", "uuid", "_id", "responseId", "request_id", "job", "task", "run", "operation"]


@pytest.mark.parametrize("name", NAMES)
def test_id_in_any_form_and_wrapper_is_told(name: str) -> None:
    said = "j-77:ab.c19"
    forms: list[Any] = [said, [said], {"value": said}, {"id": said}, {"$oid": said}, [{"id": said}]]
    forms += [json.dumps(form) for form in forms]
    random = Random(name)
    for form in forms:
        for depth in range(4):
            body: Any = {name: form, "status": "queued", "model": "sonar-2026"}
            for _ in range(depth):
                held = random.choice([body, json.dumps(body), [body]])
                body = {random.choice(["data", "result", "body", "job", "payload", "item"]): held, "statusCode": 200}
            assert [each.id for each in candidates(body, {})] == [said], body


def test_huge_body_is_searched_within_bounds() -> None:
    random = Random(1)
    deep: Any = {"job_id": "deep"}
    for depth in range(500):
        deep = {"data": deep}
        assert (candidates(deep, {}) == []) == (depth >= 6)
    wide = {f"f{n}": {"x": random.random()} for n in range(100_000)}
    assert [each.id for each in candidates({**wide, "task_id": ID}, {})] == [ID]


def test_text_in_place_of_a_name_is_not_kept() -> None:
    before = names._words_in.cache_info().currsize  # pyright: ignore[reportPrivateUsage] - what is kept
    for n in range(20):
        assert names.words_in_name(f"{n}" * 200) == ()
    assert names._words_in.cache_info().currsize == before  # pyright: ignore[reportPrivateUsage] - as above
