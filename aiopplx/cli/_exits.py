"""How a command ends: exit codes, error messages on stderr, and the two signals.

This module does not know what any command does.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeVar

import anyio

from aiopplx.cli._text import tell

if TYPE_CHECKING:
    from aiopplx import AiopplxError, Job
    from aiopplx.tables import Advice, BadRow

T = TypeVar("T")

DONE = 0
FAILED = 1
USAGE = 2
ACCOUNT = 3
IN_DOUBT = 4
LATER = 75
"""EX_TEMPFAIL of sysexits.h: the command is right, try it again later."""
INTERRUPTED = 130
PIPE_CLOSED = 141
"""128 + SIGPIPE: what a shell shows for a program whose reader has closed the pipe."""

TOGETHER = 1.0
"""Seconds within which signals are one: a supervisor that ends a process and its group sends two, and so do a terminal
and a wrapper that passes on what it gets."""


_came_at = -math.inf
"""When the last signal came that was one of its own, of the clock `time.monotonic`."""


class UsageError(Exception):
    """The command cannot be run as typed."""


class OutputLost(Exception):
    """The answers cannot be written at the moment: disk full, file open in another program. A later try may."""


class Interrupted(Exception):
    """A signal ended the work."""

    def __init__(self, signum: signal.Signals) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def code(self) -> int:
        """The exit code that shells give to this signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum

    @property
    def name(self) -> str:
        """What a person calls it."""
        return "Ctrl-C" if self.signum == signal.SIGINT else self.signum.name


_OPTIONS = {"api_key": "--api-key-file", "base_url": "--base-url"}
"""The options of arguments that an error names."""


_NEEDS_QUOTES = re.compile(r"[^\w.,:/=+-]")
"""What a shell may take for something else: a blank, a tilde, a bar."""
_FLAGS = {
    "format": "--input-format",
    "header": "--no-header",
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (
            "question",
            "template",
            "tag",
            "fields",
            "keep",
            "sheet",
            "encoding",
            "delimiter",
            "skip_lines",
            "unique",
        )
    },
}
"""The options of `run` that stand for the arguments of `aiopplx.questions`."""


def quoted(value: str) -> str:
    """A word as it is typed after a command: in quotes, if a shell could take a part of it for something else."""
    return f'"{value}"' if _NEEDS_QUOTES.search(value) else value


def flag_of(advice: Advice) -> str:
    """What to type on the command line, and what that does: `--skip-lines 2 begins there`."""
    value = advice.value.strip("[]").strip("'\"").replace("', '", ",")
    value = "NAME" if value == "..." else quoted(value)
    shown = _FLAGS.get(advice.option, advice.option)
    if value not in ("True", "False"):
        shown = f"{shown} {value}"
    other = f", {flag_of(advice.other)}" if advice.other is not None else ""
    return f"{shown} {advice.effect}{other}"


def why_not(bad: BadRow) -> str:
    """Why a row cannot be used, and what to type about it."""
    return bad.reason if bad.advice is None else f"{bad.reason}; {flag_of(bad.advice)}"


def told(error: BaseException) -> str:
    """What an error says, with the remedy that a command line has in place of the one that a program has."""
    from aiopplx import AiopplxError, ConfigError, TableError

    if isinstance(error, TableError):
        return error.problem if error.advice is None else f"{error.problem}; {flag_of(error.advice)}"
    if not isinstance(error, AiopplxError):
        return str(error)
    bare = error.about()
    bare.remedy = _remedy(error)
    if isinstance(error, ConfigError) and error.argument:
        bare.message = _OPTIONS.get(error.argument, error.argument) + error.message.removeprefix(error.argument)
    return str(bare)


def _remedy(error: AiopplxError) -> str:
    """What to type, by the facts of an error; "" if its message says all there is to say."""
    import aiopplx
    from aiopplx.journal import JournalBroken, JournalRefused

    match error:
        case aiopplx.ConfigError(argument="api_key") if error.remedy:
            return "Without a key, try --emulate"
        case aiopplx.ConfigError(argument="network.proxy"):
            return "It was given as --proxy"
        case aiopplx.AuthenticationError():
            return "If --api-key-file was given, check that file instead"
        case aiopplx.ProtocolError(status=int(status)) if 300 <= status < 400:
            return "Check --base-url"
        case aiopplx.BudgetReached():
            return "--max-cost sets the limit"
        case aiopplx.InDoubt(look_in="list"):
            return "Look for it with aiopplx list"
        case aiopplx.InDoubt(look_in="journal"):
            return "aiopplx review lists it"
        case aiopplx.JobTimeout():
            return "aiopplx get ID --wait takes it up again"
        case aiopplx.TransportError() if error.unused_proxy:
            return "--proxy env uses it"
        case JournalBroken(is_final=True):
            return "aiopplx list shows it"
        case JournalRefused(reason="account"):
            return "If this is a new key of the same account, give --same-account once"
        case JournalRefused(reason="log"):
            return "aiopplx list shows them; --without-log goes on without the log, and may pay again"
        case _:
            return ""


def complain(said: str | BaseException) -> None:
    """Print one line on stderr that begins with the program's name; an error with what to type about it."""
    tell(f"aiopplx: {said if isinstance(said, str) else told(said)}")


def exit_code(error: AiopplxError) -> int:
    """The exit code that an error stands for."""
    import aiopplx
    from aiopplx.journal import JournalFull, JournalLocked, JournalRefused

    if isinstance(error, JournalRefused):
        return ACCOUNT if error.reason == "account" else USAGE
    if isinstance(error, JournalFull | JournalLocked | aiopplx.BudgetReached):
        return LATER
    if isinstance(error, aiopplx.InvalidRequest | aiopplx.ConfigError):
        return USAGE
    if isinstance(error, aiopplx.AuthenticationError | aiopplx.OutOfCredit | aiopplx.EndpointRetired):
        return ACCOUNT
    if isinstance(error, aiopplx.TransportError | aiopplx.RateLimited | aiopplx.JobTimeout):
        return LATER
    return IN_DOUBT if error.is_in_doubt else FAILED


def exit_code_of(job: Job) -> int:
    """The exit code of a command about one job."""
    if job.ok:
        return DONE
    if job.error is not None:
        return exit_code(job.error)
    return FAILED if job.done else LATER


async def until_signal(work: Callable[[], Awaitable[T]], *, at_exit: Callable[[], None] = lambda: None) -> T:
    """Run `work` and return what it returns; cancel it at the first Ctrl-C or SIGTERM, and exit at once at the second.

    Those that come within `TOGETHER` are one: nobody types so fast.

    Args:
        work: what to run; when it is cancelled, its context managers exit in order.
        at_exit: called before an exit at once, to restore the terminal and to say what goes on.

    Raises:
        Interrupted: a signal came, and `work` has ended.
    """
    came: list[signal.Signals] = []
    scope = anyio.CancelScope()

    def on_signal(signum: signal.Signals) -> None:
        if not _is_another():
            return
        if came:
            at_exit()
            _exit_now(128 + signum)
        came.append(signum)
        scope.cancel()

    _listen(on_signal)
    with scope:
        result = await work()
        if not came:
            return result
    raise Interrupted(came[0])


def _is_another() -> bool:
    """Whether a signal that comes now is another one than the last, by `TOGETHER`."""
    global _came_at
    now, before = time.monotonic(), _came_at
    if now - before < TOGETHER:
        return False
    _came_at = now
    return True


@contextlib.contextmanager
def heard() -> Generator[None]:
    """Work that keeps the event loop waiting, and that a signal ends: there the loop would hear it only afterwards.

    Raises:
        Interrupted: a signal came, and the work is left where it was.
    """

    def on_signal(signum: int, _: FrameType | None) -> None:
        if _is_another():
            raise Interrupted(signal.Signals(signum))

    if threading.current_thread() is not threading.main_thread():  # where no signal comes
        yield
        return
    wakes = signal.set_wakeup_fd(-1)  # or the loop would hear it once more
    before = {signum: signal.signal(signum, on_signal) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)


async def code_until_signal(work: Callable[[], Awaitable[int]]) -> int:
    """The exit code that `work` returns, or that of the signal that ended it."""
    try:
        return await until_signal(work)
    except Interrupted as interrupted:
        return interrupted.code


def _listen(on_signal: Callable[[signal.Signals], None]) -> None:
    # The handlers end with the event loop, which ends with the command. Windows has no such handlers: there Ctrl-C is
    # Python's own KeyboardInterrupt, which also cancels the command, but prints no ids.
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(signum, on_signal, signum)
        except NotImplementedError:
            return


def _exit_now(code: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(code)
