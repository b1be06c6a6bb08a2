"""The session's line among the others, by which it holds its jobs: it enters, beats, and leaves.

If the server does not know it any more, everything that was held is lost. The session enters anew, under the number
that it has had from its opening on (another one, if a fail-over gave that to another session), and claims what it goes
on with: no earlier claim is live again, because a row that was freed has no holder until it is claimed.

This module knows nothing of what the statements do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiopplx._events import log
from aiopplx._version import __version__
from aiopplx.journal._errors import JournalAway, JournalError
from aiopplx.journal._postgres.lease import Lease, Timing
from aiopplx.journal._postgres.room import Database, Row, Taken, Value
from aiopplx.journal._postgres.statements import BEAT, ENTER, ENTER_ANEW, ENTERING, LEAVE, REAP
from aiopplx.journal._postgres.tables import Tables

_NUMBERS = 100
"""How many numbers a session tries."""
OWNER = "job_owner"
"""The constraint that a session's number breaks if the server does not know it any more."""
_BOOT = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""The system's clock that goes on while the machine is suspended: on Linux, and on macOS. Windows has but one."""


def awake_or_not() -> float:
    """Seconds of a monotonic clock that counts the time for which the machine was suspended.

    The database's server goes on meanwhile, and gives what a session holds to another one after a lease. By Python's
    own monotonic clock, which stands still on Linux and macOS, the session would wake without knowing that.
    """
    return time.clock_gettime(_BOOT) if _BOOT is not None else time.monotonic()


class Held(Tables):
    """A session's statements, and its line among the sessions.

    Args:
        database: where they go.
        schema: of the tables.
        clock: moments in place of the server's, for tests; None for the server's.
        timing: the lease.
        now: seconds of a monotonic clock, by which the age of the lease is measured.

    Attributes:
        on_freed: called when the jobs of another session were freed.
        entered: how often it has entered. What it held before the last time is lost.
    """

    def __init__(
        self,
        database: Database,
        schema: str,
        *,
        clock: Callable[[], float] | None,
        timing: Timing,
        now: Callable[[], float] = awake_or_not,
    ) -> None:
        super().__init__(database, schema, clock=clock)
        self.on_freed: Callable[[], object] = _nothing
        self.entered: int = 0
        self._timing = timing
        self._now = now
        self._lease = Lease(timing.lease)
        self._entering = asyncio.Lock()
        self._one_beats = asyncio.Lock()  # one connection carries one statement at a time
        self._version = f"{__version__} {secrets.token_hex(8)}"
        self._beating: asyncio.Task[None] | None = None
        self._reaping: asyncio.Task[None] | None = None

    async def hold(self, text: str, **values: Value) -> list[Row]:
        """`fetch` of a statement by which this session comes to hold rows: it enters anew if it must."""
        for _ in range(3):
            entered = self.entered
            try:
                return await self.fetch(text, **values)
            except Taken as taken:
                if taken.constraint != OWNER:
                    raise
            await self._lost(entered)
        raise JournalAway("the session's leases end faster than it can use them", path="")

    # --- the lease ---------------------------------------------------------------------------------------------------

    def may_intend(self) -> bool:
        """Whether something may be sent now: nobody else can have taken over what this session holds."""
        return self._lease.may_intend(self._now())

    async def ensure(self) -> None:
        """Beat now, if the last beat was too long ago for an intent. Raises `JournalAway` if that does not help."""
        async with self._one_beats:
            if not self.may_intend():
                await self._beat()
        if not self.may_intend():
            raise JournalAway("the session's lease cannot be renewed", path="")

    async def enter(self, seen: Mapping[str, str], put: Mapping[str, str]) -> bool:
        """Take a number, and begin to beat; False if the journal is not any more as it was seen.

        Args:
            seen: what `STANDING` said of the journal.
            put: what the journal says of itself from now on.
        """
        sent = self._now()
        standing = ";".join(f"{k}={v}" for k, v in sorted(seen.items()))
        texts, said = [ENTERING, ENTER], {"keys": list(put), "said": list(put.values())}
        rows = await _numbered(lambda: self.many(texts, seen=standing, **said, **self._line()))
        if not rows:
            return False
        self.me: int = rows[0]["id"]
        self._has_entered(sent)
        self._beating = asyncio.create_task(self._beat_on(), name="aiopplx holds its jobs")
        return True

    def _line(self) -> dict[str, Value]:
        host, pid = platform.node() or "localhost", os.getpid()
        return {"host": host, "pid": pid, "version": self._version, "lease": self._timing.lease}

    def _has_entered(self, sent: float) -> None:
        self.entered += 1
        self._lease.lost()
        self._lease.beaten(sent)

    async def _lost(self, entered: int) -> None:
        """The server does not know this session any more. Only the first to find out enters anew."""
        async with self._entering:
            if self.entered == entered:
                self._lease.lost()
                sent = self._now()
                rows = await _numbered(lambda: self.fetch(ENTER_ANEW, **self._line()))
                self.me = rows[0]["id"]
                self._has_entered(sent)

    async def _beat_on(self) -> None:
        """Beat as long as the session is open. One that fails is tried again soon."""
        while True:
            await asyncio.sleep(self._timing.beat)
            while True:
                try:
                    # Not longer than a beat: what is waited for then is the next one.
                    async with asyncio.timeout(self._timing.beat):
                        async with self._one_beats:
                            await self._beat()
                    # Apart: of a session that held many jobs it takes long to free them, and the next beat is due.
                    if self._reaping is None or self._reaping.done():
                        self._reaping = asyncio.create_task(self._reap(), name="aiopplx frees what the dead held")
                    break
                except Exception as error:
                    if not isinstance(error, (JournalError, TimeoutError)):  # a fault of ours: the jobs are held on
                        log(logging.ERROR, "a beat failed unexpectedly", exc_info=True)
                    await asyncio.sleep(self._timing.beat / 8.0)

    async def _beat(self) -> None:
        entered, sent = self.entered, self._now()
        sql, given = self.prepared(BEAT, {"lease": self._timing.lease, "version": self._version})
        rows = await self.database.beat(sql, *given)  # on the connection that listens: both fail together
        if not rows:
            await self._lost(entered)
        elif entered == self.entered:
            self._lease.beaten(sent, rows[0]["said"])

    async def _reap(self) -> None:
        try:
            if self._lease.may_reap(self._now()) and await self.fetch(REAP, lease=self._timing.lease):
                self.on_freed()
        except JournalError as error:  # it is tried again after the next beat
            log(logging.DEBUG, "what the dead held could not be freed: %s", error)
        except Exception:  # a fault of ours: the beats go on
            log(logging.ERROR, "freeing what the dead held failed unexpectedly", exc_info=True)

    async def leave(self) -> None:
        """Free all that is held, at once."""
        await self.fetch(LEAVE, version=self._version)

    async def stop(self) -> None:
        """Beat no more."""
        await end([self._beating, self._reaping], self._timing.close)


async def _numbered(enter: Callable[[], Awaitable[list[Row]]]) -> list[Row]:
    """Enter under a number that nobody has.

    A replica that has become the primary may count from before the last numbers on, and those who had them keep them.
    """
    for _ in range(_NUMBERS):
        with contextlib.suppress(Taken):
            return await enter()
    raise JournalAway("the numbers of sessions are all in use", path="")


async def end(tasks: Iterable[asyncio.Task[Any] | None], seconds: float) -> None:
    """Cancel these tasks, and wait so many real seconds at most: what a server that says nothing holds up may go on."""
    found = [task for task in tasks if task is not None]
    for task in found:
        task.cancel()
    if found:
        await asyncio.wait(found, timeout=seconds)


def _nothing() -> None: ...
