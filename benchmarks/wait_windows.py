"""What does waiting in short windows cost, as a web backend does, against one open wait?

200 callers wait for a job each, `wait(id, timeout=25)` again and again, and come back after each window at once, within
a second, or after five. An open wait is one call. *Lag* is from the end of a job to the return of the call that hands
it out. The law of durations is learnt from 50 jobs before.

    python benchmarks/wait_windows.py [--quick] [--rounds N]

A round is a seed; real sockets in time that jumps, with 50 to 500 ms between client and server.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import _harness as harness
import _played as played

WINDOW, CALLERS, LEARNT = 25.0, 200, 50
WAYS: dict[str, tuple[float, float] | None] = {
    "open wait": None,
    "windows, back at once": (0.0, 0.0),
    "windows, back within a second": (0.0, 1.0),
    "windows, back after five": (5.0, 5.0),
}


async def measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    away, chance = WAYS[spec["peer"]], random.Random(spec["round"])
    lags: list[float] = []
    async with played.world(None, seed=spec["round"]) as world, world.session() as session:
        async with session.batch(f"Earlier {number}?" for number in range(LEARNT)) as batch:
            async for job in batch:
                assert job.ok
        before = len(world.server.ledger.log)

        async def caller(number: int) -> None:
            job_id = await session.submit(played.question(number))
            while True:
                job = await session.wait(job_id, timeout=3_600.0 if away is None else WINDOW)
                if job.ok:
                    break
                assert away is not None, job
                await world.clock.sleep(chance.uniform(*away))
            lags.append(world.seconds - world.ended(job.id))

        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(caller(number))
        polls = sum(line.on == "get" for line in list(world.server.ledger.log)[before:])
    return {"lag": fmean(lags), "polls": polls / CALLERS}


def main() -> None:
    given = harness.arguments(__doc__, rounds=8)
    if given.child:
        harness.answer(asyncio.run(measure(given.child)))
        return
    groups = [[{"peer": way} for way in WAYS]]
    records = list(
        harness.interleaved(groups, given.rounds, lambda spec: harness.run(__file__, spec), tells_round=True)
    )
    found: dict[str, Any] = {}
    for way in WAYS:
        ours = {one["round"]: one for one in records if one["peer"] == way}
        open_wait = {one["round"]: one for one in records if one["peer"] == "open wait"}
        found[way] = {
            "lag": harness.spread([one["lag"] for one in ours.values()]),
            "polls": harness.spread([one["polls"] for one in ours.values()]),
            "lag_over_open": harness.spread([one["lag"] / open_wait[at]["lag"] for at, one in ours.items()]),
            "polls_over_open": harness.spread([one["polls"] / open_wait[at]["polls"] for at, one in ours.items()]),
        }
    rows = [[way, *(harness.shown(one, 2) for one in of.values())] for way, of in found.items()]
    head = ["200 callers", "lag, s", "polls a job", "lag over an open wait's", "polls over an open wait's"]
    series = {
        "lag": [of["lag_over_open"] for of in found.values()],
        "polls": [of["polls_over_open"] for of in found.values()],
    }
    picture = harness.bars("Waits in windows of 25 seconds", "times an open wait", list(found), series)
    harness.finish("wait_windows", found, [harness.table(head, rows)], [picture])


if __name__ == "__main__":
    main()
