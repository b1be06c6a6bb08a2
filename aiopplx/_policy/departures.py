"""Departures that were fetched ahead, from a place at which several processes share one limit.

That place is asked over a network, and the gate decides at once. So one departure lies ready here before it is needed,
or two where the limit is above 20 a second, as long as somebody waits for one. A request that leaves takes the first,
and makes room for another. If nobody waits, none is fetched: a departure that one process fetches and does not use is
lost to the others. For the same reason one that was not used within a second after its moment is forgotten, for it
would then come in addition to those that others have reserved since.

Whoever fetches asks `order` how many are wanted, and says what came of it: `came` or `failed`. While the place cannot
be reached nothing leaves but what lies here.

This module knows nothing of where departures come from, nor of tasks and clocks: `now` is an argument, in monotonic
seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

FAST = 20.0
"""Departures a second above which two are fetched ahead, and not one."""
GOOD_FOR = 1.0
"""Seconds after its moment for which a departure may still be used."""
GUESS, AT_ONCE = 1.0, 0.001
"""Seconds after which it is asked again: while some are being fetched, unless they come sooner; and if none are."""


class Fetched:
    """One limit that processes share: see `Departures` in `limiter`.

    Args:
        wanted: called when departures are to be fetched.

    Attributes:
        interval: seconds between two departures.
        saved: seconds of departures that may be made up for after a pause.
    """

    __slots__ = ("_asked", "_held", "_is_wanted", "_wanted", "interval", "saved")

    def __init__(self, wanted: Callable[[], object]) -> None:
        self.interval = 1.0
        self.saved = 0.0
        self._wanted = wanted
        self._held: deque[float] = deque()  # the moments from which on each may leave
        self._asked = 0
        self._is_wanted = False

    def allow(self, per_minute: float, burst: float) -> None:
        """So many requests a minute may leave, and so many at once after a pause."""
        self.interval = 60.0 / per_minute
        self.saved = max(0.0, burst - 1.0) * self.interval

    # --- departures --------------------------------------------------------------------------------------------------

    def delay(self, now: float) -> float:
        """See `Departures`."""
        for due in self._held:
            if now <= due + GOOD_FOR:
                return due - now
        return GUESS if self._is_wanted or self._asked else AT_ONCE

    def waits_for_answer(self) -> bool:
        """See `Departures`."""
        return not self._held

    def want(self, now: float) -> None:
        """See `Departures`."""
        self._forget(now)
        if self._missing() > 0 and not self._is_wanted:
            self._is_wanted = True
            self._wanted()

    def leave(self, now: float) -> None:
        """See `Departures`."""
        self._forget(now)
        if self._held:
            self._held.popleft()

    def back(self, sent_at: float) -> None:
        """See `Departures`: what comes back changes nothing here."""

    def accepted(self, now: float, sent_at: float) -> None:
        """See `Departures`: what comes back changes nothing here."""

    def _forget(self, now: float) -> None:
        while self._held and now > self._held[0] + GOOD_FOR:
            self._held.popleft()

    def _missing(self) -> int:
        return (2 if self.interval * FAST < 1.0 else 1) - len(self._held) - self._asked

    # --- whoever fetches ---------------------------------------------------------------------------------------------

    def order(self, now: float) -> int:
        """How many departures are to be fetched now. They count as asked for, until they `came` or it `failed`."""
        self._forget(now)
        count = max(0, self._missing()) if self._is_wanted else 0
        self._is_wanted = False
        self._asked += count
        return count

    def came(self, now: float, count: int, first: float) -> None:
        """So many departures came, of which the first is in `first` seconds, and each further one an interval later.

        The seconds were counted when the answer was made, so they begin too late here, by as long as it was on its way.
        None is early.
        """
        self._asked -= count
        self._held.extend(now + max(0.0, first + number * self.interval) for number in range(count))

    def failed(self, count: int) -> None:
        """They did not come. Whoever still wants one says so again."""
        self._asked -= count
