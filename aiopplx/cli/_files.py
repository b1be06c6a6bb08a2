"""A file of answers that grows while a run goes on: JSON lines, CSV, TSV.

It is a view of the run and not a log. A run that finds its own file goes on with it: rows that are in it already are
not written again, and the file never has fewer rows than it had. A row is known by the key or the id of its job. In a
table no row has a key, and what was never accepted has no id: such a row is known by the user's own cells, its tag and
its question. At an orderly end the file is written once more in the order of the questions, to `FILE.new`, which takes
its place; so each row stands in it once. After `kill -9` the rows stand in the order in which they finished, and the
next run mends that, and a row that was cut off.

This module does not know what a job is.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
from collections.abc import Callable, Collection, Generator, Iterator
from typing import BinaryIO, Literal, NamedTuple, Protocol

import msgspec

from aiopplx.cli._exits import OutputLost, UsageError

NEW = ".new"
"""The end of the name under which a file is written before it takes the place of the old one."""
Ending = Literal["whole", "part", "none"]
"""What a run had done when its files are closed: it came to its end; it was stopped, or asked only some of the
questions, so that rows of earlier runs stay; it did nothing, so that all files stay as they are."""
COPY = 1 << 20
_MARK = b"\xef\xbb\xbf"
LONGEST = (1 << 31) - 1
"""Characters of a cell: what a C `long` holds everywhere."""


class Span(NamedTuple):
    """Where a row stands in a file: its first byte and the one after its last."""

    start: int
    end: int


class Old(NamedTuple):
    """A row that a file has already.

    Attributes:
        span: where it stands.
        key: the idempotency key of its job, or "".
        job_id: the service's id of its job, or "".
        status: of its job.
        has_answer: whether it has something that was paid for.
        origin: what it has of its question, by which it is known if it has neither key nor id.
        question: the text of the question, or "".
    """

    span: Span
    key: str
    job_id: str
    status: str
    has_answer: bool
    origin: str = ""
    question: str = ""


class Form(Protocol):
    """How rows stand in a file."""

    @property
    def head(self) -> bytes:
        """What stands before the first row."""
        ...

    def old(self, path: str) -> Iterator[Old]:
        """The whole rows of a file; a last one that was cut off is left out.

        Raises:
            ValueError: it has something else in it.
        """
        ...

    def origin(self, row: bytes) -> str:
        """What a row has of its question: the same before and after it was asked. See `Old.origin`."""
        ...

    def says_the_same(self, old: bytes, new: bytes) -> bool:
        """Whether two rows of a job differ in nothing, or only in how long it took.

        A session has measured that, and a later run knows it by the dates of the journal. If such a row were written
        again, a file would have it twice after `kill -9`.
        """
        ...


class OtherColumns(ValueError):
    """A table was written by a run with other columns.

    Args:
        form: how its rows stand in it.
        gone: its columns that this run does not write.
        more: the columns of this run that it does not have.
    """

    def __init__(self, form: Form, gone: list[str], more: list[str]) -> None:
        super().__init__("other columns")
        self.form = form
        has = f"it has {_listed(gone)}" if gone else ""
        has_not = f"it does not have {_listed(more)}" if more else ""
        self.difference: str = " and ".join(filter(None, (has, has_not))) or "in another order"


def _listed(names: list[str]) -> str:
    shown = ", ".join(f'"{name[:60]}"' for name in names[:3])
    return f"{shown} and {len(names) - 3:,} more" if len(names) > 3 else shown


class RowFile:
    """A file that gets a row at a time.

    Args:
        path: a regular file, or a new one.
        form: how its rows stand in it.
        force: overwrite a file that has something else in it.
        as_finished: leave the rows in the order in which they came.
        superseded: called with the keys or ids of an earlier run's rows, and with those of rows that have been written;
            says which of the former are not needed any more.
        is_ours: called with the rows of a file that is not empty; says whether a run can write all of them again.

    Attributes:
        name: its name in messages.

    Raises:
        UsageError: it has something else in it, or cannot be written.
    """

    def __init__(
        self,
        path: str,
        form: Form,
        *,
        force: bool,
        is_ours: Callable[[list[Old]], bool],
        as_finished: bool = False,
        superseded: Callable[[Collection[str], Collection[str]], Collection[str]] = lambda kept, written: (),
    ) -> None:
        self.name = path
        self._superseded = superseded
        self._written: set[str] = set()
        self._as_finished = as_finished
        self._form = form
        self._old: dict[str, list[Span]] = {}
        self._nameless: dict[str, list[Span]] = {}
        """Rows without key or id, by their origin."""
        self._spans: dict[int, Span] = {}
        self._end = 0
        self._is_new = False
        self._refusal = f"{path} is not empty; give --force to overwrite it, or another name"
        check_name(path)
        self._fd = self._opened()
        size = os.fstat(self._fd).st_size
        if size and not self._take_over(is_ours):
            if not force:
                os.close(self._fd)
                raise UsageError(self._refusal)
            self._old.clear()
            self._nameless.clear()
            self._end = 0

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        try:
            with contextlib.suppress(FileExistsError):
                fd = os.open(self.name, flags | os.O_EXCL, 0o666)
                self._is_new = True
                return fd
            return os.open(self.name, flags, 0o666)
        except OSError as error:
            raise UsageError(why_not(self.name, error)) from None

    def _take_over(self, is_ours: Callable[[list[Old]], bool]) -> bool:
        """Whether the file is one of an earlier run, whose rows stay."""
        try:
            rows = list(self._form.old(self.name))
        except OtherColumns as other:
            with contextlib.suppress(ValueError):
                if is_ours(list(other.form.old(self.name))):
                    self._refusal = (
                        f"{self.name} is of an earlier run with other columns ({other.difference}); --force writes it"
                        " anew with the columns of this run, and what is answered already is not paid again; another"
                        " name leaves it as it is"
                    )
            return False
        except ValueError:
            return False
        if not is_ours(rows):
            return False
        for row in rows:
            if name := row.key or row.job_id:
                self._old.setdefault(name, []).append(row.span)
            else:
                self._nameless.setdefault(row.origin, []).append(row.span)
        self._end = rows[-1].span.end if rows else 0
        return True

    def write(self, at: int, row: bytes, *, key: str, job_id: str) -> None:
        """Write a row, unless the file has it already.

        Args:
            at: its position among the questions.
            row: its bytes.
            key: the idempotency key of its job, or "".
            job_id: the service's id of its job, or "".

        Raises:
            OutputLost: the file cannot be written.
        """
        self._written |= {key, job_id} - {""}
        old = self._old.get(key) or self._old.get(job_id)
        if not old and self._nameless:
            old = self._nameless.get(self._form.origin(row))
        if old:
            same = next((span for span in old if self._form.says_the_same(self._read(span), row)), None)
            old.remove(same or old[0])
            if same is not None:
                self._spans[at] = same
                return
        try:
            if not self._end:
                os.ftruncate(self._fd, 0)
                self._append(self._form.head)
            elif not self._spans and os.fstat(self._fd).st_size != self._end:
                os.ftruncate(self._fd, self._end)  # a row that was cut off
            start = self._end
            self._append(row)
        except OSError as error:
            raise OutputLost(why_not(self.name, error)) from None
        self._spans[at] = Span(start, self._end)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = _write_at(self._fd, view, self._end)
            self._end += written
            view = view[written:]

    def _read(self, span: Span) -> bytes:
        return _read_at(self._fd, span)

    def close(self, ending: Ending) -> None:
        """Put the rows in order and close the file.

        Args:
            ending: what the run had done.

        Raises:
            OutputLost: the file cannot be written.
        """
        try:
            if self._spans:
                self._order(is_whole=ending == "whole")
        except OSError as error:
            raise OutputLost(why_not(self.name, error)) from None
        finally:
            self._close()

    def _close(self) -> None:
        if self._fd < 0:
            return
        is_empty = self._is_new and not os.fstat(self._fd).st_size
        os.close(self._fd)
        self._fd = -1
        if is_empty:
            with contextlib.suppress(OSError):
                os.unlink(self.name)

    def _order(self, *, is_whole: bool) -> None:
        spans = [self._spans[at] for at in sorted(self._spans)]
        if not is_whole:
            kept = {name: found for name, found in self._old.items() if found}
            gone = self._superseded(kept, self._written)
            left = [*(found for name, found in kept.items() if name not in gone), *self._nameless.values()]
            spans += sorted(span for found in left for span in found)
        if self._as_finished:
            spans.sort()
        at = len(self._form.head)
        for span in spans:
            if span.start != at:
                break
            at = span.end
        else:
            if at == os.fstat(self._fd).st_size:
                return
        with replacing(self.name) as new:
            with open(new, "wb") as file:
                file.write(self._form.head)
                for span in spans:
                    for start in range(span.start, span.end, COPY):
                        file.write(self._read(Span(start, min(span.end, start + COPY))))
            self._close()  # first: Windows replaces no file that is open


def _write_at(fd: int, data: memoryview, at: int) -> int:
    os.lseek(fd, at, os.SEEK_SET)
    return os.write(fd, data)


def _read_at(fd: int, span: Span) -> bytes:
    os.lseek(fd, span.start, os.SEEK_SET)
    parts: list[bytes] = []
    remaining = span.end - span.start
    while remaining and (part := os.read(fd, remaining)):
        parts.append(part)
        remaining -= len(part)
    return b"".join(parts)


@contextlib.contextmanager
def replacing(path: str) -> Generator[str]:
    """The name of a new file which, once it is written and on the disk, takes the place of `path`, or of the file that
    this leads to.

    If it cannot be written it is removed again, and the old file is as it was.

    Raises:
        OutputLost: it cannot take that place; the new file stays, under a name with the same ending.
    """
    path = os.path.realpath(path) if os.path.islink(path) else path  # a link stays one
    new = path + NEW
    try:
        yield new
        with open(new, "rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    with contextlib.suppress(OSError):
        os.chmod(new, os.stat(path).st_mode & 0o7777)
    try:
        os.replace(new, path)
    except OSError as error:
        raise OutputLost(f"{why_not(path, error)}; what should be in it is in {_apart(path, new)}") from None


def check_name(path: str) -> None:
    """Refuse a name to which `NEW` cannot be added, before anything is paid for: the file would never get finished.

    Raises:
        UsageError: it is too long, say.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(os.path.realpath(path) + NEW)
    except OSError as error:
        raise UsageError(why_not(path, error)) from None


def _apart(path: str, new: str) -> str:
    """The new file's name, which programs that go by endings know: `answers.new.xlsx`, if there is none yet."""
    stem, suffix = os.path.splitext(path)
    other = f"{stem}{NEW}{suffix}"
    with contextlib.suppress(OSError):
        if not os.path.lexists(other):
            os.rename(new, other)
            return other
    return new


def why_not(path: str, error: OSError) -> str:
    """Why a file cannot be written, for a person."""
    said = f"cannot write {path}: {error.strerror or error}"
    return f"{said} (is it open in another program?)" if isinstance(error, PermissionError) else said


# --- forms -----------------------------------------------------------------------------------------------------------


def take_long_cells() -> None:
    """Let `csv` read cells of any length: answers have more characters than it takes by itself."""
    csv.field_size_limit(LONGEST)


_KNOWN_BY = ("job_id", "status", "answer", "seconds")
"""Columns of every table of answers, beside that of the question."""


class Delimited:
    """CSV or TSV.

    Args:
        names: of the columns.
        delimiter: between the cells.
        has_mark: the file begins with a mark, by which a spreadsheet knows that it is UTF-8.
        header: the names as they stand in the file.
        job_id, status, answer, seconds, question: the columns that have these.
        origin: the columns that a row has of its question.
    """

    def __init__(
        self,
        names: list[str],
        delimiter: str,
        *,
        has_mark: bool,
        header: str,
        job_id: str,
        status: str,
        answer: str,
        seconds: str,
        question: str,
        origin: Collection[str],
    ) -> None:
        self.head = (_MARK if has_mark else b"") + header.encode(errors="replace")
        take_long_cells()
        self._names = names
        self._delimiter = delimiter
        self._places = [names.index(name) for name in (job_id, status, answer, question)]
        self._origin = [names.index(name) for name in origin]
        self._seconds = names.index(seconds)

    def old(self, path: str) -> Iterator[Old]:
        """See `Form`."""
        read = 0
        last = b""

        def lines() -> Iterator[str]:
            nonlocal read, last
            for last in file:
                read += len(last)
                yield last.decode()

        with open(path, "rb") as file:
            head = file.read(len(_MARK) + len(self.head))
            other = self.head.removeprefix(_MARK) if self.head.startswith(_MARK) else _MARK + self.head
            if head.startswith(other):
                self.head = other  # with the mark, or without it, that it began with
            elif not head.startswith(self.head):
                if self.head.startswith(head) or other.startswith(head):
                    return  # it was cut off
                raise self._other(file) or ValueError("another header")
            read = start = len(self.head)
            file.seek(read)
            reader = csv.reader(lines(), delimiter=self._delimiter, strict=True)
            try:
                for cells in reader:
                    if len(cells) != len(self._names) or not last.endswith(b"\r\n"):
                        break
                    job_id, status, answer, question = (cells[place] for place in self._places)
                    job_id = job_id.removeprefix("'")
                    origin = "" if job_id else self._origin_of(cells)
                    yield Old(Span(start, read), "", job_id, status, bool(answer), origin, question)
                    start = read
            except csv.Error:
                pass  # a quote that is not closed, in a row that was cut off
            if file.read(1):
                raise ValueError("only the last row may have been cut off")

    def _other(self, file: BinaryIO) -> OtherColumns | None:
        """How the rows of a table stand in it that a run has written with other columns; None if it is no such."""
        file.seek(0)
        reader = csv.reader((line.decode("utf-8-sig", "replace") for line in file), delimiter=self._delimiter)
        with contextlib.suppress(csv.Error):
            names: list[str] = next(iter(reader), [""])
            file.seek(0)
            header = b"".join(itertools.islice(file, reader.line_num)).removeprefix(_MARK)
            ours = [next((n for n in (f"research_{name}", name) if n in names), "") for name in _KNOWN_BY]
            if all(ours):
                asked = next((n for n in (self._names[self._places[-1]], "question") if n in names), names[0])
                form = Delimited(
                    names,
                    self._delimiter,
                    has_mark=False,
                    header=header.decode(errors="replace"),
                    question=asked,
                    origin=(),
                    **dict(zip(_KNOWN_BY, ours, strict=True)),
                )
                more = [name for name in self._names if name not in names]
                return OtherColumns(form, [name for name in names if name not in self._names], more)
        return None

    def origin(self, row: bytes) -> str:
        """See `Form`."""
        return self._origin_of(self._cells(row))

    def _origin_of(self, cells: list[str]) -> str:
        # Without blanks at the ends: an export has the question as it was sent.
        return "\0".join(cells[place].strip() for place in self._origin)

    def says_the_same(self, old: bytes, new: bytes) -> bool:
        """See `Form`."""
        if old == new:
            return True
        before, after = (self._cells(row) for row in (old, new))
        if len(before) == len(after) == len(self._names) and before[self._seconds] and after[self._seconds]:
            before[self._seconds] = after[self._seconds]
        return before == after

    def _cells(self, row: bytes) -> list[str]:
        text = io.StringIO(row.decode(errors="replace"), newline="")
        return [cell for cells in csv.reader(text, delimiter=self._delimiter) for cell in cells]


class _Line(msgspec.Struct):
    """The fields of a line that matter here; others are ignored."""

    id: str
    ok: bool
    status: str
    idempotency_key: str
    text: str
    question: str = ""


class _Origin(msgspec.Struct):
    """What a line has of its question: where it stands, and the user's own cells."""

    line: msgspec.Raw = msgspec.Raw()
    tag: msgspec.Raw = msgspec.Raw()
    meta: msgspec.Raw = msgspec.Raw()


class _Measured(msgspec.Struct):
    seconds: float | None = None


_BEGIN = b'{"id":'


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except msgspec.MsgspecError:
        return False
    return True


class JsonLines:
    """A JSON object a line, as `Job.to_dict` gives it."""

    head = b""

    def old(self, path: str) -> Iterator[Old]:
        """See `Form`."""
        start = 0
        with open(path, "rb") as file:
            for line in file:
                try:
                    row = msgspec.json.decode(line, type=_Line)
                except msgspec.MsgspecError:
                    begun = line.startswith(_BEGIN) or _BEGIN.startswith(line)
                    if begun and not line.endswith(b"\n") and not _is_json(line):
                        return  # it was cut off
                    raise ValueError("a line that is no row") from None
                if not line.endswith(b"\n"):
                    return
                span = Span(start, start := start + len(line))
                named = row.idempotency_key or row.id
                origin = "" if named else self.origin(line)
                has_answer = row.ok or bool(row.text)
                yield Old(span, row.idempotency_key, row.id, row.status, has_answer, origin, row.question)

    def origin(self, row: bytes) -> str:
        """See `Form`."""
        found = msgspec.json.decode(row, type=_Origin)
        return "\0".join(bytes(part).decode() for part in (found.line, found.tag, found.meta))

    def says_the_same(self, old: bytes, new: bytes) -> bool:
        """See `Form`."""
        if old == new:
            return True
        before, after = (msgspec.json.decode(row, type=_Measured).seconds for row in (old, new))
        if before is None or after is None:
            return False
        fields, others = (msgspec.json.decode(row, type=dict[str, msgspec.Raw]) for row in (old, new))
        return {**fields, "seconds": b""} == {**others, "seconds": b""}
