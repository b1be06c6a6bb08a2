"""The example applications of the documents, as processes of their own, and a client at them."""

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

    def __init__(self, process: asyncio.subprocess.Process, client: aiohttp.ClientSession, url: str) -> None:
        self.process = process
        self.client = client
        self.url = url

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
        url = f"http://127.0.0.1:{port}"
        # More connections than a browser would open, since it may stand for many browsers.
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as client:
            with anyio.fail_after(ENDS_WITHIN):
                while True:
                    try:
                        async with client.get("/health") as response:
                            assert response.status == 200
                        break
                    except aiohttp.ClientConnectionError:
                        assert process.returncode is None, await process.communicate()
                        await asyncio.sleep(0.05)
            yield App(process, client, url)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
