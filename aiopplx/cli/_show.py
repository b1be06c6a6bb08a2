"""The commands about single jobs, for a person who reads: `ask`, `get` and `list`.

This module knows nothing of files of questions.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from aiopplx._text.amounts import dollars, many
from aiopplx.cli._connect import Connected
from aiopplx.cli._exits import DONE, LATER, Interrupted, complain, exit_code_of, told, until_signal
from aiopplx.cli._options import Connection
from aiopplx.cli._text import clock, one_line, print_json, print_out, print_table, safe

if TYPE_CHECKING:
    from aiopplx import Event, Job, Session, Source

LISTED = ("id", "status", "api", "model", "created_at", "started_at", "completed_at", "failed_at", "error")
"""The fields of a job in a list, in which the service gives no answers."""


async def ask(question: str, connection: Connection, *, model: str | None, seconds: float, as_json: bool) -> int:
    """Ask one question, wait for the answer and print it; returns the exit code."""
    fields: dict[str, Any] = {"model": model} if model else {}
    return await _one(connection, lambda session: session.ask(question, timeout=seconds, **fields), as_json)


async def get(job_id: str, connection: Connection, *, wait: bool, seconds: float, as_json: bool) -> int:
    """Poll a job once, or wait for it, and print its status and any answer; returns the exit code."""
    if wait:
        return await _one(connection, lambda session: session.wait(job_id, timeout=seconds), as_json, job_id)
    return await _one(connection, lambda session: _poll_once(session, job_id), as_json, job_id)


async def _poll_once(session: Session, job_id: str) -> Job:
    from aiopplx import NotFound

    try:
        return await session.get(job_id)
    except NotFound as error:
        said = (
            f"no job {one_line(job_id)}: the id is wrong, belongs to another account, or is older than the 7 days for"
            " which results are kept"
        )
        raise NotFound(f"{said}. {error.message}", status=error.status, request_id=error.request_id) from None


async def cancel(job_id: str, connection: Connection) -> int:
    """Ask the service to cancel a job, wait until it has ended, and print how; 0 if it is no longer running."""

    async def work() -> Job:
        async with Connected(connection) as session:
            return await session.cancel(job_id)

    try:
        job = await until_signal(work)
    except Interrupted as interrupted:
        return interrupted.code
    billed = f", {dollars(job.cost)}" if job.cost is not None else ""
    print_out(f"{one_line(job.id)}  {job.status.value.lower().replace('_', ' ')}{billed}\n")
    return DONE if job.done and job.status != "TIMED_OUT" else LATER


async def list_jobs(connection: Connection, *, limit: int, as_json: bool) -> int:
    """Print the account's jobs, newest first as the service lists them; returns the exit code."""

    async def work() -> list[Job]:
        async with Connected(connection) as session:
            return await session.list(limit=limit)

    try:
        jobs = await until_signal(work)
    except Interrupted as interrupted:
        return interrupted.code
    if as_json:
        for job in jobs:
            facts = job.to_dict()
            print_json({name: facts[name] for name in LISTED})
    else:
        _print_table(jobs)
    return DONE


async def _one(
    connection: Connection, work: Callable[[Session], Awaitable[Job]], as_json: bool, job_id: str = ""
) -> int:
    connection.check()
    waiting = _Waiting(job_id)

    async def connected() -> Job:
        async with Connected(connection, on_event=waiting.on_event) as session:
            return await work(session)

    try:
        with waiting.shown():
            if connection.emulate:
                waiting.remark("Emulated: the answer is invented, nothing is billed.")
            job = await until_signal(connected, at_exit=waiting.stop)
    except Interrupted as interrupted:
        complain(f"stopped by {interrupted.name}{waiting.fate(connection.emulate)}")
        return interrupted.code
    _print_job(job, as_json)
    return exit_code_of(job)


class _Waiting:
    """What is shown while one job is being waited for: a line on a terminal, nothing elsewhere."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._status = self._console.status(Text("asking"))
        self._live = sys.stderr.isatty() and not self._console.is_dumb_terminal
        self._began = time.monotonic()

    @contextlib.contextmanager
    def shown(self) -> Generator[None, None, None]:
        if self._live:
            self._status.start()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        if self._live:
            self._status.stop()

    def remark(self, text: str) -> None:
        self._console.print(Text(safe(text)), soft_wrap=True)

    def on_event(self, event: Event) -> None:
        self._job_id = event.job_id or self._job_id
        if event.kind == "warning":
            self.remark(one_line(event.reason))
        elif event.kind in ("paused", "retrying", "poll_failed"):
            self._show(f"waiting {clock(event.delay + 1)}: {one_line(event.reason)}")
        elif self._job_id:
            self._show(f"job {one_line(self._job_id)}  {clock(time.monotonic() - self._began)}")

    def _show(self, text: str) -> None:
        if self._live:
            self._status.update(Text(text, no_wrap=True, overflow="ellipsis"))

    def fate(self, emulated: bool) -> str:
        if emulated or not self._job_id:
            return ""
        return f"; job {self._job_id} continues at the service and is billed: aiopplx get {self._job_id} --wait"


def _print_job(job: Job, as_json: bool) -> None:
    if as_json:
        print_json(job.to_dict())
    elif job.text:
        _print_answer(job)
    if job.ok:
        _remark_on(job)
    elif job.error is not None:
        complain(f"{job.status.value.lower().replace('_', ' ')}: {told(job.error)}")
    else:
        complain(
            f"job {job.id} has no result yet: {job.server_status or job.status.value}; aiopplx get {job.id} --wait"
        )


def _print_answer(job: Job) -> None:
    if sys.stdout.isatty():
        console = Console(highlight=False, markup=False, emoji=False)
        # Without hyperlinks the address of each link is visible: a title cannot pretend to be another site.
        console.print(Markdown(safe(job.text), hyperlinks=False))
        console.print(Text(f"\n{_sources(job)}") if job.sources else "", soft_wrap=True)
    else:
        print_out(on_paper(job))


def on_paper(job: Job) -> str:
    """An answer with its sources as Markdown, safe for a terminal."""
    return f"{safe(job.text).rstrip()}\n" + (f"\n## Sources\n\n{_sources(job)}\n" if job.sources else "")


def _sources(job: Job) -> str:
    """`[n]` in the text is line n here; a source that other marks name, such as `[web:9]`, has these at its end."""
    marks: dict[str, list[str]] = {}
    for mark, source in job.cited.items():
        marks.setdefault(source.url, []).append(mark)
    return "\n".join(
        f"{number}. {_source(source, [mark for mark in marks.get(source.url, ()) if mark != f'[{number}]'])}"
        for number, source in enumerate(job.sources, 1)
    )


def _source(source: Source, marks: list[str]) -> str:
    words = [one_line(word) for word in (source.title, source.url, source.date, ", ".join(marks)) if word]
    return " · ".join(words)


def _remark_on(job: Job) -> None:
    facts = [f"job {job.id}"]
    if job.cost is not None:
        facts.append(dollars(job.cost))
    if job.unresolved:
        facts.append(f"{many(job.unresolved, 'citation')} without a source")
    if job.reasoning:
        facts.append(f"{len(job.reasoning):,} characters of reasoning (in --json)")
    print(safe(", ".join(facts)), file=sys.stderr)


def _print_table(jobs: list[Job]) -> None:
    print_table([("ID", "STATUS", "CREATED (UTC)", "MODEL"), *(_cells(job) for job in jobs)])
    print(many(len(jobs), "job"), file=sys.stderr)


def _cells(job: Job) -> tuple[str, str, str, str]:
    created = ""
    if job.created_at is not None:
        with contextlib.suppress(OverflowError, ValueError, OSError):
            created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(job.created_at))
    return job.id, job.server_status or job.status.value, created, job.model
