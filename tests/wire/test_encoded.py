"""Bodies that were encoded more than once, as a whole or in part: they are read as if they had been encoded once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from _bodies import reply
from _captured import payload

from aiopplx._wire.api import API
from aiopplx._wire.call import Reply, error_of
from aiopplx.agent import AGENT
from aiopplx.apis._registry import read_job
from aiopplx.sonar import SONAR

JOBS: list[tuple[API, str]] = [
    (SONAR, "async-get-completed.real-trimmed"),
    (SONAR, "async-get-failed.reconstructed"),
    (SONAR, "async-get-in-progress.reconstructed"),
    (AGENT, "agent-completed.real-trimmed"),
    (AGENT, "agent-incomplete.real"),
    (AGENT, "agent-in-progress.real-trimmed"),
]
PLACES: list[tuple[Any, ...]] = [
    (),
    ("response",),
    ("response", "choices"),
    ("response", "choices", 0),
    ("response", "choices", 0, "message"),
    ("response", "usage"),
    ("response", "search_results"),
    ("response", "citations"),
    ("output",),
    ("output", 0),
    ("output", -1),
    ("output", -1, "content"),
    ("output", -1, "content", 0),
    ("usage",),
    ("error",),
    ("incomplete_details",),
]


def encoded(value: Any, place: tuple[Any, ...], times: int) -> Any:
    """The value with what stands there as a text, encoded so many times; None if nothing stands there."""
    if not place:
        for _ in range(times):
            value = json.dumps(value)
        return value
    name, rest = place[0], place[1:]
    if not isinstance(value, dict | list) or (isinstance(value, dict) and value.get(name) is None):
        return None
    if isinstance(value, list) and not value:
        return None
    copy = value.copy()
    copy[name] = encoded(value[name], rest, times)
    return None if copy[name] is None else copy


def facts(api: API, body: Any, job_id: str) -> tuple[Any, ...]:
    job = read_job(api, reply(json.dumps(body).encode()), job_id)
    answer = job.response.answer() if job.response is not None else None
    return job.id, job.status, job.error_message, answer


@pytest.mark.parametrize("times", [1, 2, 4])
@pytest.mark.parametrize(
    ("api", "name", "place"),
    [(*job, place) for job in JOBS for place in PLACES if encoded(payload(job[1]), place, 1) is not None],
    ids=str,
)
def test_job_is_read_however_often_it_is_encoded(api: API, name: str, place: tuple[Any, ...], times: int) -> None:
    body = payload(name)
    odd = encoded(body, place, times)
    for job_id in (body["id"], ""):
        assert facts(api, odd, job_id) == facts(api, body, job_id)


@pytest.mark.parametrize("times", [1, 2, 4])
@pytest.mark.parametrize("place", [(), ("requests",), ("requests", 0)], ids=str)
def test_list_is_read_however_often_it_is_encoded(place: tuple[Any, ...], times: int) -> None:
    body = payload("async-list.reconstructed")
    plain, odd = (SONAR.read_page(reply(json.dumps(each).encode())) for each in (body, encoded(body, place, times)))
    assert [(job.id, job.status, job.model) for job in odd.jobs] == [(j.id, j.status, j.model) for j in plain.jobs]
    assert (odd.next_token, odd.skipped) == (plain.next_token, plain.skipped)


ERRORS: list[tuple[int, Any]] = [
    (401, {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": 401}}),
    (403, {"error": {"message": "Retired.", "type": "agent_api_migration_required", "code": 403}}),
    (400, {"error": {"message": "must be one of", "type": "invalid_request", "param": "effort", "code": 400}}),
    (400, {"errors": [{"message": "too long", "type": "invalid_request"}]}),
    (429, {"error": {"message": "Slow down", "type": "request_rate_limit_exceeded", "code": 429}}),
    (200, {"error": {"message": "Slow down", "type": "request_rate_limit_exceeded", "code": 429}}),
    (422, {"detail": [{"loc": ["body", "model"], "msg": "field required", "type": "missing"}]}),
    (404, {"error": {"message": "no such job", "type": "not_found", "code": 404}}),
]


@pytest.mark.parametrize("times", [1, 2, 4])
@pytest.mark.parametrize(("status", "body"), ERRORS, ids=str)
@pytest.mark.parametrize("is_whole", [True, False])
def test_error_is_read_however_often_it_is_encoded(status: int, body: Any, times: int, is_whole: bool) -> None:
    odd = encoded(body, () if is_whole else (next(iter(body)),), times)
    errors = [error_of(Reply(status, {}, json.dumps(each).encode())) for each in (body, odd)]
    told = [(type(error), error.message, getattr(error, "type", ""), getattr(error, "param", "")) for error in errors]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "text", ['{"valid": true}', "[1, 2]", '"quoted"', '"{"', "{", '["a", "b"]', '[{"name": "Vasa"}]']
)
def test_answer_that_is_json_stays_as_it_is(text: str) -> None:
    message = {"role": "assistant", "content": text}
    job = {
        "id": "j",
        "model": "m",
        "created_at": 1,
        "status": "COMPLETED",
        "response": {"choices": [{"message": message}]},
    }
    assert facts(SONAR, job, "j")[3].text == text
    for content in (text, [{"type": "output_text", "text": text}]):
        output = [{"type": "message", "role": "assistant", "content": content}]
        run = {"id": "resp_1", "object": "response", "status": "completed", "output": output}
        assert facts(AGENT, run, "resp_1")[3].text == text


def test_text_encoded_beyond_measure_is_left_alone() -> None:
    error = error_of(Reply(500, {}, json.dumps(encoded({"error": {"message": "broken"}}, (), 9)).encode()))
    assert error.message
    with pytest.raises(Exception, match="not a job"):
        read_job(SONAR, reply(json.dumps(encoded({"id": "j"}, (), 9)).encode()), "j")
