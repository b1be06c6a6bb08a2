"""Pages of gateways in place of answers: they say nothing of a job, and never that it is gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _scripted import Asked, Scripted, opened

from aiopplx import APIError, AuthenticationError, JobExpired, JobStatus, NotFound
from aiopplx._errors import AiopplxError
from aiopplx._wire.call import Lane, Reply, error_of
from aiopplx.testing import Clock

PAGES = {
    "html": b"<html><head><title>404 Not Found</title></head><body>nginx</body></html>",
    "doctype": b"\n<!DOCTYPE html><title>Just a moment...</title>",
    "text": b"404 page not found\n",
    "backend": b"default backend - 404",
    "empty": b"",
    "route": b'{"message": "no Route matched with those values", "request_id": "1"}',
    "url": b'{"error": {"message": "Invalid URL (GET /v1/async/sonar/1)", "type": "invalid_request_error"}}',
    "list": b"[]",
}
TYPES: list[dict[str, str]] = [
    {"Content-Type": "text/html"},
    {"Content-Type": "application/json"},
    {"Content-Type": ""},
]
OWN = [
    b'{"error": {"message": "resource not found", "type": "not_found", "code": 404}}',
    b'{"detail": "Not Found"}',
    b"{}",
]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("lane", [Lane.POLL, Lane.FILE])
def test_page_of_a_gateway_is_not_a_missing_job(lane: Lane, page: str) -> None:
    error = error_of(Reply(404, {}, PAGES[page]), lane)
    assert type(error) is APIError
    assert error.status == 404
    assert "says nothing of the job" in error.message


@pytest.mark.parametrize("body", OWN)
def test_words_of_the_api_are_a_missing_job(body: bytes) -> None:
    assert isinstance(error_of(Reply(404, {}, body), Lane.POLL), NotFound)


@pytest.mark.parametrize("headers", TYPES, ids=str)
@pytest.mark.parametrize("status", [200, 204, 400, 404, 405, 410, 418, 451, 500, 502, 503, 504, 520])
async def test_page_in_place_of_a_poll_ends_nothing(status: int, headers: dict[str, str]) -> None:
    async with Scripted() as server:
        server.headers = headers
        pages = iter([*PAGES.values()][:3])
        server.script = lambda asked: None if asked.kind != "get" else _page(status, pages)
        async with opened(server, clock=Clock(1000)) as session:
            job = await session.ask("Why?")
    assert (job.ok, job.text) == (True, "answer to Why?")
    assert server.requests["submit"] == 1


@pytest.mark.parametrize("headers", TYPES, ids=str)
@pytest.mark.parametrize("status", [401, 403])
async def test_page_that_refuses_the_key_names_the_job(status: int, headers: dict[str, str]) -> None:
    async with Scripted() as server:
        server.headers = headers
        server.script = lambda asked: (status, PAGES["html"]) if asked.kind == "get" else None
        async with opened(server, clock=Clock(1000)) as session:
            started = await session.submit("Why?")
            with pytest.raises(AuthenticationError) as refused:
                await session.wait(started)
    assert refused.value.job_id == started.id


def _page(status: int, pages: Iterator[bytes]) -> tuple[int, bytes] | None:
    body = next(pages, None)
    return None if body is None else (status, body if status != 204 else b"")


@pytest.mark.parametrize("page", ["html", "text", "empty", "route"])
async def test_page_that_stays_ends_as_unreadable_with_its_words(page: str) -> None:
    async with Scripted() as server:
        server.script = lambda asked: (404, PAGES[page]) if asked.kind == "get" else None
        async with opened(server, clock=Clock(1000)) as session:
            job = await session.ask("Why?")
            with pytest.raises(APIError, match="says nothing of the job") as refused:
                await session.get(job.id)
    assert job.status is JobStatus.UNREADABLE
    assert not isinstance(job.error, JobExpired)
    assert not isinstance(refused.value, NotFound)


@pytest.mark.parametrize("status", [200, 404, 405, 410, 500, 502, 503])
async def test_page_in_place_of_an_acceptance_loses_no_question(status: int) -> None:
    """In doubt it is sent again under its key; a page at a path that took submissions is tried a few times more."""
    async with Scripted() as server:
        seen: list[Asked] = []

        def script(asked: Asked) -> tuple[int, bytes] | None:
            seen.append(asked)
            return (status, PAGES["html"]) if asked.kind == "submit" and len(seen) in (3, 4) else None

        server.script = script
        async with opened(server, clock=Clock(1000)) as session:
            first = await session.ask("First?")
            job = await session.ask("Why?")
    assert first.ok
    if status == 410:
        assert job.status is JobStatus.REJECTED  # a complete answer that says no
        assert isinstance(job.error, AiopplxError)
        return
    assert (job.ok, job.attempts) == (True, 3)
    assert len(server.by_key) == 2
