"""The room's calls on a real server: what is returned, and what an error comes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from _postgres import Server

from aiopplx.journal import JournalAway, JournalBroken, JournalClosed, JournalFull, JournalRefused
from aiopplx.journal._postgres.driver import POOL, AsyncpgDatabase
from aiopplx.journal._postgres.room import Taken, error_of
from aiopplx.journal._postgres.url import address_of


@pytest.fixture
async def database(postgres: Server) -> AsyncIterator[AsyncpgDatabase]:
    database = AsyncpgDatabase(address_of(postgres.url()))
    yield database
    await database.close()


async def test_rows_come_back_from_one_statement_and_from_several(database: AsyncpgDatabase) -> None:
    assert [dict(row) for row in await database.fetch("SELECT $1::int AS n, 'x' AS t", 3)] == [{"n": 3, "t": "x"}]
    await database.execute("CREATE TEMP TABLE counted(n int)")
    deleted = await database.many(
        ("INSERT INTO counted SELECT generate_series(1, $1::int)", (5,)), ("DELETE FROM counted RETURNING n", ())
    )
    assert [row["n"] for row in deleted] == [1, 2, 3, 4, 5]


async def test_broken_constraint_has_its_name(database: AsyncpgDatabase) -> None:
    await database.execute("CREATE TABLE IF NOT EXISTS public.taken(n int CONSTRAINT once UNIQUE)")
    await database.execute("TRUNCATE public.taken")
    await database.execute("INSERT INTO public.taken VALUES (1)")
    with pytest.raises(Taken) as caught:
        await database.execute("INSERT INTO public.taken VALUES (1)")
    assert caught.value.constraint == "once"


async def test_wrong_statement_is_broken_and_not_away(database: AsyncpgDatabase) -> None:
    with pytest.raises(JournalBroken, match="42601"):
        await database.fetch("SELEKT")


async def test_lost_connections_are_away_and_the_next_goes_through(database: AsyncpgDatabase, postgres: Server) -> None:
    other = AsyncpgDatabase(address_of(postgres.url()))
    sleeping = [asyncio.create_task(database.fetch("SELECT pg_sleep(60)")) for _ in range(POOL)]
    try:
        ended: set[int] = set()  # one that was told to end may be found again before it has
        while len(ended) < POOL:
            rows = await other.fetch(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
            )
            ended |= {row["pid"] for row in rows}
    finally:
        await other.close()
    outcomes = await asyncio.gather(*sleeping, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [JournalAway] * POOL
    assert len(await database.fetch("SELECT 1 AS one")) == 1


@pytest.mark.parametrize(
    ("code", "opening", "later"),
    [
        ("", JournalAway, JournalAway),
        ("57P01", JournalAway, JournalAway),
        ("28P01", JournalRefused, JournalAway),
        ("28000", JournalRefused, JournalAway),
        ("3D000", JournalBroken, JournalAway),
        ("42501", JournalBroken, JournalAway),
        ("58030", JournalBroken, JournalAway),
        ("XX000", JournalBroken, JournalAway),
        ("XX001", JournalBroken, JournalBroken),
        ("42601", JournalBroken, JournalBroken),
        ("54000", JournalBroken, JournalBroken),
        ("53100", JournalFull, JournalFull),
    ],
)
def test_refusal_that_may_end_ends_nothing_that_is_open(code: str, opening: type, later: type) -> None:
    for is_open, kind in ((False, opening), (True, later)):
        error = error_of(code, "as it says", name="postgresql://db/x", is_open=is_open)
        assert type(error) is kind
        assert "as it says" in error.message
        assert "nothing is sent" not in error.message, "whoever pauses says that"


async def test_user_who_was_shut_out_goes_on(database: AsyncpgDatabase, postgres: Server) -> None:
    await database.execute("CREATE ROLE guest LOGIN")
    address = address_of(postgres.url(user="guest"))
    new, open_ = AsyncpgDatabase(address), AsyncpgDatabase(address)
    open_.opened()
    try:
        await database.execute("ALTER ROLE guest NOLOGIN")
        with pytest.raises(JournalRefused):
            await new.fetch("SELECT 1")
        with pytest.raises(JournalAway, match="28000"):
            await open_.fetch("SELECT 1")
        await database.execute("ALTER ROLE guest LOGIN")
        assert len(await open_.fetch("SELECT 1 AS one")) == 1
    finally:
        await new.close()
        await open_.close()
        await database.execute("DROP ROLE guest")


async def test_certificates_that_are_lost_while_open_are_away() -> None:
    database = AsyncpgDatabase(address_of("postgresql://localhost/x?sslmode=verify-full&sslrootcert=/nowhere"))
    with pytest.raises(JournalRefused, match="cannot be read"):
        await database.fetch("SELECT 1")
    database.opened()
    with pytest.raises(JournalAway, match="cannot be read"):
        await database.fetch("SELECT 1")
    await database.close()


async def test_server_that_is_not_there_is_away() -> None:
    database = AsyncpgDatabase(address_of("postgresql:///x?host=/nowhere&user=u"))
    with pytest.raises(JournalAway):
        await database.fetch("SELECT 1")
    await database.close()


async def test_listener_hears_and_is_told_of_a_gap(database: AsyncpgDatabase) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    await database.listen("aiopplx_test", heard.put_nowait)
    await database.execute("SELECT pg_notify('aiopplx_test', 'first')")
    assert await heard.get() == "first"
    await database.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    assert await heard.get() == ""
    await database.execute("SELECT pg_notify('aiopplx_test', 'second')")
    assert await heard.get() == "second"


async def test_listener_that_fails_hears_of_the_next_gap(
    database: AsyncpgDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    def failing(said: str) -> None:
        heard.put_nowait(said)
        if heard.qsize() == 1:
            raise RuntimeError("as nobody expects")

    await database.listen("aiopplx_test", failing)
    for gap in (1, 2):
        await database.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        async with asyncio.timeout(20):
            while heard.qsize() < gap:  # noqa: ASYNC110 - the listener itself fails
                await asyncio.sleep(0.01)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_listener_that_cannot_connect_as_expected_tries_again(
    postgres: Server, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(AsyncpgDatabase):
        connections = 0

        async def _new(self, *_: object, **__: object) -> Any:
            self.connections += 1
            if self.connections == 2:
                raise RuntimeError("as nobody expects")
            return await super()._new()

    database = Failing(address_of(postgres.url()))
    heard: asyncio.Queue[str] = asyncio.Queue()
    await database.listen("aiopplx_test", heard.put_nowait)
    direct = database._direct
    assert direct is not None
    direct.terminate()
    async with asyncio.timeout(60):
        assert await heard.get() == ""
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "connecting to the database failed unexpectedly: RuntimeError")
    ]
    assert database.connections == 3
    await database.close()


async def test_beat_that_is_cancelled_takes_its_connection_along(database: AsyncpgDatabase) -> None:
    """A server that is gone does not answer a cancellation either, so nothing more is sent on that connection."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    await database.listen("aiopplx_test", heard.put_nowait)
    before = database._direct
    assert before is not None
    beating = asyncio.ensure_future(database.beat("SELECT pg_sleep(600)"))
    while not await database.fetch("SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'"):
        pass
    beating.cancel()
    await asyncio.wait([beating])
    assert before.is_closed()
    async with asyncio.timeout(60):
        assert await heard.get() == "", "another one listens"
    assert len(await database.beat("SELECT 1 AS one")) == 1


async def test_closed_database_says_so_and_leaves_no_connection(postgres: Server, database: AsyncpgDatabase) -> None:
    other = AsyncpgDatabase(address_of(postgres.url()))
    [row] = await other.fetch("SELECT pg_backend_pid() AS pid")
    await other.listen("aiopplx_test", lambda said: None)
    await other.close()
    await other.close()
    with pytest.raises(JournalClosed):
        await other.fetch("SELECT 1")
    # The server ends the process of a closed connection when it reads the farewell.
    await database.fetch("SELECT pg_terminate_backend($1, 30000)", row["pid"])
    assert await database.fetch("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%'") == []


async def test_closing_cancelled_again_leaves_no_connection(postgres: Server) -> None:
    async def closed(other: AsyncpgDatabase) -> None:
        with anyio.CancelScope() as scope:  # which cancels each wait anew
            scope.cancel()
            await other.close()

    for close in (closed, AsyncpgDatabase.close):
        other = AsyncpgDatabase(address_of(postgres.url()))
        await other.fetch("SELECT 1")
        await other.listen("aiopplx_test", lambda said: None)
        pool, direct = other._pool, other._direct
        assert pool is not None
        assert direct is not None
        closing = asyncio.ensure_future(close(other))
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
            while not closing.done():
                closing.cancel()
                await asyncio.sleep(0)
        assert direct.is_closed()
        assert pool.get_size() == 0
