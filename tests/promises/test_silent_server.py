"""At a server that accepts no submission, everything that waits ends at its time limit."""

from __future__ import annotations

import pytest

from aiopplx import JobStatus, RetryPolicy, Session
from aiopplx.emulator import Emulator, faults
from aiopplx.testing import Clock


@pytest.mark.parametrize("fault", [faults.Status(500), faults.Status(503), faults.RateLimited()], ids=str)
async def test_batch_at_a_silent_server_ends_each_item(fault: faults.Fault):
    clock = Clock(60)
    async with Emulator() as server:
        server.faults.add("submit", fault)
        async with Session("a-key", base_url=server.url, timeout=30.0, clock=clock, api="sonar") as session:
            began = clock.now()
            async with session.batch(f"question {n}?" for n in range(60)) as jobs:
                ended = [job async for job in jobs]
            # Some seconds of a busy machine are in it.
            assert clock.now() - began < 360.0, "each for itself, one after the other, would take many minutes"
    assert len(ended) == 60
    assert {job.status for job in ended} <= {JobStatus.REJECTED, JobStatus.IN_DOUBT}
    waiting = [job for job in ended if job.attempts == 0]
    assert waiting
    assert all("nothing was billed" in str(job.error) for job in waiting)
    assert server.ledger.created == 0


async def test_server_that_takes_submissions_again_is_forgiven():
    async with Emulator(duration=0.0, answer_chars=100) as server:
        # One fewer than a submission is sent. After the first refusals the gate lets one submission through at a time,
        # and on a slow machine that can be the same one from the first refusal to the last.
        server.faults.add("submit", faults.Status(503), times=RetryPolicy().doubt_tries - 1)
        session = Session("a-key", base_url=server.url, clock=Clock(60), api="sonar")
        async with session, session.batch(f"question {n}?" for n in range(40)) as jobs:
            ended = [job async for job in jobs]
    assert all(job.ok for job in ended)
    assert server.ledger.created == 40
