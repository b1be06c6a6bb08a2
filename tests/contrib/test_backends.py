"""The two example applications, as processes of their own under their real servers, asked by a real HTTP client."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _apps import App, running

from aiopplx.emulator import Emulator


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
        assert f"1 jobs go on, and are billed, at the service: {job_id}" in said
        assert "a-key-that-must-not-be-seen" not in said
        async with running(framework, server, journal=journal) as app:
            assert await app.start(tag="vasa") == job_id, "the same job, not another one"
            rest = [event async for event in app.events(job_id, after=told[-1][1])]
            assert rest[-1][0] == "done"
            assert rest[-1][2]["ok"]
            await app.stop()
    assert server.ledger.created == 1


async def _until_stopped(app: App, job_id: str) -> AsyncIterator[tuple[str, str, Any]]:
    """The events of a job from a server that is told to stop at the first of them."""
    first = True
    async for event in app.events(job_id):
        yield event
        if first:
            app.process.send_signal(signal.SIGTERM)
            first = False
