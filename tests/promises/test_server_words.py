"""No word of the server's is dropped, no paid answer is lost and no id is unknown, on the wire and in a journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
from _faulty import KEY, emulator, session_at
from _scripted import Answer, Asked, Scripted, opened
from _shell import command, environment

from aiopplx import (
    ActionRequired,
    APIError,
    AuthenticationError,
    Event,
    EventKind,
    InDoubt,
    JobExpired,
    JobFailed,
    JobStatus,
    NotFound,
    OutOfCredit,
    ResultMissing,
    RetryPolicy,
)
from aiopplx.emulator import WireServer, wire
from aiopplx.testing import Clock

IDS = ["a/b", "a+b=", "two words", "x" * 300, "é?#", "../x", "%2F"]


def completion(content: str | None = "The answer.", **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"cost": {"total_cost": 0.25}}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 5, "choices": [choice], "usage": usage} | fields


# --- ids


@pytest.mark.parametrize("job_id", IDS, ids=ascii)
async def test_any_id_round_trips_through_session_and_journal(job_id: str, tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with Scripted() as server:
        server.script = lambda asked: _one_job(asked, job_id)
        async with opened(server, journal=path) as session:
            job = await session.submit("Why?", tag="t")
            assert job.id == job_id
            done = await session.wait(job.token)
            assert (done.ok, done.text, done.id) == (True, "The answer.", job_id)
        async with opened(server, journal=path) as session:
            assert (await session.get(job_id)).text == "The answer."
        async with opened(server) as session:
            assert (await session.get(job_id)).text == "The answer."
        assert server.requests["get"] == 2


def _one_job(asked: Asked, job_id: str) -> Answer:
    if asked.kind == "submit":
        return 200, {"id": job_id, "status": "CREATED"}
    assert unquote(asked.name) == job_id
    return 200, {"id": job_id, "status": "COMPLETED", "response": completion()}


@pytest.mark.parametrize("job_id", ["a/b=", "two words", "../x", "é?#"])
async def test_any_id_works_on_the_command_line(job_id: str) -> None:
    async with Scripted() as server:
        server.script = lambda asked: _one_job(asked, job_id)
        env = environment(PERPLEXITY_BASE_URL=server.url, PERPLEXITY_API_KEY="a-test-key")
        done = await anyio.run_process(command("get", job_id, "--json"), env=env)
    assert json.loads(done.stdout)["id"] == job_id


async def test_id_that_cannot_be_asked_for_is_named() -> None:
    async with Scripted() as server:
        server.script = lambda asked: (200, {"id": "..", "status": "CREATED"})
        async with opened(server, retry=RetryPolicy(on_doubt="hold")) as session:
            job = await session.ask("Why?")
    assert isinstance(job.error, InDoubt)
    assert "the server named it '..'" in job.error.message
    assert "unknown" not in job.error.message


@pytest.mark.parametrize("api", ["sonar", "agent"])
async def test_ids_that_may_be_the_jobs_are_told(api: str, tmp_path: Path) -> None:
    said = wire.Say(202, b'{"task_id": "a-1", "status": "queued"}', headers=(("X-Job-Id", "b-2"),))
    path = tmp_path / "j.db"
    async with (
        WireServer([said]) as server,
        session_at(server.url, api=api, retry=RetryPolicy(on_doubt="hold"), journal=path) as session,
    ):
        job = await session.ask("Why?", tag="t")
        assert isinstance(job.error, InDoubt)
        assert job.error.named == ("a-1", "b-2")
        assert (job.id, len(server.requests)) == ("", 1)
        for known in (job.error.message, (await session.ask("Why?", tag="t")).error):
            assert "the server named it 'a-1' or 'b-2'" in str(known)
            assert "task_id says 'a-1', x-job-id says 'b-2'" in str(known)
            assert "unknown" not in str(known)
        assert len(server.requests) == 1


async def test_key_in_an_id_is_not_told() -> None:
    body = json.dumps({"task_id": f"x-{KEY}"}).encode()
    async with (
        WireServer([wire.Say(202, body, headers=(("X-Job-Id", f"y-{KEY}"),))]) as server,
        session_at(server.url, retry=RetryPolicy(on_doubt="hold")) as session,
    ):
        job = await session.ask("Why?")
    assert isinstance(job.error, InDoubt)
    assert len(job.error.named) == 2
    assert KEY not in repr(job.error.__dict__) + str(job.error)


# --- an answer in place of a job


@pytest.mark.parametrize("job_id", ["chatcmpl-1", None])
@pytest.mark.parametrize("way", ["ask", "submit", "batch"])
async def test_answer_of_a_synchronous_server_is_taken(way: str, job_id: str | None, tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with Scripted() as server:
        server.script = lambda asked: (200, completion(id=job_id)) if asked.kind == "submit" else (404, {})
        for _ in range(2):
            async with opened(server, journal=path) as session:
                if way == "batch":
                    async with session.batch([{"question": "Why?", "tag": "t"}]) as jobs:
                        job = await anext(jobs)
                elif way == "ask":
                    job = await session.ask("Why?", tag="t")
                else:
                    job = await session.wait(await session.submit("Why?", tag="t"))
            assert (job.ok, job.text, job.cost, job.id) == (True, "The answer.", 0.25, job_id or "")
        assert server.requests == {"submit": 1}


async def test_answer_of_a_synchronous_server_needs_no_journal() -> None:
    async with Scripted() as server:
        server.script = lambda asked: (200, completion(id=None))
        async with opened(server) as session:
            assert [(await session.ask("Why?")).text for _ in range(2)] == ["The answer."] * 2


@pytest.mark.parametrize(
    "name", ["error_message", "status_message", "statusDetails", "warnings", "info", "comment", "status_text"]
)
@pytest.mark.parametrize(("status", "told"), [("IN_PROGRESS", "IN_PROGRESS"), (None, "no status")])
async def test_error_of_a_time_limit_has_the_servers_words(status: str | None, told: str, name: str) -> None:
    def script(asked: Asked) -> Answer | None:
        said = {"id": unquote(asked.name), "status": status, name: "a page is late"}
        return (200, said) if asked.kind == "get" else None

    async with Scripted() as server:
        server.script = script
        async with opened(server, clock=Clock(1000)) as session:
            job = await session.ask("Why?", timeout=30.0)
    assert job.status is JobStatus.TIMED_OUT
    assert f"(the server says {told}: a page is late)" in str(job.error)
    assert job.server_message == "a page is late"


async def test_empty_completion_says_why_and_is_not_called_old() -> None:
    empty = completion("", choices=[{"message": {"content": ""}, "finish_reason": "length"}])
    async with Scripted() as server:
        server.script = lambda asked: (200, empty) if asked.kind == "submit" else (404, {})
        async with opened(server) as session:
            job = await session.ask("Why?")
        assert server.requests == {"submit": 1}
    assert isinstance(job.error, ResultMissing)
    assert (job.finish_reason, job.cost) == ("length", 0.25)
    assert "finish_reason length" in job.error.message


async def test_job_just_accepted_is_not_called_too_old() -> None:
    async with Scripted() as server:
        server.script = lambda asked: (404, {}) if asked.kind == "get" else None
        async with opened(server, clock=Clock(1000)) as session:
            job = await session.ask("Why?")
            elsewhere = await session.wait("unknown")
    assert isinstance(job.error, JobExpired)
    assert "older than" not in job.error.message
    assert "check base_url" in job.error.message
    assert "older than the 7 days" in str(elsewhere.error)


# --- an error in a success


REFUSALS: list[tuple[dict[str, Any], type[Exception], JobStatus]] = [
    ({"message": "pages ran out", "code": 400}, APIError, JobStatus.REJECTED),
    ({"message": "pages ran out", "code": "422"}, APIError, JobStatus.REJECTED),
    ({"message": "pages ran out", "type": "invalid_request"}, APIError, JobStatus.REJECTED),
    ({"message": "pages ran out", "code": 401}, AuthenticationError, JobStatus.STOPPED),
    ({"message": "pages ran out", "type": "insufficient_quota"}, OutOfCredit, JobStatus.STOPPED),
    ({"message": "pages ran out", "code": 500}, InDoubt, JobStatus.IN_DOUBT),
    ({"message": "pages ran out", "type": "novelty"}, InDoubt, JobStatus.IN_DOUBT),
    ({"message": "pages ran out"}, InDoubt, JobStatus.IN_DOUBT),
]


BODIES: list[tuple[dict[str, Any], type[Exception], JobStatus]] = [
    *(({"error": error}, kind, status) for error, kind, status in REFUSALS),
    ({"errors": [{"detail": "pages ran out", "code": 400}]}, APIError, JobStatus.REJECTED),
    ({"errors": ["pages ran out"], "status": 422}, APIError, JobStatus.REJECTED),
    ({"error": "invalid_request", "message": "pages ran out"}, APIError, JobStatus.REJECTED),
    ({"errorMessage": "pages ran out", "errorType": "x", "code": 401}, AuthenticationError, JobStatus.STOPPED),
    ({"fault": {"faultstring": "pages ran out", "code": "insufficient_quota"}}, OutOfCredit, JobStatus.STOPPED),
    # What names a job may be billed.
    ({"error": {"message": "pages ran out", "code": 400}, "task_id": "a"}, InDoubt, JobStatus.IN_DOUBT),
    ({"error": {"message": "pages ran out", "code": 429}, "job": {"uuid": "a"}}, InDoubt, JobStatus.IN_DOUBT),
    ({"errors": [{"detail": "pages ran out", "code": 400}], "links": {"self": "/jobs/a"}}, InDoubt, JobStatus.IN_DOUBT),
    ({"error": {"message": "pages ran out", "code": 400}, "request_id": "a"}, APIError, JobStatus.REJECTED),
]


@pytest.mark.parametrize(("body", "kind", "status"), BODIES)
@pytest.mark.parametrize("api", ["sonar", "agent"])
async def test_error_in_a_success_is_what_it_means(
    api: str, body: dict[str, Any], kind: type[Exception], status: JobStatus
) -> None:
    said = wire.Say(body=json.dumps(body).encode())
    async with (
        WireServer([said]) as server,
        session_at(server.url, api=api, retry=RetryPolicy(on_doubt="hold")) as session,
        session.batch(["Why?"]) as jobs,
    ):
        found = [job async for job in _taken(jobs)]
    assert [job.status for job in found] == [status]
    assert isinstance(found[0].error, kind)
    assert "pages ran out" in str(found[0].error)
    assert len(server.requests) == 1


async def _taken(jobs: Any) -> Any:
    try:
        async for job in jobs:
            yield job
    except APIError:
        return


async def test_throttle_in_a_success_is_waited_out() -> None:
    told: list[Event] = []
    async with Scripted() as server:
        answers = iter([(200, {"error": {"message": "slower", "type": "request_rate_limit_exceeded", "code": 429}})])
        server.script = lambda asked: next(answers, None)
        async with opened(server, told, clock=Clock(1000)) as session:
            job = await session.ask("Why?")
    assert job.ok
    assert [event.fault for event in told if event.kind is EventKind.RETRYING] == ["T"]


async def test_failed_jobs_error_is_on_its_listed_row() -> None:
    row = {"id": "a-1", "status": "CANCELLED", "failed_at": 5, "error_message": {"message": "by the operator"}}
    async with Scripted() as server:
        server.script = lambda asked: (200, {"requests": [row, {"id": "a-2", "status": "COMPLETED"}]})
        async with opened(server) as session:
            failed, completed = await session.list()
    assert (failed.status, failed.server_status) == (JobStatus.FAILED, "CANCELLED")
    assert isinstance(failed.error, JobFailed)
    assert "by the operator" in failed.error.message
    assert (completed.status, completed.error) == (JobStatus.COMPLETED, None)


# --- what waits for its caller


@pytest.mark.parametrize(
    ("tool", "action"),
    [
        ({"type": "function", "name": "look_up", "parameters": {"type": "object"}}, "function_call look_up (call_"),
        (
            {"type": "mcp", "server_label": "shop", "server_url": "https://s.example", "require_approval": "always"},
            "mcp_approval_request shop.search (mcpr_",
        ),
    ],
)
async def test_run_that_waits_for_its_caller_ends_at_once(tool: dict[str, Any], action: str) -> None:
    told: list[Event] = []
    async with emulator(duration=0.0) as server, session_at(server.url, events=told, api="agent") as session:
        job = await session.ask({"input": "Why?", "tools": [tool]})
    assert (job.status, job.server_status) == (JobStatus.FAILED, "requires_action")
    assert isinstance(job.error, ActionRequired)
    assert job.error.actions
    assert action in job.error.message
    assert job.error.job_id == job.id
    assert job.error.idempotency_key == job.idempotency_key
    assert "unknown status" not in " ".join(event.reason for event in told)


# --- endpoints that are not there


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_missing_cancel_endpoint_is_told_after_a_poll(status: int) -> None:
    running = {"id": "resp_1", "status": "in_progress", "output": []}
    refused = wire.Say(status=status, body=b'{"error": {"message": "no route", "code": 404}}')
    script = [wire.Say(body=json.dumps(running).encode()), refused, wire.Say(body=json.dumps(running).encode())]
    retry = RetryPolicy(call_tries=1)
    async with WireServer(script) as server, session_at(server.url, api="agent", retry=retry) as session:
        with pytest.raises(APIError, match="no endpoint to cancel it") as raised:
            await session.cancel("resp_1")
    assert not isinstance(raised.value, NotFound)
    assert "no route" in raised.value.message
    assert (raised.value.status, raised.value.job_id) == (status, "resp_1")
    assert [request.method for request in server.requests] == ["GET", "POST", "GET"]


@pytest.mark.parametrize("status", [404, 405])
async def test_missing_list_endpoint_is_told_as_such(status: int) -> None:
    async with Scripted() as server:
        server.script = lambda asked: (status, {"error": {"message": "no route"}})
        async with opened(server) as session:
            with pytest.raises(APIError, match=rf"no list of jobs \(HTTP {status}: no route\)") as raised:
                await session.list()
    assert not isinstance(raised.value, NotFound)
