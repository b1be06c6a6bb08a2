"""The monotonic clock that every wait of a session is on.

One place, so that time can be made to pass faster: a session whose clock runs sixty times as fast lives through a
four-minute job in four seconds, with every policy unchanged. This module knows nothing of what is waited for.
"""

from __future__ import annotations

import asyncio
import time


class Clock:
    """Monotonic seconds, `speed` of them to each real one."""

    __slots__ = ("speed",)

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed

    def now(self) -> float:
        """Monotonic seconds. Never compared with a server's clock."""
        return time.monotonic() * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds / self.speed)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """`async with` that raises `TimeoutError` after so many seconds of this clock; None: never."""
        return asyncio.timeout(None if seconds is None else max(0.0, seconds) / self.speed)

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event`, at most `seconds`; True if it came."""
        try:
            async with self.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True


def wall() -> float:
    """Seconds since 1970: for what people read and for the age of a key, never for a wait."""
    return time.time()
