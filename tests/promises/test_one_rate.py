"""Several processes at once on one account: one rate, one silence, even shares."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _postgres import Server

from aiopplx.emulator import Emulator, limits
from aiopplx.emulator.faults import RateLimited

pytestmark = pytest.mark.slow

CHILD = Path(__file__).parent.parent / "support" / "_pacing_child.py"
SCALE = 40.0
"""Emulated seconds in a real one: 60 a minute there are 40 a second here."""
RPM = 60 * SCALE


class Workers:
    """Processes that have opened their sessions, and wait for the word."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self.processes = processes

    def say(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")

    async def heard(self) -> list[bytes]:
        return [await process.stdout.readline() for process in self.processes if process.stdout is not None]

    async def work(self) -> list[dict[str, Any]]:
        """Let them work, and end them once all are done."""
        self.say()
        seen = [json.loads(line) for line in await self.heard()]
        self.say()
        for process in self.processes:
            assert await process.wait() == 0
        return seen


@contextlib.asynccontextmanager
async def workers(service: Emulator, questions: list[int], **session: Any) -> AsyncIterator[Workers]:
    specs = [
        {"url": service.url, "gap": 1.0, "name": f"worker {number}", "questions": count, "session": session}
        for number, count in enumerate(questions)
    ]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, CHILD, json.dumps(spec), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for spec in specs
    ]
    try:
        started = Workers(processes)
        assert await started.heard() == [b"open\n"] * len(processes)
        yield started
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


def service(burst: float) -> Emulator:
    return Emulator(
        limits={"submit": limits.Bucket(60, burst=burst)},
        time_scale=SCALE,
        duration=5.0,
        limit_hints="retry-after",
        answer_chars=100,
        log_size=100_000,
    )


async def test_four_processes_keep_one_rate(postgres: Server) -> None:
    """The account's limit has a burst of four, and each process could use it alone. One has most of the work."""
    questions = [10, 20, 0, 70]
    async with service(4.0) as server, workers(server, questions, shared=postgres.url(), rpm=RPM) as working:
        seen = await working.work()
        log = [line for line in server.ledger.log if line.on == "submit"]
    assert [worker["status"].get("COMPLETED", 0) for worker in seen] == questions
    assert sum(line.status == 429 for line in log) <= 2
    # Together they take as long as one alone would. What goes beyond that is this machine's.
    assert max(worker["seconds"] for worker in seen) < 2.0 * 100 / SCALE + 5.0


async def test_no_process_sends_inside_a_silence(postgres: Server) -> None:
    async with service(60.0) as server, workers(server, [40] * 4, shared=postgres.url(), rpm=RPM) as working:
        server.faults.add("submit", RateLimited(retry_after="3"), after=40, times=1)
        await working.work()
        log = list(server.ledger.log)
    (asked,) = [line.at for line in log if line.status == 429]
    # A second for what had left when the answer came, on a machine that has other things to do.
    inside = [line for line in log if asked + 1.0 < line.at < asked + 3.0]
    assert inside == []
    assert sum(line.on == "submit" and line.at < asked for line in log) >= 30, "they were all at work"
    assert sum(line.on == "submit" and line.at > asked + 3.0 for line in log) >= 60, "and went on"
