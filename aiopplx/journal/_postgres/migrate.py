"""Brings the tables of a journal to the version of this library, while sessions of the version before go on with it.

Each migration only adds: a column with a default, a table, an index. So the library before it works with the new tables
as well, and a deploy may have both. It runs in one transaction under a lock of its own, so that two who migrate at once
do it once. This module does not know what the tables mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from aiopplx.journal._errors import JournalAway, JournalBroken
from aiopplx.journal._postgres.account import lock_of
from aiopplx.journal._postgres.hearing import reach
from aiopplx.journal._postgres.opening import refused, unusable
from aiopplx.journal._postgres.room import Database
from aiopplx.journal._postgres.schema import MIGRATIONS, VERSION, qualified
from aiopplx.journal._postgres.tables import Tables
from aiopplx.journal._postgres.url import Address, address_of, hidden

_FOUND = "SELECT CASE WHEN to_regclass('~.meta') IS NULL THEN '' ELSE 'made' END AS is_made"
_TIMES = 5
"""How often a migration is tried again that the server has ended."""
_VERSION = "SELECT v FROM ~.meta WHERE k = 'version'"


async def migrate(
    url: str, *, migrations: Mapping[int, tuple[str, ...]] = MIGRATIONS, version: int = VERSION
) -> tuple[int, int]:
    """Migrate the journal. Returns its version before, and now.

    Args:
        url: `postgresql://user@host/database?schema=aiopplx`.
        migrations: the statements from each version to the next.
        version: the version that it has afterwards.

    Raises:
        ConfigError: that is no such URL.
        JournalAway: the server cannot be reached.
        JournalRefused: there is no journal, or it is newer than this library, or may not be changed by this user.
    """
    url = hidden(url)  # what follows may raise, and a traceback shows the variables of this frame
    address = address_of(url)
    database, _ = await reach(address)
    try:
        return await _migrate(database, address, migrations, version)
    except JournalBroken as error:
        raise unusable(address.name, error) from error
    finally:
        await database.close()


async def _migrate(
    database: Database, address: Address, migrations: Mapping[int, tuple[str, ...]], version: int
) -> tuple[int, int]:
    tables, name = Tables(database, address.schema), address.name
    if not (await tables.fetch(_FOUND))[0]["is_made"]:
        raise refused(name, "missing", "does not exist: there is no such schema with a journal's tables")
    rows = await tables.fetch(_VERSION)
    before = str(rows[0]["v"]) if rows else ""
    if not before.isdecimal():
        raise refused(name, "foreign", "is a schema of something else: it has no version of a journal")
    if int(before) > version:
        raise refused(name, "newer", f"has version {before}, and this library makes {version}: use a newer one")
    for old in range(int(before), version):
        said = f"UPDATE ~.meta SET v = '{old + 1}' WHERE k = 'version' AND v = '{old}'"
        # Whoever waited for the lock finds it done, and each statement says IF NOT EXISTS.
        await _carried_out(
            database, qualified(";\n".join([lock_of(address.schema), *migrations[old], said]), address.schema)
        )
    return int(before), version


async def _carried_out(database: Database, script: str) -> None:
    """A step of a session may lock the tables in the other order: the server then ends one of the two, to be repeated.

    The sessions do that by themselves.
    """
    for _ in range(_TIMES):
        with contextlib.suppress(JournalAway):
            return await database.execute(script)
    return await database.execute(script)
