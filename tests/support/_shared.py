"""Several processes' connections to one schema, in the place of several processes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiopplx.journal._postgres.account import SharedAccount
from aiopplx.journal._postgres.hearing import Hearing, reach
from aiopplx.journal._postgres.room import Database
from aiopplx.journal._postgres.url import address_of

KEY = "a-secret-key-of-nobody"
BASE_URL = "https://api.perplexity.ai"


class World:
    """What each of them opens, closed at the end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = address_of(url)
        self.open: list[Database] = []

    async def database(self) -> tuple[Database, Hearing]:
        database, hearing = await reach(self.address)
        self.open.append(database)
        return database, hearing

    async def account(self, key: str = KEY, base_url: str = BASE_URL) -> SharedAccount:
        database, hearing = await self.database()
        return await SharedAccount.open(database, hearing, schema=self.address.schema, base_url=base_url, key=key)


@contextlib.asynccontextmanager
async def world_at(url: str) -> AsyncIterator[World]:
    world = World(url)
    try:
        yield world
    finally:
        for database in world.open:
            await database.close()
