"""Rows to stdout, to a pipe or to a device: complete lines only, and nobody waits for a slow reader.

This module does not know what is in a row.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import deque

import anyio

from aiopplx.cli._exits import OutputLost, UsageError
from aiopplx.cli._options import STANDARD

PIPE_ROOM = 512
"""Bytes that a pipe can always accept when it is writable (the smallest PIPE_BUF of POSIX; Linux has 4096)."""

JOURNAL_PARTS = ("", "-wal", "-shm", ".lock")
"""Suffixes of a journal's files."""

LAST_WORDS = 1.0
"""Seconds for which an interrupted command still waits for a slow reader, to complete the current line."""


class Rows:
    """The writer of rows. Each row that it accepts is written completely, even if the command is interrupted.

    A reader slower than the results (`| less`) must not block the event loop, or jobs would not be polled and Ctrl-C
    not be noticed: a pipe gets only as much as it has room for, and the loop waits for more room.

    Args:
        path: a pipe or a device; None is stdout.

    Attributes:
        name: its name in messages.
        is_terminal: True if the rows go to a terminal.

    Raises:
        UsageError: it cannot be written.
    """

    def __init__(self, path: str | None = None) -> None:
        self.name = "stdout" if path is None else path
        self._fd = _stdout() if path is None else _opened(path)
        self._waits = not stat.S_ISREG(os.fstat(self._fd).st_mode)
        self.is_terminal = os.isatty(self._fd)
        self._unwritten: deque[memoryview] = deque()
        self._turn = anyio.Lock()

    async def write(self, row: bytes) -> None:
        """Write one row. It is accepted at once: if the caller is cancelled, `close` still writes it.

        Raises:
            BrokenPipeError: the reader has closed the pipe.
            OutputLost: the file cannot be written.
        """
        self._unwritten.append(memoryview(row))
        async with self._turn:
            await self._drain()

    async def close(self) -> None:
        """Write accepted rows, if the reader accepts them within a second, and close what was opened here."""
        with anyio.move_on_after(LAST_WORDS, shield=True):
            await self._drain()
        if self.name != "stdout":
            os.close(self._fd)

    async def _drain(self) -> None:
        while self._unwritten:
            if self._waits:
                await self._writable()
            row = self._unwritten.popleft()
            if rest := row[self._write(row[:PIPE_ROOM] if self._waits else row) :]:
                self._unwritten.appendleft(rest)

    def _write(self, part: memoryview) -> int:
        try:
            return os.write(self._fd, part)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            self._unwritten.clear()
            raise
        except OSError as error:
            self._unwritten.clear()
            raise OutputLost(f"cannot write {self.name}: {error.strerror}") from None

    async def _writable(self) -> None:
        try:
            await anyio.wait_writable(self._fd)
        except (OSError, NotImplementedError):
            self._waits = False  # /dev/null is always ready; Windows can only wait for sockets


def _stdout() -> int:
    if sys.stdout is None:  # closed by the shell
        raise UsageError("stdout is closed; give a file for the answers with -o")
    sys.stdout.flush()
    return sys.stdout.fileno()


def check_place(path: str, source: str, journal: str | None) -> None:
    """Refuse a file of answers that is the questions or the journal.

    Raises:
        UsageError: it is.
        OSError: it cannot be seen.
    """
    if journal is not None and os.path.realpath(path) in {os.path.realpath(journal + part) for part in JOURNAL_PARTS}:
        # It holds paid results, or will: not even --force overwrites it.
        raise UsageError(f"{path} is the journal; write the answers to another file")
    if os.path.exists(path) and source != STANDARD and os.path.exists(source) and os.path.samefile(path, source):
        raise UsageError(f"{path} is the file of questions; write the answers to another")


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
