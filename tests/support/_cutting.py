"""A proxy before a PostgreSQL server, that cuts a connection at one statement: before or after the server carries it
out. The client cannot tell which.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from _postgres import Server

When = Literal["before", "after"]
READY = b"Z\x00\x00\x00\x05"
"""The server has carried out what it was asked, and committed it."""


class Cutting:
    """Attributes:
    when: where the next statement that is sent is cut; None to let all through.
    cuts: how many were.
    """

    def __init__(self, folder: Path, real: str) -> None:
        self.when: When | None = None
        self.cuts = 0
        self.folder = folder
        self._real = real
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, url: str) -> str:
        return url.replace(self._real, str(self.folder))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(f"{self._real}/.s.PGSQL.5432")
        cut = asyncio.Event()
        back = asyncio.ensure_future(self._back(theirs, writer, cut))
        try:
            while data := await reader.read(1 << 16):
                if data[:1] == b"B" and self.when is not None:  # values, and the word to carry it out
                    when, self.when = self.when, None
                    self.cuts += 1
                    cut.set()
                    if when == "after":
                        ours.write(data)
                        await back
                    return
                ours.write(data)
                await ours.drain()
        except OSError:
            pass
        finally:
            back.cancel()
            await asyncio.wait([back])
            for end in (ours, writer):
                end.transport.abort()

    async def _back(self, theirs: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await theirs.read(1 << 16):
                if not cut.is_set():
                    writer.write(data)
                elif READY in data:
                    return
            writer.transport.abort()


@contextlib.asynccontextmanager
async def cutting(server: Server) -> AsyncIterator[Cutting]:
    folder = Path(tempfile.mkdtemp(prefix="aiopplx-cut-"))
    proxy = Cutting(folder, str(server.folder))
    listening = await asyncio.start_unix_server(proxy.serve, folder / ".s.PGSQL.5432")
    try:
        yield proxy
    finally:
        listening.close()
        shutil.rmtree(folder)
