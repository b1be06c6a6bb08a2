"""A database that was reached, and what is heard from it: one channel, and several who listen for a word of theirs.

What is said on the channel of a schema begins with a word and a colon: `c:` says that an account is to be silent. Each
listener is called with what follows its own word, and with `""` when something may have been missed.

Behind a pooler that gives each transaction another connection nothing is ever heard, without an error. So a session
says something to itself at the beginning. If it does not hear that within a second it says so once, looks from time to
time instead, and prepares no statement by name, which such a pooler breaks as well; nor does it before it knows.

This module knows nothing of what is said, or of tables.
"""

from __future__ import annotations

import asyncio
import secrets

from aiopplx.journal._postgres.room import Database, Heard
from aiopplx.journal._postgres.url import Address

SELF_TEST = 1.0
"""Real seconds in which what a session says to itself must be heard."""
LOOK = 1.0
"""Seconds between two looks where nothing is heard."""
DEAF = (
    "the connection to PostgreSQL hears no notifications, probably because of a pooler in transaction mode: what other"
    " sessions do is looked for each second instead"
)
"""What is said, once, of a database from which nothing is heard."""


def channel_of(schema: str) -> str:
    """The channel on which the sessions of a schema speak to each other."""
    return f"aiopplx_{schema}"


class Hearing:
    """Who listens for which word.

    Attributes:
        channel: on which is spoken.
        hears: whether anything is heard at all.
    """

    def __init__(self, channel: str) -> None:
        self.channel: str = channel
        self.hears: bool = False
        self._of: dict[str, Heard] = {}
        self._own: tuple[str, asyncio.Event] = ("", asyncio.Event())

    def on(self, word: str, heard: Heard) -> None:
        """Call `heard` with what follows this word and its colon, and with `""` when some may have been missed."""
        self._of[word] = heard

    def off(self, word: str) -> None:
        """Call whoever listens for this word no more."""
        self._of.pop(word, None)

    def __call__(self, said: str) -> None:
        """Something was said; `""` if some of it may have been missed."""
        if not said:
            for heard in [*self._of.values()]:
                heard("")
            return
        if said == self._own[0]:
            self._own[1].set()
            return
        word, _, rest = said.partition(":")
        listener = self._of.get(word)
        if listener is not None and rest:
            listener(rest)

    async def begin(self, database: Database) -> bool:
        """Listen, and say something to oneself. Returns whether it was heard. Raises `JournalAway`."""
        await database.listen(self.channel, self)
        self._own = (f"test:{secrets.token_hex(8)}", asyncio.Event())
        await database.execute(f"SELECT pg_notify('{self.channel}', '{self._own[0]}')")
        try:
            async with asyncio.timeout(SELF_TEST):
                await self._own[1].wait()
        except TimeoutError:
            return False
        self.hears = True
        return True


async def reach(address: Address) -> tuple[Database, Hearing]:
    """Connect to a database, and listen on the channel of its schema.

    Raises:
        JournalAway: it cannot be reached.
        JournalRefused: it lets nobody in.
    """
    from aiopplx.journal._postgres.driver import AsyncpgDatabase  # loaded only for those who use PostgreSQL

    hearing = Hearing(channel_of(address.schema))
    database = AsyncpgDatabase(address)
    try:
        if await hearing.begin(database):
            await database.prepare_by_name()
    except BaseException:
        await database.close()
        raise
    return database, hearing
