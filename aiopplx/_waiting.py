"""Waiting for the end of something, though whoever waits is cancelled meanwhile, and not for ever.

Whoever is cancelled while it closes a file or a connection must not leave it half closed. A second cancellation, or a
cancelled scope of anyio, which cancels each wait anew, would do just that. This module does not know what ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import anyio


async def until_done(futures: Iterable[asyncio.Future[Any]], seconds: float) -> asyncio.CancelledError | None:
    """Wait until all of these are done, at most so many real seconds, also if this wait is cancelled.

    Any: futures of whatever kind. What they come to is left to the caller.

    Returns:
        The last cancellation that came meanwhile, for the caller to raise once it has finished; None if none came.
    """
    waiting: set[asyncio.Future[Any]] = {future for future in futures if not future.done()}
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while waiting and (remaining := until - loop.time()) > 0.0:
            try:
                await asyncio.wait(waiting, timeout=remaining)
            except asyncio.CancelledError as error:
                cancelled = error
            waiting = {future for future in waiting if not future.done()}
    return cancelled
