"""The line at the gate: who waits to send a request, and who goes next.

The gate says when the next request of a lane may leave. Somebody has to wait for that moment, and if all who wait did
so side by side, all would leave at it. So each lane has a line, and only the first in it asks the gate. It asks again
when the time is up and after each answer that may have changed the gate's state. A request that finds nobody in
front of it and the gate open passes in one synchronous step, without a task switch.

Today the rule is first come, first served in each lane. A rule between lanes or classes of requests belongs here.

This module knows nothing of what is sent, or of what an answer means.
"""

from __future__ import annotations

import asyncio
import math

import anyio

from aiopplx._http.clock import Clock
from aiopplx._policy.gate import Gate
from aiopplx._policy.retry import Bounds
from aiopplx._wire.call import Lane


class Line:
    """Those of one session who wait at the gate of its account."""

    __slots__ = ("_changed", "_clock", "_first", "gate")

    def __init__(self, gate: Gate, clock: Clock) -> None:
        self.gate = gate
        self._clock = clock
        self._first = {lane: asyncio.Lock() for lane in Lane}
        self._changed = asyncio.Event()

    def passes(self, lane: Lane) -> bool:
        """Let a request of this lane leave if nobody waits in front of it and the gate is open."""
        gate = self.gate
        now = self._clock.now()
        if gate.stop is not None or self._first[lane].locked() or gate.delay(lane, now) > 0.0:
            return False
        gate.leave(lane, now)
        return True

    async def wait(self, lane: Lane, bounds: Bounds) -> None:
        """Wait until a request of this lane may leave; once this returns, it counts as having left.

        Raises:
            AiopplxError: what stopped submissions, if this is one.
            TimeoutError: waiting within `bounds` is, or has become, pointless.
        """
        if self.passes(lane):
            return
        gate, clock = self.gate, self._clock
        if gate.silence(clock.now()) > bounds.silence:
            raise TimeoutError
        first = self._first[lane]
        await acquire(first, clock, bounds.until)
        try:
            while True:
                now = clock.now()
                if lane is Lane.SUBMIT and (stop := gate.halted(now)) is not None:
                    raise stop.about()
                delay = gate.delay(lane, now)
                if delay <= 0.0:
                    gate.leave(lane, now)
                    return
                patience = bounds.unanswered - gate.silent_server(now)
                if now + delay > bounds.until or gate.silence(now) > bounds.silence or patience <= 0.0:
                    raise TimeoutError
                await clock.wait(self._changed, min(delay, patience))
        finally:
            first.release()

    def wake(self) -> None:
        """Something may have changed: everybody who is first asks the gate again."""
        self._changed.set()
        self._changed = asyncio.Event()


async def acquire(lock: asyncio.Lock | anyio.Semaphore, clock: Clock, until: float) -> None:
    """Acquire it, or raise `TimeoutError` at the moment `until`, however many wait in front."""
    if until == math.inf:
        await lock.acquire()
        return
    async with clock.timeout(max(0.0, until - clock.now())):
        await lock.acquire()
