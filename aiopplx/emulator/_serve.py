"""The emulator as a program of its own: it listens, prints its address, and ends on a signal.

This module knows nothing of what is emulated, nor of the command line that started it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from aiopplx.emulator._emulator import Emulator


def serve(emulator: Emulator, *, announce: Callable[[str], object] | None = None) -> None:
    """Runs `emulator` until SIGINT or SIGTERM: what `aiopplx emulator` does.

    `announce` is called once with the URL when it listens; by default the URL is the first line on stdout.
    """
    asyncio.run(_serve(emulator, announce or _print))


def _print(url: str) -> None:
    sys.stdout.write(url + "\n")
    sys.stdout.flush()


async def _serve(emulator: Emulator, announce: Callable[[str], object]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # pragma: no cover
            # Windows has no such handlers; there KeyboardInterrupt ends asyncio.run, which leaves the block below.
            break
    async with emulator:
        announce(emulator.url)
        await stop.wait()
