"""Files of answers that can only be written as a whole: Excel, Parquet, HTML, Markdown.

Such a file is written when a run ends, also after Ctrl-C, and takes the place of the one that was there. This module
does not know why a run ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from aiopplx.cli._columns import Columns, Value
from aiopplx.cli._exits import Interrupted, OutputLost, UsageError, heard
from aiopplx.cli._files import NEW, Ending, Old, Span, check_name, replacing, why_not
from aiopplx.cli._journals import all_known, finished_besides, knows_any
from aiopplx.cli._kept import Kept, name_of
from aiopplx.cli._options import STANDARD, OutputFormat
from aiopplx.tables import LONGEST_SHEET, ReadOptions, Row, TableError, read_file, write_excel, write_parquet

if TYPE_CHECKING:
    from aiopplx import Job

_SOURCES = ("row", "tag", "n", "title", "address", "date", "cited")
_TABLES = ("excel", "parquet")
_ID = re.compile(r"[\w.:-]+")
_HEAVY = 20_000_000
"""Bytes of a page that a phone opens slowly."""
_MANY = 300
"""Answers whose report takes some seconds."""
_JOBS = "<!-- jobs "
_LONGEST_END = 1 << 26
"""Bytes at the end of a report in which the ids of its jobs begin."""
_EARLIER = 1 << 40
"""Rows that this run has not reached come after this position."""


class Report:
    """A file that is written when the run ends.

    Args:
        path: its name.
        form: `excel`, `parquet`, `html` or `markdown`.
        columns: of the run.
        source: the file of questions.
        journal: the journal, from which come the answers of earlier runs; None if there is none.
        force: overwrite a file that has something else in it.
        as_finished: leave the answers in the order in which they came.

    Raises:
        UsageError: it has something else in it, or cannot be written.
    """

    is_terminal = False
    advice = ""

    def __init__(
        self,
        path: str,
        form: OutputFormat,
        columns: Columns,
        source: str,
        journal: str | None,
        *,
        force: bool,
        as_finished: bool,
    ) -> None:
        self.name = path
        self._form = form
        self._columns = columns
        self._source = source
        self._journal = journal
        self._as_finished = as_finished
        if not force and not self._is_ours():
            raise UsageError(f"{path} is not empty; give --force to overwrite it, or another name")
        check_name(path)
        self._kept = Kept(os.path.dirname(os.path.abspath(path)))

    def _is_ours(self) -> bool:
        """Whether the file may be replaced: there is none, or it is one of an earlier run on this journal."""
        if not os.path.exists(self.name) or not os.path.getsize(self.name):
            return True
        if self._form in _TABLES:
            rows = self._rows_in_file()
            return rows is not None and all_known(rows, self._journal)
        return _are_ours(_ids_in(self.name), self._journal)

    def _rows_in_file(self) -> list[Old] | None:
        """The rows of a table; None if it is none."""
        with contextlib.suppress(TableError):
            # Without a header: whatever names our own may have, it is one.
            rows = read_file(self.name, ReadOptions(header=self._form == "parquet")).read()
            found = [row.cells for row in rows if isinstance(row, Row)]
            if self._form != "parquet":
                names = [str(cell) for cell in found[0].values()] if found else []
                found = [dict(zip(names, cells.values(), strict=False)) for cells in found[1:]]
            return [_old(cells, self._columns.question) for cells in found]
        return None

    def _has(self) -> Callable[[str], bool]:
        """Says whether the file has the job of an id."""
        if not os.path.exists(self.name):
            return lambda job_id: False
        if self._form in _TABLES:
            return {row.job_id for row in self._rows_in_file() or ()}.__contains__
        return (_ids_in(self.name) or set[str]()).__contains__

    @property
    def is_long(self) -> bool:
        """See `Output`."""
        return len(self._kept) >= _MANY

    async def write(self, at: int, line: int | None, job: Job) -> None:
        """See `Output`."""
        self._kept.put(len(self._kept) if self._as_finished else at, job)

    async def close(self, ending: Ending) -> int:
        """See `Output`."""
        try:
            with heard():
                return self._closed(ending)
        except OSError as error:
            raise OutputLost(why_not(self.name, error)) from None
        except (Interrupted, OutputLost, TableError):
            raise
        except Exception as error:  # of a library that writes it; what it says may have an answer in it
            raise OutputLost(f"cannot write {self.name}: {type(error).__name__}") from error
        finally:
            self._kept.close()

    def _closed(self, ending: Ending) -> int:
        if ending == "part":
            earlier = finished_besides(set(self._kept.ids), self._journal, has=self._has())
            for at, job in enumerate(earlier, _EARLIER):
                self._kept.put(at, job)
        return self._replace() if self._kept and ending != "none" else 0

    def _replace(self) -> int:
        with replacing(self.name) as new:
            too_long = self._write(new)
            if self._form == "html" and os.path.getsize(new) > _HEAVY:
                folder = os.path.splitext(self.name)[0]
                self.advice = f"{self.name} is large: -o {folder}/ makes a page of each answer, which opens faster."
        return too_long

    def _write(self, path: str) -> int:
        columns, jobs = self._columns, self._kept
        if self._form == "excel":
            cut = write_excel(path, map(columns.row, jobs), columns.names, _sources(jobs), _SOURCES)
            if cut.rows:
                self.advice = (
                    f"{self.name} lacks {cut.rows:,} rows of answers or sources, as an Excel sheet has no more than"
                    f" {LONGEST_SHEET:,}: -o answers.jsonl has all of them."
                )
            return cut.cells
        if self._form == "parquet":
            write_parquet(path, _Rows(jobs, columns), columns.names)
            return 0
        from aiopplx.report import html_report, markdown_report

        report = html_report if self._form == "html" else markdown_report
        _put(path, report(jobs, **self._head), jobs.ids)
        return 0

    @property
    def _head(self) -> dict[str, str]:
        """What stands above a report."""
        return {
            "title": Path(self._source).stem if self._source != STANDARD else "Research",
            "day": time.strftime("%d %B %Y").lstrip("0"),
            "source": os.path.basename(self._source.lstrip("\0-")),
        }


class ReportFolder(Report):
    """A folder with a page for each answer, and one that leads to all of them. Arguments as for `Report`."""

    @property
    def _index(self) -> Path:
        return Path(self.name, "index.html" if self._form == "html" else "index.md")

    def _is_ours(self) -> bool:
        files = os.listdir(self.name) if os.path.isdir(self.name) else []
        if self._index.exists():
            return _are_ours(_ids_in(self._index), self._journal)
        # Without one it is empty, or its writer was killed.
        pages = [Path(self.name, name) for name in files if self._is_page(name)]
        return all(self._is_page(name.removesuffix(NEW)) for name in files) and (
            not pages or any(_are_ours(_ids_in(page), self._journal) for page in pages)
        )

    def _is_page(self, name: str) -> bool:
        return re.fullmatch(rf"\d{{5,}}\{self._index.suffix}", name) is not None

    def _has(self) -> Callable[[str], bool]:
        return ((_ids_in(self._index) if self._index.exists() else None) or set[str]()).__contains__

    def _replace(self) -> int:
        """Each page takes the place of an old one, and the index comes last: there is no moment without a report."""
        from aiopplx.report import html_folder, markdown_folder

        os.makedirs(self.name, exist_ok=True)
        folder, written = html_folder if self._form == "html" else markdown_folder, set[str]()
        for at, (name, parts) in enumerate(folder(self._kept, **self._head)):
            with replacing(os.path.join(self.name, name)) as new:
                _put(new, parts, [name_of(self._kept[at])] if self._is_page(name) else self._kept.ids)
            written.add(name)
        for name in os.listdir(self.name):
            page = os.path.join(self.name, name)
            # A name of digits may be the user's own.
            if self._is_page(name) and name not in written and _are_ours(_ids_in(page), self._journal):
                os.unlink(page)
        return 0


def _put(path: str, parts: Iterable[str], ids: Iterable[str]) -> None:
    """Write a file, with the ids of its jobs at the end, by which the next run knows its own file. Of an answer whose
    id cannot stand there it has `?`, which no journal knows: a report with answers is not taken for one without.
    """
    names = sorted({each if _ID.fullmatch(each) and "--" not in each else "?" for each in ids if each})
    with open(path, "w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.writelines(parts)
        file.write(f"{_JOBS}{' '.join(names)} -->\n")


def _are_ours(ids: set[str] | None, journal: str | None) -> bool:
    """Whether a report may be replaced, by the ids at its end: one of ours has none if nothing in it was accepted."""
    return ids is not None and (not ids or knows_any(ids, journal))


def _ids_in(path: str | os.PathLike[str]) -> set[str] | None:
    """The ids at the end of a report, of which no more is read: with thousands of answers it has many megabytes. None
    if there are none, as it is no report.
    """
    with open(path, "rb") as file:
        size, length = file.seek(0, os.SEEK_END), 1 << 16
        while length <= _LONGEST_END:
            file.seek(max(0, size - length))
            _, mark, rest = file.read().rpartition(_JOBS.encode())
            if mark or length >= size:
                ids, _, after = rest.partition(b" -->")
                return set(ids.decode(errors="replace").split()) if mark and not after.strip() else None
            length *= 4
    return None


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
        marks: dict[str, list[str]] = {}
        for mark, source in job.cited.items():
            marks.setdefault(id_of(source.url, source.id), []).append(mark)
        for n, source in enumerate(job.sources, 1):
            yield {
                "row": row,
                "tag": job.tag,
                "n": n,
                "title": source.title,
                "address": source.url,
                "date": source.date,
                "cited": ", ".join(marks.get(id_of(source.url, source.id), ())),
            }


def id_of(url: str, number: int | str | None) -> str:
    """What tells one source of a job from another."""
    return f"{url} {number}"


def _old(cells: dict[str, Any], question: str) -> Old:
    # A column of the user's own that has one of these names stands beside ours, which then has the longer one.
    job_id, status, answer = (
        cells.get(f"research_{name}" if f"research_{name}" in cells else name)
        for name in ("job_id", "status", "answer")
    )
    asked = cells.get(question)
    question = "" if asked is None else str(asked)
    return Old(Span(0, 0), "", str(job_id or ""), str(status or "?"), bool(answer), question=question)
