"""Which sessions share a gate: all of one account, at one server, on one event loop.

The service counts requests per account, so two sessions with one key are one to it. This module knows nothing of what a
gate decides.
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
    """The gate of this account on the running loop; a new one if no open session has it. The slowest pace holds."""
    of_loop = _gates.setdefault(asyncio.get_running_loop(), weakref.WeakValueDictionary())
    account = hashlib.sha256(f"{base_url}\n{key}".encode()).hexdigest()
    gate = of_loop.get(account)
    if gate is None:
        gate = of_loop[account] = Gate(per_minute)
    elif per_minute is not None:
        gate.pace.limit(per_minute)
    return gate
