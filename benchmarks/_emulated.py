"""The emulator in a process of its own, for one run, on a clock that runs fast. Started by `many_jobs.py` and
`progress_request.py`.

    python benchmarks/_emulated.py '{"rpm": 2000, "speed": 10, "seed": 0}'

It prints its port, and ends when its standard input does; then it prints when each job ended, by its own clock, which
runs as fast as the client's.
"""

from __future__ import annotations

import asyncio
import json
import sys

import _played as played

from aiopplx.emulator import Emulator, limits
from aiopplx.testing import Clock


async def main() -> None:
    asked = json.loads(sys.argv[1])
    async with Emulator(
        limits=limits.Bucket(asked["rpm"]),
        limit_hints="x-ratelimit",
        clock=Clock(asked["speed"]),
        seed=asked["seed"],
        duration=asked.get("lasts") or played.durations(asked["seed"]),
        answer_chars=asked["chars"],
        log_size=0,
    ) as server:
        print(server.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        told = {"created": server.ledger.created, "requests": server.ledger.requests.total()}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
