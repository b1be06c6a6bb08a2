"""Workers over one journal on PostgreSQL that are killed and paused, and a server that crashes: nothing is lost, and
nothing is paid for twice.
"""

from __future__ import annotations

import collections
import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _postgres import Server, running
from _postgres_child import PROGRAM

from aiopplx.journal import PostgresReader, State

WORKERS = 4
SECONDS = 240.0


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


class Crew:
    """Workers, each a process. Every ending that nobody asked for is told."""

    def __init__(self, url: str, log: Path, rows: int, *, honours: bool, fails: float, lease: float) -> None:
        words = [url, log, rows, "yes" if honours else "no", fails, lease]
        self._command = [sys.executable, PROGRAM, *map(str, words)]
        self._lease = lease
        self._said = log.with_suffix(".said")
        self._seeds = iter(range(10**6))
        self.workers = [self._new() for _ in range(WORKERS)]

    def _new(self) -> subprocess.Popen[bytes]:
        with self._said.open("ab") as said:
            return subprocess.Popen([*self._command, str(next(self._seeds))], stderr=said)

    def kill(self, place: int) -> None:
        self.workers[place].kill()
        self.workers[place].wait()
        self.workers[place] = self._new()

    def pause(self, place: int) -> None:
        worker = self.workers[place]
        if worker.poll() is None:
            worker.send_signal(signal.SIGSTOP)
            time.sleep(self._lease * 1.5)
            worker.send_signal(signal.SIGCONT)

    def wait(self) -> list[int]:
        end = time.monotonic() + SECONDS
        return [worker.wait(max(0.1, end - time.monotonic())) for worker in self.workers]

    def said(self) -> str:
        return self._said.read_text()

    def end(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            worker.wait()


def storm(
    server: Server,
    folder: Path,
    *,
    rows: int,
    honours: bool,
    fails: float,
    lease: float = 1.0,
    kills: int = 0,
    pauses: int = 0,
    restarts: int = 0,
) -> dict[State, int]:
    """Take all rows to their end, come what may. Returns how many ended how."""
    url, log = server.url(), folder / "service.log"
    crew = Crew(url, log, rows, honours=honours, fails=fails, lease=lease)
    chance = random.Random(7)
    harms = ["kill"] * kills + ["pause"] * pauses + ["restart"] * restarts
    chance.shuffle(harms)
    try:
        for harm in harms:
            time.sleep(chance.uniform(0.5, 1.5))
            if harm == "restart":
                server.stop("immediate")
                server.start()
            else:
                getattr(crew, harm)(chance.randrange(WORKERS))
        assert crew.wait() == [0] * WORKERS, crew.said()
    finally:
        crew.end()
    assert crew.said() == ""
    with PostgresReader(url) as reader:
        found = reader.rows(limit=rows + 1)
        counts = reader.counts()
    posted = collections.Counter(line.split()[0] for line in log.read_text().splitlines())
    ids = [row.job_id for row in found if row.job_id]
    assert len(found) == rows  # none is lost, and none is there twice
    assert len(set(ids)) == len(ids)
    assert all(row.state in (State.DONE, State.IN_DOUBT) for row in found)
    assert all(row.job_id for row in found if row.state is State.DONE)
    if honours:
        assert counts[State.DONE] == rows
        assert {row.job_id for row in found} == {f"id-{key}" for key in posted}
    else:
        assert max(posted.values()) == 1  # nothing is sent again
        assert {row.key for row in found if row.state is State.DONE} <= posted.keys()
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("honours", [True, False], ids=["keys honoured", "keys ignored"])
def test_killed_and_paused_workers_lose_nothing_and_pay_once(server: Server, tmp_path: Path, honours: bool) -> None:
    storm(server, tmp_path, rows=150, honours=honours, fails=0.4, kills=2, pauses=1)


@pytest.mark.slow
def test_crashed_server_leaves_no_doubt_and_every_worker(server: Server, tmp_path: Path) -> None:
    counts = storm(server, tmp_path, rows=150, honours=False, fails=0.0, lease=5.0, restarts=2)
    assert counts[State.DONE] == 150
