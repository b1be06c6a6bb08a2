"""A file of questions, read a line at a time: what a line means, and lines on demand.

This module knows nothing of sessions and jobs. It holds one chunk and one line of a file, however large it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import cast

import anyio
import anyio.to_thread
import msgspec

from aiopplx.cli._exits import UsageError
from aiopplx.cli._kind import Form, form_of, is_object, splits
from aiopplx.cli._options import STANDARD, Format
from aiopplx.cli._text import one_line

CHUNK = 1 << 16
LINE_LIMIT = 64 << 20
"""Bytes of one line; a file without line ends (a disk image, a pipe of zeros) is refused, not read into memory."""


class Question(msgspec.Struct, frozen=True):
    """A line with a question: `item` is for the batch, `preview` is its beginning, for a person."""

    line: int
    item: str | dict[str, object]
    preview: str


class Origin(msgspec.Struct, frozen=True):
    """The line of a question. Only its beginning is kept, for the screen; the question itself belongs to the batch."""

    line: int
    preview: str


class BadLine(msgspec.Struct, frozen=True):
    """A line that cannot be used."""

    line: int
    reason: str


class Remark(msgspec.Struct, frozen=True):
    """A line of a text file that begins with `#`: it is skipped, and told, as it may have been meant as a question."""

    line: int
    preview: str


def read_line(number: int, raw: bytes, form: Form, *, is_guess: bool = False) -> Question | BadLine | Remark | None:
    """The content of line `number`; None for a blank one.

    Args:
        number: from 1.
        raw: its bytes, without the newline.
        form: the format of the file.
        is_guess: nobody has named the format, so that a line of another kind is refused.
    """
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        return BadLine(number, f"not UTF-8 text: {error.reason} at byte {error.start}; save the file as UTF-8")
    if not text:
        return None
    if form == "jsonl":
        return _read_json(number, text)
    if text.startswith("#"):
        return Remark(number, one_line(text, 60))
    if splits(text):
        return BadLine(number, "has a line end in it that is not a newline: is it more than one question?")
    if is_guess and is_object(text):
        return BadLine(number, "a JSON object in a file of text; give --format jsonl or --format text")
    return Question(number, text, one_line(text, 120))


def _read_json(number: int, text: str) -> Question | BadLine:
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return BadLine(number, f"not JSON: {error}")
    if isinstance(value, str):
        return Question(number, value, one_line(value, 120))
    if not isinstance(value, dict):
        return BadLine(number, "neither an object of request fields nor a string")
    fields = cast("dict[str, object]", value)
    asked = fields.get("question")
    return Question(number, fields, one_line(asked, 120) if isinstance(asked, str) else "")


class Questions:
    """The items of a file for a batch, read on demand; an async iterator.

    Args:
        path: the file; `STANDARD` is stdin.
        form: the format of its lines; "auto" goes by the name and by what the file begins with (`form_of`).
        limit: stop after this many questions, including bad lines; None reads to the end.
        defaults: request fields for every question that does not set them itself.
        on_bad: called with each bad line as it is read, and the number of questions before it.

    Attributes:
        read: questions read so far, including bad lines.
        total: how many there are in total, including bad lines; None while unknown.
        remarks: lines skipped so far because they begin with `#`; `first_remark` is the first of them.
        origins: the origin of every question handed out, by its position in the batch, until `take` removes it.
    """

    def __init__(
        self,
        path: str,
        *,
        form: Format = "auto",
        limit: int | None = None,
        defaults: dict[str, object] | None = None,
        on_bad: Callable[[BadLine, int], Awaitable[None]],
    ) -> None:
        self.name = "stdin" if path == STANDARD else path
        self.read = 0
        self.total: int | None = None
        self.origins: dict[int, Origin] = {}
        self.remarks = 0
        self.first_remark: Remark | None = None
        self._path = path
        self._given: Format = form
        self._form: Form = "text"
        self._limit = limit
        self._defaults = defaults or {}
        self._on_bad = on_bad
        self._handed_out = 0
        self._lines: _Lines | None = None
        self._ahead: list[tuple[int, bytes]] = []

    async def open(self) -> None:
        """Open the file and detect its format.

        Raises:
            UsageError: it cannot be read, has no questions, or is neither text nor JSONL.
        """
        self._lines = lines = await _Lines.open(self._path, self.name)
        while not self._ahead:  # the first line that is not blank
            got = await lines.next()
            if got is None:
                raise UsageError(f"no questions in {self.name}")
            if got[1].strip(b"\xef\xbb\xbf \t\r\n"):
                self._ahead = [got]
        self._form = form_of(self.name, [self._ahead[0][1], *lines.ahead()], self._given)
        await self._skip_remarks(lines)

    async def _skip_remarks(self, lines: _Lines) -> None:
        """Read up to the first line with something to ask: a file of remarks only makes no journal."""
        while True:
            entry = self._read(*self._ahead[0])
            if entry is not None and not isinstance(entry, Remark):
                return
            self._count_remark(entry)
            got = await lines.next()
            if got is None:
                raise UsageError(f"no questions in {self.name}")
            self._ahead = [got]

    def _read(self, number: int, raw: bytes) -> Question | BadLine | Remark | None:
        return read_line(number, raw, self._form, is_guess=self._given == "auto")

    def _count_remark(self, entry: Remark | None) -> None:
        if entry is not None:
            self.remarks += 1
            self.first_remark = self.first_remark or entry

    async def count(self) -> int | None:
        """Find `total` now, if the file can be read twice; None if not."""
        if self._can_be_counted:
            await anyio.to_thread.run_sync(self._count)
        return self.total

    @property
    def _can_be_counted(self) -> bool:
        return self._path != STANDARD and os.path.isfile(self._path)

    def count_ahead(self) -> None:
        """Find `total` during the run, if the file can be read twice: a paced batch reads the last line late."""
        if self._can_be_counted:
            threading.Thread(target=self._count, name="aiopplx line count", daemon=True).start()

    def _count(self) -> None:
        skipped = (b"", b"#") if self._form == "text" else (b"",)
        with contextlib.suppress(OSError), open(self._path, "rb") as file:
            count = sum(line.strip()[:1] not in skipped for line in file)
            if self.total is None:
                self.total = count if self._limit is None else min(count, self._limit)

    async def close(self) -> None:
        """Close the file. Questions not read yet stay unread."""
        if self._lines is not None:
            self._lines.close()

    @property
    def is_terminal(self) -> bool:
        """True if a person types the questions."""
        return self._path == STANDARD and os.isatty(0)

    def take(self, index: int | None) -> Origin | None:
        """The origin of the question at that position in the batch; it is removed here."""
        return None if index is None else self.origins.pop(index, None)

    def __aiter__(self) -> AsyncIterator[str | dict[str, object]]:
        return self

    async def __anext__(self) -> str | dict[str, object]:
        while self._limit is None or self.read < self._limit:
            got = await self._next_line()
            if got is None:
                break
            entry = self._read(*got)
            if isinstance(entry, Question):
                self.read += 1
                return self._hand_out(entry)
            if isinstance(entry, BadLine):
                self.read += 1
                await self._on_bad(entry, self._handed_out)
            else:
                self._count_remark(entry)
        self.total = self.read
        raise StopAsyncIteration

    async def _next_line(self) -> tuple[int, bytes] | None:
        if self._ahead:
            return self._ahead.pop()
        return None if self._lines is None else await self._lines.next()

    def _hand_out(self, entry: Question) -> str | dict[str, object]:
        self.origins[self._handed_out] = Origin(entry.line, entry.preview)
        self._handed_out += 1
        if not self._defaults:
            return entry.item
        fields = {"question": entry.item} if isinstance(entry.item, str) else entry.item
        return {**self._defaults, **fields}


class _Lines:
    """The lines of a file descriptor with their numbers, never blocking the event loop, nor a thread indefinitely.

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
        self._ended = False
        self._is_whole = False

    @classmethod
    async def open(cls, path: str, name: str) -> _Lines:
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
        if self._fd > 2:
            os.close(self._fd)
            self._fd = 0

    def ahead(self) -> list[bytes]:
        """The whole lines after the last one that was handed out, as far as they have been read."""
        return [*reversed(self._ready), *([b"".join(self._begun)] if self._is_whole else [])]

    async def next(self) -> tuple[int, bytes] | None:
        while not self._ready:
            if self._ended:
                return None
            self._split(await self._chunk())
        self._number += 1
        return self._number, self._ready.pop()

    def _split(self, chunk: bytes) -> None:
        *whole, last = chunk.split(b"\n")
        if whole or not chunk:
            self._ready = [*reversed(whole[1:]), b"".join([*self._begun, *whole[:1]])]
            self._begun = []
        self._begun.append(last)
        self._ended = not chunk
        # A regular file gives less than it was asked for only at its end: the last line has no newline then.
        self._is_whole = not self._waits and len(chunk) < CHUNK
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
