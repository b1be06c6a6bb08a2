"""The journal's tables, version by version, as text.

Columns that change while a submission runs are in a narrow table, so that a step writes one page; data that is written
once (the request, the result) is in tables of its own. This module knows nothing of connections or of when a migration
runs.
"""

from __future__ import annotations

from collections.abc import Mapping

APPLICATION_ID = 0x6170706C
"""Distinguishes a journal from other SQLite files: "appl" in ASCII, at byte 68."""

VERSION = 3
"""The `user_version` that this library writes."""

# Where a row came from: the user's own columns (`meta`: JSON, or zlib of it; empty if there are none) by the run that
# read them last and their place in it, and the question if the submission's bytes do not have it. Several rows of a
# user's table may ask for one job. A job without a line here has its run and place in `job`, where they cost nothing.
_ORIGIN = """CREATE TABLE origin(
        run TEXT NOT NULL,
        place INTEGER NOT NULL,
        pk INTEGER NOT NULL REFERENCES job,
        question TEXT NOT NULL,
        meta BLOB NOT NULL,
        PRIMARY KEY (run, place)) WITHOUT ROWID"""
_ORIGIN_OF = "CREATE INDEX origin_of ON origin(pk)"
# What a session has learnt (limits, durations), for the next: opaque to the journal.
_LEARNT = "CREATE TABLE learnt(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"

SCHEMA = (
    # base_url, account, salt, created, made_by; epoch counts openings; clean is 1 after a proper close; unread is 1
    # while the source of the questions is not exhausted; log is the mark by which the file knows its log (`log`).
    "CREATE TABLE meta(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
    """CREATE TABLE job(
        pk INTEGER PRIMARY KEY,
        item TEXT NOT NULL UNIQUE,
        tag TEXT,
        key TEXT UNIQUE,
        sha BLOB NOT NULL,
        api TEXT NOT NULL,
        kind TEXT NOT NULL DEFAULT '',
        state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 7),
        attempts INTEGER NOT NULL DEFAULT 0,
        first_sent REAL,
        job_id TEXT UNIQUE,
        accepted_at REAL,
        ended_at REAL,
        word TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '',
        cost REAL,
        delivered INTEGER NOT NULL DEFAULT 0,
        touched INTEGER NOT NULL,
        updated REAL NOT NULL,
        run TEXT NOT NULL DEFAULT '',
        place INTEGER NOT NULL DEFAULT 0)""",
    "CREATE TABLE request(pk INTEGER PRIMARY KEY REFERENCES job, body BLOB NOT NULL)",
    # enc 1 is zlib; size counts bytes before compression.
    """CREATE TABLE result(
        pk INTEGER PRIMARY KEY REFERENCES job,
        enc INTEGER NOT NULL,
        size INTEGER NOT NULL,
        body BLOB NOT NULL)""",
    # Submissions that the user replaced by another, under a new key: their keys, ids and bills are kept.
    """CREATE TABLE past(
        pk INTEGER NOT NULL REFERENCES job,
        key TEXT UNIQUE,
        job_id TEXT,
        api TEXT NOT NULL,
        kind TEXT NOT NULL DEFAULT '',
        state INTEGER NOT NULL,
        word TEXT NOT NULL,
        error TEXT NOT NULL,
        cost REAL,
        updated REAL NOT NULL)""",
    _ORIGIN,
    _ORIGIN_OF,
    _LEARNT,
)
"""The statements for a new journal of `VERSION`."""

MIGRATIONS: Mapping[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE job RENAME COLUMN taken TO delivered",
        "ALTER TABLE job ADD COLUMN kind TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE job ADD COLUMN ended_at REAL",
        "ALTER TABLE past ADD COLUMN kind TEXT NOT NULL DEFAULT ''",
        _ORIGIN,
        _ORIGIN_OF,
        _LEARNT,
        "INSERT INTO meta(k, v) VALUES ('log', (random() & 1099511627775) * 2)",
        "UPDATE job SET kind = kind_of(api, (SELECT body FROM request WHERE request.pk = job.pk))",
        "UPDATE past SET kind = kind_of(api, (SELECT body FROM request WHERE request.pk = past.pk))",
        # Delivering a row moved `updated` on, so for delivered rows the moment is not known.
        "UPDATE job SET ended_at = updated WHERE state IN (3, 4, 6, 7) AND NOT delivered",
    ),
    2: (
        "ALTER TABLE job ADD COLUMN run TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE job ADD COLUMN place INTEGER NOT NULL DEFAULT 0",
    ),
}
"""The migration from each earlier version to the next. `kind_of(api, body)` is a function of the connection."""

READ_AS: Mapping[int, tuple[str, ...]] = {
    1: (
        "CREATE TEMP VIEW job AS SELECT *, taken AS delivered, kind_of(api, (SELECT body FROM request WHERE"
        " request.pk = j.pk)) AS kind, NULL AS ended_at, '' AS run, 0 AS place FROM main.job j",
        "CREATE TEMP VIEW origin AS SELECT '' AS run, 0 AS place, 0 AS pk, '' AS question, x'' AS meta WHERE 0",
        "CREATE TEMP VIEW past AS SELECT *, kind_of(api, (SELECT body FROM request WHERE request.pk = p.pk)) AS kind"
        " FROM main.past p",
        "CREATE TEMP VIEW learnt AS SELECT '' AS name, x'' AS value WHERE 0",
    ),
    2: ("CREATE TEMP VIEW job AS SELECT *, '' AS run, 0 AS place FROM main.job",),
}
"""Views of the reader's connection, under which an older file looks like one of `VERSION` without being changed."""

_FIRST = ("meta", "job", "request", "past")
_ALL = (*_FIRST, "origin", "learnt")
TABLES: Mapping[int, tuple[str, ...]] = {1: _FIRST, 2: _ALL, 3: _ALL}
"""The tables to check after an improper end, by version. Results have checksums of their own, and are many times as
large."""
