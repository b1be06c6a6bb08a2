"""One time limit for many exchanges at once, kept by one timer.

aiohttp's own limits arm and disarm timers for each request and for each read, which is a tenth of what a request costs.
All exchanges of a lane have the same limit, so the one that began first is always the next to be late: a dictionary in
the order of beginnings is all the queue that is needed, and one timer for its first entry is enough. The timer is not
moved when that exchange ends in time. It comes once for many of them, and is then set for whoever is first by then.

A second timer, kept in the same way, gives notice of each exchange that has been open for some seconds, long before it
is late: somebody waits who has heard nothing yet. It is not the first one set earlier: a clock that jumps counts real
time beside its jumps whenever a timer is set, and the limit would come early by that.

A task that is late is cancelled, and its `CancelledError` becomes a `TimeoutError` on the way out, unless somebody else
cancelled it as well: the count of `Task.cancelling` tells the two apart, as in `asyncio.timeout`.

This module knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import math
import types
from collections.abc import Callable
from typing import Any

from aiopplx._http.clock import Clock, Timer


class Limit:
    """`with limit:` raises `TimeoutError` in the task that is still inside after `seconds`.

    While a task is inside, a clock that jumps stands still. Reentrant for different tasks, not for one. Cancellation
    from outside passes through, as in `asyncio.timeout`.

    Args:
        seconds: for each exchange.
        clock: its wire time is what they are counted by.
        notice_after: seconds, less than the limit, or there is no notice.

    Attributes:
        notice: called when an exchange has been open for `notice_after` seconds; once for each, or for all that are due
            together. The timer holds it. None: nobody is told.
    """

    __slots__ = (
        "_busy",
        "_clock",
        "_late",
        "_notice_after",
        "_notice_timer",
        "_noticed",
        "_open",
        "_seconds",
        "_timer",
        "notice",
    )

    def __init__(self, seconds: float, clock: Clock, notice_after: float = math.inf) -> None:
        self.notice: Callable[[], object] | None = None
        self._seconds = seconds
        self._clock = clock
        self._notice_after = notice_after
        self._noticed = -math.inf  # when the last one began of which there was notice
        self._busy = clock.busy() if clock.jumps else None  # not entered for nothing on the way of each exchange
        # When each began, and how often it had been asked to end by then. Any: a task of whatever kind.
        self._open: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: Timer | None = None
        self._notice_timer: Timer | None = None

    def __enter__(self) -> int:
        """How often the task that is inside had been asked to end before."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit is kept for a task, and this is not one")
        # In the order in which they will be late, since the limit is the same for all.
        began = self._clock.wire_now()
        cancels = task.cancelling()
        self._open[task] = (began, cancels)
        if self._timer is None:
            self._timer = self._clock.wire_at(began + self._seconds, self._sweep)
        if self._notice_timer is None and self.notice is not None:
            self._notice_timer = self._clock.wire_at(began + self._notice_after, self._look)
        if self._busy is not None:
            self._busy.__enter__()
        return cancels

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: types.TracebackType | None
    ) -> None:
        if self._busy is not None:
            self._busy.__exit__(None, None, None)
        task = asyncio.current_task()
        assert task is not None, "it was there at the beginning"  # noqa: S101 - for mypy
        _, cancels = self._open.pop(task)
        if self._late and task in self._late:
            self._late.discard(task)
            if task.uncancel() <= cancels and exc_type is asyncio.CancelledError:
                raise TimeoutError from None

    def close(self) -> None:
        """Let go of the timers. Whoever is still inside is late: there is nobody to tell them so afterwards."""
        for timer in (self._timer, self._notice_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._notice_timer = None
        for task in self._open:
            self._end(task)

    def open_since(self, moment: float) -> float:
        """When the first exchange began that began at this moment or later, and is open; infinity if there is none."""
        return next((began for began, _ in self._open.values() if began >= moment), math.inf)

    def _sweep(self) -> None:
        """Cancel who is late, and set the timer for the first who is not."""
        self._timer = None
        now = self._clock.wire_now()
        for task, (began, _) in self._open.items():
            if began + self._seconds > now:
                self._timer = self._clock.wire_at(began + self._seconds, self._sweep)
                return
            self._end(task)

    def _look(self) -> None:
        """Give notice of who is slow, and set the timer for the first who is not."""
        self._notice_timer = None
        now = self._clock.wire_now()  # a clock that jumps calls early
        noticed = self._noticed
        for began, _ in self._open.values():
            if began + self._notice_after > now:
                self._notice_timer = self._clock.wire_at(began + self._notice_after, self._look)
                break
            noticed = max(noticed, began)
        if noticed > self._noticed and self.notice is not None:
            self._noticed = noticed
            self.notice()

    def _end(self, task: asyncio.Task[Any]) -> None:  # Any: as above
        if task not in self._late:
            self._late.add(task)
            task.cancel()
