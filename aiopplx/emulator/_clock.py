"""The emulated clock, which may run faster than the real one and can be moved forward.

It knows nothing of jobs or of HTTP.
"""

from __future__ import annotations

import time


class Clock:
    """Emulated wall time. `scale` is emulated seconds per real second."""

    def __init__(self, scale: float) -> None:
        if scale <= 0:
            raise ValueError("time_scale must be more than 0: emulated seconds per real second")
        self.scale = scale
        self._skipped = 0.0
        self._began_wall = time.time()
        self._began = time.monotonic()

    def elapsed(self) -> float:
        """Real seconds since the clock was made."""
        return time.monotonic() - self._began

    def now(self) -> float:
        """Emulated seconds since 1970."""
        return self._began_wall + self._skipped + self.elapsed() * self.scale

    def advance(self, seconds: float) -> None:
        """Moves the emulated time forward, so that a test of a seven-day expiry takes no time."""
        if seconds < 0:
            raise ValueError("time only moves forward: seconds must not be negative")
        self._skipped += seconds

    def real(self, emulated: float) -> float:
        """How many real seconds such an emulated span lasts: what a client must wait."""
        return emulated / self.scale
