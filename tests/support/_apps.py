"""The example applications of the documents, as processes under their real servers, and a client at them."""

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

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
QUESTION = {"question": "Why did the Vasa sink?"}
KEY = "a-key-that-must-not-be-seen"
ENDS_WITHIN = 60.0
"""Seconds after which a server that should have started or ended is taken for stuck."""
FOR_EVER = 3600
"""Seconds for which a server waits for its open connections, so that what does not end by itself is seen."""
# A listening socket is handed down, as systemd does it: who comes while no process accepts waits, and is not refused.
COMMANDS = {
    "fastapi": "-m uvicorn _example_app:app --fd {fd} --workers {workers} --timeout-graceful-shutdown {grace}",
    "aiohttp": "-m _example_app {fd} {grace}",
}


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
        async for event in events(self.client, job_id, after):
            yield event

    async def stop(self) -> str:
        """Asks it to stop as a supervisor does. Returns what it has said."""
        return await ended(self.process)


async def events(client: aiohttp.ClientSession, job_id: str, after: str = "") -> AsyncIterator[tuple[str, str, Any]]:
    """The server-sent events of a job: name, id, data."""
    headers = {"Last-Event-ID": after} if after else {}
    async with client.get(f"/research/{job_id}/events", headers=headers) as response:
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


def listening() -> socket.socket:
    """A socket that a server accepts at, on a free port of this machine."""
    made = socket.create_server(("127.0.0.1", 0))
    made.setblocking(False)
    return made


def url_of(sock: socket.socket) -> str:
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


async def spawned(
    framework: str,
    server: Emulator,
    sock: socket.socket,
    *,
    journal: str = "",
    workers: int = 1,
    grace: int = FOR_EVER,
    **env: str,
) -> asyncio.subprocess.Process:
    """A server of the application that accepts at this socket; it may not have begun to.

    Args:
        framework: which example.
        server: the service.
        sock: listens.
        journal: what the session writes to; `""` for no journal.
        workers: processes that uvicorn starts.
        grace: seconds for which it waits for its open connections when it is told to stop; it cuts them then.
        env: further variables of the environment.
    """
    words = COMMANDS[framework].format(fd=sock.fileno(), workers=workers, grace=grace)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *words.split(),
        cwd=EXAMPLES,
        env=environment(
            PERPLEXITY_BASE_URL=server.url,
            PERPLEXITY_API_KEY=KEY,
            AIOPPLX_API="agent",
            EXAMPLE=framework,
            PYTHONPATH=os.pathsep.join(map(str, (ROOT, EXAMPLES, Path(__file__).parent))),
            PYTHONDONTWRITEBYTECODE="1",
            **({"RESEARCH_JOURNAL": journal} if journal else {}),
            **env,
        ),
        pass_fds=[sock.fileno()],
        start_new_session=True,  # so that `killed` reaches its workers too
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process, signum: int | None = signal.SIGTERM) -> str:
    """Sends it a signal, if any, and waits for its end. Returns what it has said on both of its outputs."""
    if signum is not None:
        process.send_signal(signum)
    with anyio.fail_after(ENDS_WITHIN):
        printed, said = await process.communicate()
    return printed.decode() + said.decode()


async def killed(process: asyncio.subprocess.Process) -> None:
    """Ends it and its workers, if it still runs."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def serves(process: asyncio.subprocess.Process, client: aiohttp.ClientSession) -> None:
    """Returns once it answers."""
    with anyio.fail_after(ENDS_WITHIN):
        asking = asyncio.ensure_future(_healthy(client))
        ending = asyncio.ensure_future(process.wait())
        await asyncio.wait([asking, ending], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        assert process.returncode is None, await process.communicate()
        await asking


async def _healthy(client: aiohttp.ClientSession) -> None:
    async with client.get("/health") as response:
        assert response.status == 200


def browsers(url: str) -> aiohttp.ClientSession:
    """A client with more connections than a browser would open, since it may stand for many browsers."""
    return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0))


@asynccontextmanager
async def running(
    framework: str, server: Emulator, *, journal: str = "", workers: int = 1, grace: int = FOR_EVER, **env: str
) -> AsyncIterator[App]:
    """An application that serves; arguments as of `spawned`."""
    with listening() as sock:
        process = await spawned(framework, server, sock, journal=journal, workers=workers, grace=grace, **env)
        try:
            async with browsers(url_of(sock)) as client:
                await serves(process, client)
                yield App(process, client, url_of(sock))
        finally:
            await killed(process)
