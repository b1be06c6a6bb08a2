"""The journal's tables on PostgreSQL, version by version, as text.

As in a journal's file, what changes while a submission runs is in a narrow table, and what is written once (the
request, the result) in tables of its own. Beside them stand the sessions: `worker` has a line for each that is open,
and a job in progress names the one that holds it. Moments are seconds since 1970, as everywhere in a journal; only a
lease is compared with the server's clock alone, and has its type.

There are no triggers and no stored procedures, and a migration only adds: so libraries of two versions in a row can
work on the same tables, as they do in the minutes of a deployment.

`~` stands for the schema. This module knows nothing of connections or of when a migration runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiopplx.journal._postgres import account

VERSION = 2
"""The version of the tables that this library makes. It also works with those of the version after it."""

MONEY = "journal"
"""The row of `account` with the budget of all sessions: its cap, what is spent, and the sum of `job.hold`."""

# A new table of the same name is not an error: two sessions may begin at the same moment.
TABLES = (
    # version, base_url, account, salt, results, created, made_by
    "CREATE TABLE IF NOT EXISTS ~.meta(k text PRIMARY KEY, v text NOT NULL)",
    # Half of each page stays free, so that a beat writes no index. `version` is the library's, and a word by which this
    # session is told from all others.
    """CREATE TABLE IF NOT EXISTS ~.worker(
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        host text NOT NULL,
        pid integer NOT NULL,
        version text NOT NULL,
        until timestamptz NOT NULL) WITH (fillfactor=50)""",
    # Sessions whose source of questions is not read to its end.
    "CREATE TABLE IF NOT EXISTS ~.unread(worker bigint PRIMARY KEY)",
    "CREATE SEQUENCE IF NOT EXISTS ~.fence",
    """CREATE TABLE IF NOT EXISTS ~.job(
        pk bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        item text NOT NULL CONSTRAINT job_item UNIQUE,
        tag text,
        key text CONSTRAINT job_key UNIQUE,
        sha bytea NOT NULL,
        api text NOT NULL,
        kind text NOT NULL DEFAULT '',
        state smallint NOT NULL CHECK (state BETWEEN 0 AND 7),
        attempts integer NOT NULL DEFAULT 0,
        first_sent double precision,
        job_id text CONSTRAINT job_id UNIQUE,
        accepted_at double precision,
        ended_at double precision,
        word text NOT NULL DEFAULT '',
        error text NOT NULL DEFAULT '',
        cost double precision,
        delivered boolean NOT NULL DEFAULT false,
        owner bigint CONSTRAINT job_owner REFERENCES ~.worker ON DELETE SET NULL,
        fence bigint NOT NULL,
        touched bigint NOT NULL,
        updated double precision NOT NULL,
        hold double precision NOT NULL DEFAULT 0,
        run text COLLATE "C" NOT NULL DEFAULT '',
        place bigint NOT NULL DEFAULT 0,
        tenant text NOT NULL DEFAULT '')
        WITH (fillfactor=70, autovacuum_vacuum_scale_factor=0.02, autovacuum_vacuum_threshold=200)""",
    # Those that are free; those that a session holds, which are freed with it; those for which an amount is held back;
    # those that may be removed one day.
    "CREATE INDEX IF NOT EXISTS job_free ON ~.job(pk) WHERE state IN (1, 2) AND owner IS NULL",
    "CREATE INDEX IF NOT EXISTS job_owned ON ~.job(owner) WHERE owner IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS job_held ON ~.job(state) WHERE hold > 0",
    "CREATE INDEX IF NOT EXISTS job_ended ON ~.job(ended_at) WHERE state IN (3, 4, 6, 7)",
    # Those of one tenant, which no statement of this library asks for: row-level security and removals do.
    "CREATE INDEX IF NOT EXISTS job_tenant ON ~.job(tenant) WHERE tenant <> ''",
    # An equal question, newest first.
    "CREATE INDEX IF NOT EXISTS job_sha ON ~.job(sha, pk)",
    """CREATE TABLE IF NOT EXISTS ~.request(
        pk bigint PRIMARY KEY REFERENCES ~.job ON DELETE CASCADE,
        body bytea NOT NULL)""",
    # enc 1 is zlib; size counts bytes before compression.
    """CREATE TABLE IF NOT EXISTS ~.result(
        pk bigint PRIMARY KEY REFERENCES ~.job ON DELETE CASCADE,
        enc smallint NOT NULL,
        size bigint NOT NULL,
        body bytea NOT NULL)""",
    # It is compressed already: the server must not try again.
    "ALTER TABLE ~.result ALTER body SET STORAGE EXTERNAL",
    # Submissions that the user replaced, or that were removed after their time: their keys, ids and bills are kept. A
    # bill that never became known counts as `hold`, what was held back for it.
    """CREATE TABLE IF NOT EXISTS ~.past(
        pk bigint NOT NULL,
        tag text,
        key text CONSTRAINT past_key UNIQUE,
        job_id text,
        api text NOT NULL,
        kind text NOT NULL DEFAULT '',
        state smallint NOT NULL,
        word text NOT NULL,
        error text NOT NULL,
        cost double precision,
        updated double precision NOT NULL,
        tenant text NOT NULL DEFAULT '',
        hold double precision NOT NULL DEFAULT 0)""",
    "CREATE INDEX IF NOT EXISTS past_pk ON ~.past(pk)",
    "CREATE INDEX IF NOT EXISTS past_job_id ON ~.past(job_id) WHERE job_id IS NOT NULL",
    """CREATE TABLE IF NOT EXISTS ~.origin(
        run text COLLATE "C" NOT NULL,
        place bigint NOT NULL,
        pk bigint NOT NULL REFERENCES ~.job ON DELETE CASCADE,
        question text NOT NULL,
        meta bytea NOT NULL,
        PRIMARY KEY (run, place))""",
    "CREATE INDEX IF NOT EXISTS origin_of ON ~.origin(pk)",
    "CREATE TABLE IF NOT EXISTS ~.learnt(name text PRIMARY KEY, value bytea NOT NULL)",
    *account.TABLES,
    f"INSERT INTO ~.account(name) VALUES ('{MONEY}') ON CONFLICT DO NOTHING",
)
"""The statements for the tables of `VERSION`."""

TABLE_NAMES = re.findall(r"CREATE TABLE IF NOT EXISTS ~\.(\w+)", "".join(TABLES))
"""Their names."""

MIGRATIONS: Mapping[int, tuple[str, ...]] = {
    1: (
        *account.GROWS,  # before the rows, as whoever counts the sums anew locks them
        "ALTER TABLE ~.job ADD COLUMN IF NOT EXISTS tenant text NOT NULL DEFAULT ''",
        "ALTER TABLE ~.past ADD COLUMN IF NOT EXISTS tenant text NOT NULL DEFAULT ''",
        "ALTER TABLE ~.past ADD COLUMN IF NOT EXISTS hold double precision NOT NULL DEFAULT 0",
        # A name is `tenant:<JSON>/...`; a JSON string ends at its first quote that no backslash stands before. Of one
        # that the server may not be able to read the column stays empty.
        r"""UPDATE ~.job SET tenant = substring(item FROM '^tenant:("(?:[^"\\]|\\.)*")/')::json #>> '{}'
        WHERE item LIKE 'tenant:%' AND tenant = '' AND regexp_match(item, '\\u(0000|d[89a-f])') IS NULL""",
        "CREATE INDEX IF NOT EXISTS job_tenant ON ~.job(tenant) WHERE tenant <> ''",
        # Long names are found by their digest now (`short_name`).
        r"""UPDATE ~.job SET item = coalesce(substring(item FROM '^tenant:"(?:[^"\\]|\\.)*"/'), '')
            || 'long:' || encode(sha256(convert_to(item, 'UTF8')), 'hex') WHERE length(item) > 1000""",
    ),
}
"""The migration from each earlier version to the next."""


def qualified(text: str, schema: str) -> str:
    """A statement with the name of the schema, which must be one of `address_of`."""
    return text.replace("~", schema)


def script(schema: str, *extra: str) -> str:
    """All tables, made in one transaction and one round trip, where they are not there yet.

    Args:
        schema: where.
        extra: statements that come last.
    """
    return qualified(";\n".join([account.lock_of(schema), account.MAKE_SCHEMA, *TABLES, *extra]), schema)
