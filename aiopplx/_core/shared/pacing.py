"""A session's part in what its account shares with other processes: the next departures, and silences.

The gate decides at once and knows no network, so a task asks the database for it. It does so only while somebody waits
at the gate: an idle session asks nothing. What the server says of silence is passed on at once, and what other sessions
pass on is obeyed at once, also by requests that have their departure already. Where no notification is heard, the
database is looked at each second for as long as the session has something to do, and once after each gap.

While the database cannot be reached nothing leaves that has no departure yet, since nobody knows what the others send.
That is told once, and once more when it is over. It ends nothing: whoever waits goes on, or comes to the end of its own
time limit.

This module knows nothing of SQL, or of how a limit is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from aiopplx._events import Event, EventKind, log
from aiopplx._http.account import Membership
from aiopplx._http.apart import cancel_and_wait
from aiopplx._http.client import Client
from aiopplx._policy.departures import Fetched
from aiopplx.journal._errors import JournalError
from aiopplx.journal._postgres.account import SILENCE, SharedAccount
from aiopplx.journal._postgres.hearing import LOOK

AGAIN = 1.0
"""Seconds before a database that is away is asked again."""
SAME = 0.1
"""Seconds: a silence that ends no later than one that is known is no news."""


class Pacing:
    """A session that shares its account with other processes.

    Args:
        account: what is shared.
        client: whose gate it is for.
        membership: the session's part in the account of this process.
        has_work: whether anything is waited for.
    """

    def __init__(
        self, account: SharedAccount, client: Client, membership: Membership, has_work: Callable[[], bool]
    ) -> None:
        self._account = account
        self._client = client
        self._clock = client.clock
        self._limits = client.gate.limits
        self._membership = membership
        self._has_work = has_work
        self._is_away = False
        self._wanted = asyncio.Event()
        self._wanted.set()  # a session that has closed since may have been told that departures are wanted
        self._news = asyncio.Event()
        self._known_until = 0.0  # the end of the latest silence that is known here
        self._to_say = 0.0  # the same of one that is to be passed on; 0.0 if none is
        self._is_unsure = True  # nothing was looked at yet, or something may have been missed
        self._limits.on_want.add(self._wanted.set)
        client.on_silence = self._asked
        account.hearing.on(SILENCE, self._heard)
        self._tasks = [self._start(self._fetch()), self._start(self._pass_on())]

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work, name="aiopplx shares")

    # --- departures --------------------------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            for name, fetched in self._limits.fetched.items():
                count = fetched.order(self._clock.now())
                if count:
                    await self._fetch_some(name, fetched, count)

    async def _fetch_some(self, name: str, fetched: Fetched, count: int) -> None:
        try:
            with self._clock.busy():
                reserved = await self._account.reserve(name, count, fetched.interval, fetched.saved)
            self._is_back()
            now = self._clock.now()
            self._is_silent(now, reserved.silent)
        except Exception as error:
            fetched.failed(count)
            if isinstance(error, JournalError):
                self._away(error)
            else:  # a fault of ours: who waits for a departure must not wait for ever
                log(logging.ERROR, "fetching departures failed unexpectedly", exc_info=True)
            await self._clock.sleep(AGAIN)
            return
        except BaseException:
            fetched.failed(count)  # another session of this account may fetch them
            raise
        fetched.came(now, count, reserved.first)
        self._membership.came()

    def _away(self, error: JournalError) -> None:
        if not self._is_away:
            self._is_away = True
            reason = (
                f"what the account shares with other processes is out of reach, so nothing is sent: {error.message}"
            )
            self._client.emit(Event(kind=EventKind.PAUSED, delay=AGAIN, reason=reason))

    def _is_back(self) -> None:
        if self._is_away:
            self._is_away = False
            reason = "what the account shares with other processes can be reached again"
            self._client.emit(Event(kind=EventKind.RESUMED, reason=reason))

    # --- silence -----------------------------------------------------------------------------------------------------

    def _asked(self, seconds: float) -> None:
        """The server asked this session for silence."""
        until = self._clock.now() + seconds
        if until > self._known_until + SAME:
            self._known_until = self._to_say = until
            self._news.set()

    def _heard(self, said: str) -> None:
        """A session said something of silence, maybe this one; `""`: something may have been missed."""
        if said:
            self._is_silent(self._clock.now(), self._account.seconds_in(said))
        else:
            self._is_unsure = True
            self._news.set()

    def _is_silent(self, now: float, seconds: float) -> None:
        if seconds > 0.0 and now + seconds > self._known_until + SAME:
            self._known_until = now + seconds
            self._client.gate.heard_of_silence(now, seconds, self._client.random())

    async def _pass_on(self) -> None:
        while True:
            if not await self._did_pass_on():
                await self._clock.sleep(AGAIN)
                continue
            if self._account.hearing.hears:
                await self._news.wait()
            elif not await self._clock.wait(self._news, LOOK):
                self._is_unsure = self._is_unsure or self._has_work()
            self._news.clear()

    async def _did_pass_on(self) -> bool:
        """Say what is to be said, and look if that is needed. False if the database is away."""
        try:
            if (seconds := (until := self._to_say) - self._clock.now()) > 0.0:
                with self._clock.busy():
                    await self._account.silence(seconds)
                if self._to_say == until:
                    self._to_say = 0.0
            if self._is_unsure:
                with self._clock.busy():
                    silent = await self._account.silent()
                self._is_unsure = False
                self._is_silent(self._clock.now(), silent)
        except JournalError:
            return False  # told when a departure is wanted
        except Exception:  # a fault of ours: silence must be heard of all the same
            log(logging.ERROR, "passing silence on failed unexpectedly", exc_info=True)
            return False
        return True

    # --- the end -----------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Share nothing any more. The account is closed by whoever opened it."""
        self._limits.on_want.discard(self._wanted.set)
        self._account.hearing.off(SILENCE)
        await cancel_and_wait(self._tasks)
