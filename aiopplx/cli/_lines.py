"""The lines of a file descriptor as they come: of stdin, a named pipe, or what a person types.

This module does not know what a line means.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from functools import partial
from typing import BinaryIO

import anyio
import anyio.to_thread

from aiopplx.cli._exits import UsageError
from aiopplx.cli._options import STANDARD

CHUNK = 1 << 16
LINE_LIMIT = 64 << 20
"""Bytes of one line; a stream without line ends (a disk image, a pipe of zeros) is refused, not read into memory."""
SAVE_LIMIT = 1 << 30
"""Bytes that are saved of a stream that has to be looked at as a whole."""


class Lines:
    """The lines of a descriptor with their numbers, never blocking the event loop, nor a thread indefinitely.

    A worker thread that is blocked reading a terminal or a pipe cannot be interrupted, and would delay Ctrl-C: such a
    descriptor is read only once the event loop reports that it is readable. A regular file has no such signal and needs
    none; it is read in a thread because a disk may be slow.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._waits = not stat.S_ISREG(os.fstat(fd).st_mode)
        self._begun: list[bytes] = []
        self._ready: list[bytes] = []
        self._number = 0
        self._at_end = False

    @classmethod
    async def open(cls, path: str, name: str) -> Lines:
        """Begin to read. Raises `UsageError`: it cannot be opened."""
        if path == STANDARD:
            if sys.stdin is None:  # closed by the shell
                raise UsageError("stdin is closed; give a file of questions")
            return cls(sys.stdin.fileno(), name)
        # Opening a named pipe without a writer would block, hence O_NONBLOCK; the event loop does the waiting.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            return cls(await anyio.to_thread.run_sync(os.open, path, flags), name)
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from None

    def close(self) -> None:
        """Close it, unless it is stdin."""
        if self._fd > 2:
            os.close(self._fd)
            self._fd = 0

    async def head(self) -> bytes:
        """What has been read so far, up to the first line that is not blank and beyond; b"" if there is none."""
        while not self._at_end and not any(line.strip(b"\xef\xbb\xbf \t\r\n") for line in self._ready):
            await self._read()
        rest = b"".join(self._begun)
        return b"\n".join([*reversed(self._ready), *([rest] if rest else [])])

    async def save(self) -> str:
        """All of it as a file that only this user can read; its path. Whoever calls this removes the file.

        Raises:
            UsageError: it is too long, or the file cannot be written.
        """
        try:
            fd, path = tempfile.mkstemp(prefix="aiopplx-")  # of mode 0600
            try:
                with os.fdopen(fd, "wb") as file:
                    await self._save(file)
            except BaseException:
                os.unlink(path)
                raise
        except OSError as error:
            raise UsageError(f"cannot keep {self._name} in a temporary file: {error.strerror}") from None
        return path

    async def _save(self, file: BinaryIO) -> None:
        size = 0
        while (got := await self.next()) is not None:
            line = got[1] if self._at_end and not self._ready else got[1] + b"\n"
            size += len(line)
            if size > SAVE_LIMIT:
                raise UsageError(f"{self._name} is more than {SAVE_LIMIT >> 30} GiB; save it as a file first")
            file.write(line)

    async def next(self) -> tuple[int, bytes] | None:
        """The next line with its number, without its newline; None at the end.

        Raises:
            UsageError: it cannot be read, or the line is too long.
        """
        while not self._ready:
            if self._at_end:
                return None
            await self._read()
        self._number += 1
        return self._number, self._ready.pop()

    async def _read(self) -> None:
        chunk = await self._chunk()
        *whole, last = chunk.split(b"\n")
        if whole or not chunk:
            first = b"".join([*self._begun, *whole[:1]])
            self._ready = [*reversed(whole[1:]), first, *self._ready]
            self._begun = []
        self._begun.append(last)
        self._at_end = not chunk
        if len(self._begun) > LINE_LIMIT // CHUNK:
            raise UsageError(f"line {self._number + len(self._ready) + 1} is longer than {LINE_LIMIT >> 20} MiB")

    async def _chunk(self) -> bytes:
        while True:
            if self._waits:
                await self._readable()
            try:
                return await anyio.to_thread.run_sync(partial(os.read, self._fd, CHUNK))
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal that was closed
                    return b""
                raise UsageError(f"cannot read {self._name}: {error.strerror}") from None

    async def _readable(self) -> None:
        try:
            await anyio.wait_readable(self._fd)
        except (OSError, NotImplementedError):
            self._waits = False  # /dev/null and the like are always ready; Windows can only wait for sockets
