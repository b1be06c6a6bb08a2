"""How long does a browser wait for the state of its job while two hundred others follow theirs?

One FastAPI process under uvicorn, one session in it, and 200 browsers: each asks, follows its job by server-sent events
to its end, which is 15 seconds later, and asks again. Jobs are polled every second. A further browser asks, one request
after the other, in an order that is drawn, for:

- `progress`: a job's updates (`aiopplx.contrib.fastapi`), until the first of them is there, and goes;
- `bare-stream`: the same of an endpoint that tells one constant event by FastAPI's own means, without the library;
- `bare`: an endpoint that returns a constant.

All three meet the same load in the same run, so the ratios are what the library adds to it. Times are from the request
to the first event, in milliseconds; emulator, app and browsers are three processes on the machine's cores.

    python benchmarks/progress_request.py [--quick] [--rounds N]

A run fails if a browser hears an update twice or no end, if jobs are polled for each of those who follow them, or if
a job is still polled when all browsers have gone.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import _harness as harness
import aiohttp

PEERS = ("progress", "bare-stream", "bare")
DURATION = 15.0
"""Seconds of each job."""


class Process:
    """A program that prints its port and ends with its standard input."""

    def __init__(self, file: str, *words: str) -> None:
        command = [sys.executable, str(harness.HERE / file), *words]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=harness.environment()
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def end(self) -> str:
        return self._process.communicate()[0]


async def first_event(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path) as response:
        assert response.status == 200, await response.text()
        if response.content_type == "application/json":
            await response.read()
            return
        async for line in response.content:
            if line.startswith(b"data:"):
                return


class Browser:
    """Asks, follows its job to the end, and asks again."""

    def __init__(self, client: aiohttp.ClientSession, number: int) -> None:
        self._client = client
        self._number = number
        self.job = ""
        self.asked = self.updates = 0

    async def run(self) -> None:
        await asyncio.sleep(DURATION * self._number / 200)  # not all in one second
        while True:
            self.asked += 1
            question = {"question": f"Question {self._number}, {self.asked}?"}
            async with self._client.post("/research", params=question) as response:
                job = (await response.json())["id"]
            told: list[str] = []
            async with self._client.get(f"/research/{job}/events") as response:
                self.job = job
                async for line in response.content:
                    if line.startswith(b"id:"):
                        told.append(line.decode().removeprefix("id:").strip())
                        self.updates += 1
            assert told[-1] == "completed", told
            assert len(set(told)) == len(told), f"told twice: {told}"


async def measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    count, probes = spec["browsers"], spec["probes"]
    order = random.Random(probes)
    async with aiohttp.ClientSession(spec["url"], connector=aiohttp.TCPConnector(limit=0)) as client:
        browsers = [Browser(client, number) for number in range(count)]
        following = [asyncio.create_task(browser.run()) for browser in browsers]
        await asyncio.sleep(DURATION * count / 200 + 1.0)
        times: dict[str, list[float]] = {peer: [] for peer in PEERS}
        for number in range(probes):
            for peer in order.sample(PEERS, len(PEERS)):
                path = f"/research/{browsers[number % count].job}/events" if peer == "progress" else f"/{peer}"
                before = time.perf_counter()
                await first_event(client, path)
                times[peer].append((time.perf_counter() - before) * 1e3)
        for one in following:
            one.cancel()
        for end in await asyncio.gather(*following, return_exceptions=True):
            if not isinstance(end, asyncio.CancelledError):
                raise RuntimeError("a browser ended before the others") from end
        running = count
        for _ in range(100):
            async with client.get("/health") as response:
                running = (await response.json())["running"]
            if not running:
                break
            await asyncio.sleep(0.1)
    assert running == 0, f"{running} jobs are polled for nobody"
    found: dict[str, Any] = {
        "asked": sum(browser.asked for browser in browsers),
        "updates": sum(browser.updates for browser in browsers),
        "gauge": harness.gauge(),
    }
    for peer, ours in times.items():
        held = sorted(ours)
        found[peer] = {"p50": held[len(held) // 2], "p99": held[len(held) * 99 // 100]}
    return found


def one_run(case: Mapping[str, Any]) -> harness.Record:
    emulated = Process(
        "_emulated.py", json.dumps({"rpm": 60_000, "speed": 1, "seed": 0, "chars": 400, "lasts": DURATION})
    )
    app = Process("_progress_app.py", emulated.url)
    began = time.monotonic()
    try:
        record = harness.run(__file__, {**case, "url": app.url})
    finally:
        app.end()
        told = json.loads(emulated.end())
    lasted = time.monotonic() - began
    # Each is submitted once and polled once a second; whoever asks for one that has just ended has it polled again.
    most = record["asked"] + case["browsers"] * lasted + case["probes"]
    if told["created"] > record["asked"] or told["requests"] > most:
        raise RuntimeError(f"{record['asked']} jobs, {lasted:.0f} s, but: {told}")
    return {
        **record,
        "requests_a_second": told["requests"] / lasted,
        "updates_a_second": record["updates"] / lasted,
    }


def main() -> None:
    given = harness.arguments(__doc__, rounds=7)
    if given.child:
        harness.answer(asyncio.run(measure(given.child)))
        return
    case = {"browsers": 20, "probes": 30} if given.quick else {"browsers": 200, "probes": 500}
    records = list(harness.interleaved([[case]], given.rounds, one_run))
    found: dict[str, Any] = {
        peer: {which: harness.spread([record[peer][which] for record in records]) for which in ("p50", "p99")}
        for peer in PEERS
    }
    rows = [[peer, *(harness.shown(found[peer][which], 1) for which in ("p50", "p99"))] for peer in PEERS]
    for to in PEERS[1:]:
        ratio = {
            which: harness.spread([record["progress"][which] / record[to][which] for record in records])
            for which in ("p50", "p99")
        }
        found[f"progress to {to}"] = ratio
        rows.append([f"progress / {to}", *(f"x {harness.shown(ratio[which], 2)}" for which in ("p50", "p99"))])
    for name in ("asked", "updates_a_second", "requests_a_second"):
        found[name] = harness.spread([record[name] for record in records])
    notes = (
        f"{case['browsers']} browsers, {found['requests_a_second']['median']:,.0f} requests a second to the service,"
        f" {found['updates_a_second']['median']:,.0f} updates a second to the browsers."
    )
    table = harness.table(["milliseconds to the first event", "median", "p99"], rows, notes=notes)
    series = {peer: [found[peer]["p50"], found[peer]["p99"]] for peer in PEERS}
    picture = harness.bars(f"The state of a job, beside {case['browsers']} who follow", "ms", ["median", "p99"], series)
    harness.finish("progress_request", found, [table], [picture])


if __name__ == "__main__":
    main()
