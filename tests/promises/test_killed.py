"""A killed run pays nothing twice and loses nothing.

Twenty kills at a time; `AIOPPLX_KILLS=200 pytest tests/promises/test_killed.py -k kills -s` makes as many as you
like, and prints what it saw.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from _child import ENDED_ITSELF, POINTS, Spec, delivered, start

from aiopplx.emulator import AfterPolls, Emulator, Ledger
from aiopplx.emulator.faults import NAMED
from aiopplx.journal._records import Record, State
from aiopplx.journal._sqlite.reader import SqliteReader

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="asks POSIX for a kill without a farewell"),
]

KILLS = int(os.environ.get("AIOPPLX_KILLS", "20"))
QUESTIONS = 120
# Of all requests two in five meet one of these: before the job is made, after it, or in place of a poll.
SUBMIT_FAULTS = (
    "accept_then_drop",
    "accept_then_reset",
    "accept_then_502_html",
    "truncated",
    "id_missing",
    "drop",
    "unavailable",
)
POLL_FAULTS = ("internal_error", "bad_gateway_html", "drop", "reset", "truncated", "other_job")
FAULTY = 0.4


def server_with_faults(seed: int, rate: float, **more: Any) -> Emulator:
    server = Emulator(seed=seed, duration=AfterPolls(2), answer_chars=300, **more)
    for on, names in (("submit", SUBMIT_FAULTS), ("get", POLL_FAULTS)):
        for name in names:
            # Rules are asked one after another; the shares of all come to `rate`.
            server.faults.add(on, NAMED[name], rate=1 - (1 - rate) ** (1 / len(names)))  # type: ignore[arg-type]
    return server


def questions(generation: int) -> list[Any]:
    """Half with a tag, half known by what they ask; two of the latter are the same."""
    asked = [f"What was the {n}. ship of fleet {generation}, and why did it sink?" for n in range(QUESTIONS - 1)]
    named = [{"question": one, "tag": f"{generation}-{n}"} if n % 2 else one for n, one in enumerate(asked)]
    return [*named, asked[0]]


def all_rows(journal: Path) -> list[Record]:
    with SqliteReader(journal) as reader:
        found: list[Record] = []
        while page := reader.rows(after=found[-1].pk if found else 0):
            found += page
        return found


async def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = await asyncio.to_thread(process.communicate)
    return process.returncode, out, err


async def reached(end: asyncio.Future[tuple[int, str, str]], server: Emulator, true: Callable[[Ledger], bool]) -> None:
    """Wait until it is so at the server; a child that ends before that is a failure with its reason."""
    moment = asyncio.ensure_future(server.until(true))
    await asyncio.wait([end, moment], return_when=asyncio.FIRST_COMPLETED)
    moment.cancel()
    assert not end.done(), end.result()


@dataclass
class Seen:
    """What a kill loop has come to."""

    kills: int = 0
    runs: int = 0
    submissions: int = 0
    posts: int = 0
    created: int = 0
    twice: int = 0
    lost: int = 0
    undelivered: int = 0
    in_doubt: int = 0
    resent: int = 0
    unmarked: list[int] = field(default_factory=list[int])
    at_kill: Counter[str] = field(default_factory=Counter[str])

    def __str__(self) -> str:
        per_kill = max(self.unmarked, default=0)
        return (
            f"{self.kills} kills in {self.runs} runs, {self.submissions} submissions, {self.posts} POSTs,"
            f" {self.created} jobs made: {self.twice} paid twice, {self.lost} lost, {self.undelivered} undelivered,"
            f" {self.in_doubt} held in doubt; delivered and not yet marked as taken at a kill: {sum(self.unmarked)}"
            f" in all, at most {per_kill}; submissions by state at the kills: {dict(self.at_kill)}"
        )


class KillLoop:
    """Runs the child until it is through, and kills it at random moments: the n-th request that the server gets."""

    def __init__(self, folder: Path, *, kills: int, rate: float, honours_keys: bool, seed: int) -> None:
        self.folder = folder
        self.kills = kills
        self.rate = rate
        self.honours_keys = honours_keys
        self.seen = Seen()
        self._dice = random.Random(seed)
        self._generation = 0

    async def go(self) -> Seen:
        while self.seen.kills < self.kills:
            await self._one_journal()
        return self.seen

    async def _one_journal(self) -> None:
        self._generation += 1
        number = self._generation
        spec = Spec(
            url="",
            journal=str(self.folder / f"run{number}.db"),
            deliveries=str(self.folder / f"out{number}.jsonl"),
            questions=questions(number),
            on_doubt=None if self.honours_keys else "hold",
            max_in_flight=self._dice.choice((10, 40, 150)),
        )
        idempotency: Literal["replay", "ignore"] = "replay" if self.honours_keys else "ignore"
        async with server_with_faults(number, self.rate, idempotency=idempotency) as server:
            spec.url = server.url
            while not await self._one_run(spec, server):
                pass
            self._judge(spec, server)

    async def _one_run(self, spec: Spec, server: Emulator) -> bool:
        """True if the child came to its end."""
        self.seen.runs += 1
        child = start(spec)
        end = asyncio.ensure_future(ended(child))
        if self.seen.kills < self.kills:
            moment = server.ledger.requests.total() + self._dice.randint(1, 2 * QUESTIONS)
            killing = asyncio.ensure_future(server.until(lambda ledger: ledger.requests.total() >= moment))
            await asyncio.wait([end, killing], return_when=asyncio.FIRST_COMPLETED)
            killing.cancel()
            if not end.done():
                child.kill()
        code, out, err = await end
        if code == 0:
            assert out.endswith("done\n"), err
            return True
        assert code == -9, err
        self.seen.kills += 1
        self._poll(spec)
        return False

    def _poll(self, spec: Spec) -> None:
        """At a kill: whatever is marked as taken was delivered, and that is on disk."""
        if not Path(spec.journal).exists():
            return
        rows = all_rows(Path(spec.journal))
        keys = {line["key"] for line in delivered(Path(spec.deliveries))}
        self.seen.at_kill.update(row.state.name for row in rows)
        self.seen.undelivered += sum(row.delivered and row.key not in keys for row in rows)
        self.seen.unmarked.append(sum(row.key in keys and not row.delivered for row in rows))

    def _judge(self, spec: Spec, server: Emulator) -> None:
        """After a run that came to its end: what it handed out is everything, once, and as every run before said."""
        seen = self.seen
        lines = delivered(Path(spec.deliveries))
        last = [line for line in lines if line["run"] == lines[-1]["run"]]
        by_key = {line["key"]: line for line in last}
        made = server.ledger.created_by_key
        held = [line for line in last if line["status"] == "IN_DOUBT"]
        seen.submissions += QUESTIONS
        seen.posts += server.ledger.requests["POST /async/chat/completions"]
        seen.created += server.ledger.created
        seen.twice += server.ledger.created - len(made)
        seen.in_doubt += len(held)
        seen.undelivered += QUESTIONS - len({line["index"] for line in last})
        seen.lost += len(made.keys() - by_key.keys())
        assert len(last) == len(by_key) == QUESTIONS
        for line in last:
            assert line["status"] == "COMPLETED" or (not self.honours_keys and line["status"] == "IN_DOUBT"), line
        for line in lines:
            # A job that was handed out in an earlier run is the same one in the last.
            assert line["status"] == "IN_DOUBT" or (line["id"], line["text"]) == (
                by_key[line["key"]]["id"],
                by_key[line["key"]]["text"],
            )
        rows = all_rows(Path(spec.journal))
        assert {row.key for row in rows if row.state is State.IN_DOUBT} == {line["key"] for line in held}
        seen.resent += sum(row.attempts > 1 for row in rows)


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_two_hundred_kills_pay_nothing_twice_and_lose_nothing(tmp_path: Path) -> None:
    """At a server that honours keys, while two in five requests fail."""
    loop = KillLoop(tmp_path, kills=KILLS, rate=FAULTY, honours_keys=True, seed=1628)
    seen = await loop.go()
    print(f"\nkeys honoured, {FAULTY:.0%} faults: {seen}")
    assert (seen.twice, seen.lost, seen.undelivered, seen.in_doubt) == (0, 0, 0, 0), str(seen)
    assert seen.created == seen.submissions


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_kills_without_keys_pay_nothing_twice_under_hold(tmp_path: Path) -> None:
    """Every other thing that is in doubt is one that a kill, or a lost answer, has left so: the user decides."""
    loop = KillLoop(tmp_path, kills=KILLS, rate=0.05, honours_keys=False, seed=1629)
    seen = await loop.go()
    print(f"\nkeys ignored, doubt held: {seen}")
    assert (seen.twice, seen.lost, seen.undelivered) == (0, 0, 0), str(seen)


# --- the seven points -------------------------------------------------------------------------------------------------

STATES = {
    "before T1": None,
    "T1-T2": State.QUEUED,
    "T2-bytes": State.SENDING,
    "bytes-T3": State.SENDING,
    "T3-T4": State.ACCEPTED,
    "T4-yield": State.DONE,
    "yield-ack": State.DONE,
}
MADE = dict(zip(POINTS, (1, 1, 1, 2, 2, 2, 2), strict=True))
HANDED_OUT = dict(zip(POINTS, (1, 1, 1, 1, 1, 1, 2), strict=True))


@pytest.mark.parametrize("on_doubt", ["resend", "hold"])
@pytest.mark.parametrize("point", POINTS)
async def test_run_that_ends_at_a_named_point_continues_there(
    point: str, on_doubt: Literal["resend", "hold"], tmp_path: Path
) -> None:
    """Three questions, one after the other; the process is gone at the second one."""
    journal, deliveries = tmp_path / "run.db", tmp_path / "out.jsonl"
    asked = [{"question": f"Why did ship {n} sink?", "tag": n} for n in (1, 2, 3)]
    async with Emulator(
        duration=AfterPolls(1), answer_chars=200, idempotency="replay" if on_doubt == "resend" else "ignore"
    ) as server:
        spec = Spec(
            server.url,
            str(journal),
            str(deliveries),
            asked,
            on_doubt=on_doubt,
            exit_at=point,
            nth=2,
            max_in_flight=1,
        )
        code, _, err = await ended(start(spec))
        assert code == ENDED_ITSELF, err
        rows = {row.tag: row for row in all_rows(journal)}
        assert (rows[2].state if 2 in rows else None) is STATES[point]
        assert server.ledger.created == MADE[point]
        assert [line["tag"] for line in delivered(deliveries)] == [1, 2][: HANDED_OUT[point]]

        spec.exit_at = ""
        code, out, err = await ended(start(spec))
        assert code == 0, err
        last = {line["tag"]: line for line in delivered(deliveries)[HANDED_OUT[point] :]}

    assert list(last) == [1, 2, 3] or set(last) == {1, 2, 3}
    held = on_doubt == "hold" and STATES[point] is State.SENDING
    assert [last[n]["status"] for n in (1, 2, 3)] == ["COMPLETED", "IN_DOUBT" if held else "COMPLETED", "COMPLETED"]
    assert max(server.ledger.created_by_key.values()) == 1
    assert server.ledger.created == (3 if not held or point == "bytes-T3" else 2)
    in_doubt = json.loads(out.splitlines()[0].removeprefix("in doubt: "))
    assert in_doubt == ([last[2]["key"]] if held else [])


# --- a disk without room ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="takes room from a running process by prlimit")
async def test_run_on_a_full_disk_continues_with_new_room(tmp_path: Path) -> None:
    """The log may not grow beyond half a megabyte; results that do not fit wait at the server, and are asked for."""
    import resource

    journal, deliveries = tmp_path / "run.db", tmp_path / "out.jsonl"
    asked = [f"Why did ship {n} sink?" for n in range(60)]
    async with Emulator(duration=AfterPolls(1), answer_chars=60_000) as server:
        spec = Spec(server.url, str(journal), str(deliveries), asked, max_in_flight=20)
        child = start(spec)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
        end = asyncio.ensure_future(ended(child))
        polls = "GET /async/chat/completions/{id}"
        # Far more polls than there are jobs: what cannot be written is asked for again and again.
        await reached(end, server, lambda ledger: ledger.requests[polls] >= 120)
        posts = server.ledger.requests["POST /async/chat/completions"]
        assert posts < len(asked)
        more = asyncio.ensure_future(server.until(lambda ledger: ledger.requests[polls] >= 160))
        # It may end before: the log begins anew at a checkpoint, and what was waited for has room then.
        await asyncio.wait([end, more], return_when=asyncio.FIRST_COMPLETED)
        more.cancel()
        assert server.ledger.requests["POST /async/chat/completions"] == posts
        if not end.done():
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        code, _, err = await end
        # 1 where the disk was full for a submission; 0 where all that it could have gone on with waited for results.
        assert code == 0 or (code == 1 and "Journal" in err.splitlines()[-1])
        code, _, err = await ended(start(spec))
        assert code == 0, err
        lines = delivered(deliveries)
        last = [line for line in lines if line["run"] == lines[-1]["run"]]
        assert [line["status"] for line in last] == ["COMPLETED"] * len(asked)
        assert server.ledger.created == len(server.ledger.created_by_key) == len(asked)
