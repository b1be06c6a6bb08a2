"""How the progress of a run is shown: live on a terminal, as plain lines or JSON elsewhere, or not at all.

All of it goes to stderr. This module does not know where the facts come from, nor what stops a run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aiopplx.cli._facts import NARROW, Facts, Line, for_a_program, plain, screen
from aiopplx.cli._options import Progress
from aiopplx.cli._text import clock, folded, json_line, one_line, safe, tell

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

EVERY = 5.0
"""Seconds between two plain lines in the first minute."""
LATER = 30.0
"""Seconds between two plain lines after that, so that the log of a run of an hour stays readable."""


class View:
    """Progress as plain lines; also the base of the other views.

    Args:
        facts: the run at this moment, without what it takes a clock to know.
    """

    shows_answers = False
    """Whether the latest answers are shown."""

    def __init__(self, facts: Callable[[float], Facts]) -> None:
        self._facts = facts
        self._began = time.monotonic()
        self._shown_at = self._began
        self._shown: Facts | None = None
        self._waits_until = self._began

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def start(self) -> None:
        """Begin to show what happens: nothing is asked any more."""

    def stop(self) -> None:
        """Restore the terminal."""

    def say(self, text: str) -> None:
        """Print a permanent line: a failure, a warning, the summary."""
        tell(text)

    def remark(self, text: str) -> None:
        """Print a permanent line that `--quiet` suppresses."""
        self.say(text)

    def waits(self, what: str, why: str, seconds: float) -> None:
        """Something has to wait for `seconds`: print a line if that is long, and no other before it is over.

        Args:
            what: `Submissions pause`.
            why: the reason.
            seconds: how long.
        """
        now = time.monotonic()
        if seconds >= EVERY and now >= self._waits_until:
            self._waits_until = now + seconds
            self._show_wait(waiting(what, why, seconds))

    def _show_wait(self, text: str) -> None:
        self.say(f"{clock(self.elapsed)}  {text}")

    def update(self) -> None:
        """The numbers may have changed."""
        now = time.monotonic()
        if now - self._shown_at < (EVERY if now - self._began < 60.0 else LATER):
            return
        facts = self._facts(self.elapsed)
        if self._shown is None or (facts.finished, facts.running) != (self._shown.finished, self._shown.running):
            self._shown, self._shown_at = facts, now
            self._show(facts)

    def _show(self, facts: Facts) -> None:
        self.say(plain(facts))


class JsonView(View):
    """Progress as JSON: an object a line; what is said besides has the name `message`."""

    def say(self, text: str) -> None:
        """Print a line with a text."""
        tell(text, as_json=True)

    def _show_wait(self, text: str) -> None:
        self._print({"message": safe(text), "seconds": round(self.elapsed, 1)})

    def _show(self, facts: Facts) -> None:
        self._print(for_a_program(facts))

    def _print(self, found: dict[str, object]) -> None:
        print(json_line(found).decode(), end="", file=sys.stderr, flush=True)


class StillView(View):
    """No progress; what is said is printed.

    Args:
        facts: see `View`.
        quiet: only errors are printed.
    """

    def __init__(self, facts: Callable[[float], Facts], *, quiet: bool) -> None:
        super().__init__(facts)
        self._quiet = quiet

    def remark(self, text: str) -> None:
        """Print a permanent line, unless only errors are printed."""
        if not self._quiet:
            self.say(text)

    def waits(self, what: str, why: str, seconds: float) -> None:
        """Does nothing."""

    def update(self) -> None:
        """Does nothing."""


class LiveView(View):
    """A display of a few lines at the bottom of a terminal; permanent lines are printed above it."""

    shows_answers = True

    def __init__(self, facts: Callable[[float], Facts], console: Console) -> None:
        super().__init__(facts)
        self._console = console
        self._wait = ("", "", 0.0)
        self._live: Live | None = None

    def start(self) -> None:
        """Show the display."""
        # A new one each time: one that was stopped would begin by removing lines that are not its own. A thread of its
        # own draws it four times a second, so that the cost does not grow with the number of jobs.
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=4,
            redirect_stdout=False,
            transient=True,
        )
        self._live.start()

    def stop(self) -> None:
        """Remove the display."""
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the display."""
        self._console.print(Text(folded(safe(text), self._console.width)), soft_wrap=True)

    def waits(self, what: str, why: str, seconds: float) -> None:
        """Shown in place of the bar until the time is over."""
        self._wait = (what, why, time.monotonic() + seconds)

    def update(self) -> None:
        """Does nothing: the display reads the facts by itself."""

    def _draw(self) -> RenderableType:
        what, why, until = self._wait
        remaining = until - time.monotonic()
        wait = waiting(what, why, remaining + 1) if remaining > 0 else ""
        return drawn(self._facts(self.elapsed), self._console.width, wait=wait)


def drawn(facts: Facts, width: int, *, wait: str = "") -> RenderableType:
    """The display of a run.

    Args:
        facts: the run.
        width: of the terminal.
        wait: what is waited for, shown in place of the bar.
    """
    size, (first, *others) = screen(facts, width)
    # No bar while the total is unknown: a bar that shrinks would mislead.
    bar: Text | ProgressBar | None = None
    if wait:
        bar = Text(wait, style="yellow", no_wrap=True, overflow="ellipsis")
    elif facts.total is not None and size:
        bar = ProgressBar(
            total=facts.total or 1, completed=facts.finished, width=size, complete_style="cyan", finished_style="green"
        )
    rows: list[RenderableType] = [_text(line) for line in others]
    if bar is None:
        return Group(_text(first), *rows)
    if isinstance(bar, Text):
        return Group(bar, _text(first), *rows)
    grid = Table.grid(padding=(0, 2))  # which also ends the bar's line
    grid.add_column(width=size, no_wrap=True)
    if width < NARROW:
        grid.add_row(bar)
        return Group(grid, _text(first), *rows)
    grid.add_column(no_wrap=True)
    grid.add_row(bar, _text(first))
    return Group(grid, *rows)


def _text(line: Line) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for at, part in enumerate(line):
        text.append(" " * part.gap if at else "").append(part.text, style=part.style)
    return text


def waiting(what: str, why: str, seconds: float) -> str:
    """`Submissions pause 0:42: rate limit`."""
    return f"{what} {clock(seconds)}: {one_line(why)}"


def make_view(facts: Callable[[float], Facts], how: Progress | None, *, quiet: bool, rows_on_screen: bool) -> View:
    """The view that was asked for; by default live on a terminal that shows no answers, else plain lines."""
    if quiet or how == "none":
        return StillView(facts, quiet=quiet)
    if how == "json":
        return JsonView(facts)
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    # FORCE_COLOR makes rich treat any file as a terminal; a display that moves the cursor needs a real one.
    if how != "plain" and sys.stderr.isatty() and not console.is_dumb_terminal and not rows_on_screen:
        return LiveView(facts, console)
    return View(facts)
