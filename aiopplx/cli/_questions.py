"""The questions of a run: the rows of a file that was looked at, or the lines of a stream as they come.

A file is looked at as a whole before anything is sent, by `aiopplx.tables`. A stream of text or of JSON lines, typed or
piped, is asked line by line as it comes; any other stream is kept in a temporary file first, and looked at like a file.
This module knows nothing of sessions and jobs.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

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


class Held(Exception):
    """The questions after a pause are not asked. A source that just ended would pass for read to its end."""


class Twin(msgspec.Struct, frozen=True):
    """A row that asks what an earlier row asks, and gets its answer.

    Attributes:
        at: its position among the rows of the source.
        place: for a person.
        tag: its own tag.
        meta: its own columns, as for `Origin.columns`.
    """

    at: int
    place: str
    tag: str | int | None
    meta: dict[str, Any]

    @property
    def line(self) -> int | None:
        """The number of its line, row or item; None if it has none."""
        return line_of(self.place)


class Origin(msgspec.Struct, frozen=True):
    """Where a question stands. Only its beginning is kept, for the screen; the question itself belongs to the batch.

    Attributes:
        at: its position among the rows of the source, bad ones included, from 0.
        place: for a person: `line 7`.
        preview: its beginning.
        columns: cells of the row as they came, for its row of answers: all of one that cannot be asked, else those of
            question and tag that were asked in another form, such as `" Why? "` or 2024.
        twins: the rows that ask the same and get its answer.
    """

    at: int
    place: str
    preview: str
    columns: dict[str, Any] = {}
    twins: tuple[Twin, ...] = ()

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


class Item(NamedTuple):
    """A row of a source: its position, its place, its request or why it has none, its columns, and its twins. See
    `Origin`.
    """

    at: int
    place: str
    request: Request | BadRow
    columns: dict[str, Any] = {}
    twins: tuple[Twin, ...] = ()


class Source(Protocol):
    """Rows, one after the other."""

    async def next(self) -> Item | None:
        """The next row; None at the end."""
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
        has_ended: the source was read to its end.
        origins: the origin of every question handed out, by its position in the batch, until `take` removes it.
        tried: the questions before the pause, by their position in the batch.
    """

    def __init__(self, source: Source, name: str, *, seen: Look | None, limit: int | None, on_bad: OnBad) -> None:
        self.name = name
        self.seen = seen
        self.read = 0
        self.total: int | None = None
        self.has_ended = False
        self.origins: dict[int, Origin] = {}
        self._source = source
        self._limit = limit
        self._on_bad = on_bad
        self._handed_out = 0
        self._pause_at = -1
        self._go_on: Callable[[], Awaitable[bool]] | None = None
        self._is_stopped = False
        self.tried: dict[int, Request] = {}
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

    def requests(self) -> Iterator[Request]:
        """What is going to be asked, read anew; nothing of a stream, which can be read only once."""
        return self._source.requests(self._limit) if isinstance(self._source, FileSource) else iter(())

    def pause_after(self, count: int, go_on: Callable[[], Awaitable[bool]]) -> None:
        """Hand out this many questions, and the others only if `go_on` then says so; `Held` is raised if not."""
        self._pause_at, self._go_on = count, go_on

    def take(self, index: int | None) -> Origin | None:
        """The origin of the question at that position in the batch; it is removed here."""
        return None if index is None else self.origins.pop(index, None)

    def __aiter__(self) -> AsyncIterator[Request]:
        return self

    async def __anext__(self) -> Request:
        if self._go_on is not None and self._handed_out == self._pause_at:
            # Forgotten only once it has answered: whoever reads after a cancelled reader must be held up, too.
            self._is_stopped = not await self._go_on()
            self._go_on = None
        if self._is_stopped:
            raise Held
        while self._limit is None or self.read < self._limit:
            got = await self._source.next()
            if got is None:
                self.has_ended = True
                break
            if self._limit is not None and got.at >= self._limit:
                break
            self.read = got.at + 1
            if isinstance(got.request, BadRow):
                await self._on_bad(got.request, Origin(got.at, got.place, "", got.columns), self._handed_out)
                continue
            twins = tuple(twin for twin in got.twins if self._limit is None or twin.at < self._limit)
            preview = one_line(got.request.asked, 120)
            self.origins[self._handed_out] = Origin(got.at, got.place, preview, got.columns, twins)
            if self._go_on is not None:
                self.tried[self._handed_out] = got.request
            self._handed_out += 1
            return got.request
        self.total = self.read if self.seen is None else self.total
        raise StopAsyncIteration


class FileSource:
    """The rows of a file that was looked at.

    Args:
        seen: what was found.
        unique: ask equal questions once.
        remove: a file to remove when all is over; "" for none.
    """

    def __init__(self, seen: Look, *, unique: bool = False, remove: str = "") -> None:
        self._seen = seen
        self._rows = _items(seen)
        self._page: list[Item] = []
        self._remove = remove
        self._twins, self._skipped = _twins(seen) if unique else ({}, frozenset[int]())
        self._at_end = False

    async def next(self) -> Item | None:
        """See `Source`. Raises `TableError`: the file has changed."""
        while not self._page and not self._at_end:
            self._page = await anyio.to_thread.run_sync(self._read)
        return self._page.pop() if self._page else None

    def requests(self, limit: int | None) -> Iterator[Request]:
        """The requests of the rows, or of the first `limit` rows, read anew."""
        for item in islice(_items(self._seen), limit):
            if item.at not in self._skipped and not isinstance(item.request, BadRow):
                yield item.request

    def _read(self) -> list[Item]:
        page = list(islice(self._rows, PAGE))
        self._at_end = len(page) < PAGE
        asked = [item._replace(twins=self._twins.get(item.at, ())) for item in page if item.at not in self._skipped]
        return asked[::-1]

    async def close(self) -> None:
        """See `Source`."""
        if self._remove:
            with contextlib.suppress(OSError):
                os.unlink(self._remove)


def _items(seen: Look) -> Iterator[Item]:
    for at, row in enumerate(seen.table.read()):
        if not isinstance(row, Row):
            yield Item(at, row.place, row, row.cells)
            continue
        request = seen.asking.request(row)
        columns = row.cells if isinstance(request, BadRow) else _in_another_form(seen.asking, row, request)
        yield Item(at, row.place, request, columns)


def _in_another_form(asking: Asking, row: Row, request: Request) -> dict[str, Any]:
    """The cells of question and tag that are not what the request has of them."""
    found: dict[str, Any] = {}
    for name, asked in ((asking.question, request.asked), (asking.tag, request.tag)):
        cell = row.cells.get(name)
        if cell not in (None, "", asked):
            found[name] = cell
    return found


def _twins(seen: Look) -> tuple[dict[int, tuple[Twin, ...]], frozenset[int]]:
    """The rows that ask what an earlier row asks, by the position of that one; and the positions of all of them."""
    first: dict[bytes, int] = {}
    twins: dict[int, tuple[Twin, ...]] = {}
    skipped: set[int] = set()
    for item in _items(seen):
        request = item.request
        if isinstance(request, BadRow):
            continue
        earlier = first.setdefault(hashlib.sha256(request.canonical()).digest(), item.at)
        if earlier != item.at:
            twin = Twin(item.at, item.place, request.tag, {**request.meta, **item.columns})
            twins[earlier] = (*twins.get(earlier, ()), twin)
            skipped.add(item.at)
    return twins, frozenset(skipped)


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
        self._at = 0

    async def next(self) -> Item | None:
        """See `Source`."""
        while (got := await self._lines.next()) is not None:
            row = self._row(*got)
            if row is not None:
                self._at += 1
                return Item(self._at - 1, row.place, self._request(row) if isinstance(row, Row) else row)
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
    path: str,
    options: TableOptions,
    *,
    limit: int | None,
    model: str | None,
    whole: bool,
    on_bad: OnBad,
    unique: bool = False,
) -> Questions:
    """The questions of a file or a stream; a file was looked at as a whole then.

    Args:
        path: the file; `STANDARD` is stdin.
        options: what the user says about it.
        limit: see `Questions`.
        model: for questions that name none.
        whole: look at a stream as a whole as well.
        on_bad: see `Questions`.
        unique: ask equal questions once.

    Raises:
        UsageError: it cannot be read, or has no questions.
        TableError: it is not surely a table or questions.
    """
    csv.field_size_limit(FIELD_LIMIT)
    asked = options.asked(model)
    if not _is_stream(path):
        seen = look(read_file(path, options.read()), asked)
        return Questions(FileSource(seen, unique=unique), seen.table.name, seen=seen, limit=limit, on_bad=on_bad)
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
    return Questions(FileSource(seen, unique=unique, remove=saved), name, seen=seen, limit=limit, on_bad=on_bad)


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
    lines_of_head = text.split("\n")
    form = text_format(name, Path(name).suffix.lower(), lines_of_head)
    if form == "json":
        first = next(line for line in lines_of_head if line.strip(" \t\r"))
        return "jsonl" if isinstance(line_of_objects("", first), Row) else None
    return "text" if form == "text" else None


def _is_stream(path: str) -> bool:
    """Whether it can be read only once: stdin, a named pipe, a device."""
    if path == STANDARD:
        return True
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def is_typed(path: str) -> bool:
    """True if a person types the questions."""
    return path == STANDARD and os.isatty(0)
