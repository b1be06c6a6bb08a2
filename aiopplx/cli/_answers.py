"""The answers of a run as files, each in the form that its name says.

JSON lines, CSV and TSV grow while the run goes on. Excel, Parquet, HTML and Markdown are written when it ends, also
after Ctrl-C, and take the place of the file that was there.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

from aiopplx.cli._columns import Columns, Value
from aiopplx.cli._exits import OutputLost, UsageError
from aiopplx.cli._files import Delimited, JsonLines, Old, RowFile, Span, replacing
from aiopplx.cli._kept import Kept
from aiopplx.cli._options import STANDARD, OutputFormat, RunOptions
from aiopplx.cli._rows import Rows, check_place
from aiopplx.cli._text import json_line
from aiopplx.tables import LONGEST_CELL, Look, Row, TableError, csv_text, read_file, write_excel, write_parquet

if TYPE_CHECKING:
    from aiopplx import Job

SUFFIXES: dict[str, OutputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".xlsx": "excel",
    ".parquet": "parquet",
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".markdown": "markdown",
}
AT_END = ("excel", "parquet", "html", "markdown")
_NEEDS = {
    "excel": ("xlsxwriter", "an Excel file", "excel"),
    "parquet": ("pyarrow", "a Parquet file", "parquet"),
    "html": ("markdown_it", "a report", "report"),
    "markdown": ("markdown_it", "a report", "report"),
}
_SOURCES = ("row", "tag", "n", "title", "address", "date", "cited")


def form_of(path: str | None, given: OutputFormat | None) -> OutputFormat:
    """The form of an output. Raises `UsageError`: what writes it is not installed."""
    form = given or SUFFIXES.get(Path(path).suffix.lower() if path not in (None, STANDARD) else "", "jsonl")
    if form in _NEEDS:
        module, what, extra = _NEEDS[form]
        if path in (None, STANDARD):
            raise UsageError(f"{what} needs a name: -o FILE")
        if find_spec(module) is None:
            raise UsageError(f"{path} is to be {what}: pip install 'aiopplx[{extra}]' writes it")
    return form


def needs_columns(options: RunOptions) -> bool:
    """Whether an output is a table, for whose header all of the questions have to be seen."""
    forms = (options.output_format or SUFFIXES.get(Path(path).suffix.lower()) for path in options.output)
    return any(form in ("csv", "tsv", "excel", "parquet") for form in (*forms, options.output_format))


class Output(Protocol):
    """One of the places where answers go."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def is_terminal(self) -> bool:
        """Whether a person watches it."""
        ...

    async def write(self, at: int, line: int | None, job: Job) -> None:
        """Write a job. Raises `OutputLost` or `BrokenPipeError`: it cannot be written.

        Args:
            at: its position among the rows of the source.
            line: the number of its line.
            job: it.
        """
        ...

    async def close(self, *, is_whole: bool, missing: Callable[[set[str]], Iterable[Job]]) -> int:
        """Finish the file. Returns how many answers are longer than a spreadsheet shows.

        Args:
            is_whole: the run has come to its end.
            missing: finished jobs of earlier runs, except those with these ids.

        Raises:
            OutputLost: it cannot be written.
        """
        ...


class Encoder:
    """A job as the bytes of a row.

    Args:
        form: `jsonl`, `csv` or `tsv`.
        columns: of the run.
        seen: the look at the questions, whose delimiter and mark a CSV file takes over; None for a stream.
    """

    def __init__(self, form: OutputFormat, columns: Columns, seen: Look | None) -> None:
        self._columns = columns
        self._is_json = form == "jsonl"
        table = seen.table if seen is not None else None
        self._delimiter = "\t" if form == "tsv" else ","
        if form == "csv" and table is not None and table.delimiter != "\t":
            self._delimiter = table.delimiter
        is_excel = table is not None and (table.has_mark or table.what.startswith("Excel"))
        self._has_mark = is_excel or self._delimiter == ";"
        self.too_long = 0

    def form(self) -> JsonLines | Delimited:
        """How its rows stand in a file."""
        if self._is_json:
            return JsonLines()
        names = self._columns.names
        header = csv_text([], names, delimiter=self._delimiter)
        job_id, status, answer = (self._columns.named(name) for name in ("job_id", "status", "answer"))
        return Delimited(
            names,
            self._delimiter,
            has_mark=self._has_mark,
            header=header,
            job_id=job_id,
            status=status,
            answer=answer,
        )

    def row(self, line: int | None, job: Job) -> bytes:
        """A row of a job."""
        if self._is_json:
            return json_line({**job.to_dict(), "line": line})
        self.too_long += len(job.text) > LONGEST_CELL
        written = self._columns.written
        cells = self._columns.row(job)
        text = csv_text([cells], self._columns.names, delimiter=self._delimiter, header=False, written=written)
        return text.encode(errors="replace")


class StreamOutput:
    """Rows to stdout, or to a pipe."""

    def __init__(self, rows: Rows, encoder: Encoder) -> None:
        self.name = rows.name
        self.is_terminal = rows.is_terminal
        self._rows = rows
        self._encoder = encoder
        self._head = encoder.form().head

    async def write(self, at: int, line: int | None, job: Job) -> None:
        """See `Output`."""
        head, self._head = self._head, b""
        await self._rows.write(head + self._encoder.row(line, job))

    async def close(self, *, is_whole: bool, missing: Callable[[set[str]], Iterable[Job]]) -> int:
        """See `Output`."""
        await self._rows.close(keep_empty=False)
        return 0


class RowOutput:
    """Rows to a file that grows."""

    is_terminal = False

    def __init__(self, file: RowFile, encoder: Encoder) -> None:
        self.name = file.name
        self._file = file
        self._encoder = encoder

    async def write(self, at: int, line: int | None, job: Job) -> None:
        """See `Output`."""
        row = self._encoder.row(line, job)
        self._file.write(at, row, key=job.idempotency_key, job_id=job.id)

    async def close(self, *, is_whole: bool, missing: Callable[[set[str]], Iterable[Job]]) -> int:
        """See `Output`."""
        self._file.close(is_whole=is_whole)
        return self._encoder.too_long


class EndOutput:
    """A file that is written when the run ends."""

    is_terminal = False

    def __init__(self, path: str, form: OutputFormat, columns: Columns, source: str) -> None:
        self.name = path
        self._form = form
        self._columns = columns
        self._source = source
        self._kept = Kept(os.path.dirname(path))

    async def write(self, at: int, line: int | None, job: Job) -> None:
        """See `Output`."""
        self._kept.put(at, job)

    async def close(self, *, is_whole: bool, missing: Callable[[set[str]], Iterable[Job]]) -> int:
        """See `Output`."""
        try:
            if not is_whole:
                for at, job in enumerate(missing(set(self._kept.ids)), 1 << 40):
                    self._kept.put(at, job)
            if not self._kept:
                return 0
            with replacing(self.name) as new:
                return self._write(new)
        except OSError as error:
            raise OutputLost(f"cannot write {self.name}: {error.strerror}") from None
        finally:
            self._kept.close()

    def _write(self, path: str) -> int:
        columns, jobs = self._columns, self._kept
        if self._form == "excel":
            return write_excel(path, map(columns.row, jobs), columns.names, _sources(jobs), _SOURCES)
        if self._form == "parquet":
            write_parquet(path, _Rows(jobs, columns), columns.names)
            return 0
        from aiopplx.report import html_report, markdown_report

        report = html_report if self._form == "html" else markdown_report
        day = time.strftime("%d %B %Y").lstrip("0")
        title = Path(self._source).stem if self._source != STANDARD else "Research"
        parts = report(jobs, title=title, day=day, source=os.path.basename(self._source.lstrip("\0-")))
        with open(path, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(parts)
            if self._form == "markdown":  # by which the next run knows its own file
                file.write(f"<!-- jobs {' '.join(sorted(filter(None, jobs.ids)))} -->\n")
        return 0


class _Rows(Sequence[dict[str, Value]]):
    def __init__(self, jobs: Kept, columns: Columns) -> None:
        self._jobs = jobs
        self._columns = columns

    def __len__(self) -> int:
        return len(self._jobs)

    @overload
    def __getitem__(self, index: int) -> dict[str, Value]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Value]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._columns.row(job) for job in self._jobs[index]]
        return self._columns.row(self._jobs[index])


def _sources(jobs: Iterable[Job]) -> Iterator[dict[str, Value]]:
    for row, job in enumerate(jobs, 1):
        cited = {id_of(source.url, source.id) for source in job.cited.values()}
        for n, source in enumerate(job.sources, 1):
            yield {
                "row": row,
                "tag": job.tag,
                "n": n,
                "title": source.title,
                "address": source.url,
                "date": source.date,
                "cited": id_of(source.url, source.id) in cited,
            }


def id_of(url: str, number: int | str | None) -> str:
    """What tells one source of a job from another."""
    return f"{url} {number}"


class Answers:
    """All outputs of a run.

    Args:
        paths: the files; none is stdout.
        given: the form of all of them; None goes by their names.
        force: overwrite files that have something else in them.
        source: the file of questions, which is never overwritten.
        journal: the journal, which is never overwritten either.
        seen: the look at the questions; None for a stream.
        is_known: whether the journal has all of these rows, so that a run can write them again.
        has_job: whether the journal has a job with one of these ids.

    Raises:
        UsageError: a file has something else in it, or cannot be written.
    """

    def __init__(
        self,
        paths: Sequence[str],
        given: OutputFormat | None,
        *,
        force: bool,
        source: str,
        journal: str | None,
        seen: Look | None,
        is_known: Callable[[list[Old]], bool],
        has_job: Callable[[bytes], bool],
    ) -> None:
        self._outputs: list[Output] = []
        self._notes: list[str] = []
        columns = Columns(seen)
        names = [os.path.realpath(path) for path in paths]
        if len(set(names)) < len(names):
            raise UsageError("two outputs have one name")
        try:
            for path in paths or (None,):
                form = form_of(path, given)
                if path is None or path == STANDARD:
                    self._outputs.append(StreamOutput(Rows(None), Encoder(form, columns, seen)))
                    continue
                check_place(path, source, journal)
                if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
                    self._outputs.append(StreamOutput(Rows(path), Encoder(form, columns, seen)))
                elif form in AT_END:
                    if not force and not _is_report(path, is_known, has_job):
                        raise UsageError(f"{path} is not empty; give --force to overwrite it, or another name")
                    self._outputs.append(EndOutput(path, form, columns, source))
                else:
                    encoder = Encoder(form, columns, seen)
                    file = RowFile(path, encoder.form(), force=force, is_ours=is_known)
                    self._outputs.append(RowOutput(file, encoder))
        except OSError as error:
            raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None

    @property
    def name(self) -> str:
        """What messages call them."""
        return " and ".join(output.name for output in self._outputs)

    @property
    def is_terminal(self) -> bool:
        """Whether rows go to a terminal."""
        return any(output.is_terminal for output in self._outputs)

    @property
    def notes(self) -> list[str]:
        """What is to be told once they are closed."""
        return self._notes

    async def write(self, at: int, line: int | None, job: Job) -> None:
        """Write a job to each. See `Output`."""
        for output in self._outputs:
            await output.write(at, line, job)

    async def close(self, *, is_whole: bool, missing: Callable[[set[str]], Iterable[Job]]) -> None:
        """Finish all files, also if one cannot be written. Raises `OutputLost` then. See `Output`."""
        lost: OutputLost | BrokenPipeError | None = None
        outputs, self._outputs = self._outputs, list(self._outputs)
        for output in outputs:
            try:
                too_long = await output.close(is_whole=is_whole, missing=missing)
            except (OutputLost, BrokenPipeError) as error:
                lost = lost or error
                continue
            if too_long:
                whole = next((each.name for each in outputs if each.name.endswith((".html", ".md"))), "")
                where = f"{whole} has them whole" if whole else "-o report.html shows them whole"
                answers = "1 answer is" if too_long == 1 else f"{too_long:,} answers are"
                note = f"{answers} longer than the {LONGEST_CELL:,} characters that Excel shows of a cell: {where}."
                if note not in self._notes:
                    self._notes.append(note)
        if lost is not None:
            raise lost


def _is_report(path: str, is_known: Callable[[list[Old]], bool], has_job: Callable[[bytes], bool]) -> bool:
    """Whether a file may be replaced: there is none, or it is one of an earlier run on this journal."""
    if not os.path.exists(path) or not os.path.getsize(path):
        return True
    if Path(path).suffix.lower() not in (".xlsx", ".parquet"):
        with open(path, "rb") as file:
            return has_job(file.read())
    with contextlib.suppress(TableError):
        table = read_file(path)
        return is_known([_old(row.cells) for row in table.read() if isinstance(row, Row)])
    return False


def _old(cells: dict[str, Any]) -> Old:
    job_id = str(cells.get("job_id") or cells.get("research_job_id") or "")
    status = str(cells.get("research_status") or cells.get("status") or "?")
    return Old(Span(0, 0), "", job_id, status, bool(cells.get("research_answer") or cells.get("answer")))
