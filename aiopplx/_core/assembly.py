"""From the settings of a session to its moving parts.

Every part is made here and knows only what it is handed. This module knows nothing of what users call.
"""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from aiopplx._checks.span import span_of
from aiopplx._config import JournalOptions, Settings
from aiopplx._core.batch.asked import Asked
from aiopplx._core.calls import Calls
from aiopplx._core.freezing import freeze
from aiopplx._core.lifecycle import Lifecycle
from aiopplx._core.poller import Poller
from aiopplx._core.shared.holding import Collector
from aiopplx._core.spending import Bounded, Spending, Unbounded
from aiopplx._core.store.learnt import DURATIONS, LIMITS, Learnt, Part
from aiopplx._core.store.opening import SessionStore
from aiopplx._core.store.reaching import CLOSING
from aiopplx._events import Emitter
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
from aiopplx._wire.api import Tier
from aiopplx.apis._registry import Routing, published
from aiopplx.journal._names import NOTE

if TYPE_CHECKING:
    from aiopplx._core.shared.pacing import Pacing


class Core:
    """The moving parts of one open session.

    Attributes:
        settings: what the session was made with.
        membership: its part in the account; ends with the session.
        client: sends requests.
        life: takes submissions through their phases.
        learnt: what is kept of what was learnt about the service.
        calls: the calls that wait.
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
        reach, store = opened.reach, opened.reach.store
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
            reach,
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
        learnt = Learnt(reach, opened.known, durations, self._limits(), *_notes(settings))
        self.learnt: Learnt = learnt
        life.learnt = learnt
        self.freeze: partial[Submission] = partial(freeze, routing=routing, new_key=_new_key)
        self.calls: Calls = Calls(life)
        self.asked: Asked | None = None if store.remembers else Asked()
        self._is_ours = reach.is_ours
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
            from aiopplx._core.shared.pacing import Pacing  # the same

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

    def forecast(
        self, subs: Iterable[Submission] | None = None, *, waiting: int = 0, places: int | None = None
    ) -> Forecast:
        """What is expected of these jobs; of all that run here, if none are given.

        `waiting` more are still to be submitted, and `places` of them run at once at most; default `max_in_flight`.
        """
        clock = self.client.clock
        now = clock.now()
        asked = self.life.live.by_id.values() if subs is None else subs
        polled = [sub.polls for sub in asked if sub.polls is not None]
        jobs = [(polls.law, now - polls.since) for polls in polled if polls.law is not None]
        return forecast(
            jobs,
            clock.wall(),
            waiting=waiting,
            places=min(self.settings.max_in_flight, places or self.settings.max_in_flight),
            per_second=self.client.gate.limits.submit.rate,
            usual=self.life.poller.laws.latest,
        )


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
    client = Client(
        transport,
        membership.gate,
        settings.retry,
        clock=settings.clock,
        random=random.random,  # noqa: S311 - jitter, nothing secret
        emit=emitter.emit,
        has_handlers=emitter.has_handlers,
        is_only_api=routing.is_only,
    )
    transport.notify(client.tell_if_away)
    return client


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
        from aiopplx._core.shared.pooling import Pooled  # the same, of a budget

        return Pooled(opened.pool, budget, settings.clock, opened.spent)
    return Bounded(budget, settings.clock, opened.spent)
