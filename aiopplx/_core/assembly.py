"""From the settings of a session to its moving parts.

Every part is made here and knows only what it is handed. This module knows nothing of what users call.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

from aiopplx._checks.span import span_of
from aiopplx._config import JournalOptions, Settings
from aiopplx._core.asked import Asked
from aiopplx._core.calls import Calls
from aiopplx._core.contained import Contained
from aiopplx._core.decisions import Decisions
from aiopplx._core.freezing import freeze
from aiopplx._core.holding import Collector
from aiopplx._core.in_time import InTime
from aiopplx._core.learnt import DURATIONS, LIMITS, Learnt, Part, recalled
from aiopplx._core.lifecycle import Lifecycle
from aiopplx._core.patience import patient
from aiopplx._core.poller import Poller
from aiopplx._core.spending import Bounded, Spending, Unbounded
from aiopplx._events import Emitter, Event, EventKind
from aiopplx._http.account import Membership, join
from aiopplx._http.apart import closed
from aiopplx._http.client import Client
from aiopplx._http.proxy import Proxy, proxy_for
from aiopplx._http.transport import Transport
from aiopplx._policy.budget import Budget
from aiopplx._policy.durations import PRICE
from aiopplx._policy.forecast import Forecast, forecast
from aiopplx._policy.laws import Laws
from aiopplx._submission import Submission
from aiopplx._text.amounts import dollars
from aiopplx._wire.api import Tier
from aiopplx.apis._registry import Routing, published
from aiopplx.journal._errors import JournalLocked
from aiopplx.journal._forgetful import ForgetfulJournal
from aiopplx.journal._names import NOTE, fingerprint
from aiopplx.journal._postgres.url import Address, Url, address_of
from aiopplx.journal._protocol import Journal, Pool
from aiopplx.journal._records import Ledger
from aiopplx.journal._unwritten import Unwritten

if TYPE_CHECKING:
    from aiopplx._core.pacing import Pacing
    from aiopplx.journal._postgres.account import SharedAccount
    from aiopplx.journal._postgres.hearing import Hearing
    from aiopplx.journal._postgres.journal import PostgresJournal
    from aiopplx.journal._postgres.room import Database
    from aiopplx.journal._sqlite.journal import SqliteJournal

CLOSING = 3.0
"""Real seconds in which a store should have written everything and closed."""
LOCK_SECONDS = 0.5
"""Real seconds after which a journal that another process has open is tried again."""


# --- the store -------------------------------------------------------------------------------------------------------


class SessionStore:
    """The open store of a session, and what it says of earlier runs. Closes only a store that it opened.

    Attributes:
        store: the store.
        spent: what earlier runs have spent.
        known: what they have learnt.
        is_ours: the session has opened it, and closes it.
        shared: the account as other processes share it; None if they do not.
        pool: the budget that this session has with others; None if it has one of its own, or none.
    """

    def __init__(
        self,
        store: Journal,
        spent: Ledger,
        known: Mapping[str, bytes],
        given: SqliteJournal | PostgresJournal | Contained | None = None,
        *,
        shared: OpenAccount | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.store = store
        self.pool = pool
        self.shared = shared
        self.spent = spent
        self.known = known
        self.is_ours: bool = given is not None and not isinstance(given, Contained)
        self._given = given

    async def close(self, tell: Callable[[list[Unwritten]], object]) -> None:
        """Close what the session opened, each in `CLOSING` real seconds. Then nobody waits for it any more.

        A journal whose disk stalls keeps its file locked; it writes what it was given, and closes, when that is over.

        Args:
            tell: called if the store has not answered, with the steps that may not be written.
        """
        try:
            if self.shared is not None:
                with contextlib.suppress(TimeoutError):
                    await closed(self.shared.close(), CLOSING)
        finally:
            await self.close_journal(tell)

    async def close_journal(self, tell: Callable[[list[Unwritten]], object]) -> None:
        """The same for the store alone."""
        given, self._given = self._given, None
        if given is None:
            return
        is_late = False
        try:
            if not isinstance(given, Contained):
                await closed(given.close(), CLOSING)
        except TimeoutError:
            is_late = True
        finally:
            unwritten = [Unwritten(*each) for each in given.abandon()]
            if unwritten or is_late:
                tell(unwritten)


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


def without_journal() -> SessionStore:
    """The store of a session without a journal: it forgets."""
    return SessionStore(ForgetfulJournal(), Ledger(), {})


async def open_store(
    settings: Settings, emitter: Emitter, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> SessionStore:
    """Open the journal and what processes share, if there is to be any. Raises `JournalError`.

    A file that another process has open is waited for, at most `JournalOptions.wait` seconds of real time: the other
    process knows nothing of this session's clock.
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
        return SessionStore(ForgetfulJournal(), Ledger(), {}, shared=shared)
    opened_store: SqliteJournal | PostgresJournal | Contained
    if not isinstance(given, JournalOptions):
        opened_store = Contained(given)
    elif isinstance(given.path, Url):
        opened_store = await _open_database(given, given.path, settings)
        if shared is None:
            shared = await _shared_by(opened_store, address_of(given.path), settings)
    else:
        opened_store = await _open_file(given, settings, sleep)
    # A store's threads take real time, in which a clock that jumps must stand still. `follow` waits for another
    # session, for which time has to pass.
    store = settings.clock.guard(cast("Journal", opened_store), but=("follow",))
    if store.shares:
        store = patient(
            store,
            settings.clock,
            emitter,
            seconds=settings.timeout,
            random=random.random,  # noqa: S311 - jitter, nothing secret
        )
    opened = SessionStore(store, Ledger(), {}, opened_store, shared=shared)
    try:
        if settings.max_cost is not None:
            in_time, seconds = InTime(settings.clock), settings.retry.call_seconds
            opened.spent = await in_time.within(store.ledger(), seconds)
            opened.pool = await in_time.within(_pool(store, settings.max_cost, emitter), seconds)
        opened.known = await recalled(store, InTime(settings.clock))
    except BaseException:
        await opened.close_journal(lambda unwritten: None)  # nothing was asked of it but to read
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


async def _open_database(options: JournalOptions, url: Url, settings: Settings) -> PostgresJournal:
    from aiopplx.journal._postgres.journal import PostgresJournal  # its driver is an extra

    with settings.clock.busy():
        return await PostgresJournal.open(
            url,
            results=options.results,
            same_account=options.same_account,
            replace=options.replace,
            base_url=settings.base_url,
            account=lambda salt: fingerprint(settings.key.reveal(), salt),
        )


async def _shared_by(journal: PostgresJournal, address: Address, settings: Settings) -> OpenAccount:
    """The account as the sessions of a journal share it, by its own connections."""
    try:
        with settings.clock.busy():
            return OpenAccount(await _account_in(journal.database, journal.hearing, address, settings), None)
    except BaseException:
        await journal.close()
        raise


# --- the moving parts ------------------------------------------------------------------------------------------------


class Core:
    """The moving parts of one open session.

    Attributes:
        settings: what the session was made with.
        membership: its part in the account; ends with the session.
        client: sends requests.
        life: takes submissions through their phases.
        learnt: what is kept of what was learnt about the service.
        calls: the calls that wait.
        decisions: what the user decides about the journal's rows.
        asked: what batches have asked; None with a journal, which knows better.
        pacing: passes on what the account shares with other processes; None if it shares nothing.
        emitter: delivers events.
        freeze: makes a new submission of this session (`_core.freezing`).
        ensure_open: opens the session if necessary; raises `ConfigError` if it cannot be used (closed, another loop).
    """

    def __init__(
        self, settings: Settings, opened: SessionStore, emitter: Emitter, ensure_open: Callable[[], object]
    ) -> None:
        self.settings = settings
        self.emitter = emitter
        self.ensure_open = ensure_open
        store = opened.store
        routing = Routing(settings.api, settings.successor, remembers=store.remembers)
        proxy = proxy_for(settings.network, settings.base_url)
        way = settings.http if settings.http is not None else proxy
        self.membership: Membership = join(
            settings.base_url,
            settings.key,
            settings.rpm,
            way,
            tier=_tier(settings, routing),
            with_others=opened.shared is not None,
        )
        self.client: Client = _client(settings, routing, emitter, self.membership, proxy)
        client = self.client
        life = Lifecycle(
            store,
            routing,
            client,
            _spending(settings, opened),
            emitter,
            max_in_flight=settings.max_in_flight,
            retry_failed=isinstance(settings.journal, JournalOptions) and settings.journal.retry_failed,
            new_key=_new_key,
        )
        self.life: Lifecycle = life
        laws = Laws(published, settings.poll.price or PRICE)
        life.poller = Poller(client, settings.poll, life, laws=laws)
        durations = Part(DURATIONS, laws.restore, laws.export)
        learnt = Learnt(store, life.in_time, opened.known, durations, self._limits(), *_notes(settings))
        self.learnt: Learnt = learnt
        life.learnt = learnt
        self.freeze: partial[Submission] = partial(freeze, routing=routing, new_key=_new_key)
        self.calls: Calls = Calls(life)
        self.decisions: Decisions = Decisions(life)
        self.asked: Asked | None = None if store.remembers else Asked()
        self._is_ours = opened.is_ours
        if store.shares:
            life.collector = Collector(
                life,
                settings.clock,
                at_once=settings.max_in_flight,
                collects=not isinstance(settings.journal, JournalOptions) or settings.journal.collect,
                timeout=settings.timeout,
                keep_for=_keep_for(settings),
            )
        client.on_stop = self.calls.stopped
        client.on_next_api = self._next_api
        self.membership.opened = client.line.opened
        self.pacing: Pacing | None = None
        if opened.shared is not None:
            from aiopplx._core.pacing import Pacing  # the same

            self.pacing = Pacing(opened.shared.account, client, self.membership, self._has_work)

    def _has_work(self) -> bool:
        """Whether a request is waited for, or will leave sooner or later."""
        return bool(self.life.live.by_id or self.client.line.submitting or self.client.line.submits_wait)

    def _limits(self) -> Part:
        """What is learnt of the account's limits."""
        clock, limits = self.settings.clock, self.client.gate.limits
        return Part(
            LIMITS,
            lambda kept: limits.start_from(kept, clock.now(), clock.wall()),
            lambda: limits.export(clock.wall()),
        )

    def _next_api(self) -> None:
        self.client.gate.limits.forget()
        self.membership.allow(_tier(self.settings, self.life.routing))

    async def let_go(self) -> None:
        """Go on with nothing that other sessions of a shared store can go on with."""
        await self.life.elsewhere.aclose()
        if self.life.collector is not None:
            await self.life.collector.aclose()
            if not self._is_ours:
                with contextlib.suppress(TimeoutError):  # what it holds becomes free after a while
                    await closed(self.life.collector.free_all(), CLOSING)

    def forecast(self, subs: Iterable[Submission] | None = None) -> Forecast:
        """What is expected of these jobs; of all that run here, if none are given."""
        clock = self.client.clock
        now = clock.now()
        polled = [sub.polls for sub in subs or self.life.live.by_id.values() if sub.polls is not None]
        jobs = [(polls.law, now - polls.since) for polls in polled if polls.law is not None]
        return forecast(jobs, clock.wall())


def _new_key() -> str:
    return secrets.token_hex(16)


def _client(
    settings: Settings, routing: Routing, emitter: Emitter, membership: Membership, proxy: Proxy | None
) -> Client:
    """Needs the running loop."""
    transport = Transport(
        settings.base_url, settings.key, settings.network, clock=settings.clock, http=settings.http, proxy=proxy
    )
    transport.open()
    return Client(
        transport,
        membership.gate,
        settings.retry,
        clock=settings.clock,
        random=random.random,  # noqa: S311 - jitter, nothing secret
        emit=emitter.emit,
        has_handlers=emitter.has_handlers,
        is_only_api=routing.is_only,
    )


def _notes(settings: Settings) -> list[Part]:
    """What the caller notes in its journal, which is kept in the same way as what is learnt."""
    notes = settings.journal.notes if isinstance(settings.journal, JournalOptions) else {}
    return [Part(NOTE + name, lambda earlier: None, partial(bytes, value)) for name, value in notes.items()]


def _keep_for(settings: Settings) -> float | None:
    """Seconds for which submissions are kept after they ended; None: for good."""
    given = settings.journal.keep_for if isinstance(settings.journal, JournalOptions) else None
    return span_of(given) if given is not None else None


def _tier(settings: Settings, routing: Routing) -> Tier | None:
    """The limits of the account's usage tier, if it was given."""
    return routing.api.tiers[settings.tier] if settings.tier is not None else None


def _spending(settings: Settings, opened: SessionStore) -> Spending:
    if settings.max_cost is None:
        return Unbounded()
    budget = Budget(settings.max_cost, spent=opened.spent.spent)
    if opened.pool is not None:
        from aiopplx._core.pooling import Pooled  # the same, of a budget

        return Pooled(opened.pool, budget, settings.clock, opened.spent)
    return Bounded(budget, settings.clock, opened.spent)
