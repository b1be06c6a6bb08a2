"""From the settings of a session to its moving parts.

Every part is made here and knows only what it is handed. This module knows nothing of what users call.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable

from aiopplx._config import APIS, JournalOptions, Settings
from aiopplx._core.engine import Engine
from aiopplx._core.keeper import Keeper
from aiopplx._core.poller import Poller
from aiopplx._core.spending import Purse
from aiopplx._events import Event
from aiopplx._http.account import shared_gate
from aiopplx._http.client import Client
from aiopplx._http.transport import Transport
from aiopplx._policy.budget import Budget
from aiopplx.journal._protocol import Journal, JournalLocked, Ledger, fingerprint

EXPECTED_COST = 1.3
"""US dollars: at the upper end of what deep-research jobs were seen to cost ($0.84 to $1.26 in five of June 2026)."""
LOCK_SECONDS = 0.5
"""Real seconds after which a journal that another process has open is tried again."""


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


async def open_journal(
    settings: Settings, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> Opened | None:
    """Open the journal, if there is to be one. Raises `JournalError`.

    A file that another process has open is waited for as long as `JournalOptions.wait` says, in real time: the other
    process does not live by this session's clock.
    """
    given = settings.journal
    if given is None:
        return None
    is_ours = isinstance(given, JournalOptions)
    journal = await _open_file(given, settings, sleep) if isinstance(given, JournalOptions) else given
    # A store's threads take real time, in which a clock that jumps must stand still. `follow` waits for another
    # session, for which time has to pass.
    journal = settings.clock.guard(journal, but=("follow",))
    try:
        spent = await journal.ledger() if settings.max_cost is not None else None
    except BaseException:
        if is_ours:
            await journal.close()
        raise
    return Opened(journal, spent, is_ours=is_ours)


async def _open_file(
    options: JournalOptions, settings: Settings, sleep: Callable[[float], Awaitable[object]]
) -> Journal:
    from aiopplx.journal._sqlite.journal import SqliteJournal  # sqlite3 is for those who keep a journal

    # The lock is the kernel's and tells nobody when it is free: it is tried again from time to time.
    tries_left = math.ceil(options.wait / LOCK_SECONDS)
    while True:
        try:
            return await SqliteJournal.open(
                options.path,
                now=settings.clock.wall,
                results=options.results,
                same_account=options.same_account,
                base_url=settings.base_url,
                account=lambda salt: fingerprint(settings.key.reveal(), salt),
            )
        except JournalLocked:
            if tries_left <= 0:
                raise
        tries_left -= 1
        await sleep(LOCK_SECONDS)


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
        settings.network,
        clock=settings.clock,
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
        on_doubt=settings.retry.on_doubt,
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
        on_doubt=settings.retry.on_doubt,
        retry_failed=isinstance(settings.journal, JournalOptions) and settings.journal.retry_failed,
        wall=settings.clock.wall,
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
