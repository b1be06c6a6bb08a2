"""A raw server on a loopback socket, for every misbehaviour that an HTTP server cannot be made to show.

It reads HTTP/1.1 requests and answers each with a scripted behaviour, a value that says which bytes are sent and how
the connection ends. It knows nothing of jobs.

    async with WireServer([Cut(b'{"id": "1"}'), Say(body=b'{"id": "1"}')]) as wire:
        print(wire.url)  # the first request there gets half a body, every later one a whole
        print(wire.requests)  # so far
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import Literal, Self, TypeAlias

from aiopplx.emulator._behaviours import (
    BAD_CHUNK,
    BAD_GZIP,
    BAD_HEADER,
    GARBAGE,
    HUGE_HEADER,
    INTERIM_ONLY,
    LENGTH_AND_CHUNKED,
    MANY_HEADERS,
    OK,
    TWO_LENGTHS,
    Behaviour,
    Body,
    Bytes,
    Close,
    Cut,
    Drip,
    Extra,
    Reset,
    Say,
    Silent,
    WireRequest,
    answer,
    cut_short,
    made,
)
from aiopplx.emulator._send import accept_no_more, end
from aiopplx.emulator._watching import Watchers

__all__ = [
    "BAD_CHUNK",
    "BAD_GZIP",
    "BAD_HEADER",
    "GARBAGE",
    "HUGE_HEADER",
    "INTERIM_ONLY",
    "LENGTH_AND_CHUNKED",
    "MANY_HEADERS",
    "TWO_LENGTHS",
    "Behaviour",
    "Body",
    "Bytes",
    "Close",
    "Cut",
    "Drip",
    "Extra",
    "Reset",
    "Say",
    "Script",
    "Silent",
    "WireRequest",
    "WireServer",
]

_HOST = "127.0.0.1"
_HEAD_LIMIT = 1024 * 1024


Script: TypeAlias = Sequence[Behaviour] | Callable[[WireRequest], Behaviour]
"""What a server does with each request: one behaviour after the other, or what decides by the request."""


class WireServer:
    """A server on 127.0.0.1 that follows a script.

    Args:
        script: with a list each request gets the next behaviour, over all connections, and the last one is repeated; a
            function is called with each complete request. Behaviours at the moment `connect`, and
            `Silent(read=False)`, work only in a list, where they are used up when a connection opens.
        port: 0, the default, picks a free one.
        max_requests: a connection is closed, unannounced, after this many answers.
        idle: a connection is closed, unannounced, after this many seconds without a request.
        ssl: makes it speak TLS with this context.

    Attributes:
        requests: every complete request, in order.
        connections: how many were opened.
        partial: how many requests broke off before they were complete.
    """

    def __init__(
        self,
        script: Script,
        *,
        port: int = 0,
        max_requests: int | None = None,
        idle: float | None = None,
        ssl: ssl.SSLContext | None = None,
    ) -> None:
        if not callable(script) and not script:
            raise ValueError("a script needs at least one behaviour")
        self.port: int = port
        self.requests: list[WireRequest] = []
        self.connections: int = 0
        self.partial: int = 0
        self._script = script
        self._step = 0
        self._max_requests = max_requests
        self._idle = idle
        self._ssl = ssl
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers = Watchers()

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"{'https' if self._ssl else 'http'}://{_HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, _HOST, self.port, limit=_HEAD_LIMIT, ssl=self._ssl, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        try:
            await accept_no_more(*(listening.fileno() for listening in server.sockets))
        finally:
            server.close()
            self._end_tasks()
        await asyncio.sleep(0)  # a connection that was just accepted gets its task
        # Tasks end before wait_closed: from Python 3.12 on it waits for the connections that they hold.
        self._end_tasks()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits until a condition holds: `await wire.until(lambda: len(wire.requests) == 2)`. So a test needs no sleep.

        It is checked at once, and whenever a connection is opened or a request was read. There is no time limit but
        the caller's own.
        """
        await self._watchers.until(true)

    # --- which behaviour

    def _scripted(self) -> Behaviour | None:
        """The next behaviour of a list, without using it up; None if the script is a function."""
        return None if callable(self._script) else self._script[min(self._step, len(self._script) - 1)]

    def _at_connect(self) -> Behaviour | None:
        """The next behaviour if it acts before anything is read; it is then used up."""
        scripted = self._scripted()
        match scripted:
            case Reset(when="connect") | Close(when="connect") | Silent(read=False):
                self._step += 1
                return scripted
            case _:
                return None

    def _at_head(self) -> Behaviour | None:
        """The next behaviour if it acts before the body is read; it is then used up."""
        scripted = self._scripted()
        match scripted:
            case Reset(when="head") | Close(when="head"):
                self._step += 1
                return scripted
            case _:
                return None

    def _at_request(self, request: WireRequest) -> Behaviour:
        if callable(self._script):
            return self._script(request)
        chosen = self._script[min(self._step, len(self._script) - 1)]
        self._step += 1
        return chosen

    # --- one connection

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine function: the task is then ours to cancel, and its error is not reported by asyncio.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, self.connections))
        self.connections += 1
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Needed when the task was cancelled before its first step, so that its own cleanup never ran.
        task.add_done_callback(lambda _: writer.close())
        self._watchers.notify()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        reset = False
        try:
            reset = await self._converse(reader, writer, connection)
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            # The client disconnected, or did not speak HTTP: nothing is left to do.
            self.partial += 1
        finally:
            # Asked before the end: the TLS transport of a client that has gone forgets its buffers when it is closed.
            is_unsent = writer.transport.get_write_buffer_size() > 0
            end(writer.transport, reset=reset)
            # Closing in the middle of a flood would wait for a client that does not read.
            if is_unsent and not reset:
                with contextlib.suppress(OSError, TimeoutError):
                    await asyncio.wait_for(writer.wait_closed(), 1.0)
                writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> bool:
        """Answers requests until the connection ends; True if it is to be reset."""
        early = self._at_connect()
        if early is not None:
            return await self._act(early, None, reader, writer) == "reset"
        number = 0
        while True:
            head = await self._head(reader)
            if not head:
                return False
            early = self._at_head()
            if early is not None:
                self.partial += 1
                return isinstance(early, Reset)
            request = await _whole(head, reader, connection, number)
            self.requests.append(request)
            self._watchers.notify()
            how = await self._act(self._at_request(request), request, reader, writer)
            number += 1
            if how != "stay" or number == self._max_requests:
                return how == "reset"

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        """The bytes up to the empty line; b"" if the client has closed, or was idle for too long."""
        try:
            return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self._idle)
        except TimeoutError:
            return b""
        except asyncio.IncompleteReadError as broken:
            self.partial += bool(broken.partial)
            return b""

    async def _act(
        self,
        behaviour: Behaviour,
        request: WireRequest | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> Literal["stay", "close", "reset"]:
        """Carries out a behaviour; returns what happens to the connection."""
        match behaviour:
            case Reset():
                return "reset"
            case Close():
                return "close"
            case Silent(read=read):
                await _until_gone(reader if read else None)
                return "close"
            case Drip():
                await _drip(behaviour, made(behaviour.body, request), writer)
                return "close"
            case Say():
                return await self._say(behaviour, made(behaviour.body, request), reader, writer)
            case Extra():
                await _write(writer, answer(200, made(behaviour.body, request)) + answer(200, behaviour.extra))
                return "stay"
            case Bytes(data=data, keep_open=keep_open):
                await _write(writer, data)
                return "stay" if keep_open else "close"
            case Cut():
                await _write(writer, cut_short(behaviour, made(behaviour.body, request)))
                return "reset" if behaviour.reset else "close"

    async def _say(
        self, say: Say, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Literal["stay", "close"]:
        if say.delay:
            await asyncio.sleep(say.delay)
        headers = (*say.headers, ("Connection", "close")) if say.close else say.headers
        await _write(writer, answer(say.status, body, headers))
        if say.close_after is None:
            return "close" if say.close else "stay"
        # Nothing is read meanwhile: a request that arrives now meets a closing connection, which is the race.
        await asyncio.sleep(say.close_after)
        return "close"


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _drip(drip: Drip, body: bytes, writer: asyncio.StreamWriter) -> None:
    data = OK + b"Content-Length: %d\r\n\r\n" % drip.size + body.ljust(drip.size)
    start = 0
    if drip.part == "body":
        start = data.index(b"\r\n\r\n") + 4
        await _write(writer, data[:start])
    for at in range(start, len(data)):
        await _write(writer, data[at : at + 1])
        await asyncio.sleep(drip.every)


async def _until_gone(reader: asyncio.StreamReader | None) -> None:
    """Waits until the client closes; for ever if nothing is read, since the close is then not noticed."""
    if reader is None:
        await asyncio.get_running_loop().create_future()
    while reader is not None and await reader.read(65536):
        pass


async def _whole(head: bytes, reader: asyncio.StreamReader, connection: int, number: int) -> WireRequest:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body, raw = b"", b""
    if "chunked" in headers.get("transfer-encoding", ""):
        body, raw = await _chunked(reader)
    elif "content-length" in headers:
        body = raw = await reader.readexactly(int(headers["content-length"]))
    return WireRequest(connection, number, method, path, headers, body, head + raw)


async def _chunked(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """(body, the raw bytes)."""
    body, raw = b"", b""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        chunk = await reader.readexactly(size + 2)
        body, raw = body + chunk[:size], raw + line + chunk
        if not size:
            return body, raw
