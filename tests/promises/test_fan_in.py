"""Pages of the list in the place of polls, in a session at the emulator: few requests, no later, and nothing lost.

Durations are drawn, time is left out (`JumpingClock`).
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from aiopplx import PollPolicy, Session
from aiopplx.emulator import Emulator, faults
from aiopplx.testing import JumpingClock

LIST = "GET /async/chat/completions"


@dataclass
class Cost:
    """For each job."""

    polls: float
    pages: float
    lag: float


async def batch(
    jobs: int, per_minute: float = 0.0, *, fails: bool = False, slow: float = 0.0, poll: Any = "adaptive", **how: Any
) -> Cost:
    chance = random.Random(7)
    durations = {f"Question {n}?": chance.lognormvariate(math.log(180.0), 0.6) for n in range(jobs)}
    clock = JumpingClock()
    handed_out: dict[str, float] = {}

    async def source() -> AsyncIterator[str]:
        for question in durations:
            yield question
            if per_minute:
                await clock.sleep(60.0 / per_minute)

    async with Emulator(duration=durations.__getitem__, answer_chars=200, clock=clock, **how) as server:
        if fails:
            server.faults.add("list", faults.Status(500))
        session = Session("k" * 20, base_url=server.url, api="sonar", clock=clock, max_in_flight=1_000, poll=poll)
        async with session, session.batch(source()) as done:
            async for job in done:
                assert job.ok
                handed_out[job.id] = clock.wall()
                if slow:
                    await clock.sleep(slow)
        ends = {job.id: job.finished_at for job in server.ledger.jobs}
        assert len(handed_out) == len(ends) == jobs
        asked = server.ledger.requests
        lag = sum(handed_out[job_id] - ends[job_id] for job_id in ends) / jobs
        return Cost((sum(asked.values()) - jobs - asked[LIST]) / jobs, asked[LIST] / jobs, lag)


async def test_hundred_jobs_cost_two_polls_and_a_half_each():
    cost = await batch(100)
    assert cost.polls + cost.pages <= 2.7
    assert cost.lag <= 3.5


@pytest.mark.slow
async def test_thousand_jobs_cost_no_more_each_than_a_hundred():
    cost = await batch(1_000, 100.0)
    assert cost.polls + cost.pages <= 2.6
    assert cost.lag <= 3.3


@pytest.mark.parametrize("how", [{"paging": "ignore"}, {"fails": True}], ids=str)
async def test_useless_list_costs_a_third_of_a_request(how: dict[str, Any]):
    cost = await batch(60, **how)
    assert cost.pages <= 0.35
    assert cost.lag <= 6.0


@pytest.mark.parametrize("poll", [PollPolicy.fixed(10.0), PollPolicy(), PollPolicy.by(lambda job: 10.0)])
async def test_list_is_read_for_the_default_policy_only(poll: PollPolicy):
    assert (await batch(40, poll=poll)).pages == 0.0


async def test_slow_consumer_gets_every_answer_once():
    cost = await batch(60, slow=20.0)
    assert cost.polls < 8.0


async def test_jobs_of_the_agent_api_cost_no_list():
    clock = JumpingClock()
    async with Emulator(duration=100.0, answer_chars=200, clock=clock) as server:
        session = Session("k" * 20, base_url=server.url, api="agent", clock=clock)
        async with session, session.batch(f"{n}?" for n in range(40)) as done:
            assert [job.ok async for job in done] == [True] * 40
        assert not [path for path in server.ledger.requests if path.endswith("completions")]
