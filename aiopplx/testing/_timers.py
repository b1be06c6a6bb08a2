"""The timers of a clock that jumps: a due moment, a limit that runs in two times, and a time limit of a task.

This module knows nothing of when a clock jumps.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable
from typing import Any

from aiopplx._http.clock import Clock, Timer


class Due:
    """One moment that somebody waits for; `callback` is None once it is cancelled or was called."""

    __slots__ = ("_handle", "_order", "_unset", "callback", "is_wire", "when")

    def __init__(
        self,
        when: float,
        order: int,
        callback: Callable[[], object],
        unset: Callable[[], None],
        *,
        is_wire: bool,
    ) -> None:
        self.when = when
        self.callback: Callable[[], object] | None = callback
        self.is_wire = is_wire
        self._order = order
        self._unset = unset
        self._handle: asyncio.Handle | None = None

    def __lt__(self, other: Due) -> bool:
        return (self.when, self._order) < (other.when, other._order)

    def fire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call it at the next turn: an exception there is the loop's to tell, and holds up no other timer."""
        if self.callback is not None:
            self._handle, self.callback = loop.call_soon(self.callback), None

    def cancel(self) -> None:
        """Do not call it."""
        if self._handle is not None:
            self._handle.cancel()
        elif self.callback is not None:
            self.callback = None
            self._unset()


class EitherTimer:
    """A limit on the wire: after so many seconds of jumps or of real time, whichever comes first."""

    __slots__ = ("_callback", "_jumps", "_real")

    def __init__(
        self,
        delay: float,
        call_on_jump: Callable[[float, Callable[[], object]], Timer],
        callback: Callable[[], object],
    ) -> None:
        self._callback = callback
        self._real = asyncio.get_running_loop().call_later(delay, self._fire)
        self._jumps = call_on_jump(delay, self._fire)

    def _fire(self) -> None:
        self.cancel()
        self._callback()

    def cancel(self) -> None:
        """Call it in neither time."""
        self._real.cancel()
        self._jumps.cancel()


class Timeout:
    """`asyncio.timeout` by this clock: the task inside is cancelled at `when`, and gets `TimeoutError` for it."""

    __slots__ = ("_cancels", "_clock", "_is_late", "_task", "_timer", "_when")

    def __init__(self, clock: Clock, when: float) -> None:
        self._clock = clock
        self._when = when
        self._task: asyncio.Task[Any] | None = None  # Any: of whatever the task returns
        self._timer: Timer | None = None
        self._cancels = 0
        self._is_late = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit is kept for a task, and this is not one")
        self._task, self._cancels = task, task.cancelling()
        self._timer = self._clock.call_at(self._when, self._late)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: types.TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_late or self._task is None:
            return
        # If somebody else cancelled the task as well, that is what the caller hears of, and not the time limit.
        is_alone = self._task.uncancel() <= self._cancels
        if is_alone and exc_type is not None and issubclass(exc_type, asyncio.CancelledError):
            raise TimeoutError from exc

    def _late(self) -> None:
        self._is_late = True
        if self._task is not None:
            self._task.cancel()
