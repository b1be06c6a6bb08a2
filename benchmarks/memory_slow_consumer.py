"""How much memory does a batch of 5,000 jobs of 300 KB take when its consumer is slower than the service?

Every job is finished at its first poll, and the consumer takes 5 milliseconds for each result, which is several times
longer than the library needs to fetch one. Nothing is kept. Figures are the peak of the whole process (VmHWM), and the
greatest number of results that were finished and not yet delivered to the consumer.

    python benchmarks/memory_slow_consumer.py [--quick] [--rounds N]
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import _harness as harness

SIZE = 300_000
SECONDS = 0.005
LIMIT, GOAL = 150e6, 110e6


def question(n: int) -> str:
    return f"Question {n}: what is known about the sinking of the Vasa, and on what sources does that rest?"


async def child(spec: Mapping[str, Any]) -> None:
    from aiopplx import Event, EventKind, PollPolicy, Session

    finished = delivered = ahead = characters = 0

    def count(event: Event) -> None:
        nonlocal finished
        finished += event.kind is EventKind.FINISHED

    begun = harness.memory("VmRSS")
    poll = PollPolicy.fixed(0.05, budget=1e9)
    questions = (question(n) for n in range(spec["jobs"]))
    async with (
        Session("pplx-benchmark", base_url=spec["url"], poll=poll, on_event=count) as session,
        session.batch(questions, ordered=spec["ordered"]) as jobs,
    ):
        async for job in jobs:
            delivered += 1
            ahead = max(ahead, finished - delivered)
            characters += len(job.result().text)
            await asyncio.sleep(SECONDS)
    assert finished == delivered == spec["jobs"]
    assert characters > delivered * SIZE / 3
    harness.answer({"peak": harness.memory("VmHWM"), "begun": begun, "ahead": ahead})


def one_run(case: Mapping[str, Any]) -> harness.Record:
    with harness.Server(size=SIZE, gets=1, two_byte=case["two_byte"]) as server:
        record = harness.run(__file__, {**case, "url": server.url})
        counts = server.counts()
    if (counts["jobs"], counts["posts"], counts["gets"]) != (case["jobs"],) * 3:
        raise RuntimeError(f"not every job was submitted once and polled once: {counts}")
    return record


def main() -> None:
    given = harness.arguments(__doc__, rounds=3)
    if given.child:
        asyncio.run(child(given.child))
        return
    jobs = 500 if given.quick else 5_000
    kinds = {
        "as they finish": {"ordered": False, "two_byte": False},
        "in order": {"ordered": True, "two_byte": False},
        "as they finish, text beyond Latin-1": {"ordered": False, "two_byte": True},
    }
    cases = [{"kind": kind, "jobs": jobs, **words} for kind, words in kinds.items()]
    records = list(harness.interleaved([cases], given.rounds, one_run))
    found: dict[str, Any] = {}
    rows: list[list[str]] = []
    for kind in kinds:
        ours = [record for record in records if record["kind"] == kind]
        peak = harness.spread([record["peak"] / 1e6 for record in ours])
        base = harness.spread([record["begun"] / 1e6 for record in ours])
        ahead = harness.spread([record["ahead"] for record in ours])
        found[kind] = {"peak_mb": peak, "begun_mb": base, "ahead": ahead, "within_limit": peak["high"] * 1e6 <= LIMIT}
        rows.append([kind, harness.shown(base), harness.shown(peak), harness.shown(ahead)])
    head = [f"{jobs:,} results of 300 KB", "MB after import", "MB at the peak", "finished and not delivered, at most"]
    bounds = f"Limit {LIMIT / 1e6:.0f} MB, goal {GOAL / 1e6:.0f} MB."
    series = {
        "after import": [of["begun_mb"] for of in found.values()],
        "at the peak": [of["peak_mb"] for of in found.values()],
    }
    picture = harness.bars("Memory of the process", "MB", list(found), series)
    harness.finish("memory_slow_consumer", found, [harness.table(head, rows, notes=bounds)], [picture])


if __name__ == "__main__":
    main()
