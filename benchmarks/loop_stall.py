"""For how long does one result hold the event loop, and so everything else that runs in a web app?

A beat that asks for the next turn of the loop, for ever, sees how long each turn takes. One job at a time; for each job
the longest turn, of which the median and the 99th percentile are shown. In CPU time, which a neighbour on the machine
does not lengthen; wall time is in the JSON. The turn that takes the result out of the socket, decodes it and hands it
to the consumer is the long one.

    python benchmarks/loop_stall.py [--quick] [--rounds N]
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import _harness as harness
import cpu_per_job

SIZES = {"300 KB": (300_000, False), "300 KB, two-byte": (300_000, True), "2 MB": (2_000_000, False),
         "2 MB, two-byte": (2_000_000, True)}  # fmt: skip
PEERS = ("bare", "library", "sdk")
WARM_UP = 3


class Beat:
    """Takes a turn of the loop whenever it can, and notes the longest time between two."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_soon(self._beat)
        self.reset()

    def reset(self) -> None:
        self.cpu = self.wall = 0.0
        self._last_cpu, self._last_wall = time.thread_time(), time.monotonic()

    def stop(self) -> None:
        self._handle.cancel()

    def _beat(self) -> None:
        cpu, wall = time.thread_time(), time.monotonic()
        self.cpu = max(self.cpu, cpu - self._last_cpu)
        self.wall = max(self.wall, wall - self._last_wall)
        self._last_cpu, self._last_wall = cpu, wall
        self._handle = self._loop.call_soon(self._beat)


async def child(spec: Mapping[str, Any]) -> None:
    cpu: list[float] = []
    wall: list[float] = []
    async with cpu_per_job.CLIENTS[spec["peer"]](spec["url"]) as work:
        await work(WARM_UP)
        beat = Beat()
        for _ in range(spec["jobs"]):
            beat.reset()
            await work(1)
            cpu.append(beat.cpu * 1e3)
            wall.append(beat.wall * 1e3)
        beat.stop()
    last = len(cpu) * 99 // 100
    harness.answer({
        "cpu_ms": sorted(cpu)[len(cpu) // 2],
        "cpu_p99_ms": sorted(cpu)[last],
        "wall_ms": sorted(wall)[len(wall) // 2],
        "wall_p99_ms": sorted(wall)[last],
        "gauge": harness.gauge(),
    })


def one_run(case: Mapping[str, Any]) -> harness.Record:
    size, two_byte = SIZES[case["size"]]
    with harness.Server(size=size, gets=1, two_byte=two_byte) as server:
        record = harness.run(__file__, {**case, "url": server.url})
        counts = server.counts()
    jobs = case["jobs"] + WARM_UP
    if (counts["jobs"], counts["posts"], counts["gets"]) != (jobs, jobs, jobs):
        raise RuntimeError(f"{case['peer']} made other exchanges than its peers: {counts}, {jobs} jobs")
    return record


def main() -> None:
    given = harness.arguments(__doc__, rounds=5)
    if given.child:
        asyncio.run(child(given.child))
        return
    jobs = 20 if given.quick else 100
    groups = [[{"peer": peer, "size": size, "jobs": jobs} for peer in PEERS] for size in SIZES]
    records = list(harness.interleaved(groups, given.rounds, one_run))
    found: dict[str, Any] = {}
    for size in SIZES:
        ours = [record for record in records if record["size"] == size]
        found[size] = {
            peer: {
                "cpu_ms": harness.spread([record["cpu_ms"] for record in ours if record["peer"] == peer]),
                "cpu_p99_ms": harness.spread([record["cpu_p99_ms"] for record in ours if record["peer"] == peer]),
                "to_bare": harness.ratios(ours, "cpu_ms", peer, "bare"),
            }
            for peer in PEERS
        }
    rows = [
        [
            size,
            *(f"{harness.shown(of[peer]['cpu_ms'], 2)}; p99 {of[peer]['cpu_p99_ms']['median']:.2f}" for peer in PEERS),
        ]
        for size, of in found.items()
    ]
    table = harness.table(["longest turn of the loop, CPU ms", *PEERS], rows)
    series = {peer: [of[peer]["cpu_ms"] for of in found.values()] for peer in PEERS}
    picture = harness.bars("Longest turn of the event loop during a job", "CPU ms", list(found), series)
    harness.finish("loop_stall", found, [table], [picture])


if __name__ == "__main__":
    main()
