"""What the person who pays has agreed to: asked before anything is sent, and again after a pilot.

The person is asked only at a terminal; a script is never held up by a question. What stands in the way of paying is
here, how the price is reckoned is not. This module knows nothing of sessions or of files of answers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from aiopplx._text.amounts import dollars
from aiopplx.cli._exits import UsageError
from aiopplx.cli._facts import NARROW
from aiopplx.cli._lines import Lines
from aiopplx.cli._options import Connection, RunOptions
from aiopplx.cli._price import Expectation, Price, conflict, consent, price_of, rest_told, told_of
from aiopplx.cli._questions import Origin, Questions, is_typed
from aiopplx.cli._text import clock, columns, one_line, tell

if TYPE_CHECKING:
    from aiopplx import Estimate, Job
    from aiopplx.tables import Request

SHOWN = 5
"""Answers of a pilot that are shown."""


class Declined(Exception):
    """The person at the terminal has not agreed to the price."""


class Agreement:
    """The price of a run, and the person's answer to it.

    Args:
        questions: of the run.
        options, connection: as typed.
        place: the journal; None without one.
        run: the name of the run in it; None without one.
        retry_failed: failed submissions are paid for again.
        replace: questions under the tag of another that has ended are paid for.
        skip_bad: rows that cannot be used are left out.

    Attributes:
        price: what the run would cost; None if that was not reckoned.
        declined: the person has seen the pilot and does not want the others.
        has_told: how the run went was told after the pilot, which was its end.
    """

    def __init__(
        self,
        questions: Questions,
        options: RunOptions,
        connection: Connection,
        place: str | None,
        *,
        run: str | None,
        retry_failed: bool,
        replace: bool,
        skip_bad: bool,
    ) -> None:
        self.price: Price | None = None
        self.declined = False
        self.has_told = False
        self._questions = questions
        self._options = options
        self._connection = connection
        self._place = place
        self._run = run
        self._retry_failed = retry_failed
        self._replace = replace
        self._skip_bad = skip_bad
        self._expectation = Expectation()
        self._pilot = _Pilot()

    @property
    def said(self) -> str:
        """What the run would cost, in a sentence; "" if that was not reckoned, or is invented."""
        if self.price is None or self._connection.emulate:
            return ""
        return told_of(self.price.rest, self._place)

    async def reckon(self) -> None:
        """Reckon the price, if there is anything to look at and it is not invented.

        Raises:
            UsageError: tags are another question's in the journal.
            AiopplxError: the journal cannot be read.
        """
        is_invented = self._connection.emulate
        if self._questions.seen is None or (is_invented and self._options.pilot is None):
            return
        self.price = await anyio.to_thread.run_sync(self._reckoned)
        if not self._skip_bad and (said := conflict(self.price.rest, self._place, replace=self._replace)):
            raise UsageError(said)
        self._expectation.set(self.price.rest, 0.0)

    async def recounted(self) -> Estimate | None:
        """How far all starts together have come by now; None if that was not known before, or cannot be looked up."""
        from aiopplx import AiopplxError

        if self.price is None or self._place is None:
            return None
        with contextlib.suppress(AiopplxError, OSError):  # the run is over, whatever this says
            return (await anyio.to_thread.run_sync(self._reckoned)).rest
        return None

    def passed(self, spent: float) -> str:
        """See `Expectation.passed`."""
        return self._expectation.passed(spent)

    async def before(self) -> None:
        """Ask about what comes next, if that is above what may be paid without.

        Raises:
            Declined: the answer is no; nothing was sent.
            UsageError: the price has to be agreed to, and nobody can be asked.
        """
        if self.price is None or self._connection.emulate:
            return
        options, price = self._options, self.price.next
        given = consent(price, options.confirm_above, yes=options.yes, can_ask=_can_ask(), is_watched=_is_watched())
        if given == "missing":
            raise UsageError(f"{price}: say --yes. Nothing was sent.")
        if given == "needed":
            if self.price.pilot is not None:
                self._tell(f"The pilot of {price.count:,}: {str(price).partition(' (')[0]}.")
            elif options.quiet:
                self._tell(told_of(price, self._place))
            if not await _agrees():
                raise Declined

    def _tell(self, text: str) -> None:
        tell(text, as_json=self._options.progress == "json")

    # --- the pilot ---------------------------------------------------------------------------------------------------

    def begin(
        self,
        spent: Callable[[], float],
        where: str,
        *,
        hide: Callable[[], None],
        show: Callable[[], None],
        expects: Callable[[Estimate], None],
    ) -> None:
        """Hold the questions up after the pilot.

        Args:
            spent: what the run has paid so far.
            where: the file of the answers; "" for none.
            hide, show: take the display of progress away, and bring it back.
            expects: called with the estimate of the others.
        """
        if self.price is None or self.price.pilot is None:
            return
        self._pilot = _Pilot(self.price.ends)

        async def go_on() -> bool:
            await self._pilot.is_whole.wait()
            hide()
            if not await self._goes_on(spent(), where, expects):
                return False
            show()
            return True

        self._questions.pause_after(self.price.ends, go_on)

    @property
    def total(self) -> int | None:
        """How many questions there are before the person is asked again; None if that is all."""
        return self._pilot.ends if self._pilot.ends and not self._pilot.is_whole.is_set() else None

    def came(self, index: int | None, origin: Origin | None, job: Job) -> None:
        """A job was handed out."""
        self._pilot.came(index, origin, job)

    async def _goes_on(self, spent: float, where: str, expects: Callable[[Estimate], None]) -> bool:
        pilot, options = self._pilot, self._options
        if pilot.unsent:  # for a reason that is told when the run ends
            return False
        for line in pilot.lines():
            self._tell(line)
        price = await anyio.to_thread.run_sync(self._reckoned, pilot)
        self._expectation.set(price.rest, spent)
        expects(price.rest)
        rest = price.rest
        total = pilot.done + rest.count + rest.finished + rest.running + rest.in_doubt + rest.conflicts
        self._tell(rest_told(pilot.done, total, dollars(spent), where, rest))
        if options.yes or not rest.count:
            return True
        if _can_ask():
            if await _agrees():
                return True
            self.declined = self.has_told = True
            again = "these are not paid again" if self._place else "without a journal these are paid again"
            self._tell(f"Nothing more was sent. The same command without --pilot goes on; {again}.")
        else:
            self.has_told = True
            self._tell("Nothing more was sent: --yes goes on without asking.")
        return False

    def _reckoned(self, pilot: _Pilot | None = None) -> Price:
        """The price of all, or of what comes after a pilot."""
        paid: list[tuple[Request, float]] = []
        if pilot is not None and not self._place:  # a journal knows what its jobs have cost
            tried = self._questions.tried
            paid = [(tried[index], cost) for index, cost in pilot.paid if index in tried]
        return price_of(
            self._questions.requests,
            self._place,
            self._options,
            self._connection,
            run=self._run,
            retry_failed=self._retry_failed,
            replace=self._replace,
            after=pilot.ends if pilot is not None else 0,
            paid=paid,
        )


class _Pilot:
    """The jobs of a pilot as they come.

    Args:
        ends: questions up to its last one; 0 for none.
    """

    def __init__(self, ends: int = 0) -> None:
        self.ends = ends
        self.is_whole = anyio.Event()
        self.done = 0
        self.unsent = False
        self.paid: list[tuple[int, float]] = []
        self._rows: list[tuple[int, str]] = []

    def came(self, index: int | None, origin: Origin | None, job: Job) -> None:
        if index is None or index >= self.ends:
            return
        self.done += 1
        self.unsent = self.unsent or job.status == "STOPPED"
        if job.cost is not None:
            self.paid.append((index, job.cost))
        if job.ok and len(self._rows) < SHOWN:
            self._rows.append((index, _row(origin, job)))
        if self.done == self.ends:
            self.is_whole.set()

    def lines(self) -> list[str]:
        rows = [row for _, row in sorted(self._rows)]
        return [*rows, *([f"  ({self.done - len(rows):,} more)"] if self.done > len(rows) else [])]


def _row(origin: Origin | None, job: Job) -> str:
    """What an answer is: where it stands, the question, the facts, and how it begins. In a narrow terminal the facts
    are on a line of their own, and the beginning is left out.
    """
    facts = "  ".join([
        dollars(job.cost) if job.cost is not None else "cost not known",
        *([clock(job.seconds)] if job.seconds is not None else []),
        f"{len(job.sources)} sources",
    ])
    place, question = (origin.place, origin.preview) if origin is not None else ("", job.question)
    width = columns() or 160
    if width < NARROW:
        return f"{place}  {one_line(question, max(20, width - len(place) - 2))}\n{' ' * (len(place) + 2)}{facts}"
    body = next((line for line in job.text.splitlines() if line.strip() and not line.startswith("#")), job.text)
    said = f"{place}  {one_line(question, 44)}  {facts}  "
    return said + one_line(body, max(20, width - len(said)))


# --- the terminal ----------------------------------------------------------------------------------------------------


def _is_watched() -> bool:
    return sys.stderr.isatty()


def has_to_agree(source: str, options: RunOptions) -> bool:
    """Whether a person waits at the terminal for questions that come from elsewhere, and has not agreed to any price.

    Such a stream is looked at as a whole first. Questions that are typed are agreed to by typing them.
    """
    return _is_watched() and not is_typed(source) and not options.yes


def _can_ask() -> bool:
    """Whether a person can answer: stdin is the terminal, too."""
    return sys.stderr.isatty() and sys.stdin is not None and sys.stdin.isatty()


async def _agrees() -> bool:
    """Ask, and wait for a line. Only `y` is a yes: Enter, the end of the input, and every other word is a no."""
    _forget_what_was_typed()
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    got = await Lines(sys.stdin.fileno(), "the terminal").next()
    if got is None:  # Ctrl-D leaves the cursor where it was
        print(file=sys.stderr)
    return got is not None and got[1].strip().lower() == b"y"


def _forget_what_was_typed() -> None:
    """What was typed before the question was there is no answer to it."""
    try:
        import termios
    except ImportError:  # Windows
        return
    try:
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    except termios.error:
        return
