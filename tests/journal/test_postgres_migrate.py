"""Migrations of a journal on PostgreSQL: each adds, runs once, and leaves what is there as it is."""

from __future__ import annotations

import asyncio

import pytest
from _postgres import Server
from _rows import queued

from aiopplx import ConfigError, JournalOptions, PollPolicy, Session
from aiopplx.emulator import AfterPolls, Emulator
from aiopplx.journal import JournalRefused
from aiopplx.journal._postgres.journal import PostgresJournal
from aiopplx.journal._postgres.migrate import migrate
from aiopplx.journal._postgres.schema import VERSION

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


async def test_what_is_no_journal_is_not_migrated(postgres: Server) -> None:
    with pytest.raises(JournalRefused, match="does not exist"):
        await migrate(postgres.url())
    with pytest.raises(ConfigError):
        await migrate("research.db")


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
