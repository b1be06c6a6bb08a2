"""What does a job cost that is only waiting, and a poll besides its request?

Three figures, for the library and for the plain way (a task a job, which sleeps and polls):

- bytes of a waiting job: resident memory with 50,000 waiting, less that with 10,000, by 40,000;
- CPU of a poll: with 10,000 jobs polled evenly 1,000 and 2,500 times a second, all of the process's time by its polls,
  less what the stand-in for the request costs by itself; decoding the answer is in it;
- lateness: how much later than its due time a poll left.

There is no network here: both poll through the same stub, which answers at once.

    python benchmarks/waiting_jobs.py [--quick] [--rounds N]
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import _harness as harness
import _stub

PEERS = ("task-a-job", "library")
FEW, MANY = 10_000, 50_000
RATES = (1_000, 2_500)
NEVER = 1e7


def question(n: int) -> str:
    return f"Question {n}: what is known about the sinking of the Vasa, and on what sources does that rest?"


@contextlib.asynccontextmanager
async def library(stub: _stub.Stub, jobs: int, gap: float) -> AsyncIterator[None]:
    """`jobs` jobs, submitted and waiting, each polled every `gap` seconds."""
    import aiohttp

    from aiopplx import Event, EventKind, PollPolicy, RunningJob, Session

    class Evenly(PollPolicy, frozen=True):
        """The first polls are spread over one gap, so that the rate is the same all the time."""

        def __call__(self, job: RunningJob) -> float:
            return random.random() * self.gap if not job.polls else self.gap

    submitted = 0
    all_submitted = asyncio.Event()

    def count(event: Event) -> None:
        nonlocal submitted
        submitted += event.kind is EventKind.SUBMITTED
        if submitted == jobs:
            all_submitted.set()

    session = Session(
        "pplx-benchmark",
        base_url="http://127.0.0.1:9",
        poll=Evenly(quiet=gap, gap=gap, tail_after=float("inf"), jitter=0.0, budget=1e9),
        max_in_flight=jobs,
        timeout=2 * NEVER,
        http=cast("aiohttp.ClientSession", stub),
        on_event=count,
    )
    async with session, session.batch(question(n) for n in range(jobs)):
        await all_submitted.wait()
        yield


@contextlib.asynccontextmanager
async def task_a_job(stub: _stub.Stub, jobs: int, gap: float) -> AsyncIterator[None]:
    """The plain way: each job is a task that sleeps, polls, decodes, and sleeps again."""
    import _floor
    import msgspec
    import yarl

    decoder = msgspec.json.Decoder(_floor.Job)
    base = "http://127.0.0.1:9/async/chat/completions"

    async def one(n: int) -> None:
        reply = await stub.request("POST", yarl.URL(base), data=_floor.body(question(n)))
        job = decoder.decode(await reply.read())
        url = yarl.URL(f"{base}/{job.id}", encoded=True)
        await asyncio.sleep(random.random() * gap)
        while job.status != "COMPLETED":
            reply = await stub.request("GET", url)
            job = decoder.decode(await reply.read())
            reply.release()
            await asyncio.sleep(gap)

    tasks = [asyncio.create_task(one(n)) for n in range(jobs)]
    stub.awaited = jobs
    await stub.came.wait()
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


CLIENTS = {"library": library, "task-a-job": task_a_job}


async def waiting(spec: Mapping[str, Any]) -> harness.Record:
    stub = _stub.Stub()
    before = time.process_time()
    async with CLIENTS[spec["peer"]](stub, spec["jobs"], NEVER):
        cpu = time.process_time() - before
        assert stub.posts == spec["jobs"]
        gc.collect()
        return {"rss": harness.memory("VmRSS"), "submit_us": cpu / spec["jobs"] * 1e6, "gauge": harness.gauge()}


async def polling(spec: Mapping[str, Any]) -> harness.Record:
    stub = _stub.Stub()
    gap = spec["jobs"] / spec["rate"]
    async with CLIENTS[spec["peer"]](stub, spec["jobs"], gap):
        await asyncio.sleep(gap)
        polls, begun, cpu = stub.gets, time.monotonic(), time.process_time()
        del stub.gaps[:]
        await asyncio.sleep(gap)
        cpu, polls, took = time.process_time() - cpu, stub.gets - polls, time.monotonic() - begun
        late = sorted((seen - gap) * 1e3 for seen in stub.gaps)
    assert stub.posts == spec["jobs"]
    return {
        "poll_us": cpu / polls * 1e6 - await _stub.cost_us(),
        "late_p50_ms": late[len(late) // 2],
        "late_p99_ms": late[len(late) * 99 // 100],
        "polls_per_second": polls / took,
        "gauge": harness.gauge(),
    }


def summary(records: list[harness.Record], few: int, many: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for peer in PEERS:
        ours = [record for record in records if record["peer"] == peer]
        rss = {(record["round"], record["jobs"]): record["rss"] for record in ours if record["what"] == "waiting"}
        grown = [(rss[at, many] - rss[at, few]) / (many - few) for at, jobs in rss if jobs == many]
        found[peer] = {"bytes_per_job": harness.spread(grown)}
        for rate in RATES:
            polls = [record for record in ours if record.get("rate") == rate]
            for field in ("poll_us", "late_p50_ms", "late_p99_ms", "polls_per_second"):
                found[peer][f"{field}@{rate}"] = harness.spread([record[field] for record in polls])
    return found


def main() -> None:
    given = harness.arguments(__doc__, rounds=5)
    if given.child:
        harness.answer(asyncio.run(globals()[given.child["what"]](given.child)))
        return
    few, many = (1_000, 5_000) if given.quick else (FEW, MANY)
    polled = 2_000 if given.quick else 10_000
    groups = [
        *([{"what": "waiting", "peer": peer, "jobs": jobs} for peer in PEERS] for jobs in (few, many)),
        *([{"what": "polling", "peer": peer, "jobs": polled, "rate": rate} for peer in PEERS] for rate in RATES),
    ]
    records = list(harness.interleaved(groups, given.rounds, lambda case: harness.run(__file__, case)))
    found = summary(records, few, many)
    rows = [["bytes of a waiting job", *(harness.shown(found[peer]["bytes_per_job"]) for peer in PEERS)]]
    for rate in RATES:
        for title, field, digits in (
            ("CPU of a poll besides the request, us", "poll_us", 1),
            ("lateness p50, ms", "late_p50_ms", 1),
            ("lateness p99, ms", "late_p99_ms", 1),
            ("polls a second", "polls_per_second", 0),
        ):
            shown = [harness.shown(found[peer][f"{field}@{rate}"], digits) for peer in PEERS]
            rows.append([f"{title}, {rate:,} a second asked", *shown])
    series = {peer: [found[peer][f"poll_us@{rate}"] for rate in RATES] for peer in PEERS}
    asked = [f"{rate:,} polls a second" for rate in RATES]
    picture = harness.bars("A poll, besides its request", "CPU us", asked, series)
    harness.finish("waiting_jobs", found, [harness.table(["", *PEERS], rows)], [picture])


if __name__ == "__main__":
    main()
