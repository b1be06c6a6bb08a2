"""The rows that the sessions of an account share: departures at a rate, silences, and no key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from _postgres import Server
from _shared import BASE_URL, KEY, World, world_at

from aiopplx.journal._postgres.account import make_tables
from aiopplx.journal._postgres.schema import script


@pytest.fixture
async def world(postgres: Server) -> AsyncIterator[World]:
    async with world_at(postgres.url()) as world:
        yield world


async def test_departures_of_two_processes_are_one_interval_apart(world: World) -> None:
    one, other = await world.account(), await world.account()
    firsts = [(await which.reserve("submit", 1, 100.0, 0.0)).first for which in (one, other, one, other)]
    assert [round(first / 100.0, 1) for first in firsts] == [0.0, 1.0, 2.0, 3.0]


async def test_several_departures_are_reserved_at_once(world: World) -> None:
    account = await world.account()
    await account.reserve("submit", 3, 100.0, 0.0)
    assert (await account.reserve("submit", 1, 100.0, 0.0)).first == pytest.approx(300.0, abs=20.0)


async def test_saved_departures_are_made_up_for(world: World) -> None:
    account = await world.account()
    firsts = [(await account.reserve("poll", 1, 100.0, 200.0)).first for _ in range(4)]
    assert firsts == pytest.approx([-200.0, -100.0, 0.0, 100.0], abs=20.0)


async def test_limits_and_accounts_have_departures_of_their_own(world: World) -> None:
    account, another = await world.account(), await world.account("another-key")
    await account.reserve("submit", 5, 100.0, 0.0)
    assert (await account.reserve("poll", 1, 100.0, 0.0)).first < 50.0
    assert (await another.reserve("submit", 1, 100.0, 0.0)).first < 50.0


async def test_all_at_once_get_different_departures(world: World) -> None:
    accounts = [await world.account() for _ in range(4)]
    got = await asyncio.gather(*(account.reserve("submit", 1, 50.0, 0.0) for account in accounts * 5))
    assert sorted(round(one.first / 50.0) for one in got) == list(range(20))


async def test_silence_is_heard_by_others_and_holds_departures(world: World) -> None:
    one, other, another = await world.account(), await world.account(), await world.account("another-key")
    heard: asyncio.Queue[str] = asyncio.Queue()
    other.hearing.on("c", heard.put_nowait)
    await one.silence(1_000.0)
    said = await heard.get()
    assert (other.seconds_in(said), another.seconds_in(said)) == (1_000.0, 0.0)
    reserved = await other.reserve("submit", 1, 1.0, 0.0)
    assert (reserved.first, reserved.silent) == pytest.approx((1_000.0, 1_000.0), abs=20.0)
    assert (await another.silent(), (await another.reserve("submit", 1, 1.0, 0.0)).silent) == (0.0, 0.0)


async def test_shorter_silence_does_not_end_a_longer_one(world: World) -> None:
    account = await world.account()
    await account.silence(1_000.0)
    await account.silence(1.0)
    assert await account.silent() > 900.0


async def test_nothing_is_saved_up_in_a_silence(world: World) -> None:
    account = await world.account()
    await account.silence(1_000.0)
    firsts = [(await account.reserve("submit", 1, 10.0, 500.0)).first for _ in range(2)]
    assert firsts == pytest.approx([1_000.0, 1_010.0], abs=5.0)


async def set_back(world: World, seconds: float) -> None:
    """The database's clock is set back: what it has written lies so much further ahead."""
    database, _ = await world.database()
    await database.execute(
        f"UPDATE {world.address.schema}.account SET "
        + ", ".join(f"{name} = {name} + make_interval(secs => {seconds})" for name in ("tat", "seen", "closed_until"))
    )


async def test_clock_that_is_set_back_holds_no_departure_up(world: World) -> None:
    account = await world.account()
    await account.reserve("submit", 3, 100.0, 0.0)
    await set_back(world, 86_400.0)
    firsts = [(await account.reserve("submit", 1, 100.0, 0.0)).first for _ in range(2)]
    assert firsts == pytest.approx([300.0, 400.0], abs=50.0)


@pytest.mark.parametrize("look", ["silent", "reserve", "silence"])
async def test_clock_that_is_set_back_makes_no_silence_longer(world: World, look: str) -> None:
    account = await world.account()
    database, _ = await world.database()
    await account.silence(1_000.0)
    await set_back(world, 86_400.0)
    for _ in range(2):
        if look == "silent":
            assert await account.silent() == pytest.approx(1_000.0, abs=50.0)
        elif look == "reserve":
            reserved = await account.reserve("submit", 1, 1.0, 0.0)
            assert (reserved.first, reserved.silent) == pytest.approx((1_000.0, 1_000.0), abs=50.0)
        else:
            await account.silence(1.0)
        # What was written is put right: otherwise it would hold for a day.
        [row] = await database.fetch(
            "SELECT seen <= clock_timestamp() AS is_right, extract(epoch FROM closed_until - clock_timestamp())::float8"
            f" AS silent FROM {world.address.schema}.account WHERE name = $1",
            account.name,
        )
        assert row["is_right"]
        assert row["silent"] == pytest.approx(1_000.0, abs=50.0)


async def test_pacing_does_not_wait_for_the_disk(world: World) -> None:
    """What the statement sets is the transaction's, and the next one on the connection finds it as it was."""
    account = await world.account()
    database, _ = await world.database()
    schema = world.address.schema
    await database.execute(f"CREATE TABLE {schema}.seen(commit text)")
    await database.execute(
        f"CREATE FUNCTION {schema}.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO {schema}.seen"
        " VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$"
    )
    await database.execute(
        f"CREATE TRIGGER look AFTER UPDATE ON {schema}.account FOR EACH ROW EXECUTE FUNCTION {schema}.look()"
    )
    await account.reserve("submit", 1, 1.0, 0.0)
    await account.silence(1.0)
    await database.execute(f"UPDATE {schema}.account SET held = 0 WHERE name = '{account.name}'")
    assert [row["commit"] for row in await database.fetch(f"SELECT commit FROM {schema}.seen")] == ["off", "off", "on"]


async def test_rows_that_were_deleted_are_made_again(world: World) -> None:
    account = await world.account()
    database, _ = await world.database()
    await database.execute(f"TRUNCATE {world.address.schema}.account")
    assert (await account.reserve("submit", 1, 100.0, 0.0)).first < 50.0


async def test_tables_are_made_once_by_many_at_once(world: World) -> None:
    databases = [(await world.database())[0] for _ in range(4)]
    await asyncio.gather(*(make_tables(database, world.address.schema) for database in databases))


async def test_tables_of_an_earlier_version_grow(world: World) -> None:
    account = await world.account()
    database, _ = await world.database()
    await database.execute(f"ALTER TABLE {world.address.schema}.account DROP COLUMN seen")
    databases = [(await world.database())[0] for _ in range(3)]
    await asyncio.gather(*(make_tables(database, world.address.schema) for database in databases))
    assert (await account.reserve("submit", 1, 100.0, 0.0)).first < 50.0


async def test_journal_and_account_make_their_tables_at_once(world: World) -> None:
    """Both make the table of the account, in a schema that only one of them makes."""
    databases = [(await world.database())[0] for _ in range(3)]
    for n in range(5):
        schema = f"{world.address.schema}_{n}"
        await asyncio.gather(
            *(make_tables(database, schema) for database in databases[:2]),
            databases[2].execute(script(schema)),
        )


async def test_key_is_in_no_row(world: World) -> None:
    account = await world.account()
    assert KEY not in account.name
    assert account.name.startswith(f"{BASE_URL} ")
