"""What do pages of the Sonar API's list save? Requests of a job, and the delay of its result, with and without it.

A session with default settings at the emulator, in time that jumps: jobs of 180 s (lognormal, 0.6), nothing known of
them at the start. Figures are medians over the seeds, with the least and the greatest. *Requests* are all but the
submission; one of them fetches the result. *Lag* is from the end of a job until its result is handed out.

- `library`: default settings;
- `no use`: the same where the server ignores `limit` and `next_token` and its page has 20 rows (with 20 jobs: where its
  list fails);
- `fixed`: a poll of each job every 10 seconds, no list.

    python benchmarks/list_fan_in.py [--quick] [--rounds N] [--only library,300]

A round is a seed.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import _harness as harness

LIST = "GET /async/chat/completions"


class Case(NamedTuple):
    """How many jobs, at how many a minute (0: at once), and at most so many seeds, where a run is long."""

    title: str
    jobs: int
    per_minute: float = 0.0
    seeds: int = 99


CASES = {
    "20": Case("20 jobs at once", 20),
    "60": Case("60 jobs, 5 a minute", 60, 5.0),
    "100": Case("100 jobs at once", 100),
    "300": Case("300 jobs, 100 a minute", 300, 100.0),
    "1000": Case("1,000 jobs, 100 a minute", 1_000, 100.0, 5),
    "1000-at-once": Case("1,000 jobs at once", 1_000, 0.0, 5),
}
QUICK = ("20", "100")
PEERS = ("library", "no use", "fixed")


async def measure(case: Case, peer: str, seed: int) -> dict[str, float]:
    from aiopplx import PollPolicy, Session
    from aiopplx.emulator import Emulator, faults
    from aiopplx.testing import JumpingClock

    chance = random.Random(seed)
    durations = {f"Question {n}?": chance.lognormvariate(math.log(180.0), 0.6) for n in range(case.jobs)}
    clock = JumpingClock()
    handed_out: dict[str, float] = {}

    async def source() -> AsyncIterator[str]:
        for question in durations:
            yield question
            if case.per_minute:
                await clock.sleep(60.0 / case.per_minute)

    begun = time.process_time()
    paging = "ignore" if peer == "no use" else "follow"
    server = Emulator(duration=durations.__getitem__, answer_chars=200, clock=clock, seed=seed, paging=paging)
    async with server:
        if peer == "no use" and case.jobs <= 20:
            server.faults.add("list", faults.Status(500))
        poll = PollPolicy.fixed(10.0) if peer == "fixed" else "adaptive"
        session = Session("a-key-of-no-use-anywhere", base_url=server.url, clock=clock, api="sonar", poll=poll)
        async with session, session.batch(source()) as done:
            async for job in done:
                handed_out[job.id] = clock.wall()
        ends = {job.id: job.finished_at for job in server.ledger.jobs}
        asked = server.ledger.requests
    return {
        "requests": (sum(asked.values()) - case.jobs) / case.jobs,
        "pages": asked[LIST] / case.jobs,
        "lag": sum(handed_out[job_id] - end for job_id, end in ends.items()) / case.jobs,
        "cpu_ms": (time.process_time() - begun) / case.jobs * 1e3,
    }


def child(spec: Mapping[str, Any]) -> None:
    record = asyncio.run(measure(CASES[spec["case"]], spec["peer"], spec["round"]))
    harness.answer({"case": spec["case"], "peer": spec["peer"], **record, "gauge": harness.gauge()})


def main() -> None:
    given = harness.arguments(__doc__, rounds=8)
    if given.child:
        child(given.child)
        return
    only = set(given.only)
    harness.known(only, [*CASES, *PEERS])
    peers = [peer for peer in PEERS if not only & set(PEERS) or peer in only]
    found: dict[str, Any] = {}
    rows: list[list[str]] = []
    for name in QUICK if given.quick else CASES:
        if only & set(CASES) and name not in only:
            continue
        case = CASES[name]
        groups = [[{"case": name, "peer": peer} for peer in peers]]
        seeds = min(given.rounds, case.seeds)
        records = list(harness.interleaved(groups, seeds, lambda spec: harness.run(__file__, spec), tells_round=True))
        for peer in peers:
            here = [record for record in records if record["peer"] == peer]
            fields = ("requests", "pages", "lag", "cpu_ms")
            of = {field: harness.spread([record[field] for record in here]) for field in fields}
            found.setdefault(name, {})[peer] = of
            rows.append([case.title, peer, *(_shown([record[field] for record in here]) for field in fields[:3])])
    head = ["jobs", "client", "requests a job", "of these pages", "mean lag, s"]
    harness.finish("list_fan_in", found, [harness.table(head, rows)])


def _shown(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
