"""The answers of a run, or of a journal, as files and streams, each in the form that its name says.

JSON lines, CSV and TSV grow while a run goes on. Excel, Parquet, HTML and Markdown are written when it ends.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aiopplx.cli._columns import Columns
from aiopplx.cli._exits import Interrupted, OutputLost, UsageError
from aiopplx.cli._files import Delimited, Ending, JsonLines, RowFile, why_not
from aiopplx.cli._journals import all_known, superseded
from aiopplx.cli._options import STANDARD, JournalOptions, OutputFormat, RunOptions, is_url
from aiopplx.cli._reports import Report, ReportFolder
from aiopplx.cli._rows import Rows, check_place
from aiopplx.cli._text import json_line
from aiopplx.tables import LONGEST_CELL, csv_text, is_cut

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
_INSTEAD = {
    **dict.fromkeys((".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), ".xlsx"),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".odt", ".rtf"), ".html"),
    **dict.fromkeys((".feather", ".arrow", ".orc", ".avro"), ".parquet"),
    **dict.fromkeys((".db", ".sqlite", ".xml", ".yaml", ".yml", ".zip", ".gz", ".bz2", ".xz", ".zst"), ".jsonl"),
}
"""Names of files that are not written, and the nearest that is. JSON lines under such a name open nowhere."""
AT_END = ("excel", "parquet", "html", "markdown")
_NEEDS = {
    "excel": ("xlsxwriter", "an Excel file", "excel"),
    "parquet": ("pyarrow", "a Parquet file", "parquet"),
    "html": ("markdown_it", "a report", "report"),
    "markdown": ("markdown_it", "a report", "report"),
}


def form_of(path: str, given: OutputFormat | None) -> OutputFormat:
    """The form of an output. Raises `UsageError`: there is none of that name, or what writes it is not installed."""
    if is_url(path):
        raise UsageError("-o takes a file, and no URL; --journal takes that of a database")
    is_folder = _is_folder(path)
    suffix = Path(path).suffix.lower()
    if given is None and not is_folder and (instead := _INSTEAD.get(suffix)):
        stem = Path(path).with_suffix("")
        nearest = stem if stem.suffix.lower() in SUFFIXES else f"{stem}{instead}"
        raise UsageError(f"{path}: answers are not written as {suffix}; -o {nearest} is the nearest")
    bare = path.rstrip(f"/{os.sep}")
    if is_folder and bare and os.path.exists(bare) and not os.path.isdir(bare):
        raise UsageError(f"{path} names a folder, and {bare} is none; give another name")
    named = SUFFIXES.get(suffix, "html" if is_folder else "jsonl")
    form = given or ("html" if path.endswith(("/", os.sep)) else named)
    if is_folder and form not in ("html", "markdown"):
        raise UsageError(f"{path} is a folder, which holds a report: --output-format html or markdown")
    if form in _NEEDS:
        module, what, extra = _NEEDS[form]
        if path == STANDARD:
            raise UsageError(f"{what} needs a name: -o FILE")
        if find_spec(module) is None:
            raise UsageError(f"{path} is to be {what}: pip install 'aiopplx[{extra}]' writes it")
    return form


def _is_folder(path: str) -> bool:
    return path.endswith(("/", os.sep)) or os.path.isdir(path)


def check_journal(options: RunOptions, journal: JournalOptions, *, place: str | None) -> None:
    """Refuse files that are written at the end of a run in which answers could be lost until then.

    Args:
        options, journal: as typed.
        place: the journal; None without one.

    Raises:
        UsageError: there is no journal, or one that does not keep the answers.
    """
    for path in options.output:
        form = form_of(path, options.output_format)
        if form not in AT_END:
            continue
        what = _NEEDS[form][1]
        if place is None:
            raise UsageError(f"{path}: {what} is written at the end of a run, so it needs the journal")
        if journal.results not in (None, "keep"):
            raise UsageError(f"{path}: {what} is written at the end of a run, so it needs --results keep")


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

    @property
    def is_long(self) -> bool:
        """Whether a person would wonder what it does while it is closed."""
        ...

    @property
    def advice(self) -> str:
        """What to tell once it is closed; "" if nothing."""
        ...

    async def write(self, at: int, line: int | None, job: Job) -> None:
        """Write a job. Raises `OutputLost` or `BrokenPipeError`: it cannot be written.

        Args:
            at: its position among the rows of the source.
            line: the number of its line.
            job: it.
        """
        ...

    async def close(self, ending: Ending) -> int:
        """Finish the file. Returns how many answers are longer than a spreadsheet shows.

        Args:
            ending: what the run had done.

        Raises:
            OutputLost: it cannot be written.
        """
        ...


class Encoder:
    """A job as the bytes of a row.

    Args:
        form: `jsonl`, `csv` or `tsv`.
        columns: of the table.
    """

    def __init__(self, form: OutputFormat, columns: Columns) -> None:
        self._columns = columns
        self._is_json = form == "jsonl"
        self._delimiter = "\t" if form == "tsv" else columns.delimiter
        self.too_long = 0

    def form(self) -> JsonLines | Delimited:
        """How its rows stand in a file."""
        if self._is_json:
            return JsonLines()
        names = self._columns.names
        header = csv_text([], names, delimiter=self._delimiter)
        return Delimited(
            names,
            self._delimiter,
            has_mark=self._columns.has_mark,
            header=header,
            origin=self._columns.asked,
            question=self._columns.question,
            **{name: self._columns.named(name) for name in ("job_id", "status", "answer", "seconds")},
        )

    def row(self, line: int | None, job: Job) -> bytes:
        """A row of a job."""
        if self._is_json:
            return json_line({**job.to_dict(), "line": line})
        self.too_long += is_cut(job.text)
        written = self._columns.written
        cells = self._columns.row(job)
        text = csv_text([cells], self._columns.names, delimiter=self._delimiter, header=False, written=written)
        return text.encode(errors="replace")


class StreamOutput:
    """Rows to stdout, or to a pipe."""

    def __init__(self, rows: Rows, encoder: Encoder) -> None:
        self.name = rows.name
        self.advice = ""
        self.is_long = False
        self.is_terminal = rows.is_terminal
        self._rows = rows
        self._encoder = encoder
        self._head = encoder.form().head

    async def write(self, at: int, line: int | None, job: Job) -> None:
        """See `Output`."""
        head, self._head = self._head, b""
        await self._rows.write(head + self._encoder.row(line, job))

    async def close(self, ending: Ending) -> int:
        """See `Output`."""
        await self._rows.close()
        return 0


class RowOutput:
    """Rows to a file that grows."""

    is_terminal = False
    is_long = False
    advice = ""

    def __init__(self, file: RowFile, encoder: Encoder) -> None:
        self.name = file.name
        self._file = file
        self._encoder = encoder

    async def write(self, at: int, line: int | None, job: Job) -> None:
        """See `Output`."""
        row = self._encoder.row(line, job)
        self._file.write(at, row, key=job.idempotency_key, job_id=job.id)

    async def close(self, ending: Ending) -> int:
        """See `Output`."""
        self._file.close(ending)
        return self._encoder.too_long


class Answers:
    """All outputs of a run, or of an export.

    Args:
        paths: the files; none is stdout.
        given: the form of all of them; None goes by their names.
        columns: of tables.
        source: the file of questions, which is never overwritten.
        journal: the journal, which is never overwritten either. A file of answers may be gone on with, or replaced, if
            the journal has all that is in it.
        force: overwrite files that have something else in them.
        as_finished: leave rows in the order in which they came.

    Raises:
        UsageError: a file has something else in it, or cannot be written.
    """

    def __init__(
        self,
        paths: Sequence[str],
        given: OutputFormat | None,
        columns: Columns,
        *,
        source: str,
        journal: str | None,
        force: bool = False,
        as_finished: bool = False,
    ) -> None:
        self._outputs: list[Output] = []
        self._notes: list[str] = []
        self._lost: list[str] = []
        names = [path if path == STANDARD else os.path.realpath(path) for path in paths]
        if len(set(names)) < len(names):
            raise UsageError("two outputs have one name")
        try:
            for path in paths or (STANDARD,):
                form = form_of(path, given)
                if path == STANDARD:
                    self._outputs.append(StreamOutput(Rows(), Encoder(form, columns)))
                    continue
                check_place(path, source, journal)
                if not _is_folder(path) and os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
                    self._outputs.append(StreamOutput(Rows(path), Encoder(form, columns)))
                elif form in AT_END:
                    kind = ReportFolder if _is_folder(path) else Report
                    self._outputs.append(
                        kind(path, form, columns, source, journal, force=force, as_finished=as_finished)
                    )
                else:
                    encoder = Encoder(form, columns)
                    is_ours = partial(all_known, place=journal)
                    file = RowFile(
                        path,
                        encoder.form(),
                        force=force,
                        is_ours=is_ours,
                        as_finished=as_finished,
                        superseded=partial(superseded, place=journal),
                    )
                    self._outputs.append(RowOutput(file, encoder))
        except OSError as error:
            raise UsageError(why_not(str(error.filename), error)) from None

    @property
    def name(self) -> str:
        """What messages call them; once they are closed, those that could be finished, or ""."""
        *names, last = [output.name for output in self._outputs] or [""]
        return f"{', '.join(names)} and {last}" if names else last

    @property
    def is_terminal(self) -> bool:
        """Whether rows go to a terminal."""
        return any(output.is_terminal for output in self._outputs)

    @property
    def notes(self) -> list[str]:
        """What is to be told once they are closed."""
        return self._notes

    @property
    def lost(self) -> list[str]:
        """Why files could not be finished, a sentence for each."""
        return self._lost

    async def write(self, at: int, line: int | None, job: Job) -> None:
        """Write a job to each. See `Output`."""
        for output in self._outputs:
            await output.write(at, line, job)

    async def close(self, ending: Ending, *, tell: Callable[[str], None] = lambda text: None) -> None:
        """Finish all files, also if one cannot be written. See `Output`.

        Args:
            ending: what the run had done.
            tell: called before a file that takes long.

        Raises:
            OutputLost: one cannot be written; `lost` has all of these.
            Interrupted: a signal came while a file was written, which is as it was before, as those after it.
        """
        lost: Exception | None = None
        outputs, self._outputs = self._outputs, []
        longer: set[int] = set()
        for output in outputs:
            try:
                if output.is_long and ending != "none":
                    tell(f"Writing {output.name} ...")
                too_long = await output.close(ending)
            except Interrupted as stopped:
                lost, ending = stopped, "none"
                continue
            except Exception as error:  # also one that nobody foresaw: the other files are put in order
                lost = lost or error
                self._lost += [str(error)] if isinstance(error, OutputLost) else []
                continue
            if isinstance(lost, Interrupted) and isinstance(output, Report):
                continue
            self._outputs.append(output)
            if output.advice:
                self._notes.append(output.advice)
            longer.add(too_long)
        if count := max(longer, default=0):
            self._notes.append(self._of_long_texts(count, are_answers=longer <= {0, count}))
        if lost is not None:
            raise lost

    def _of_long_texts(self, count: int, *, are_answers: bool) -> str:
        """What is told once of all files: a sheet also cuts long cells of the user's own, which a CSV file does not."""
        whole = next((each.name for each in self._outputs if each.name.endswith((".html", ".md", "/"))), "")
        where = f"{whole} has them whole" if whole else "-o report.html shows them whole"
        text = "answer" if are_answers else "text"
        texts = f"1 {text} is" if count == 1 else f"{count:,} {text}s are"
        return f"{texts} longer than the {LONGEST_CELL:,} characters that Excel shows of a cell: {where}."
