"""Where the rows go: stdout or a file, one JSON object per line, complete lines only.

This module does not know what is in a row.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections import deque
from pathlib import Path

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
        path: the file; None is stdout.
        force: overwrite a file that is not empty.
        journal: the journal, which is never overwritten.

    Attributes:
        name: its name in messages.
        is_terminal: True if the rows go to a terminal.

    Raises:
        UsageError: the file is not empty, or cannot be written.
    """

    def __init__(
        self,
        path: str | None,
        *,
        force: bool = False,
        journal: str | None = None,
    ) -> None:
        self.name = "stdout" if path in (None, STANDARD) else str(path)
        if path is None or path == STANDARD:
            self._fd, self._is_new = _stdout(), False
        else:
            _check_is_no_journal(path, journal)
            self._fd, self._is_new = _opened(Path(path), force=force)
        # The old content stays until there is a row to write: a run that is refused at once deletes nothing.
        self._is_stale = self.name != "stdout" and os.fstat(self._fd).st_size > 0
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

    async def close(self, *, keep_empty: bool = True) -> None:
        """Write accepted rows, if the reader accepts them within a second, and close the file.

        Args:
            keep_empty: False removes a file that was made here and is still empty.
        """
        with anyio.move_on_after(LAST_WORDS, shield=True):
            await self._drain()
        if self.name == "stdout":
            return
        is_empty = self._is_new and not os.fstat(self._fd).st_size
        os.close(self._fd)
        if is_empty and not keep_empty:
            with contextlib.suppress(OSError):
                os.unlink(self.name)

    async def _drain(self) -> None:
        while self._unwritten:
            if self._waits:
                await self._writable()
            row = self._unwritten.popleft()
            if rest := row[self._write(row[:PIPE_ROOM] if self._waits else row) :]:
                self._unwritten.appendleft(rest)

    def _write(self, part: memoryview) -> int:
        try:
            if self._is_stale:
                os.ftruncate(self._fd, 0)
                self._is_stale = False
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
    _check_is_no_journal(path, journal)
    if os.path.exists(path) and source != STANDARD and os.path.exists(source) and os.path.samefile(path, source):
        raise UsageError(f"{path} is the file of questions; write the answers to another")


def _check_is_no_journal(path: str, journal: str | None) -> None:
    """A journal holds paid results, or will: not even --force overwrites it."""
    if journal is not None and os.path.realpath(path) in {os.path.realpath(journal + part) for part in JOURNAL_PARTS}:
        raise UsageError(f"{path} is the journal; write the answers to another file")


def _opened(path: Path, *, force: bool) -> tuple[int, bool]:
    """The file's descriptor, and whether it was made here."""
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
    try:
        with contextlib.suppress(FileExistsError):
            return os.open(path, flags | os.O_EXCL, 0o666), True
        fd = os.open(path, flags, 0o666)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    if os.fstat(fd).st_size and not force:
        os.close(fd)
        raise UsageError(f"{path} is not empty; give --force to overwrite it, or another name")
    return fd, False
