"""The one thread that has the writing connection: it carries out what is asked, many steps in one transaction.

Whatever waits in the queue becomes one transaction, so that hundreds of submissions share one sync of the disk; whoever
asked hears of it after the commit. A daemon thread of our own: the shared pools of a host app may be full, and a
process that ends must not wait for it (each transaction is complete in itself). This module knows nothing of what the
steps mean.
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
from aiopplx.journal._sqlite.errors import in_our_words, is_of_one_step
from aiopplx.journal._sqlite.opening import BUSY_MS, Opened
from aiopplx.journal._sqlite.writing import WritingStatements

T = TypeVar("T")

GROUP = 500
"""Steps in one transaction, at most."""
SOON = 0.05
"""Seconds for which a `delivered` waits for another step to ride with."""
COMPANY = 0.001
"""Seconds for which a step waits for others where many come: each transaction is a sync of the disk, two changes of
thread and a turn of the loop, whether it holds one step or fifty."""
MANY = 4
"""So many steps in the last transaction, and there will soon be more; fewer wait for nothing."""
IDLE = 1.0
"""Seconds without a step after which the log is written back into the file, and cut."""

Answer: TypeAlias = "asyncio.Future[Any]"
"""Of whatever the work returns; the queue holds work of many kinds."""


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
    """A thread, its queue, and in the thread the statements.

    Args:
        path: the journal's file, for what errors say.
        opening: opens it; called in the thread.
        statements_of: makes the statements over what was opened.
    """

    def __init__(
        self, path: str, opening: Callable[[], Opened], statements_of: Callable[[Opened], WritingStatements]
    ) -> None:
        self._path = path
        self._opening = opening
        self._statements_of = statements_of
        self._queue: queue.SimpleQueue[_Ask | _Delivered | _Close] = queue.SimpleQueue()
        self._waiting: list[_Item] = []  # only `delivered`: their company may come
        self._later: list[_Item] = []  # only `delivered`: they could not be written
        self._close: _Close | None = None
        self._final: JournalError | None = None
        self._dirty = False
        self._last_size = 0
        self.is_over = False

    # --- from outside ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the thread; return when the journal is open, or raise what kept it from being so."""
        opened: Answer = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._serve, args=(opened,), name="aiopplx-journal", daemon=True).start()
        try:
            await opened
        except asyncio.CancelledError:
            self.forget()
            raise

    def ask(self, work: Callable[[WritingStatements], T], *, writes: bool) -> asyncio.Future[T]:
        """Have this done, and committed if it writes. It is done even if nobody waits for the answer any more."""
        if self.is_over:
            raise closed(self._path)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Ask(work, answer, writes))
        return answer

    def delivered(self, pk: int) -> None:
        """Note that an outcome was handed out, with the next step or soon."""
        self._queue.put(_Delivered(pk))

    def close(self) -> asyncio.Future[None]:
        """Do all that was asked before, then close."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put(_Close(answer))
        return answer

    def forget(self) -> None:
        """Close, with nobody waiting for it."""
        self._queue.put(_Close(None))

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _serve(self, opened: Answer) -> None:
        # This frame holds the connection. A forked child has no such thread and never unwinds the frame: nothing there
        # closes the connection at its end, which would write back the parent's log and remove it.
        try:
            journal = self._opening()
            statements = self._statements_of(journal)
        except Exception as error:
            _tell([_Outcome(opened, error=error)])
            return
        _tell([_Outcome(opened)])
        try:
            while self._close is None:
                self._round(statements)
        finally:
            self._end(statements, journal)
            self.is_over = True
            if self._close is not None and self._close.answer is not None:
                _tell([_Outcome(self._close.answer)])
            self._refuse_the_rest()

    def _round(self, statements: WritingStatements) -> None:
        items = self._gather(statements)
        writes = [item for item in items if isinstance(item, _Delivered) or item.writes]
        if writes:
            _tell(self._write(statements, writes))
        for item in items:
            if isinstance(item, _Ask) and not item.writes:
                _tell([self._read(statements, item)])

    def _gather(self, statements: WritingStatements) -> list[_Item]:
        """The next group; empty if there is nothing to do yet. A lone `delivered` waits a moment for company."""
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
                self._tidy(statements)
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
            said: JournalError = in_our_words(error, self._path)
        except JournalError as error:
            said = error
        except Exception as error:  # a fault of ours; whoever waits must hear of it
            return _failed(items, error)
        self._later = [*late, *(item for item in items if isinstance(item, _Delivered))]
        return self._after_failure(statements, [item for item in items if isinstance(item, _Ask)], said)

    def _after_failure(self, statements: WritingStatements, asks: list[_Ask], said: JournalError) -> list[_Outcome]:
        """What did not go through together is tried one by one: a small step may fit where a large result does not."""
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
            said = in_our_words(error, self._path)
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
            return [_Outcome(item.answer, error=in_our_words(error, self._path))]
        except Exception as error:
            return [_Outcome(item.answer, error=error)]

    # --- the rest ----------------------------------------------------------------------------------------------------

    def _read(self, statements: WritingStatements, ask: _Ask) -> _Outcome:
        try:
            return _Outcome(ask.answer, ask.work(statements))
        except sqlite3.Error as error:
            said = in_our_words(error, self._path)
        except Exception as error:
            return _Outcome(ask.answer, error=error)
        self._note(said)
        return _Outcome(ask.answer, error=said)

    def _tidy(self, statements: WritingStatements) -> None:
        """Cut the log while nothing else is to do; a reader that is in its way is not waited for."""
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
            # Without the mark the next opening looks the file over.
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
                    _tell(_failed([item], closed(self._path)))
                elif isinstance(item, _Close) and item.answer is not None:
                    _tell([_Outcome(item.answer)])


def closed(path: str) -> JournalClosed:
    """The error for a step that comes too late."""
    return JournalClosed(f"the journal {path} is closed", path=path)


def _failed(items: Iterable[_Item], error: Exception) -> list[_Outcome]:
    """The same error for each who waits, as a copy: a traceback must not grow through another's."""
    return [_Outcome(item.answer, error=copy.copy(error)) for item in items if isinstance(item, _Ask)]


def _tell(outcomes: Iterable[_Outcome]) -> None:
    """Settle the futures, each on its own loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome.answer.get_loop(), []).append(outcome)
    for loop, its in by_loop.items():
        with contextlib.suppress(RuntimeError):  # that loop was closed: nobody waits there
            loop.call_soon_threadsafe(_settle, its)


def _settle(outcomes: Iterable[_Outcome]) -> None:
    for answer, value, error in outcomes:
        if answer.done():
            continue
        if error is None:
            answer.set_result(value)
        else:
            # Frames of the thread hold its connection; what they could tell is in the message.
            answer.set_exception(error.with_traceback(None) if isinstance(error, AiopplxError) else error)
