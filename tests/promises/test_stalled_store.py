"""A store that does not answer: a disk that stalls under the journal's thread, or a caller's own store that hangs.

Leaving is bounded all the same, and says what may not be written; what was given is still written when the disk comes
back, and the file stays locked until then. In the middle of a run nothing is sent, and each job's time limit holds.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from _scripted import Boom, Scripted, Told, opened, turns

from aiopplx import (
    ConfigError,
    Event,
    EventKind,
    Job,
    JobStatus,
    PollPolicy,
    RetryPolicy,
    Session,
)
from aiopplx._core.announcing import store_left
from aiopplx._events import Emitter
from aiopplx.journal import (
    JournalAway,
    JournalError,
    JournalLocked,
    MemoryJournal,
    MemoryStore,
    SqliteJournal,
    State,
    open_reader,
)
from aiopplx.journal._unwritten import Unwritten
from aiopplx.testing import Clock, JumpingClock

T = TypeVar("T")

BOUND = 25.0
"""Real seconds that no end comes near to, even on a slow machine; the stalls last until the test ends them."""
QUICK = RetryPolicy(leave_grace=0.2)
WAYS = ("exit", "exception", "cancel", "aclose")


async def left(
    session: Session, use: Callable[[], Coroutine[Any, Any, Any]], hangs: Awaitable[object], way: str
) -> Any:
    """Use a session until its store hangs, and leave it in one of four ways. Returns what the use of it came to."""
    using: list[asyncio.Task[Any]] = []

    async def block() -> None:
        async with session:
            using.append(asyncio.create_task(use()))
            await hangs
            if way == "exception":
                raise Boom
            if way == "aclose":
                await session.aclose()
            elif way == "cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)

    with anyio.fail_after(BOUND):
        leaving = asyncio.create_task(block())
        await asyncio.wait([leaving])
        await asyncio.wait(using)
    end = leaving.exception() if not leaving.cancelled() else None
    assert leaving.cancelled() == (way == "cancel")
    assert isinstance(end, Boom) == (way == "exception")
    return using[0].exception() if not using[0].cancelled() else "cancelled"


class Quiet:
    """Inside, no exception is left to be told by the loop, and afterwards no task goes on."""

    async def __aenter__(self) -> Quiet:
        loop = asyncio.get_running_loop()
        self.told: list[Any] = []
        self.before = asyncio.all_tasks()
        loop.set_exception_handler(lambda loop, context: self.told.append(context))
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        with anyio.fail_after(BOUND):
            while asyncio.all_tasks() - self.before:
                await turns(5)
        gc.collect()
        await turns(5)
        asyncio.get_running_loop().set_exception_handler(None)
        if kind is None:
            assert self.told == []


# --- a store of the caller's own -------------------------------------------------------------------------------------


class Hanging:
    """A store one of whose calls does not end until the test lets it; `name` is a method, or a step of `apply`."""

    def __init__(self, name: str, store: MemoryJournal, *, is_stubborn: bool) -> None:
        self.is_in = asyncio.Event()
        self.let_go = asyncio.Event()
        self._name = name
        self._store = store
        self._is_stubborn = is_stubborn

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(value):
            return value

        async def call(*args: Any, **words: Any) -> Any:
            if self._name in (name, args[1].rule.name if name == "apply" else ""):
                await self._hang()
            return await value(*args, **words)

        return call

    async def _hang(self) -> None:
        self.is_in.set()
        while not self.let_go.is_set():
            with suppress(asyncio.CancelledError if self._is_stubborn else ()):
                await self.let_go.wait()


async def batch(session: Session) -> None:
    async with session.batch(["one", "two"]) as jobs:
        async for _ in jobs:
            pass


async def estimate(session: Session) -> None:
    await session.estimate(["one"])


# A use of a session for each call of the protocol that it awaits in the middle of a run. The job "old" is known.
USES: dict[str, Callable[[Session], Coroutine[Any, Any, Any]]] = {
    "find_or_queue": batch,
    "counts": batch,
    "sending": batch,
    "accepted": batch,
    "ended": lambda session: session.ask("one"),
    "claim": lambda session: session.wait("old"),
    "get": lambda session: session.get("old"),
    "rows": lambda session: session.in_doubt(),
    "ledger": estimate,
    "adopt": lambda session: session.adopt("new"),
    "remember": lambda session: session.ask("one"),
}


@pytest.mark.slow
async def test_leaving_is_bounded_at_a_hanging_store(server: Scripted) -> None:
    async def one(name: str, way: str, is_stubborn: bool) -> None:
        store = MemoryJournal(now=time.time)
        await store.adopt("old", api="sonar")
        hanging = Hanging(name, store, is_stubborn=is_stubborn)
        session = opened(server, journal=hanging, retry=QUICK)
        was_used = asyncio.Event()

        async def use() -> None:
            try:
                await USES[name](session)
            finally:
                was_used.set()

        try:
            # What is learnt is kept by leaving itself, once there is something.
            hangs = was_used.wait() if name == "remember" else hanging.is_in.wait()
            end = await left(session, use, hangs, way)
        finally:
            hanging.let_go.set()
        assert isinstance(end, ConfigError | JournalError | None), (name, way, end)
        assert hanging.is_in.is_set(), name

    async with Quiet():
        await asyncio.gather(*(one(name, way, False) for name in USES for way in WAYS))
        await asyncio.gather(*(one(name, way, True) for name in USES for way in ("exit", "cancel")))


async def test_unwritten_steps_of_a_hanging_store_are_told(server: Scripted) -> None:
    told = Told()
    hanging = Hanging("accepted", MemoryJournal(now=time.time), is_stubborn=True)
    session = opened(server, journal=hanging, retry=QUICK, on_event=told)
    try:
        await left(session, lambda: session.ask("one", tag="x"), hanging.is_in.wait(), "exit")
    finally:
        hanging.let_go.set()
    (row,) = server.rows.values()
    (warning,) = [event for event in told.of(EventKind.WARNING) if event.job_id]
    assert (warning.job_id, warning.idempotency_key) == (row.id, row.key)
    assert "adopt" in warning.reason
    assert "does not answer" in told.of(EventKind.STOPPED)[-1].reason
    assert [event.job_id for event in told.of(EventKind.LEFT)] == [row.id]


@pytest.mark.parametrize(
    ("unwritten", "said"),
    [
        ([], "the store hangs. It is in use until it comes back, or this process ends. Begin again"),
        ([Unwritten("ended", "k1")], "What is known of one submission may not be written."),
        ([Unwritten("ended", "k1"), Unwritten("ended", "k2")], "What is known of 2 submissions may not be written."),
    ],
)
def test_leaving_a_silent_store_says_what_is_lost(unwritten: list[Unwritten], said: str) -> None:
    told: list[Event] = []
    store_left(Emitter(told.append), "run.db", unwritten)
    assert said in told[0].reason
    assert ("may not be written" in told[0].reason) == bool(unwritten)
    assert len(told) == 1 + len(unwritten)


# --- a disk that stalls under the journal's thread -------------------------------------------------------------------


class Stalling(Clock):
    """A clock at which the journal's thread, and nobody else, stops: as at a disk that does not answer.

    Attributes:
        at: the number of its question, from the next one on, at which it stops; 0 for never.
    """

    def __init__(self, speed: float = 1.0) -> None:
        super().__init__(speed)
        self.at = 0
        self.is_in = threading.Event()
        self.back = threading.Event()

    def wall(self) -> float:
        if self.at and threading.current_thread().name == "aiopplx-journal":
            self.at -= 1
            if not self.at:
                self.is_in.set()
                self.back.wait(120)
        return super().wall()

    async def hangs(self) -> None:
        await anyio.to_thread.run_sync(self.is_in.wait, BOUND)


async def opened_again(path: Path) -> SqliteJournal:
    """The journal once it is free."""
    with anyio.fail_after(BOUND):
        while True:
            try:
                return await SqliteJournal.open(path, now=time.time)
            except JournalLocked:
                await asyncio.sleep(0.01)


# The questions that the thread has for the clock at each step of one `ask`: a new row, the mark, the id, the end.
STEPS = {"queued": 1, "sending": 2, "accepted": 3, "ended": 4}
KNOWN = {"queued": State.QUEUED, "sending": State.QUEUED, "accepted": State.ACCEPTED, "ended": State.DONE}


@pytest.mark.slow
async def test_leaving_a_stalled_disk_is_bounded_and_loses_nothing(server: Scripted, tmp_path: Path) -> None:
    async def one(step: str, way: str) -> None:
        path = tmp_path / f"{step}-{way}.db"
        clock, told = Stalling(), Told()
        session = opened(server, journal=path, retry=QUICK, clock=clock, on_event=told)

        async def ask() -> Job:
            clock.at = STEPS[step]
            return await session.ask(f"{step} {way}")

        try:
            end = await left(session, ask, clock.hangs(), way)
            assert isinstance(end, ConfigError), (step, way, end)
            assert "does not answer" in told.of(EventKind.STOPPED)[-1].reason
            row = next((row for row in server.rows.values() if row.question == f"{step} {way}"), None)
            assert (row is not None) == (step in ("accepted", "ended"))
            warnings = [event for event in told.of(EventKind.WARNING) if event.idempotency_key]
            assert len(warnings) == 1
            if row is not None:
                assert (warnings[0].job_id, warnings[0].idempotency_key) == (row.id, row.key)
            # It may still write, so nobody else may.
            with pytest.raises(JournalLocked):
                await SqliteJournal.open(path, now=time.time)
        finally:
            clock.back.set()
        again = await opened_again(path)
        counts = await again.counts()
        await again.close()
        assert {state for state, count in counts.items() if count} == {KNOWN[step]}, (step, way)
        with open_reader(path) as reader:
            assert reader.facts()["clean"]

    async with Quiet():
        ways = [(step, way) for step in STEPS for way in WAYS if step == "accepted" or way == WAYS[STEPS[step] % 4]]
        await asyncio.gather(*(one(step, way) for step, way in ways))


async def test_leaving_waits_for_no_clock_that_stands_still(server: Scripted, tmp_path: Path) -> None:
    """A clock that jumps stands still while a journal is at work, and so would every limit by it."""
    clock = JumpingClock()
    hanging = Hanging("accepted", MemoryJournal(now=clock.wall), is_stubborn=False)
    session = opened(server, journal=hanging, clock=clock, retry=QUICK)
    try:
        end = await left(session, lambda: session.ask("one"), hanging.is_in.wait(), "exit")
    finally:
        hanging.let_go.set()
    assert isinstance(end, ConfigError)


PROGRAM = """
import asyncio, sys, threading
from aiopplx import RetryPolicy, Session
from aiopplx.emulator import Emulator
from aiopplx.testing import Clock

class Stalling(Clock):
    asked = 0
    def wall(self):
        if threading.current_thread().name == "aiopplx-journal":
            Stalling.asked += 1
            if Stalling.asked == 4:
                threading.Event().wait()
        return super().wall()

async def main():
    async with Emulator() as server:
        async with Session("a-test-key", base_url=server.url, journal=sys.argv[1], clock=Stalling(1.0),
                           retry=RetryPolicy(leave_grace=0.1)) as session:
            asking = asyncio.create_task(session.ask("one"))
            while Stalling.asked < 4:
                await asyncio.sleep(0.01)
        print(type((await asyncio.gather(asking, return_exceptions=True))[0]).__name__)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_program_ends_though_its_disk_never_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    run = [sys.executable, "-c", PROGRAM, str(path)]
    ended = await anyio.to_thread.run_sync(
        lambda: subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "ConfigError")
    assert "does not answer" in ended.stderr
    assert "its id may not be in the journal" in ended.stderr
    # What was promised before is there, and what was not is as if it had never been asked.
    again = await opened_again(path)
    counts = await again.counts()
    await again.close()
    assert {state for state, count in counts.items() if count} == {State.SENDING}


# --- time limits in the middle of a run ------------------------------------------------------------------------------


@pytest.mark.slow
async def test_time_limits_hold_while_the_disk_stalls(server: Scripted, tmp_path: Path) -> None:
    """A minute by the session's clock is some tenths of a second here; then comes what a store has in any case."""
    server.polls = lambda row: 1 if row.question.startswith("ended") else float("inf")

    async def asked(session: Session, question: str) -> Job | BaseException | None:
        try:
            return await session.ask(question, timeout=60)
        except JournalError as error:
            return error

    async def handed_out(session: Session, question: str) -> Job | BaseException | None:
        async with session.batch([question], timeout=60) as batch:
            (job,) = [job async for job in batch]
        return job.error if job.status is JobStatus.STOPPED else job

    async def one(step: str, how: Callable[[Session, str], Coroutine[Any, Any, Job | BaseException | None]]) -> None:
        clock, question = Stalling(100), f"{step} {how.__name__}"
        session = opened(server, journal=tmp_path / f"{question}.db", clock=clock, retry=QUICK)
        try:
            with anyio.fail_after(BOUND):
                async with session:
                    clock.at = STEPS[step]
                    end = await how(session, question)
                    row = next((row for row in server.rows.values() if row.question == question), None)
                    if row is None:
                        assert isinstance(end, JournalAway)
                        assert "has not answered" in end.message
                        assert step in ("queued", "sending")
                    else:
                        assert isinstance(end, Job)
                        assert (end.id, end.status) == (row.id, JobStatus.TIMED_OUT)
                    clock.back.set()
        finally:
            clock.back.set()
        await (await opened_again(tmp_path / f"{question}.db")).close()

    async with Quiet():
        await asyncio.gather(*(one(step, how) for step in STEPS for how in (asked, handed_out)))


@pytest.mark.parametrize("name", ["get", "claim"])
async def test_wait_ends_in_time_though_the_store_hangs(name: str, server: Scripted) -> None:
    store = MemoryStore(now=time.time)
    await store.session().adopt("old", api="sonar")
    hanging = Hanging(name, store.session(), is_stubborn=True)
    async with opened(server, journal=hanging, clock=Clock(100)) as session:
        with anyio.fail_after(BOUND):
            with pytest.raises(JournalAway) as caught:
                await session.wait("old", timeout=30)
        assert caught.value.job_id == "old"
        hanging.let_go.set()


class Unheld(JumpingClock):
    """A clock that jumps, and that a store which hangs does not hold up: minutes of waiting take no time."""

    def guard(self, thing: T, *, but: Collection[str] = ()) -> T:
        return thing


# A call of the session for each call of the store that a user's single call makes.
SINGLE: dict[str, tuple[str, Callable[[Session, Job], Coroutine[Any, Any, object]]]] = {
    "get reads the row": ("get", lambda session, job: session.get(job.id)),
    "get reads the result": ("result", lambda session, job: session.get(job.id)),
    "cancel": ("get", lambda session, job: session.cancel(job.id)),
    "in_doubt": ("rows", lambda session, job: session.in_doubt()),
    "adopt": ("adopt", lambda session, job: session.adopt("new")),
    "adopt instead": ("get", lambda session, job: session.adopt("new", instead_of=job)),
    "drop": ("claim", lambda session, job: session.drop(job)),
    "resubmit": ("claim", lambda session, job: session.resubmit(job, pay_again=True)),
}


@pytest.mark.parametrize("use", SINGLE)
async def test_single_calls_end_in_time_though_the_store_hangs(use: str, server: Scripted) -> None:
    name, call = SINGLE[use]
    clock = Unheld()
    store = MemoryStore(now=clock.wall)
    async with opened(server, journal=store.session(), clock=clock) as session:
        job = await session.ask("one")
    hanging, api = Hanging(name, store.session(), is_stubborn=False), "agent" if use == "cancel" else "sonar"
    async with opened(server, journal=hanging, clock=clock, api=api) as session:
        began = clock.now()
        with anyio.fail_after(BOUND), pytest.raises(JournalAway) as caught:
            await call(session, job)
        assert clock.now() - began == pytest.approx(RetryPolicy().call_seconds, abs=1.0)
        told = "" if use == "in_doubt" else "new" if use == "adopt" else job.id
        assert caught.value.job_id == told
        hanging.let_go.set()


async def test_opening_ends_in_time_though_the_ledger_hangs(server: Scripted) -> None:
    clock = Unheld()
    hanging = Hanging("ledger", MemoryJournal(now=clock.wall), is_stubborn=False)
    with anyio.fail_after(BOUND), pytest.raises(JournalAway):
        async with opened(server, journal=hanging, clock=clock, max_cost=5.0):
            pass
    hanging.let_go.set()


async def test_unwritable_outcomes_hold_up_no_time_limit(server: Scripted) -> None:
    """Each holds the place of its poll, so that memory does not grow; a job at its limit does not wait for a place."""
    server.polls = lambda row: float("inf") if row.question == "other" else 1
    hanging = Hanging("ended", MemoryJournal(now=time.time), is_stubborn=False)
    async with opened(server, journal=hanging, clock=Clock(10), retry=QUICK, poll=PollPolicy.fixed(0.1)) as session:
        other = await session.submit("other")
        async with session.batch([f"question {n}" for n in range(32)]) as jobs:
            await server.until(lambda: server.told == 32)
            with anyio.fail_after(BOUND):
                job = await session.wait(other, timeout=20)
            assert (job.id, job.status) == (other.id, JobStatus.TIMED_OUT)
            hanging.let_go.set()
            assert len([job async for job in jobs if job.ok]) == 32


async def test_store_without_a_word_on_sharing_works(server: Scripted) -> None:
    class Plain:
        def __init__(self) -> None:
            self._store = MemoryJournal(now=time.time)

        def __getattr__(self, name: str) -> Any:
            if name == "shares":
                raise AttributeError(name)
            return getattr(self._store, name)

    store: Any = Plain()
    async with opened(server, journal=store) as session:
        assert (await session.ask("one")).ok


async def test_opening_goes_on_without_what_was_learnt(server: Scripted) -> None:
    hanging = Hanging("recall", MemoryJournal(now=time.time), is_stubborn=True)
    with anyio.fail_after(BOUND):
        async with opened(server, journal=hanging) as session:
            assert (await session.ask("one")).ok
    hanging.let_go.set()


@pytest.mark.parametrize("name", ["ledger", "recall"])
async def test_opening_at_a_hanging_store_can_be_cancelled(name: str, server: Scripted) -> None:
    hanging = Hanging(name, MemoryJournal(now=time.time), is_stubborn=True)
    session = opened(server, journal=hanging, max_cost=5.0)
    with anyio.fail_after(BOUND), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await session.__aenter__()
    hanging.let_go.set()
