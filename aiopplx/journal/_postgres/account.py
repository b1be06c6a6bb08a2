"""What sessions of one account share through a database: when the next request may leave, and until when none may.

A row for each limit holds the *theoretical arrival time* of the generic cell rate algorithm (GCRA, as in ATM's traffic
management): the moment at which the limit is used up no more. Whoever wants to send moves it on by one interval, in one
statement, and is told how many seconds there are until its own departure. These are the database's seconds: no clock of
one machine is compared with another's. A row for the account holds the moment up to which nothing may leave.

Neither has to survive a crash of the server, since what is lost is less than a second of pace. So these statements do
not wait for the disk. They say that themselves, in the same statement: a pooler would give a `SET` to somebody else.

The key is in no row, only eight digits of a salted digest. This module knows nothing of who wants to send, or of how
the seconds are waited for.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from aiopplx.journal._names import fingerprint
from aiopplx.journal._postgres.hearing import Hearing
from aiopplx.journal._postgres.room import Database, Row

SILENCE: Final = "c"
"""The word under which a silence is told: `c:<seconds>:<name of the account>`."""
LIMITS: Final = ("submit", "poll", "list")
"""What has a limit."""

TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS ~.account(
        name text PRIMARY KEY,
        tat timestamptz NOT NULL DEFAULT clock_timestamp(),
        closed_until timestamptz,
        seen timestamptz DEFAULT clock_timestamp(),
        cap double precision,
        spent double precision NOT NULL DEFAULT 0,
        held double precision NOT NULL DEFAULT 0)
        WITH (fillfactor=10, autovacuum_vacuum_scale_factor=0.02, autovacuum_vacuum_threshold=200)""",
    """CREATE TABLE IF NOT EXISTS ~.account_salt(
        is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one),
        salt bytea NOT NULL)""",
)
"""The statements that make the tables if they are missing; `~` stands for the schema.

`account` has a row for each limit, one for the account, and one for the money of a journal (`money`). `seen` is the
moment at which a limit or a silence was set: one that is later than now says by how much the clock was set back.
"""
GROWS: Final = ("ALTER TABLE ~.account ADD COLUMN IF NOT EXISTS seen timestamptz DEFAULT clock_timestamp()",)
"""What tables of an earlier version lack."""

# A server says "not allowed" of a schema that is there, if it is asked to make it if it is not. And whoever waited for
# the lock may not have heard yet that it was made meanwhile, unless it reads the table of schemas.
MAKE_SCHEMA: Final = """
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '~') THEN CREATE SCHEMA "~"; END IF;
    END $$"""
"""The statement that makes the schema if it is missing."""
LOCK: Final = 0x6170706C
"""The advisory lock under which tables are made and changed: "appl" in ASCII."""


def lock_of(schema: str) -> str:
    """The statement by which one at a time makes or changes the tables of a schema."""
    return f"SELECT pg_advisory_xact_lock({LOCK}, hashtext('{schema}'))"


_SALT = """
INSERT INTO ~.account_salt(salt) VALUES ($1) ON CONFLICT (is_one) DO NOTHING
"""
_SALT_IS = """
SELECT salt FROM ~.account_salt
"""
_ROWS = """
INSERT INTO ~.account(name) SELECT unnest($1::text[]) ON CONFLICT (name) DO NOTHING
"""
# Otherwise nothing would leave for as long as the clock was set back by. Each reading is one of this row, once it is
# locked: nobody has seen a later moment.
_SET_BACK = "greatest(seen - clock_timestamp(), interval '0')"
_RIGHT = f"""
UPDATE ~.account SET closed_until = closed_until - {_SET_BACK}, seen = clock_timestamp()
 WHERE name = $1 AND seen > clock_timestamp()
"""
# `first` may be negative: by as much as the limit has saved up.
_RESERVE = f"""
WITH righted AS ({_RIGHT.replace("$1", "$5")})
UPDATE ~.account AS mine
   SET tat = greatest(mine.tat - {_SET_BACK.replace("seen", "mine.seen")}, clock_timestamp(),
                      whole.closed + $4::float8 * interval '1 second')
             + $2::int * $3::float8 * interval '1 second',
       seen = clock_timestamp()
  FROM (
    SELECT closed_until - {_SET_BACK} AS closed, set_config('synchronous_commit', 'off', true) AS disk
      FROM ~.account WHERE name = $5
  ) AS whole
 WHERE mine.name = $1 AND disk = 'off'
RETURNING extract(epoch FROM mine.tat - clock_timestamp())::float8 - $2::int * $3::float8 - $4::float8 AS first,
          coalesce(extract(epoch FROM whole.closed - clock_timestamp()), 0)::float8 AS silent
"""
_SILENT = f"""
WITH righted AS ({_RIGHT})
SELECT coalesce(extract(epoch FROM closed_until - {_SET_BACK} - clock_timestamp()), 0)::float8 AS silent
  FROM ~.account WHERE name = $1
"""
_SILENCE = f"""
WITH closed AS (
    UPDATE ~.account
       SET closed_until = greatest(closed_until - {_SET_BACK}, clock_timestamp() + $2::float8 * interval '1 second'),
           seen = clock_timestamp()
      FROM (SELECT set_config('synchronous_commit', 'off', true) AS disk) AS transaction
     WHERE name = $1 AND disk = 'off'
    RETURNING 1
)
SELECT pg_notify($3, $4) FROM closed
"""


class Reserved(msgspec.Struct, frozen=True):
    """Departures that were reserved.

    Attributes:
        first: seconds until the first of them; the others follow at the interval. Negative: so long ago.
        silent: seconds for which nothing may leave; 0.0 if it may.
    """

    first: float
    silent: float


def _of(text: str, schema: str) -> str:
    return text.replace("~", f'"{schema}"')


async def make_tables(database: Database, schema: str) -> None:
    """Make the tables, and the schema, if they are missing. Raises `JournalError`.

    They are looked for first: whoever may use a schema need not be allowed to make one.
    """
    found = await database.fetch(
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'seen') AS is_there",
        f'"{schema}".account',
    )
    if found[0]["is_there"]:
        return
    statements: list[tuple[str, Sequence[str]]] = [
        (lock_of(schema), ()),  # two that make the same at once would be in each other's way
        (MAKE_SCHEMA.replace("~", schema), ()),
    ]
    statements += [(_of(text, schema), ()) for text in (*TABLES, *GROWS)]
    await database.many(*statements)


class SharedAccount:
    """An account, as the sessions of all processes that use this database share it.

    Args:
        database: where the tables are. Whoever made it closes it.
        hearing: from which silences are heard.
        schema: of the tables.
        name: of the account, and so the beginning of the names of its rows.

    Attributes:
        name: the same.
        hearing: the same.
    """

    def __init__(self, database: Database, hearing: Hearing, *, schema: str, name: str) -> None:
        self.name: str = name
        self.hearing: Hearing = hearing
        self._database = database
        self._schema = schema
        self._reserve = _of(_RESERVE, schema)
        self._silent = _of(_SILENT, schema)
        self._silence = _of(_SILENCE, schema)

    @classmethod
    async def open(cls, database: Database, hearing: Hearing, *, schema: str, base_url: str, key: str) -> SharedAccount:
        """The account of a key at a server; its tables and rows are made if they are missing. Raises `JournalError`."""
        await make_tables(database, schema)
        await database.execute(_of(_SALT, schema), secrets.token_bytes(16))
        found = await database.fetch(_of(_SALT_IS, schema))
        name = f"{base_url} {fingerprint(key, bytes(found[0]['salt']))}"
        account = cls(database, hearing, schema=schema, name=name)
        await account.make_rows()
        return account

    async def make_rows(self) -> None:
        """Make the rows that are missing."""
        names = [self.name, *(f"{self.name} {limit}" for limit in LIMITS)]
        await self._database.execute(_of(_ROWS, self._schema), names)

    async def reserve(self, limit: str, count: int, interval: float, saved: float) -> Reserved:
        """Reserve the next departures.

        Args:
            limit: one of `LIMITS`.
            count: how many.
            interval: seconds between two of them.
            saved: seconds of departures that may be made up for after a pause: the burst, less one, in intervals.

        Raises:
            JournalError: the database did not do it, or was lost while it did: the departures are then lost too.
        """
        values = (f"{self.name} {limit}", count, interval, saved, self.name)
        rows = await self._database.fetch(self._reserve, *values)
        if not rows:  # somebody emptied the table
            await self.make_rows()
            rows = await self._database.fetch(self._reserve, *values)
        return Reserved(rows[0]["first"], _silence_in(rows))

    async def silence(self, seconds: float) -> None:
        """The server asked for so many seconds of silence: all sessions are told at once. Raises `JournalError`."""
        said = f"{SILENCE}:{seconds:.3f}:{self.name}"
        await self._database.fetch(self._silence, self.name, seconds, self.hearing.channel, said)

    async def silent(self) -> float:
        """Seconds for which nothing may leave; 0.0 if it may. Raises `JournalError`."""
        return _silence_in(await self._database.fetch(self._silent, self.name))

    def seconds_in(self, said: str) -> float:
        """The seconds of silence that were said on the channel, after the word; 0.0 if of another account."""
        seconds, _, name = said.partition(":")
        if name != self.name:
            return 0.0
        try:
            return float(seconds)
        except ValueError:
            return 0.0


def _silence_in(rows: Sequence[Row]) -> float:
    return max(0.0, float(rows[0]["silent"])) if rows else 0.0
