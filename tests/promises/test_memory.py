"""Memory is bounded by what the consumer has not received yet, whatever the number of jobs."""

from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc
from collections.abc import Iterator

import pytest
from _scripted import Row, Scripted, opened

from aiopplx._core.batch.results import READY

KIB = 1024
MIB = 1024 * KIB
RESULT = 300 * KIB


@pytest.fixture
async def server(server: Scripted) -> Scripted:
    server.text = long_answer
    return server


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def long_answer(row: Row) -> str:
    return row.question.ljust(RESULT, ".")


def peak() -> int:
    return tracemalloc.get_traced_memory()[1]


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [False, True])
async def test_large_results_pass_a_slow_consumer_in_bounded_memory(ordered: bool, server: Scripted, traced: None):
    """All have finished long before; 150 MiB of results must not be fetched before they can be taken."""
    async with (
        opened(server) as session,
        session.batch(map(str, range(500)), ordered=ordered) as jobs,
    ):
        begin = held()
        most = READY * 2 * RESULT + 4 * MIB  # the bytes of an answer, and its text
        await server.until(lambda: server.requests["submit"] == 500 and server.told >= READY)
        for taken in range(500):
            job = await anext(jobs)
            assert len(job.text) == RESULT
            if taken % 100 == 0:
                # The consumer rests until the poller has fetched all that it may; then look at what is held.
                await server.until(lambda taken=taken: server.told >= min(500, READY + taken))
                assert held() - begin < most
    # Results as bytes and as text, those on the wire on both sides, and the interpreter's own.
    assert peak() < (2 * READY + 40) * RESULT


async def test_delivered_results_are_held_no_longer(server: Scripted, traced: None):
    """What a session and a batch remember of a job is names, not its result."""
    async with (
        opened(server) as session,
        session.batch(map(str, itertools.count()), max_in_flight=20) as jobs,
    ):
        for _ in range(50):
            await anext(jobs)
        before = held()
        for _ in range(200):
            await anext(jobs)
        assert held() - before < 20 * RESULT * 2 + 2 * MIB


async def test_endless_source_of_small_jobs_does_not_grow(server: Scripted, traced: None):
    server.text = lambda row: "short"
    async with (
        opened(server) as session,
        session.batch(map(str, itertools.count()), max_in_flight=50) as jobs,
    ):

        async def take(n: int) -> int:
            for _ in range(n):
                job = await anext(jobs)
                server.by_key.pop(job.idempotency_key)
                server.rows.pop(job.id)
            return held()

        first, second, third = await take(200), await take(400), await take(400)
    # Ids are remembered with their key and tag, some 500 bytes each, up to ten thousand of them.
    assert third - second < MIB
    assert second - first < MIB


async def test_waiting_for_many_jobs_holds_no_results(server: Scripted, traced: None):
    async with opened(server) as session:
        before = held()
        for n in range(100):
            assert (await session.ask(f"question {n}")).ok
        assert held() - before < 2 * MIB


async def test_undelivered_answers_go_with_the_batch(server: Scripted, traced: None):
    """The session keeps no batch that was left, not even by way of the deadlines of its jobs."""

    async def leave_early() -> None:
        async with session.batch(map(str, range(100))) as jobs:
            await server.until(lambda: server.requests["submit"] == 100 and server.told >= READY)
        assert len(jobs.pending) == 100

    async with opened(server) as session:
        before = held()
        await leave_early()
        await asyncio.sleep(0)  # the turn of the loop in which the block ended is over: asyncio itself lets go
        assert held() - before < 2 * MIB
