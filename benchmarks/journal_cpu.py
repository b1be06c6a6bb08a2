"""How much CPU does the journal add to a job?

The library without a journal, with one in memory and with one in a file, in each of the ways to treat results; every
peer makes the same exchanges (a POST, then n GETs a job, 50 jobs in flight), which the server's counts prove. CPU is
user + system of the client process, the journal's thread included, without its start and a warm-up of one full flight.
The file lies in the directory for temporary files; `TMPDIR` moves it to the disk that is to be measured.

    python benchmarks/journal_cpu.py [--quick] [--rounds N] [--only keep,refetch]
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import _harness as harness

if TYPE_CHECKING:
    from aiopplx.journal import Results

FLIGHT = 50
CELLS = {
    "2 KB, 1 GET": (2_000, 1),
    "50 KB, 1 GET": (50_000, 1),
    "300 KB, 1 GET": (300_000, 1),
    "50 KB, 3 GETs": (50_000, 3),
    "50 KB, 20 GETs": (50_000, 20),
}
NONE = "no journal"
PEERS = (NONE, "memory", "keep", "until_delivered", "refetch")
GOAL = 1.5
GAP = 0.01


def question(n: int) -> str:
    return f"Question {n}: what is known about the sinking of the Vasa, and on what sources does that rest?"


def journal_of(peer: str, folder: str) -> dict[str, Any]:
    """The arguments for `Session`."""
    if peer == NONE:
        return {}
    if peer == "memory":
        from aiopplx.journal import MemoryJournal

        return {"journal": MemoryJournal(now=time.time)}
    from aiopplx import JournalOptions

    return {"journal": JournalOptions(Path(folder) / "run.db", results=cast("Results", peer))}


async def child(spec: Mapping[str, Any]) -> None:
    from aiopplx import PollPolicy, Session

    poll = PollPolicy.fixed(GAP, budget=1e9)
    with tempfile.TemporaryDirectory() as folder:
        arguments = journal_of(spec["peer"], folder)
        async with Session(
            "pplx-benchmark", base_url=spec["url"], poll=poll, max_in_flight=FLIGHT, **arguments
        ) as session:

            async def work(begin: int, n: int) -> int:
                async with session.batch(question(i) for i in range(begin, begin + n)) as jobs:
                    return sum([len(job.result().text) async for job in jobs])

            await work(0, FLIGHT)
            speed = harness.gauge()
            gc.collect()
            cpu, wall = time.process_time(), time.monotonic()
            await work(FLIGHT, spec["jobs"])
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    harness.answer({
        "cpu_us": cpu / spec["jobs"] * 1e6,
        "gauge": (speed + harness.gauge()) / 2,
        "jobs_per_second": spec["jobs"] / wall,
    })


def one_run(case: Mapping[str, Any]) -> harness.Record:
    size, gets = CELLS[case["cell"]]
    with harness.Server(size=size, gets=gets) as server:
        record = harness.run(__file__, {**case, "url": server.url})
        counts = server.counts()
    jobs = case["jobs"] + FLIGHT
    if (counts["jobs"], counts["posts"], counts["gets"]) != (jobs, jobs, jobs * gets):
        raise RuntimeError(f"{case['peer']} made other exchanges than its peers: {counts}, {jobs} jobs")
    return record


def main() -> None:
    given = harness.arguments(__doc__, rounds=7)
    if given.child:
        asyncio.run(child(given.child))
        return
    peers = [NONE, *(peer for peer in given.only or PEERS if peer != NONE)]
    jobs = 100 if given.quick else 400
    cases = [[{"peer": peer, "cell": cell, "jobs": jobs} for peer in peers] for cell in CELLS]
    records = list(harness.interleaved(cases, given.rounds, one_run))
    found: dict[str, Any] = {cell: {} for cell in CELLS}
    for cell, of in found.items():
        ours = [record for record in records if record["cell"] == cell]
        for peer in peers:
            cpu = harness.spread([one["cpu_us"] for one in ours if one["peer"] == peer])
            of[peer] = {"cpu_us": cpu, "to_none": harness.ratios(ours, "cpu_us", peer, NONE)}
    rows = [
        [
            peer,
            *(
                f"{found[cell][peer]['cpu_us']['median']:,.0f} us, {harness.shown(found[cell][peer]['to_none'], 2)}"
                for cell in CELLS
            ),
        ]
        for peer in peers
    ]
    head = ["CPU of a job, and its ratio to no journal", *CELLS]
    table = harness.table(head, rows, notes=f"Aim: at most {GOAL}.")
    ratios = {peer: [found[cell][peer]["to_none"] for cell in CELLS] for peer in peers if peer != NONE}
    picture = harness.bars("CPU of one job with a journal", "times no journal", list(CELLS), ratios)
    harness.finish("journal_cpu", found, [table], [picture])


if __name__ == "__main__":
    main()
