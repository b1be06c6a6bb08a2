"""The account's jobs, page by page, as an async iterator.

This module knows nothing of how a page is fetched or what its rows look like on the wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import Any, Self

from aiopplx._core.lifecycle import Lifecycle
from aiopplx._events import Event, EventKind
from aiopplx._job import Job, JobStatus, Snapshot, make_job, outcome_error

PAGE = 100
"""Rows of one page, at most."""


class JobList(AsyncIterator[Job]):
    """The account's jobs, page by page. Iterate it, or `await` it for all of them at once.

    A page that repeats, or a token that the server ignores, ends the list, so that it cannot go on for ever.
    """

    def __init__(self, life: Lifecycle, limit: int | None) -> None:
        self._life = life
        self._api = life.routing.api
        self._limit = limit
        self._rows: list[Job] = []
        self._seen: set[str] = set()
        self._tokens: set[str] = set()
        self._token: str | None = ""
        self._given = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Job:
        if self._limit is not None and self._given >= self._limit:
            raise StopAsyncIteration
        while not self._rows:
            if self._token is None:
                raise StopAsyncIteration
            await self._next_page(self._token)
        self._given += 1
        return self._rows.pop(0)

    def __await__(self) -> Generator[Any, None, list[Job]]:
        return self._all().__await__()

    async def _all(self) -> list[Job]:
        return [job async for job in self]

    async def _next_page(self, token: str) -> None:
        call = self._api.list(limit=self._page_size(), next_token=token)
        page = await self._life.client.call(call, self._api.read_page)
        news = [snapshot for snapshot in page.jobs if snapshot.id not in self._seen]
        self._seen.update(snapshot.id for snapshot in news)
        if page.skipped:
            reason = f"{page.skipped} rows of the list could not be read"
            self._life.announcer.emitter.emit(Event(kind=EventKind.WARNING, reason=reason))
        self._rows += [await self._job(snapshot) for snapshot in news]
        self._tokens.add(token)
        ended = not page.next_token or page.next_token in self._tokens or not news
        self._token = None if ended else page.next_token

    async def _job(self, snapshot: Snapshot) -> Job:
        record = await self._life.store.get(job_id=snapshot.id)
        key, tag = (record.key, record.tag) if record is not None else ("", None)
        # Rows are summaries: that one has no answer, or no reason, says nothing of the job.
        is_told = snapshot.error_message and snapshot.status is not JobStatus.COMPLETED
        error = outcome_error(snapshot) if is_told or snapshot.actions is not None else None
        return make_job(snapshot.id, snapshot.status, error, snapshot, api=self._api.name, key=key, tag=tag)

    def _page_size(self) -> int | None:
        return None if self._limit is None else min(self._limit, PAGE)
