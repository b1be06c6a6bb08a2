"""The thread that owns the writing connection: it carries out requests, many steps in one transaction.

All steps that wait in the queue form one transaction, so that hundreds of submissions share one disk sync; their
callers are answered after the commit. It is a daemon thread of its own: a shared pool of the host application may be
full, and a process that ends must not wait for it (each transaction is complete in itself, so that what was answered is
on disk, and what was not is as if it had never been asked).

A disk may stall, and the thread with it, for as long as it likes. Those who wait may stop waiting (`abandon`); the
thread goes on. When the disk comes back it writes all that it was given, in order, closes the file and lets go of its
lock, which nobody else can have had meanwhile. This module does not know what the steps mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aiopplx._errors import AiopplxError
from aiopplx._waiting import until_done
from aiopplx.journal._errors import JournalBroken, JournalClosed, JournalError
from aiopplx.journal._records import State
from aiopplx.journal._sqlite.errors import is_of_one_step, journal_error, no_thread, unexpected
from aiopplx.journal._sqlite.files import FEW, Files
from aiopplx.journal._sqlite.log import checkpoint
from aiopplx.journal._sqlite.opening import Opened
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
"""Seconds without a step after which a log of some size is written back into the file."""
GIVING_UP = 3.0
"""Real seconds for which a cancelled opening waits until its thread has let go of the file. Where a disk stalls for
longer, the file stays locked until the disk comes back."""
LOG = 4000
"""Pages of log (16 MB) at which it is written back into the file, each page once for about twenty changes."""

Answer: TypeAlias = "asyncio.Future[Any]"
"""The future of any kind of work: the queue holds many kinds."""


What: TypeAlias = "tuple[str, str, str]"
"""What is written: the name of a step, and the key and the id of its submission, `""` where there is none."""


class _Ask(NamedTuple):
    work: Callable[[WritingStatements], object]
    answer: Answer
    writes: bool


class _Delivered(NamedTuple):
    pk: int
    key: str
    state: State


class _Close(NamedTuple):
    """The journal is to be closed: all who wait for that are answered at the end."""


_CLOSE = _Close()


_Outcome: TypeAlias = "tuple[Answer, object, Exception | None]"
"""The answer, and its value or its error. A plain tuple: there is one for each step."""

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
        self._unanswered: dict[Answer, What | _Close | None] = {}  # what for: None is to read
        self._close: _Close | None = None
        self._final: JournalError | None = None
        self._log = 0
        self._last_size = 0
        self.has_stopped: bool = False

    # --- for callers -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the thread; return when the journal is open, or raise the error that prevented it."""
        opened = self._new_answer()
        try:
            threading.Thread(target=self._live, args=(opened,), name="aiopplx-journal", daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            raise no_thread(self._path, error) from None
        try:
            await opened
        except asyncio.CancelledError:
            # Whoever was cancelled may open the file again at once.
            await until_done([self.close()], GIVING_UP)
            raise

    def ask(self, work: Callable[[WritingStatements], T], writes: What | None = None) -> asyncio.Future[T]:
        """Run this work, and commit it if it `writes` a step. It is done even if the caller no longer waits."""
        answer = self._new_answer(writes)
        self._queue.put(_Ask(work, answer, writes is not None))
        if self.has_stopped:  # asked last: whoever comes while the thread ends is answered by the one or the other
            self._answer_the_rest()
        return answer

    def _new_answer(self, what: What | _Close | None = None) -> Answer:
        answer: Answer = asyncio.get_running_loop().create_future()
        self._unanswered[answer] = what
        return answer

    def delivered(self, pk: int, key: str, state: State) -> None:
        """Record that an outcome was delivered, with the next step or soon."""
        self._queue.put(_Delivered(pk, key, state))

    def close(self) -> asyncio.Future[None]:
        """Finish all earlier work, then close."""
        answer = self._new_answer(_CLOSE)
        self._queue.put(_CLOSE)
        if self.has_stopped:
            self._answer_the_rest()
        return answer

    def close_soon(self) -> None:
        """Close without waiting."""
        self._queue.put(_CLOSE)

    def abandon(self, error: JournalError) -> list[What]:
        """Whoever waits on this loop gets this error now. The thread goes on with what it was given.

        Returns the steps that are not known to be written, in the order in which they were asked for.
        """
        loop = asyncio.get_running_loop()
        unwritten: list[What] = []
        for answer, what in list(self._unanswered.items()):
            if isinstance(what, _Close):
                continue
            if what is not None:
                unwritten.append(what)
            if answer.get_loop() is loop and not answer.done():
                answer.set_exception(copy.copy(error))
                answer.exception()  # whether anybody fetches it or not
        return unwritten

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _live(self, opened: Answer) -> None:
        """The whole life of the thread. Whatever ends it, nobody waits for an answer that will not come."""
        try:
            self._serve(opened)
        except BaseException as error:
            self._final = self._final or unexpected(self._path, error)
        try:
            self._answer_the_rest()
        except BaseException:
            self._answer_the_rest()

    def _serve(self, opened: Answer) -> None:
        # Only this frame holds the connection. A forked child has no such thread and never unwinds the frame, so it
        # never closes the connection at its end, which would write back and remove the parent's log.
        try:
            journal = self._opening()
        except AiopplxError as error:
            self._resolve([(opened, None, error)])
            return
        try:
            statements = self._statements_of(journal)
            self._resolve([(opened, None, None)])
            while self._close is None:
                self._round(statements, journal.files)
            self._end(statements, journal.files)
        finally:
            journal.close()

    def _round(self, statements: WritingStatements, files: Files) -> None:
        items = self._gather(statements, files)
        reads = [item for item in items if isinstance(item, _Ask) and not item.writes]
        writes = items if not reads else [item for item in items if isinstance(item, _Delivered) or item.writes]
        if writes:
            self._resolve(self._write(statements, files, writes))
            if self._log >= LOG:
                self._write_back(statements, files)
        for ask in reads:
            self._resolve([self._read(statements, ask)])

    def _gather(self, statements: WritingStatements, files: Files) -> list[_Item]:
        """The next group; empty if there is nothing to do yet. A single `delivered` waits a moment for other steps."""
        waited, self._waiting = self._waiting, []
        items = waited.copy()
        try:
            item = self._queue.get(timeout=SOON if waited else IDLE if self._log >= FEW else None)
            if self._last_size >= MANY and isinstance(item, _Ask) and item.writes:
                time.sleep(COMPANY)
            more = self._queue.get_nowait
            while not isinstance(item, _Close):
                items.append(item)
                if len(items) >= GROUP:
                    break
                item = more()
            else:
                self._close = item
        except queue.Empty:
            if not items:
                self._write_back(statements, files)
        if not waited and self._close is None and all(isinstance(item, _Delivered) for item in items):
            self._waiting, items = items, []
        return items

    # --- writing -----------------------------------------------------------------------------------------------------

    def _write(self, statements: WritingStatements, files: Files, items: list[_Item]) -> list[_Outcome]:
        late, self._later = self._later, []
        try:
            return self._transaction(statements, files, [*late, *items])
        except JournalError as error:
            said = error
        self._later = [*late, *(item for item in items if isinstance(item, _Delivered))]
        asks = [item for item in items if isinstance(item, _Ask)]
        if self._final is not None or len(asks) < 2:
            return _failed(asks, said)
        # What failed together is tried one by one: a small step may fit where a large result does not.
        return [outcome for ask in asks for outcome in self._alone(statements, files, ask)]

    def _alone(self, statements: WritingStatements, files: Files, ask: _Ask) -> list[_Outcome]:
        try:
            return self._transaction(statements, files, [ask])
        except JournalError as error:
            return _failed([ask], error)

    def _note(self, said: JournalError) -> None:
        if isinstance(said, JournalBroken) and said.is_final:
            self._final = said

    def _transaction(self, statements: WritingStatements, files: Files, items: list[_Item]) -> list[_Outcome]:
        """All these items, on disk. Raises `JournalError`: then none of them is."""
        if self._final is not None:
            raise self._final
        connection = statements.connection
        try:
            files.check()
            outcomes: list[_Outcome] = []
            connection.execute("BEGIN IMMEDIATE")
            try:
                statements.begin()
                for item in items:
                    if isinstance(item, _Ask):
                        outcomes.append(self._step(statements, item))
                    else:
                        statements.delivered(*item)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise
        except Exception as error:
            said = self._said(error)
            self._note(said)
            raise said from None
        self._last_size = len(items)
        self._log = files.frames()
        return outcomes

    def _said(self, error: Exception) -> JournalError:
        if isinstance(error, sqlite3.Error):
            return journal_error(error, self._path)
        return error if isinstance(error, JournalError) else unexpected(self._path, error, is_final=False)

    def _step(self, statements: WritingStatements, ask: _Ask) -> _Outcome:
        try:
            return ask.answer, ask.work(statements), None
        except sqlite3.Error as error:
            if not is_of_one_step(error):
                raise
            return ask.answer, None, journal_error(error, self._path)
        except AiopplxError as error:
            return ask.answer, None, error

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def _read(self, statements: WritingStatements, ask: _Ask) -> _Outcome:
        try:
            return ask.answer, ask.work(statements), None
        except AiopplxError as error:
            return ask.answer, None, error
        except Exception as error:
            said = self._said(error)
        self._note(said)
        return ask.answer, None, said

    def _write_back(self, statements: WritingStatements, files: Files) -> None:
        """Write the log back into the file; this does not wait for a reader that prevents it."""
        self._log = 0
        with contextlib.suppress(sqlite3.Error, JournalError):
            files.check()
            checkpoint(statements.connection, "PASSIVE")

    def _end(self, statements: WritingStatements, files: Files) -> None:
        if self._later:
            self._write(statements, files, [])
        # Without the mark the next opening checks the file.
        if self._final is None and not self._later:
            with contextlib.suppress(sqlite3.Error):
                statements.mark_clean()

    # --- answering ---------------------------------------------------------------------------------------------------

    def _answer_the_rest(self) -> None:
        """Answer whoever still waits, and from now on whoever asks."""
        self.has_stopped = True
        error = self._final or closed(self._path)
        # The error is copied for each caller, so that tracebacks do not accumulate on one object.
        self._resolve([
            (answer, None, None if isinstance(what, _Close) else copy.copy(error))
            for answer, what in list(self._unanswered.items())
        ])

    def _resolve(self, outcomes: Sequence[_Outcome]) -> None:
        """Resolve the futures, each on its own loop: nearly always there is one."""
        for loop in {answer.get_loop() for answer, _, _ in outcomes}:
            its = [outcome for outcome in outcomes if outcome[0].get_loop() is loop]
            with contextlib.suppress(RuntimeError):  # that loop is closed: nothing waits there
                loop.call_soon_threadsafe(self._settle, its)

    def _settle(self, outcomes: Iterable[_Outcome]) -> None:
        for answer, value, error in outcomes:
            self._unanswered.pop(answer, None)
            if answer.done():
                continue
            if error is None:
                answer.set_result(value)
            else:
                # Frames of the thread hold its connection, so the traceback is dropped; the message has the facts.
                answer.set_exception(error.with_traceback(None) if isinstance(error, AiopplxError) else error)


def closed(path: str) -> JournalClosed:
    """The error for a step after closing."""
    return JournalClosed(f"the journal {path} is closed", path=path)


def _failed(items: Iterable[_Item], error: Exception) -> list[_Outcome]:
    """A copy of the error for each caller that waits, so that tracebacks do not accumulate on one object."""
    return [(item.answer, None, copy.copy(error)) for item in items if isinstance(item, _Ask)]
