"""Is anything paid twice, or lost, if four workers on one journal are killed and paused while requests fail?

Four processes, each with a session on one journal on PostgreSQL, are given the same questions in another order each,
and one limit. One of them is killed (SIGKILL) every few seconds, and another one started in its place, or it is stopped
for one and a half leases, which have two seconds here; or the database crashes instead, and connections to it are
ended, with the usual lease of thirty seconds. Meanwhile a share of all requests fails, POSTs and GETs alike: cut
connections, errors, pages of a proxy, answers that end in the middle; of the POSTs that fail, half have made their job.

- `keys honoured`: the service knows idempotency keys; 40 % of requests fail;
- `keys ignored`: each POST that arrives is a new job, so `on_doubt="hold"`; 5 % fail;
- `crashes`: keys ignored, nothing fails but the database: five crashes, and 200 connections are ended.

    python benchmarks/killed_workers.py [--quick] [--only "keys honoured"]

After the last harm each worker goes on, and requests go on failing, until it was given the outcome of every question.
Counted is what the service made, what stands in the journal and what the workers were given. Real sockets, real time;
PostgreSQL's server programs must be on this machine. A run takes about ten minutes on two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _harness as harness
from _failing import Service

from aiopplx.journal import PostgresReader, State
from aiopplx.journal._postgres.driver import AsyncpgDatabase
from aiopplx.journal._postgres.url import address_of

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
from _postgres import Server, running

WORKER = Path(__file__).parent.parent / "tests" / "support" / "_worker.py"

WORKERS = 4
BETWEEN = (2.0, 5.0)
CASES: dict[str, dict[str, Any]] = {
    "keys honoured": {"questions": 5000, "honours": True, "fails": 0.4, "kills": 100, "pauses": 20},
    "keys ignored": {"questions": 5000, "honours": False, "fails": 0.05, "kills": 100, "pauses": 20},
    "crashes": {"questions": 4000, "honours": False, "fails": 0.0, "crashes": 5, "ended": 200, "lease": 30.0},
}
QUICK = {"questions": 150, "kills": 3, "pauses": 1}
TOLD = {
    "questions": "questions",
    "kills": "workers killed",
    "pauses": "workers stopped for one and a half leases",
    "crashes": "crashes of the database",
    "ended": "connections ended",
    "requests": "requests",
    "requests_failed": "of these failed",
    "made": "jobs that the service made",
    "done": "jobs collected",
    "in_doubt": "submissions in doubt",
    "in_doubt_and_made": "of these made at the service",
    "ends_told_twice": "ends told by two workers",
    "ends_after_doubt": "ends told after the doubt about them was",
}
ZERO = {
    "paid_twice": "questions paid twice",
    "changed_bodies": "keys sent again with other bytes",
    "lost": "questions or jobs lost",
    "undelivered": "outcomes not handed out",
    "ids_twice": "questions with two ids, or ids of two questions",
    "untrue": "ids handed out that the journal does not have",
    "ended_badly": "workers that ended by themselves",
    "unseen": "failures that nobody saw",
}
HARMS = ("kills", "pauses", "crashes", "ended")


class Worker:
    """A worker process, and what it was given."""

    def __init__(self, process: asyncio.subprocess.Process, crew: Crew, order: list[int]) -> None:
        self.process = process
        self.given: dict[int, str] = {}
        self.is_open = asyncio.Event()
        self.is_done = asyncio.Event()
        self._crew = crew
        assert process.stdin is not None
        process.stdin.write(json.dumps(["batch", order]).encode() + b"\n")
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            if "failed" in said or "unseen" in said:
                self._crew.complaints.append(line.decode())
            elif said.get("event") == "FINISHED":
                self._crew.told[said["tag"]].append(said["ended"])
            elif said.get("ready"):
                self.is_open.set()
            elif said.get("done") == "batch":
                self.is_done.set()
            elif "status" in said:
                self.given[said["tag"]] = said["status"]
                if said["id"]:
                    self._crew.ids.setdefault(said["tag"], set()).add(said["id"])
        self.is_open.set()
        self.is_done.set()


class Crew:
    """The workers of a run, and what all of them were given and complained of.

    Args:
        spec: of the case.
        url: the journal's.
        service: the server's address.
        words: where they write what is wrong.
    """

    def __init__(self, spec: Mapping[str, Any], url: str, service: str, words: Path) -> None:
        self.complaints: list[str] = []
        self.ids: dict[int, set[str]] = {}
        self.told: defaultdict[int, list[str]] = defaultdict(list)
        self.workers: list[Worker] = []
        self.lease: float = spec.get("lease", 2.0)
        self._questions: int = spec["questions"]
        self._chance = random.Random(spec["round"])
        self._words = words
        harms = len(order_of(spec))
        # The questions last as long as what happens to the workers.
        seconds = 15.0 + spec.get("pauses", 0) * 1.5 * self.lease + sum(BETWEEN) / 2.0 * harms
        rpm = 60.0 * self._questions * (1.0 + spec["fails"]) / seconds
        self._spec = json.dumps({
            "server": service,
            "journal": url,
            "lease": self.lease,
            "gap": 2.0,
            "retry": {"max_delay": 2.0, "doubt_tries": 40, "on_doubt": None if spec["honours"] else "hold"},
            "session": {"rpm": rpm},
        })

    async def start(self) -> Worker:
        with self._words.open("ab") as words:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(WORKER),
                self._spec,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=words,
                limit=1 << 20,
            )
        worker = Worker(process, self, self._chance.sample(range(self._questions), self._questions))
        self.workers.append(worker)
        return worker

    async def kill(self) -> None:
        worker = self._chance.choice(self.workers)
        self.workers.remove(worker)
        worker.process.kill()
        await worker.process.wait()
        await worker.reading
        await self.start()

    async def pause(self) -> None:
        process = self._chance.choice(self.workers).process
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5 * self.lease)
        process.send_signal(signal.SIGCONT)

    async def ended(self) -> list[int | None]:
        """Wait until each was given everything. Returns the exit code of each."""
        for worker in self.workers:
            await worker.is_done.wait()
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
            await worker.process.wait()
            await worker.reading
        return [worker.process.returncode for worker in self.workers]


async def end_backends(url: str, count: int) -> int:
    """End connections of the workers, all that there are and again, until there were so many."""
    database, ended = AsyncpgDatabase(address_of(url)), 0
    sql = (
        "SELECT pg_terminate_backend(pid) AS ended FROM pg_stat_activity"
        f" WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random() LIMIT {count}"
    )
    try:
        ended = len(await database.fetch(sql))
    finally:
        await database.close()
    return ended


def order_of(spec: Mapping[str, Any]) -> list[str]:
    """Everything that is to happen. Connections are ended four at a time: more there may not be."""
    return [name for name in HARMS for _ in range(spec.get(name, 0) // (4 if name == "ended" else 1))]


async def harm(spec: Mapping[str, Any], crew: Crew, server: Server, url: str) -> None:
    """Everything that happens to the workers, in an order drawn by the round."""
    chance = random.Random(1000 + spec["round"])
    left: int = spec.get("ended", 0)
    order = order_of(spec)
    chance.shuffle(order)
    for number, name in enumerate(order):
        await asyncio.sleep(chance.uniform(*BETWEEN))
        if number % 10 == 0:
            print(f"{number} of {len(order)}; {len(crew.ids)} ids", file=sys.stderr, flush=True)
        if name == "kills":
            await crew.kill()
        elif name == "pauses":
            await crew.pause()
        elif name == "crashes":
            await asyncio.to_thread(server.stop, "immediate")
            await asyncio.to_thread(server.start)
        else:
            left -= await end_backends(url, 4)
    while left > 0:
        await asyncio.sleep(1.0)
        left -= await end_backends(url, 4)


async def measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder, running() as server:
        words, url = Path(folder) / "words", server.url()
        async with Service(honours=spec["honours"], fails=spec["fails"], seconds=8.0, seed=spec["round"]) as service:
            crew = Crew(spec, url, service.url, words)
            began = loop.time()
            for _ in range(WORKERS):
                await (await crew.start()).is_open.wait()
            await harm(spec, crew, server, url)
            harmed = loop.time() - began
            codes = await crew.ended()
        with PostgresReader(url) as reader:
            rows = reader.rows(limit=2 * spec["questions"])
        return {
            **judged(spec, service, crew, rows),
            "seconds": loop.time() - began,
            "seconds_harmed": harmed,
            "requests": service.posts + service.gets,
            "requests_failed": service.failed,
            "posts": service.posts,
            "ended_badly": sum(code != 0 for code in codes),
            "unseen": words.read_text(encoding="utf-8").count("never retrieved"),
            "complaints": crew.complaints[:5],
        }


def judged(spec: Mapping[str, Any], service: Service, crew: Crew, rows: list[Any]) -> dict[str, Any]:
    """What must be 0, and what is told beside."""
    everything = set(range(spec["questions"]))
    doubt = [row for row in rows if row.state is State.IN_DOUBT]
    known = {row.job_id for row in rows if row.state is State.DONE}
    in_doubt = {row.key for row in doubt}
    ids = [row.job_id for row in rows if row.job_id]
    return {
        "made": service.made,
        "rows": len(rows),
        "done": len(known),
        "in_doubt": len(doubt),
        "in_doubt_and_made": sum(key in service.by_key for key in in_doubt),
        "ends_told_twice": sum(len(told) > len(set(told)) for told in crew.told.values()),
        "ends_after_doubt": sum(len(set(told)) > 1 for told in crew.told.values()),
        "ends_told": dict(Counter("+".join(told) for told in crew.told.values() if len(told) > 1)),
        # What must be 0.
        "paid_twice": service.made - len(service.by_key) + len(rows) - len({row.tag for row in rows}),
        "changed_bodies": service.changed_bodies,
        # A job of the service that is neither collected nor told as in doubt; and a question without a row.
        "lost": sum(key not in in_doubt and not known & set(made) for key, made in service.by_key.items())
        + len(everything - {row.tag for row in rows}),
        "undelivered": sum(len(everything - set(worker.given)) for worker in crew.workers),
        "ids_twice": len(ids) - len(set(ids)) + sum(len(found) > 1 for found in crew.ids.values()),
        "untrue": sum(
            (crew.ids.get(row.tag) or {row.job_id}) != {row.job_id} for row in rows if row.state is State.DONE
        ),
    }


def main() -> None:
    given = harness.arguments(__doc__, rounds=1)
    if given.child:
        harness.answer(asyncio.run(measure(given.child)))
        return
    harness.known(given.only, list(CASES))
    cases = {
        name: case | {word: min(number, case.get(word, 0)) for word, number in QUICK.items()} if given.quick else case
        for name, case in CASES.items()
        if not given.only or name in given.only
    }
    groups = [[{"peer": name, **case}] for name, case in cases.items()]
    found: dict[str, Any] = {}
    for one in harness.interleaved(groups, given.rounds, lambda spec: harness.run(__file__, spec), tells_round=True):
        sums = found.setdefault(one["peer"], {})
        for name, value in one.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                sums[name] = sums.get(name, 0) + value
    head = ["", *cases]
    rows = [[words, *(f"{found[name].get(field, 0):,.0f}" for name in cases)] for field, words in TOLD.items()]
    must = [[words, *(f"{found[name][field]:,.0f}" for name in cases)] for field, words in ZERO.items()]
    harness.finish(
        "killed_workers", found, [harness.table(head, rows), harness.table(head, must, title="What must be 0")]
    )


if __name__ == "__main__":
    main()
