"""The slots of `max_in_flight`: how many jobs of this session may run at the service at once.

A slot belongs to a listener and not to a submission: one job may be wanted by many, and a time limit frees the slot
of the one whose time is up. This module knows nothing of jobs, or of why a slot is taken or freed.
"""

from __future__ import annotations

import anyio

from aiopplx._http.clock import Clock
from aiopplx._submission import Listener


class Slots:
    """Takes slots and frees them.

    Args:
        count: how many there are.
        clock: measures time limits.
    """

    __slots__ = ("_clock", "_free")

    def __init__(self, count: int, clock: Clock) -> None:
        self._free = anyio.Semaphore(count)
        self._clock = clock

    @property
    def value(self) -> int:
        """How many are free."""
        return self._free.value

    async def take(self, listener: Listener, until: float) -> bool:
        """Wait for a slot for this listener. False if none was free until that moment, in monotonic seconds."""
        free = self._free
        # Cheaper than to ask twice whether anybody waits, which is what `acquire` does.
        if free.value:
            free.acquire_nowait()
        else:
            try:
                async with self._clock.timeout_at(until):
                    await free.acquire()
            except TimeoutError:
                return False
        listener.has_slot = True
        return True

    def free(self, listener: Listener) -> None:
        """This listener's job no longer counts as running, if it did."""
        if listener.has_slot:
            listener.has_slot = False
            self._free.release()
