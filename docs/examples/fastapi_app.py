"""A small research service on FastAPI: ask by JSON, watch it run, read the answer with its sources.

    pip install 'aiopplx[fastapi,report]' uvicorn
    uvicorn fastapi_app:app --timeout-graceful-shutdown 20

Without a key: run `aiopplx emulator --port 8080` beside it, and set PERPLEXITY_BASE_URL=http://127.0.0.1:8080 and
PERPLEXITY_API_KEY=any. With RESEARCH_JOURNAL=research.db nothing is lost at a restart; each worker needs a file of its own.
With RESEARCH_JOURNAL=postgresql://user@host/database?schema=research any number of workers share one (pip install
'aiopplx[postgres]'): uvicorn fastapi_app:app --workers 2.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import BaseModel

from aiopplx import Job, JournalOptions, Session
from aiopplx.contrib.fastapi import Research, add_error_handler, opened, router, wait
from aiopplx.report import html_report


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """One session for the life of the app."""
    async with opened(app, Session(journal=journal())):
        yield


def journal() -> JournalOptions | str | None:
    """Where the session writes. A file has one process at a time: a new one waits until the one before lets go of it."""
    place = os.environ.get("RESEARCH_JOURNAL") or None
    return place if place is None or place.startswith("postgresql:") else JournalOptions(place, wait=60)


app = FastAPI(title="Research", lifespan=lifespan)
app.include_router(router, prefix="/research", tags=["research"])
add_error_handler(app)


class Question(BaseModel):
    """What is asked."""

    question: str
    tag: str | None = None
    """With a journal, the same tag is the same job, however often it is asked for."""


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The progress page."""
    return FileResponse(Path(__file__).with_name("page.html"))


@app.post("/research", status_code=202)
async def start(asked: Question, research: Research) -> dict[str, str]:
    """Submit a question. Returns as soon as the service has it."""
    job = await research.submit(asked.question, tag=asked.tag)
    return {"id": job.id}


@app.get("/research/{id}/answer.json")
async def answer(id: str, request: Request, seconds: float = 25.0) -> Job:
    """The job; if it still runs after `seconds`, or when the server is told to stop, as it stands then."""
    return await wait(request, id, timeout=max(0.1, min(seconds, 60.0)))


@app.get("/research/{id}")
async def read(id: str, research: Research) -> HTMLResponse:
    """The answer as a page, with linked sources."""
    job = await research.get(id)
    if not job.done:
        raise HTTPException(409, "it still runs")
    return HTMLResponse("".join(html_report([job], title=job.question or "Research")))


@app.get("/health")
async def health(research: Research) -> dict[str, Any]:
    """For a load balancer, and for people."""
    stats = research.stats()
    return {"running": stats.running, "accepted": stats.accepted, "stopped": stats.stopped}
