"""One poll that answers for many jobs: what it may say of each, and that no job suffers for another.

A page of the Sonar API's list is the poll. The server, the clock and the lifecycle are played, so nothing here waits.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from _scripted import Asked, Scripted, opened, turns

from aiopplx import Event, EventKind, JobStatus, PollPolicy, RetryPolicy
from aiopplx._core.poller import Choose, Others, Poll, Poller
from aiopplx._http.client import Client
from aiopplx._job import Snapshot
from aiopplx._policy.gate import Gate
from aiopplx._policy.polling import GRACE, Ended, Polls
from aiopplx._submission import Listener, Phase, Submission
from aiopplx._wire.call import Broken, Call, Lane, NoReply, Reply
from aiopplx.sonar import SONAR

START = 10_000.0
GAP = 10.0
IDS = ["a", "b", "c"]
POLICY = PollPolicy(quiet=GAP, gap=GAP, jitter=0.0)


class Page:
    """The first page of the list, for every job that is due within a gap."""

    is_full = False

    def __init__(self, subs: Sequence[Submission]) -> None:
        self.call: Call = SONAR.list(limit=None, next_token="")
        self.subs = subs

    @classmethod
    def of(cls, first: Submission, others: Others) -> Poll:
        """A `Choose`."""
        return cls((first, *others(GAP)))

    def read(self, reply: Reply) -> Mapping[str, Snapshot]:
        return {snapshot.id: snapshot for snapshot in SONAR.read_page(reply).jobs}


class StillClock:
    """Time passes when the test says so."""

    tick = 0.01
    suspension = 1e9

    def __init__(self) -> None:
        self.time = START
        self.timers: list[Timer] = []

    def now(self) -> float:
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

    listed: dict[str, str] = field(default_factory=dict[str, str])
    status: dict[str, str] = field(default_factory=dict[str, str])
    instead: Callable[[str], Reply | NoReply | None] = lambda path: None
    open: asyncio.Event = field(default_factory=asyncio.Event)
    paths: list[str] = field(default_factory=list[str])
    limit = 1_000

    async def exchange(self, call: Call, sink: object = None) -> Reply | NoReply:
        path = call.path.removeprefix(SONAR.base_path).strip("/") or "list"
        self.paths.append(path)
        await self.open.wait()
        if (outcome := self.instead(path)) is not None:
            return outcome
        if path == "list":
            rows = [{"id": job_id, "status": status} for job_id, status in self.listed.items()]
            return reply({"requests": rows, "next_token": None})
        return reply({"id": path, "status": self.status.get(path, "IN_PROGRESS")})

    def scrub(self, text: str) -> str:
        return text


def reply(value: object, status: int = 200) -> Reply:
    return Reply(status, {}, msgspec.json.encode(value))


def refused(status: int, kind: str = "no") -> Reply:
    return reply({"error": {"message": "not for you", "type": kind}}, status)


@dataclass(eq=False)
class Keeper:
    """The poller's sink: keeps what it is told.

    Attributes:
        full: jobs for whose outcome nobody has room.
        commits: while it is not set, no end is written.
        broken: jobs at which it fails.
    """

    full: set[str] = field(default_factory=set[str])
    commits: asyncio.Event = field(default_factory=asyncio.Event)
    broken: set[str] = field(default_factory=set[str])
    runs_on: list[str] = field(default_factory=list[str])
    writing: list[str] = field(default_factory=list[str])
    ended: dict[str, Ended] = field(default_factory=dict[str, Ended])
    timed_out: dict[str, str] = field(default_factory=dict[str, str])
    failed: list[str] = field(default_factory=list[str])
    unwritten: set[str] = field(default_factory=set[str])
    poller: Poller | None = None

    def may_poll(self, sub: Submission) -> bool:
        return sub.job_id not in self.full

    def polled(self, sub: Submission, snapshot: Snapshot | None) -> None:
        if sub.job_id in self.broken:
            raise ZeroDivisionError
        self.runs_on.append(sub.job_id)

    def time_out(self, sub: Submission, now: float, why: str, snapshot: Snapshot | None) -> bool:
        self.timed_out[sub.job_id] = why
        assert self.poller is not None
        self.poller.forget(sub)
        return False

    async def finish(self, sub: Submission, ended: Ended, snapshot: Snapshot | None) -> bool:
        self.writing.append(sub.job_id)
        if sub.job_id in self.broken:
            raise ZeroDivisionError
        await self.commits.wait()
        if sub.job_id in self.unwritten:
            return False
        self.ended[sub.job_id] = ended
        assert self.poller is not None
        self.poller.ended(sub)
        return True

    def fail(self, sub: Submission, problem: Exception) -> None:
        self.failed.append(sub.job_id)


class Play:
    """A poller of pages, and three jobs."""

    def __init__(self, choose: Choose | None = Page.of, *, deadline: float = math.inf) -> None:
        self.clock = StillClock()
        self.server = Server(listed=dict.fromkeys(IDS, "IN_PROGRESS"))
        self.server.open.set()
        self.keeper = Keeper()
        self.keeper.commits.set()
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
        self.poller = Poller(self.client, POLICY, self.keeper, choose)
        self.keeper.poller = self.poller
        self.subs = {job_id: self.watched(job_id, deadline) for job_id in IDS}

    def watched(self, job_id: str, deadline: float) -> Submission:
        sub = Submission(SONAR, "", job_id=job_id, phase=Phase.RUNNING)
        sub.call, sub.polls = SONAR.get(job_id), Polls(self.clock.now())
        sub.listeners = (Listener(sub=sub, tag=None, deadline=deadline),)
        self.poller.watch(sub)
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

    def polls(self, job_id: str) -> Polls:
        polls = self.subs[job_id].polls
        assert polls is not None
        return polls

    def left_over(self) -> list[object]:
        poller = self.poller
        kept = (poller._out, poller._running, len(poller._schedule), len(poller._deadlines))
        return [what for what in kept if what]


# --- who is in it ----------------------------------------------------------------------------------------------------


async def test_one_page_polls_all_jobs_that_are_due_soon():
    play = Play()
    await play.after(3 * GAP + 1)
    assert play.server.paths == ["list"] * 3
    assert [play.polls(job_id).count for job_id in IDS] == [3, 3, 3]
    assert [event.job_id for event in play.events] == IDS * 3


async def test_each_job_is_polled_by_itself_unless_told():
    play = Play(None)
    await play.after(GAP + 1)
    assert play.server.paths == IDS


async def test_job_whose_poll_is_out_is_in_no_other():
    play = Play()
    play.server.open.clear()
    await play.after(GAP + 1)
    play.poller.poll_now(play.subs["a"])
    play.poller.joined(play.subs["b"])
    await play.after(GAP)
    assert play.server.paths == ["list"]


async def test_job_without_room_is_not_taken_in():
    play = Play()
    play.keeper.full = {"b"}
    play.server.listed = dict.fromkeys(IDS, "COMPLETED")
    play.server.status = dict.fromkeys(IDS, "COMPLETED")
    await play.after(1000.0)
    assert sorted(play.keeper.ended) == ["a", "c"]
    assert "b" not in play.server.paths
    assert not play.polls("b").count
    play.keeper.full = set()
    play.poller.unpark(play.subs["b"])
    await play.after(100.0)
    assert sorted(play.keeper.ended) == IDS
    assert not play.left_over()


async def test_job_that_finds_room_again_goes_before_jobs_due_later():
    play = Play()
    play.keeper.full = {"b"}
    await play.after(1000.0)
    was_due = play.polls("b").due
    assert was_due is not None
    assert was_due < START + 500.0
    play.poller.unpark(play.subs["b"])
    assert play.polls("b").due == was_due


@pytest.mark.parametrize("fault", ["raises", "forgets the job"])
async def test_faulty_choice_costs_no_job_its_poll(fault: str, caplog: pytest.LogCaptureFixture):
    def choose(first: Submission, others: Others) -> Poll:
        if fault == "raises":
            raise ZeroDivisionError
        return Page(others(GAP))

    play = Play(choose)
    await play.after(GAP + 1)
    assert play.server.paths == IDS
    assert "no poll could be chosen" in caplog.text


# --- what it may say -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
async def test_job_that_ended_is_fetched_by_a_get_of_its_own(status: str):
    play = Play()
    play.server.listed["b"] = status
    play.server.instead = lambda path: None if path == "list" else reply(ended_body(path, status))
    await play.after(GAP + 1)
    assert play.server.paths == ["list", "b"]
    assert list(play.keeper.ended) == ["b"]
    assert play.keeper.ended["b"].status is JobStatus(status)
    assert play.polls("b")._empty == 0
    await play.after(GAP)
    assert play.server.paths == ["list", "b", "list"]


async def test_job_that_is_not_mentioned_is_polled_by_itself():
    play = Play()
    del play.server.listed["c"]
    await play.after(GAP + 1)
    assert play.server.paths == ["list", "c"]
    assert [play.polls(job_id).count for job_id in IDS] == [1, 1, 1]
    await play.after(GAP)
    assert play.server.paths == ["list", "c"] * 2


async def test_jobs_of_strangers_are_passed_over():
    play = Play()
    play.server.listed["somebody else's"] = "COMPLETED"
    await play.after(GAP + 1)
    assert play.server.paths == ["list"]
    assert play.keeper.runs_on == IDS


# --- at a time limit -------------------------------------------------------------------------------------------------


async def test_page_that_says_running_is_a_last_poll():
    play = Play(deadline=START + 3.0)
    await play.after(4.0)
    assert play.server.paths == ["list"]
    assert list(play.keeper.timed_out) == IDS
    assert not play.left_over()


@pytest.mark.parametrize("listed", [None, "COMPLETED"])
async def test_job_that_a_page_cannot_tell_of_has_its_own_last_poll(listed: str | None):
    play = Play(deadline=START + 3.0)
    play.server.listed = {"a": listed} if listed else {}
    await play.after(4.0)
    assert play.server.paths[:1] == ["list"]
    assert "a" in play.server.paths
    assert sorted(play.keeper.timed_out) == IDS, "the GET said that it runs"
    assert not play.left_over()


async def test_job_that_a_page_cannot_tell_of_ends_behind_a_closed_gate():
    play = Play(deadline=START + 3.0)
    play.server.listed = {}
    play.server.open.clear()
    await play.after(4.0)
    # While the page is out the server asks another request for an hour of silence.
    play.gate.throttled(Lane.POLL, play.clock.now(), play.clock.now(), 3600.0, 0.5)
    play.server.open.set()
    await turns(10)
    await play.after(1.0)
    assert play.server.paths == ["list"]
    assert set(play.keeper.timed_out.values()) == {"no request may leave at the moment"}
    assert not play.left_over()


# --- a page that fails -----------------------------------------------------------------------------------------------

LOST = NoReply(Broken.RESET, "closed", sent=True)


@pytest.mark.parametrize(
    ("outcome", "next_paths"),
    [
        (refused(404), IDS),
        (refused(400), IDS),
        (Reply(200, {}, b"<html>"), IDS),
        (NoReply(Broken.TOO_LARGE, "too large", sent=True), IDS),
        (refused(500), ["list"]),
        (LOST, ["list"]),
    ],
    ids=["404", "400", "unreadable", "too large", "500", "lost"],
)
async def test_failed_page_is_a_failed_poll_and_ends_no_job(outcome: Reply | NoReply, next_paths: list[str]):
    play = Play()
    play.server.instead = lambda path: outcome if path == "list" else None
    await play.after(GAP + 0.005)
    failures = [event for event in play.events if event.kind is EventKind.POLL_FAILED]
    assert [(event.job_id, event.fault) for event in failures] == [(job_id, "P") for job_id in IDS]
    await play.after(1.0)
    assert play.server.paths[1 : 1 + len(next_paths)] == next_paths
    await play.after(2_000.0)
    assert not play.keeper.ended
    assert not play.keeper.failed


async def test_failed_page_is_nobodys_last_poll_in_the_grace():
    play = Play(deadline=START + 3.0)
    play.poller.unpark(play.subs["b"])
    play.server.instead = lambda path: LOST
    await play.after(4.0)
    assert sorted(play.keeper.timed_out) == ["a", "c"]
    await play.after(GRACE + 130.0)
    assert sorted(play.keeper.timed_out) == IDS


async def test_fault_in_reading_a_page_ends_no_job(caplog: pytest.LogCaptureFixture):
    class Faulty(Page):
        def read(self, reply: Reply) -> Mapping[str, Snapshot]:
            raise ZeroDivisionError

    play = Play(Faulty.of)
    await play.after(GAP + 1)
    assert play.server.paths == ["list", *IDS]
    assert not play.keeper.failed
    assert caplog.text.count("a poll of 3 jobs failed unexpectedly") == 1


# --- many in one answer ----------------------------------------------------------------------------------------------


class Full(Page):
    """A poll of many that has each outcome whole: three GETs in one."""

    is_full = True


async def test_fault_at_one_job_ends_no_other():
    play = Play()
    play.keeper.broken = {"b"}
    await play.after(2 * GAP + 1)
    assert play.keeper.failed == ["b"]
    assert play.keeper.runs_on == ["a", "c"] * 2


async def test_fault_at_one_end_ends_no_other():
    play = Play(Full.of)
    play.server.listed = dict.fromkeys(IDS, "FAILED")
    play.keeper.broken = {"b"}
    await play.after(GAP + 1)
    assert play.keeper.failed == ["b"]
    assert list(play.keeper.ended) == ["a", "c"]
    assert not play.left_over()


async def test_ends_of_one_answer_are_written_together():
    play = Play(Full.of)
    play.server.listed = dict.fromkeys(IDS, "FAILED")
    play.keeper.commits.clear()
    await play.after(GAP + 1)
    assert play.keeper.writing == IDS
    play.poller.poll_now(play.subs["a"])
    await play.after(GAP)
    assert play.server.paths == ["list"], "what is being written is not polled"
    play.keeper.commits.set()
    await turns(10)
    assert list(play.keeper.ended) == IDS
    assert not play.left_over()


async def test_end_that_was_not_written_is_polled_again():
    play = Play(Full.of)
    play.server.listed = dict.fromkeys(IDS, "FAILED")
    play.keeper.unwritten = {"b"}
    await play.after(GAP + 1)
    assert list(play.keeper.ended) == ["a", "c"]
    play.keeper.unwritten = set()
    await play.after(POLICY.refused_pause + 1)
    assert list(play.keeper.ended) == ["a", "c", "b"]


# --- who leaves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["on the wire", "being written"])
async def test_forgetting_one_job_leaves_the_poll_to_the_others(moment: str):
    play = Play(Full.of)
    play.server.listed = dict.fromkeys(IDS, "FAILED")
    wait = play.server.open if moment == "on the wire" else play.keeper.commits
    wait.clear()
    play.keeper.unwritten = {"b"}
    await play.after(GAP + 1)
    assert play.poller.forget(play.subs["b"]) is None
    wait.set()
    await turns(10)
    assert list(play.keeper.ended) == ["a", "c"]
    assert not play.left_over()


@pytest.mark.parametrize("moment", ["on the wire", "being written"])
async def test_last_job_to_be_forgotten_takes_the_poll_with_it(moment: str):
    play = Play(Full.of)
    play.server.listed = dict.fromkeys(IDS, "FAILED")
    (play.server.open if moment == "on the wire" else play.keeper.commits).clear()
    await play.after(GAP + 1)
    tasks = [play.poller.forget(play.subs[job_id]) for job_id in IDS]
    assert tasks[:2] == [None, None]
    assert tasks[2] is not None
    await asyncio.wait([tasks[2]])
    assert tasks[2].cancelled()
    assert not play.keeper.ended
    assert not play.left_over()


async def test_close_waits_for_ends_that_nobody_waits_for_any_more():
    play = Play(Full.of)
    play.server.listed = {"a": "FAILED", "b": "IN_PROGRESS", "c": "FAILED"}
    play.keeper.commits.clear()
    before = asyncio.all_tasks()
    await play.after(GAP + 1)
    play.poller.forget(play.subs["a"])
    (task,) = play.poller.close()
    await asyncio.wait([task])
    assert asyncio.all_tasks() == before
    assert not play.poller._running


# --- in a session ----------------------------------------------------------------------------------------------------


async def test_batch_that_is_polled_by_pages_gets_every_answer(server: Scripted):
    """Of three jobs the list says at first: COMPLETED, IN_PROGRESS, and nothing at all."""
    statuses = ["COMPLETED", "IN_PROGRESS", ""]

    def script(asked: Asked) -> tuple[int, Any] | None:
        if asked.kind != "list":
            return None
        rows = [Scripted.summary(row, statuses[n % 3]) for n, row in enumerate(server.rows.values())]
        return 200, {"requests": [row for row in rows if row["status"]], "next_token": None}

    server.script = script
    told: list[Event] = []
    async with opened(server, told) as session:
        life, policy = session._core.life, PollPolicy.fixed(0.01)
        life.poller = Poller(life.client, policy, life, Page.of)
        async with session.batch(map(str, range(30))) as jobs:
            await server.until(lambda: server.requests["list"] > 3)
            statuses[1] = "COMPLETED"
            texts = [job.text async for job in jobs]
    assert sorted(texts) == sorted(f"answer to {n}" for n in range(30))
    assert server.requests["get"] == 30, "one for each job"
    assert sum(event.kind is EventKind.FINISHED for event in told) == 30


def ended_body(job_id: str, status: str) -> dict[str, object]:
    """A job that ended, with all that only its GET has."""
    message = {"role": "assistant", "content": "an answer"}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return {
        "id": job_id,
        "status": status,
        "error_message": None if status == "COMPLETED" else "why",
        "response": {"id": job_id, "choices": choices} if status == "COMPLETED" else None,
    }
