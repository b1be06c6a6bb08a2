"""The session's one poller: when it polls, what it concludes from a poll, and that it is fair to all jobs."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from _scripted import NEVER, Asked, Scripted, opened, turns

from aiopplx import Event, EventKind, JobStatus, PollPolicy, RetryPolicy, RunningJob
from aiopplx.testing import Clock


class Suspendable(asyncio.SelectorEventLoop):
    """The loop of a machine that can be suspended: afterwards all timers are late by as much."""

    slept = 0.0

    def time(self) -> float:
        return super().time() + self.slept

    def suspend(self, event: Event) -> None:
        """For hours, at the first poll: at that moment no request is out."""
        if event.kind is EventKind.POLLED:
            self.slept = 50_000.0


class LoopClock(Clock):
    def now(self) -> float:
        return asyncio.get_running_loop().time()


# --- fair to all -----------------------------------------------------------------------------------------------------


async def test_waiting_jobs_cost_no_task_each(server: Scripted):
    policy = PollPolicy(quiet=0.01, gap=3600.0)
    server.polls = lambda row: 1 if row.question == "behind them" else NEVER
    async with opened(server, poll=policy) as session:
        before = len(asyncio.all_tasks())
        async with session.batch(map(str, range(300))) as jobs:
            await server.until(lambda: server.requests["submit"] == 300)
            assert (await session.ask("behind them")).ok
            assert len(jobs.pending) == 300
            await server.until(lambda: server.requests["get"] >= 301)  # the first poll of each is made
            while len(asyncio.all_tasks()) > before:
                await turns(1)


async def test_poll_without_an_answer_delays_no_other_job(server: Scripted):
    server.hold = lambda asked: asked.kind == "get" and asked.question.startswith("stuck")
    async with opened(server) as session:
        stuck = [asyncio.create_task(session.ask(f"stuck {n}")) for n in range(20)]
        await server.until(lambda: len(server.held) == 20)
        with anyio.fail_after(20):
            jobs = await asyncio.gather(*(session.ask(f"question {n}") for n in range(100)))
        assert all(job.ok for job in jobs)
        server.release()
        assert all(job.ok for job in await asyncio.gather(*stuck))


async def test_every_running_job_gets_its_turn(server: Scripted):
    server.polls = NEVER
    async with opened(server) as session, session.batch(map(str, range(100))) as jobs:
        await server.until(lambda: server.requests["get"] >= 3000)
        polls = [row.polls for row in server.rows.values()]
        assert min(polls) * 2 >= max(polls)
        server.polls = 1
        assert len([job async for job in jobs]) == 100


async def test_poll_budget_holds_over_all_jobs(server: Scripted):
    server.polls = lambda row: NEVER if row.question != "end" else 30
    clock = Clock(60)
    policy = PollPolicy(quiet=1.0, gap=1.0, budget=600.0)
    async with opened(server, poll=policy, clock=clock) as session, session.batch(map(str, range(200))):
        began = clock.now()
        await server.until(lambda: server.requests["get"] >= 200)
        minutes = (clock.now() - began) / 60.0
        # Two hundred jobs, each due every second, would be 12,000 a minute.
        assert server.requests["get"] <= 600 * minutes + 11


# --- the rule --------------------------------------------------------------------------------------------------------


async def test_users_rule_is_asked_before_each_poll(server: Scripted):
    asked: list[RunningJob] = []

    def rule(job: RunningJob) -> float:
        asked.append(job)
        return 5.0

    server.polls = 3
    async with opened(server, poll=rule, clock=Clock(300)) as session:
        job = await session.ask("one")
    assert (job.status, job.polls) == (JobStatus.COMPLETED, 3)
    assert [(job.polls, job.status) for job in asked] == [(0, ""), (1, "IN_PROGRESS"), (2, "IN_PROGRESS")]
    assert all(job.age >= 5.0 * job.polls for job in asked)


async def test_failing_rule_is_reported_once_and_costs_no_job(server: Scripted, caplog: pytest.LogCaptureFixture):
    def rule(job: RunningJob) -> float:
        raise ZeroDivisionError("mine")

    told: list[Event] = []
    async with opened(server, told, poll=rule, clock=Clock(3000)) as session, session.batch(["one", "two"]) as jobs:
        assert [job.ok async for job in jobs] == [True, True]
    assert ["ZeroDivisionError" in event.reason for event in told if event.kind is EventKind.WARNING] == [True]
    assert "the poll rule failed" in caplog.text


@pytest.mark.parametrize("gap", [0, -1.0, float("nan"), float("inf"), None, "soon", 1e300])
async def test_nonsensical_rule_costs_no_job(gap: Any, server: Scripted):
    async with opened(server, poll=lambda job: gap, clock=Clock(200_000)) as session:
        assert (await session.ask("one", timeout=90_000.0)).ok


async def test_default_policy_leaves_a_job_alone_at_first(server: Scripted):
    clock = Clock(2000)
    async with opened(server, poll="adaptive", clock=clock) as session:
        began = clock.now()
        assert (await session.ask("one")).ok
        assert clock.now() - began >= 10.0
    assert server.requests["get"] == 1


# --- deadlines -------------------------------------------------------------------------------------------------------


async def test_deadline_behind_a_closed_gate_ends_without_a_request(server: Scripted):
    """The server asked for an hour of silence: a last poll may not leave, and the job cannot wait for it."""

    def throttling(asked: Asked) -> tuple[int, Any] | None:
        return (429, {"error": {"message": "slow down", "type": "rate_limit"}}) if asked.kind == "get" else None

    server.script = throttling
    server.headers = {"Retry-After": "3600"}
    clock = Clock(1000)
    async with opened(server, clock=clock) as session:
        job = await session.ask("one", timeout=100.0)
    assert job.status is JobStatus.TIMED_OUT
    # The one poll was the last where the machine was busy until the deadline.
    assert "no request may leave" in str(job.error) or "the last poll failed: slow down" in str(job.error)
    assert server.requests["get"] == 1


async def test_poll_in_flight_at_the_deadline_is_the_last(server: Scripted):
    server.hold = lambda asked: asked.kind == "get" and asked.question.startswith("slow")
    server.polls = lambda row: NEVER if row.question in ("other", "slow and stuck") else 1
    async with opened(server, clock=Clock(500)) as session:
        slow = [asyncio.create_task(session.ask(words, timeout=100.0)) for words in ("slow", "slow and stuck")]
        await server.until(lambda: len(server.held) == 2)
        assert (await session.ask("other", timeout=200.0)).status is JobStatus.TIMED_OUT
        assert not any(task.done() for task in slow)
        server.release()
        done, stuck = await asyncio.gather(*slow)
    assert (done.status, stuck.status) == (JobStatus.COMPLETED, JobStatus.TIMED_OUT)
    assert (done.polls, stuck.polls) == (1, 1)


async def test_failed_last_poll_is_a_timeout_and_names_why(server: Scripted):
    server.script = lambda asked: (502, b"<title>Bad gateway</title>") if asked.kind == "get" else None
    async with opened(server, clock=Clock(1000), poll=PollPolicy.fixed(50_000)) as session:
        job = await session.ask("one", timeout=100.0)
    assert job.status is JobStatus.TIMED_OUT
    assert "the last poll failed" in str(job.error)


def test_suspended_machine_polls_again_before_it_gives_up():
    """It wakes up long after the limit and without a network: the jobs went on meanwhile."""
    failing: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Suspendable)

        def waking(asked: Asked) -> tuple[int, Any] | None:
            if asked.kind == "get" and loop.slept and len(failing) < 3:
                failing.append(asked.question)
                return 502, b"<title>Bad gateway</title>"
            return None

        async with Scripted(polls=2) as server:
            server.script = waking
            policy = RetryPolicy(base=0.01)
            async with opened(server, clock=LoopClock(), retry=policy, on_event=loop.suspend) as session:
                assert (await session.ask("one", timeout=1000.0)).status is JobStatus.COMPLETED

    with asyncio.Runner(loop_factory=Suspendable) as runner:
        runner.run(main())
    assert failing == ["one"] * 3


def test_suspended_machine_still_ends_what_exceeds_its_limit():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Suspendable)
        async with (
            Scripted(polls=NEVER) as server,
            opened(server, clock=LoopClock(), on_event=loop.suspend) as session,
        ):
            job = await session.ask("one", timeout=1000.0)
        assert (job.status, job.polls) == (JobStatus.TIMED_OUT, 2)

    with asyncio.Runner(loop_factory=Suspendable) as runner:
        runner.run(main())


# --- what a poll brings ----------------------------------------------------------------------------------------------


async def test_failed_polls_are_reported_and_harm_no_job(server: Scripted):
    failures = iter([(500, b"oops"), (200, b"{}"), (200, b"[]"), (200, b'{"id": "job-7", "status": "COMPLETED"}')])
    server.script = lambda asked: next(failures, None) if asked.kind == "get" else None
    told: list[Event] = []
    async with opened(server, told, retry=RetryPolicy(base=0.01)) as session:
        job = await session.ask("one")
    assert (job.text, job.polls) == ("answer to one", 5)
    assert [event.job_id for event in told if event.kind is EventKind.POLL_FAILED] == ["job-0"] * 4


async def test_connection_lost_under_a_poll_harms_no_job(server: Scripted):
    server.hold = lambda asked: asked.kind == "get" and asked.row is not None and asked.row.polls == 0
    async with opened(server, retry=RetryPolicy(base=0.01)) as session:
        task = asyncio.create_task(session.ask("one"))
        await server.until(lambda: len(server.held) == 1)
        server.hold = lambda asked: False
        server.reset()
        assert (await task).ok


async def test_failed_job_ends_alone(server: Scripted):
    def script(asked: Asked) -> tuple[int, Any] | None:
        if asked.kind == "get" and asked.row is not None and asked.question == "bad":
            return 200, Scripted.summary(asked.row, "FAILED") | {"error_message": None}
        return None

    server.script = script
    async with opened(server) as session, session.batch(["bad", "good"], ordered=True) as jobs:
        bad, good = [job async for job in jobs]
    assert (bad.status, good.status) == (JobStatus.FAILED, JobStatus.COMPLETED)
    assert "no reason given" in str(bad.error)


async def test_unknown_status_counts_as_running_and_is_reported_once(server: Scripted):
    def script(asked: Asked) -> tuple[int, Any] | None:
        if asked.kind == "get" and asked.row is not None and asked.row.polls < 3:
            asked.row.polls += 1
            return 200, Scripted.summary(asked.row, "PONDERING")
        return None

    server.script = script
    told: list[Event] = []
    async with opened(server, told) as session:
        assert (await session.ask("one")).ok
    assert [event.reason for event in told if event.kind is EventKind.WARNING] == [
        "unknown status 'PONDERING': taken as still running"
    ]


async def test_running_status_spelt_otherwise_is_not_unknown(server: Scripted):
    """Which words are known is the API's to say: the poller compares none."""

    def script(asked: Asked) -> tuple[int, Any] | None:
        if asked.kind == "get" and asked.row is not None and asked.row.polls < 3:
            asked.row.polls += 1
            return 200, Scripted.summary(asked.row, "In-Progress")
        return None

    server.script = script
    told: list[Event] = []
    async with opened(server, told) as session:
        assert (await session.ask("one")).ok
    assert [event.reason for event in told if event.kind is EventKind.WARNING] == []


async def test_two_waiters_of_one_job_are_independent(server: Scripted):
    """A batch and a `wait` on the same job: leaving one leaves the other."""
    server.polls = NEVER
    async with opened(server) as session:
        async with session.batch(["one"]) as jobs:
            await server.until(lambda: server.requests["get"] > 0)
            (running,) = jobs.pending
            waiting = asyncio.create_task(session.wait(running))
            await server.until(lambda: server.requests["get"] > 4)
        server.polls = 1
        assert (await waiting).ok
