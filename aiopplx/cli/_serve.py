"""`aiopplx emulator`: the emulator on a port of its own, until a signal ends it.

This module does not know what is emulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from aiopplx._text.amounts import dollars, many
from aiopplx.cli._exits import DONE, Interrupted, UsageError, complain, until_signal
from aiopplx.cli._options import EmulatorOptions

if TYPE_CHECKING:
    from aiopplx.emulator import Emulator


async def serve(options: EmulatorOptions) -> int:
    """Serve on 127.0.0.1 until Ctrl-C or SIGTERM; returns 0, since that is the normal end.

    The address is the first line on stdout.

    Raises:
        UsageError: the port is in use, a file cannot be read, or an option is out of range.
    """
    try:
        emulator = _made(options)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from None

    async def work() -> None:
        try:
            await emulator.__aenter__()
        except OSError as error:
            raise UsageError(f"cannot listen on 127.0.0.1:{options.port}: {error.strerror}") from None
        try:
            print(emulator.url, flush=True)
            complain(f"emulator ready; use it with PERPLEXITY_BASE_URL={emulator.url} PERPLEXITY_API_KEY=any")
            await anyio.sleep_forever()
        finally:
            await emulator.__aexit__(None, None, None)

    try:
        await until_signal(work)
    except Interrupted as interrupted:
        ledger = emulator.ledger
        complain(
            f"emulator stopped by {interrupted.name}: {many(ledger.created, 'job')} created,"
            f" {dollars(ledger.billed)} billed, all of it invented"
        )
    return DONE


def _made(options: EmulatorOptions) -> Emulator:
    from aiopplx.emulator import Emulator

    return Emulator(
        port=options.port,
        seed=options.seed,
        time_scale=options.time_scale,
        tier=options.tier,
        rpm=options.rpm,
        failure_rate=options.failure_rate,
        idempotency=options.idempotency,
        keys=set(options.key) or None,
        unknown_fields=options.unknown_field,
        files={path.name: path.read_bytes() for path in options.file} or None,
    )
