"""How the progress of a run is shown: a live display on a terminal, plain lines elsewhere, nothing with --quiet.

All of it goes to stderr. This module does not know where the numbers come from, nor what stops a run.
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

from aiopplx.cli._text import clock, one_line, safe

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aiopplx.cli._tally import Tally

EVERY = 5.0
"""Minimum seconds between two plain lines, so that the log of a run of an hour stays readable."""

_COLOURS = {"done": "green", "failed": "red", "in doubt": "yellow"}


class View:
    """Progress as plain lines; also the base of the other views.

    Args:
        tally: the numbers to show.
        total: how many questions there are; None while that is unknown.
    """

    def __init__(self, tally: Tally, total: Callable[[], int | None]) -> None:
        self._tally = tally
        self._total = total
        self._began = time.monotonic()
        self._shown_at = self._began
        self._shown: str = ""
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
        print(safe(text), file=sys.stderr, flush=True)

    def remark(self, text: str) -> None:
        """Print a permanent line that `--quiet` suppresses."""
        self.say(text)

    def waiting(self, why: str, seconds: float) -> None:
        """Something has to wait for `seconds`: print a line if that is long, and no other before it is over."""
        now = time.monotonic()
        if seconds >= EVERY and now >= self._waits_until:
            self._waits_until = now + seconds
            self.say(f"{clock(self.elapsed)}  waiting {clock(seconds)}: {one_line(why)}")

    def latest(self, text: str) -> None:
        """The latest finished job."""

    def update(self) -> None:
        """The numbers may have changed."""
        now = time.monotonic()
        if now - self._shown_at < EVERY:
            return
        numbers = ", ".join(f"{word} {text}" for word, text, _ in self._tally.numbers())
        if numbers != self._shown:
            self._shown, self._shown_at = numbers, now
            self.say(f"{clock(self.elapsed)}  {numbers}")


class QuietView(View):
    """Errors only."""

    def remark(self, text: str) -> None:
        """Does nothing: only errors are shown."""

    def waiting(self, why: str, seconds: float) -> None:
        """Does nothing: only errors are shown."""

    def update(self) -> None:
        """Does nothing: only errors are shown."""


class LiveView(View):
    """A display of three lines at the bottom of a terminal; permanent lines are printed above it."""

    def __init__(self, tally: Tally, total: Callable[[], int | None], console: Console) -> None:
        super().__init__(tally, total)
        self._console = console
        self._latest = ""
        self._why = ""
        self._until = 0.0
        # A thread of its own draws it four times a second, so that the cost does not grow with the number of jobs.
        self._live = Live(
            get_renderable=self._draw, console=console, refresh_per_second=4, redirect_stdout=False, transient=True
        )

    def start(self) -> None:
        """Show the display."""
        self._live.start()

    def stop(self) -> None:
        """Remove the display."""
        self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the display."""
        self._console.print(Text(safe(text)), soft_wrap=True)

    def waiting(self, why: str, seconds: float) -> None:
        """Shown until the time is over."""
        self._why, self._until = one_line(why), time.monotonic() + seconds

    def latest(self, text: str) -> None:
        """Shown until the next one."""
        self._latest = one_line(text)

    def update(self) -> None:
        """Does nothing: the display reads the numbers by itself."""

    def _draw(self) -> RenderableType:
        rows: list[RenderableType] = [self._bar(), self._numbers()]
        remaining = self._until - time.monotonic()
        if remaining > 0:
            rows.append(
                Text(f"waiting {clock(remaining + 1)}: {self._why}", style="yellow", no_wrap=True, overflow="ellipsis")
            )
        elif self._latest:
            rows.append(Text(self._latest, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*rows)

    def _bar(self) -> RenderableType:
        finished, total = self._tally.finished, self._total()
        grid = Table.grid(padding=(0, 2))
        # No bar while the total is unknown: a bar that shrinks would mislead.
        bar = (
            []
            if total is None
            else [ProgressBar(total=total, completed=finished, width=40, complete_style="cyan", finished_style="green")]
        )
        words = f"{finished:,} of {total:,}" if total is not None else f"{finished:,} finished"
        grid.add_row(*bar, Text(words), Text(clock(self.elapsed), style="dim"))
        return grid

    def _numbers(self) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        for word, text, count in self._tally.numbers():
            style = _COLOURS.get(word, "") if count else ""
            line.append(f"{word} ", style="dim").append(text, style=f"bold {style}").append("   ")
        return line


def make_view(tally: Tally, total: Callable[[], int | None], *, quiet: bool, rows_on_screen: bool) -> View:
    """The right view: quiet with `quiet`, live on a terminal that shows no rows, otherwise plain lines."""
    if quiet:
        return QuietView(tally, total)
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    # FORCE_COLOR makes rich treat any file as a terminal; a display that moves the cursor needs a real one.
    if sys.stderr.isatty() and not console.is_dumb_terminal and not rows_on_screen:
        return LiveView(tally, total, console)
    return View(tally, total)
