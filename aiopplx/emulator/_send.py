"""Requests in from a socket and answers out: the only module of the emulator that touches one.

It knows nothing of how an answer is chosen.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from email.utils import formatdate

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from aiopplx.emulator._clock import Time
from aiopplx.emulator._exchange import Ending, Reply

_CHUNK = 64 * 1024
_SPACES = b" " * _CHUNK
_SERVER = "aiopplx-emulator"
_LARGEST_REQUEST = 32 * 1024 * 1024


class _Own(logging.Filter):
    """Passes what went wrong here. A request that is not HTTP is its sender's fault, and is answered with a 400."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a mistake of the client's."""
        problem = record.exc_info[1] if record.exc_info else None
        return not isinstance(problem, HttpProcessingError | web.RequestPayloadError)


QUIET = logging.getLogger("aiopplx.emulator")
QUIET.addFilter(_Own())
"""Where aiohttp writes what it could not handle: its own logger has a traceback for each malformed request."""


class Sender:
    """Sends answers. `closing` is set when the server ends, which ends every wait. Delays run on `time`."""

    def __init__(self, closing: asyncio.Event, time: Time, *, compress: bool) -> None:
        self._closing = closing
        self._time = time
        self._compress = compress
        self._second = 0
        self._date = ""

    def _dated(self, now: float) -> str:
        # Formatted once a second, since every answer carries it.
        if int(now) != self._second:
            self._second = int(now)
            self._date = formatdate(now, usegmt=True)
        return self._date

    async def _pause(self, seconds: float) -> None:
        with self._time.idle():
            await self._time.wait(self._closing, seconds)

    async def send(self, request: web.BaseRequest, reply: Reply, now: float, ray: int) -> web.StreamResponse:
        """Sends the answer. `now` is emulated time, for the `Date` header; `ray` numbers the request."""
        if reply.delay:
            await self._pause(reply.delay)
        if reply.ending in (Ending.CLOSE, Ending.RESET, Ending.HANG):
            end(request.transport, reset=reply.ending is Ending.RESET)
            return web.Response()
        headers = {
            "Content-Type": reply.content_type,
            "Date": self._dated(now),
            "Server": _SERVER,
            "cf-ray": f"{ray:016x}-EMU",
            **reply.headers,
        }
        if reply.ending is not Ending.WHOLE:
            return await self._flood(request, reply, headers)
        body = reply.body
        if self._compress and len(body) > 1000 and "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1)
        return web.Response(status=reply.status, body=body, headers=headers)

    async def _flood(self, request: web.BaseRequest, reply: Reply, headers: dict[str, str]) -> web.StreamResponse:
        if reply.ending is Ending.BOMB:
            headers["Content-Encoding"] = "gzip"
        response = web.StreamResponse(status=reply.status, headers=headers)
        if reply.ending is Ending.PAD:
            response.content_length = max(reply.size, len(reply.body))
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            for chunk in _padded(reply):
                if self._closing.is_set():
                    end(request.transport, reset=True)
                    break
                await response.write(chunk)
                # A write below the high-water mark does not wait; this lets other tasks run.
                await asyncio.sleep(0)
        return response


def _padded(reply: Reply) -> Iterator[bytes]:
    """The body followed by spaces, in chunks; compressed for a bomb."""
    plain = _plain_chunks(reply)
    if reply.ending is not Ending.BOMB:
        yield from plain
        return
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    for chunk in plain:
        packed = packer.compress(chunk)
        if packed:
            yield packed
    yield packer.flush()


def _plain_chunks(reply: Reply) -> Iterator[bytes]:
    yield reply.body
    if reply.ending is Ending.ENDLESS:
        while True:
            yield _SPACES
    remaining = reply.size - len(reply.body)
    while remaining > 0:
        yield _SPACES[:remaining]
        remaining -= _CHUNK


async def accept_no_more(*listening: int) -> None:
    """Accepts no further connections, and gives accepted ones their transport, so that the server can be closed.

    `listening` are the descriptors of its sockets.

    asyncio drops a connection that was accepted in the same turn of the loop in which the server is closed, and never
    closes its socket (the assertion in `Server._attach`; Python 3.11 to 3.13).
    """
    loop = asyncio.get_running_loop()
    for one in listening:
        with contextlib.suppress(NotImplementedError):  # Windows accepts in another way
            loop.remove_reader(one)
    await asyncio.sleep(0)


def end(transport: asyncio.WriteTransport | None, *, reset: bool) -> None:
    """Ends a connection: closed, or reset so that the peer gets ECONNRESET."""
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    # Zero linger makes close() send RST. On a duplicate of the descriptor, since uvloop's socket object does not allow
    # its options to be set.
    with (
        contextlib.suppress(OSError),
        socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as twin,
    ):
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def made_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    """As aiohttp does, with a size limit that allows a document within the prompt."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_LARGEST_REQUEST)
