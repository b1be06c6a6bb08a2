"""A small research service on aiohttp: ask by JSON, watch it run, read the answer with its sources.

    pip install 'aiopplx[aiohttp-sse,report]'
    python aiohttp_app.py

Without a key: run `aiopplx emulator --port 8080` beside it, and set PERPLEXITY_BASE_URL=http://127.0.0.1:8080 and
PERPLEXITY_API_KEY=any. With RESEARCH_JOURNAL=research.db nothing is lost at a restart.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from aiohttp import web

from aiopplx import JournalOptions, Session
from aiopplx.contrib.aiohttp import RESEARCH, errors, research, updates, wait
from aiopplx.report import html_report


def session() -> Session:
    """One session for the life of the app. A file has one process at a time: a new one waits for the one before."""
    place = os.environ.get("RESEARCH_JOURNAL") or None
    if place is None or place.startswith("postgresql:"):
        return Session(journal=place)
    return Session(journal=JournalOptions(place, wait=60))


class Question(msgspec.Struct):
    """What is asked."""

    question: str
    tag: str | None = None
    """With a journal, the same tag is the same job, however often it is asked for."""


async def page(request: web.Request) -> web.FileResponse:
    """The progress page."""
    return web.FileResponse(Path(__file__).with_name("page.html"))


async def start(request: web.Request) -> web.Response:
    """Submit a question. Returns as soon as the service has it."""
    try:
        asked = msgspec.json.decode(await request.read(), type=Question)
    except msgspec.DecodeError as error:
        return web.json_response({"detail": str(error)}, status=422)
    job = await request.app[RESEARCH].submit(asked.question, tag=asked.tag)
    return web.json_response({"id": job.id}, status=202)


async def answer(request: web.Request) -> web.Response:
    """The job; if it still runs after 25 seconds, or when the server is told to stop, as it stands then."""
    job = await wait(request, request.match_info["id"], timeout=25.0)
    return web.json_response(job.to_dict())


async def read(request: web.Request) -> web.Response:
    """The answer as a page, with linked sources."""
    job = await request.app[RESEARCH].get(request.match_info["id"])
    if not job.done:
        raise web.HTTPConflict(text="it still runs")
    return web.Response(text="".join(html_report([job], title=job.question or "Research")), content_type="text/html")


async def health(request: web.Request) -> web.Response:
    """For a load balancer, and for people."""
    stats = request.app[RESEARCH].stats()
    return web.json_response({"running": stats.running, "accepted": stats.accepted, "stopped": stats.stopped})


app = web.Application(middlewares=[errors])
app.cleanup_ctx.append(research(session))
app.add_routes([
    web.get("/", page),
    web.post("/research", start),
    web.get("/research/{id}/events", updates),
    web.get("/research/{id}/answer.json", answer),
    web.get("/research/{id}", read),
    web.get("/health", health),
])

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=8000, shutdown_timeout=20)
