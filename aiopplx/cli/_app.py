"""The grammar of the command line: commands, arguments, options, help.

This module does not know what a command does: each command imports its own module when it is called.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio
from cyclopts import App, Parameter
from cyclopts.types import PositiveFloat, PositiveInt

from aiopplx.cli._options import (
    MAY_BE_STANDARD,
    PLACE,
    Connection,
    CostsBy,
    EmulatorOptions,
    ExportOptions,
    JournalOptions,
    ReviewOptions,
    RunOptions,
    TableOptions,
    refuse_standard,
)

_ABOUT = """Submit many Perplexity deep-research jobs at once, poll them together, get each as it finishes.

Exit codes: 0 all done, 1 some failed, 2 usage, 3 key or credit refused, 4 submissions in doubt, 75 not finished (no
connection, budget reached, disk full, another run on the journal): try again later, 130 Ctrl-C or a price
not agreed to, 143 SIGTERM."""

Json = Annotated[bool, Parameter(name="--json", show_default=False, help="Print JSON, one object a line.")]
Place = Annotated[str, PLACE, Parameter(help="Journal of a run: QUESTIONS.journal.db, or a postgresql:// URL.")]
Timeout = Annotated[PositiveFloat, Parameter(help="Seconds to wait; the job continues at the service.")]


def make_app() -> App:
    """The command line, ready to be called with its arguments."""
    app = App(
        name="aiopplx",
        help=_ABOUT,
        help_format="markdown",
        version=_version,
        result_action="return_value",
        default_parameter=Parameter(negative=(), validator=refuse_standard),
    )
    app["--help"].group = app["--version"].group = "Help"
    for group, commands in _COMMANDS.items():
        for command in commands:
            app.command(command, group=group)
    journal = App(name="journal", group="Journal", help="What is done with a journal as a whole.")
    journal.command(migrate)
    app.command(journal)
    return app


def _version() -> str:
    from aiopplx import __version__

    return __version__


def run(
    questions: Annotated[
        str,
        PLACE,
        MAY_BE_STANDARD,
        Parameter(help="Table or text: CSV, TSV, Excel, Parquet, JSON, JSONL, or a question a line; - is stdin."),
    ],
    /,
    *,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    table: TableOptions = TableOptions(),  # noqa: B008 - frozen
    journal: JournalOptions = JournalOptions(),  # noqa: B008 - frozen
    connection: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Run a table or a file of questions; write a line of JSON for each as it finishes.

    A table has a column `question`, `prompt` or `query`, or --question or --template says what is asked; all other
    columns come back beside the answers and are not sent. A text file has one question per line; blank lines and lines
    that begin with # are left out. JSON has texts, or objects, which are rows too; if one has the name of a request
    field (model, reasoning_effort, search filters, ...), --fields says whether that is sent. A Markdown file is one
    question.

    The whole file is looked at before anything is sent: a file that is not surely understood, or a row that cannot be
    used, is refused with what to type. Text and JSON lines from stdin are asked as they come.

    Run the same command again to resume: finished answers come from the journal, running jobs are waited for, and only
    questions that were never sent are sent. Questions may be added, removed and reordered in between.
    """
    from aiopplx.cli import _run

    return anyio.run(_run.run, questions, options, table, journal, connection)


def ask(
    question: Annotated[str, Parameter(help="The question.")],
    /,
    *,
    model: Annotated[str | None, Parameter(help="Model to ask.")] = None,
    timeout: Timeout = 3600,
    json: Json = False,
    connection: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Ask one question, wait for the answer, print it with its sources."""
    from aiopplx.cli import _show

    return anyio.run(partial(_show.ask, question, connection, model=model, seconds=timeout, as_json=json))


def get(
    id: Annotated[str, Parameter(help="The service's id of the job.")],
    /,
    *,
    wait: Annotated[bool, Parameter(show_default=False, help="Wait until it is finished.")] = False,
    timeout: Timeout = 3600,
    json: Json = False,
    connection: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Poll a job once, and print its status and any answer."""
    from aiopplx.cli import _show

    return anyio.run(partial(_show.get, id, connection, wait=wait, seconds=timeout, as_json=json))


def list_(
    *,
    limit: Annotated[PositiveInt, Parameter(help="At most this many jobs.")] = 50,
    json: Json = False,
    connection: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List the jobs that the service keeps for this key."""
    from aiopplx.cli import _show

    return anyio.run(partial(_show.list_jobs, connection, limit=limit, as_json=json))


def cancel(
    id: Annotated[str, Parameter(help="The service's id of the job.")],
    /,
    *,
    connection: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Cancel a running job at the service (Agent API only)."""
    from aiopplx.cli import _show

    return anyio.run(_show.cancel, id, connection)


def status(
    journal: Place,
    /,
    *,
    running: Annotated[
        bool, Parameter(show_default=False, help="List the jobs running at the service instead.")
    ] = False,
    json: Json = False,
) -> int:
    """Show the state of a run: counts, cost, and the process that runs it."""
    from aiopplx.cli import _status

    return _status.running(journal, as_json=json) if running else _status.status(journal, as_json=json)


def watch(
    journal: Place, /, *, interval: Annotated[PositiveFloat, Parameter(help="Seconds between two readings.")] = 1.0
) -> int:
    """Follow a run in another process until it ends."""
    from aiopplx.cli import _status

    return anyio.run(partial(_status.watch, journal, interval=interval))


def cost(
    journal: Place,
    /,
    *,
    by: Annotated[CostsBy, Parameter(help="What to add up.")] = "tag",
    recount: Annotated[
        bool,
        Parameter(
            negative=(),
            show_default=False,
            help="First set what is spent and held for --max-cost from the rows (PostgreSQL).",
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Show what was spent, over all runs of a journal."""
    from aiopplx.cli import _status

    if recount:
        anyio.run(_status.recount, journal)
    return _status.cost(journal, by=by, as_json=json)


def export(journal: Place, /, *, options: ExportOptions = ExportOptions()) -> int:  # noqa: B008 - frozen
    """Write the answers stored in a journal, with the columns of their rows. No request is made.

    Files are written by the rules of `aiopplx run`: one that an earlier run or export has written is replaced, and one
    that is something else is refused.
    """
    from aiopplx.cli import _export

    return anyio.run(_export.export, journal, options)


def review(
    journal: Place,
    /,
    *,
    options: ReviewOptions = ReviewOptions(),  # noqa: B008 - frozen
    connection: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List submissions that may have created a job, and decide about them.

    Such a submission was sent, and no usable answer came: a job may exist and be billed, and its id is unknown.
    """
    from aiopplx.cli import _review

    return anyio.run(_review.review, journal, options, connection)


def adopt(
    journal: Place,
    ids: Annotated[tuple[str, ...], Parameter(name="ID", help="The service's ids of the jobs.")],
    /,
    *,
    tag: Annotated[str | None, Parameter(help="Tag for a single job: a question with this tag finds it.")] = None,
    wait: Annotated[bool, Parameter(show_default=False, help="Wait until all are finished.")] = False,
    timeout: Timeout = 3600,
    connection: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Add jobs that were submitted elsewhere to a journal, with their results."""
    from aiopplx.cli import _review

    return anyio.run(partial(_review.adopt, journal, ids, connection, tag=tag, wait=wait, seconds=timeout))


def migrate(
    journal: Annotated[str, PLACE, Parameter(help="A journal on PostgreSQL: a postgresql:// URL.")],
    /,
) -> int:
    """Bring a journal on PostgreSQL to the version of this library, while sessions of the version before go on."""
    from aiopplx.cli import _status

    return anyio.run(_status.migrate, journal)


def doctor(
    *,
    journal: Annotated[str | None, PLACE, Parameter(help="Check this journal as well.")] = None,
    probe: Annotated[
        bool, Parameter(show_default=False, help="Find out what a repeated idempotency key returns; may be billed.")
    ] = False,
    yes: Annotated[bool, Parameter(show_default=False, help="Agree to the bill of --probe.")] = False,
    connection: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Check the key, the server, the APIs and a journal. Free, except for --probe."""
    from aiopplx.cli import _doctor

    return anyio.run(partial(_doctor.doctor, connection, journal=journal, probe=probe, yes=yes))


def emulator(*, options: EmulatorOptions = EmulatorOptions()) -> int:  # noqa: B008 - frozen
    """Serve the emulator until Ctrl-C; its address is the first line on stdout."""
    from aiopplx.cli import _serve

    return anyio.run(_serve.serve, options)


_COMMANDS = {
    "Commands": (run, ask, get, list_, cancel),
    "Journal": (status, watch, review, export, adopt, cost),
    "Setup": (doctor, emulator),
}
