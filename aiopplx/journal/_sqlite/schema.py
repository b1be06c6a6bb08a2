"""The journal's tables, version by version, as text.

Columns that change while a submission runs are in a narrow table, so that a step writes one page; data that is written
once (the request, the result) is in tables of its own. This module knows nothing of connections or of when a migration
runs.
"""

from __future__ import annotations

from collections.abc import Mapping

APPLICATION_ID = 0x6170706C
"""Distinguishes a journal from other SQLite files: "appl" in ASCII, at byte 68."""

VERSION = 1
"""The `user_version` that this library writes."""

SCHEMA = (
    # base_url, account, salt, created, made_by; epoch counts openings; clean is 1 after a proper close; unread is 1
    # while the source of the questions is not exhausted.
    "CREATE TABLE meta(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
    """CREATE TABLE job(
        pk INTEGER PRIMARY KEY,
        item TEXT NOT NULL UNIQUE,
        tag TEXT,
        key TEXT UNIQUE,
        sha BLOB NOT NULL,
        api TEXT NOT NULL,
        state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 7),
        attempts INTEGER NOT NULL DEFAULT 0,
        first_sent REAL,
        job_id TEXT UNIQUE,
        accepted_at REAL,
        word TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '',
        cost REAL,
        taken INTEGER NOT NULL DEFAULT 0,
        touched INTEGER NOT NULL,
        updated REAL NOT NULL)""",
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
        state INTEGER NOT NULL,
        word TEXT NOT NULL,
        error TEXT NOT NULL,
        cost REAL,
        updated REAL NOT NULL)""",
)
"""The statements for a new journal of `VERSION`."""

MIGRATIONS: Mapping[int, tuple[str, ...]] = {}
"""The migration from each earlier version to the next. Version 1 is the first."""

TABLES = ("meta", "job", "request", "past")
"""The tables to check after an improper end. Results have checksums of their own, and are many times as large."""
