"""The two example applications, as processes of their own under their real servers, asked by a real HTTP client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from _shell import environment

from aiopplx.emulator import Emulator

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
QUESTION = {"question": "Why did the Vasa sink?"}
ENDS_WITHIN = 60.0
"""Seconds after which a server that should have started or ended is taken for stuck."""
# A page that follows a job would hold the server for an hour, were it not ended when the server is told to stop.
RUN = {
    "fastapi": "import uvicorn; uvicorn.run(program.app, port={port}, timeout_graceful_shutdown=3600)",
    "aiohttp": "program.web.run_app(program.app, host='127.0.0.1', port={port}, print=None, shutdown_timeout=3600)",
}
# The example's session with frequent polls: these jobs take seconds.
PROGRAM = """
import functools
import aiopplx
import {framework}_app as program
program.Session = functools.partial(aiopplx.Session, poll=aiopplx.PollPolicy.fixed(0.3))
{run}
"""


def words(framework: str, port: int) -> list[str]:
    program = PROGRAM.format(framework=framework, run=RUN[framework].format(port=port))
    return [sys.executable, "-W", "error", "-c", program]


class App:
    """An application that runs, and a client at it."""

    def __init__(self, process: asyncio.subprocess.Process, client: aiohttp.ClientSession) -> None:
        self.process = process
        self.client = client

    async def start(self, **asked: str) -> str:
        async with self.client.post("/research", json={**QUESTION, **asked}) as response:
            assert response.status == 202, await response.text()
            job_id: str = (await response.json())["id"]
            return job_id

    async def events(self, job_id: str, after: str = "") -> AsyncIterator[tuple[str, str, Any]]:
        headers = {"Last-Event-ID": after} if after else {}
        async with self.client.get(f"/research/{job_id}/events", headers=headers) as response:
            assert response.status == 200, await response.text()
            assert response.headers["Content-Type"].startswith("text/event-stream")
            said: dict[str, str] = {}
            async for line in response.content:
                name, _, value = line.decode().strip().partition(": ")
                if name:
                    said[name] = value
                elif "data" in said:
                    yield said["event"], said.get("id", ""), json.loads(said["data"])  # noqa: ASYNC119 - read to its end
                    said = {}

    async def stop(self) -> str:
        """Asks it to stop as a supervisor does. Returns what it has said."""
        self.process.send_signal(signal.SIGTERM)
        with anyio.fail_after(ENDS_WITHIN):
            _, said = await self.process.communicate()
        return said.decode()


@asynccontextmanager
async def running(framework: str, server: Emulator, **env: str) -> AsyncIterator[App]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *words(framework, port),
        cwd=EXAMPLES,
        env=environment(
            PERPLEXITY_BASE_URL=server.url,
            PERPLEXITY_API_KEY="a-key-that-must-not-be-seen",
            AIOPPLX_API="agent",
            PYTHONPATH=os.pathsep.join([str(EXAMPLES.parents[1]), os.environ.get("PYTHONPATH", "")]),
            PYTHONDONTWRITEBYTECODE="1",
            **env,
        ),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            with anyio.fail_after(ENDS_WITHIN):
                while True:
                    try:
                        async with client.get("/health") as response:
                            assert response.status == 200
                        break
                    except aiohttp.ClientConnectionError:
                        assert process.returncode is None, await process.communicate()
                        await asyncio.sleep(0.05)
            yield App(process, client)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


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
        assert "Traceback" not in await app.stop()
    assert server.ledger.created == 1


@pytest.mark.parametrize("framework", ["fastapi", "aiohttp"])
async def test_stopped_server_ends_its_streams_and_the_next_finds_the_job(framework: str, tmp_path: Path) -> None:
    journal = str(tmp_path / "research.db")
    async with Emulator(duration=4.0, answer_chars=400) as server:
        async with running(framework, server, RESEARCH_JOURNAL=journal) as app:
            job_id = await app.start(tag="vasa")
            told = [event async for event in _until_stopped(app, job_id)]
            said = await app.stop()
        assert told
        assert "done" not in [name for name, _, _ in told]
        assert f"1 jobs go on, and are billed, at the service: {job_id}" in said
        assert "a-key-that-must-not-be-seen" not in said
        async with running(framework, server, RESEARCH_JOURNAL=journal) as app:
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
