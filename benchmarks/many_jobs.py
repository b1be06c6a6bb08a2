"""How does a run of 10,000 jobs at 2,000 requests a minute go: when does it end, and does its memory grow?

One batch of the Agent API whose submissions and polls share the limit, which answers tell. The server is the emulator
in a process of its own; both run on clocks ten times as fast as real time, so that the machine's own delays are in the
figures. Answers have 50 KB, and the consumer keeps none. *Memory* is that of the client process, by how many results it
has handed out. The ideal end is the latest of (the moment at which a submission fits, and the duration of its job).

    python benchmarks/many_jobs.py [--quick] [--rounds N] [--speed N]

A round is a seed.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import _harness as harness

RPM, JOBS, CHARS = 2_000, 10_000, 50_000
POINTS = 20


async def child(spec: Mapping[str, Any]) -> None:
    import _played as played

    from aiopplx import Event, EventKind, Session
    from aiopplx.emulator import limits
    from aiopplx.testing import Clock

    jobs, clock = spec["jobs"], Clock(spec["speed"])
    last = 0.0

    def told(event: Event) -> None:
        nonlocal last
        if event.kind is EventKind.SUBMITTED:
            last = clock.now() - began

    memory = [(0, harness.memory("VmRSS"))]
    cpu = time.process_time()
    began = clock.now()
    async with (
        Session(
            played.KEY, base_url=spec["url"], api="agent", clock=clock, on_event=told, max_in_flight=jobs
        ) as session,
        session.batch(played.question(number) for number in range(jobs)) as batch,
    ):
        handed = 0
        async for job in batch:
            assert job.ok, job
            handed += 1
            if handed % (jobs // POINTS) == 0:
                memory.append((handed, harness.memory("VmRSS")))
    end = clock.now() - began
    cpu = time.process_time() - cpu
    least = played.possible(limits.Bucket(RPM), jobs, played.durations(spec["round"]), 0.0)
    harness.answer({
        "end": end,
        "end_of_ideal": end / least["end"],
        "last_submission": last,
        "last_of_ideal": last / max(1.0, least["last_submission"]),
        "memory": memory,
        "peak": harness.memory("VmHWM"),
        "cpu_ms_a_job": cpu / jobs * 1e3,
    })


def one_run(case: Mapping[str, Any]) -> harness.Record:
    words = {"rpm": RPM, "speed": case["speed"], "seed": case["round"], "chars": CHARS}
    command = [sys.executable, str(harness.HERE / "_emulated.py"), json.dumps(words)]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=harness.environment()
    )
    assert server.stdout is not None
    try:
        record = harness.run(__file__, {**case, "url": f"http://127.0.0.1:{int(server.stdout.readline())}"})
    finally:
        told, _ = server.communicate("")
    counts = json.loads(told)
    if counts["created"] != case["jobs"]:
        raise RuntimeError(f"not every job was submitted once: {counts}")
    return {**record, "requests_a_job": counts["requests"] / case["jobs"]}


def main() -> None:
    words = {"--speed": {"type": float, "default": 10.0, "help": "seconds of the clock in a real second"}}
    given = harness.arguments(__doc__, rounds=3, words=words)
    if given.child:
        asyncio.run(child(given.child))
        return
    jobs = 1_000 if given.quick else JOBS
    case = {"jobs": jobs, "speed": given.speed, "peer": "library"}
    records = list(harness.interleaved([[case]], given.rounds, one_run, tells_round=True))
    fields = ("end", "end_of_ideal", "last_submission", "last_of_ideal", "requests_a_job", "cpu_ms_a_job")
    found: dict[str, Any] = {field: harness.spread([one[field] for one in records]) for field in fields}
    for name, at in (("at the start", 0), ("after a tenth", POINTS // 10), ("half", POINTS // 2), ("all", POINTS)):
        found[f"memory, {name}"] = harness.spread([one["memory"][at][1] / 1e6 for one in records])
    found["memory, at the peak"] = harness.spread([one["peak"] / 1e6 for one in records])
    titles = {
        "end": ("end, s", 0),
        "end_of_ideal": ("end, of ideal", 3),
        "last_submission": ("last submission, s", 1),
        "last_of_ideal": ("last submission, of ideal", 3),
        "requests_a_job": ("requests a job", 1),
        "cpu_ms_a_job": ("CPU ms a job, of the client", 2),
    }
    rows = [[title, harness.shown(found[field], digits)] for field, (title, digits) in titles.items()]
    rows += [[f"{name} of the results, MB", harness.shown(one, 1)] for name, one in found.items() if "memory" in name]
    lines = {f"seed {one['round']}": [(at, held / 1e6) for at, held in one["memory"]] for one in records}
    picture = harness.curves("Memory of the client process", "results handed out", "MB", lines)
    harness.finish("many_jobs", found, [harness.table([f"{jobs:,} jobs", "median (quartiles)"], rows)], [picture])


if __name__ == "__main__":
    main()
