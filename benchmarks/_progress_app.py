"""The web app that `progress_request.py` asks: a job's updates by `aiopplx.contrib.fastapi`, and two endpoints without
the library. It prints its port, and ends when its standard input does.

    python benchmarks/_progress_app.py http://127.0.0.1:8080
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

from aiopplx import PollPolicy, Session
from aiopplx.contrib.fastapi import Research, opened, router

SAID = {"status": "IN_PROGRESS", "seconds": 12.0, "queries": ["a query"] * 5, "done": False}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with opened(app, Session("any-key", base_url=sys.argv[1], api="agent", poll=PollPolicy.fixed(1.0))):
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(router, prefix="/research")


@app.post("/research")
async def start(question: str, research: Research) -> dict[str, str]:
    return {"id": (await research.submit(question)).id}


@app.get("/health")
async def health(research: Research) -> dict[str, int]:
    return {"running": research.stats().running}


@app.get("/bare")
async def bare() -> dict[str, object]:
    return SAID


@app.get("/bare-stream", response_class=EventSourceResponse)
async def bare_stream() -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(event="update", id="1", data=SAID)
    await asyncio.Event().wait()


async def main() -> None:
    # As a server that binds by itself makes it: of others asyncio does not know that they are TCP, and leaves Nagle on.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve([listening]))
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main())
