"""aiohttp's web server: a session for the life of an app, and the updates of a job as server-sent events.

    app = web.Application(middlewares=[errors])
    app.cleanup_ctx.append(research())
    app.router.add_get("/research/{id}/events", updates)

    async def start(request: web.Request) -> web.Response:
        job = await request.app[RESEARCH].submit((await request.json())["question"])
        return web.json_response({"id": job.id})

Needs `aiopplx[aiohttp-sse]`. A browser that goes away ends its stream and nothing else. When the app is told to stop,
streams end at once, calls of `wait` return, and ids of jobs that go on are logged. This module knows nothing of how
jobs are made or polled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp_sse import sse_response

from aiopplx import AiopplxError, InvalidRequest, Job, Session
from aiopplx.contrib._backend import DONE, Follows, is_over, said, status_of

__all__ = ["RESEARCH", "errors", "research", "updates", "wait"]

RESEARCH: web.AppKey[Session] = web.AppKey("aiopplx_session", Session)
"""The app's session: `request.app[RESEARCH]`; from a sub-application, `request.config_dict[RESEARCH]`."""

_FOLLOWS: web.AppKey[Follows] = web.AppKey("aiopplx_follows", Follows)


def research(
    make: Callable[[], Session] = Session,
) -> Callable[[web.Application], AbstractAsyncContextManager[None]]:
    """A session for the life of an app: `app.cleanup_ctx.append(research())`.

    Args:
        make: makes the session, when the app starts: `lambda: Session(journal="research.db")`. Default: a session with
            its defaults, configured by the environment.
    """

    @asynccontextmanager
    async def context(app: web.Application) -> AsyncGenerator[None]:
        async def stop(app: web.Application) -> None:
            app[_FOLLOWS].end()

        app.on_shutdown.append(stop)
        async with make() as session:
            app[RESEARCH], app[_FOLLOWS] = session, Follows(session)
            yield

    return context


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer the errors of this library with a status and a sentence, in place of a 500: a middleware, which aiohttp
    calls with each `request` and the `handler` that is next.

    422 for a request that breaks a rule, 404 for a job that the service does not know, 503 while nothing can be
    submitted (the log says why), 502 for what the service got wrong.
    """
    try:
        return await handler(request)
    except AiopplxError as error:
        return web.json_response(said(error), status=status_of(error))


async def wait(request: web.Request, job: Job | str, *, timeout: float | None = None) -> Job:
    """As `Session.wait` of the app's session, for a call that waits in a request: when the app is told to stop, it
    returns within about a second, with the job as at its own time limit (`TIMED_OUT`), so that the server can answer.

    Args:
        request: being answered.
        job: a `Job`, or the id or the token of one.
        timeout: seconds from now; default the session's.

    Raises:
        NotFound: the service does not know the job, or no longer: a 404. `Session.wait` returns it as `EXPIRED`.
        InvalidRequest, APIError: this is not a job id: a 422.
    """
    return await request.config_dict[_FOLLOWS].wait(job, timeout=timeout)


async def updates(request: web.Request) -> web.StreamResponse:
    """The updates of the job `{id}` as server-sent events: `app.router.add_get("/research/{id}/events", updates)`.

    Each event `update` has `Update.to_dict()` as its data and the update's id; the last one is called `done`, and has
    the answer. An event `failed` has an error in place of it. After either of them the page has to close its
    `EventSource`. When the stream ends without them (the app stops, or the session's time limit is reached while the
    job runs), `EventSource` comes back by itself with `Last-Event-ID`, and is not told again what it knows. Whoever may
    read this may read any job of the account: guard it as your app guards its pages.
    """
    after = request.headers.get("Last-Event-ID", "")
    if after in DONE:
        return web.Response(status=204)  # the one answer after which a browser does not come back
    try:
        follow = request.config_dict[RESEARCH].follow(request.match_info["id"], after=after)
    except InvalidRequest as error:
        return web.json_response(said(error), status=422)
    async with sse_response(request) as response:
        with request.config_dict[_FOLLOWS].reading(follow), contextlib.suppress(ConnectionResetError):
            # It pings the browser, and ends when that has gone.
            gone = asyncio.create_task(response.wait())
            gone.add_done_callback(lambda _: follow.close())
            try:
                async for update in follow:
                    if update.job.done and not is_over(update.job):
                        break  # only the time limit: whoever comes back follows on
                    name = "done" if update.job.done else "update"
                    data = msgspec.json.encode(update.to_dict()).decode()
                    await response.send(data, id=update.id, event=name)
            except AiopplxError as error:
                await response.send(msgspec.json.encode(said(error)).decode(), event="failed")
            finally:
                gone.cancel()
    return response
