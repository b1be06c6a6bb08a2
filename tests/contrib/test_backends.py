"""The two example applications, as processes of their own under their real servers, asked by a real HTTP client."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from _apps import App, running
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from fastapi import FastAPI, Request
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from yarl import URL

from aiopplx import Job, PollPolicy, Session
from aiopplx.contrib.aiohttp import errors, research, updates, wait
from aiopplx.contrib.fastapi import Research, add_error_handler, lifespan, opened, router
from aiopplx.contrib.fastapi import wait as wait_in_fastapi
from aiopplx.emulator import Emulator
from aiopplx.testing import Clock


@pytest.mark.parametrize("framework", ["fastapi", "aiohttp"])
async def test_question_is_asked_followed_and_read(framework: str) -> None:
    async with Emulator(duration=1.5, answer_chars=400) as server, running(framework, server) as app:
        job_id = await app.start()
        told = [event async for event in app.events(job_id)]
        assert [name for name, _, _ in told] == ["update"] * (len(told) - 1) + ["done"]
        _, last_id, done = told[-1]
        assert done["ok"]
        assert done["done"]
        assert done["queries"]
        async with app.client.get(f"/research/{job_id}/answer.json") as response:
            assert (await response.json())["text"] == done["text"]
        async with app.client.get(f"/research/{job_id}") as response:
            page = await response.text()
            assert response.content_type == "text/html"
            assert done["sources"][0]["url"] in page
        # A browser that comes back with what it knows is sent away for good, not told again.
        async with app.client.get(f"/research/{job_id}/events", headers={"Last-Event-ID": last_id}) as response:
            assert response.status == 204
        async with app.client.get("/") as response:
            assert "EventSource" in await response.text()
        async with app.client.post("/research", json={"question": ""}) as response:
            assert response.status == 422
            assert (await response.json())["error"] == "InvalidRequest"
        async with app.client.post(
            "/research", data="no JSON", headers={"Content-Type": "application/json"}
        ) as response:
            assert response.status == 422, await response.text()
        assert "Traceback" not in await app.stop()
    assert server.ledger.created == 1


@pytest.mark.parametrize("framework", ["fastapi", "aiohttp"])
async def test_next_server_finds_the_job_of_a_stopped_one(framework: str, tmp_path: Path) -> None:
    journal = str(tmp_path / "research.db")
    async with Emulator(duration=4.0, answer_chars=400) as server:
        async with running(framework, server, journal=journal) as app:
            job_id = await app.start(tag="vasa")
            told = [event async for event in _until_stopped(app, job_id)]
            said = await app.stop()
        assert told
        assert "done" not in [name for name, _, _ in told]
        assert f"1 job goes on, and is billed, at the service: {job_id}" in said
        assert "a-key-that-must-not-be-seen" not in said
        async with running(framework, server, journal=journal) as app:
            assert await app.start(tag="vasa") == job_id, "the same job, not another one"
            rest = [event async for event in app.events(job_id, after=told[-1][1])]
            assert rest[-1][0] == "done"
            assert rest[-1][2]["ok"]
            await app.stop()
    assert server.ledger.created == 1


@pytest.mark.parametrize("framework", ["fastapi", "aiohttp"])
async def test_call_that_waits_at_sigterm_is_answered(framework: str) -> None:
    async with Emulator(duration=600.0, answer_chars=200) as server, running(framework, server, grace=10) as app:
        job_id = await app.start()
        waiting = asyncio.create_task(_got(app, f"/research/{job_id}/answer.json?seconds=60"))
        with anyio.fail_after(60):
            while await _running(app) == 0:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.05)
        said = await app.stop()
        status, job = await waiting
    assert (status, job["id"], job["status"]) == (200, job_id, "TIMED_OUT")
    assert "Traceback" not in said


@pytest.mark.parametrize("framework", ["fastapi", "aiohttp"])
async def test_browser_comes_back_after_the_time_limit(framework: str) -> None:
    async with Emulator(duration=3.0, answer_chars=200) as server, running(framework, server, LIMIT="1") as app:
        job_id = await app.start()
        told = [event async for event in app.events(job_id)]
        assert {name for name, _, _ in told} == {"update"}, "no end is told of a job that runs"
        for last in ("timed_out", told[-1][1]):
            back = [event async for event in app.events(job_id, after=last)]
            assert "timed_out" not in [event_id for _, event_id, _ in back]
        with anyio.fail_after(60):
            while [name for name, _, _ in told][-1:] != ["done"]:
                told = [event async for event in app.events(job_id, after=last)]
        assert told[-1][2]["ok"]
        await app.stop()


async def _got(app: App, path: str) -> tuple[int, Any]:
    async with app.client.get(path) as response:
        return response.status, await response.json()


async def _running(app: App) -> int:
    count: int = (await _got(app, "/health"))[1]["running"]
    return count


async def test_updates_are_found_from_a_sub_application() -> None:
    server = Emulator(duration=0.2, answer_chars=200)
    app, part = web.Application(), web.Application()
    part.router.add_get("/{id}/events", updates)
    part.router.add_get("/{id}", _answer)
    async with server:
        made = Session("any-key", base_url=server.url, api="agent", poll=PollPolicy.fixed(0.1))
        app.cleanup_ctx.append(research(lambda: made))
        app.add_subapp("/part", part)
        async with TestClient(TestServer(app)) as client:
            job = await made.submit("Why?")
            async with client.get(f"/part/{job.id}/events") as response:
                assert "event: done" in await response.text()
            async with client.get(f"/part/{job.id}") as response:
                assert (await response.json())["id"] == job.id


async def test_mounted_apps_share_the_session() -> None:
    async with Emulator(duration=0.2, answer_chars=200) as server:
        made = Session("any-key", base_url=server.url, poll=PollPolicy.fixed(0.1))
        part, app = FastAPI(), FastAPI()
        part.include_router(router)
        app.mount("/plain", part)
        app.mount("/middleware", GZipMiddleware(part))
        app.mount("/function", _wrapped(part))
        nested = FastAPI()
        nested.mount("/part", _wrapped(part))
        app.mount("/nested", nested)

        async def ask(question: str, research: Research) -> str:
            return (await research.ask(question)).id

        async def read(id: str, request: Request) -> Job:
            return await wait_in_fastapi(request, id)

        part.post("/ask")(ask)
        part.get("/{id}")(read)
        async with (
            opened(app, made),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):
            app.mount("/later", part)
            for at in ("/plain", "/middleware", "/function", "/nested/part", "/later"):
                asked = await client.post(f"{at}/ask", params={"question": "Why?"})
                assert asked.status_code == 200
                told = await client.get(f"{at}/{asked.json()}/events")
                assert "event: done" in told.text
                assert (await client.get(f"{at}/{asked.json()}")).json()["id"] == asked.json()


def _wrapped(app: ASGIApp) -> ASGIApp:
    """An app in which nobody can look for the one inside."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return called


@pytest.mark.parametrize("app", [FastAPI(), FastAPI(lifespan=lifespan)])
async def test_app_without_a_session_says_so(app: FastAPI) -> None:
    app.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(RuntimeError, match="the app has no session"):
            await client.get("/a-job/events")


# As they stand in the path of a request, and what the page gets: 422 for what is no id, 404 where no route fits, and a
# stream for whatever may be one.
ODD_IDS = {
    "%20": 422,
    "%09%0A": 422,
    "%C2%A0": 422,
    "%2E%2E": 422,
    "%2E": 422,
    "a%00b": 422,
    "x" * 3_000: 422,
    "%2E%2E%2F": 404,
    "a%2Fb": 404,
    "%3Fx": 200,
    "%23": 200,
    "%252e%252e": 200,
}


@pytest.mark.parametrize("framework", ["fastapi", "aiohttp"])
async def test_odd_ids_are_no_fault_of_the_server(framework: str) -> None:
    async with Emulator(duration=0.2, answer_chars=200) as server, _page(framework, server.url) as got:
        found = {odd: await got(f"/research/{odd}/events") for odd in ODD_IDS}
    # aiohttp takes a slash in a segment for part of it.
    slashes = {"%2E%2E%2F", "a%2Fb"} if framework == "aiohttp" else set[str]()
    assert {odd: status for odd, (status, _) in found.items()} == {
        odd: 200 if odd in slashes else status for odd, status in ODD_IDS.items()
    }
    for status, text in found.values():
        assert {200: "event: done", 422: "is not a job id", 404: "ot found"}[status].lower() in text.lower()


NO_JOBS = {
    "sonar": {"00000000-0000-4000-8000-00000000dead": 404, "nosuch": 404},
    "agent": {"resp_00000000-0000-4000-8000-00000000dead": 404, "nosuch": 422, "resp_nosuch": 422},
}
"""Ids of no job, and how they are answered: to the Agent API some are no ids at all."""


@pytest.mark.parametrize("framework", ["fastapi", "aiohttp"])
@pytest.mark.parametrize("api", NO_JOBS)
async def test_wait_for_no_job_is_the_callers_mistake(framework: str, api: str) -> None:
    async with Emulator(duration=0.2, answer_chars=200) as server, _page(framework, server.url, api) as got:
        answered = {job_id: await got(f"/research/{job_id}/answer") for job_id in NO_JOBS[api]}
        asked = server.ledger.requests.total()
        followed = {job_id: await got(f"/research/{job_id}/events") for job_id in NO_JOBS[api]}
    assert {job_id: status for job_id, (status, _) in answered.items()} == NO_JOBS[api]
    assert asked <= 2 * len(answered), "each once more, and then believed"
    for status, text in followed.values():
        assert status == 200
        assert "event: done" in text
        assert "goes on" not in text


@asynccontextmanager
async def _page(
    framework: str, url: str, api: str = "sonar"
) -> AsyncIterator[Callable[[str], Awaitable[tuple[int, str]]]]:
    """What a browser gets at an app with no more than the session, the updates, and a call that waits."""
    poll = PollPolicy(quiet=0.0, gap=0.1, missing_grace=0.0, missing_recheck=0.1)
    made = Session("any-key", base_url=url, api=api, poll=poll, clock=Clock(100.0))
    if framework == "aiohttp":
        web_app = web.Application(middlewares=[errors])
        web_app.router.add_get("/research/{id}/events", updates)
        web_app.router.add_get("/research/{id}/answer", _answer)
        web_app.cleanup_ctx.append(research(lambda: made))
        async with TestClient(TestServer(web_app)) as browser:

            async def by_aiohttp(path: str) -> tuple[int, str]:
                async with browser.get(URL(path, encoded=True)) as response:
                    return response.status, await response.text()

            yield by_aiohttp
        return
    app = FastAPI()
    app.include_router(router, prefix="/research")
    add_error_handler(app)

    @app.get("/research/{id}/answer")
    async def answer(id: str, request: Request) -> Job:
        return await wait_in_fastapi(request, id, timeout=25.0)

    async with (
        opened(app, made),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):

        async def by_httpx(path: str) -> tuple[int, str]:
            response = await client.get(httpx.URL("http://test", raw_path=path.encode()))
            return response.status_code, response.text

        yield by_httpx


async def _answer(request: web.Request) -> web.Response:
    job = await wait(request, request.match_info["id"], timeout=25.0)
    return web.json_response(job.to_dict())


async def _until_stopped(app: App, job_id: str) -> AsyncIterator[tuple[str, str, Any]]:
    """The events of a job from a server that is told to stop at the first of them."""
    first = True
    async for event in app.events(job_id):
        yield event
        if first:
            app.process.send_signal(signal.SIGTERM)
            first = False
