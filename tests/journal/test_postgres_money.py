"""One budget for all sessions of a journal: what is held, what becomes of it, and what a dead session leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from _postgres import Server
from _rows import claim_of, queued, take

from aiopplx.journal import ClaimLost, Record, State
from aiopplx.journal._postgres.journal import PostgresJournal


class World:
    """Sessions on one schema."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.open: list[PostgresJournal] = []

    async def session(self) -> PostgresJournal:
        journal = await PostgresJournal.open(self.url, base_url="https://api.perplexity.ai")
        self.open.append(journal)
        return journal


@pytest.fixture
async def world(postgres: Server) -> AsyncIterator[World]:
    world = World(postgres.url())
    yield world
    for journal in world.open:
        await journal.close()


async def sums(journal: PostgresJournal) -> tuple[float, float]:
    """What is spent and held, which the rows must come to as well."""
    found = await journal.room()
    again = await journal.recount()
    assert (found.spent, found.held) == pytest.approx((again.spent, again.held))
    return round(found.spent, 6), round(found.held, 6)


async def running(journal: PostgresJournal, tag: str, dollars: float = 1.0) -> Record:
    record = await queued(journal, tag)
    assert await journal.hold(claim_of(record), dollars, again=False)
    await take(journal, record, "sending")
    await take(journal, record, "accepted", job_id=f"job-{tag}")
    return record


async def test_holds_of_two_sessions_fit_under_one_cap(world: World) -> None:
    one, other = await world.session(), await world.session()
    assert (await one.cap(5.0), await other.cap(5.0)) == (None, 5.0)
    records = [await queued(journal, f"{n}") for n, journal in enumerate((one, other) * 4)]
    held = [
        await journal.hold(claim_of(record), 0.8, again=False)
        for record, journal in zip(records, (one, other) * 4, strict=True)
    ]
    assert held == [True] * 6 + [False] * 2
    assert await sums(one) == (0.0, 4.8)


async def test_holds_at_the_same_moment_stay_under_the_cap(world: World) -> None:
    sessions = [await world.session() for _ in range(4)]
    await sessions[0].cap(5.0)
    records = [(journal, await queued(journal, f"{n}")) for n, journal in enumerate(sessions * 5)]
    held = await asyncio.gather(*(journal.hold(claim_of(record), 0.8, again=False) for journal, record in records))
    assert sum(held) == 6
    assert await sums(sessions[0]) == (0.0, 4.8)


async def test_hold_that_is_asked_for_again_is_held_once(world: World) -> None:
    journal = await world.session()
    await journal.cap(1.0)
    record = await queued(journal)
    assert [await journal.hold(claim_of(record), 0.8, again=False) for _ in range(2)] == [True, True]
    assert await sums(journal) == (0.0, 0.8)
    assert not await journal.hold(claim_of(record), 1.2, again=False)
    assert await journal.hold(claim_of(record), 0.5, again=False)
    assert await sums(journal) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("state", "words", "spent", "held"),
    [
        (State.DONE, {"cost": 0.7}, 0.7, 0.0),
        (State.DONE, {"cost": 1.4}, 1.4, 0.0),
        (State.DONE, {}, 0.0, 1.0),
        (State.FAILED, {"cost": 0.0}, 0.0, 0.0),
        (State.FAILED, {}, 0.0, 1.0),
        (State.EXPIRED, {}, 0.0, 1.0),
    ],
)
async def test_end_settles_what_was_held(
    world: World, state: State, words: dict[str, Any], spent: float, held: float
) -> None:
    journal = await world.session()
    await journal.cap(5.0)
    record = await running(journal, "a")
    for _ in range(2):  # asked again, it finds itself done
        await take(journal, record, "ended", state, job_id="job-a", **words)
    assert await sums(journal) == (spent, held)


async def test_refusal_lets_go_what_was_held(world: World) -> None:
    journal = await world.session()
    record = await queued(journal)
    await journal.hold(claim_of(record), 1.0, again=False)
    await take(journal, record, "sending")
    await take(journal, record, "ended", State.REJECTED)
    assert await sums(journal) == (0.0, 0.0)


async def test_bill_of_what_is_paid_again_counts_as_held(world: World) -> None:
    journal = await world.session()
    record = await running(journal, "a")
    await take(journal, record, "ended", State.FAILED, job_id="job-a")
    await take(journal, record, "requeue", new_key="other", body=b"why?", api="sonar")
    assert await sums(journal) == (1.0, 0.0)


async def test_unknown_bills_of_removed_rows_are_still_counted(world: World) -> None:
    journal = await world.session()
    for tag, cost in (("a", None), ("b", None), ("c", 0.25)):
        record = await running(journal, tag)
        await take(journal, record, "ended", State.DONE, job_id=f"job-{tag}", cost=cost)
    never_sent = await queued(journal, "d")
    await journal.hold(claim_of(never_sent), 0.5, again=False)
    await take(journal, never_sent, "ended", State.REJECTED)
    assert await sums(journal) == (0.25, 2.0)
    assert await journal.forget(-1.0) == 4
    assert await sums(journal) == (2.25, 0.0)


async def test_holds_of_dead_sessions_are_found_by_rows(world: World) -> None:
    dead, living = await world.session(), await world.session()
    await living.cap(2.0)
    await running(dead, "runs")
    await dead.hold(claim_of(await queued(dead, "was never sent")), 1.0, again=False)
    assert not await living.hold(claim_of(record := await queued(living, "b")), 1.0, again=False)
    assert await sums(living) == (0.0, 2.0)
    await dead.close()
    room = await living.room()
    assert (room.held, room.may_change) == (1.0, True)
    assert await living.hold(claim_of(record), 1.0, again=False)
    (free,) = [found for found in await living.free(10) if found.tag == "runs"]
    await take(living, free, "ended", State.DONE, job_id="job-runs", cost=0.6)
    assert await sums(living) == (0.6, 1.0)


async def test_nothing_may_make_room_where_nothing_runs(world: World) -> None:
    journal = await world.session()
    await journal.cap(1.0)
    assert not (await journal.room()).may_change
    record = await running(journal, "a")
    assert (await journal.room()).may_change
    await take(journal, record, "ended", State.DONE, job_id="job-a")
    assert not (await journal.room()).may_change, "its bill is unknown, and stays so"


# A row holds 0.6 and another one 0.4. What it asks for, under which cap, and whether it is held; what it then holds.
@pytest.mark.parametrize(
    ("was_sent", "again", "cap", "dollars", "is_held", "holds"),
    [
        (True, True, 1.0, 0.8, True, 0.6),  # sent again under its key, it makes no second bill
        (True, True, 1.2, 0.8, True, 0.8),
        (True, True, 0.9, 0.6, False, 0.6),  # the cap was lowered
        (True, True, 0.9, 0.5, True, 0.5),
        (True, False, 1.0, 0.6, False, 0.6),  # without a key there may be two bills
        (True, False, 1.0, 0.1, False, 0.6),
        (True, False, 1.6, 0.6, True, 0.6),
        (False, False, 1.0, 0.6, True, 0.6),  # asked again, it finds itself done
        (False, False, 1.0, 0.8, False, 0.0),  # nobody waits for what it held
        (False, False, 0.9, 0.6, False, 0.0),
        (False, True, 0.9, 0.6, False, 0.0),
    ],
)
async def test_row_that_asks_again_holds_what_fits(
    world: World, was_sent: bool, again: bool, cap: float, dollars: float, is_held: bool, holds: float
) -> None:
    journal = await world.session()
    await journal.cap(1.0)
    await running(journal, "other", 0.4)
    record = await queued(journal, "a")
    assert await journal.hold(claim_of(record), 0.6, again=False)
    if was_sent:
        await take(journal, record, "sending")
    await journal.cap(cap)
    assert await journal.hold(claim_of(record), dollars, again=again) == is_held
    assert await sums(journal) == (0.0, pytest.approx(0.4 + holds))


@pytest.mark.parametrize("call", ["hold", "room", "recount", "cap"])
async def test_sums_that_were_deleted_are_made_again(world: World, call: str) -> None:
    journal = await world.session()
    await journal.cap(2.0)
    await take(journal, await running(journal, "a"), "ended", State.DONE, job_id="job-a", cost=0.7)
    await running(journal, "b", 0.5)
    record = await queued(journal, "c")
    await journal._held.fetch("DELETE FROM ~.account")
    if call == "hold":
        assert not await journal.hold(claim_of(record), 1.0, again=False)
        assert await journal.hold(claim_of(record), 0.25, again=False)
    elif call == "cap":
        assert await journal.cap(2.0) is None
    else:
        await getattr(journal, call)()
    room = await journal.room()
    assert (room.cap, room.spent) == (2.0, pytest.approx(0.7))
    assert room.held == pytest.approx(0.75 if call == "hold" else 0.5)


async def test_row_of_another_session_holds_nothing(world: World) -> None:
    one, other = await world.session(), await world.session()
    record = await queued(one)
    with pytest.raises(ClaimLost):
        await other.hold(claim_of(record), 1.0, again=False)


async def test_sums_are_made_anew_from_the_rows(world: World) -> None:
    journal = await world.session()
    record = await running(journal, "a", 0.5)
    await running(journal, "b", 0.25)
    await take(journal, record, "ended", State.DONE, job_id="job-a", cost=0.7)
    await journal.database.execute(f"UPDATE {journal._held.schema}.account SET spent = 90, held = 90")
    room = await journal.recount()
    assert (room.spent, room.held) == (0.7, 0.25)
