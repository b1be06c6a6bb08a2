"""Migrations of a journal on PostgreSQL: each adds, runs once, and leaves what is there as it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest
from _postgres import Server
from _rows import queued

from aiopplx import ConfigError, JournalOptions, PollPolicy, Session
from aiopplx.emulator import AfterPolls, Emulator
from aiopplx.journal import JournalRefused, Record, State
from aiopplx.journal._names import Names, item_name, short_name
from aiopplx.journal._postgres.driver import AsyncpgDatabase
from aiopplx.journal._postgres.journal import PostgresJournal
from aiopplx.journal._postgres.migrate import migrate
from aiopplx.journal._postgres.schema import VERSION
from aiopplx.journal._postgres.statements import QUEUE
from aiopplx.journal._postgres.url import address_of

ADDED = {VERSION: ("ALTER TABLE ~.job ADD COLUMN IF NOT EXISTS colour text NOT NULL DEFAULT 'red'",)}


async def test_migration_runs_once_while_sessions_go_on(postgres: Server) -> None:
    url = postgres.url()
    older = await PostgresJournal.open(url)
    await queued(older, "before")
    ends = await asyncio.gather(*(migrate(url, migrations=ADDED, version=VERSION + 1) for _ in range(3)))
    assert {after for _, after in ends} == {VERSION + 1}
    assert await migrate(url, migrations=ADDED, version=VERSION + 1) == (VERSION + 1, VERSION + 1)
    await queued(older, "after")  # the version before works with the new tables
    another = await PostgresJournal.open(url)
    assert sum((await another.counts()).values()) == 2
    for journal in (older, another):
        await journal.close()
    with pytest.raises(JournalRefused, match="use a newer one"):
        await migrate(url)


TENANTS = ["acme", 'a"b', "back\\slash", "Ünïcode / x", "a\0b", "\U0001f600"]


async def test_version_before_works_on_beside_this_one(postgres: Server) -> None:
    """Tables as the version before made them: migrated while its sessions are open, and both go on."""
    async with database_of(postgres.url()) as (url, schema, database):
        journal = await PostgresJournal.open(url)
        for n, tenant in enumerate(TENANTS):
            await in_name_of(journal, tenant, n)
        long = [item_name("т" * 400, b"", 1, tenant=tenant) for tenant in ("", "acme")]
        for item in long:  # as the version before kept them: in full
            await database.execute(
                f"INSERT INTO {schema}.job(item, sha, api, state, fence, touched, updated)"
                f" VALUES ('{item}', '', 'sonar', {State.QUEUED}, 0, 0, 0)"
            )
        await database.execute(
            f"ALTER TABLE {schema}.job DROP tenant; ALTER TABLE {schema}.past DROP tenant, DROP hold;"
            f"ALTER TABLE {schema}.account DROP seen; UPDATE {schema}.meta SET v = '1' WHERE k = 'version'"
        )
        with pytest.raises(JournalRefused, match="has version 1"):
            await PostgresJournal.open(url)
        assert {await migrate(url), await migrate(url)} == {(1, VERSION), (VERSION, VERSION)}
        rows = await database.fetch(f"SELECT item, tenant FROM {schema}.job ORDER BY pk")
        assert [row["tenant"] for row in rows] == [*TENANTS[:4], "", "", "", "acme"]
        assert [row["item"] for row in rows[-2:]] == [short_name(item) for item in long] != long
        # The statement by which the version before queues, and the one by which it replaces.
        older = QUEUE.replace(", place, tenant)", ", place)").replace(", :place, :tenant", ", :place")
        assert older != QUEUE
        values = {"item": "i", "tag": None, "key": "k", "sha": b"", "api": "sonar", "kind": "", "run": "", "place": 0}
        assert len(await journal._held.fetch(older, **values, body=b"", meta=b"")) == 1
        await database.execute(
            f"INSERT INTO {schema}.past(pk, key, api, state, word, error, updated) VALUES (1, 'p', '', 3, '', '', 0)"
        )
        young = await PostgresJournal.open(url)
        assert (await in_name_of(young, "acme", 99)).tenant == "acme"
        assert (await young.recount()).spent == 0.0
        assert [row.tenant for row in await journal.rows(set(State))][: len(TENANTS)] == TENANTS
        for each in (journal, young):
            await each.close()


@pytest.mark.parametrize(("order", "patience"), [(("account", "job"), "10ms"), (("job", "account"), "30s")])
async def test_migration_and_steps_get_past_each_other(order: tuple[str, str], patience: str, postgres: Server) -> None:
    """Sums that are counted anew come first; a step that ends a job may have the server end the migration, which is
    tried again."""
    async with database_of(postgres.url()) as (url, schema, database):
        await (await PostgresJournal.open(url)).close()
        await database.execute(f"UPDATE {schema}.meta SET v = '1' WHERE k = 'version'")
        session = await asyncpg.connect(host=str(postgres.folder), user="postgres", database="postgres")
        await session.execute(f"SET deadlock_timeout = '{patience}'")
        async with session.transaction():
            await session.execute(f"SELECT FROM {schema}.{order[0]} FOR UPDATE")
            migrating = asyncio.create_task(migrate(url))
            async with asyncio.timeout(60):
                while not await database.fetch(WAITS):  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0.01)
            await session.execute(f"SELECT FROM {schema}.{order[1]} FOR UPDATE")
        assert await migrating == (1, VERSION)
        await session.close()


WAITS = "SELECT FROM pg_locks JOIN pg_class ON oid = relation WHERE NOT granted AND relname IN ('job', 'account')"


async def in_name_of(journal: PostgresJournal, tenant: str, tag: int) -> Record:
    names = Names(tenant=tenant)
    sha = names.sha(b"why?")
    return await journal.find_or_queue(
        names.name(tag, sha), tag=tag, key=f"key {tag}", body=b"why?", sha=sha, api="sonar"
    )


async def test_what_is_no_journal_is_not_migrated(postgres: Server) -> None:
    with pytest.raises(JournalRefused, match="does not exist"):
        await migrate(postgres.url())
    with pytest.raises(ConfigError):
        await migrate("research.db")
    async with database_of(postgres.url()) as (url, schema, database):
        await database.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.meta(k text, v text)")
        with pytest.raises(JournalRefused, match="something else"):
            await migrate(url)
        assert await database.fetch(f"SELECT FROM {schema}.meta") == []


async def test_user_who_may_not_change_the_tables_migrates_nothing(postgres: Server) -> None:
    async with database_of(await postgres.empty()) as (url, schema, database):
        await database.execute("DROP ROLE IF EXISTS reads_only; CREATE ROLE reads_only LOGIN")
        await database.execute(
            f"GRANT USAGE ON SCHEMA {schema} TO reads_only; GRANT SELECT ON {schema}.meta TO reads_only"
        )
        theirs = url.replace("user=postgres", "user=reads_only")
        assert await migrate(theirs) == (VERSION, VERSION)  # there is nothing to do
        with pytest.raises(JournalRefused, match="all rights in it"):
            await migrate(theirs, migrations=ADDED, version=VERSION + 1)
        assert [row["v"] for row in await database.fetch(f"SELECT v FROM {schema}.meta WHERE k = 'version'")] == [
            str(VERSION)
        ]
        assert not await database.fetch(
            "SELECT FROM information_schema.columns WHERE table_schema = $1 AND column_name = 'colour'", schema
        )
        await database.execute("DROP OWNED BY reads_only; DROP ROLE reads_only")


@contextlib.asynccontextmanager
async def database_of(url: str) -> AsyncIterator[tuple[str, str, AsyncpgDatabase]]:
    database = AsyncpgDatabase(address_of(url))
    try:
        yield url, address_of(url).schema, database
    finally:
        await database.close()


async def test_session_removes_what_ended_long_ago(postgres: Server) -> None:
    url = postgres.url()
    async with Emulator(duration=AfterPolls(1), answer_chars=200) as server:

        def opened(**more: float) -> Session:
            options = JournalOptions(url, **more)  # type: ignore[arg-type]  # one of its options
            return Session("k" * 20, base_url=server.url, journal=options, poll=PollPolicy.fixed(0.05))

        async with opened() as session:
            assert (await session.ask("Why?", tag="x")).ok
        journal = await PostgresJournal.open(url)
        async with opened(keep_for=0.001):
            async with asyncio.timeout(60):
                while sum((await journal.counts()).values()):  # noqa: ASYNC110 - the store tells of rows, not of counts
                    await asyncio.sleep(0.02)
        assert [cost.submissions for cost in await journal.costs()] == [1]
        await journal.close()
