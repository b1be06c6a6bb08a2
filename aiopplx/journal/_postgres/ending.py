"""Ends tasks without waiting for ever: what waits for a server that says nothing may go on for as long as that does.

This module knows nothing of what the tasks do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


async def end(tasks: Iterable[asyncio.Task[Any] | None], seconds: float) -> None:
    """Cancel these tasks, and wait for them, but not longer than so many real seconds."""
    found = [task for task in tasks if task is not None]
    for task in found:
        task.cancel()
    if found:
        await asyncio.wait(found, timeout=seconds)
