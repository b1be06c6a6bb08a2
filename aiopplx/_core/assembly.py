"""From the settings of a session to its moving parts.

Every part is made here and knows only what it is handed. This module knows nothing of what users call.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import aiohttp
import msgspec

from aiopplx._apis import APIS
from aiopplx._core.engine import Engine
from aiopplx._core.keeper import Keeper, OnDoubt
from aiopplx._core.poller import Poller
from aiopplx._core.spending import Purse
from aiopplx._events import Event
from aiopplx._http.account import shared_gate
from aiopplx._http.client import Client
from aiopplx._http.clock import Clock, wall
from aiopplx._http.secret import Secret
from aiopplx._http.transport import Transport
from aiopplx._policy.budget import Budget
from aiopplx._policy.polling import PollRule
from aiopplx._policy.retry import RetryPolicy
from aiopplx._wire.api import API
from aiopplx.journal._protocol import Journal, Ledger, Results, fingerprint

EXPECTED_COST = 1.3
"""US dollars: at the upper end of what deep-research jobs were seen to cost ($0.84 to $1.26 in five of June 2026)."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a session was made with, checked; `Session` says what each means."""

    key: Secret
    base_url: str
    api: API
    successor: API | None
    rpm: float | None
    max_in_flight: int
    timeout: float
    rule: PollRule
    http: aiohttp.ClientSession | None
    journal: str | os.PathLike[str] | Journal | None
    results: Results
    same_account: bool
    on_doubt: OnDoubt | None
    retry_failed: bool
    max_cost: float | None
    retry: RetryPolicy
    max_response_bytes: int
    clock: Clock

    def __repr__(self) -> str:
        return f"Settings({self.api.name} at {self.base_url})"


class Opened:
    """A session's open journal, and what it says was spent. One that was handed in open stays its owner's to close."""

    def __init__(self, journal: Journal, spent: Ledger | None, *, is_ours: bool) -> None:
        self.journal = journal
        self.spent = spent
        self._is_ours = is_ours

    async def close(self) -> None:
        """Close it, if it was opened here."""
        if self._is_ours:
            await self.journal.close()


async def open_journal(settings: Settings) -> Opened | None:
    """Open the journal, if there is to be one. Raises `JournalError`."""
    given = settings.journal
    if given is None:
        return None
    is_ours = isinstance(given, (str, os.PathLike))
    journal = await _open_file(given, settings) if isinstance(given, (str, os.PathLike)) else given
    try:
        spent = await journal.ledger() if settings.max_cost is not None else None
    except BaseException:
        if is_ours:
            await journal.close()
        raise
    return Opened(journal, spent, is_ours=is_ours)


async def _open_file(path: str | os.PathLike[str], settings: Settings) -> Journal:
    from aiopplx.journal._sqlite.journal import SqliteJournal  # sqlite3 is for those who keep a journal

    return await SqliteJournal.open(
        path,
        now=wall,
        results=settings.results,
        same_account=settings.same_account,
        base_url=settings.base_url,
        account=lambda salt: fingerprint(settings.key.reveal(), salt),
    )


def make_engine(
    settings: Settings,
    opened: Opened | None,
    *,
    tell: Callable[[Event], None],
    listened: Callable[[], bool],
    open: Callable[[], None],
) -> Engine:
    """The moving parts of a session, put together; needs the running loop."""
    transport = Transport(
        settings.base_url,
        settings.key,
        settings.retry,
        max_response_bytes=settings.max_response_bytes,
        http=settings.http,
    )
    transport.open()
    client = Client(
        transport,
        shared_gate(settings.base_url, settings.key.reveal(), settings.rpm),
        settings.retry,
        clock=settings.clock,
        random=random.random,  # noqa: S311 - jitter, nothing secret
        tell=tell,
        listened=listened,
        sole_path=settings.api.submit(b"").path if settings.successor is None else "",
    )
    keeper, purse = _keeper(settings, opened), _purse(settings, opened)
    return Engine(
        settings.api,
        settings.successor,
        client,
        lambda release: Poller(
            client,
            settings.rule,
            release,
            write=keeper.ended if keeper is not None else None,
            ended=purse.ended if purse is not None else None,
        ),
        keeper=keeper,
        purse=purse,
        on_doubt=settings.on_doubt,
        max_in_flight=settings.max_in_flight,
        open=open,
        others=[api for api, _ in APIS.values()],
    )


def _keeper(settings: Settings, opened: Opened | None) -> Keeper | None:
    if opened is None:
        return None
    # Records of an earlier session may be of an API that this one does not submit to.
    own = [api for api in (settings.api, settings.successor) if api is not None]
    known = {api.name: api for api in reversed([*own, *(api for api, _ in APIS.values())])}
    return Keeper(
        opened.journal,
        api_named=lambda name: known.get(name, settings.api),
        on_doubt=settings.on_doubt,
        retry_failed=settings.retry_failed,
        wall=wall,
    )


def _purse(settings: Settings, opened: Opened | None) -> Purse | None:
    if settings.max_cost is None:
        return None
    earlier = (opened.spent if opened is not None else None) or Ledger(0.0, 0, ())
    budget = Budget(
        settings.max_cost,
        prior=EXPECTED_COST,
        spent=earlier.spent,
        unknown=earlier.unknown,
        samples=earlier.samples,
    )
    return Purse(budget)
