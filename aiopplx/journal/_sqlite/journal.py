"""The journal in a SQLite file: the promises of `Journal` on a disk, for one process at a time.

This module knows nothing of SQL (`writing`, `reading`), of threads (`writer`) or of what makes a file fit to be opened
(`opening`).
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable, Collection
from functools import partial
from typing import Self, TypeVar

from aiopplx.journal._errors import JournalClosed
from aiopplx.journal._records import Claim, Cost, CostsBy, Ledger, Record, Results, State
from aiopplx.journal._sqlite.opening import Opened, Wanted, open_to_write, place_of
from aiopplx.journal._sqlite.writer import Writer, closed
from aiopplx.journal._sqlite.writing import WritingStatements
from aiopplx.journal._steps import Step

T = TypeVar("T")


class SqliteJournal:
    """A `Journal` in one file. `await SqliteJournal.open(path, now=time.time)` makes it or opens it again.

    Beside the file lie `<path>-wal` and `<path>-shm`, which belong to it while it is open or after a crash, and
    `<path>.lock`. All are readable by their owner only, and hold no API key and no header; they do hold the questions.
    """

    remembers = True

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
            now: wall clock, seconds since 1970. The store's own: ages are told by it.
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
        place = place_of(path)
        wanted = Wanted(base_url.rstrip("/"), account, same_account, now)

        def statements_of(opened: Opened) -> WritingStatements:
            return WritingStatements(opened.connection, place, opened.epoch, results=results, now=now)

        writer = Writer(place, partial(open_to_write, place, wanted), statements_of)
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

    def _do(self, work: Callable[[WritingStatements], T]) -> asyncio.Future[T]:
        self._check()
        return self._writer.ask(work, writes=True)

    def _see(self, work: Callable[[WritingStatements], T]) -> asyncio.Future[T]:
        self._check()
        return self._writer.ask(work, writes=False)

    # --- finding and queueing ----------------------------------------------------------------------------------------

    async def find_or_queue(
        self, item: str, *, tag: str | int | None, key: str, body: bytes, sha: bytes, api: str
    ) -> Record:
        """See `Journal`."""
        return await self._do(
            lambda statements: statements.find_or_queue(item, tag=tag, key=key, body=body, sha=sha, api=api)
        )

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """See `Journal`."""
        return await self._do(lambda statements: statements.adopt(job_id, api=api, tag=tag))

    async def claim(self, pk: int) -> Record | None:
        """See `Journal`. The one session that has the file open holds every row."""
        return await self._do(lambda statements: statements.claim(pk))

    async def follow(self, pks: Collection[int], *, timeout: float) -> None:
        """See `Journal`. No other session holds anything, so there is nothing to wait for."""
        self._check()

    # --- steps -------------------------------------------------------------------------------------------------------

    async def apply(self, claim: Claim, step: Step) -> None:
        """See `Journal`."""
        await self._do(lambda statements: statements.apply(claim, step))

    def delivered(self, claim: Claim) -> None:
        """See `Journal`."""
        if self._closing is None and self._pid == os.getpid():
            self._writer.delivered(claim.pk)

    def exhausted(self, is_exhausted: bool) -> None:
        """See `Journal`."""
        if self._closing is None and self._pid == os.getpid() and not self._writer.is_over:
            # A disk that cannot take it is told of by the next step.
            self._do(lambda statements: statements.exhausted(is_exhausted)).add_done_callback(_passed_over)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def result(self, pk: int) -> bytes | None:
        """See `Journal`."""
        return await self._see(lambda statements: statements.result(pk))

    async def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """See `Journal`."""
        return await self._see(lambda statements: statements.get(pk=pk, item=item, job_id=job_id, key=key))

    async def rows(self, states: Collection[State], *, after: int = 0, limit: int = 500) -> list[Record]:
        """See `Journal`."""
        return await self._see(lambda statements: statements.rows(states, after=after, limit=limit))

    async def counts(self) -> dict[State, int]:
        """See `Journal`."""
        return await self._see(lambda statements: statements.counts())

    async def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """See `Journal`."""
        return await self._see(lambda statements: statements.costs(by))

    async def ledger(self, samples: int = 200) -> Ledger:
        """See `Journal`."""
        return await self._see(lambda statements: statements.ledger(samples))

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
