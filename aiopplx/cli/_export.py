"""`aiopplx export`: the rows that a journal has kept, in the forms and by the rules of the files of `run`.

This module only reads the journal. It holds one record at a time, however many there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import cast

import anyio.lowlevel

from aiopplx._text.amounts import many
from aiopplx.cli._answers import Answers
from aiopplx.cli._columns import LAYOUT, Columns, columns_of_rows
from aiopplx.cli._exits import DONE, LATER, code_until_signal, complain
from aiopplx.cli._files import Ending
from aiopplx.cli._journals import SUFFIX
from aiopplx.cli._options import ExportOptions
from aiopplx.cli._records import job_in
from aiopplx.cli._tally import Tally, Unfinished
from aiopplx.cli._text import tell
from aiopplx.journal import JournalReader, Record, Stage, open_reader, stage_of

_WITHOUT_OUTCOME: tuple[Stage, ...] = ("waiting", "running")


async def export(place: str, options: ExportOptions) -> int:
    """Write what was asked, in the order of its source, and say on stderr what it was.

    Args:
        place: the journal.
        options: which rows, where to and in which forms.

    Returns:
        0, or 75 if something has no outcome yet and was therefore left out.

    Raises:
        UsageError: a file has something else in it, or cannot be written.
        OutputLost: the same, found out while it was written.
    """
    with open_reader(place) as journal:
        return await code_until_signal(lambda: _Export(journal, options).run())


class _Export:
    def __init__(self, journal: JournalReader, options: ExportOptions) -> None:
        self._journal = journal
        self._options = options
        self._is_active = journal.writer() is not None
        self._unfinished = dict.fromkeys(_WITHOUT_OUTCOME, 0)
        self._written = 0

    async def run(self) -> int:
        options, path = self._options, os.fspath(self._journal.path)
        answers = Answers(
            options.output,
            options.output_format,
            self._columns(),
            source=path.removesuffix(SUFFIX),
            journal=path,
            force=options.force,
        )
        ending: Ending = "none"
        try:
            tally = await self._write(answers)
            ending = "whole"
        finally:
            try:
                await answers.close(ending, tell=tell)
            finally:
                for why in answers.lost[1:]:  # the first one is raised
                    complain(why)
        return self._close(answers, tally)

    def _columns(self) -> Columns:
        """The columns of the rows, as the last run has written them."""
        notes = cast("Mapping[str, bytes]", self._journal.facts().get("notes", {}))
        return columns_of_rows((record.meta for record in self._records()), notes.get(LAYOUT, b""))

    def _records(self) -> Iterator[Record]:
        whose = self._options.tenant
        asked = self._journal.asked(every_run=self._options.all)
        return (record for record in asked if whose is None or record.tenant == whose)

    async def _write(self, answers: Answers) -> Tally:
        tally = Tally()
        for at, record in enumerate(self._records()):
            await anyio.lowlevel.checkpoint()
            stage = stage_of(record.state, is_active=self._is_active)
            is_unfinished = stage in _WITHOUT_OUTCOME
            if is_unfinished:
                self._unfinished[stage] += 1
                if not self._options.all:
                    continue
            job = job_in(self._journal, record)
            await answers.write(at, None, job)
            self._written += 1
            if not is_unfinished:
                tally.count(job)
        return tally

    def _close(self, answers: Answers, tally: Tally) -> int:
        unfinished = sum(self._unfinished.values())
        summary = tally.summary(tally.finished + unfinished, Unfinished(running=self._unfinished["running"]))
        said = [f"{summary}. Answers in {answers.name}." if self._written else f"{summary}. Nothing was written."]
        is_open = not self._journal.facts()["exhausted"]
        if unfinished and not self._options.all:
            said.append(
                f"{many(unfinished, 'row')} without an outcome left out; --all writes everything that was ever asked."
            )
        if is_open:
            said.append("Not all questions have been read: the run may have more rows than these.")
        for line in [*said, *answers.notes]:
            tell(line)
        return LATER if (unfinished or is_open) and not self._options.all else DONE
