"""A paid answer that was received is on the job, whichever API was asked and whatever form it came in."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from _bodies import paths, reply, with_odd, without
from _captured import payload
from _faulty import session_at
from _scripted import Scripted, opened

from aiopplx import InDoubt, Job, JobStatus
from aiopplx._errors import ProtocolError
from aiopplx._job import Snapshot, make_job, outcome_error
from aiopplx._wire.api import API
from aiopplx.agent import AGENT
from aiopplx.apis._registry import read_job
from aiopplx.emulator import WireServer, wire
from aiopplx.sonar import SONAR

APIS = [pytest.param(SONAR, id="sonar"), pytest.param(AGENT, id="agent")]
TEXT = "The answer."
USAGE = {"cost": {"total_cost": 0.25}}
MESSAGE = {"role": "assistant", "content": TEXT}
COMPLETION = {"id": "c-1", "choices": [{"message": MESSAGE, "finish_reason": "stop"}], "usage": USAGE}
OUTPUT = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": TEXT}]}]
RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "output": OUTPUT, "usage": USAGE}
SONAR_JOB = {"id": "a-1", "status": "COMPLETED", "response": COMPLETION}


def chunk(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"id": "c-1", "choices": [{"delta": {"content": text}, "finish_reason": reason}], "usage": USAGE}


def stream(*events: Any, end: bytes = b"") -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + end


FORMS: dict[str, Any] = {
    "a chat completion": COMPLETION,
    "a chat completion of content parts": COMPLETION
    | {"choices": [{"message": {"content": [{"type": "text", "text": TEXT}]}, "finish_reason": "stop"}]},
    "a chat completion with a status": COMPLETION | {"status": "COMPLETED"},
    "a Sonar job": SONAR_JOB,
    "a Sonar job with another word": SONAR_JOB | {"status": "DONE"},
    "a Sonar job around a response": {"id": "a-1", "status": "COMPLETED", "response": RESPONSE},
    "a response": RESPONSE,
    "a response without a status": {name: said for name, said in RESPONSE.items() if name != "status"},
    "a response without an object": {name: said for name, said in RESPONSE.items() if name != "object"},
    "an older text completion": COMPLETION | {"choices": [{"text": TEXT, "finish_reason": "stop"}]},
    "a message": {"id": "m-1", "type": "message", **MESSAGE, "stop_reason": "end_turn", "usage": USAGE},
    "a message in parts": {
        "id": "m-1",
        "role": "assistant",
        "content": [{"type": "text", "text": TEXT}],
        "usage": USAGE,
    },
    "candidates": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": TEXT}]}, "finishReason": "STOP"}],
        "usage": USAGE,
    },
    "a message inside": {"message": MESSAGE, "done": True, "usage": USAGE},
    "an output text": {"id": "o-1", "output_text": TEXT, "usage": USAGE},
    "data": {"code": 0, "data": COMPLETION},
    "data of a response": {"success": True, "data": RESPONSE},
    "a result in a result": {"result": {"result": COMPLETION}},
    "a stream of parts": stream(chunk("The "), chunk("answer."), chunk("", "stop"), end=b"data: [DONE]\n\n"),
    "a stream of the whole so far": stream(
        {"choices": [{"message": {"content": "The "}, "delta": {"content": "The "}}]},
        COMPLETION | {"choices": [{"message": MESSAGE, "delta": {"content": "answer."}, "finish_reason": "stop"}]},
    ),
    "a stream of events": b"event: x\n" + stream({"type": "response.created"}, {"type": "y", "response": RESPONSE}),
    "lines of parts of a message": b"\n".join(
        json.dumps({"message": {"role": "assistant", "content": part}, "done": is_last, "usage": USAGE}).encode()
        for part, is_last in (("The ", False), ("answer.", False), ("", True))
    ),
    "lines of parts": b"\n".join(json.dumps(part).encode() for part in (chunk("The "), chunk("answer.", "stop"))),
    "an id that cannot be asked for": COMPLETION | {"id": ".."},
    "an id that is a list": COMPLETION | {"id": []},
    "a number that does not fit": COMPLETION | {"created": "x", "usage": {"cost": {"total_cost": "0.25"}}},
    "an emoji cut in two": json.dumps(COMPLETION | {"model": "\ud83d"}).encode(),
}


def job_of(snapshot: Snapshot) -> Job:
    return make_job(snapshot.id, snapshot.status, outcome_error(snapshot), snapshot)


def as_bytes(form: Any) -> bytes:
    return form if isinstance(form, bytes) else json.dumps(form).encode()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("api", APIS)
def test_answer_in_any_form_is_a_finished_job(api: API, form: str) -> None:
    body = as_bytes(FORMS[form])
    snapshot = read_job(api, reply(body))
    job = job_of(snapshot)
    assert (job.ok, job.text, job.cost) == (True, TEXT, 0.25)
    assert snapshot.raw == body
    # A journal keeps these bytes under the id that was read.
    assert job_of(read_job(api, reply(body), job.id)) == job


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("api", APIS)
def test_answer_of_another_job_is_never_taken(api: API, form: str) -> None:
    with pytest.raises(ProtocolError):
        read_job(api, reply(as_bytes(FORMS[form])), "another-job")


def as_lines(*values: Any) -> bytes:
    return b"\n".join(json.dumps(value).encode() for value in values)


UNFINISHED: dict[str, Any] = {
    "a list": [COMPLETION],
    "a list of rows": {"requests": [SONAR_JOB]},
    "a stream that was cut": stream(chunk("The ")),
    "two jobs": as_lines(SONAR_JOB, RESPONSE),
    "lines of two completions": as_lines(COMPLETION, COMPLETION | {"id": "c-2"}),
    "lines of parts of two": as_lines(chunk("The "), chunk("answer.", "stop") | {"id": "c-2"}),
    "lines that were cut": as_lines(chunk("The "), chunk("answer.")),
    "a part of a message": {"message": MESSAGE, "done": False},
    "lines of a message that were cut": as_lines(*[{"message": MESSAGE, "done": False}] * 2),
    "a completion that was cut": json.dumps(COMPLETION).encode()[:-40],
    "an error": {"error": {"message": "no answer", "code": "x"}},
    "a message of an operator": {"message": "accepted", "content": "none"},
    "a question": {"message": {"role": "user", "content": "Why?"}},
    "a page": b"<html>choices output</html>",
}


@pytest.mark.parametrize("form", UNFINISHED)
@pytest.mark.parametrize("api", APIS)
def test_body_that_is_no_finished_answer_is_refused(api: API, form: str) -> None:
    with pytest.raises(ProtocolError):
        read_job(api, reply(as_bytes(UNFINISHED[form])))


@pytest.mark.parametrize("word", ["queued", "in_progress", "RUNNING"])
@pytest.mark.parametrize("api", APIS)
def test_answer_beside_a_word_for_work_is_a_part(api: API, word: str) -> None:
    for form in (RESPONSE, COMPLETION, SONAR_JOB):
        assert read_job(api, reply(form | {"id": "a-1", "status": word})).status.is_final is False


@pytest.mark.parametrize(
    ("word", "status"),
    [("in_progress", JobStatus.IN_PROGRESS), ("failed", JobStatus.FAILED), ("tidying", JobStatus.IN_PROGRESS)],
)
@pytest.mark.parametrize("wrap", [lambda job: {"data": job}, lambda job: {"result": {"response": job}, "ok": True}])
@pytest.mark.parametrize("api", APIS)
def test_job_in_a_wrapper_is_read_whatever_its_status(api: API, wrap: Any, word: str, status: JobStatus) -> None:
    body = as_bytes(wrap({"id": "a-1", "status": word}))
    assert read_job(api, reply(body), "a-1").status is status
    for other in ("", "a-2"):
        with pytest.raises(ProtocolError):
            read_job(api, reply(body), other)


@pytest.mark.parametrize("api", APIS)
def test_end_without_an_answer_says_why_in_any_form(api: API) -> None:
    empty = COMPLETION | {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}
    job = job_of(read_job(api, reply(empty)))
    assert (job.status, job.finish_reason, job.cost) == (JobStatus.COMPLETED, "length", 0.25)
    stopped = payload("agent-incomplete.real")
    job = job_of(read_job(api, reply(stopped)))
    assert (job.status, job.server_message, job.cost) == (JobStatus.INCOMPLETE, "max_output_tokens", 1e-05)


CAPTURED = {
    "agent-completed.real-trimmed": AGENT,
    "async-get-completed.real-trimmed": SONAR,
    "sync-deep-research-think.real": SONAR,
}


@pytest.mark.parametrize("name", CAPTURED)
def test_odd_answer_loses_no_more_at_another_api(name: str) -> None:
    body, own = payload(name), CAPTURED[name]
    other = AGENT if own is SONAR else SONAR
    random = Random(7)
    ways = list(paths(body))
    kept = 0
    for _ in range(250):
        way = random.choice(ways)
        odd = (
            without(body, way) if random.random() < 0.5 else with_odd(body, way, random.choice([5, "x", [], {}, None]))
        )
        whole = job_of(read_job(own, reply(odd)))
        if not whole.ok:
            continue
        job = job_of(read_job(other, reply(odd)))
        assert (job.text, job.cost, job.sources) == (whole.text, whole.cost, whole.sources), way
        kept += 1
    assert kept > 200


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("api", APIS)
def test_answer_that_was_cut_names_its_id(api: API, name: str) -> None:
    body = payload(name)
    whole = json.dumps({"id": body["id"]} | body).encode()
    for end in range(60, len(whole) - 1, max(1, len(whole) // 50)):
        with pytest.raises(ProtocolError, match="cut short") as refused:
            read_job(api, reply(whole[:end]))
        assert refused.value.job_id == body["id"]


# --- by way of the session


@pytest.mark.parametrize(
    "form", ["a chat completion", "a Sonar job", "a stream of parts", "an id that cannot be asked for"]
)
@pytest.mark.parametrize("way", ["ask", "submit", "batch"])
async def test_answer_of_another_form_is_kept_by_every_way(form: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with WireServer([wire.Say(body=as_bytes(FORMS[form]))]) as server:
        for _ in range(2):
            async with session_at(server.url, api="agent", journal=path) as session:
                if way == "ask":
                    job = await session.ask("Why?", tag="t")
                elif way == "submit":
                    job = await session.wait(await session.submit("Why?", tag="t"))
                else:
                    async with session.batch([{"question": "Why?", "tag": "t"}]) as jobs:
                        job = await anext(jobs)
            assert (job.ok, job.text, job.cost) == (True, TEXT, 0.25)
        assert len(server.requests) == 1


async def test_run_in_place_of_a_sonar_answer_is_taken() -> None:
    async with Scripted() as server:
        server.script = lambda asked: (200, RESPONSE) if asked.kind == "submit" else None
        async with opened(server) as session:
            job = await session.ask("Why?")
        assert (job.ok, job.text, job.cost, job.id) == (True, TEXT, 0.25, "resp_1")
        assert server.requests == {"submit": 1}
        server.script = lambda asked: (200, RESPONSE | {"id": asked.name}) if asked.kind == "get" else None
        async with opened(server) as session:
            asked = await session.ask("Why?")
            got = await session.get(asked.id)
        assert (asked.text, got.text) == (TEXT, TEXT)


async def test_cut_run_is_in_doubt_under_its_id() -> None:
    said = wire.Say(body=json.dumps(RESPONSE).encode()[:-9])
    async with WireServer([said]) as server, session_at(server.url, api="agent") as session:
        job = await session.ask("Why?")
    assert isinstance(job.error, InDoubt)
    assert "the server named it 'resp_1'" in job.error.message
