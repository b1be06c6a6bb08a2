"""From the options typed to an open session, at the service or at an emulator in this process.

This module does not know what the session is used for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import anyio

from aiopplx.apis import ApiName
from aiopplx.cli._options import Connection, JournalOptions, OnDoubt, Results

if TYPE_CHECKING:
    import aiopplx
    from aiopplx import Event, PollPolicy, RetryPolicy, Session

SPEED = 100.0
"""Emulated seconds in a second: a job of four minutes takes two and a half seconds, long enough to watch."""

CLOSING = 1.5
"""Seconds for connections and the emulator to close."""

EMULATED_POLL = 0.4
"""Seconds between two polls of an emulated job, which ends a hundred times sooner than one of the service."""

EMULATED_BUDGET = 60_000.0
"""Polls a minute: an emulated account has no rate limit to respect."""


class SessionOptions(TypedDict, total=False):
    """Arguments that are passed to `Session` unchanged."""

    api: ApiName
    rpm: float | None
    max_in_flight: int
    timeout: float
    max_cost: float | None
    journal: str | aiopplx.JournalOptions | None
    retry: RetryPolicy


_RESULTS: dict[Results, Literal["keep", "until_delivered", "refetch"]] = {
    "keep": "keep",
    "until-delivered": "until_delivered",
    "refetch": "refetch",
}


def journal_at(
    place: str | None, options: JournalOptions, *, run: str | None = None, notes: Mapping[str, bytes] | None = None
) -> aiopplx.JournalOptions | None:
    """The journal at this place, with the options typed, the name of the run, and what is noted in the journal."""
    import aiopplx

    if place is None:
        return None
    return aiopplx.JournalOptions(
        place,
        results=_RESULTS[options.results or "keep"],
        same_account=options.same_account,
        without_log=options.without_log,
        run=run,
        retry_failed=options.retry_failed,
        replace=options.replace,
        wait=options.wait,
        notes=dict(notes or {}),
    )


def retry_policy(on_doubt: OnDoubt | None) -> RetryPolicy:
    """The default policy, with the option typed for submissions that got no answer."""
    from aiopplx import RetryPolicy

    return RetryPolicy(on_doubt=on_doubt)


class Connected:
    """An open session, and the emulator under it if one was asked for; an async context manager.

    Args:
        connection: the options typed.
        on_event: called with every event of the session.
        options: as for `Session`; an `api` here overrides the one typed.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        on_event: Callable[[Event], None] | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        self._connection = connection
        self._on_event = on_event
        self._options = options
        if connection.api is not None:
            self._options.setdefault("api", connection.api)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Session:
        try:
            return await self._open()
        except BaseException:
            await self._stack.aclose()
            raise

    async def __aexit__(self, *_: object) -> None:
        # After a signal everything around is cancelled. The connections still have to be closed, in no more time than a
        # person who pressed Ctrl-C will wait.
        with anyio.move_on_after(CLOSING, shield=True):
            await self._stack.aclose()

    async def _open(self) -> Session:
        where = self._connection
        if where.emulate:
            session = self._session("emulated", await self._emulator())
        else:
            session = self._session(where.key(), where.base_url)
        return await self._stack.enter_async_context(session)

    def _session(self, key: str | None, base_url: str | None) -> Session:
        from aiopplx import Session

        # Any: for a type checker a TypedDict may have more keys than it names, and `Session` takes no others.
        options: dict[str, Any] = {**self._options}
        return Session(
            key,
            base_url=base_url,
            poll=self._poll(),
            on_event=self._on_event,
            network=self._connection.network(),
            **options,
        )

    def _poll(self) -> PollPolicy | None:
        from aiopplx import PollPolicy

        seconds = self._connection.poll
        if self._connection.emulate:
            return PollPolicy.fixed(seconds or EMULATED_POLL, budget=EMULATED_BUDGET)
        return PollPolicy.fixed(seconds) if seconds else None

    async def _emulator(self) -> str:
        from aiopplx.emulator import Emulator

        server = await self._stack.enter_async_context(Emulator(time_scale=SPEED))
        return server.url
