"""How much CPU does the client process spend on one job, against bare aiohttp + msgspec and the official SDK?

Every peer makes the same exchanges (a POST, then n GETs a job, 50 jobs in flight, results kept), which the server's
counts prove. CPU is user + system of the client process alone, without its start and a warm-up of one full flight.

- `bare`, the floor: a session of aiohttp's defaults, one read and one decode into typed structs; no retries, no pacing,
  and no wait between polls, so that its loop never idles and finds many answers at each turn;
- `bare-waiting`: the same with the library's gap of 10 ms before each poll, since no client can poll without one;
- `bare-tuned`: the floor with the settings that make aiohttp cheaper, which bound nothing in time;
- `sdk` and `sdk-aiohttp`: the official SDK, on httpx and on its aiohttp transport (needs `httpx-aiohttp`).

    python benchmarks/cpu_per_job.py [--quick] [--rounds N] [--only library,bare]
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import _harness as harness

if TYPE_CHECKING:
    import aiohttp
    import httpx

FLIGHT = 50
CELLS = {
    "2 KB, 1 GET": (2_000, 1),
    "50 KB, 1 GET": (50_000, 1),
    "300 KB, 1 GET": (300_000, 1),
    "50 KB, 3 GETs": (50_000, 3),
}
PEERS = ("bare", "bare-waiting", "bare-tuned", "library", "sdk", "sdk-aiohttp")
# The shortest gap between polls that a policy of the library takes, in seconds.
GAP = 0.01
KEY = "pplx-benchmark"
PATH = "/async/chat/completions"

Work = Callable[[int], Awaitable[list[Any]]]


def question(n: int) -> str:
    return f"Question {n}: what is known about the sinking of the Vasa, and on what sources does that rest?"


# --- peers: each gives `work(n)`, which makes n jobs and returns their results ----------------------------------------


@contextlib.asynccontextmanager
async def library(url: str) -> AsyncIterator[Work]:
    from aiopplx import PollPolicy, Session

    # No budget: the server says how many polls a job gets, as for the others.
    poll = PollPolicy.fixed(GAP, budget=1e9)
    async with Session(KEY, base_url=url, poll=poll, max_in_flight=FLIGHT) as session:

        async def work(n: int) -> list[Any]:
            async with session.batch(question(i) for i in range(n)) as jobs:
                return [job.result() async for job in jobs]

        yield work


@contextlib.asynccontextmanager
async def bare(url: str) -> AsyncIterator[Work]:
    import _floor
    import aiohttp

    async with aiohttp.ClientSession(headers=_floor.headers(KEY)) as session:
        yield lambda n: _flights(n, lambda i: _floor.job(session, url + PATH, question(i)))


@contextlib.asynccontextmanager
async def bare_waiting(url: str) -> AsyncIterator[Work]:
    import _floor
    import aiohttp

    async with aiohttp.ClientSession(headers=_floor.headers(KEY)) as session:
        yield lambda n: _flights(n, lambda i: _floor.job(session, url + PATH, question(i), gap=GAP))


@contextlib.asynccontextmanager
async def bare_tuned(url: str) -> AsyncIterator[Work]:
    import _floor

    async with _tuned(_floor.headers(KEY)) as session:
        yield lambda n: _flights(n, lambda i: _floor.tuned_job(session, url + PATH, question(i)))


def _tuned(headers: Mapping[str, str]) -> aiohttp.ClientSession:
    import aiohttp

    return aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0),
    )


@contextlib.asynccontextmanager
async def sdk(url: str) -> AsyncIterator[Work]:
    async with _sdk_on(url, None) as work:
        yield work


@contextlib.asynccontextmanager
async def sdk_aiohttp(url: str) -> AsyncIterator[Work]:
    from perplexity import DefaultAioHttpClient

    async with _sdk_on(url, DefaultAioHttpClient()) as work:
        yield work


@contextlib.asynccontextmanager
async def _sdk_on(url: str, http: httpx.AsyncClient | None) -> AsyncIterator[Work]:
    import uuid

    from perplexity import AsyncPerplexity

    async with AsyncPerplexity(api_key=KEY, base_url=url, http_client=http) as client:
        completions = client.async_.chat.completions

        async def one(i: int) -> Any:
            request = {"model": "sonar-deep-research", "messages": [{"role": "user", "content": question(i)}]}
            job = await completions.create(request=request, idempotency_key=uuid.uuid4().hex)
            while job.status != "COMPLETED":
                job = await completions.get(job.id)
            return job

        yield lambda n: _flights(n, one)


async def _flights(n: int, one: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """`n` jobs by `FLIGHT` workers: the cheapest way to keep that many in flight."""
    numbers = iter(range(n))
    kept: list[Any] = []

    async def worker() -> None:
        for i in numbers:
            kept.append(await one(i))

    await asyncio.gather(*(worker() for _ in range(FLIGHT)))
    return kept


CLIENTS = {
    "library": library,
    "bare": bare,
    "bare-waiting": bare_waiting,
    "bare-tuned": bare_tuned,
    "sdk": sdk,
    "sdk-aiohttp": sdk_aiohttp,
}


async def child(spec: Mapping[str, Any]) -> None:
    async with CLIENTS[spec["peer"]](spec["url"]) as work:
        await work(FLIGHT)
        speed = harness.gauge()
        gc.collect()
        held, wall, cpu = harness.memory("VmRSS"), time.monotonic(), time.process_time()
        system = resource.getrusage(resource.RUSAGE_SELF).ru_stime
        kept = await work(spec["jobs"])
        system = resource.getrusage(resource.RUSAGE_SELF).ru_stime - system
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        grown = harness.memory("VmRSS") - held
    assert len(kept) == spec["jobs"]
    harness.answer({
        "cpu_us": cpu / spec["jobs"] * 1e6,
        "system_us": system / spec["jobs"] * 1e6,
        "gauge": (speed + harness.gauge()) / 2,
        "jobs_per_second": spec["jobs"] / wall,
        "kept_kb": grown / spec["jobs"] / 1000,
    })


# --- the comparison ---------------------------------------------------------------------------------------------------


def one_run(case: Mapping[str, Any]) -> harness.Record:
    size, gets = CELLS[case["cell"]]
    with harness.Server(size=size, gets=gets) as server:
        record = harness.run(__file__, {**case, "url": server.url})
        counts = server.counts()
    jobs = case["jobs"] + FLIGHT
    found = (counts["jobs"], counts["posts"], counts["gets"], counts["lists"])
    if found != (jobs, jobs, jobs * gets, 0):
        raise RuntimeError(f"{case['peer']} made other exchanges than its peers: {counts}, {jobs} jobs")
    return {**record, "connections": counts["connections"]}


def summary(records: list[harness.Record], peers: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for cell in CELLS:
        ours = [record for record in records if record["cell"] == cell]
        found[cell] = {
            peer: {
                "cpu_us": harness.spread([one["cpu_us"] for one in ours if one["peer"] == peer]),
                "to_bare": harness.ratios(ours, "cpu_us", peer, "bare"),
                "kept_kb": harness.spread([one["kept_kb"] for one in ours if one["peer"] == peer]),
            }
            for peer in peers
        }
    return found


def main() -> None:
    given = harness.arguments(__doc__, rounds=7)
    if given.child:
        asyncio.run(child(given.child))
        return
    has_transport = importlib.util.find_spec("httpx_aiohttp") is not None
    peers = [peer for peer in given.only or PEERS if peer != "sdk-aiohttp" or has_transport]
    peers = peers if "bare" in peers else ["bare", *peers]
    jobs = 100 if given.quick else 400
    cases = [[{"peer": peer, "cell": cell, "jobs": jobs} for peer in peers] for cell in CELLS]
    found = summary(list(harness.interleaved(cases, given.rounds, one_run)), peers)
    rows = [
        [
            peer,
            *(
                f"{found[c][peer]['cpu_us']['median']:,.0f} us, {harness.shown(found[c][peer]['to_bare'], 2)}"
                for c in CELLS
            ),
        ]
        for peer in peers
    ]
    table = harness.table(["CPU of a job, and its ratio to bare", *CELLS], rows, notes="Aim: at most 1.25.")
    ratios = {peer: [found[cell][peer]["to_bare"] for cell in CELLS] for peer in peers}
    picture = harness.bars("CPU of one job", "times bare", list(CELLS), ratios, logarithmic=True)
    harness.finish("cpu_per_job", found, [table], [picture])


if __name__ == "__main__":
    main()
