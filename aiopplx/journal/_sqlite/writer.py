"""The thread that owns the writing connection: it carries out requests, many steps in one transaction.

All steps that wait in the queue form one transaction, so that hundreds of submissions share one disk sync; their
callers are answered after the commit. It is a daemon thread of its own: a shared pool of the host application may be
full, and a process that ends must not wait for it (each transaction is complete in itself). This module does not know
what the steps mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aiopplx._errors import AiopplxError
from aiopplx.journal._errors import JournalBroken, JournalClosed, JournalError
from aiopplx.journal._sqlite.errors import is_of_one_step, journal_error
from aiopplx.journal._sqlite.opening import BUSY_MS, Opened
from aiopplx.journal._sqlite.writing import WritingStatements

T = TypeVar("T")

GROUP = 500
"""Steps in one transaction, at most."""
SOON = 0.05
"""Seconds for which a `delivered` waits for another step whose transaction it can share."""
COMPANY = 0.001
"""Seconds for which a step waits for others when there are many: each transaction costs a disk sync, two switches of
thread and a turn of the loop, whether it holds one step or fifty."""
MANY = 4
"""With this many steps in the last transaction, more are expected soon; with fewer, a step does not wait."""
IDLE = 1.0
"""Seconds without a step after which the log is written back into the file and truncated."""

Answer: TypeAlias = "asyncio.Future[Any]"
"""The future of any kind of work: the queue holds many kinds."""


class _Ask(NamedTuple):
    work: Callable[[WritingStatements], object]
    answer: Answer
    writes: bool


class _Delivered(NamedTuple):
    pk: int


class _Close(NamedTuple):
    answer: Answer | None


class _Outcome(NamedTuple):
    answer: Answer
    value: object = None
    error: Exception | None = None


_Item: TypeAlias = "_Ask | _Delivered"


class Writer:
    """A thread, its queue, and the statements that it runs.

    Args:
        path: the journal's file, for error messages.
        opening: opens it; called in the thread.
        statements_of: makes the statements for the opened journal.
    """

    def __init__(
        self, path: str, opening: Callable[[], Opened], statements_of: Callable[[Opened], WritingStatements]
    ) -> None:
        self._path = path
        self._opening = opening
        self._statements_of = statements_of
        self._queue: queue.SimpleQueue[_Ask | _Delivered | _Close] = queue.SimpleQueue()
        self._waiting: list[_Item] = []  # only `delivered`: other steps may still come
        self._later: list[_Item] = []  # only `delivered`: they could not be written
        self._close: _Close | None = None
        self._final: JournalError | None = None
        self._dirty = False
        self._last_size = 0
        self.is_over = False

    # --- for callers -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the thread; return when the journal is open, or raise the error that prevented it."""
        opened: Answer = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._serve, args=(opened,), name="aiopplx-journal", daemon=True).start()
        try:
            await opened
        except asyncio.CancelledError:
            self.close_soon()
            raise

    def ask(self, work: Callable[[WritingStatements], T], *, writes: bool) -> asyncio.Future[T]:
        """Run this work, and commit it if it writes. It is done even if the caller no longer waits."""
        if self.is_over:
            raise closed(self._path)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Ask(work, answer, writes))
        return answer

    def delivered(self, pk: int) -> None:
        """Record that an outcome was delivered, with the next step or soon."""
        self._queue.put(_Delivered(pk))

    def close(self) -> asyncio.Future[None]:
        """Finish all earlier work, then close."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put(_Close(answer))
        return answer

    def close_soon(self) -> None:
        """Close without waiting."""
        self._queue.put(_Close(None))

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _serve(self, opened: Answer) -> None:
        # Only this frame holds the connection. A forked child has no such thread and never unwinds the frame, so it
        # never closes the connection at its end, which would write back and remove the parent's log.
        try:
            journal = self._opening()
            statements = self._statements_of(journal)
        except Exception as error:
            _resolve([_Outcome(opened, error=error)])
            return
        _resolve([_Outcome(opened)])
        try:
            while self._close is None:
                self._round(statements)
        finally:
            self._end(statements, journal)
            self.is_over = True
            if self._close is not None and self._close.answer is not None:
                _resolve([_Outcome(self._close.answer)])
            self._refuse_the_rest()

    def _round(self, statements: WritingStatements) -> None:
        items = self._gather(statements)
        writes = [item for item in items if isinstance(item, _Delivered) or item.writes]
        if writes:
            _resolve(self._write(statements, writes))
        for item in items:
            if isinstance(item, _Ask) and not item.writes:
                _resolve([self._read(statements, item)])

    def _gather(self, statements: WritingStatements) -> list[_Item]:
        """The next group; empty if there is nothing to do yet. A single `delivered` waits a moment for other steps."""
        waited, self._waiting = self._waiting, []
        items = waited.copy()
        try:
            first = self._queue.get(timeout=SOON if waited else IDLE if self._dirty else None)
            if self._last_size >= MANY and isinstance(first, _Ask) and first.writes:
                time.sleep(COMPANY)
            self._add(items, first)
            while len(items) < GROUP and self._close is None:
                self._add(items, self._queue.get_nowait())
        except queue.Empty:
            if not items:
                self._truncate_log(statements)
        if not waited and self._close is None and all(isinstance(item, _Delivered) for item in items):
            self._waiting, items = items, []
        return items

    def _add(self, items: list[_Item], item: _Ask | _Delivered | _Close) -> None:
        if isinstance(item, _Close):
            self._close = item
        else:
            items.append(item)

    # --- writing -----------------------------------------------------------------------------------------------------

    def _write(self, statements: WritingStatements, items: list[_Item]) -> list[_Outcome]:
        if self._final is not None:
            return _failed(items, self._final)
        late, self._later = self._later, []
        try:
            return self._transaction(statements, [*late, *items])
        except sqlite3.Error as error:
            said: JournalError = journal_error(error, self._path)
        except JournalError as error:
            said = error
        except Exception as error:  # a bug of ours; the callers that wait must get it
            return _failed(items, error)
        self._later = [*late, *(item for item in items if isinstance(item, _Delivered))]
        return self._after_failure(statements, [item for item in items if isinstance(item, _Ask)], said)

    def _after_failure(self, statements: WritingStatements, asks: list[_Ask], said: JournalError) -> list[_Outcome]:
        """Steps that failed together are tried one by one: a small step may fit where a large result does not."""
        self._note(said)
        if self._final is not None or len(asks) < 2:
            return _failed(asks, said)
        return [outcome for ask in asks for outcome in self._alone(statements, ask)]

    def _alone(self, statements: WritingStatements, ask: _Ask) -> list[_Outcome]:
        if self._final is not None:
            return _failed([ask], self._final)
        try:
            return self._transaction(statements, [ask])
        except sqlite3.Error as error:
            said = journal_error(error, self._path)
        self._note(said)
        return _failed([ask], said)

    def _note(self, said: JournalError) -> None:
        if isinstance(said, JournalBroken) and said.is_final:
            self._final = said

    def _transaction(self, statements: WritingStatements, items: list[_Item]) -> list[_Outcome]:
        connection = statements.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            statements.check_fence()
            outcomes = [outcome for item in items for outcome in self._step(statements, item)]
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        self._dirty = True
        self._last_size = len(items)
        return outcomes

    def _step(self, statements: WritingStatements, item: _Item) -> list[_Outcome]:
        if isinstance(item, _Delivered):
            statements.delivered(item.pk)
            return []
        try:
            return [_Outcome(item.answer, item.work(statements))]
        except sqlite3.Error as error:
            if not is_of_one_step(error):
                raise
            return [_Outcome(item.answer, error=journal_error(error, self._path))]
        except Exception as error:
            return [_Outcome(item.answer, error=error)]

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def _read(self, statements: WritingStatements, ask: _Ask) -> _Outcome:
        try:
            return _Outcome(ask.answer, ask.work(statements))
        except sqlite3.Error as error:
            said = journal_error(error, self._path)
        except Exception as error:
            return _Outcome(ask.answer, error=error)
        self._note(said)
        return _Outcome(ask.answer, error=said)

    def _truncate_log(self, statements: WritingStatements) -> None:
        """Truncate the log while idle; it does not wait for a reader that prevents this."""
        self._dirty = False
        with contextlib.suppress(sqlite3.Error):
            statements.connection.execute("PRAGMA busy_timeout=0")
            statements.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with contextlib.suppress(sqlite3.Error):
            statements.connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")

    def _end(self, statements: WritingStatements, journal: Opened) -> None:
        if self._later:
            self._write(statements, [])
        with contextlib.suppress(sqlite3.Error):
            # Without the mark the next opening checks the file.
            if self._final is None and not self._later:
                statements.mark_clean()
        with contextlib.suppress(sqlite3.Error):
            journal.connection.close()
        journal.lock.release()

    def _refuse_the_rest(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if isinstance(item, _Ask):
                    _resolve(_failed([item], closed(self._path)))
                elif isinstance(item, _Close) and item.answer is not None:
                    _resolve([_Outcome(item.answer)])


def closed(path: str) -> JournalClosed:
    """The error for a step after closing."""
    return JournalClosed(f"the journal {path} is closed", path=path)


def _failed(items: Iterable[_Item], error: Exception) -> list[_Outcome]:
    """A copy of the error for each caller that waits, so that tracebacks do not accumulate on one object."""
    return [_Outcome(item.answer, error=copy.copy(error)) for item in items if isinstance(item, _Ask)]


def _resolve(outcomes: Iterable[_Outcome]) -> None:
    """Resolve the futures, each on its own loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome.answer.get_loop(), []).append(outcome)
    for loop, its in by_loop.items():
        with contextlib.suppress(RuntimeError):  # that loop is closed: nothing waits there
            loop.call_soon_threadsafe(_settle, its)


def _settle(outcomes: Iterable[_Outcome]) -> None:
    for answer, value, error in outcomes:
        if answer.done():
            continue
        if error is None:
            answer.set_result(value)
        else:
            # Frames of the thread hold its connection, so the traceback is dropped; the message has the facts.
            answer.set_exception(error.with_traceback(None) if isinstance(error, AiopplxError) else error)
