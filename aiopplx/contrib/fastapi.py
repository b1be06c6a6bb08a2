"""FastAPI: a session for the life of an app, a dependency for it, and the updates of a job as server-sent events.

    app = FastAPI(lifespan=lifespan)
    app.include_router(router, prefix="/research")     # GET /research/{id}/events
    add_error_handler(app)

    @app.post("/research")
    async def start(question: str, research: Research) -> dict[str, str]:
        return {"id": (await research.submit(question)).id}

Needs `aiopplx[fastapi]`. A browser that goes away ends its stream and nothing else: a job goes on, and a call that
waits for it too. When the process is told to stop (SIGTERM), streams end at once and calls of `wait` return, so that
the server need not wait for pages that follow a job; ids of jobs that go on are logged. This module knows nothing of
how jobs are made or polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import types
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.datastructures import State

from aiopplx import AiopplxError, InvalidRequest, Job, Session
from aiopplx.contrib._backend import DONE, Follows, is_over, said, status_of
from aiopplx.progress import Follow

__all__ = ["Research", "add_error_handler", "lifespan", "opened", "router", "session_of", "wait"]


@asynccontextmanager
async def opened(app: FastAPI, session: Session) -> AsyncGenerator[Session]:
    """A session for the life of this app, for a lifespan of your own:

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
            async with opened(app, Session(journal=f"research-{os.environ['WORKER']}.db")):
                yield

    Args:
        app: gets the session. `Research` and the router find it there, also from apps that are mounted in it.
        session: opened here, and closed when the app ends.
    """
    follows = Follows(session)
    async with session:
        _OPENED.add(app)
        for each in _with_mounted(app):
            each.state.aiopplx_session, each.state.aiopplx_follows = session, follows
        with _told_to_stop(follows.end):
            try:
                yield session
            finally:
                follows.end()


_OPENED: weakref.WeakSet[Starlette] = weakref.WeakSet()
"""Apps that were given a session."""


def _with_mounted(app: Starlette) -> Iterator[Starlette]:
    """This app, and those that are mounted in it: their own lifespans are not run."""
    yield app
    for route in app.routes:
        mounted = getattr(route, "app", None)
        if isinstance(mounted, Starlette):
            yield from _with_mounted(mounted)


def _state(request: Request) -> State:
    """Of the app that has the session: the one that answers, or the outermost one, for an app that was mounted later or
    with something round it."""
    state: State = request.app.state
    if hasattr(state, "aiopplx_session"):
        return state
    outermost = request.scope.get("router")  # the first one that the request came through
    found = next((app for app in list(_OPENED) if app.router is outermost), None)
    if found is None:
        raise RuntimeError("the app has no session: FastAPI(lifespan=aiopplx.contrib.fastapi.lifespan)")
    return found.state


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """`FastAPI(lifespan=lifespan)`: a session with its defaults, configured by the environment."""
    async with opened(app, Session()):
        yield


@contextlib.contextmanager
def _told_to_stop(stop: Callable[[], object]) -> Generator[None]:
    """Call `stop` on the loop when the process gets SIGTERM or SIGINT, before whatever handled it until now.

    uvicorn takes a signal as the wish to stop, waits for its open connections, and tells the app only then.
    """
    loop = asyncio.get_running_loop()
    before: dict[int, Callable[[int, types.FrameType | None], object]] = {}

    def heard(signum: int, frame: types.FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        before[signum](signum, frame)

    try:
        for which in (signal.SIGTERM, signal.SIGINT):
            then = signal.getsignal(which)
            if callable(then):  # else nothing here would stop the process, and neither do we
                before[which] = then
                signal.signal(which, heard)
    except ValueError:
        before.clear()  # not in the main thread, as in a test client: whoever runs the app stops it
    try:
        yield
    finally:
        for signum, then in before.items():
            if signal.getsignal(signum) is heard:
                signal.signal(signum, then)


async def session_of(request: Request) -> Session:
    """The app's session, as a dependency; see `Research`."""
    session: Session = _state(request).aiopplx_session
    return session


Research = Annotated[Session, Depends(session_of)]
"""A parameter of a path operation: `async def start(question: str, research: Research)`."""


async def wait(request: Request, job: Job | str, *, timeout: float | None = None) -> Job:
    """As `Session.wait` of the app's session, for a call that waits in a request: when the process is told to stop, it
    returns within about a second, with the job as at its own time limit (`TIMED_OUT`), so that the server can answer.

    Args:
        request: being answered.
        job: a `Job`, or the id or the token of one.
        timeout: seconds from now; default the session's.

    Raises:
        NotFound: the service does not know the job, or no longer: a 404. `Session.wait` returns it as `EXPIRED`.
        InvalidRequest, APIError: this is not a job id: a 422.
    """
    follows: Follows = _state(request).aiopplx_follows
    return await follows.wait(job, timeout=timeout)


def add_error_handler(app: FastAPI) -> None:
    """Answer the errors of this library with a status and a sentence, in place of a 500.

    422 for a request that breaks a rule, 404 for a job that the service does not know, 503 while nothing can be
    submitted (the log says why), 502 for what the service got wrong.
    """

    async def answer(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AiopplxError)  # noqa: S101 - it is registered for these
        return JSONResponse(said(error), status_of(error))

    app.add_exception_handler(AiopplxError, answer)


# --- the updates of a job --------------------------------------------------------------------------------------------


async def _follow(
    id: str, research: Research, last_event_id: Annotated[str | None, Header(include_in_schema=False)] = None
) -> Follow:
    if last_event_id in DONE:
        raise HTTPException(204)  # the one answer after which a browser does not come back
    try:
        return research.follow(id, after=last_event_id or "")
    except InvalidRequest as error:
        raise HTTPException(422, error.message) from None


router: APIRouter = APIRouter()
"""`GET /{id}/events`: the updates of a job as server-sent events, for `app.include_router(router, prefix="/research")`.

Each event `update` has `Update.to_dict()` as its data and the update's id; the last one is called `done`, and has the
answer. An event `failed` has an error in place of it. After either of them the page has to close its `EventSource`.
When the stream ends without them (the app stops, or the session's time limit is reached while the job runs),
`EventSource` comes back by itself with `Last-Event-ID`, and is not told again what it knows. Whoever may read this may
read any job of the account: give the router the dependencies that your app has for that.
"""


@router.get("/{id}/events", response_class=EventSourceResponse, name="updates")
async def _updates(request: Request, follow: Annotated[Follow, Depends(_follow)]) -> AsyncIterator[ServerSentEvent]:
    """How a job stands now, then each change, to its end."""
    follows: Follows = _state(request).aiopplx_follows
    with follows.reading(follow):
        try:
            async for update in follow:
                if update.job.done and not is_over(update.job):
                    break  # only the time limit: whoever comes back follows on
                name = "done" if update.job.done else "update"
                event = ServerSentEvent(event=name, id=update.id, data=update.to_dict())
                yield event  # noqa: ASYNC119 - FastAPI's form of such an endpoint; one task of its own runs it
        except AiopplxError as error:
            yield ServerSentEvent(event="failed", data=said(error))  # noqa: ASYNC119 - likewise
