"""What a journal on PostgreSQL promises beyond what every store does: who may open it, and whose a row is.

Leases are of a second here, and run out by the server's clock; no test asks how long anything took.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from _postgres import PATIENT, Server, pooled, remove
from _rows import claim_of, queued, take

from aiopplx.journal import (
    ClaimLost,
    ItemConflict,
    JournalAway,
    JournalClosed,
    JournalRefused,
    Origin,
    PostgresJournal,
    PostgresReader,
    Results,
    State,
    open_reader,
    steps,
)
from aiopplx.journal._names import fingerprint
from aiopplx.journal._postgres import statements as sql
from aiopplx.journal._postgres.account import SharedAccount
from aiopplx.journal._postgres.driver import AsyncpgDatabase
from aiopplx.journal._postgres.lease import Timing
from aiopplx.journal._postgres.migrate import migrate
from aiopplx.journal._postgres.room import Taken
from aiopplx.journal._postgres.schema import VERSION
from aiopplx.journal._postgres.statements import CLAIM_ITEM, FORGET, REAP
from aiopplx.journal._postgres.url import address_of

QUICK = Timing(lease=1.0, beat=0.1, look=0.2)
"""A lease that runs out within the test, of a session that beats ten times in it."""


@pytest.fixture
async def url(postgres: Server) -> str:
    return await postgres.empty()


@pytest.fixture
async def database(url: str) -> AsyncIterator[AsyncpgDatabase]:
    database = AsyncpgDatabase(address_of(url))
    yield database
    await database.close()


@contextlib.asynccontextmanager
async def opened(url: str, timing: Timing = PATIENT, **more: Any) -> AsyncIterator[PostgresJournal]:
    journal = await PostgresJournal.open(url, timing=timing, **more)
    try:
        yield journal
    finally:
        await journal.close()


def schema_of(url: str) -> str:
    return address_of(url).schema


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - what is awaited is set by a task of the store
            await asyncio.sleep(0.01)


# --- opening ----------------------------------------------------------------------------------------------------------


async def test_sessions_making_tables_at_once_have_one_journal(postgres: Server) -> None:
    url = postgres.url()
    journals = await asyncio.gather(*(PostgresJournal.open(url, timing=PATIENT) for _ in range(4)))
    found = await asyncio.gather(*(queued(journal) for journal in journals))
    assert len({record.pk for record in found}) == 1
    assert sorted(record.is_held for record in found) == [False, True, True, True]
    for journal in journals:
        await journal.close()


async def test_other_key_or_server_is_refused_after_a_sending(url: str) -> None:
    def account(key: str) -> Callable[[bytes], str]:
        return lambda salt: fingerprint(key, salt)

    async with opened(url, account=account("mistyped"), base_url="http://wrong"):
        pass
    async with opened(url, account=account("right"), base_url="http://right") as journal:
        await take(journal, await queued(journal), "sending")
    with pytest.raises(JournalRefused, match="another API key") as caught:
        await PostgresJournal.open(url, account=account("other"), base_url="http://right")
    assert caught.value.reason == "account"
    with pytest.raises(JournalRefused, match="belongs to http://right") as caught:
        await PostgresJournal.open(url, account=account("right"), base_url="http://other")
    assert caught.value.reason == "base_url"
    async with opened(url, account=account("new"), same_account=True):
        pass
    async with opened(url, account=account("new")):
        pass


async def test_of_two_first_openings_the_second_is_refused(url: str) -> None:
    def opening(key: str, results: Results) -> Coroutine[Any, Any, PostgresJournal]:
        return PostgresJournal.open(url, account=lambda salt: fingerprint(key, salt), results=results, timing=PATIENT)

    for _ in range(3):
        found = await asyncio.gather(
            opening("a", "keep"), opening("b", "keep"), opening("a", "refetch"), return_exceptions=True
        )
        journals = [each for each in found if isinstance(each, PostgresJournal)]
        refusals = [each for each in found if isinstance(each, JournalRefused)]
        for journal in journals:
            await journal.close()
        assert (len(journals), len(refusals)) == (1, 2)


async def test_open_sessions_agree_on_how_long_results_are_kept(url: str) -> None:
    async with opened(url):
        with pytest.raises(JournalRefused, match="keeps results otherwise"):
            await PostgresJournal.open(url, results="refetch")
    async with opened(url, results="refetch"):
        pass


@pytest.mark.parametrize(
    ("version", "reason"),
    [(VERSION, ""), (VERSION + 1, ""), (VERSION + 2, "newer"), (VERSION - 1, "older"), ("x", "foreign")],
)
async def test_tables_of_this_version_and_the_next_are_used(
    url: str, database: AsyncpgDatabase, version: int | str, reason: str
) -> None:
    async def say(version: object) -> None:
        await database.execute(f"UPDATE {schema_of(url)}.meta SET v = '{version}' WHERE k = 'version'")

    await say(version)
    try:
        if not reason:
            async with opened(url) as journal:
                assert (await queued(journal)).state is State.QUEUED
            PostgresReader(url).close()
            return
        with pytest.raises(JournalRefused) as caught:
            await PostgresJournal.open(url)
        assert caught.value.reason == reason
        with pytest.raises(JournalRefused) as caught:
            PostgresReader(url)
        assert caught.value.reason == reason
    finally:
        await say(VERSION)


async def test_missing_server_and_missing_database_are_told_apart(postgres: Server) -> None:
    with pytest.raises(JournalAway):
        await PostgresJournal.open("postgresql:///x?host=/nowhere")
    with pytest.raises(JournalRefused, match="does not exist"):
        await PostgresJournal.open(postgres.url(dbname="no_such_database"))


async def test_user_without_rights_is_refused_with_what_is_needed(postgres: Server, database: AsyncpgDatabase) -> None:
    await database.execute("DROP ROLE IF EXISTS nobody_much; CREATE ROLE nobody_much LOGIN")
    with pytest.raises(JournalRefused, match="CREATE on the database"):
        await PostgresJournal.open(postgres.url(user="nobody_much"))


@pytest.mark.parametrize("revoked", ["INSERT ON {}.request", "DELETE ON {}.job", "USAGE ON SEQUENCE {}.fence"])
async def test_right_that_is_missing_is_told_at_the_opening(
    revoked: str, postgres: Server, database: AsyncpgDatabase
) -> None:
    """Later it would look like a server that is away, and be waited for."""
    url = await postgres.empty()
    schema = schema_of(url)
    rights = "ALL ON ALL TABLES IN SCHEMA", "ALL ON ALL SEQUENCES IN SCHEMA", "USAGE ON SCHEMA"
    await database.execute("DROP ROLE IF EXISTS half; CREATE ROLE half LOGIN")
    try:
        await database.execute(";".join(f"GRANT {right} {schema} TO half" for right in rights))
        as_half = url.replace("user=postgres", "user=half")
        await (await PostgresJournal.open(as_half)).close()
        await database.execute(f"REVOKE {revoked.format(schema)} FROM half")
        with pytest.raises(JournalRefused, match=f"lacks rights to {revoked.rpartition('.')[2]}\\b") as caught:
            await PostgresJournal.open(as_half)
        assert "GRANT" in caught.value.remedy
    finally:
        await database.execute("DROP OWNED BY half; DROP ROLE half")


async def test_rights_that_a_refusal_asks_for_are_enough(postgres: Server, database: AsyncpgDatabase) -> None:
    url = await postgres.empty()
    schema = schema_of(url)
    await database.execute(f"DROP ROLE IF EXISTS half; CREATE ROLE half LOGIN; GRANT USAGE ON SCHEMA {schema} TO half")
    await database.execute(f"GRANT SELECT ON {schema}.meta TO half")
    try:
        as_half = url.replace("user=postgres", "user=half")
        with pytest.raises(JournalRefused) as caught:
            await PostgresJournal.open(as_half)
        named = re.findall(r"GRANT [A-Z, ]+ ON ALL \w+ IN SCHEMA \w+", caught.value.remedy)
        assert len(named) == 2
        await database.execute(";".join(f"{grant} TO half" for grant in named))
        async with opened(as_half) as journal:
            record = await queued(journal)
            await journal.apply(claim_of(record), steps.sending(key=record.key, attempt=1))
            assert await journal.cap(1.0) is None
            account = await SharedAccount.open(
                journal.database, journal.hearing, schema=schema, base_url="https://x.example", key="k"
            )
            await account.silence(0.0)
            with PostgresReader(as_half) as reader:
                assert reader.facts()["openings"] == 1
                assert [row.key for row in reader.asked()] == [record.key]
    finally:
        await database.execute("DROP OWNED BY half; DROP ROLE half")


async def test_session_has_three_connections_at_most(url: str, database: AsyncpgDatabase) -> None:
    async with opened(url, QUICK) as journal:
        [row] = await database.fetch("SELECT pg_backend_pid() AS mine")
        counted: set[int] = set()
        asking = [asyncio.ensure_future(queued(journal, tag)) for tag in range(200)]
        while not all(task.done() for task in asking):
            rows = await database.fetch(
                "SELECT count(*) AS n FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> $1",
                row["mine"],
            )
            counted.add(rows[0]["n"])
            await asyncio.sleep(0)
        assert max(counted) <= 3
        await asyncio.gather(*asking)


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_dead_session_loses_its_rows_a_living_one_none(url: str) -> None:
    async with opened(url, QUICK) as one, opened(url, QUICK) as two, opened(url, QUICK) as three:
        record, mine = await queued(one), await queued(two, "b")
        one._held._beating.cancel()  # as a process that was killed
        # Two leases without a gap, and then the dead one's is over too.
        async with asyncio.timeout(60):
            while (found := await three.claim(record.pk)) is None or found.is_held:
                await three.follow([record.pk], timeout=60.0)
        await take(three, found, "sending")
        assert (await two.get(pk=mine.pk)).is_held is False
        with pytest.raises(ClaimLost):
            await take(one, record, "sending")
        # What it claims now it holds under a new number, though nobody told it.
        assert claim_of(await queued(one, "c")).pk
        await take(two, mine, "sending")


async def test_dead_session_does_not_outlive_a_clock_set_back(url: str, database: AsyncpgDatabase) -> None:
    """Its lease was written by a clock that was an hour ahead."""
    async with opened(url), opened(url) as living:
        await database.execute(f"UPDATE {schema_of(url)}.worker SET until = until + interval '1 hour'")
        await living._held.fetch(REAP, lease=QUICK.lease)
        rows = await database.fetch(
            f"SELECT extract(epoch FROM until - clock_timestamp())::float8 AS left FROM {schema_of(url)}.worker"
        )
        assert max(row["left"] for row in rows) <= 10.0 * QUICK.lease


async def test_young_session_declares_nobody_dead(url: str, database: AsyncpgDatabase) -> None:
    async with opened(url, QUICK) as one:
        record = await queued(one)
        one._held._beating.cancel()
        await database.execute(f"UPDATE {schema_of(url)}.worker SET until = until - interval '1 day'")
        async with opened(url, Timing(lease=1000.0, beat=0.01)) as young:
            before = young._held._lease._beaten
            await until(lambda: young._held._lease._beaten > before + 0.1)
            assert (await young.get(pk=record.pk)).is_held


async def test_session_whose_beats_fail_stops_sending_in_time(url: str, postgres: Server) -> None:
    async with opened(url, QUICK) as journal:
        record = await queued(journal)
        assert journal.may_intend()
        journal._held._beating.cancel()
        await until(lambda: not journal.may_intend())

        async def fails(*_: object) -> list[Any]:
            raise JournalAway("cut", path="")

        journal.database.beat, beat = fails, journal.database.beat
        with pytest.raises(JournalAway):
            await take(journal, record, "sending")
        assert (await journal.get(pk=record.pk)).state is State.QUEUED  # nor does it say that it will
        await take(journal, record, "ended", State.REJECTED)  # what the server said is always let in
        journal.database.beat = beat
        again = await queued(journal, "b")
        await take(journal, again, "sending")  # it beats first
        assert journal.may_intend()


async def test_session_declared_dead_goes_on_with_new_claims(url: str, database: AsyncpgDatabase) -> None:
    async with opened(url, QUICK) as journal:
        record, entered = await queued(journal), journal._held.entered
        await database.execute(f"DELETE FROM {schema_of(url)}.worker")
        await until(lambda: journal._held.entered != entered)
        with pytest.raises(ClaimLost):
            await take(journal, record, "sending")
        again = await queued(journal)
        assert again.pk == record.pk
        await take(journal, again, "sending")


@pytest.mark.parametrize("is_first", [True, False], ids=["comes back first", "comes back second"])
async def test_number_given_twice_after_a_failover_is_told_apart(
    is_first: bool, url: str, database: AsyncpgDatabase
) -> None:
    """The replica had not heard of the session, nor that its number was given."""
    async with opened(url) as old:
        record, schema, number = await queued(old), schema_of(url), old._held.me
        await database.execute(f"DELETE FROM {schema}.worker")
        await database.fetch(f"SELECT setval('{schema}.worker_id_seq', $1::bigint, false)", number)
        if is_first:
            await old._held._beat()
            assert old._held.me == number
        async with opened(url) as new:
            assert (new._held.me == number) is not is_first
            mine = await queued(new)
            assert mine.claim is not None
            await old._held._beat()
            assert old._held.me != new._held.me
            assert await old.held(()) == []
            assert (await queued(old)).is_held
            with pytest.raises(ClaimLost):
                await take(old, record, "sending")
            await old.close()
            await new._held._beat()
            await take(new, mine, "sending")
            assert new._held.entered == 1


async def test_session_declared_dead_is_still_one_opening(url: str) -> None:
    async with opened(url) as one, opened(url) as other:
        one.exhausted(False)
        for place in range(3):
            await queued(one, place, origin=Origin("run", place))
            await remove(one)
        await queued(one, 3, origin=Origin("run", 3))
        other.exhausted(True)
        await other.counts()
        with pytest.raises(ItemConflict):
            await queued(other, 2, ask=b"another question")
        with PostgresReader(url) as reader:
            assert reader.facts()["exhausted"] is False
            one.exhausted(True)
            await one.counts()
            assert [record.tag for record in reader.asked()] == [0, 1, 2, 3]
            assert reader.facts()["openings"] == 2


async def test_intent_is_looked_at_again_after_entering_anew(url: str) -> None:
    """Its answer is on its way for so long that another session has the row by now."""
    async with opened(url) as one, opened(url) as other:
        record = await queued(one)
        fetch = one._held.fetch

        async def slow(text: str, **values: Any) -> Any:
            answer = await fetch(text, **values)
            if "attempt" in text and not one._held.entered - entered:
                await remove(one)
                await other.claim(record.pk)
                await queued(one, "b")  # it has entered anew
            return answer

        entered = one._held.entered
        one._held.fetch = slow  # type: ignore[method-assign]  # an answer that is late
        with pytest.raises(ClaimLost):
            await take(one, record, "sending")


async def test_closing_frees_all_at_once(url: str, database: AsyncpgDatabase) -> None:
    async with opened(url) as one, opened(url) as two:
        records = [await queued(one, tag) for tag in range(20)]
        waiting = [asyncio.ensure_future(two.follow([record.pk], timeout=3600.0)) for record in records]
        await asyncio.sleep(0)
        await one.close()
        async with asyncio.timeout(60):
            await asyncio.gather(*waiting)
        assert [(await two.claim(record.pk)).is_held for record in records] == [False] * 20
        rows = await database.fetch(f"SELECT id FROM {schema_of(url)}.worker")
        assert len(rows) == 1


async def test_closing_without_a_server_ends(url: str) -> None:
    journal = await PostgresJournal.open(url, timing=Timing(close=0.1))
    await queued(journal)
    terminated, close = asyncio.Event(), journal.database.close

    async def hangs(*_: object) -> list[Any]:
        try:
            await asyncio.sleep(3600)
        finally:
            await terminated.wait()  # as the driver does that wants to hear that a statement was cancelled
        raise AssertionError

    async def closed() -> None:
        terminated.set()
        await close()

    journal.database.fetch, journal.database.close = hangs, closed
    asked = asyncio.ensure_future(queued(journal, "b"))
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await journal.close()
        with pytest.raises(JournalClosed):
            await asked
    assert journal.abandon() == [("queued", "key-b", "")]


async def test_claims_of_free_rows_take_none_twice(url: str) -> None:
    """With nobody dead: a claim that looked at the sessions too would take rows that were taken a moment before."""
    async with opened(url) as one, opened(url) as two, opened(url) as three:
        async with opened(url) as made:
            for tag in range(60):
                await take(made, await queued(made, tag), "sending")
        found: list[int] = []

        async def takes(journal: PostgresJournal) -> None:
            while records := await journal.free(3):
                for record in records:
                    found.append(record.pk)
                    await take(journal, record, "sending")  # refused if somebody else has it

        await asyncio.gather(*(takes(journal) for journal in (one, two, three)))
        assert len(found) == len(set(found)) == 60


async def test_key_that_another_uses_at_once_is_refused(url: str) -> None:
    async with opened(url) as one:
        await queued(one, "a", ask=b"wrong")
    async with opened(url) as two, opened(url) as other:
        hold = two._held.hold

        async def late(text: str, **values: Any) -> Any:
            if text is sql.REPLACE:
                await queued(other, "b", key="k2")
                raise Taken("job_key")  # as when the row of that key is committed while this statement runs
            return await hold(text, **values)

        two._held.hold = late  # type: ignore[method-assign]  # another session is quicker
        with pytest.raises(ItemConflict, match="has this key for another submission"):
            await queued(two, "a", key="k2", ask=b"right")


async def test_mended_question_replaces_that_of_a_gone_session(url: str) -> None:
    async with opened(url) as one:
        await queued(one, "a", ask=b"wrong")
    async with opened(url) as two:
        record = await queued(two, "a", key="k2", ask=b"right")
        assert (record.key, record.body) == ("k2", b"body of right")
        await take(two, record, "sending")


@pytest.mark.parametrize("run", ["run", ""], ids=["of its run", "of a call"])
async def test_place_that_two_rows_had_is_the_later_ones(url: str, run: str) -> None:
    async with opened(url) as journal:
        await queued(journal, "first", origin=Origin("run", 0, "why?"))
        other = await queued(journal, "other", origin=Origin("run", 0, "why?", {"row": 1}))
        assert other.meta == {"row": 1}
        again = await queued(journal, "first", origin=Origin(run, 0, "why?", {"row": 2}))
        assert again.meta == {"row": 2}
        assert (await journal.get(pk=again.pk)).meta == {"row": 2}
        assert (await journal.get(pk=other.pk)).meta == ({} if run else {"row": 1})
        new = await queued(journal, "new", origin=Origin("run", 0, "why?", {"row": 3}))
        assert (await journal.get(pk=new.pk)).meta == {"row": 3}


async def test_columns_of_a_row_removed_meanwhile_are_dropped(url: str) -> None:
    async with opened(url) as journal:
        record = await queued(journal)
        await take(journal, record, "sending")
        await take(journal, record, "ended", State.FAILED)
        forgotten = asyncio.Event()
        fetch = journal._held.fetch

        async def removed_after_it_was_found(text: str, **values: Any) -> list[Any]:
            found = await fetch(text, **values)
            if text == CLAIM_ITEM and not forgotten.is_set():
                forgotten.set()
                await fetch(FORGET, seconds=-1.0, limit=10)
            return found

        journal._held.fetch = removed_after_it_was_found
        found = await queued(journal, origin=Origin("run", 0, "why?", {"row": 1}))
        assert forgotten.is_set()
        assert (found.pk, await journal.get(pk=found.pk)) == (record.pk, None)


async def test_key_of_a_row_removed_meanwhile_is_not_sent(url: str, database: AsyncpgDatabase) -> None:
    """The key is the user's own. Whoever queues it waits for the removal, and does not see what that has written."""
    async with opened(url) as journal:
        record = await queued(journal, key="mine")
        await take(journal, record, "sending")
        await take(journal, record, "ended", State.FAILED)
        text, values = journal._held.prepared(FORGET, {"seconds": -1.0, "limit": 10})
        async with database._connection() as connection, connection.transaction():
            await connection.execute(text, *values)
            queueing = asyncio.ensure_future(queued(journal, key="mine"))
            waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO%'"
            # Within its transaction, that connection would see the activity of one moment again and again.
            while not queueing.done() and not await database.fetch(waits):
                pass
        again = await queueing
        with pytest.raises(ItemConflict, match="removed after its time"):
            await take(journal, again, "sending")
        assert (await journal.get(pk=again.pk)).state is State.QUEUED


async def test_columns_of_two_sessions_at_once_are_kept(url: str) -> None:
    async with opened(url) as one, opened(url) as two:
        for tag in range(20):
            record = await queued(one, tag)
            asks = (queued(journal, tag, origin=Origin("", 0, "why?", {"row": tag})) for journal in (one, two))
            await asyncio.gather(*asks)
            assert (await one.get(pk=record.pk)).meta == {"row": tag}


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_reader_sees_what_was_committed_and_changes_nothing(url: str) -> None:
    async with opened(url, base_url="http://x") as journal:
        for place, tag in enumerate("cab"):
            await queued(journal, tag, origin=Origin("run", place, "why?", {"row": place}))
        journal.exhausted(False)
        record = await journal.claim(1)
        await take(journal, record, "sending")
        await take(journal, record, "ended", State.DONE, job_id="id-1", raw=b"{}", cost=0.5)
        await journal.counts()

        def look() -> None:
            with open_reader(url) as reader:
                assert isinstance(reader, PostgresReader)
                assert reader.counts()[State.DONE] == 1
                assert [(row.tag, row.meta) for row in reader.asked()] == [
                    ("c", {"row": 0}),
                    ("a", {"row": 1}),
                    ("b", {"row": 2}),
                ]
                assert reader.result(1) == b"{}"
                assert [row.job_id for row in reader.rows([State.DONE])] == ["id-1"]
                assert reader.get(job_id="id-1").pk == 1
                assert (reader.ledger().spent, reader.costs()[0].dollars) == (0.5, 0.5)
                facts = reader.facts()
                assert (facts["base_url"], facts["exhausted"], facts["clean"]) == ("http://x", False, False)
                assert reader.writer() is not None
                assert reader.replacement(key="key-c") is None
                reader.close()

        await asyncio.to_thread(look)
    with open_reader(url) as reader:
        assert reader.facts()["clean"] is True
        assert reader.writer() is None


async def test_replaced_submission_is_found_by_its_former_key(url: str) -> None:
    async with opened(url) as journal:
        record = await queued(journal)
        await take(journal, record, "sending")
        await take(journal, record, "ended", State.FAILED, job_id="old")
        await journal.apply(claim_of(record), steps.requeue(key=record.key, new_key="new", body=b"{}", api="sonar"))
    with PostgresReader(url) as reader:
        assert {reader.replacement(key=record.key).key, reader.replacement(job_id="old").key} == {"new"}


async def test_reader_of_nothing_makes_nothing(postgres: Server, database: AsyncpgDatabase) -> None:
    url = postgres.url()
    with pytest.raises(JournalRefused) as caught:
        PostgresReader(url)
    assert caught.value.reason == "missing"
    assert await database.fetch("SELECT FROM pg_namespace WHERE nspname = $1", schema_of(url)) == []


async def test_source_is_exhausted_when_no_living_session_reads_one(url: str) -> None:
    async def exhausted() -> object:
        def look() -> object:
            with PostgresReader(url) as reader:
                return reader.facts()["exhausted"]

        return await asyncio.to_thread(look)

    async with opened(url) as one, opened(url) as two:
        one.exhausted(False)
        two.exhausted(False)
        two.exhausted(True)
        await two.counts()
        await one.counts()
        assert await exhausted() is False
        await one.close()
        two.exhausted(True)
        await two.counts()
        assert await exhausted() is True


# --- poolers, logs, clocks and other versions -------------------------------------------------------------------------


async def test_pooler_in_transaction_mode_is_told_once(postgres: Server, caplog: pytest.LogCaptureFixture) -> None:
    with pooled(postgres) as folder:
        url = postgres.url().replace(str(postgres.folder), str(folder))
        async with opened(url) as one, opened(url) as two:
            assert [record.levelname for record in caplog.records] == ["WARNING"] * 2  # each session says it once
            records = await asyncio.gather(*(queued(one, tag) for tag in range(40)))
            waiting = [asyncio.ensure_future(two.follow([record.pk], timeout=3600.0)) for record in records]
            for record in records:
                await take(one, record, "sending")
                await take(one, record, "ended", State.DONE, job_id=f"id-{record.pk}", raw=b"{}")
            async with asyncio.timeout(60):
                await asyncio.gather(*waiting)
            assert (await two.counts())[State.DONE] == 40
            await one._held.ensure()
        with PostgresReader(url) as reader:
            assert reader.counts()[State.DONE] == 40
        assert len(caplog.records) == 2


async def test_session_leaves_no_name_at_a_pooler(postgres: Server) -> None:
    """The next process that gets the same connection of the server would use the same names."""
    with pooled(postgres) as folder:
        url = postgres.url().replace(str(postgres.folder), str(folder))
        database = AsyncpgDatabase(address_of(url))
        async with opened(url) as journal:
            record = await queued(journal)
            await take(journal, record, "sending")
            await journal._held.ensure()
            assert await database.fetch("SELECT name FROM pg_prepared_statements") == []
        await database.close()


async def test_server_that_logs_everything_sees_no_key(url: str, postgres: Server, database: AsyncpgDatabase) -> None:
    key, question = "pplx-canary-key-0b7e", b"a question that nobody shall log"
    await database.execute("ALTER SYSTEM SET log_statement = 'all'; ")
    await database.execute("SELECT pg_reload_conf()")
    try:
        before = len(postgres.log())
        async with opened(url, account=lambda salt: fingerprint(key, salt), base_url="http://x") as journal:
            record = await queued(journal, body=question)
            await take(journal, record, "sending")
            rows = await database.fetch("SELECT query FROM pg_stat_activity")
            assert key not in str([row["query"] for row in rows])
            assert question.decode() not in str([row["query"] for row in rows])
        log = postgres.log()[before:]
    finally:
        await database.execute("ALTER SYSTEM RESET log_statement")
        await database.execute("SELECT pg_reload_conf()")
    assert "INSERT INTO" in log  # it was logged
    assert key not in log
    stored = await database.fetch(f"SELECT string_agg(v, ' ') AS said FROM {schema_of(url)}.meta")
    assert key not in stored[0]["said"]


async def test_tables_grow_under_open_sessions_of_both_versions(postgres: Server) -> None:
    """What the next version adds, it adds while this one works."""
    url = postgres.url()
    async with opened(url) as old:
        before = await queued(old, "before")
        await take(old, before, "sending")
        grows = {VERSION: ("ALTER TABLE ~.job ADD COLUMN later text NOT NULL DEFAULT ''",)}
        assert await migrate(url, migrations=grows, version=VERSION + 1) == (VERSION, VERSION + 1)
        async with opened(url) as young:
            found = await young.claim(before.pk)
            assert found is not None
            assert found.is_held
            for journal, tag in ((old, "a"), (young, "b")):
                record = await queued(journal, tag, origin=Origin("run", 0, "why?", {"a": 1}))
                await take(journal, record, "sending")
                await take(journal, record, "ended", State.FAILED, job_id=tag, raw=b"{}")
                again = await queued(journal, tag, origin=Origin("run 2", 0, "why?", {"a": 2}))
                await journal.apply(
                    claim_of(again), steps.requeue(key=again.key, new_key=f"new {tag}", body=b"{}", api="sonar")
                )
            await take(old, before, "accepted", job_id="id")
            assert (await young.counts())[State.QUEUED] == (await old.counts())[State.QUEUED] == 2
