"""The room's calls by asyncpg: the only module that imports it.

Connections
-----------
A session has at most three: a pool of two for statements, and one that listens. The pool opens them when they are
needed, and a connection that was lost is thrown away with the statement that was on it. asyncpg says some losses with
errors of its own that are of no class of PostgreSQL's (`InternalClientError`; asyncpg#1069), so every error without an
SQLSTATE counts as a loss. The one that listens is opened anew for as long as the database is open, and each time the
listener is told that it may have missed something.

No connection has a state that another one lacks (no `SET`, no advisory lock of a session, no prepared statement by
name before `prepare_by_name`): behind a pooler, the next statement may meet another one.

This module knows nothing of tables, or of what is listened for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, cast

import asyncpg

from aiopplx._events import log
from aiopplx._waiting import until_done
from aiopplx.journal._errors import JournalAway, JournalBroken, JournalClosed, JournalRefused
from aiopplx.journal._postgres.room import Heard, Row, Taken, Value, error_of
from aiopplx.journal._postgres.url import Address

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

POOL = 2
"""Connections for statements. One more listens."""
CONNECT, COMMAND, CLOSE = 10.0, 30.0, 3.0
"""Real seconds for a connection, for one statement, and for closing."""
FIRST_RETRY, LAST_RETRY = 0.1, 1.0
"""Real seconds before the connection that listens is opened anew: doubled from the first to the last. A session that
comes back later than others after an outage may be taken for dead by these."""
LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)
"""What a connection that cannot be made, or was lost, comes to."""
CONSTRAINTS = frozenset({"23505", "23503"})
"""Something that may be there once, and something that is not there (any more)."""


class _Words(TypedDict):
    """What asyncpg is told of each connection."""

    host: str | None
    port: int
    user: str | None
    password: Callable[[], str] | None
    database: str | None
    ssl: ssl.SSLContext | bool
    timeout: float
    command_timeout: float
    statement_cache_size: int


class AsyncpgDatabase:
    """A `Database`.

    Args:
        address: where it is.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._has_cache = False
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._direct: asyncpg.Connection[asyncpg.Record] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._is_closed = False
        self._is_open = False

    async def prepare_by_name(self) -> None:
        """From now on statements are prepared by name, once for each connection, which saves a round trip.

        Not to be called behind a pooler that gives each transaction another connection: the names of two processes are
        the same.
        """
        self._has_cache = True
        if self._pool is not None:
            await self._pool.expire_connections()  # those that were made without

    # --- statements --------------------------------------------------------------------------------------------------

    async def fetch(self, sql: str, *values: Value) -> list[Row]:
        """See `Database`."""
        async with self._connection() as connection:
            return cast("list[Row]", await connection.fetch(sql, *values))

    async def execute(self, sql: str, *values: Value) -> None:
        """See `Database`."""
        async with self._connection() as connection:
            await connection.execute(sql, *values)

    async def many(self, *statements: tuple[str, Sequence[Value]]) -> list[Row]:
        """See `Database`."""
        *before, (last, given) = statements
        async with self._connection() as connection, connection.transaction():
            for sql, values in before:
                await connection.execute(sql, *values)
            return cast("list[Row]", await connection.fetch(last, *given))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncGenerator[PoolConnectionProxy[asyncpg.Record]]:
        if self._is_closed:
            raise JournalClosed("the journal is closed", path=self._address.name)
        async with self._errors():
            if self._pool is None:
                # Opens nothing yet, so two that come here at once make one pool.
                self._pool = asyncpg.create_pool(min_size=0, max_size=POOL, reset=_as_it_is, connect=self._new)
                await self._pool
            async with self._pool.acquire(timeout=COMMAND) as connection:
                yield connection

    async def _new(self, *_: object, **__: object) -> asyncpg.Connection[asyncpg.Record]:
        """A new connection, made in a task of its own; the pool has nothing to say about it.

        The frames of the driver have the password among their variables: neither an error nor a cancellation carries
        them on.
        """
        making = asyncio.ensure_future(asyncpg.connect(**self._words()))
        try:
            await asyncio.wait([making])
        except asyncio.CancelledError:
            making.add_done_callback(_not_wanted)
            making.cancel()
            raise
        error = making.exception()
        if error is not None:
            raise _without_frames(error)
        return making.result()

    @contextlib.asynccontextmanager
    async def _errors(self) -> AsyncGenerator[None]:
        name = self._address.name
        try:
            yield
        except asyncpg.PostgresError as error:
            _without_frames(error)
            code = str(error.sqlstate or "")
            if code in CONSTRAINTS:
                raise Taken(str(getattr(error, "constraint_name", "") or "")) from error
            raise error_of(code, _said(error), name=name, is_open=self._is_open) from error
        except LOST as error:
            _without_frames(error)
            if self._is_closed:
                raise JournalClosed("the journal is closed", path=name) from error
            if isinstance(error, ssl.SSLCertVerificationError) and not self._is_open:
                raise JournalRefused(
                    f"the server of the journal {name} has no certificate that can be trusted: {error.verify_message}",
                    path=name,
                    reason="unusable",
                    remedy="Give its authority as sslrootcert=ca.pem in the URL",
                ) from error
            if isinstance(error, asyncpg.exceptions.DataError):
                raise JournalBroken(f"a value does not fit into the journal {name}: {error}", path=name) from error
            raise error_of("", _said(error), name=name, is_open=self._is_open) from error
        except JournalRefused as error:  # of the certificates of this machine
            if self._is_open:
                raise JournalAway(error.message, path=name) from error
            raise

    # --- the connection that listens ---------------------------------------------------------------------------------

    async def listen(self, channel: str, heard: Heard) -> None:
        """See `Database`. Raises if the first connection cannot be made; later losses are made good in a task."""
        async with self._errors():
            lost = await self._connect(channel, heard)
        self._listening = asyncio.create_task(self._stay(channel, heard, lost), name="aiopplx listens")

    async def beat(self, sql: str, *values: Value) -> list[Row]:
        """See `Database`."""
        connection = self._direct
        if connection is None:
            raise JournalAway(f"the database {self._address.name} cannot be reached", path=self._address.name)
        async with self._errors():
            try:
                return cast("list[Row]", await connection.fetch(sql, *values))
            except BaseException:
                # Also when it is not waited for any more: a server that is gone says nothing for a quarter of an hour.
                connection.terminate()  # its state is not known; `_stay` makes another
                raise

    async def _connect(self, channel: str, heard: Heard) -> asyncio.Event:
        connection = await self._new()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())

        def notified(_: object, pid: int, on: str, said: object) -> None:
            heard(str(said))

        try:
            await connection.add_listener(channel, notified)
        except BaseException:
            connection.terminate()
            raise
        self._direct = connection
        return lost

    async def _stay(self, channel: str, heard: Heard, lost: asyncio.Event) -> None:
        retry = FIRST_RETRY
        while True:
            await lost.wait()
            self._direct = None
            await asyncio.sleep(retry)
            try:
                lost = await self._connect(channel, heard)
            except Exception as error:
                if not isinstance(
                    error, (*LOST, JournalRefused)
                ):  # a fault of ours or of the driver: another try all the same
                    log(logging.ERROR, "connecting to the database failed unexpectedly: %s", type(error).__name__)
                retry = min(LAST_RETRY, retry * 2.0)
                lost.set()
                continue
            retry = FIRST_RETRY
            try:
                heard("")
            except Exception:
                log(logging.ERROR, "whoever listens failed unexpectedly", exc_info=True)

    # --- opening and closing -----------------------------------------------------------------------------------------

    def _words(self) -> _Words:
        address = self._address
        return {
            "host": address.host or None,
            "port": address.port,
            "user": address.user or None,
            # A function too: the connection that is made keeps what it was given.
            "password": address.password,
            "database": address.database or None,
            "ssl": tls_of(address),
            "timeout": CONNECT,
            "command_timeout": COMMAND,
            "statement_cache_size": 100 if self._has_cache else 0,
        }

    def opened(self) -> None:
        """See `Database`."""
        self._is_open = True

    async def close(self) -> None:
        """See `Database`. If this caller is cancelled, closing goes on, and it is waited for all the same."""
        if self._closing is None:
            self._is_closed = True
            self._closing = asyncio.create_task(self._close(), name="aiopplx closes a database")
        cancelled = await until_done([self._closing], 4.0 * CLOSE)
        if cancelled is not None:
            raise cancelled
        if self._closing.done():
            self._closing.result()

    async def _close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening], timeout=CLOSE)
        direct, self._direct = self._direct, None
        if direct is not None:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await direct.close(timeout=CLOSE)
        if self._pool is not None:
            try:
                async with asyncio.timeout(CLOSE):
                    await self._pool.close()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                self._pool.terminate()


def tls_of(address: Address) -> ssl.SSLContext | bool:
    """How the connection is encrypted; False if it is not. Raises `JournalRefused` for certificates not to be read."""
    if address.sslmode == "disable":
        return False
    try:
        context = ssl.create_default_context(cafile=address.sslrootcert or None)
    except OSError as error:
        raise JournalRefused(
            f"the certificates {address.sslrootcert} of the journal cannot be read: {error}",
            path=address.name,
            reason="unusable",
        ) from error
    if address.sslmode != "verify-full":
        context.check_hostname = False
    if address.sslmode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


async def _as_it_is(connection: object) -> None:
    """No connection has a state that the next user would have to be rid of, so nothing is reset."""


def _not_wanted(making: asyncio.Task[asyncpg.Connection[asyncpg.Record]]) -> None:
    """Whoever wanted this connection is gone."""
    if not making.cancelled() and making.exception() is None:
        making.result().terminate()


def _without_frames(error: BaseException) -> BaseException:
    """The same error without the frames of the driver, in which the password and the questions can be read."""
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += [one.__cause__, one.__context__]
    return error


def _said(error: BaseException) -> str:
    said: Any = getattr(error, "message", None) or str(error)
    return str(said).split("\n", 1)[0] or type(error).__name__
