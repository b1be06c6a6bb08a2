"""Several worker processes over one journal on PostgreSQL: one tag is one job, and a dead worker's jobs are collected.

Real processes, a real server and SIGKILL. Counts are those of the service; nothing here depends on who wins a race.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from _postgres import Server, pooled

from aiopplx.emulator import AfterPolls, Emulator, faults
from aiopplx.journal._postgres.journal import PostgresJournal
from aiopplx.journal._postgres.migrate import migrate
from aiopplx.journal._postgres.schema import VERSION
from aiopplx.journal._records import State

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHILD = ROOT / "tests" / "support" / "_worker.py"
SOON = 90.0


class Worker:
    """A worker process, and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, *, library: Path = ROOT, **spec: Any) -> Self:
        """A worker with the library in this folder."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            CHILD,
            json.dumps(spec),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(library)},
        )
        return cls(process)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))
            self._news.set()

    def tell(self, *what: list[Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(json.dumps(one) + "\n" for one in what).encode())

    def of(self, **words: Any) -> list[dict[str, Any]]:
        """What it said that has these words."""
        return [one for one in self.said if all(one.get(name) == value for name, value in words.items())]

    async def until(self, condition: Callable[[Self], bool]) -> None:
        with anyio.fail_after(SOON):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    def kill(self) -> None:
        self.process.kill()

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        with anyio.fail_after(SOON):
            await self.process.wait()
            await self._reading


@asynccontextmanager
async def workers(count: int, **spec: Any) -> AsyncIterator[list[Worker]]:
    found = list(await asyncio.gather(*(Worker.start(**spec) for _ in range(count))))
    try:
        for worker in found:
            await worker.until(lambda one: bool(one.of(ready=True)))
        yield found
    finally:
        for worker in found:
            await worker.end()
    assert [said for worker in found for said in worker.said if "unseen" in said or "failed" in said] == []


async def all_rows(url: str) -> Counter[State]:
    journal = await PostgresJournal.open(url)
    try:
        return Counter({state: count for state, count in (await journal.counts()).items() if count})
    finally:
        await journal.close()


@pytest.mark.parametrize("api", ["sonar", "agent"])
async def test_tags_asked_in_four_workers_are_one_job_each(api: str, postgres: Server) -> None:
    url = postgres.url()
    async with Emulator(duration=AfterPolls(3), answer_chars=500) as server:
        server.faults.add("submit", faults.Delay(1.0))
        async with workers(4, server=server.url, journal=url, api=api) as four:
            for worker in four:
                worker.tell(*(["ask", tag] for tag in range(20)))
            for worker in four:
                await worker.until(lambda one: len(one.of(did="ask")) == 20)
        answers = [said for worker in four for said in worker.of(did="ask")]
        assert {said["status"] for said in answers} == {"COMPLETED"}
        assert all(len({said["id"] for said in answers if said["tag"] == tag}) == 1 for tag in range(20))
        assert server.ledger.created == 20
        assert {job.polls for job in server.ledger.jobs} == {3}  # as many as one worker needs
        finished = [said for worker in four for said in worker.of(event="FINISHED")]
        assert len(finished) == 20
        assert sum(said["cost"] for said in finished) == pytest.approx(server.ledger.billed)
    assert await all_rows(url) == {State.DONE: 20}


NEXT = """
MIGRATIONS = {
    **MIGRATIONS,
    VERSION: (
        "ALTER TABLE ~.job ADD COLUMN IF NOT EXISTS colour text NOT NULL DEFAULT 'red'",
        "CREATE TABLE IF NOT EXISTS ~.painted(pk bigint PRIMARY KEY REFERENCES ~.job ON DELETE CASCADE)",
    ),
}
TABLES = (*TABLES, *MIGRATIONS[VERSION])
VERSION += 1
"""
"""What the next version of the library would have at the end of its tables."""


@pytest.fixture(scope="module")
def next_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the next version of the library."""
    folder = tmp_path_factory.mktemp("next")
    shutil.copytree(ROOT / "aiopplx", folder / "aiopplx", ignore=shutil.ignore_patterns("__pycache__"))
    schema = folder / "aiopplx" / "journal" / "_postgres" / "schema.py"
    schema.write_text(schema.read_text(encoding="utf-8") + NEXT, encoding="utf-8")
    return folder


@pytest.mark.parametrize("first", ["this version", "the next version"])
async def test_workers_of_two_versions_share_tags(first: str, next_library: Path, postgres: Server) -> None:
    """The tables are made by either: this version goes on while they are migrated, or opens those of the next."""
    url = postgres.url()
    is_migrated = first == "this version"
    libraries = [ROOT, next_library] if is_migrated else [next_library, ROOT]
    async with Emulator(duration=AfterPolls(3), answer_chars=500) as server:
        async with workers(2, library=libraries[0], server=server.url, journal=url) as two:
            for worker in two:
                worker.tell(*(["ask", tag] for tag in range(10)))
            if is_migrated:
                migrating = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "aiopplx", "journal", "migrate", url),
                    stdout=asyncio.subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": str(next_library)},
                    cwd=next_library,
                )
                told, _ = await migrating.communicate()
                assert (migrating.returncode, b"migrated" in told) == (0, True), told
            assert await migrate(url, version=VERSION + 1, migrations={}) == (VERSION + 1, VERSION + 1)
            async with workers(2, library=libraries[1], server=server.url, journal=url) as more:
                four = [*two, *more]
                for worker in four:
                    worker.tell(*(["ask", tag] for tag in range(20)))
                for count, worker in zip((30, 30, 20, 20), four, strict=True):
                    await worker.until(lambda one, count=count: len(one.of(did="ask")) == count)
        answers = [said for worker in four for said in worker.of(did="ask")]
        assert {said["status"] for said in answers} == {"COMPLETED"}
        assert all(len({said["id"] for said in answers if said["tag"] == tag}) == 1 for tag in range(20))
        assert server.ledger.created == 20
    assert await all_rows(url) == {State.DONE: 20}


async def test_jobs_of_a_killed_worker_are_collected_by_others(postgres: Server) -> None:
    url = postgres.url()
    async with Emulator(duration=6.0, answer_chars=500) as server:
        # The others have long beaten without a gap when one of them is killed.
        async with workers(4, server=server.url, journal=url, lease=1.5) as four:
            for number, worker in enumerate(four):
                worker.tell(*(["submit", 25 * number + n] for n in range(25)))
            for worker in four:
                await worker.until(lambda one: len(one.of(did="submit")) == 25)
            four[0].kill()
            with anyio.fail_after(SOON):
                while (await all_rows(url))[State.DONE] < 100:  # noqa: ASYNC110 - the store tells of rows, not of counts
                    await asyncio.sleep(0.2)
        assert server.ledger.created == 100
        assert max(server.ledger.created_by_key.values()) == 1
        told = Counter(said["tag"] for worker in four for said in worker.of(event="FINISHED"))
        assert set(told.values()) == {1}


@pytest.mark.parametrize("through", ["NOTIFY", "a pooler in transaction mode"])
async def test_waiters_in_other_processes_wake_when_a_job_ends(through: str, postgres: Server) -> None:
    url = postgres.url()
    async with contextlib.AsyncExitStack() as stack:
        theirs = url
        if through != "NOTIFY":
            theirs = url.replace(str(postgres.folder), str(stack.enter_context(pooled(postgres))))
        server = await stack.enter_async_context(Emulator(duration=AfterPolls(8), answer_chars=500))
        async with (
            workers(1, server=server.url, journal=url) as holders,
            workers(3, server=server.url, journal=theirs) as others,
        ):
            holders[0].tell(*(["submit", tag] for tag in range(20)))
            await holders[0].until(lambda one: len(one.of(did="submit")) == 20)
            ids = [said["id"] for said in holders[0].of(did="submit")]
            for worker in others:
                worker.tell(*(["wait", job] for job in ids))
            for worker in others:
                await worker.until(lambda one: len(one.of(did="wait")) == 20)
            assert {said["status"] for worker in others for said in worker.of(did="wait")} == {"COMPLETED"}
        assert {job.polls for job in server.ledger.jobs} == {8}


async def test_closed_worker_hands_over_what_runs(postgres: Server) -> None:
    """A rolling deploy: the old process ends by SIGTERM while its jobs run, the new one is up already."""
    url = postgres.url()
    async with Emulator(duration=4.0, answer_chars=500) as server:
        async with (
            workers(1, server=server.url, journal=url) as old,
            workers(1, server=server.url, journal=url) as new,
        ):
            old[0].tell(*(["ask", tag] for tag in range(30)))
            with anyio.fail_after(SOON):
                await server.until(lambda ledger: ledger.created == 30)
            os.kill(old[0].process.pid, signal.SIGTERM)
            new[0].tell(*(["ask", tag] for tag in range(30)))  # the browser comes back
            await new[0].until(lambda one: len(one.of(did="ask")) == 30)
            await old[0].end()
            # What waited in it was told that its session closes.
            old[0].said = [said for said in old[0].said if said.get("failed") != "ConfigError"]
        assert {said["status"] for said in new[0].of(did="ask")} == {"COMPLETED"}
        assert (server.ledger.created, max(server.ledger.created_by_key.values())) == (30, 1)
