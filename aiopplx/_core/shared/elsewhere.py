"""Submissions whose row another session holds: what that one makes of the row is the outcome here too.

Waiting for such a job costs no request. A task for each follows the row in the store and asks again when it has
changed: if it is over, its outcome is read there; if it is free, because its holder has closed or died, this session
takes it and goes on with it. This module knows nothing of how a store tells that a row has changed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from aiopplx._core.finding import FOLLOW
from aiopplx._errors import AiopplxError
from aiopplx._events import log
from aiopplx._http.apart import cancel_and_wait
from aiopplx._http.clock import Clock
from aiopplx._policy.retry import Bounds
from aiopplx._submission import Submission
from aiopplx.journal._errors import JournalBroken
from aiopplx.journal._names import Names
from aiopplx.journal._protocol import Journal
from aiopplx.journal._records import Record


class Owner(Protocol):
    """Who goes on with a submission: the lifecycle."""

    @property
    def store(self) -> Journal: ...

    async def submit(
        self,
        sub: Submission,
        names: Names | None,
        bounds: Bounds,
        runner: asyncio.Task[None] | None = None,
    ) -> None:
        """Its row is over, or free: look it up, and go on with it."""
        ...

    def still_elsewhere(self, sub: Submission, record: Record) -> None:
        """Another session holds its row still."""
        ...

    def time_is_up(self, sub: Submission) -> bool:
        """Those who waited for it long enough stop waiting. Returns whether anybody goes on."""
        ...

    def lost_sight(self, sub: Submission, error: AiopplxError) -> None:
        """What another session makes of it cannot be read any more."""
        ...


class Elsewhere:
    """The submissions of a session that follow rows of other sessions.

    Args:
        life: takes them up again.
        clock: measures how long somebody waits.
    """

    def __init__(self, life: Owner, clock: Clock) -> None:
        self._life = life
        self._clock = clock
        self._tasks: dict[Submission, asyncio.Task[None]] = {}

    def follow(self, sub: Submission) -> None:
        """Follow the row of this submission until it is over, free, or nobody here waits for it any more."""
        self._tasks[sub] = asyncio.get_running_loop().create_task(self._follow(sub))

    def task_of(self, sub: Submission) -> asyncio.Task[None] | None:
        """The task that follows its row, or sends it after that; None if there is none."""
        return self._tasks.get(sub)

    async def aclose(self) -> None:
        """Follow nothing any more."""
        await cancel_and_wait(list(self._tasks.values()))

    async def _follow(self, sub: Submission) -> None:
        life, clock = self._life, self._clock
        task = asyncio.current_task()
        try:
            while True:
                try:
                    async with clock.timeout_at(sub.first_deadline()):
                        await life.store.follow((sub.row,), timeout=FOLLOW)
                        record = await life.store.claim(sub.row)
                except TimeoutError:
                    if not life.time_is_up(sub):
                        return
                    continue
                if record is None or not record.is_held:
                    break
                life.still_elsewhere(sub, record)
            await life.submit(sub, None, Bounds.within(sub.timeout), task)
        except AiopplxError as error:
            life.lost_sight(sub, error)
        except Exception as problem:  # a fault of ours: nobody may wait for ever
            log(logging.ERROR, "following a submission of another session failed unexpectedly", exc_info=True)
            life.lost_sight(sub, JournalBroken(f"following it failed: {type(problem).__name__}", path=""))
        finally:
            if self._tasks.get(sub) is task:  # it may follow the same row anew by now
                del self._tasks[sub]
