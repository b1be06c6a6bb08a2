"""The places of `max_in_flight`: how many jobs of this session may run at the service at once.

A place belongs to a listener and not to a submission: one job may be wanted by many, and a time limit frees the place
of the one whose time is up. This module knows nothing of jobs, or of why a place is taken or freed.
"""

from __future__ import annotations

import anyio

from aiopplx._http.clock import Clock
from aiopplx._submission import Listener


class Slots:
    """Takes places and frees them.

    Args:
        count: how many there are.
        clock: measures time limits.
    """

    __slots__ = ("_clock", "_places")

    def __init__(self, count: int, clock: Clock) -> None:
        self._places = anyio.Semaphore(count)
        self._clock = clock

    @property
    def value(self) -> int:
        """How many are free."""
        return self._places.value

    async def take(self, listener: Listener, until: float) -> bool:
        """Wait for a place for this listener. False if none was free until that moment, in monotonic seconds."""
        places = self._places
        # Cheaper than to ask twice whether anybody waits, which is what `acquire` does.
        if places.value:
            places.acquire_nowait()
        else:
            try:
                async with self._clock.timeout_at(until):
                    await places.acquire()
            except TimeoutError:
                return False
        listener.has_slot = True
        return True

    def free(self, listener: Listener) -> None:
        """This listener's job no longer counts as running, if it did."""
        if listener.has_slot:
            listener.has_slot = False
            self._places.release()
