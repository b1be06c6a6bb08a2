"""The journal in a SQLite file: the promises of `Journal` on a disk, for one process at a time.

This module knows nothing of SQL (`writing`, `reading`), of threads (`writer`) or of the checks on opening a file
(`opening`).
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable, Collection
from functools import partial
from typing import Self, TypeVar

from aiopplx._checks.path import check_path
from aiopplx.journal._errors import JournalClosed
from aiopplx.journal._records import Claim, Cost, CostsBy, Ledger, Origin, Record, Results, State
from aiopplx.journal._sqlite.opening import Opened, Wanted, open_to_write, place_of
from aiopplx.journal._sqlite.writer import What, Writer, closed
from aiopplx.journal._sqlite.writing import WritingStatements
from aiopplx.journal._steps import Step

OF_THE_STORE: What = ("", "", "")
"""What is written of no submission, or changes nothing of one."""

T = TypeVar("T")


class SqliteJournal:
    """A `Journal` in one file. `await SqliteJournal.open(path, now=time.time)` creates or opens it.

    Next to the file are `<path>-wal` and `<path>-shm`, which belong to it while it is open or after a crash, and
    `<path>.lock`. All are readable by their owner only, and contain no API key and no header; they do contain the
    questions.

    Attributes:
        path: of the file.
        results: how long result bodies are kept.
    """

    remembers = True
    shares = False

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
        without_log: bool = False,
        replace: bool = False,
    ) -> Self:
        """Open the journal, or create it. It has one writer at a time.

        Args:
            path: the file; its directory is created if necessary.
            now: the store's wall clock, seconds since 1970. Ages are measured by it.
            results: how long result bodies are kept. May differ from one opening to the next.
            base_url: the server; a journal keeps its first one and is refused for another. `""` skips the check.
            account: a function from a salt to the fingerprint of the API key (`fingerprint`); a journal keeps its first
                one and is refused for another. None skips the check.
            same_account: the key is a new one of the same account: keep its fingerprint instead.
            without_log: go on though the log that the last run left is lost: jobs known only there may be paid again.
            replace: another question under a known tag takes the place of one that has ended, and is paid again.

        Raises:
            ConfigError: this is no path of a file.
            JournalLocked: it is open elsewhere; the error says where.
            JournalRefused: it was not opened; the error says why. The file is unchanged.
            JournalFull, JournalBroken: the disk is full or failing.
        """
        place = place_of(check_path("path", path))
        wanted = Wanted(base_url.rstrip("/"), account, same_account, without_log, now)

        def statements_of(opened: Opened) -> WritingStatements:
            return WritingStatements(opened.connection, place, opened.epoch, results=results, replace=replace, now=now)

        writer = Writer(place, partial(open_to_write, place, wanted), statements_of)
        await writer.start()
        return cls(place, writer, results)

    def __del__(self) -> None:
        if self._closing is None and self._pid == os.getpid():
            warnings.warn(f"the journal {self.path} was not closed", ResourceWarning, stacklevel=2)
            self._writer.close_soon()

    def _check(self) -> None:
        if self._closing is not None:
            raise closed(self.path)
        if self._pid != os.getpid():
            raise JournalClosed(
                f"the journal {self.path} was opened before this process was forked; open one after the fork",
                path=self.path,
            )

    def _do(self, work: Callable[[WritingStatements], T], what: What = OF_THE_STORE) -> asyncio.Future[T]:
        self._check()
        return self._writer.ask(work, what)

    def _see(self, work: Callable[[WritingStatements], T]) -> asyncio.Future[T]:
        self._check()
        return self._writer.ask(work)

    # --- finding and queueing ----------------------------------------------------------------------------------------

    async def find_or_queue(
        self,
        item: str,
        *,
        tag: str | int | None,
        key: str,
        body: bytes,
        sha: bytes,
        api: str,
        origin: Origin | None = None,
    ) -> Record:
        """See `Journal`."""
        return await self._do(
            lambda statements: statements.find_or_queue(
                item, tag=tag, key=key, body=body, sha=sha, api=api, origin=origin
            ),
            ("queued", key, ""),
        )

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """See `Journal`."""
        return await self._do(lambda statements: statements.adopt(job_id, api=api, tag=tag), ("adopted", "", job_id))

    async def claim(self, pk: int) -> Record | None:
        """See `Journal`. The one session that has the file open holds every row."""
        return await self._do(lambda statements: statements.claim(pk))

    async def free(self, limit: int, *, but: Collection[int] = ()) -> list[Record]:
        """See `Journal`. The one session that has the file open holds every row, so there are none."""
        self._check()
        return []

    async def held(self, but: Collection[int]) -> list[Claim]:
        """See `Journal`."""
        self._check()
        return []

    async def alike(self, sha: bytes, *, api: str, item: str, beginning: str) -> list[Record]:
        """See `Journal`."""
        return await self._do(lambda statements: statements.alike(sha, api, item, beginning))

    async def release(self, claim: Claim) -> None:
        """See `Journal`. The one session that has the file open holds every row, so nothing changes."""
        self._check()

    async def forget(self, seconds: float, *, limit: int = 500) -> int:
        """See `Journal`."""
        return 0

    def may_intend(self) -> bool:
        """See `Journal`. Nobody else can take a row that is held."""
        return True

    async def follow(self, pks: Collection[int], *, timeout: float) -> None:
        """See `Journal`. No other session holds a row, so this returns at once."""
        self._check()

    # --- steps -------------------------------------------------------------------------------------------------------

    async def apply(self, claim: Claim, step: Step) -> None:
        """See `Journal`."""
        await self._do(lambda statements: statements.apply(claim, step), (step.rule.name, step.key, step.job_id))

    def delivered(self, claim: Claim, key: str, state: State) -> None:
        """See `Journal`."""
        if self._closing is None and self._pid == os.getpid():
            self._writer.delivered(claim.pk, key, state)

    def exhausted(self, is_exhausted: bool) -> None:
        """See `Journal`."""
        if self._closing is None and self._pid == os.getpid():
            # If the disk cannot store it, the next step reports that.
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

    async def recall(self, name: str) -> bytes | None:
        """See `Journal`."""
        return await self._see(lambda statements: statements.recall(name))

    async def remember(self, name: str, value: bytes) -> None:
        """See `Journal`."""
        await self._do(lambda statements: statements.remember(name, value))

    async def close(self) -> None:
        """See `Journal`. The file is then complete without its log, and free for the next process."""
        if self._pid != os.getpid():
            return
        if self._closing is None:
            self._closing = self._writer.close()
        # Shielded: if this caller is cancelled, closing continues, and another caller can still wait for it.
        await asyncio.shield(self._closing)

    def abandon(self) -> list[What]:
        """Wait for the disk no longer: whoever does gets `JournalClosed`.

        Returns the steps that were not answered. All of them are still written, and the file closed and free, once the
        disk answers, if the process lives then.
        """
        error = JournalClosed(
            f"the journal {self.path} has not answered, and its session was left. What it was asked to write may be"
            " written or not: begin again with the same journal",
            path=self.path,
        )
        return [what for what in self._writer.abandon(error) if what is not OF_THE_STORE]


def _passed_over(answer: asyncio.Future[None]) -> None:
    if not answer.cancelled():
        answer.exception()
