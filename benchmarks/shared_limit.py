"""What does it cost if four processes work for one account, and what do they gain by sharing its limit?

The server allows 20 submissions a second (60 a minute, at twenty times the speed) with a burst of 4, and says
`Retry-After`. There are 200 questions. Counted are refusals, requests that arrive inside a silence that the server had
asked of any process (the first 50 ms are allowed), and the time of the slowest process over that of one process alone.

- `one`: a single process with the account's `rpm`;
- `each`: four processes, each with the account's `rpm`, as if it were alone;
- `divided`: four processes, each with a quarter of it;
- `shared`: four processes with the account's `rpm` and `shared=`, on a PostgreSQL server of this machine's.

The work is spread evenly, or is all in one of the four.

    python benchmarks/shared_limit.py [--quick] [--rounds N] [--only shared]

Real sockets, real time, a process for each session. PostgreSQL's server programs must be on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _harness as harness

from aiopplx import PollPolicy, Session
from aiopplx.emulator import Emulator, limits

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
from _postgres import running

SCALE, RPM, WORKERS, QUESTIONS = 20.0, 60.0, 4, 200
ALLOWED = 0.05
"""Seconds after a silence was asked for in which requests may still arrive that had left before."""
PEERS = ("one", "each", "divided", "shared")
EVEN, ALONE = "spread evenly", "all in one"


async def work(spec: Mapping[str, Any]) -> dict[str, Any]:
    """One process."""
    async with Session("k", base_url=spec["url"], poll=PollPolicy.fixed(1.0), **spec["session"]) as session:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        clock = asyncio.get_running_loop().time
        began = clock()
        async with session.batch(f"{spec['name']}: {n}?" for n in range(spec["questions"])) as batch:
            done = [job.ok async for job in batch]
        return {"seconds": clock() - began, "done": sum(done)}


async def measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    peer, count = spec["peer"], 1 if spec["peer"] == "one" else WORKERS
    whole = spec["questions"]
    questions = [whole // count] * count if spec["work"] == EVEN else [whole] + [0] * (count - 1)
    session: dict[str, Any] = {"rpm": RPM * SCALE / (count if peer == "divided" else 1)}
    async with contextlib.AsyncExitStack() as stack:
        if peer == "shared":
            session["shared"] = stack.enter_context(running()).url()
        server = await stack.enter_async_context(
            Emulator(
                limits={"submit": limits.Bucket(RPM, burst=4)},
                time_scale=SCALE,
                duration=5.0,
                limit_hints="retry-after",
                answer_chars=500,
                log_size=1_000_000,
            )
        )
        words = [
            {"worker": True, "url": server.url, "name": f"{n}", "questions": of, "session": session}
            for n, of in enumerate(questions)
        ]
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                __file__,
                "--child",
                json.dumps(word),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for word in words
        ]
        for process in processes:
            assert process.stdout is not None
            await process.stdout.readline()
        told = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
        outcomes = [json.loads(out) for out, _ in told]
        log = list(server.ledger.log)
    return {
        "seconds": max(outcome["seconds"] for outcome in outcomes),
        "done": sum(outcome["done"] for outcome in outcomes),
        "refused": sum(line.status == 429 for line in log),
        "inside": _inside(log),
    }


def _inside(log: list[Any]) -> int:
    """How many requests arrived inside a silence."""
    silences = [(line.at + ALLOWED, line.at + float(line.retry_after)) for line in log if line.retry_after]
    return sum(any(begin < line.at < end for begin, end in silences) for line in log)


def main() -> None:
    given = harness.arguments(__doc__, rounds=3)
    if given.child:
        harness.answer(asyncio.run(work(given.child) if "worker" in given.child else measure(given.child)))
        return
    harness.known(given.only, PEERS)
    peers = [peer for peer in PEERS if peer == "one" or not given.only or peer in given.only]
    questions = 40 if given.quick else QUESTIONS
    cases = [
        (peer, work)
        for peer in peers
        for work in (EVEN, ALONE)
        if (peer, work) not in (("one", ALONE), ("each", ALONE))
    ]
    groups = [[{"peer": peer, "work": work, "questions": questions} for peer, work in cases]]
    records = list(
        harness.interleaved(groups, given.rounds, lambda spec: harness.run(__file__, spec), tells_round=True)
    )
    alone = {one["round"]: one["seconds"] for one in records if one["peer"] == "one"}
    found: dict[str, Any] = {}
    rows = []
    for peer, work_is in cases:
        ours = [one for one in records if (one["peer"], one["work"]) == (peer, work_is)]
        of = found[f"{peer}, {work_is}"] = {
            "refused": harness.spread([one["refused"] for one in ours]),
            "inside": harness.spread([one["inside"] for one in ours]),
            "times": harness.spread([one["seconds"] / alone[one["round"]] for one in ours]),
            "done": min(one["done"] for one in ours),
        }
        rows.append([
            f"{peer}, {work_is}" if peer != "one" else peer,
            harness.shown(of["refused"], 0),
            harness.shown(of["inside"], 0),
            harness.shown(of["times"], 2),
        ])
    head = ["", "refused (429)", "requests inside a silence", "time, one process = 1"]
    series = {"time": [found[f"{peer}, {work_is}"]["times"] for peer, work_is in cases]}
    names = [f"{peer}, {work_is}" if peer != "one" else peer for peer, work_is in cases]
    picture = harness.bars("Four processes on one account", "time, one process = 1", names, series)
    harness.finish("shared_limit", found, [harness.table(head, rows)], [picture])


if __name__ == "__main__":
    main()
