"""Which sessions share a gate: those of one account.

What one account is
-------------------
The service knows an account by its API key, and counts by account: how many submissions it makes in a minute, what
credit it has, whether its key is valid. Two sessions with one key are one client to the service, however separate
they are in the program. If each kept limits of its own they would send twice what is allowed, and one would send into
a silence that the server had asked of the other. So they share one gate, and with it the limits, the silence, the stops
and what is known of an outage.

An account is a key *at a server*: the same key at another address (a gateway, an emulator) is limited by somebody else.
A gate also belongs to one event loop, since those who wait at it are tasks of that loop. Sessions on other loops and in
other processes are other clients of the same account; they learn of each other only by what the server refuses, unless
they share a database (`Session(shared=)`): then departures come from there for all sessions of this gate.

Where sessions ask for different rates the slowest holds, because the limit was given for the account. All of this lasts
as long as a session of the account is open, and no longer: what one run was allowed, or has learnt, does not hold back
the next, even if the program still refers to the session that it closed.

What a session has met on its way to the server is not the account's. Sessions that go through a proxy, or were given
their own HTTP client (`http=`), share a route only with those that have the same one, so a proxy that is down holds
back nobody else.

The key is never kept here, only a digest of it. Sessions may be opened and closed in threads, each with its own loop.
This module knows nothing of what a gate decides.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import weakref
from collections.abc import Callable
from typing import Final

from aiopplx._http.proxy import Proxy
from aiopplx._http.secret import Secret
from aiopplx._policy.gate import Gate
from aiopplx._wire.api import Tier


class Membership:
    """One open session's part in its account.

    Attributes:
        gate: through which its requests leave.
        opened: called when departures came from elsewhere, for whichever session of the account.
    """

    __slots__ = ("__weakref__", "_account", "gate", "opened", "per_minute", "tier", "way", "with_others")

    def __init__(
        self,
        account: _Account,
        gate: Gate,
        per_minute: float | None,
        way: int,
        tier: Tier | None,
        *,
        with_others: bool,
    ) -> None:
        self._account = account
        self.gate: Gate = gate
        self.per_minute: float | None = per_minute
        self.tier = tier
        self.way: int = way
        self.with_others: bool = with_others
        self.opened: Callable[[], object] = _nothing

    def came(self) -> None:
        """Departures came from elsewhere: all sessions of the account look whether they may leave now."""
        for member in [*self._account.members]:
            member.opened()

    def allow(self, tier: Tier | None) -> None:
        """The session says anew what the account's tier allows."""
        with _LOCK:
            self.tier = tier
            self._account.limit()

    def end(self) -> None:
        """The session is closed; a second call does nothing."""
        with _LOCK:
            self._account.members.discard(self)
            self._account.limit()


def _nothing() -> None:
    """Until a session has somebody who waits."""


class _Account:
    """What the open sessions of one account share."""

    def __init__(self) -> None:
        # Weakly, so that a session that was dropped without being closed is no member any more.
        self.members: weakref.WeakSet[Membership] = weakref.WeakSet()

    def limit(self) -> None:
        """Of what the open sessions allow the lowest holds; a rate that a user gave is above a tier."""
        for member in self.members:
            limits = member.gate.limits  # one for all
            rates = [member.per_minute for member in self.members if member.per_minute is not None]
            tiers = [member.tier for member in self.members if member.tier is not None]
            with_others = any(member.with_others for member in self.members)
            if rates or not tiers:
                limits.allow(min(rates, default=None), with_others=with_others)
            else:
                limits.allow_tier(*min(tiers, key=lambda tier: tier.submit), with_others=with_others)
            break


_LOCK: Final = threading.Lock()
_accounts: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakValueDictionary[str, _Account]] = (
    weakref.WeakKeyDictionary()
)


def join(
    base_url: str,
    key: Secret,
    per_minute: float | None,
    way: object = None,
    *,
    tier: Tier | None = None,
    with_others: bool = False,
) -> Membership:
    """Make a session a member of its account on the running loop, until `Membership.end`.

    Args:
        base_url: the server.
        key: the API key.
        per_minute: the most submissions a minute that this session allows, None for no limit of its own.
        way: the HTTP client that the session was given, or its proxy; None: connections of its own, without a proxy.
        tier: the limits of the account's usage tier, if the session gives it.
        with_others: this rate, or this tier, is that of several processes together, which share it elsewhere.
    """
    loop = asyncio.get_running_loop()
    name = hashlib.sha256(f"{base_url}\n{key.reveal()}".encode()).hexdigest()
    with _LOCK:
        of_loop = _accounts.setdefault(loop, weakref.WeakValueDictionary())
        account = of_loop.get(name)
        if account is None:
            account = of_loop[name] = _Account()
        members = list(account.members)
        number = hash(way) if isinstance(way, Proxy) else id(way)
        same_way = next((member.gate for member in members if member.way == number), None)
        beside = members[0].gate if members else None
        gate = same_way or Gate(beside=beside)
        membership = Membership(account, gate, per_minute, number, tier, with_others=with_others)
        account.members.add(membership)
        account.limit()
    return membership
