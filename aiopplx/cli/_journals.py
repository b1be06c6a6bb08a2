"""Which journal a run uses, how far an earlier run came, and whether the answers in a file are safe in it.

This module knows nothing of sessions: it only reads a journal that an earlier run has left, and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from aiopplx.cli._exits import UsageError
from aiopplx.cli._files import Old
from aiopplx.cli._options import STANDARD, Connection, JournalOptions
from aiopplx.cli._records import job_in
from aiopplx.journal import JournalReader, JournalRefused, Record, Stage, open_reader, records_at, stages_of

if TYPE_CHECKING:
    from aiopplx import Job

SUFFIX = ".journal.db"

# Status of rows in an output file that can be overwritten: they hold nothing paid, or nothing worth keeping.
_WORTHLESS = ("REJECTED", "STOPPED", "FAILED", "EXPIRED", "CANCELLED")


def place_of(options: JournalOptions, source: str, outputs: Sequence[str], connection: Connection) -> str | None:
    """The path of the journal; None for a run without one.

    It lies beside the questions and not beside the answers, so that a run with another output file does not pay again.

    Raises:
        UsageError: options that do not go together.
    """
    if options.journal is not None and options.no_journal:
        raise UsageError("--journal and --no-journal do not go together")
    place = None if options.no_journal else _place(options, source, outputs, connection)
    for name, given in (
        ("--retry-failed", options.retry_failed),
        ("--replace", options.replace),
        ("--same-account", options.same_account),
        ("--without-log", options.without_log),
        ("--results", options.results),
        ("--wait", options.wait),
    ):
        if given and place is None:
            raise UsageError(f"{name} needs a journal: give --journal FILE")
    return place


def _place(options: JournalOptions, source: str, outputs: Sequence[str], connection: Connection) -> str | None:
    if options.journal is not None:
        return str(options.journal)
    if connection.emulate:  # its jobs end with it: there is nothing to resume
        return None
    for name in (source, *outputs):
        if name != STANDARD and (os.path.isfile(name) or not os.path.exists(name)):
            return name + SUFFIX
    return None


def counts_of(place: str) -> dict[Stage, int] | None:
    """Submissions by stage, from an earlier run; None if there was none."""
    if not os.path.exists(place):
        return None
    try:
        with open_reader(place) as journal:
            return stages_of(journal)
    except JournalRefused as error:
        if error.reason == "older":  # the run will migrate it
            return None
        raise


def spent_in(place: str | None) -> float:
    """US dollars that all runs of a journal have spent, as far as that is known."""
    if place is None or not os.path.exists(place):
        return 0.0
    try:
        with open_reader(place) as journal:
            return journal.ledger(samples=0).spent
    except JournalRefused as error:
        if error.reason == "older":
            return 0.0
        raise


def resuming(counts: dict[Stage, int]) -> str:
    """What an earlier run has left, for a person to read; "" if there is nothing to resume.

    The number of questions left is not given: the file may have changed, and only the run itself finds out which of its
    questions the journal knows.
    """
    finished, running = counts.get("finished", 0) + counts.get("failed", 0), counts.get("running", 0)
    doubt = counts.get("in doubt", 0)
    facts = [f"{finished:,} finished", f"{running:,} running"]
    if doubt:
        facts.append(f"{doubt:,} in doubt")
    return f"resuming: the journal has {', '.join(facts)}" if finished + running + doubt else ""


def others_running(place: str, known: Iterable[str]) -> list[Record]:
    """Running jobs of the journal, except those whose ids are `known`."""
    ids = set(known)
    with open_reader(place) as journal:
        return [record for record in records_at(journal, "running") if record.job_id not in ids]


def every(journal: JournalReader) -> Iterable[Record]:
    """All records, in the order in which they were first queued."""
    return records_at(journal)


def all_known(rows: Iterable[Old], place: str | None) -> bool:
    """True if everything in a file of answers is also in the journal, so that a run can write it again.

    What the user has had asked anew and paid for again is known too; its old answer is not in the journal.

    Args:
        rows: of the file.
        place: the journal; None if the run has none.
    """
    if place is None or not os.path.exists(place):
        return False
    with open_reader(place) as journal:
        unknown = known = 0
        for row in rows:
            record = journal.get(key=row.key) if row.key else journal.get(job_id=row.job_id) if row.job_id else None
            if record is None and journal.replacement(key=row.key, job_id=row.job_id):
                known += 1
                continue
            if row.has_answer and not (record is not None and record.has_result):
                return False
            known += record is not None
            unknown += record is None and row.status not in _WORTHLESS
    # A row of a refused question has neither a key nor an id. In a file of another run no row is known.
    return not unknown or bool(known)


def superseded(names: Iterable[str], written: Collection[str], place: str | None) -> set[str]:
    """Those submissions that the user has had asked anew and whose new answer has been written.

    Args:
        names: keys or ids of submissions.
        written: keys and ids of what has been written.
        place: the journal; None if the run has none.
    """
    if place is None or not os.path.exists(place):
        return set()
    with open_reader(place) as journal:
        news = {name: journal.replacement(key=name, job_id=name) for name in names}
    return {name for name, new in news.items() if new is not None and {new.key, new.job_id} & {*written}}


def knows_any(ids: Iterable[str], place: str | None) -> bool:
    """True if one of these jobs is in the journal: then they are of a report of an earlier run."""
    if place is None or not os.path.exists(place):
        return False
    with open_reader(place) as journal:
        return any(journal.get(job_id=job_id) is not None for job_id in ids)


def finished_besides(ids: Collection[str], place: str | None, *, has: Callable[[str], bool]) -> Iterator[Job]:
    """Finished jobs of the journal that have other ids than these, in the order in which they were asked.

    Args:
        ids: of jobs that are known.
        place: the journal; None if the run has none.
        has: called with an id; says whether a job that only earlier runs asked for is wanted as well.
    """
    if place is None or not os.path.exists(place):
        return
    with open_reader(place) as journal:
        asked = {record.pk for record in journal.asked()}
        for record in journal.asked(every_run=True):
            is_other = record.state.is_final and record.job_id and record.job_id not in ids
            if is_other and (record.pk in asked or has(record.job_id)):
                yield job_in(journal, record)
