"""What a session does for a store that it shares: it polls what it holds, takes what nobody holds, and lets go.

The holder of a row is the one session that may act on it, and others wait for what it finds out. So it listens itself
for each job that it holds (`Holder`), whether or not anybody in its own process waits for it. When a session ends or
dies its rows are free. Those that may be billed are collected by any other session: a job that runs is polled, and a
submission whose outcome is unknown goes the way that `on_doubt` says, by its age in the store. A submission of which
nothing was sent is left for whoever asks for it: nobody else pays for it.

This module knows nothing of leases, of how a row becomes free, or of how jobs are polled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from aiopplx._core.live import Live
from aiopplx._events import log
from aiopplx._http.apart import cancel_and_wait
from aiopplx._http.clock import Clock
from aiopplx._job import Job
from aiopplx._policy.retry import Bounds
from aiopplx._submission import Listener, Submission
from aiopplx.journal._errors import JournalClosed, JournalError
from aiopplx.journal._names import Names
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Claim, Record

BEAT = 7.5
"""Seconds after which free rows are looked for again."""

GIVEN_UP = 6 * 3600.0
"""Seconds after which a row that this session has given up is collected again: its answer may have become readable."""

SWEEP = 600.0
"""Seconds between two removals of what is kept for long enough."""
AT_ONCE = 500
"""Rows that one statement removes."""


class Holder(Listener, eq=False, kw_only=True):
    """The session itself, which listens for a job that it holds: for other sessions, and for whoever comes later."""

    is_late: bool = True
    is_bulk: bool = True

    def has_room(self) -> bool:
        """See `Listener`. It keeps no outcome; where somebody here waits, they say whether there is room."""
        return len(self.sub.listeners) == 1

    def deliver(self, job: Job | None) -> None:
        """See `Listener`. Whoever wants the outcome finds it in the store."""


def is_collected(sub: Submission) -> bool:
    """Whether nobody but its holder listens for it."""
    return all(isinstance(listener, Holder) for listener in sub.listeners)


class Owner(Protocol):
    """Who goes on with what was taken: the lifecycle."""

    @property
    def store(self) -> Journal: ...
    @property
    def live(self) -> Live: ...

    async def submit(
        self,
        sub: Submission,
        names: Names | None,
        bounds: Bounds,
        runner: asyncio.Task[None] | None = None,
    ) -> None:
        """Its outcome is unknown: send it again, or say that it is in doubt."""
        ...

    def collect(self, record: Record, timeout: float) -> Submission | None:
        """A row that nobody held is this session's now. Returns the submission if it is still to be sent."""
        ...

    def detach(self, sub: Submission) -> asyncio.Task[None] | None:
        """Nobody here goes on with it."""
        ...

    def may_be_lost(self, sub: Submission) -> bool:
        """Whether it is polled here as a job whose row this session holds."""
        ...

    async def stands(self, sub: Submission, claim: Claim) -> Record | None:
        """The row of a job that is polled here, claimed if it was free."""
        ...

    def lost(self, sub: Submission, record: Record | None) -> None:
        """This session did not hold its row any more when it was looked at; the row, claimed if it was free."""
        ...


class Collector:
    """Takes free rows, and gives up those that this session does not go on with.

    Args:
        life: goes on with what was taken.
        clock: measures when free rows are looked for again.
        at_once: the most jobs that this session polls only because it holds them.
        collects: free rows are taken. Without it the session polls what it holds, and no more.
        timeout: seconds within which a submission whose outcome is unknown is sent again.
        keep_for: seconds after their end for which submissions are kept; None: for good.
    """

    def __init__(
        self, life: Owner, clock: Clock, *, at_once: int, collects: bool, timeout: float, keep_for: float | None = None
    ) -> None:
        self._life = life
        self._clock = clock
        self._at_once = at_once if collects else 0
        self._timeout = timeout
        self._keep_for = keep_for
        self._swept: float | None = None
        self._let_go: list[Claim] = []
        self._given_up: dict[int, float] = {}  # rows, and when: oldest first
        self._strays: dict[int, Claim] = {}
        self._senders: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def let_go(self, claim: Claim, *, is_given_up: bool = False) -> None:
        """This session does nothing more about a row that is not over: another one may.

        Args:
            claim: the right to write it, which ends soon.
            is_given_up: this session has tried, so that it leaves the row to others for some hours.
        """
        self._let_go.append(claim)
        if is_given_up:
            self._given_up.pop(claim.pk, None)
            self._given_up[claim.pk] = self._clock.now()
        self._news.set()

    async def aclose(self) -> None:
        """Go on with nothing any more. A store that closes frees what this session holds."""
        await cancel_and_wait([self._task, *self._senders])
        live = self._life.live
        polls = [self._life.detach(sub) for sub in {*live.by_row.values(), *live.by_id.values()}]
        await cancel_and_wait([poll for poll in polls if poll is not None])

    async def free_all(self) -> None:
        """Free what this session held, in a store that stays open.

        Also what it holds without knowing it: whoever was finding a row was cancelled. Nobody will look for that again.
        """
        try:
            await self._release()
            for claim in await self._life.store.held(()):
                await self._life.store.release(claim)
        except JournalError as error:
            log(logging.DEBUG, "what this session held could not be freed: %s", error)

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                await self._release()
                await self._compare()
                await self._collect()
                await self._sweep()
            except JournalClosed:
                return
            except JournalError as error:
                log(logging.DEBUG, "free rows could not be looked for: %s", error)
            except Exception:  # a fault of ours: what others have left must not wait for ever
                log(logging.ERROR, "collecting free rows failed unexpectedly", exc_info=True)
            await self._clock.wait(self._news, BEAT)

    async def _release(self) -> None:
        while self._let_go:
            claim = self._let_go[-1]
            sub = self._life.live.by_row.get(claim.pk)
            if sub is None or sub.claim is None or sub.claim.fence != claim.fence or is_collected(sub):
                await self._life.store.release(claim)  # else somebody here has come back for it
            self._let_go.remove(claim)

    async def _sweep(self) -> None:
        """Remove what is kept for long enough. Any session may: those that do so at once remove different rows."""
        now = self._clock.now()
        if self._keep_for is None or (self._swept is not None and now - self._swept < SWEEP):
            return
        if await self._life.store.forget(self._keep_for, limit=AT_ONCE) < AT_ONCE:
            self._swept = now  # else there is more, for the next pass: what was left is looked for in between

    async def _compare(self) -> None:
        """Compare what this session works on with what it holds according to the store: they should be the same."""
        live = self._life.live.by_row
        worked_on, polled = {*live}, [(sub, sub.claim) for sub in live.values() if sub.claim is not None]
        held = await self._life.store.held(())
        await self._free_strays([claim for claim in held if claim.pk not in worked_on])
        await self._leave_lost(polled, {claim.pk: claim.fence for claim in held})

    async def _leave_lost(self, polled: list[tuple[Submission, Claim]], held: Mapping[int, int]) -> None:
        """Poll no more what another session has taken over: this one had stood still, or was cut off, for too long."""
        life = self._life
        for sub, claim in polled:
            if held.get(claim.pk) == claim.fence or not life.may_be_lost(sub):
                continue
            record = await life.stands(sub, claim)
            if sub.claim is claim and life.may_be_lost(sub):
                life.lost(sub, record)

    async def _free_strays(self, held: list[Claim]) -> None:
        """Free what this session holds without knowing it: whoever found the row was cancelled, or an answer was lost.

        Only a row that is unknown twice in a row: the first time, it may still be on its way to whoever asked for it.
        """
        life, before = self._life, self._strays
        self._strays = {claim.pk: claim for claim in held}
        for claim in held:
            known = before.get(claim.pk)
            if known is not None and known.fence == claim.fence and claim.pk not in life.live.by_row:
                await life.store.release(claim)
                del self._strays[claim.pk]

    async def _collect(self) -> None:
        life = self._life
        room = self._at_once - sum(map(is_collected, life.live.by_row.values()))
        if room <= 0:
            return
        for record in await life.store.free(room, but=self._left_to_others()):
            sub = life.collect(record, self._timeout)
            if sub is not None:
                sender = asyncio.get_running_loop().create_task(life.submit(sub, None, Bounds.within(sub.timeout)))
                self._senders.add(sender)
                sender.add_done_callback(self._senders.discard)

    def _left_to_others(self) -> list[int]:
        """The rows that this session has given up in the last hours."""
        latest = self._clock.now() - GIVEN_UP
        for pk in list(self._given_up):
            if self._given_up[pk] > latest:
                break
            del self._given_up[pk]
        return list(self._given_up)
