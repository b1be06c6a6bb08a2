"""How much memory does a run of 50,000 jobs of 100 KB take with a journal, as it runs and when it is made again?

Every job is finished at its first poll; the consumer keeps nothing: a fast one takes no time for a result, a slow one
5 ms. A second process makes the run again, when every result comes out of the journal without a request. Figures are
the peak of the whole process (VmHWM), and what the file has come to.

    python benchmarks/journal_memory.py [--quick] [--rounds N] [--only fast,slow]
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _harness as harness

SIZE = 100_000
JOBS = 50_000
LIMIT = 200e6


def question(n: int) -> str:
    return f"Question {n}: what is known about the sinking of the Vasa, and on what sources does that rest?"


async def child(spec: Mapping[str, Any]) -> None:
    from aiopplx import PollPolicy, Session

    begun, wall = harness.memory("VmRSS"), time.monotonic()
    delivered = characters = 0
    poll = PollPolicy.fixed(0.05, budget=1e9)
    questions = (question(n) for n in range(spec["jobs"]))
    async with (
        Session("pplx-benchmark", base_url=spec["url"], poll=poll, journal=spec["journal"]) as session,
        session.batch(questions) as jobs,
    ):
        async for job in jobs:
            delivered += 1
            characters += len(job.result().text)
            if spec["slow"]:
                await asyncio.sleep(spec["slow"])
    assert delivered == spec["jobs"]
    assert characters > delivered * SIZE / 3
    harness.answer({"peak": harness.memory("VmHWM"), "begun": begun, "seconds": time.monotonic() - wall})


def one_run(case: Mapping[str, Any]) -> harness.Record:
    with tempfile.TemporaryDirectory() as folder, harness.Server(size=SIZE, gets=1) as server:
        spec = {**case, "url": server.url, "journal": str(Path(folder) / "run.db")}
        first = harness.run(__file__, spec)
        size = sum(file.stat().st_size for file in os.scandir(folder))
        again = harness.run(__file__, {**spec, "slow": 0.0})
        counts = server.counts()
    if (counts["jobs"], counts["posts"], counts["gets"]) != (case["jobs"],) * 3:
        raise RuntimeError(f"not every job was submitted once and polled once: {counts}")
    return {**first, "file": size, "again_peak": again["peak"], "again_seconds": again["seconds"]}


def main() -> None:
    given = harness.arguments(__doc__, rounds=1)
    if given.child:
        asyncio.run(child(given.child))
        return
    jobs = 2_000 if given.quick else JOBS
    kinds = {name: slow for name, slow in {"fast": 0.0, "slow": 0.005}.items() if name in (given.only or (name,))}
    cases = [[{"kind": kind, "jobs": jobs, "slow": slow} for kind, slow in kinds.items()]]
    records = list(harness.interleaved(cases, given.rounds, one_run))
    found: dict[str, Any] = {}
    rows: list[list[str]] = []
    for kind in kinds:
        ours = [record for record in records if record["kind"] == kind]
        of = {
            "peak_mb": harness.spread([one["peak"] / 1e6 for one in ours]),
            "again_mb": harness.spread([one["again_peak"] / 1e6 for one in ours]),
            "seconds": harness.spread([one["seconds"] for one in ours]),
            "again_seconds": harness.spread([one["again_seconds"] for one in ours]),
            "file_mb": harness.spread([one["file"] / 1e6 for one in ours]),
        }
        found[kind] = {**of, "within_limit": max(of["peak_mb"]["high"], of["again_mb"]["high"]) * 1e6 <= LIMIT}
        rows.append([kind, *(harness.shown(spread) for spread in of.values())])
    head = [f"{jobs:,} results of 100 KB", "peak MB", "peak MB, again", "seconds", "seconds, again", "file MB"]
    table = harness.table(head, rows, notes=f"Limit {LIMIT / 1e6:.0f} MB.")
    series = {
        "first run": [of["peak_mb"] for of in found.values()],
        "again, from the journal": [of["again_mb"] for of in found.values()],
    }
    consumers = [f"{kind} consumer" for kind in found]
    picture = harness.bars("Memory of the process at its peak", "MB", consumers, series)
    harness.finish("journal_memory", found, [table], [picture])


if __name__ == "__main__":
    main()
