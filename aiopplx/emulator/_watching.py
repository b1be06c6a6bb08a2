"""Those who wait until a condition holds, so that no test needs a sleep.

This module knows nothing of what a condition is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watchers:
    """The conditions that are waited for, each with its future."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until it holds. It is checked at once, and whenever something has changed."""
        waiting = true, asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            self.notify()
            await waiting[1]
        finally:
            self._waiting.remove(waiting)

    def notify(self) -> None:
        """Something has changed."""
        for true, future in self._waiting:
            if not future.done() and true():
                future.set_result(None)
