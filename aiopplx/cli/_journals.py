"""Which journal a run uses, how far an earlier run came, and whether the answers in a file are safe in it.

This module knows nothing of sessions: it only reads a journal that an earlier run has left, and changes nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeGuard

from aiopplx.cli._exits import UsageError, quoted
from aiopplx.cli._files import Old
from aiopplx.cli._options import STANDARD, Connection, JournalOptions, is_url
from aiopplx.cli._records import job_in, question_of
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
    if is_url(source):
        raise UsageError("QUESTIONS is a URL, and no file of questions; --journal takes that of a database")
    if options.journal is not None and options.no_journal:
        raise UsageError("--journal and --no-journal do not go together")
    place = None if options.no_journal else _place(options, source, outputs, connection)
    if place is not None and is_url(place) and options.without_log:
        raise UsageError("--without-log is about a journal in a file, and this one is on PostgreSQL: leave it out")
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
        return os.fspath(options.journal)
    if connection.emulate:  # its jobs end with it: there is nothing to resume
        return None
    for name in (source, *outputs):
        if name != STANDARD and (os.path.isfile(name) or not os.path.exists(name)):
            return name + SUFFIX
    return None


def typed(place: str) -> str:
    """A journal as it is typed after a command."""
    return quoted(place)


def where_its_password_is(place: str) -> str:
    """What to tell beside a command with a journal whose password is not shown; "" if it has none."""
    if getattr(place, "password", None) is None:
        return ""
    return "The URL is shown without its password: PGPASSWORD or the password file (.pgpass) gives it."


def run_of(options: JournalOptions, place: str | None, source: str) -> str | None:
    """The name of the run, by which its questions are found again in a journal that several share; None for a file.

    Raises:
        UsageError: nobody says it.
    """
    if options.run is not None or place is None or not is_url(place):
        return options.run
    if source == STANDARD:
        raise UsageError("questions from stdin have no name: give --run NAME, by which they are found again")
    return os.path.basename(source)


def _is_there(place: str | None) -> TypeGuard[str]:
    """Whether an earlier run may have left something there."""
    return place is not None and (is_url(place) or os.path.exists(place))


def reader_at(place: str | None) -> contextlib.AbstractContextManager[JournalReader | None]:
    """The journal for reading; None if there is none yet."""
    if not _is_there(place):
        return contextlib.nullcontext()
    try:
        return open_reader(place)
    except JournalRefused as error:
        if error.reason == "missing" or (error.reason == "older" and not is_url(place)):  # the run will migrate it
            return contextlib.nullcontext()
        raise


def counts_of(place: str) -> dict[Stage, int] | None:
    """Submissions by stage, from an earlier run; None if there was none."""
    with reader_at(place) as journal:
        return stages_of(journal) if journal is not None else None


def spent_in(place: str | None) -> float:
    """US dollars that all runs of a journal have spent, as far as that is known."""
    with reader_at(place) as journal:
        return journal.ledger(samples=0).spent if journal is not None else 0.0


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
    """Running jobs of the journal, except those whose ids are `known`, and those that another session waits for."""
    ids = set(known)
    with open_reader(place) as journal:
        return [record for record in records_at(journal, "running") if record.job_id not in ids and not record.is_held]


def every(journal: JournalReader) -> Iterable[Record]:
    """All records, in the order in which they were first queued."""
    return records_at(journal)


def all_known(rows: Iterable[Old], place: str | None) -> bool:
    """True if everything in a file of answers is also in the journal, so that a run can write it again.

    What the user has had asked anew and paid for again is known too; its old answer is not in the journal. A row of a
    table that is in doubt has neither key nor id, and is known by its question.

    Args:
        rows: of the file.
        place: the journal; None if the run has none.
    """
    if not _is_there(place):
        return False
    with open_reader(place) as journal:
        unknown = known = 0
        nameless: set[str] = set()
        for row in rows:
            record = journal.get(key=row.key) if row.key else journal.get(job_id=row.job_id) if row.job_id else None
            if record is None and journal.replacement(key=row.key, job_id=row.job_id):
                known += 1
                continue
            if row.has_answer and not (record is not None and record.has_result):
                return False
            known += record is not None
            if record is None and row.status not in _WORTHLESS:
                unknown += 1
                if not (row.key or row.job_id):
                    nameless.add(_words(row.question))
        if nameless and not known:
            known += any(_words(record.question or question_of(record)) in nameless for record in every(journal))
    # A row of a refused question has neither a key nor an id. In a file of another run no row is known.
    return not unknown or bool(known)


def _words(question: str) -> str:
    return " ".join(question.split())


def superseded(names: Iterable[str], written: Collection[str], place: str | None) -> set[str]:
    """Those submissions that the user has had asked anew and whose new answer has been written.

    Args:
        names: keys or ids of submissions.
        written: keys and ids of what has been written.
        place: the journal; None if the run has none.
    """
    if not _is_there(place):
        return set()
    with open_reader(place) as journal:
        news = {name: journal.replacement(key=name, job_id=name) for name in names}
    return {name for name, new in news.items() if new is not None and {new.key, new.job_id} & {*written}}


def knows_any(ids: Iterable[str], place: str | None) -> bool:
    """True if one of these jobs is in the journal: then they are of a report of an earlier run."""
    if not _is_there(place):
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
    if not _is_there(place):
        return
    with open_reader(place) as journal:
        asked = {record.pk for record in journal.asked()}
        for record in journal.asked(every_run=True):
            is_other = record.state.is_final and record.job_id and record.job_id not in ids
            if is_other and (record.pk in asked or has(record.job_id)):
                yield job_in(journal, record)
