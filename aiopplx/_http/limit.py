"""One time limit for many exchanges at once, kept by one timer.

aiohttp's own limits arm and disarm timers for each request and each read, which is a tenth of what a request costs. All
exchanges of a lane have the same limit, so the oldest is always the next to end. This module knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import types
from typing import Any, cast


class Limit:
    """`with limit:` raises `TimeoutError` in the task that is still inside after `seconds`.

    Reentrant for different tasks, not for one. Cancellation from outside passes through, as in `asyncio.timeout`.
    """

    __slots__ = ("_late", "_loop", "_open", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> None:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit is kept for a task, and this is none")
        # In the order in which they will be late, since the limit is the same for all.
        self._open[task] = (loop.time() + self._seconds, task.cancelling())
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._sweep)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: types.TracebackType | None
    ) -> None:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        _, cancels = self._open.pop(task)
        if self._late and task in self._late:
            self._late.discard(task)
            if task.uncancel() <= cancels and exc_type is asyncio.CancelledError:
                raise TimeoutError from None

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._timer = None
        loop = self._loop
        if loop is None:
            return
        now = loop.time()
        for task, (late_at, _) in self._open.items():
            if late_at > now:
                self._timer = loop.call_at(late_at, self._sweep)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel()
