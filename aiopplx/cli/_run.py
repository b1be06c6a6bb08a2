"""Room: `aiopplx run`: a file of questions goes in, a line of JSON for each comes out as it is finished.

This module knows how the parts of a run play together; what each of them does is in their own rooms.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from typing import TYPE_CHECKING

from aiopplx.cli._connect import Connected
from aiopplx.cli._exits import (
    DONE,
    FAILED,
    IN_DOUBT,
    PIPE_CLOSED,
    USAGE,
    Interrupted,
    OutputLost,
    UsageError,
    complain,
    exit_code,
    until_signal,
)
from aiopplx.cli._options import Connection, RunOptions
from aiopplx.cli._progress import View, make_view
from aiopplx.cli._questions import BadLine, Questions
from aiopplx.cli._rows import Rows
from aiopplx.cli._tally import Tally
from aiopplx.cli._text import clock, json_line, many, one_line

if TYPE_CHECKING:
    from aiopplx import AiopplxError, Batch, Event, Job


async def run(questions: str, options: RunOptions, connection: Connection) -> int:
    """Run a file of questions to its end and return the exit code.

    Raises:
        UsageError: the questions or the output file are not fit to begin with.
        AiopplxError: the session could not be built.
    """
    return await _Run(questions, options, connection).play()


class _Run:
    def __init__(self, questions: str, options: RunOptions, connection: Connection) -> None:
        self._options = options
        self._connection = connection
        self._questions = Questions(
            questions,
            form=options.format,
            limit=options.limit,
            defaults={"model": options.model} if options.model else None,
            on_bad=self._reject,
        )
        self._source = questions
        self._tally = Tally()
        self._held: deque[tuple[int, bytes]] = deque()
        self._written = 0
        self._warned: set[str] = set()
        self._batch: Batch | None = None
        self._view: View
        self._rows: Rows

    async def play(self) -> int:
        self._connection.check()
        if self._questions.is_terminal and not self._options.quiet:
            print("Reading questions from the terminal, one a line; Ctrl-D ends them.", file=sys.stderr)
        await self._questions.open()
        self._rows = Rows(self._options.output, force=self._options.force, source=self._source)
        try:
            return await self._watched()
        finally:
            await self._questions.close()
            await self._rows.close()

    async def _watched(self) -> int:
        on_screen = self._rows.is_terminal
        with make_view(self._tally, self._questions, quiet=self._options.quiet, rows_on_screen=on_screen) as self._view:
            self._greet(on_screen)
            ending = await self._ending()
            self._view.stop()
            return self._close(ending)

    def _greet(self, on_screen: bool) -> None:
        if self._connection.emulate:
            self._view.remark("Emulated: the answers are invented, nothing is billed.")
        if on_screen:
            self._view.remark(
                "Answers come to this terminal as JSON; -o FILE keeps them and shows the progress instead."
            )
        self._questions.count_ahead()

    async def _ending(self) -> BaseException | None:
        """What ended the run before its time; None if nothing did."""
        from aiopplx import AiopplxError

        try:
            await until_signal(self._all, at_exit=self._view.stop)
        except (AiopplxError, Interrupted, BrokenPipeError, OutputLost, UsageError) as early:
            return early
        return None

    async def _all(self) -> None:
        options = self._options
        async with Connected(
            self._connection,
            on_event=self._hear,
            rpm=options.rpm,
            max_in_flight=options.max_in_flight,
            timeout=options.timeout,
        ) as session:
            self._batch = session.batch(self._questions, ordered=options.in_order)
            async with self._batch as jobs:
                async for job in jobs:
                    await self._finish(job)
            await self._write_held(math.inf)

    async def _finish(self, job: Job) -> None:
        origin = self._questions.take(job.index)
        if job.index is not None:
            await self._write_held(job.index)
        await self._rows.write(json_line({**job.to_dict(), "line": origin.line if origin else None}))
        self._written += 1
        self._tally.count(job)
        where = f"line {origin.line}" if origin else f"job {job.id}"
        if job.ok:
            self._view.latest(f"{where}: {origin.preview if origin else ''}")
        elif job.status != "STOPPED":  # those are many and alike: the error that stopped them is told once
            self._view.say(f"{where}: {_failure(job)}")
        self._view.update()

    async def _reject(self, bad: BadLine, before: int) -> None:
        from aiopplx import InvalidRequest, Job, JobStatus

        job = Job(status=JobStatus.REJECTED, error=InvalidRequest(bad.reason))
        self._tally.count(job)
        self._view.say(f"line {bad.line}: {_failure(job)}")
        row = json_line({**job.to_dict(), "line": bad.line})
        if self._options.in_order and self._written < before:
            self._held.append((before, row))
        else:
            await self._rows.write(row)

    async def _write_held(self, index: float) -> None:
        """Write the rows of bad lines that stood before question `index` and had to wait for their turn."""
        while self._held and self._held[0][0] <= index:
            await self._rows.write(self._held.popleft()[1])

    def _hear(self, event: Event) -> None:
        self._tally.hear(event)
        if event.kind in ("paused", "retrying"):
            self._view.waiting(event.reason, event.delay)
        elif event.kind == "warning" and event.reason not in self._warned and len(self._warned) < 100:
            self._warned.add(event.reason)
            self._view.remark(one_line(event.reason))
        self._view.update()

    def _close(self, ending: BaseException | None) -> int:
        """Say how it ended, and what still runs; the exit code."""
        if ending is None and not self._tally.finished:
            raise UsageError(f"no questions in {self._questions.name}")
        self._say_why(ending)
        self._say_left()
        self._summary(ending)
        return self._code(ending)

    def _say_why(self, ending: BaseException | None) -> None:
        if isinstance(ending, Interrupted):
            self._view.say(f"Stopped by {ending.name}.")
        elif ending is not None and not isinstance(ending, BrokenPipeError):
            complain(str(ending))

    def _say_left(self) -> None:
        left = self._batch.pending if self._batch else []
        running = [job for job in left if job.id]
        lost = [job for job in left if not job.id]
        if running:
            fate = "they go on, and are billed, at the service"
            if self._connection.emulate:
                fate = "at the service they would go on, and be billed; here they end with the emulator"
            self._view.say(f"{many(len(running), 'job')} still running; {fate}:")
            for job in running:
                self._view.say(f"  {job.id}{self._stood(job)}")
        if running and not self._connection.emulate:
            self._view.say("See one with: aiopplx get ID (its result is kept for days); --wait waits for it.")
        for job in lost:
            self._view.say(
                f"in doubt, it may exist and be billed: idempotency key {job.idempotency_key}{self._stood(job)}"
            )

    def _stood(self, job: Job) -> str:
        origin = self._questions.take(job.index)
        return f"  line {origin.line}: {one_line(origin.preview, 40)}" if origin else ""

    def _summary(self, ending: BaseException | None) -> None:
        if isinstance(ending, BrokenPipeError) or not self._tally.touched:
            return
        place = f" Answers in {self._rows.name}." if self._rows.name != "stdout" and self._tally.finished else ""
        told = self._tally.summary(None if ending is None else self._questions.total)
        self._view.remark(f"{told}, {clock(self._view.elapsed)}.{place}")

    def _code(self, ending: BaseException | None) -> int:
        from aiopplx import AiopplxError

        if isinstance(ending, Interrupted):
            return ending.code
        if isinstance(ending, AiopplxError):
            return exit_code(ending)
        if isinstance(ending, BrokenPipeError):
            return PIPE_CLOSED
        if ending is not None:
            return USAGE if isinstance(ending, UsageError) else FAILED
        return IN_DOUBT if self._tally.in_doubt else FAILED if self._tally.failed else DONE


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
