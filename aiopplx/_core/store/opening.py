"""Opens the store of a session, and the account that processes share: a file, a database, one of the caller's own, or
nothing that remembers.

This module knows the settings, and nothing of what the moving parts do with a store.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, cast

from aiopplx._config import JournalOptions, Settings
from aiopplx._core.store.learnt import recalled
from aiopplx._core.store.reaching import CLOSING, Reach
from aiopplx._events import Emitter, Event, EventKind
from aiopplx._http.apart import closed
from aiopplx._text.amounts import dollars
from aiopplx.journal._errors import JournalAway, JournalLocked
from aiopplx.journal._forgetful import ForgetfulJournal
from aiopplx.journal._names import fingerprint
from aiopplx.journal._postgres.url import Address, Url, address_of
from aiopplx.journal._protocol import Journal, Pool
from aiopplx.journal._records import Ledger
from aiopplx.journal._unwritten import Unwritten

if TYPE_CHECKING:
    from aiopplx.journal._postgres.account import SharedAccount
    from aiopplx.journal._postgres.hearing import Hearing
    from aiopplx.journal._postgres.journal import PostgresJournal
    from aiopplx.journal._postgres.room import Database
    from aiopplx.journal._sqlite.journal import SqliteJournal

LOCK_SECONDS = 0.5
"""Real seconds after which a journal that another process has open, or that is away, is tried again."""


class SessionStore:
    """The open store of a session, and what it says of earlier runs.

    Attributes:
        reach: asks the store.
        spent: what earlier runs have spent.
        known: what they have learnt.
        shared: the account as other processes share it; None if they do not.
        pool: the budget that this session has with others; None if it has one of its own, or none.
    """

    def __init__(self, reach: Reach, shared: OpenAccount | None = None) -> None:
        self.reach: Reach = reach
        self.spent: Ledger = Ledger()
        self.known: Mapping[str, bytes] = {}
        self.shared: OpenAccount | None = shared
        self.pool: Pool | None = None

    async def close(self, tell: Callable[[list[Unwritten]], object]) -> None:
        """Close what the session opened; see `Reach.close`. What is shared has `CLOSING` real seconds too."""
        try:
            if self.shared is not None:
                with contextlib.suppress(TimeoutError):
                    await closed(self.shared.close(), CLOSING)
        finally:
            await self.reach.close(tell)


class OpenAccount:
    """An account that processes share, and the database that was opened for it; None if that is the journal's."""

    def __init__(self, account: SharedAccount, database: Database | None) -> None:
        self.account: SharedAccount = account
        self._database = database

    async def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            await self._database.close()


async def _open_account(settings: Settings, emitter: Emitter) -> OpenAccount | None:
    """Reach the database of `shared`, if that is not the journal's as well. Raises `JournalError`."""
    address, journal = settings.shared, _journal_of(settings)
    if address is None or (journal is not None and journal.name == address.name):
        return None
    from aiopplx.journal._postgres.hearing import DEAF, reach  # only for those who share an account

    database, hearing = await reach(address)
    if not hearing.hears:
        emitter.emit(Event(kind=EventKind.WARNING, reason=DEAF))
    try:
        account = await _account_in(database, hearing, address, settings)
        database.opened()
        return OpenAccount(account, database)
    except BaseException:
        await database.close()
        raise


async def _account_in(database: Database, hearing: Hearing, address: Address, settings: Settings) -> SharedAccount:
    from aiopplx.journal._postgres.account import SharedAccount  # the same

    return await SharedAccount.open(
        database, hearing, schema=address.schema, base_url=settings.base_url, key=settings.key.reveal()
    )


def _journal_of(settings: Settings) -> Address | None:
    """Where the journal is, if it is in a database."""
    given = settings.journal
    return address_of(given.path) if isinstance(given, JournalOptions) and isinstance(given.path, Url) else None


def without_journal(settings: Settings, emitter: Emitter, shared: OpenAccount | None = None) -> SessionStore:
    """The store of a session without a journal: it forgets."""
    return SessionStore(_reach(ForgetfulJournal(), settings, emitter), shared)


def _reach(store: Journal, settings: Settings, emitter: Emitter, *, is_ours: bool = True) -> Reach:
    jitter = random.random  # noqa: S311 - nothing secret
    return Reach(store, settings.clock, emitter, patience=settings.timeout, random=jitter, is_ours=is_ours)


async def open_store(
    settings: Settings, emitter: Emitter, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> SessionStore:
    """Open the journal and what processes share, if there is to be any. Raises `JournalError`.

    A file that another process has open, and a database that cannot be reached, are waited for, at most
    `JournalOptions.wait` seconds of real time: neither knows anything of this session's clock.
    """
    with settings.clock.busy():
        shared = await _open_account(settings, emitter)
    try:
        return await _open_journal(settings, emitter, shared, sleep)
    except BaseException:
        if shared is not None:
            await shared.close()
        raise


async def _open_journal(
    settings: Settings, emitter: Emitter, shared: OpenAccount | None, sleep: Callable[[float], Awaitable[object]]
) -> SessionStore:
    given = settings.journal
    if given is None:
        return without_journal(settings, emitter, shared)
    if not isinstance(given, JournalOptions):
        reach = _reach(given, settings, emitter, is_ours=False)
    elif isinstance(given.path, Url):
        database = await _open_database(given, given.path, settings, emitter, sleep)
        if shared is None:
            shared = await _shared_by(database, address_of(given.path), settings)
        reach = _reach(database, settings, emitter)
    else:
        reach = _reach(await _open_file(given, settings, sleep), settings, emitter)
    opened = SessionStore(reach, shared)
    try:
        if settings.max_cost is not None:
            seconds = settings.retry.call_seconds
            opened.spent = await reach.within(reach.store.ledger(), seconds)
            opened.pool = await reach.within(_pool(reach.store, settings.max_cost, emitter), seconds)
        opened.known = await recalled(reach)
    except BaseException:
        await reach.close(lambda unwritten: None)  # nothing was asked of it but to read
        raise
    return opened


async def _pool(store: Journal, max_cost: float, emitter: Emitter) -> Pool | None:
    """The budget of all sessions of the store, if it keeps one: its cap is this session's from now on."""
    if not callable(getattr(store, "hold", None)):
        return None
    pool = cast("Pool", store)
    before = await pool.cap(max_cost)
    if before is not None and before != max_cost:
        reason = (
            f"max_cost was {dollars(before)} for all sessions of this journal, and is {dollars(max_cost)} from now on"
        )
        emitter.emit(Event(kind=EventKind.WARNING, reason=reason))
    return pool


async def _open_file(
    options: JournalOptions, settings: Settings, sleep: Callable[[float], Awaitable[object]]
) -> SqliteJournal:
    from aiopplx.journal._sqlite.journal import SqliteJournal  # sqlite3 is loaded only for those who keep a journal

    # The kernel's lock does not say when it becomes free, so it is tried again from time to time.
    tries_left = math.ceil(options.wait / LOCK_SECONDS)
    while True:
        try:
            return await SqliteJournal.open(
                options.path,
                now=settings.clock.wall,
                results=options.results,
                same_account=options.same_account,
                without_log=options.without_log,
                replace=options.replace,
                base_url=settings.base_url,
                account=lambda salt: fingerprint(settings.key.reveal(), salt),
            )
        except JournalLocked:
            if tries_left <= 0:
                raise
        tries_left -= 1
        await sleep(LOCK_SECONDS)


async def _open_database(
    options: JournalOptions,
    url: Url,
    settings: Settings,
    emitter: Emitter,
    sleep: Callable[[float], Awaitable[object]],
) -> PostgresJournal:
    from aiopplx.journal._postgres.journal import PostgresJournal  # its driver is an extra

    clock = asyncio.get_running_loop().time  # each try may take long, too
    until, is_told = clock() + options.wait, False
    with settings.clock.busy():
        while True:
            try:
                return await PostgresJournal.open(
                    url,
                    results=options.results,
                    same_account=options.same_account,
                    replace=options.replace,
                    base_url=settings.base_url,
                    account=lambda salt: fingerprint(settings.key.reveal(), salt),
                )
            except JournalAway as error:
                if clock() >= until:
                    raise
                if not is_told:
                    is_told = True
                    reason = f"{error.message}: it is waited for, {options.wait:,.0f} s at most"
                    emitter.emit(Event(kind=EventKind.WARNING, reason=reason))
            await sleep(LOCK_SECONDS)


async def _shared_by(journal: PostgresJournal, address: Address, settings: Settings) -> OpenAccount:
    """The account as the sessions of a journal share it, by its own connections."""
    try:
        with settings.clock.busy():
            return OpenAccount(await _account_in(journal.database, journal.hearing, address, settings), None)
    except BaseException:
        with contextlib.suppress(TimeoutError):
            await closed(journal.close(), CLOSING)
        raise
