"""What never left is nothing: whoever leaves before a byte of a submission is written is told of no job and no bill."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from _scripted import KEY

from aiopplx import ConfigError, Event, EventKind, JobStatus, RetryPolicy, Session
from aiopplx._core.spending import Bounded
from aiopplx._submission import Phase, Submission
from aiopplx._wire.kinds import Kind
from aiopplx.emulator import Emulator, faults
from aiopplx.journal import MemoryStore, State, open_reader


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a host that lets nobody in: its queue is full, and nobody takes from it."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(params=["own", "caller's"])
async def http(request: pytest.FixtureRequest) -> AsyncIterator[aiohttp.ClientSession | None]:
    if request.param == "own":
        yield None
    else:
        async with aiohttp.ClientSession() as theirs:
            yield theirs


def subs_of(session: Session) -> Callable[[], list[Submission]]:
    assert session._core is not None
    callers = session._core.calls._callers
    return lambda: [caller.sub for caller in callers]


async def under_way(subs: Callable[[], list[Submission]], phase: Phase, count: int) -> None:
    """Wait until so many attempts are under way, which nothing tells."""
    with anyio.fail_after(20):
        while sum(sub.phase is phase for sub in subs()) < count:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)


async def cancelled_ask(session: Session) -> None:
    asking = asyncio.create_task(session.ask("Why?"))
    await asyncio.sleep(0)
    await under_way(subs_of(session), Phase.SENDING, 1)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()


async def left_batch(session: Session) -> None:
    batch = session.batch(["One?", "Two?", "Three?"])
    async with batch:
        await under_way(lambda: [place.sub for place in batch._results.out], Phase.SENDING, 3)
    assert batch.pending == []


async def closed_session(session: Session) -> None:
    asking = asyncio.create_task(session.ask("Why?"))
    await asyncio.sleep(0)
    await under_way(subs_of(session), Phase.SENDING, 1)
    await session.aclose()
    with pytest.raises(ConfigError, match="closed"):
        await asking


@pytest.mark.parametrize("api", ["sonar", "agent"])
@pytest.mark.parametrize("leave", [cancelled_ask, left_batch, closed_session], ids=lambda leave: leave.__name__)
async def test_attempt_that_never_left_is_told_to_nobody(
    deaf: str, leave: Callable[[Session], Awaitable[None]], api: str, http: aiohttp.ClientSession | None, tmp_path: Path
) -> None:
    told: list[Event] = []
    path = tmp_path / "run.db"
    async with Session(
        KEY,
        base_url=deaf,
        api=api,
        journal=path,
        max_cost=50.0,
        http=http,
        retry=RetryPolicy(leave_grace=0.01),
        on_event=told.append,
    ) as session:
        spending = session._running().life.spending
        assert isinstance(spending, Bounded)
        await leave(session)
        balance = spending.budget.balance(Kind())
        assert (balance.reserved, balance.left, balance.in_flight) == (0.0, 0, 0)
    assert [event.kind for event in told if event.kind in (EventKind.LEFT, EventKind.FINISHED)] == []
    with open_reader(path) as journal:
        assert {row.state for row in journal.rows()} == {State.QUEUED}


async def test_doubt_outlives_a_later_attempt_that_never_left(deaf: str) -> None:
    """The first attempt made a job; the second, in a later run, finds nobody. What may be billed is still told."""
    store = MemoryStore(now=time.time)
    retry = RetryPolicy(on_doubt="resend", doubt_tries=1, leave_grace=0.01)
    told: list[Event] = []
    async with Emulator() as server:
        server.faults.add("submit", faults.Drop(after_accept=True))
        async with Session(KEY, base_url=server.url, api="sonar", journal=store.session(), retry=retry) as session:
            assert (await session.ask("Why?", tag="x")).status is JobStatus.IN_DOUBT
    more: dict[str, Any] = {"retry": retry, "on_event": told.append}
    async with Session(KEY, base_url=deaf, api="sonar", journal=store.session(), **more) as session:
        asking = asyncio.create_task(session.ask("Why?", tag="x"))
        await asyncio.sleep(0)
        await under_way(subs_of(session), Phase.RESENDING, 1)
        asking.cancel()
        await asyncio.wait([asking])
    assert [event.status for event in told if event.kind is EventKind.LEFT] == [JobStatus.IN_DOUBT]
    assert {row.state for row in store.rows.values()} <= {State.SENDING, State.IN_DOUBT}
