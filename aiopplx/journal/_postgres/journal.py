"""The journal on PostgreSQL: the promises of `Journal` for many sessions, processes and machines.

This module knows nothing of SQL (`statements`), of leases (`holding`) or of the checks on opening (`opening`). It keeps
the order of the calls, and carries them out though their callers have gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Self, TypeAlias, TypeVar

from aiopplx.journal._errors import JournalClosed, JournalError
from aiopplx.journal._postgres import statements as sql
from aiopplx.journal._postgres.hearing import Hearing
from aiopplx.journal._postgres.holding import Held, end
from aiopplx.journal._postgres.lease import Timing
from aiopplx.journal._postgres.money import Money
from aiopplx.journal._postgres.opening import Wanted, connect, open_to_write
from aiopplx.journal._postgres.reading import Reading
from aiopplx.journal._postgres.room import Database
from aiopplx.journal._postgres.url import Address, address_of, hidden
from aiopplx.journal._postgres.wake import Wake
from aiopplx.journal._postgres.writing import Writing
from aiopplx.journal._records import Claim, Cost, CostsBy, Ledger, Origin, Record, Results, Room, State
from aiopplx.journal._steps import Step

T = TypeVar("T")

What: TypeAlias = tuple[str, str, str]
"""What a call writes of a submission: the name of the step, the key and the id."""


class PostgresJournal:
    """A `Journal` on PostgreSQL. `await PostgresJournal.open("postgresql://user@host/db")` makes or opens it.

    Any number of sessions, of any number of processes and machines, may have it open. Each holds the rows that it has
    claimed as long as it beats; a session that is dead loses them after a lease.

    Whoever can read the schema can read the questions and the results. It has no API key and no header.

    Attributes:
        path: the URL without its password.
        results: how long result bodies are kept.
        database: its connections, at most three.
        hearing: what is heard from it.
        wake: tells and hears of changes.
    """

    remembers = True
    shares = True

    def __init__(
        self, address: Address, held: Held, wake: Wake, *, results: Results, replace: bool, timing: Timing
    ) -> None:
        self.path: str = address.name
        self.results: Results = results
        self.database: Database = held.database
        self.hearing: Hearing = wake.hearing
        self.wake: Wake = wake
        self._held = held
        self._reading = Reading(held, address.name)
        self._writing = Writing(
            held, address.name, results=results, replace=replace, changed=lambda pk: wake.changed((pk,))
        )
        self._money = Money(held, address.name)
        self._timing = timing
        self._pid = os.getpid()
        self._latest: dict[object, asyncio.Task[Any]] = {}
        self._pending: dict[asyncio.Task[Any], What | None] = {}
        self._cut: list[What] = []
        self._delivered: dict[int, tuple[str, State]] = {}  # rows, and which outcome it was, of which key
        self._delivering: asyncio.Task[None] | None = None
        self._one_delivers = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        results: Results = "keep",
        base_url: str = "",
        account: Callable[[bytes], str] | None = None,
        same_account: bool = False,
        replace: bool = False,
        now: Callable[[], float] | None = None,
        timing: Timing | None = None,
    ) -> Self:
        """Open the journal, or make it.

        Args:
            url: `postgresql://user@host/database?schema=aiopplx`.
            results: how long result bodies are kept. All sessions that are open at one time must agree.
            base_url: the server; a journal keeps its first one and is refused for another. `""` skips the check.
            account: a function from a salt to the fingerprint of the API key (`fingerprint`); a journal keeps its first
                one and is refused for another. None skips the check.
            same_account: the key is a new one of the same account: keep its fingerprint instead.
            replace: another question under a known tag takes the place of one that has ended, and is paid again.
            now: moments in place of the database's clock, for tests.
            timing: lease and beat.

        Raises:
            ConfigError: that is no such URL.
            JournalAway: the server cannot be reached.
            JournalRefused: the journal was not opened; the error says why. It is unchanged.
        """
        url = hidden(url)  # what follows may raise, and a traceback shows the variables of this frame
        address = address_of(url)
        timing = timing or Timing()
        database, hearing = await connect(address)
        try:
            held = Held(database, address.schema, clock=now, timing=timing)
            await open_to_write(held, address.name, Wanted(base_url.rstrip("/"), account, same_account, results))
            database.opened()
        except BaseException:
            await database.close()
            raise
        wake = Wake(held, hearing, timing)
        held.on_freed = wake.freed
        return cls(address, held, wake, results=results, replace=replace, timing=timing)

    def __del__(self) -> None:
        if self._closing is None and self._pid == os.getpid():
            warnings.warn(f"the journal {self.path} was not closed", ResourceWarning, stacklevel=2)

    def _check(self) -> None:
        if self._closing is not None:
            raise JournalClosed(f"the journal {self.path} is closed", path=self.path)
        if self._pid != os.getpid():
            raise JournalClosed(
                f"the journal {self.path} was opened before this process was forked; open one after the fork",
                path=self.path,
            )

    # --- the order of calls ------------------------------------------------------------------------------------------

    def _start(
        self, work: Callable[[], Coroutine[Any, Any, T]], after: object, what: What | None = None
    ) -> asyncio.Task[T]:
        """Carry this out, whether or not anybody waits for it, after the calls before it with the same name."""
        self._check()
        before = self._latest.get(after) if after is not None else None
        task = asyncio.ensure_future(_in_turn(before, work))
        self._pending[task] = what
        if after is not None:
            self._latest[after] = task

        def done(task: asyncio.Task[T]) -> None:
            self._pending.pop(task)
            if task.cancelled() and what is not None:
                self._cut.append(what)
            if self._latest.get(after) is task:
                del self._latest[after]
            if not task.cancelled():
                task.exception()  # whoever asked may be gone

        task.add_done_callback(done)
        return task

    async def _do(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, after: object = None, what: What | None = None
    ) -> T:
        task = self._start(work, after, what)
        # Not cancelled with its caller: it is carried out nevertheless.
        await asyncio.wait([task])
        if task.cancelled():
            raise JournalClosed(
                f"the journal {self.path} was closed before its server had answered: this may be written or not",
                path=self.path,
            )
        return task.result()

    async def _see(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Look, once everything that was called before is done."""
        self._check()
        if self._pending:
            await asyncio.wait([*self._pending])
        self._check()
        await self._deliver()
        return await work()

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
            lambda: self._writing.find_or_queue(
                item,
                tag=tag,
                key=key,
                body=body,
                sha=sha,
                api=api,
                origin=origin or Origin(),
                is_known=origin is not None,
            ),
            after=item,
            what=("queued", key, ""),
        )

    async def adopt(self, job_id: str, *, api: str, tag: str | int | None = None) -> Record:
        """See `Journal`."""
        return await self._do(lambda: self._writing.adopt(job_id, api=api, tag=tag), what=("adopted", "", job_id))

    async def claim(self, pk: int) -> Record | None:
        """See `Journal`."""
        return await self._do(lambda: self._settled(pk, lambda: self._writing.claim(pk)), after=pk)

    async def free(self, limit: int, *, but: Collection[int] = ()) -> list[Record]:
        """See `Journal`."""
        return await self._do(lambda: self._writing.free(limit, but)) if limit > 0 else []

    async def forget(self, seconds: float, *, limit: int = 500) -> int:
        """See `Journal`."""
        return await self._do(lambda: self._writing.forget(seconds, limit))

    async def held(self, but: Collection[int]) -> list[Claim]:
        """See `Journal`."""
        return await self._see(lambda: self._writing.held(but))

    async def alike(self, sha: bytes, *, api: str, item: str, beginning: str) -> list[Record]:
        """See `Journal`."""
        return await self._see(lambda: self._reading.alike(sha, api, item, beginning))

    async def release(self, claim: Claim) -> None:
        """See `Journal`."""
        if await self._do(lambda: self._writing.release(claim), after=claim.pk):
            self.wake.changed((claim.pk,))

    async def follow(self, pks: Collection[int], *, timeout: float) -> None:
        """See `Journal`."""
        self._check()
        await self.wake.follow(pks, timeout)

    # --- steps -------------------------------------------------------------------------------------------------------

    async def apply(self, claim: Claim, step: Step) -> bool | None:
        """See `Journal`."""
        pk = claim.pk
        return await self._do(
            lambda: self._settled(pk, lambda: self._writing.apply(claim, step)),
            after=pk,
            what=(step.rule.name, step.key, step.job_id),
        )

    def may_intend(self) -> bool:
        """Whether something may be sent at this moment: nobody else can have taken over what this session holds.

        True after a good beat for two thirds of the lease. To be asked between a step and the first byte that it
        announces, if anything was waited for since.
        """
        return self._closing is None and self._held.may_intend()

    async def _settled(self, pk: int, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What was said of the row's last outcome is written before its next step."""
        if pk in self._delivered:
            await self._deliver()
        return await work()

    def delivered(self, claim: Claim, key: str, state: State) -> None:
        """See `Journal`."""
        if self._closing is None and self._pid == os.getpid():
            self._delivered[claim.pk] = key, state
            if self._delivering is None or self._delivering.done():
                self._delivering = asyncio.create_task(self._deliver_soon(), name="aiopplx marks as delivered")

    async def _deliver_soon(self) -> None:
        wait = self._timing.told
        while self._delivered:
            await asyncio.sleep(wait)
            try:
                await self._deliver()
            except JournalError:
                wait = self._timing.look

    async def _deliver(self) -> None:
        """Write which outcomes were delivered. They are kept for the next time if that fails."""
        if not self._delivered and not self._one_delivers.locked():
            return
        async with self._one_delivers:
            told, self._delivered = self._delivered, {}
            if told:
                pks = sorted(told)
                try:
                    forgets = self.results == "until_delivered"
                    text = sql.DELIVER_AND_FORGET if forgets else sql.DELIVER
                    keys, states = [told[pk][0] for pk in pks], [int(told[pk][1]) for pk in pks]
                    await self._held.fetch(text, pks=pks, keys=keys, states=states)
                except BaseException:
                    self._delivered = told | self._delivered
                    raise

    def exhausted(self, is_exhausted: bool) -> None:
        """See `Journal`. True of the store once no session reads a source of questions."""
        if self._closing is None and self._pid == os.getpid():
            self._start(lambda: self._held.fetch(sql.READ if is_exhausted else sql.UNREAD), "exhausted")

    # --- money -------------------------------------------------------------------------------------------------------

    async def cap(self, dollars: float) -> float | None:
        """See `Pool`."""
        return await self._do(lambda: self._money.cap(dollars))

    async def hold(self, claim: Claim, dollars: float, *, again: bool) -> bool:
        """See `Pool`."""
        return await self._do(lambda: self._money.hold(claim, dollars, again=again), after=claim.pk)

    async def room(self, *, but: Collection[int] = ()) -> Room:
        """See `Pool`."""
        return await self._do(lambda: self._money.room(but=but))

    async def recount(self) -> Room:
        """See `Pool`."""
        return await self._do(self._money.recount)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def result(self, pk: int) -> bytes | None:
        """See `Journal`."""
        return await self._see(lambda: self._reading.result(pk))

    async def get(self, *, pk: int | None = None, item: str = "", job_id: str = "", key: str = "") -> Record | None:
        """See `Journal`."""
        return await self._see(lambda: self._reading.get(pk=pk, item=item, job_id=job_id, key=key))

    async def rows(self, states: Collection[State], *, after: int = 0, limit: int = 500) -> list[Record]:
        """See `Journal`."""
        return await self._see(lambda: self._reading.rows(states, after=after, limit=limit))

    async def counts(self) -> dict[State, int]:
        """See `Journal`."""
        return await self._see(self._reading.counts)

    async def costs(self, by: CostsBy = "tag") -> list[Cost]:
        """See `Journal`."""
        return await self._see(lambda: self._reading.costs(by))

    async def ledger(self, samples: int = 200) -> Ledger:
        """See `Journal`."""
        return await self._see(lambda: self._reading.ledger(samples))

    async def recall(self, name: str) -> bytes | None:
        """See `Journal`."""
        return await self._see(lambda: self._reading.recall(name))

    async def remember(self, name: str, value: bytes) -> None:
        """See `Journal`."""
        await self._do(lambda: self._held.fetch(sql.REMEMBER, name=name, value=value), after=("learnt", name))

    async def close(self) -> None:
        """See `Journal`. Other sessions may take over at once; if the server is away, after a lease."""
        if self._pid != os.getpid():
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="aiopplx closes a journal")
        # Shielded: if this caller is cancelled, closing continues, and another caller can still wait for it.
        await asyncio.shield(self._closing)

    def abandon(self) -> list[What]:
        """Wait for the server no longer: whoever does gets `JournalClosed`.

        Returns:
            The steps that may not be written: the name of each, its key and its id.
        """
        what = [*self._cut, *(each for each in self._pending.values() if each is not None)]
        for task in self._pending:
            task.cancel()
        return what

    async def _close(self) -> None:
        try:
            with contextlib.suppress(JournalError, TimeoutError):
                async with asyncio.timeout(self._timing.close):
                    await self._hand_over()
        finally:
            tasks, seconds = [*self._pending, self._delivering], self._timing.close
            await end(tasks, seconds)
            await self._held.stop()
            await self.wake.close(seconds)
            await self.database.close()
            await end(tasks, seconds)  # those that a server that says nothing still held up

    async def _hand_over(self) -> None:
        if self._pending:
            await asyncio.wait([*self._pending])
        await self._deliver()
        await self._held.stop()  # a beat now would find no line, and enter anew
        await self._held.leave()
        self.wake.freed()
        await self.wake.tell()


async def _in_turn(before: asyncio.Task[Any] | None, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    if before is not None and not before.done():
        await asyncio.wait([before])
    return await work()
