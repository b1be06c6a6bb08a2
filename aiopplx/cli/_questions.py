"""The questions of a run: the rows of a file that was looked at, or the lines of a stream as they come.

A file is looked at as a whole before anything is sent, by `aiopplx.tables`. A stream of text or of JSON lines, typed or
piped, is asked line by line as it comes; any other stream is kept in a temporary file first, and looked at like a file.
This module knows nothing of sessions and jobs.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

import anyio.to_thread
import msgspec

from aiopplx.cli._exits import UsageError
from aiopplx.cli._lines import Lines
from aiopplx.cli._options import STANDARD, TableOptions
from aiopplx.cli._text import one_line
from aiopplx.tables import (
    QUESTION,
    Asking,
    AskOptions,
    BadRow,
    Look,
    Remarks,
    Request,
    Row,
    Table,
    encoding_of,
    line_of_objects,
    line_of_text,
    look,
    read_file,
    text_format,
)

PAGE = 20
"""Rows that are read at a time, in a thread: a row may have a mebibyte."""
FIELD_LIMIT = 1 << 20
"""Characters of a cell of a CSV file; Python's own limit is an eighth of it."""
_NUMBER = re.compile(r"\d+$")


class Origin(msgspec.Struct, frozen=True):
    """Where a question stands. Only its beginning is kept, for the screen; the question itself belongs to the batch.

    Attributes:
        at: its position among the rows of the source, bad ones included, from 0.
        place: for a person: `line 7`.
        preview: its beginning.
    """

    at: int
    place: str
    preview: str

    @property
    def line(self) -> int | None:
        """The number of its line, row or item; None if it has none."""
        return line_of(self.place)


def line_of(place: str) -> int | None:
    """The number in a place: 7 of `line 7`."""
    found = _NUMBER.search(place)
    return int(found[0]) if found else None


OnBad = Callable[[BadRow, Origin, int], Awaitable[None]]
"""Called with a row that cannot be asked, where it stands, and how many questions were before it."""


class Source(Protocol):
    """Rows, one after the other."""

    async def next(self) -> tuple[str, Request | BadRow] | None:
        """The place of the next row and its request, or why it has none; None at the end."""
        ...

    async def close(self) -> None:
        """Stop reading."""
        ...


class Questions:
    """The items of a run for a batch, read on demand; an async iterator.

    Args:
        source: the rows.
        name: what messages call them.
        seen: what was found when all was looked at; None for a stream.
        limit: stop after this many rows, bad ones included; None reads to the end.
        on_bad: called with each row that cannot be asked.

    Attributes:
        read: rows read so far, bad ones included.
        total: how many there are in total; None while unknown.
        origins: the origin of every question handed out, by its position in the batch, until `take` removes it.
    """

    def __init__(self, source: Source, name: str, *, seen: Look | None, limit: int | None, on_bad: OnBad) -> None:
        self.name = name
        self.seen = seen
        self.read = 0
        self.total: int | None = None
        self.origins: dict[int, Origin] = {}
        self._source = source
        self._limit = limit
        self._on_bad = on_bad
        self._handed_out = 0
        if seen is not None:
            count = seen.count + len(seen.bad)
            self.total = count if limit is None else min(count, limit)

    @property
    def remarks(self) -> str:
        """What is to be told of lines that a stream had and that were left out; "" if nothing."""
        return self._source.remarks.said if isinstance(self._source, StreamSource) else ""

    async def close(self) -> None:
        """Stop reading. Questions not read yet stay unread."""
        await self._source.close()

    def take(self, index: int | None) -> Origin | None:
        """The origin of the question at that position in the batch; it is removed here."""
        return None if index is None else self.origins.pop(index, None)

    def __aiter__(self) -> AsyncIterator[Request]:
        return self

    async def __anext__(self) -> Request:
        while self._limit is None or self.read < self._limit:
            got = await self._source.next()
            if got is None:
                break
            place, request = got
            at, self.read = self.read, self.read + 1
            if isinstance(request, BadRow):
                await self._on_bad(request, Origin(at, place, ""), self._handed_out)
                continue
            self.origins[self._handed_out] = Origin(at, place, one_line(request.asked, 120))
            self._handed_out += 1
            return request
        self.total = self.read
        raise StopAsyncIteration


class FileSource:
    """The rows of a file that was looked at.

    Args:
        seen: what was found.
        remove: a file to remove when all is over; "" for none.
    """

    def __init__(self, seen: Look, remove: str = "") -> None:
        self._seen = seen
        self._rows: Iterator[Row | BadRow] | None = None
        self._page: list[tuple[str, Request | BadRow]] = []
        self._remove = remove

    async def next(self) -> tuple[str, Request | BadRow] | None:
        """See `Source`. Raises `TableError`: the file has changed."""
        if not self._page:
            self._page = await anyio.to_thread.run_sync(self._read)
        return self._page.pop() if self._page else None

    def _read(self) -> list[tuple[str, Request | BadRow]]:
        if self._rows is None:
            self._rows = self._seen.table.read()
        request = self._seen.asking.request
        page = [(row.place, request(row) if isinstance(row, Row) else row) for row in islice(self._rows, PAGE)]
        return page[::-1]

    async def close(self) -> None:
        """See `Source`."""
        self._rows = None
        if self._remove:
            with contextlib.suppress(OSError):
                os.unlink(self._remove)


class StreamSource:
    """The lines of a stream, of text or of JSON, as they come.

    Args:
        lines: the lines.
        name: what messages call them.
        is_json: each line is a JSON value.
        is_guess: nobody has said what it is.
        options: how a line becomes a request.

    Attributes:
        remarks: lines that were left out.
    """

    def __init__(self, lines: Lines, name: str, *, is_json: bool, is_guess: bool, options: AskOptions) -> None:
        self.remarks = Remarks()
        self._lines = lines
        self._name = name
        self._is_json = is_json
        self._is_guess = is_guess
        self._options = options
        self._asking: Asking | None = None

    async def next(self) -> tuple[str, Request | BadRow] | None:
        """See `Source`."""
        while (got := await self._lines.next()) is not None:
            number, raw = got
            row = self._row(number, raw)
            if isinstance(row, Row):
                return row.place, self._request(row)
            if row is not None:
                return row.place, row
        return None

    def _row(self, number: int, raw: bytes) -> Row | BadRow | None:
        place = f"line {number}"
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            return BadRow(place, f"not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8")
        if self._is_json:
            return line_of_objects(place, line)
        self.remarks.see(number, line)
        return line_of_text(place, line, is_guess=self._is_guess)

    def _request(self, row: Row) -> Request | BadRow:
        if self._asking is None:
            # Which name is the question, the first object says.
            table = Table(self._name, "", tuple(row.cells) or (QUESTION,), lambda: iter(()), has_fields=self._is_json)
            self._asking = Asking(table, self._options)
        return self._asking.request(row)

    async def close(self) -> None:
        """See `Source`."""
        self._lines.close()


async def open_questions(
    path: str, options: TableOptions, *, limit: int | None, model: str | None, whole: bool, on_bad: OnBad
) -> Questions:
    """The questions of a file or a stream; a file was looked at as a whole then.

    Args:
        path: the file; `STANDARD` is stdin.
        options: what the user says about it.
        limit: see `Questions`.
        model: for questions that name none.
        whole: look at a stream as a whole as well.
        on_bad: see `Questions`.

    Raises:
        UsageError: it cannot be read, or has no questions.
        TableError: it is not surely a table or questions.
    """
    csv.field_size_limit(FIELD_LIMIT)
    asked = options.asked(model)
    if not _is_stream(path):
        seen = look(read_file(path, options.read()), asked)
        return Questions(FileSource(seen), seen.table.name, seen=seen, limit=limit, on_bad=on_bad)
    name = "stdin" if path == STANDARD else path
    lines = await Lines.open(path, name)
    try:
        form = await _stream_form(lines, name, options, whole=whole)
        if form is not None:
            source = StreamSource(
                lines, name, is_json=form == "jsonl", is_guess=not options.input_format, options=asked
            )
            return Questions(source, name, seen=None, limit=limit, on_bad=on_bad)
        saved = await lines.save()
    except BaseException:
        lines.close()
        raise
    lines.close()
    try:
        seen = look(read_file(saved, options.read(), name=name), asked)
    except BaseException:
        os.unlink(saved)
        raise
    return Questions(FileSource(seen, saved), name, seen=seen, limit=limit, on_bad=on_bad)


async def _stream_form(lines: Lines, name: str, options: TableOptions, *, whole: bool) -> str | None:
    """`text` or `jsonl` if the stream can be asked line by line; None if it must be looked at as a whole.

    Raises:
        UsageError: there is nothing in it.
        TableError: its lines are no questions.
    """
    if whole or options.needs_columns:
        return None
    if options.input_format is not None:
        return options.input_format if options.input_format in ("text", "jsonl") else None
    head = await lines.head()
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise UsageError(f"no questions in {name}")
    if b"\0" in head:
        encoding_of(name, [head])  # refuses what is not UTF-16 before all of it is kept
        return None
    try:
        text = head[: head.rfind(b"\n") + 1 or None].decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if "\r" in text.replace("\r\n", ""):
        return None
    stripped = [line for line in (line.strip(" \t\r\n") for line in text.split("\n")) if line]
    form = text_format(name, Path(name).suffix.lower(), stripped)
    if form == "json":
        return "jsonl" if isinstance(line_of_objects("", stripped[0]), Row) else None
    return "text" if form == "text" else None


def _is_stream(path: str) -> bool:
    """Whether it can be read only once: stdin, a named pipe, a device."""
    if path == STANDARD:
        return True
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def is_typed(path: str) -> bool:
    """True if a person types the questions."""
    return path == STANDARD and os.isatty(0)
