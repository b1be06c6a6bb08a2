"""Reads pages of an API's list for the poller, so that one request tells of many running jobs.

When a page is worth a request, and what of it can be believed, is decided by `_policy.paging`. A page only says which
jobs run and which have ended; a GET by the poller decides, and it is the GET that needs room for an outcome. A fault in
here costs no job anything: the list is left alone from then on, and each job is polled by itself.

This module knows nothing of schedules, listeners or what a poll means.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from aiopplx._errors import ProtocolError, ResponseTooLarge
from aiopplx._events import log
from aiopplx._http.apart import has_not_begun
from aiopplx._http.client import Client, Failed
from aiopplx._job import Page
from aiopplx._policy.paging import SIZE, Paging, Reading
from aiopplx._policy.polling import Polls
from aiopplx._policy.retry import Fault
from aiopplx._submission import Submission
from aiopplx._wire.api import API
from aiopplx._wire.call import Call, Lane

PAGES_AT_ONCE = 4


class Pages:
    """The lists of a session's APIs.

    Args:
        client: sends the requests.
        price: seconds of a result's delay that one poll is worth.
        ended: told of a job that a page says has ended: a GET is due at once.
        alone: told of a job of which no page tells any more: it is polled by itself again.
        came: called after each page.

    Attributes:
        lists: each list of which pages are read, by the name of its API. While it is empty nothing is asked here.
    """

    def __init__(
        self,
        client: Client,
        price: float,
        ended: Callable[[Submission, float], object],
        alone: Callable[[Submission, float], object],
        came: Callable[[], object],
    ) -> None:
        self._client = client
        self._price = price
        self._ended = ended
        self._alone = alone
        self._came = came
        self.lists: dict[str, tuple[API, Paging[Submission]]] = {}
        self._refuses_limit: set[str] = set()
        self._running: dict[asyncio.Task[None], Call] = {}

    # --- which jobs run ----------------------------------------------------------------------------------------------

    def watch(self, sub: Submission, polls: Polls, now: float) -> None:
        """A job runs whose API has a list."""
        api = sub.api
        try:
            if api.name not in self.lists:
                self.lists[api.name] = api, Paging(self._price)
            self.lists[api.name][1].watch(sub.job_id, sub, polls, now)
            polls.is_listed = True
        except Exception:
            self._give_up(api.name, now)

    def forget(self, sub: Submission, now: float) -> None:
        """It is polled no more."""
        self._say(sub, now, lambda paging: paging.forget(sub.job_id, now))

    def runs(self, sub: Submission, now: float) -> None:
        """A GET says that it runs."""
        self._say(sub, now, lambda paging: paging.runs(sub.job_id, now))

    def ended(self, sub: Submission, now: float, ended_at: float | None) -> None:
        """A GET says that it has ended, at this monotonic moment if that is known."""
        self._say(sub, now, lambda paging: paging.ended(sub.job_id, now, ended_at))

    def seen_at(self, sub: Submission) -> float | None:
        """See `Paging`."""
        known = self.lists.get(sub.api.name)
        return known[1].seen_at(sub.job_id) if known is not None else None

    def spacing(self, sub: Submission) -> float:
        """See `Paging`."""
        known = self.lists.get(sub.api.name)
        return known[1].spacing(sub.job_id) if known is not None else 1.0

    def _say(self, sub: Submission, now: float, what: Callable[[Paging[Submission]], Sequence[Submission]]) -> None:
        known = self.lists.get(sub.api.name)
        if known is None:
            return
        try:
            alone = what(known[1])
        except Exception:
            self._give_up(sub.api.name, now)
            return
        for other in alone:
            self._alone(other, now)

    # --- pages -------------------------------------------------------------------------------------------------------

    def next_due(self, now: float) -> float | None:
        """When a page may be read; None if none will be."""
        if len(self._running) >= PAGES_AT_ONCE:
            return None
        dues = [due for _, paging in self.lists.values() if (due := paging.next_due()) is not None]
        return max(min(dues), now + self._client.gate.delay(Lane.LIST, now)) if dues else None

    def take(self, now: float) -> Callable[[], object] | None:
        """A page that is worth a request now, if any and if it may leave: what is returned sends it."""
        if len(self._running) >= PAGES_AT_ONCE:
            return None
        if self._client.gate.delay(Lane.LIST, now) > 0.0:
            if any((due := paging.next_due()) is not None and due <= now for _, paging in self.lists.values()):
                self._client.gate.want(Lane.LIST, now)
            return None
        for name, (api, paging) in self.lists.items():
            try:
                reading = paging.take(now)
                if reading is not None:
                    limit = None if name in self._refuses_limit else SIZE
                    call = api.list(limit=limit, next_token=reading.token)
                    return lambda: self._send(api, paging, reading, call, now)
            except Exception:
                self._give_up(name, now)
                return None
        return None

    def _send(self, api: API, paging: Paging[Submission], reading: Reading, call: Call, now: float) -> None:
        self._client.gate.leave(call.lane, now)
        task = asyncio.get_running_loop().create_task(self._read(api, paging, reading, call))
        self._running[task] = call
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._running.pop(task, None) is not None:
            self._came()

    async def _read(self, api: API, paging: Paging[Submission], reading: Reading, call: Call) -> None:
        result, now = await self._client.attempt(call, api.read_page, self._client.clock.now())
        try:
            self._brought(api, paging, reading, result, now)
        except Exception:
            self._give_up(api.name, now)

    def _brought(
        self, api: API, paging: Paging[Submission], reading: Reading, result: Page | Failed, now: float
    ) -> None:
        if isinstance(result, Failed):
            unreadable = isinstance(result.error, (ProtocolError, ResponseTooLarge))
            is_for_good = unreadable or result.fault in (Fault.REFUSED, Fault.STOP)
            if result.status in (400, 422) and not reading.token and api.name not in self._refuses_limit:
                self._refuses_limit.add(api.name)  # it may allow fewer rows: its own number is asked for
                is_for_good = False
            found = paging.failed(reading, now, is_for_good=is_for_good)
        else:
            rows = [(job.id, job.status.is_final) for job in result.jobs]
            found = paging.read(reading, rows, result.next_token, now)
        for sub in found.ended:
            self._ended(sub, now)
        for sub in found.alone:
            self._alone(sub, now)

    def _give_up(self, name: str, now: float) -> None:
        """A fault of ours."""
        log(logging.ERROR, "the list of jobs is not used any more; each job is polled by itself", exc_info=True)
        known = self.lists.pop(name, None)
        for sub in known[1].keys() if known is not None else ():
            self._alone(sub, now)

    def close(self) -> list[asyncio.Task[None]]:
        """Read nothing any more. Returns the reads that were out, cancelled, to be waited for."""
        self.lists.clear()
        running, self._running = self._running, {}
        for task, call in running.items():
            task.cancel()
            if has_not_begun(task):  # nobody else says that nothing left
                self._client.line.back(call.lane, self._client.clock.now())
        return list(running)
