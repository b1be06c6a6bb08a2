"""Pages of a list as the poller reads them: what follows from one, and that no job suffers for any.

The server, the clock and the lifecycle are played, so nothing here waits.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from _scripted import turns

from aiopplx import Event, EventKind, JobStatus, PollPolicy, RetryPolicy
from aiopplx._core.pages import Pages
from aiopplx._core.poller import Poller
from aiopplx._http.client import Client
from aiopplx._job import Snapshot
from aiopplx._policy.gate import Gate
from aiopplx._policy.paging import FIRST_PAUSE, Paging
from aiopplx._policy.polling import Ended, Polls
from aiopplx._submission import Listener, Phase, Submission
from aiopplx._wire.call import Broken, Call, Lane, NoReply, Reply
from aiopplx.sonar import SONAR

START = 10_000.0
IDS = [f"job-{n}" for n in range(20)]


class StillClock:
    """Time passes when the test says so."""

    tick = 0.01
    suspension = 1e9

    def __init__(self) -> None:
        self.time = START
        self.timers: list[Timer] = []

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def wire_now(self) -> float:
        return self.time

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(self, when, callback)
        self.timers.append(timer)
        return timer


@dataclass(eq=False)
class Timer:
    clock: StillClock
    when: float
    callback: Callable[[], object]

    def cancel(self) -> None:
        if self in self.clock.timers:
            self.clock.timers.remove(self)


@dataclass(eq=False)
class Server:
    """A transport: the list as it stands, a GET of each job, and what the test wants instead.

    Attributes:
        listed: the status of each job on the page; a job that is not in it is not mentioned.
        status: the status of each job at its GET; IN_PROGRESS if not said.
        instead: the outcome of a path, in the place of the true one.
        held: while it is not set, answers are held back.
    """

    listed: dict[str, str] = field(default_factory=lambda: dict.fromkeys(IDS, "IN_PROGRESS"))
    status: dict[str, str] = field(default_factory=dict[str, str])
    instead: Callable[[str], Reply | NoReply | None] = lambda path: None
    open: asyncio.Event = field(default_factory=asyncio.Event)
    paths: list[str] = field(default_factory=list[str])
    limit = 1_000

    async def exchange(self, call: Call, sink: object = None) -> Reply | NoReply:
        path = call.path.removeprefix(SONAR.base_path).strip("/")
        path = "list" if path.startswith("?") else path
        self.paths.append(path)
        await self.open.wait()
        if (outcome := self.instead(path)) is not None:
            return outcome
        if path == "list":
            rows = [{"id": job_id, "status": status} for job_id, status in self.listed.items()]
            return reply({"requests": rows, "next_token": None})
        return reply({"id": path, "status": self.status.get(path, "IN_PROGRESS"), "error_message": "no"})

    def open_since(self, moment: float) -> float:
        return math.inf

    def scrub(self, text: str) -> str:
        return text


def reply(value: object, status: int = 200) -> Reply:
    return Reply(status, {}, msgspec.json.encode(value))


def refused(status: int, kind: str = "no") -> Reply:
    return reply({"error": {"message": "not for you", "type": kind}}, status)


@dataclass(eq=False)
class RecordingSink:
    """The poller's sink: keeps what it is told.

    Attributes:
        full: jobs for whose outcome nobody has room.
        commits: while it is not set, no end is written.
    """

    full: set[str] = field(default_factory=set[str])
    commits: asyncio.Event = field(default_factory=asyncio.Event)
    ended: dict[str, Ended] = field(default_factory=dict[str, Ended])
    timed_out: dict[str, str] = field(default_factory=dict[str, str])
    poller: Poller | None = None

    def may_poll(self, sub: Submission) -> bool:
        return sub.job_id not in self.full

    def polled(self, sub: Submission, snapshot: Snapshot | None) -> None:
        pass

    def time_out(self, sub: Submission, now: float, why: str, snapshot: Snapshot | None) -> bool:
        self.timed_out[sub.job_id] = why
        assert self.poller is not None
        self.poller.forget(sub)
        return False

    async def finish(self, sub: Submission, ended: Ended, snapshot: Snapshot | None, now: float) -> bool:
        await self.commits.wait()
        self.ended[sub.job_id] = ended
        assert self.poller is not None
        self.poller.ended(sub)
        return True

    def fail(self, sub: Submission, problem: Exception) -> None:
        raise problem


class Play:
    """A poller whose list has proved itself, and twenty jobs that have run for a while."""

    def __init__(self, *, deadline: float = math.inf, policy: PollPolicy | None = None) -> None:
        self.clock = StillClock()
        self.server = Server()
        self.server.open.set()
        self.sink = RecordingSink()
        self.sink.commits.set()
        self.events: list[Event] = []
        self.gate = Gate()
        self.client = Client(
            self.server,  # type: ignore[arg-type]  # a transport, as far as the client asks one
            self.gate,
            RetryPolicy(),
            clock=self.clock,  # type: ignore[arg-type]  # a clock, as far as the poller asks one
            random=lambda: 0.5,
            emit=self.events.append,
            has_handlers=lambda: True,
            is_only_api=lambda name: False,
        )
        self.poller = Poller(self.client, policy or PollPolicy.adaptive(), self.sink)
        self.sink.poller = self.poller
        self.subs = {job_id: self.watched(job_id, deadline) for job_id in IDS}
        if policy is None:
            self.paging.is_proven = True
            self.paging._plan_again(START)

    @property
    def pages(self) -> Pages:
        return self.poller._pages

    @property
    def paging(self) -> Paging[Submission]:
        return self.pages.lists["sonar"][1]

    def watched(self, job_id: str, deadline: float) -> Submission:
        sub = Submission(SONAR, "", job_id=job_id, phase=Phase.RUNNING)
        age = 60.0
        sub.call, sub.polls = SONAR.get(job_id), Polls(START - age, START - age, has_age=True, seen=age)
        sub.listeners = (Listener(sub=sub, tag=None, deadline=deadline),)
        self.poller.watch(sub, self.clock.now())
        return sub

    async def after(self, seconds: float) -> None:
        """So much time passes, timer by timer, and everything that can happen does."""
        until = self.clock.time + seconds
        while due := [timer for timer in self.clock.timers if timer.when <= until]:
            timer = min(due, key=lambda timer: timer.when)
            self.clock.timers.remove(timer)
            self.clock.time = max(self.clock.time, timer.when)
            timer.callback()
            await turns(10)
        self.clock.time = until

    async def settled(self) -> Play:
        """Once each job was seen on a page, so that none is polled by itself."""
        await self.after(12.0)
        self.server.paths.clear()
        return self

    async def until_page(self) -> None:
        """Until a page was read, and no further."""
        count = self.server.paths.count("list")
        for _ in range(600):
            await self.after(0.1)
            if self.server.paths.count("list") > count:
                return
        raise AssertionError("no page was read")

    def left_over(self) -> list[object]:
        poller = self.poller
        kept = (poller._out, poller._running, len(poller._schedule), len(poller._deadlines), self.paging.keys())
        return [what for what in kept if what]


# --- in the place of polls -------------------------------------------------------------------------------------------


async def test_pages_tell_of_jobs_that_are_not_polled_meanwhile():
    play = await Play().settled()
    await play.after(30.0)
    assert set(play.server.paths) == {"list"}
    assert len(play.server.paths) > 3


@pytest.mark.parametrize("policy", [PollPolicy(quiet=1.0, gap=10.0), PollPolicy.fixed(10.0)], ids=["even", "fixed"])
async def test_own_schedule_is_kept_to_without_pages(policy: PollPolicy):
    play = Play(policy=policy)
    await play.after(60.0)
    assert "list" not in play.server.paths
    assert set(play.server.paths) == set(IDS)
    assert not play.pages.lists


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
async def test_job_that_ended_by_a_page_has_one_get(status: str):
    play = await Play().settled()
    play.server.listed["job-3"] = status
    play.server.status["job-3"] = "FAILED"
    await play.until_page()
    await turns(20)
    assert play.server.paths == ["list", "job-3"]
    assert list(play.sink.ended) == ["job-3"]
    assert play.sink.ended["job-3"].status is JobStatus.FAILED


async def test_page_alone_ends_no_job():
    play = Play()
    play.server.listed = dict.fromkeys(IDS, "COMPLETED")
    await play.after(100.0)
    assert not play.sink.ended
    assert not play.sink.timed_out


async def test_job_that_no_page_mentions_is_polled_by_itself():
    play = await Play().settled()
    del play.server.listed["job-5"]
    await play.after(30.0)
    assert set(play.server.paths) == {"list", "job-5"}


async def test_jobs_of_strangers_on_a_page_are_passed_over():
    play = await Play().settled()
    play.server.listed["somebody else's"] = "COMPLETED"
    await play.after(30.0)
    assert set(play.server.paths) == {"list"}


async def test_stalled_job_is_told_although_only_pages_mention_it():
    play = Play()
    for sub in play.subs.values():
        assert sub.polls is not None
        sub.polls.since = START - 7_000.0
        sub.polls.seen = 6_900.0
    await play.after(400.0)
    assert {event.kind for event in play.events} >= {EventKind.STALLED}


# --- no room, time limits, who leaves --------------------------------------------------------------------------------


async def test_page_needs_no_room_and_its_get_does():
    play = Play()
    play.sink.full = {"job-3"}
    play.server.listed.update({"job-3": "COMPLETED", "job-4": "COMPLETED"})
    play.server.status.update({"job-3": "FAILED", "job-4": "FAILED"})
    await play.after(30.0)
    assert list(play.sink.ended) == ["job-4"]
    assert "job-3" not in play.server.paths
    assert play.server.paths.count("list") > 2
    play.sink.full = set()
    play.poller.unpark(play.subs["job-3"])
    await play.after(1.0)
    assert list(play.sink.ended) == ["job-4", "job-3"]


async def test_job_on_a_page_is_last_polled_by_get():
    play = Play(deadline=START + 33.0)
    await play.after(34.0)
    assert sorted(play.sink.timed_out) == sorted(IDS)
    assert set(IDS) <= set(play.server.paths)
    assert not play.left_over()


async def test_job_that_is_forgotten_is_on_no_page():
    play = Play()
    for job_id in IDS:
        play.poller.forget(play.subs[job_id])
    await play.after(100.0)
    assert not play.server.paths
    assert not play.left_over()


@pytest.mark.parametrize("has_begun", [True, False])
async def test_close_cancels_a_page_that_is_out(has_begun: bool):
    play = await Play().settled()
    play.server.open.clear()
    before = asyncio.all_tasks()
    if has_begun:
        await play.until_page()
    else:
        while not play.pages._running:
            timer = min(play.clock.timers, key=lambda timer: timer.when)
            play.clock.timers.remove(timer)
            play.clock.time = max(play.clock.time, timer.when)
            timer.callback()
    (task,) = play.poller.close()
    await asyncio.wait([task])
    assert asyncio.all_tasks() == before
    assert play.gate.limits.list.in_flight == 0
    await play.after(100.0)
    assert play.server.paths.count("list") == int(has_begun)


# --- a page that fails -----------------------------------------------------------------------------------------------

LOST = NoReply(Broken.RESET, "closed", sent=True)


@pytest.mark.parametrize(
    "outcome",
    [
        refused(403),
        refused(404),
        refused(500),
        Reply(200, {}, b"<html>"),
        NoReply(Broken.TOO_LARGE, "too large", sent=True),
        LOST,
    ],
    ids=["403", "404", "500", "unreadable", "too large", "lost"],
)
async def test_failed_page_leaves_each_job_to_its_own_polls(outcome: Reply | NoReply):
    play = Play()
    play.server.instead = lambda path: outcome if path == "list" else None
    await play.after(FIRST_PAUSE)
    assert play.server.paths.count("list") <= 2
    assert set(IDS) <= set(play.server.paths)
    assert not [event for event in play.events if event.kind in (EventKind.POLL_FAILED, EventKind.STOPPED)]
    assert not play.sink.ended
    assert play.gate.stop is None


async def test_limit_that_is_refused_is_not_asked_for_again():
    play = await Play().settled()
    asked: list[str] = []
    exchange = play.server.exchange

    async def strict(call: Call, sink: object = None) -> Reply | NoReply:
        if call.lane is not Lane.LIST:
            return await exchange(call)
        asked.append(call.path.removeprefix(SONAR.base_path))
        return refused(422) if "limit" in call.path else await exchange(msgspec.structs.replace(call, path="?"))

    play.server.exchange = strict  # type: ignore[method-assign]  # another server
    await play.after(30.0)
    assert asked[:2] == ["?limit=100", ""]
    assert set(asked[1:]) == {""}
    assert set(play.server.paths) == {"list"}


async def test_list_that_always_fails_holds_back_no_submission():
    play = await Play().settled()
    play.server.instead = lambda path: refused(503) if path == "list" else None
    held_back: list[float] = []
    for _ in range(3_000):
        await play.after(0.2)
        held_back.append(play.gate.delay(Lane.SUBMIT, play.clock.time))
    assert play.server.paths.count("list") == 2
    assert not any(held_back)


async def test_page_waits_where_lists_have_reached_their_limit():
    play = Play()
    play.gate.limits.allow_tier(5.0, 6_000.0, 1.0)
    await play.after(120.0)
    assert 2 <= play.server.paths.count("list") <= 4


async def test_budget_counts_pages_too():
    play = Play(policy=PollPolicy.adaptive(budget=6.0))
    play.paging.is_proven = True
    play.paging._plan_again(START)
    await play.after(120.0)
    assert len(play.server.paths) <= 6 + 12 + 1


async def test_fault_in_paging_costs_no_job_its_polls(caplog: pytest.LogCaptureFixture):
    play = Play()

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    play.paging.read = broken  # type: ignore[method-assign]  # a fault of ours is what is tested
    await play.after(60.0)
    assert play.server.paths.count("list") == 1
    assert set(IDS) <= set(play.server.paths)
    assert caplog.text.count("the list of jobs is not used any more") == 1
