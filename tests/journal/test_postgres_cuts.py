"""A statement whose answer is lost: whether it was carried out or not, asked for again it ends as if nothing had been.

Each call is made on two rows, on one of them with its statement cut before or after the server carried it out, and
repeated as a session would.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from _cutting import Cutting, When, cutting
from _postgres import PATIENT, Server
from _rows import ALLOWED, A, Q, S, brought_to, claim_of, named, queued

from aiopplx.journal import Claim, JournalAway, PostgresJournal, Record, State

TIMES = 1
"""How often each is cut."""


@pytest.fixture
async def proxy(postgres: Server) -> AsyncIterator[Cutting]:
    async with cutting(postgres) as proxy:
        yield proxy


@pytest.fixture
async def journal(postgres: Server, proxy: Cutting) -> AsyncIterator[PostgresJournal]:
    journal = await PostgresJournal.open(proxy.url(await postgres.empty()), timing=PATIENT)
    yield journal
    await journal.close()


async def through(call: Callable[[], Awaitable[Any]]) -> Any:
    """The call, again and again until the database answers."""
    while True:
        with contextlib.suppress(JournalAway):
            return await call()


def alike(record: Record | None) -> Record:
    """What two rows that went the same way have in common."""
    assert record is not None
    return msgspec.structs.replace(
        record,
        **dict.fromkeys(("pk", "item", "tag", "key", "job_id"), ""),
        **{name: getattr(record, name) is not None for name in ("first_sent", "accepted_at", "ended_at", "updated")},
        age=None,
        claim=None,
    )


async def standing(journal: PostgresJournal, pk: int) -> list[object]:
    """What is known of a row, of its result and of its former submissions."""
    past = await journal.database.fetch(
        f"SELECT state, cost FROM {journal._held.schema}.past WHERE pk = $1 ORDER BY state", pk
    )
    record = await journal.get(pk=pk)
    found = await journal.claim(pk)
    return [
        alike(record),
        await journal.result(pk),
        [dict(row) for row in past],
        found is not None and found.claim is None,
    ]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ALLOWED)
async def test_step_ends_the_same_without_its_answer(
    journal: PostgresJournal, proxy: Cutting, name: str, when: When
) -> None:
    for state in sorted(ALLOWED[name][0]):
        for n in range(TIMES):
            tag = f"{state.name} {n}"
            well, cut = await brought_to(journal, state, f"{tag} well"), await brought_to(journal, state, f"{tag} cut")
            step = named(name, well)
            await through(lambda: journal.apply(claim_of(well), step))  # noqa: B023 - called at once
            before, step = proxy.cuts, named(name, cut)
            proxy.when = when
            await through(lambda: journal.apply(claim_of(cut), step))  # noqa: B023 - called at once
            assert proxy.cuts == before + 1
            assert await standing(journal, cut.pk) == await standing(journal, well.pk)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_new_row_whose_answer_is_lost_is_there_once(journal: PostgresJournal, proxy: Cutting, when: When) -> None:
    for n in range(TIMES):
        proxy.when = when
        record = await through(lambda: queued(journal, n))  # noqa: B023 - called at once
        assert (record.state, record.key, record.is_held) == (Q, f"key-{n}", False)
        proxy.when = when
        await through(lambda: journal.apply(claim_of(record), named("sending", record)))  # noqa: B023 - called at once
        proxy.when = when
        adopted = await through(lambda: journal.adopt(f"id-{n}", api="sonar"))  # noqa: B023 - called at once
        assert (adopted.state, adopted.is_held, claim_of(adopted).pk) == (A, False, adopted.pk)
    assert proxy.cuts == 3 * TIMES
    assert await journal.counts() == {state: TIMES if state in (S, A) else 0 for state in State}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_other_calls_whose_answer_is_lost_are_repeated(
    postgres: Server, journal: PostgresJournal, proxy: Cutting, when: When
) -> None:
    other = await PostgresJournal.open(proxy.url(f"{postgres._emptied}"), timing=PATIENT)
    for n in range(TIMES):
        record = await brought_to(journal, A, f"a {n}")
        proxy.when = when
        await through(lambda: journal.release(claim_of(record)))  # noqa: B023 - called at once
        proxy.when = when
        taken: list[Record] = await through(lambda: other.free(10))
        if not taken:  # they were taken, and nobody heard it: they are this session's nevertheless
            mine = await other.claim(record.pk)
            taken = [mine] if mine is not None else []
        assert [row.pk for row in taken] == [record.pk]
        await other.apply(Claim(record.pk, claim_of(taken[0]).fence), named("DONE", record))
        done = await journal.claim(record.pk)
        journal.delivered(claim_of(done), done.key, State.DONE)
        proxy.when = when
        found = await through(lambda: journal.get(pk=record.pk))  # noqa: B023 - called at once
        assert found.delivered
        proxy.when = when
        await through(lambda: journal.remember("pace", b"%d" % n))  # noqa: B023 - called at once
        assert await journal.recall("pace") == b"%d" % n
    await other.close()


async def test_backends_that_are_ended_cost_no_step(postgres: Server) -> None:
    """The statements of many tasks, while the server ends connections as fast as they are made."""
    url = await postgres.empty()
    journal, other = [await PostgresJournal.open(url, timing=PATIENT) for _ in range(2)]
    ended = 0
    try:

        async def run(tag: int) -> None:
            record = await through(lambda: queued(journal, tag))
            for name in ("sending", "accepted", "DONE"):
                step = named(name, record)
                await through(lambda: journal.apply(claim_of(record), step))  # noqa: B023 - called at once

        running = [asyncio.ensure_future(run(tag)) for tag in range(40)]
        while not all(task.done() for task in running):
            rows = await other.database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query NOT LIKE 'LISTEN%'"
                " ORDER BY random() LIMIT 1"
            )
            ended += len(rows)
            await asyncio.sleep(0.05)
        await asyncio.gather(*running)
        assert ended > 0
        rows = await through(lambda: journal.rows(set(State)))
        assert [(row.state, row.attempts) for row in rows] == [(State.DONE, 1)] * 40
        assert len({row.job_id for row in rows}) == 40
    finally:
        await journal.close()
        await other.close()
