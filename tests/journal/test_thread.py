"""Whatever goes wrong in a journal's thread, whoever asked it is answered, and leaving does not hang."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from _rows import claim_of, opened, queued, sent, take

from aiopplx.journal._errors import JournalBroken, JournalError, JournalLocked
from aiopplx.journal._records import State
from aiopplx.journal._sqlite import writer as writer_of
from aiopplx.journal._sqlite.journal import SqliteJournal

SECONDS = 20.0
"""Real seconds that nothing here comes near to: whoever waits for so long would wait for ever."""

FOLDER = str(Path(writer_of.__file__).parent)
BEYOND = {"_live"}
"""The first frame of the thread, which answers for all others."""


class Fault:
    """Raises an error at one line that the threads of journals run, counted from the first."""

    def __init__(self, at: int, make: Callable[[], BaseException]) -> None:
        self.at = at
        self.make = make
        self.lines = 0
        self.where = ""

    def trace(self, frame: types.FrameType, what: str, _: object) -> object:
        code = frame.f_code
        if what == "call" and is_finalizing(frame):
            return None
        if not code.co_filename.startswith(FOLDER) or code.co_name in BEYOND:
            return self.trace if what == "call" else None
        if what == "line":
            self.lines += 1
            if self.lines == self.at:
                self.where = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}"
                raise self.make()
        return self.trace


def is_finalizing(frame: types.FrameType | None) -> bool:
    """Whether a `__del__` called it, at a moment of the interpreter's own: nobody could be told of an error there."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


@contextmanager
def traced(fault: Fault) -> Iterator[None]:
    before = sys.gettrace()
    threading.settrace(fault.trace)  # type: ignore[arg-type]  # a trace function returns the next one
    try:
        yield
    finally:
        threading.settrace(before)  # type: ignore[arg-type]  # none, or a coverage tool's


async def answered(doing: list[object]) -> list[object]:
    async with asyncio.timeout(SECONDS):
        return await asyncio.gather(*doing, return_exceptions=True)  # type: ignore[call-overload, no-any-return]  # mixed


async def lived(path: Path) -> list[object]:
    """What the calls of a short life of a journal came to; each of them must come to something."""
    try:
        async with asyncio.timeout(SECONDS):
            journal = await opened(path)
    except JournalError as error:
        return [error]
    try:
        first = await answered([queued(journal, "a"), queued(journal, "b"), journal.counts()])
        record = first[0]
        rest: list[object] = []
        if not isinstance(record, BaseException):
            journal.delivered(claim_of(record), record.key, State.DONE)  # type: ignore[arg-type]  # a record, since it is no error
            for step, more in (
                ("sending", {}),
                ("accepted", {"job_id": "id"}),
                ("ended", {"state": State.DONE, "raw": b"raw"}),
            ):
                rest += await answered([take(journal, record, step, **more), journal.result(1)])  # type: ignore[arg-type]  # the same
            journal.delivered(claim_of(record), record.key, State.DONE)  # type: ignore[arg-type]  # the same
        return [*first, *rest]
    finally:
        async with asyncio.timeout(SECONDS):
            await journal.close()
            await journal.close()


def bad(outcomes: list[object]) -> list[object]:
    return [each for each in outcomes if isinstance(each, BaseException) and not isinstance(each, JournalError)]


# An error between the opening of a connection and the next line leaves it to the garbage collector, as 3.13 tells.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.parametrize(("make", "step"), [(MemoryError, 11), (OSError, 17), (SystemExit, 19)])
async def test_error_anywhere_in_the_thread_leaves_nobody_waiting(
    tmp_path: Path, make: Callable[[], BaseException], step: int
) -> None:
    at = 0
    while True:
        at += step
        fault = Fault(at, make)
        with traced(fault):
            outcomes = await lived(tmp_path / f"{at}.db")
        assert not bad(outcomes), fault.where
        # An error in the very line that lets go of the file leaves that to the collector, as it does the connection.
        del outcomes
        gc.collect()
        # Whatever the thread left behind can be opened again in this process, and is whole.
        journal = await opened(tmp_path / f"{at}.db")
        assert (await journal.counts())[State.DONE] <= 1
        await journal.close()
        if not fault.where:
            break
    gc.collect()  # here, and not in the middle of another test
    assert at > 500  # it was in the middle of things


async def test_later_calls_fail_at_once_with_the_same_error(tmp_path: Path) -> None:
    journal = await opened(tmp_path / "run.db")
    record = await sent(journal)

    def stop(_: object) -> object:
        raise SystemExit

    with pytest.raises(JournalBroken, match="unexpected error") as first:
        await journal._do(stop)
    assert first.value.is_final
    for later in (queued(journal, "b"), take(journal, record, "accepted", job_id="id"), journal.counts()):
        with pytest.raises(JournalBroken) as caught:
            async with asyncio.timeout(SECONDS):
                await later
        assert caught.value.message == first.value.message
    await journal.close()


async def test_unexpected_error_of_one_step_spares_the_others(tmp_path: Path) -> None:
    journal = await SqliteJournal.open(tmp_path / "run.db", now=Clock(fails_at=3))
    outcomes = await answered([queued(journal, tag) for tag in ("a", "b", "c")])
    failed = [each for each in outcomes if isinstance(each, JournalBroken)]
    assert len(failed) <= 1
    assert not any(error.is_final for error in failed)
    assert not bad(outcomes)
    assert (await journal.counts())[State.QUEUED] == 3 - len(failed)
    await journal.close()


class Clock:
    """A wall clock that fails once."""

    def __init__(self, fails_at: int) -> None:
        self.asked = 0
        self.fails_at = fails_at

    def __call__(self) -> float:
        self.asked += 1
        if self.asked == self.fails_at:
            raise MemoryError
        return 1_000.0


async def test_thread_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    before = threading.stack_size(1 << 46)  # more than there is of addresses
    try:
        with pytest.raises(JournalBroken, match=r"none can be started.*Nothing was sent.*limit"):
            await opened(tmp_path / "run.db")
    finally:
        threading.stack_size(before)
    await (await opened(tmp_path / "run.db")).close()  # nothing is left of it


# --- an opening that is cancelled


async def cancelled_natively(opening: asyncio.Task[object], scope: anyio.CancelScope) -> None:
    opening.cancel()


async def cancelled_twice(opening: asyncio.Task[object], scope: anyio.CancelScope) -> None:
    opening.cancel()
    await asyncio.sleep(0)
    opening.cancel()


async def cancelled_by_scope(opening: asyncio.Task[object], scope: anyio.CancelScope) -> None:
    scope.cancel()


WAYS = [cancelled_natively, cancelled_twice, cancelled_by_scope]


class Stalled:
    """Asked for the account's fingerprint in the middle of the opening, it answers once it is let go."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, salt: bytes) -> str:
        self.is_asked.set()
        self.let_go.wait(SECONDS * 3)
        return "fingerprint"


@pytest.mark.parametrize("cancel", WAYS)
async def test_file_is_free_once_its_opening_was_cancelled(
    tmp_path: Path, cancel: Callable[[asyncio.Task[object], anyio.CancelScope], Awaitable[None]]
) -> None:
    path, stalled, scope = tmp_path / "run.db", Stalled(), anyio.CancelScope()

    async def open_it() -> object:
        with scope:
            return await opened(path, account=stalled)
        return None

    opening = asyncio.create_task(open_it())
    with anyio.fail_after(SECONDS):
        await asyncio.to_thread(stalled.is_asked.wait, SECONDS)
        await cancel(opening, scope)
        for _ in range(20):
            await asyncio.sleep(0)
        still_opening = not opening.done()
        stalled.let_go.set()
        await asyncio.wait([opening])
        assert still_opening
        assert opening.cancelled() == (cancel is not cancelled_by_scope)
        await (await opened(path)).close()


@pytest.mark.slow
async def test_cancelled_opening_at_a_stalled_disk_is_bounded(tmp_path: Path) -> None:
    path, stalled = tmp_path / "run.db", Stalled()
    try:
        with anyio.fail_after(SECONDS), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await opened(path, account=stalled)
        with pytest.raises(JournalLocked, match="in this process already"):
            await opened(path)
    finally:
        stalled.let_go.set()
