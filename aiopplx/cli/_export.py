"""`aiopplx export`: the results stored in a journal, as a file or a directory of files.

This module only reads the journal. It holds one record at a time, however many there are.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from aiopplx.cli._exits import DONE, OutputLost, UsageError, code_until_signal
from aiopplx.cli._journals import WAITING, every
from aiopplx.cli._options import STANDARD, ExportFormat
from aiopplx.cli._records import job_in, question_of
from aiopplx.cli._rows import Rows
from aiopplx.cli._show import on_paper
from aiopplx.cli._status import WORDS
from aiopplx.cli._text import dollars, json_line, many, one_line, safe
from aiopplx.journal import JournalReader, Record, State, open_reader

if TYPE_CHECKING:
    from aiopplx import Job

COLUMNS = ("tag", "status", "question", "text", "sources", "cost", "model", "id", "idempotency_key", "error")

_FORMULA = ("=", "+", "-", "@")


async def export(place: Path, output: str | None, form: ExportFormat, *, partial: bool, force: bool) -> int:
    """Write the journal's submissions, in the order in which they were first queued; 0.

    Args:
        place: the journal.
        output: a file, or the directory for `files`; None is stdout.
        form: the format.
        partial: export even if the run is not finished.
        force: overwrite a file that is not empty.

    Raises:
        UsageError: the run is not finished, or the output cannot be written to.
    """
    with open_reader(place) as journal:
        if not partial:
            _check_whole(journal, place)
        return await code_until_signal(lambda: _export(journal, output, form, force))


def _check_whole(journal: JournalReader, place: Path) -> None:
    counts = journal.counts()
    left = [f"{counts[state]:,} {WORDS[state]}" for state in (*WAITING, State.IN_DOUBT) if counts[state]]
    if not journal.facts()["exhausted"]:
        left.append("not all questions have been read")
    if left:
        raise UsageError(f"{place} is not finished ({', '.join(left)}): --partial exports it as it is")


async def _export(journal: JournalReader, output: str | None, form: ExportFormat, force: bool) -> int:
    if form == "files":
        if output is None or output == STANDARD:
            raise UsageError("--format files needs a directory: -o DIRECTORY")
        summary = _write_files(journal, Path(output), force)
    else:
        rows = Rows(output, force=force, journal=journal.path)
        try:
            count = 0
            if form == "csv":
                await rows.write(_csv_line(COLUMNS))
            for record in every(journal):
                await rows.write(_row(form, record, job_in(journal, record)))
                count += 1
        finally:
            await rows.close()
        summary = f"{many(count, 'submission')} in {rows.name}"
    print(safe(summary), file=sys.stderr)
    return DONE


def _row(form: ExportFormat, record: Record, job: Job) -> bytes:
    if form == "jsonl":
        return json_line({**job.to_dict(), "question": question_of(record)})
    return _csv_row(record, job) if form == "csv" else report(record, job).encode(errors="replace")


def _csv_row(record: Record, job: Job) -> bytes:
    return _csv_line((
        job.tag,
        job.status.value,
        question_of(record),
        job.text,
        "\n".join(source.url for source in job.sources),
        job.cost,
        job.model,
        job.id,
        job.idempotency_key,
        str(job.error or ""),
    ))


def _csv_line(cells: Iterable[object]) -> bytes:
    """One record of RFC 4180.

    Answers are written by a model that has read web pages: a cell that a spreadsheet would read as a formula gets a
    leading apostrophe. JSONL has the exact text.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(_cell(cell) if isinstance(cell, str) else cell for cell in cells)
    return line.getvalue().encode(errors="replace")


def _cell(text: str) -> str:
    cleaned = safe(text)  # first: the characters that it removes may hide the start of a formula
    return f"'{cleaned}" if cleaned.lstrip().startswith(_FORMULA) or cleaned.startswith("\t") else cleaned


def report(record: Record, job: Job) -> str:
    """One submission as Markdown: question, facts, answer, sources."""
    facts = [f"tag: {job.tag}" if job.tag is not None else "", job.status.value, job.model, f"job {job.id}"]
    if job.cost is not None:
        facts.append(dollars(job.cost))
    head = f"# {one_line(question_of(record), 2000) or one_line(job.id)}\n\n"
    summary = one_line(" · ".join(fact for fact in facts if fact), 1000)
    body = on_paper(job) if job.text else f"No result: {one_line(str(job.error or WORDS[record.state]), 1000)}\n"
    return f"{head}*{summary}*\n\n{body}\n"


def _write_files(journal: JournalReader, directory: Path, force: bool) -> str:
    """Write one file per report, named by its number: a title, a tag or an id could name any file of the machine."""
    count = without = 0
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not force and any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty; give --force to write into it, or another name")
        for record in every(journal):
            job = job_in(journal, record)
            if not job.text:
                without += 1
                continue
            _write(directory / f"{record.pk:05}.md", report(record, job))
            count += 1
    except OSError as error:
        raise OutputLost(f"cannot write {error.filename or directory}: {error.strerror}") from None
    more = f"; {many(without, 'submission')} without a report" if without else ""
    return f"{many(count, 'report')} in {directory}{more}"


def _write(path: Path, text: str) -> None:
    # All of it or nothing, and never through a link that another user has put there.
    new = path.with_suffix(".new")
    new.write_bytes(text.encode(errors="replace"))
    os.replace(new, path)
