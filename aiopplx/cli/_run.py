"""`aiopplx run`: reads a file of questions, writes a line of JSON for each as it finishes.

This module joins the parts of a run: questions, session, rows, numbers, display. How each works is in its own module.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from aiopplx._text.amounts import many
from aiopplx.cli._answers import Answers, check_journal, needs_columns
from aiopplx.cli._columns import LAYOUT, Columns, columns_of
from aiopplx.cli._connect import Connected, journal_at, retry_policy
from aiopplx.cli._consent import Agreement, Declined, has_to_agree
from aiopplx.cli._course import Course
from aiopplx.cli._exits import (
    DONE,
    FAILED,
    IN_DOUBT,
    INTERRUPTED,
    LATER,
    PIPE_CLOSED,
    USAGE,
    Interrupted,
    OutputLost,
    UsageError,
    complain,
    exit_code,
    told,
    until_signal,
    why_not,
)
from aiopplx.cli._files import Ending
from aiopplx.cli._journals import (
    counts_of,
    others_running,
    place_of,
    resuming,
    run_of,
    spent_in,
    typed,
    where_its_password_is,
)
from aiopplx.cli._look import Found, RowsRefused, check_rows, for_a_program, what_is_asked, what_it_is
from aiopplx.cli._options import Connection, JournalOptions, RunOptions, TableOptions
from aiopplx.cli._price import PILOT
from aiopplx.cli._progress import View, make_view
from aiopplx.cli._questions import Held, Origin, Questions, is_typed, open_questions
from aiopplx.cli._tally import Tally, Unfinished
from aiopplx.cli._text import clock, one_line, print_json, tell
from aiopplx.journal import JournalError
from aiopplx.tables import BadRow, TableError

if TYPE_CHECKING:
    from aiopplx import AiopplxError, Batch, Estimate, Event, Job

MANY = 20
"""Up to this many running ids are all printed; the journal lists more."""

DRY = "Nothing was sent. Leave out --dry-run to run it"

_LAST = 1 << 40
"""A position after those of all questions."""

FIRST = 10
"""If there are more, this many are printed, to look up."""


async def run(
    questions: str, options: RunOptions, table: TableOptions, journal: JournalOptions, connection: Connection
) -> int:
    """Run a file of questions to its end and return the exit code.

    Raises:
        UsageError: the questions or the output file cannot be used.
        TableError: the file is not surely a table or questions.
        AiopplxError: the session could not be built, or the journal could not be opened.
    """
    return await _Run(questions, options, table, journal, connection).run()


class _Run:
    def __init__(
        self,
        questions: str,
        options: RunOptions,
        table: TableOptions,
        journal: JournalOptions,
        connection: Connection,
    ) -> None:
        self._options = options
        self._journal_options = journal
        self._place = place_of(journal, questions, options.output, connection)
        self._run_name = run_of(journal, self._place, questions)
        self._connection = connection
        self._table_options = table
        self._questions: Questions
        self._source = questions
        self._tally = Tally()
        self._held: deque[tuple[int, Origin, Job]] = deque()
        self._written = 0
        self._warned: set[str] = set()
        self._unsent_because: AiopplxError | None = None
        self._timed_out: list[str] = []
        self._batch: Batch | None = None
        self._resuming = ""
        self._view: View
        self._columns: Columns
        self._course: Course
        self._answers: Answers
        self._are_closed = False
        self._has_named_journal = False
        self._has_tables = needs_columns(options)
        self._agreement: Agreement
        self._in_all: Estimate | None = None
        self._has_begun = False

    async def run(self) -> int:
        self._connection.check()
        self._options.check()
        if not self._connection.emulate:
            check_journal(self._options, self._journal_options, place=self._place)
        if is_typed(self._source) and not self._options.quiet:
            self._tell("Reading questions from the terminal, one a line; Ctrl-D ends them.")
        try:
            return await self._opened()
        except asyncio.CancelledError:
            if not self._has_begun:
                self._tell("Stopped by Ctrl-C. Nothing was sent.")
            raise
        except (UsageError, TableError) as error:
            if self._options.json:
                print_json(Found(source=self._source.lstrip("\0"), journal=self._shown_place, refused=told(error)))
            raise

    async def _opened(self) -> int:
        self._questions = await open_questions(
            self._source,
            self._table_options,
            limit=self._options.limit,
            model=self._options.model,
            whole=self._options.needs_look or needs_columns(self._options) or has_to_agree(self._source, self._options),
            unique=self._options.unique,
            on_bad=self._reject,
        )
        self._agreement = Agreement(
            self._questions,
            self._options,
            self._connection,
            self._place,
            run=self._run_name,
            retry_failed=self._journal_options.retry_failed,
            replace=self._journal_options.replace,
            skip_bad=self._table_options.skip_bad,
        )
        try:
            return await self._looked_at()
        finally:
            await self._questions.close()

    async def _looked_at(self) -> int:
        try:
            self._tell_look()
        except RowsRefused as refused:
            for line in refused.said:
                self._tell(line)
            if self._options.json:
                self._print_found(refused.said[-1])
            return USAGE
        await self._agreement.reckon()
        if self._agreement.said and not self._options.quiet and not self._options.dry_run:
            self._tell(self._agreement.said)
        self._columns = columns_of(self._questions.seen)
        self._answers = Answers(
            self._options.output,
            self._options.output_format,
            self._columns,
            source=self._source,
            journal=self._place,
            force=self._options.force,
            as_finished=self._options.as_finished,
        )
        try:
            if not self._options.dry_run:
                return await self._watched()
        finally:
            await self._close_answers("none")
        self._tell_plan()
        return DONE

    def _tell_plan(self) -> None:
        """Say what would be asked, and what that would cost."""
        seen = self._questions.seen
        if seen is None:
            return
        if self._options.json:
            self._print_found(None)
        elif not self._options.quiet:
            price = [f"  {said}"] if (said := self._agreement.said) else []
            found = self._agreement.price
            advice = f"; --pilot {PILOT} tries five first" if found is not None and found.rest.count > PILOT else ""
            for line in [*what_is_asked(seen, limit=self._options.limit), *price, f"{DRY}{advice}."]:
                self._tell(line)

    def _print_found(self, refused: str | None) -> None:
        seen, price = self._questions.seen, self._agreement.price
        if seen is not None:
            estimate = price.rest if price is not None else None
            unique, limit = self._options.unique, self._options.limit
            print_json(
                for_a_program(
                    seen, estimate=estimate, journal=self._shown_place, refused=refused, unique=unique, limit=limit
                )
            )

    @property
    def _shown_place(self) -> str | None:
        """The journal as plain text, as msgspec encodes no subclass of it."""
        return None if self._place is None else str(self._place)

    async def _close_answers(self, ending: Ending) -> None:
        if not self._are_closed:
            self._are_closed = True
            await self._answers.close(ending, tell=lambda text: None if self._options.quiet else self._tell(text))

    def _tell(self, text: str) -> None:
        tell(text, as_json=self._options.progress == "json")

    def _tell_look(self) -> None:
        """Say what the file is and which of its rows cannot be used. Raises `RowsRefused`."""
        seen = self._questions.seen
        if seen is None:
            return
        if not self._options.quiet or (seen.bad and not self._table_options.skip_bad):
            self._tell(what_it_is(seen, unique=self._options.unique))
        for line in check_rows(seen, skip_bad=self._table_options.skip_bad):
            if not self._options.quiet:
                self._tell(line)

    async def _watched(self) -> int:
        on_screen = self._answers.is_terminal
        options = self._options
        self._course = self._made_course()
        with make_view(
            self._course.facts, options.progress, quiet=options.quiet, rows_on_screen=on_screen
        ) as self._view:
            self._greet(on_screen)
            ending = await self._ending()
            self._view.stop()
            try:
                is_whole = ending is None and self._questions.has_ended
                await self._close_answers("whole" if is_whole else "part")
            except (OutputLost, Interrupted) as lost:
                ending = ending or lost
            if ending is not None and self._resuming:
                self._in_all = await self._agreement.recounted()
            return self._close(ending)

    def _made_course(self) -> Course:
        questions, budget = self._questions, self._options.max_cost
        course = Course(
            self._tally,
            self._total,
            lambda index: origin.place if (origin := questions.origins.get(index)) else "",
            files=f"from {questions.name}" + (f" into {self._answers.name}" if self._options.output else ""),
            journal=self._place or "",
            max_cost=budget,
            spent=spent_in(self._place) if budget is not None else 0.0,
        )
        price = self._agreement.price
        if price is not None and not self._connection.emulate:  # whose costs are invented
            course.expects(price.next)
        return course

    def _total(self) -> int | None:
        return self._agreement.total or self._questions.total

    def _greet(self, on_screen: bool) -> None:
        if self._connection.emulate:
            self._view.remark("Emulated: the answers are invented, nothing is billed.")
        if on_screen:
            self._view.remark(
                "Answers come to this terminal as JSON; -o FILE keeps them and shows the progress instead."
            )
        counts = counts_of(self._place) if self._place is not None else None
        self._resuming = resuming(counts) if counts is not None else ""

    async def _ending(self) -> BaseException | None:
        """The error or signal that ended the run early; None if it ran to its end."""
        from aiopplx import AiopplxError

        self._has_begun = True  # from here on Ctrl-C is heard by `until_signal`
        try:
            await until_signal(self._all, at_exit=self._end_at_once)
        except (AiopplxError, Interrupted, BrokenPipeError, OutputLost, UsageError, Declined) as early:
            return early
        return None

    async def _all(self) -> None:
        options = self._options
        await self._agreement.before()
        self._view.start()
        async with Connected(
            self._connection,
            on_event=self._on_event,
            rpm=options.rpm,
            max_in_flight=options.max_in_flight,
            timeout=options.timeout,
            journal=journal_at(
                self._place, self._journal_options, run=self._run_name, notes={LAYOUT: self._columns.note()}
            ),
            retry=retry_policy(self._journal_options.on_doubt),
            max_cost=options.max_cost,
        ) as session:
            if self._resuming and not self._agreement.said:
                self._view.remark(f"{self._resuming} ({self._place})")
            where = self._answers.name if options.output else ""
            if not (options.quiet or options.progress == "none"):
                self._course.session = session
            self._agreement.begin(
                lambda: self._tally.cost,
                where,
                hide=self._view.stop,
                show=self._view.start,
                expects=self._course.expects,
            )
            self._batch = session.batch(
                self._questions, ordered=options.in_order, cancel_on_exit=options.cancel_on_exit
            )
            with contextlib.suppress(Held):
                async with self._batch as jobs:
                    async for job in jobs:
                        await self._finish(job)
            await self._write_held(math.inf)

    async def _finish(self, job: Job) -> None:
        origin = self._questions.take(job.index)
        if job.index is not None:
            await self._write_held(job.index)
        self._written += 1
        if origin is not None and origin.columns and self._has_tables:
            job = _with(job, origin.columns)
        # A job without an origin cannot be: it would come after all others.
        at, line = (origin.at, origin.line) if origin else (_LAST + self._written, None)
        await self._answers.write(at, line, job)
        self._tally.count(job)
        self._agreement.came(job.index, origin, job)
        if passed := self._agreement.passed(self._tally.paid):
            self._view.say(passed)
        for twin in origin.twins if origin else ():
            again = msgspec.structs.replace(job, tag=twin.tag, meta=twin.meta)
            await self._answers.write(twin.at, twin.line, again)
            self._tally.count(again)
        where = origin.place if origin else f"job {job.id}"
        if job.ok:
            preview = origin.preview if origin else one_line(job.question)
            self._course.answered(where, preview, job, is_shown=self._view.shows_answers)
        elif job.status == "STOPPED":  # there are many, all for one reason, which is printed once
            self._unsent_because = self._unsent_because or _of_all(job)
        else:
            self._view.say(f"{where}: {_failure(job)}")
        if job.status == "TIMED_OUT":
            self._timed_out.append(job.id)
        self._course.reckon()
        self._view.update()

    async def _reject(self, bad: BadRow, origin: Origin, before: int) -> None:
        from aiopplx import InvalidRequest, Job, JobStatus

        meta = {name: _writable(value) for name, value in origin.columns.items() if name in self._columns.own}
        job = Job(status=JobStatus.REJECTED, error=InvalidRequest(why_not(bad)), meta=meta)
        self._tally.count(job)
        if self._questions.seen is None:  # else it was told when the file was looked at
            self._view.say(f"{bad.place}: {_failure(job)}")
        if self._options.in_order and self._written < before:
            self._held.append((before, origin, job))
        else:
            await self._answers.write(origin.at, origin.line, job)

    async def _write_held(self, index: float) -> None:
        """Write the rows of bad lines that precede question `index` and had to wait for their turn."""
        while self._held and self._held[0][0] <= index:
            _, origin, job = self._held.popleft()
            await self._answers.write(origin.at, origin.line, job)

    def _on_event(self, event: Event) -> None:
        self._tally.on_event(event, time.monotonic())
        if event.kind == "submitted":
            self._course.submitted()
        elif event.kind in ("paused", "retrying"):
            what = "Submissions pause" if event.kind == "paused" else "A retry waits"
            self._view.waits(what, event.reason, event.delay)
        elif event.kind == "warning" and event.reason not in self._warned and len(self._warned) < 100:
            self._warned.add(event.reason)
            self._view.remark(one_line(event.reason))
        self._course.reckon()
        self._view.update()

    def _close(self, ending: BaseException | None) -> int:
        """Print how the run ended, and what is still running; returns the exit code."""
        if ending is None and not self._tally.finished:
            raise UsageError(f"no questions in {self._questions.name}")
        self._say_why(ending)
        unfinished = self._say_unfinished()
        self._summary(ending, unfinished)
        if self._place is not None and not self._connection.emulate:
            is_stopped = isinstance(ending, Interrupted) and self._tally.touched
            self._say_what_next(self._place, is_stopped or bool(unfinished.running or unfinished.in_doubt))
        self._say_remarks()
        return self._code(ending)

    def _command(self, name: str, place: str, *words: str) -> str:
        self._has_named_journal = True
        return " ".join(["aiopplx", name, typed(place), *words])

    def _say_remarks(self) -> None:
        """Say what the commands that were named need, and which lines of a stream were left out, as a question may
        begin with # as well.
        """
        if self._place is not None and self._has_named_journal and (hint := where_its_password_is(self._place)):
            self._view.remark(hint)
        if self._questions.remarks and self._tally.touched:
            self._view.remark(self._questions.remarks)

    def _end_at_once(self) -> None:
        """The process ends now: say what is known without waiting for anything."""
        self._view.stop()
        running = list(self._tally.running)
        if running and not self._connection.emulate:
            self._view.say(
                f"Ended at once. {many(len(running), 'job')} may still be running; they continue at the service and are"
                " billed:"
            )
            shown = running if self._place is None or len(running) <= MANY else running[:FIRST]
            for job_id in shown:
                self._view.say(f"  {job_id}")
            if self._place is not None and len(shown) < len(running):
                self._view.say(f"  ...; {self._command('status', self._place, '--running')} lists all")

    def _say_why(self, ending: BaseException | None) -> None:
        if isinstance(ending, Interrupted):
            self._view.say(f"Stopped by {ending.name}.{'' if self._tally.touched else ' Nothing was sent.'}")
        elif isinstance(ending, Declined):
            self._view.say("Nothing was sent.")
        elif ending is not None and not isinstance(ending, BrokenPipeError):
            complain(ending)
            self._say_which_journal(ending)
        elif self._unsent_because is not None:
            complain(self._unsent_because)
        for why in self._answers.lost:
            if why != str(ending):
                complain(why)
        if self._place is not None and (self._answers.lost or isinstance(ending, OutputLost)):
            self._view.say(f"No answer is lost: {self._place} has them all, and gives them to the same command.")

    def _say_which_journal(self, ending: BaseException) -> None:
        """Explain where a journal comes from that no option named."""
        from aiopplx.journal import JournalRefused

        if isinstance(ending, JournalRefused) and self._journal_options.journal is None:
            self._view.say(
                "A run keeps a journal beside its questions; --journal FILE names another, --no-journal none."
            )

    def _say_unfinished(self) -> Unfinished:
        """Print the unfinished submissions; returns their numbers."""
        pending = self._batch.pending if self._batch else []
        running = [job for job in pending if job.id and _goes_on(job) and job.id not in self._tally.cancelling]
        if cancelled := [job for job in pending if job.id in self._tally.cancelling]:
            self._view.say(f"{many(len(cancelled), 'job')} cancelled at the service; the work done so far is billed.")
        if running:
            self._say_running(running)
        lost = [job for job in pending if not job.id]
        for job in lost:
            self._view.say(
                f"in doubt, a job may exist and be billed: idempotency key {job.idempotency_key}{self._where(job)}"
            )
        named = {job.id for job in (*running, *cancelled)}
        finished = self._tally.unwritten | {job.id for job in pending if job.id}
        return Unfinished(len(running), len(cancelled), len(finished - named), len(lost))

    def _say_running(self, running: list[Job]) -> None:
        fate = "they continue at the service and are billed"
        if self._connection.emulate:
            fate = "the service would continue and bill them; here they end with the emulator"
        # This start has only seen those that it came to.
        count = len(running)
        if self._in_all is not None:
            count = max(count, self._in_all.running - len(self._tally.cancelling))
        self._view.say(f"{many(count, 'job')} still running; {fate}:")
        # Without a journal the ids are recorded nowhere else.
        shown = running if self._place is None or len(running) <= MANY else running[:FIRST]
        for job in shown:
            self._view.say(f"  {job.id}{self._where(job)}")
        if self._place is not None and len(shown) < count:
            self._view.say(f"  ...; {self._command('status', self._place, '--running')} lists all")
        if not self._connection.emulate and self._place is None:
            self._view.say("See one with: aiopplx get ID (the service keeps results for days); --wait waits for it.")

    def _say_what_next(self, place: str, is_unfinished: bool) -> None:
        """Print how to continue from the journal."""
        if self._tally.in_doubt:
            self._view.remark(f"Review the submissions in doubt with: {self._command('review', place)}")
        if is_unfinished or self._tally.unsent or self._timed_out:
            self._view.remark(f"Run the same command again to resume from {place}; nothing is paid twice.")
        elif self._tally.finished and self._options.limit is None:
            self._say_others(place)

    def _say_others(self, place: str) -> None:
        try:
            others = others_running(place, self._timed_out)
        except JournalError as error:  # the answers are written: what cannot be looked up is no failure of the run
            self._view.remark(f"Whether other jobs of the journal still run could not be looked up: {error.message}.")
            return
        if others:
            ids = " ".join(record.job_id for record in others[:20])
            self._view.remark(
                f"{many(len(others), 'job')} of the journal, not among these questions, may still be running:"
                f" {self._command('adopt', place, ids, '--wait')}"
            )

    def _where(self, job: Job) -> str:
        origin = self._questions.take(job.index)
        return f"  {origin.place}: {one_line(origin.preview, 40)}" if origin else ""

    def _summary(self, ending: BaseException | None, unfinished: Unfinished) -> None:
        if isinstance(ending, BrokenPipeError) or not (self._tally.touched or unfinished.total):
            return
        is_file = self._answers.name not in ("", "stdout") and self._tally.finished
        what = "Answers" if self._tally.finished > self._tally.unsent else "The questions, without answers, are"
        place = f" {what} in {self._answers.name}." if is_file else ""
        total = self._questions.read if self._questions.total is None else self._questions.total
        # In a resumed run, questions that were not reached may have been finished by an earlier run.
        rest = "not reached" if self._resuming else "not sent"
        price = self._agreement.price
        if self._in_all is not None and price is not None:
            summary = self._tally.in_all(
                total, price.rest, self._in_all, cancelled=unfinished.cancelled, spent=self._spent_by_now()
            )
        else:
            summary = self._tally.summary(None if ending is None else total, unfinished, rest=rest)
        for note in self._answers.notes:
            self._view.remark(note)
        if not self._agreement.has_told:
            self._view.remark(f"{summary}, {clock(self._view.elapsed)}.{place}")

    def _spent_by_now(self) -> float:
        try:
            return spent_in(self._place)
        except JournalError:
            return self._tally.paid

    def _code(self, ending: BaseException | None) -> int:
        from aiopplx import AiopplxError

        if isinstance(ending, Interrupted):
            return ending.code
        if isinstance(ending, Declined) or self._agreement.declined:
            return INTERRUPTED
        if isinstance(ending, AiopplxError):
            return exit_code(ending)
        if isinstance(ending, BrokenPipeError):
            return PIPE_CLOSED
        if ending is not None:
            return USAGE if isinstance(ending, UsageError) else LATER
        if self._tally.in_doubt:
            return IN_DOUBT
        return LATER if self._tally.unsent else FAILED if self._tally.failed else DONE


def _writable(cell: Any) -> Any:
    """A cell of a row that was refused, perhaps for what is in it: half a character is written in no file."""
    try:
        msgspec.json.encode(cell)
    except (TypeError, ValueError, RecursionError):
        return str(cell).encode(errors="replace").decode()
    return cell


def _with(job: Job, columns: Mapping[str, Any]) -> Job:
    return msgspec.structs.replace(job, meta={**job.meta, **columns})


def _goes_on(job: Job) -> bool:
    return not job.done or job.status == "TIMED_OUT"


def _of_all(job: Job) -> AiopplxError | None:
    """Why a question was not sent, without the facts of that one question: the others were not for the same reason."""
    if job.error is None:
        return None
    error = job.error.about()
    error.idempotency_key, error.tag = "", None
    return error


def _failure(job: Job) -> str:
    error: AiopplxError | None = job.error
    said = one_line(error.message) if error is not None else "no reason given"
    named = (
        f" (job {job.id})"
        if job.id
        else f" (idempotency key {job.idempotency_key})"
        if job.status == "IN_DOUBT"
        else ""
    )
    return f"{job.status.value.lower().replace('_', ' ')}: {said}{named}"
