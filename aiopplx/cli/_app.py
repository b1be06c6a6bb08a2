"""Room: the words of the command line: commands, arguments, options, help.

This module knows nothing of what a command does: each imports its own room when it is called.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio
from cyclopts import App, Parameter
from cyclopts.types import PositiveFloat, PositiveInt

from aiopplx.cli._options import Connection, EmulatorOptions, RunOptions

_ABOUT = """Submit many Perplexity deep-research jobs at once, poll them together, get each as it finishes.

Exit codes: 0 all done, 1 some failed, 2 usage, 3 key or credit refused, 4 submissions in doubt, 75 no connection or not
finished yet: try again later, 130 Ctrl-C, 143 SIGTERM."""

Json = Annotated[bool, Parameter(name="--json", show_default=False, help="Print JSON, one object a line.")]
Timeout = Annotated[PositiveFloat, Parameter(help="Seconds to wait; the job goes on at the service.")]


def make_app() -> App:
    """The command line, ready to be called with its words."""
    app = App(
        name="aiopplx",
        help=_ABOUT,
        help_format="markdown",
        version=_version,
        result_action="return_value",
        default_parameter=Parameter(negative=()),
    )
    app["--help"].group = app["--version"].group = "Help"
    for command in (run, ask, get, list_, emulator):
        app.command(command)
    return app


def _version() -> str:
    from aiopplx import __version__

    return __version__


def run(
    questions: Annotated[str, Parameter(help="File of questions: text, one a line, or JSONL; - is stdin.")],
    /,
    *,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    connection: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Run a file of questions; write a line of JSON for each as it finishes.

    A text file has a question a line; blank lines and lines that begin with # are skipped. A JSONL file has a line for
    each: a string, or an object with the fields of a request (question or messages, model, tag, search filters, ...). A
    line that cannot be used is reported with its number, and the rest go on.
    """
    from aiopplx.cli import _run

    return anyio.run(_run.run, questions, options, connection)


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
    """Look at one job and print what there is."""
    from aiopplx.cli import _show

    return anyio.run(partial(_show.get, id, connection, wait=wait, seconds=timeout, as_json=json))


def list_(
    *,
    limit: Annotated[PositiveInt, Parameter(help="At most so many jobs.")] = 50,
    json: Json = False,
    connection: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List the jobs that the service keeps for this key."""
    from aiopplx.cli import _show

    return anyio.run(partial(_show.list_jobs, connection, limit=limit, as_json=json))


def emulator(*, options: EmulatorOptions = EmulatorOptions()) -> int:  # noqa: B008 - frozen
    """Serve the emulator until Ctrl-C; its address is the first line on stdout."""
    from aiopplx.cli import _serve

    return anyio.run(_serve.serve, options)
