"""The journal in a SQLite file: the promises of `Journal` on a disk, for one process at a time, and its readers.

This module knows nothing of SQL (`_book`, `_rows`), of threads (`_writer`) or of what makes a file fit to be opened
(`_open`).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import types
import warnings
from collections.abc import Callable, Collection
from functools import partial
from typing import Self, TypeVar

from aiopplx.journal._protocol import (
    Claim,
    Cost,
    CostsBy,
    JournalClosed,
    JournalError,
    Ledger,
    Record,
    Results,
    State,
)
from aiopplx.journal._sqlite.book import Book
from aiopplx.journal._sqlite.errors import in_our_words
from aiopplx.journal._sqlite.opening import Opened, Wanted, open_to_read, open_to_write, writer_of
from aiopplx.journal._sqlite.rows import Rows
from aiopplx.journal._sqlite.writer import Writer, closed

T = TypeVar("T")


def _place(path: str | os.PathLike[str]) -> str:
    """The one name of a file, whatever links lead to it: two names would be two locks."""
    return os.path.realpath(path)


class SqliteJournal:
    """A `Journal` in one file. `await SqliteJournal.open(path, now=time.time)` makes it or opens it again.

    Beside the file lie `<path>-wal` and `<path>-shm`, which belong to it while it is open or after a crash, and
    `<path>.lock`. All are readable by their owner only, and hold no API key and no header; they do hold the questions.
    """

    def __init__(self, path: str, writer: Writer, results: Results) -> None:
        self.path = path
        self.results: Results = results
        self._writer = writer
        self._pid = os.getpid()
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        now: Callable[[], float],
        results: Results = "keep",
        base_url: str = "",
        account: Callable[[bytes], str] | None = None,
        same_account: bool = False,
    ) -> Self:
        """Open the journal, or make it where there is none. It has one writer at a time.

        Args:
            path: the file; its directory is made if need be.
            now: wall clock, seconds since 1970. It is only stored.
            results: what becomes of result bodies. May differ from one opening to the next.
            base_url: the server; a journal remembers its first and is refused for another. `""` asks nothing.
            account: gives the fingerprint of the API key, salted with the bytes it gets (`fingerprint`); a journal
                remembers its first and is refused for another. None asks nothing.
            same_account: the key is a new one of the same account: remember it instead.

        Raises:
            JournalLocked: it is open elsewhere; the error says where.
            JournalRefused: it is not opened; the error says why. The file is as it was.
            JournalFull, JournalBroken: the disk is full or fails.
        """
        place = _place(path)
        wanted = Wanted(base_url.rstrip("/"), account, same_account, now)

        def book_of(opened: Opened) -> Book:
            return Book(opened.connection, place, opened.epoch, results=results, now=now)

        writer = Writer(place, partial(open_to_write, place, wanted), book_of)
        await writer.start()
        return cls(place, writer, results)

    def __del__(self) -> None:
        if self._closing is None and self._pid == os.getpid():
            warnings.warn(f"the journal {self.path} was not closed", ResourceWarning, stacklevel=2)
            self._writer.forget()

    def _check(self) -> None:
        if self._closing is not None:
            raise closed(self.path)
        if self._pid != os.getpid():
            raise JournalClosed(
                f"the journal {self.path} was opened before this process was forked; open one after the fork",
                path=self.path,
            )

    def _do(self, work: Callable[[Book], T]) -> asyncio.Future[T]:
        self._check()
        return self._writer.ask(work, writes=True)

    def _see(self, work: Callable[[Book], T]) -> asyncio.Future[T]:
        self._check()
        return self._writer.ask(work, writes=False)

    # --- finding and queueing ----------------------------------------------------------------------------------------

    async def find_or_queue(
        self, item: str, *, tag: str | int | None, key: str, body: bytes, sha: bytes, api: str
    ) -> Record:
        """See `Journal`."""
        return await self._do(lambda book: book.find_or_queue(item, tag=tag, key=key, body=body, sha=sha, api=api))

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """See `Journal`."""
        return await self._do(lambda book: book.adopt(job_id, api=api, tag=tag))

    # --- steps -------------------------------------------------------------------------------------------------------

    async def sending(self, claim: Claim) -> None:
        """See `Journal`."""
        await self._do(lambda book: book.sending(claim))

    async def accepted(self, claim: Claim, job_id: str) -> None:
        """See `Journal`."""
        await self._do(lambda book: book.accepted(claim, job_id))

    async def ended(
        self,
        claim: Claim,
        state: State,
        *,
        job_id: str = "",
        word: str = "",
        raw: bytes = b"",
        error: str = "",
        cost: float | None = None,
    ) -> None:
        """See `Journal`."""
        await self._do(lambda book: book.ended(claim, state, job_id=job_id, word=word, raw=raw, error=error, cost=cost))

    def taken(self, claim: Claim) -> None:
        """See `Journal`."""
        if self._closing is None and self._pid == os.getpid():
            self._writer.taken(claim.pk)

    def unread(self, is_unread: bool) -> None:
        """See `Journal`."""
        if self._closing is None and self._pid == os.getpid() and not self._writer.is_over:
            # A disk that cannot take it is told of by the next step.
            self._do(lambda book: book.unread(is_unread)).add_done_callback(_passed_over)

    async def doubtful(self, claim: Claim, error: str) -> None:
        """See `Journal`."""
        await self._do(lambda book: book.doubtful(claim, error))

    async def back_to_queued(self, claim: Claim) -> None:
        """See `Journal`."""
        await self._do(lambda book: book.back_to_queued(claim))

    async def refreeze(self, claim: Claim, *, body: bytes, api: str) -> None:
        """See `Journal`."""
        await self._do(lambda book: book.refreeze(claim, body=body, api=api))

    async def requeue(self, claim: Claim, *, key: str, body: bytes, api: str) -> None:
        """See `Journal`."""
        await self._do(lambda book: book.requeue(claim, key=key, body=body, api=api))

    async def drop(self, claim: Claim) -> None:
        """See `Journal`."""
        await self._do(lambda book: book.drop(claim))

    # --- reading -----------------------------------------------------------------------------------------------------

    async def result(self, pk: int) -> bytes | None:
        """See `Journal`."""
        return await self._see(lambda book: book.result(pk))

    async def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """See `Journal`."""
        return await self._see(lambda book: book.get(pk=pk, item=item, job_id=job_id, key=key))

    async def rows(self, states: Collection[State], *, after: int = 0, limit: int = 500) -> list[Record]:
        """See `Journal`."""
        return await self._see(lambda book: book.rows(states, after=after, limit=limit))

    async def counts(self) -> dict[State, int]:
        """See `Journal`."""
        return await self._see(lambda book: book.counts())

    async def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """See `Journal`."""
        return await self._see(lambda book: book.costs(by))

    async def ledger(self, samples: int = 200) -> Ledger:
        """See `Journal`."""
        return await self._see(lambda book: book.ledger(samples))

    async def close(self) -> None:
        """See `Journal`. The file is then whole without its log, and free for the next process."""
        if self._pid != os.getpid():
            return
        if self._closing is None:
            self._closing = self._writer.close()
        # Shielded: whoever is cancelled here leaves the closing to itself, and the next caller may still wait for it.
        await asyncio.shield(self._closing)


def _passed_over(answer: asyncio.Future[None]) -> None:
    if not answer.cancelled():
        answer.exception()


class SqliteReader:
    """A journal file, for reading only, at any time: beside the writer, after a crash, from many processes.

    It takes no lock and changes nothing. `with SqliteReader("research.db") as journal: journal.counts()`. Its calls
    return at once, and are for one thread; what they see is what was committed at that moment.

    Args:
        path: the file.

    Raises:
        JournalRefused: it is not there, is no journal, or is of another version; the error says so.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _place(path)
        self._rows = Rows(open_to_read(self.path), self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._rows.connection.close()

    def _see(self, work: Callable[[Rows], T]) -> T:
        try:
            return work(self._rows)
        except sqlite3.Error as error:
            said: JournalError = in_our_words(error, self.path)
        raise said

    def counts(self) -> dict[State, int]:
        """How many records there are in each state; every state is named."""
        return self._see(lambda rows: rows.counts())

    def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """What was spent, dearest first."""
        return self._see(lambda rows: rows.costs(by))

    def ledger(self, samples: int = 200) -> Ledger:
        """Dollars spent, bills of unknown amount, and the latest known costs."""
        return self._see(lambda rows: rows.ledger(samples))

    def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """The record with this row number, name, id or key: of those given, the first. None if there is none."""
        return self._see(lambda rows: rows.get(pk=pk, item=item, job_id=job_id, key=key))

    def rows(self, states: Collection[State] = tuple(State), *, after: int = 0, limit: int = 500) -> list[Record]:
        """Records in one of these states whose `pk` is above `after`, lowest first: a page of at most `limit`."""
        return self._see(lambda rows: rows.rows(states, after=after, limit=limit))

    def result(self, pk: int) -> bytes | None:
        """The stored body of a row's outcome, as it came; None if there is none.

        Raises:
            ResultDamaged: there is one, and it cannot be read.
        """
        return self._see(lambda rows: rows.result(pk))

    def facts(self) -> dict[str, object]:
        """Of the file itself: `base_url`, `created` (seconds since 1970), `made_by` (version), `openings`, `clean`, and
        `unread`: the last source of questions was not read to its end, so that there may be more than is known here.
        """
        kept = dict(self._see(lambda rows: rows.connection.execute("SELECT k, v FROM meta").fetchall()))
        return {
            "base_url": kept.get("base_url", ""),
            "created": kept.get("created"),
            "made_by": kept.get("made_by", ""),
            "openings": kept.get("epoch", 0),
            "clean": kept.get("clean") == 1,
            "unread": kept.get("unread") == 1,
        }

    def writer(self) -> tuple[int, str] | None:
        """Process and host that have the journal open for writing, as they said; None if nobody seems to."""
        return writer_of(self.path)
