"""From a URL to a trusted schema: a new journal, or one that is of this account and that this library knows.

One that is not is refused, with the reason, and left unchanged. A session enters by what it has seen of the journal,
one after the other: of two that begin it with different keys, the second is refused. This module does not know what
the rows mean.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from aiopplx._events import log
from aiopplx._version import __version__
from aiopplx.journal._errors import JournalAway, JournalBroken, JournalError, JournalRefused, Reason
from aiopplx.journal._postgres.hearing import DEAF, Hearing, reach
from aiopplx.journal._postgres.holding import Held
from aiopplx.journal._postgres.room import Database
from aiopplx.journal._postgres.schema import TABLE_NAMES, VERSION, script
from aiopplx.journal._postgres.statements import STANDING
from aiopplx.journal._postgres.tables import Tables
from aiopplx.journal._postgres.url import Address
from aiopplx.journal._records import Results

_IS_MADE = "SELECT to_regclass('~.meta') IS NOT NULL AS is_made"
# What the tables are made for is tried only later, by a step at a time: a right that is missing then looks like one
# that was taken away for a while.
_MISSING = f"""
    SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('~') AND CASE
        WHEN relkind = 'S' THEN relname = 'fence' AND NOT has_sequence_privilege(oid, 'USAGE')
        WHEN relname = ANY('{{{",".join(TABLE_NAMES)}}}') THEN NOT (
            has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
            AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
        END ORDER BY relname"""
_TIMES = 20
"""How often a session looks again, while others begin the same journal or close it."""


class Wanted(NamedTuple):
    """What the journal must match, or is made with.

    Attributes:
        base_url: the server, `""` to accept the journal's.
        account: a function from the journal's salt to the fingerprint of the API key; None to accept the journal's.
        same_account: accept the key as a new one of the same account, and keep its fingerprint.
        results: how long results are kept.
    """

    base_url: str
    account: Callable[[bytes], str] | None
    same_account: bool
    results: Results


def refused(name: str, reason: Reason, what: str, *, remedy: str = "") -> JournalRefused:
    """The error for a journal that is not opened."""
    return JournalRefused(
        f"the journal {name} {what}. Nothing was changed in it", path=name, reason=reason, remedy=remedy
    )


# --- connections -----------------------------------------------------------------------------------------------------


async def connect(address: Address) -> tuple[Database, Hearing]:
    """The database, and what is heard from it. Raises `JournalAway` or `JournalRefused`."""
    try:
        database, hearing = await reach(address)
    except JournalBroken as error:
        raise unusable(address.name, error) from error
    if not hearing.hears:
        log(logging.WARNING, "%s: %s", address.name, DEAF)
    return database, hearing


# --- what is there ---------------------------------------------------------------------------------------------------


async def open_to_write(held: Held, name: str, wanted: Wanted) -> None:
    """Make the tables if they are not there, check whose they are, and enter.

    Raises:
        JournalAway: the server was lost, or others come and go too fast.
        JournalRefused: the journal is not for this session.
    """
    try:
        if not (await held.fetch(_IS_MADE))[0]["is_made"]:
            await held.database.execute(script(held.schema, _first()))
        elif missing := await held.fetch(_MISSING):
            raise _without_rights(name, held.schema, [row["relname"] for row in missing])
        for _ in range(_TIMES):
            meta = await _meta(held)
            check_version(meta, name)
            if await held.enter(meta, _agreed(meta, name, wanted)):
                return
    except JournalBroken as error:
        raise unusable(name, error) from error
    raise JournalAway(f"the sessions of the journal {name} come and go too fast to open it: try it again", path=name)


def _without_rights(name: str, schema: str, tables: Sequence[str]) -> JournalRefused:
    return refused(
        name,
        "unusable",
        f"may not be written by this user, who lacks rights to {', '.join(tables)}",
        remedy=f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO the user, and GRANT USAGE ON"
        f" ALL SEQUENCES IN SCHEMA {schema}; or let it own the schema",
    )


async def open_to_read(database: Database, address: Address) -> None:
    """Check that there is a journal of a version that is known. Raises `JournalRefused`."""
    check_version(await _meta_of(database, address), address.name)


async def _meta_of(database: Database, address: Address) -> dict[str, str]:
    tables, name = Tables(database, address.schema), address.name
    try:
        is_made = (await tables.fetch(_IS_MADE))[0]["is_made"]
        meta = await _meta(tables) if is_made else {}
    except JournalBroken as error:
        raise unusable(name, error) from error
    if not is_made:
        raise refused(name, "missing", "does not exist: there is no such schema with a journal's tables")
    return meta


async def _meta(tables: Tables) -> dict[str, str]:
    return {row["k"]: row["v"] for row in await tables.fetch(STANDING)}


def check_version(meta: Mapping[str, str], name: str) -> None:
    """Raises `JournalRefused` for tables that this library cannot work with."""
    found = meta.get("version", "")
    if not found.isdecimal():
        raise refused(name, "foreign", "is a schema of something else: it has no version of a journal")
    if int(found) > VERSION + 1:
        raise refused(
            name,
            "newer",
            f"has version {found}, and this library works with {VERSION} and {VERSION + 1}: use a newer one",
        )
    if int(found) < VERSION:
        raise refused(
            name,
            "older",
            f"has version {found}, and this library needs {VERSION}",
            remedy="aiopplx journal migrate URL migrates it, while the sessions of the version before go on",
        )


def _first() -> str:
    """The first lines of a new journal."""
    made_by = __version__.replace("'", "")
    values = {
        "version": f"'{VERSION}'",
        "salt": f"'{secrets.token_hex(16)}'",
        "made_by": f"'{made_by}'",
        "created": "extract(epoch FROM clock_timestamp())::text",
    }
    lines = ", ".join(f"('{k}', {v})" for k, v in values.items())
    return f"INSERT INTO ~.meta(k, v) VALUES {lines} ON CONFLICT DO NOTHING"


def _agreed(seen: Mapping[str, str], name: str, wanted: Wanted) -> dict[str, str]:
    """What the journal is to say of itself from now on, where it does not. Raises `JournalRefused`."""
    meta = dict(seen)
    if meta["is_used"] == "false" and meta["is_open"] == "false":
        # Made with a mistyped key or address, and nothing was submitted: it has no owner yet.
        meta.pop("base_url", None)
        meta.pop("account", None)
    if wanted.base_url and meta.get("base_url") and meta["base_url"] != wanted.base_url:
        raise refused(
            name, "base_url", f"belongs to {meta['base_url']}, not to {wanted.base_url}: use another schema for it"
        )
    account = wanted.account(bytes.fromhex(meta["salt"])) if wanted.account is not None else ""
    if account and meta.get("account") and meta["account"] != account and not wanted.same_account:
        raise refused(
            name,
            "account",
            "was created with another API key. Jobs of another account cannot be found: use another schema",
            remedy="If this is a new key of the same account, open it once with same_account=True",
        )
    if meta["is_open"] == "true" and meta.get("results", wanted.results) != wanted.results:
        raise refused(
            name,
            "unusable",
            f"is open, and keeps results otherwise ({meta['results']}): its sessions must agree on that",
        )
    agreed = {"base_url": wanted.base_url, "account": account, "results": wanted.results}
    return {k: v for k, v in agreed.items() if v and seen.get(k) != v}


def unusable(name: str, error: JournalError) -> JournalRefused:
    """The error for a server that refuses a statement of the opening."""
    return JournalRefused(
        f"the journal {name} cannot be opened: {error}",
        path=name,
        reason="unusable",
        remedy="The user needs CREATE on the database for a new schema, and for one that is there all rights in it",
    )
