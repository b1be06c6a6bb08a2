"""An emulator as a program of its own: it listens, says where, and ends on a signal.

It knows nothing of what the emulator plays, nor of the command line that asked for it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from aiopplx.emulator._emulator import Emulator


def serve(emulator: Emulator, *, announce: Callable[[str], object] | None = None) -> None:
    """Runs an emulator until SIGINT or SIGTERM: what `aiopplx emulator` does.

    `announce` is called once with the URL when it listens; None prints it as the first line of stdout.
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
            # Windows has no such handlers; there KeyboardInterrupt ends asyncio.run, and the block below is left.
            break
    async with emulator:
        announce(emulator.url)
        await stop.wait()
