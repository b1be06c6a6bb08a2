"""Which sessions share a gate: those of one account.

What one account is
-------------------
The service knows an account by its API key, and counts by account: how many submissions it makes in a minute, what
credit it has left, whether its key is valid. Two sessions with one key are one client to the service, however separate
they are in the program. If each kept a pace of its own they would send twice what is allowed, and one would send into a
silence that the server had asked of the other. So they share one gate, and with it the pace, the silence, the stops and
what is known of an outage.

An account is a key *at a server*: the same key at another address (a gateway, an emulator) is limited by somebody else.
A gate also belongs to one event loop, since those who wait at it are tasks of that loop. Sessions on other loops and in
other processes are other clients of the same account; they learn of each other only by what the server refuses.

Where sessions ask for different rates the slowest holds, because the limit was given for the account. A gate is kept as
long as a session refers to it, and no longer: what was learnt by one run does not hold back the next.

The key is never kept here, only a digest of it. This module knows nothing of what a gate decides.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref

from aiopplx._policy.gate import Gate

_gates: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakValueDictionary[str, Gate]] = (
    weakref.WeakKeyDictionary()
)


def shared_gate(base_url: str, key: str, per_minute: float | None) -> Gate:
    """The gate of this account on the running loop; a new one if no open session has it.

    Args:
        base_url: the server.
        key: the API key.
        per_minute: the most submissions a minute that this session allows, None for no limit of its own.
    """
    of_loop = _gates.setdefault(asyncio.get_running_loop(), weakref.WeakValueDictionary())
    account = hashlib.sha256(f"{base_url}\n{key}".encode()).hexdigest()
    gate = of_loop.get(account)
    if gate is None:
        gate = of_loop[account] = Gate(per_minute)
    elif per_minute is not None:
        gate.pace.limit(per_minute)
    return gate
