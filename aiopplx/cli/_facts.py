"""The facts of a run at one moment, and their order of importance.

A narrow terminal shows what matters first: how many are done, what went wrong, the cost, the time left. What does not
fit is left out whole, since half a number is a wrong number. This module knows nothing of sessions or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.cells import cell_len, set_cell_size

from aiopplx._text.amounts import dollars
from aiopplx.cli._text import clock

NARROW = 80
"""Columns from which the facts stand beside the bar."""
WIDE = 160
"""Columns from which the three latest answers are shown."""
BAR = 60
"""The longest bar: a longer one says no more."""
TRUSTED = 3
"""Answers that must have come in this run before a time is foretold."""


class Answer(msgspec.Struct, frozen=True):
    """An answer that has come: where its question stands, its words, and the facts."""

    place: str
    question: str
    cost: float | None = None
    seconds: float | None = None
    sources: int = 0

    def line(self, width: int) -> str:
        """One line; only the question is shortened."""
        facts = [] if self.cost is None else [dollars(self.cost)]
        if width >= WIDE:
            facts += [*([] if self.seconds is None else [clock(self.seconds)]), f"{self.sources} sources"]
        rest = f"  {', '.join(facts)}" if facts else ""
        room = width - len(self.place) - len(rest) - 2
        if room < 8:
            return f"{self.place}{rest}" if len(self.place) + len(rest) <= width else self.place[:width]
        # By cells, as a letter of Chinese or Japanese takes two.
        question = self.question if cell_len(self.question) <= room else set_cell_size(self.question, room - 1) + "…"
        return f"{self.place}  {question}{rest}"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment.

    Attributes:
        finished, total: questions that have ended, and all; None while there may be more.
        done, failed, in_doubt: of the finished ones.
        running: jobs at the service.
        cost: US dollars so far.
        elapsed: seconds since the run began.
        remaining: seconds until it ends, as far as can be foretold; None if it cannot.
        expected: what all will cost, in words: `about $285`.
        likely: the range of it: `$262-$309`.
        rate: submissions a minute.
        longest: the job that has run longest, in words: `row 44, 6:12`.
        budget: the cap and its rest, in words: `budget $300, $127.60 left`.
        files: what goes where, in words.
        journal: its path.
        latest: the answers that came last, the newest at the end.
    """

    finished: int
    total: int | None
    done: int
    failed: int = 0
    in_doubt: int = 0
    running: int = 0
    cost: float = 0.0
    elapsed: float = 0.0
    remaining: float | None = None
    expected: str = ""
    likely: str = ""
    rate: float | None = None
    longest: str = ""
    budget: str = ""
    files: str = ""
    journal: str = ""
    latest: Sequence[Answer] = ()

    @property
    def waiting(self) -> int:
        """Questions that are not sent yet."""
        return max(0, (self.total or 0) - self.finished - self.running)

    @property
    def count(self) -> str:
        """`184 of 300`."""
        return f"{self.finished:,} finished" if self.total is None else f"{self.finished:,} of {self.total:,}"

    @property
    def time_left(self) -> str:
        """`about 9 min left`; "" if nothing is foretold."""
        return "" if self.remaining is None else f"{about(self.remaining)} left"


class Part(msgspec.Struct, frozen=True):
    """A part of a line.

    Attributes:
        text: it; "" for nothing.
        rank: what has the highest goes first if there is no room.
        style: of rich.
        gap: blanks before it.
    """

    text: str
    rank: int
    style: str = ""
    gap: int = 3


Line = list[Part]


def screen(facts: Facts, width: int) -> tuple[int, list[Line]]:
    """The display: how wide the bar is, and the lines of text; in a wide one the first stands beside the bar."""
    if width < NARROW:
        return min(width, BAR), _narrow(facts, width)
    bar = min(BAR, width // 2) if facts.total is not None else 0
    beside = [
        Part(facts.count, 0),
        Part(clock(facts.elapsed), 2),
        Part(facts.time_left, 1),
        Part(_pace(facts.rate), 5, gap=5),
        Part(f"longest running: {facts.longest}" if facts.longest else "", 4, gap=5),
        Part(facts.budget, 3, gap=5),
    ]
    below = [
        Part(f"{facts.done:,} done", 3),
        *_wrong(facts),
        Part(f"{facts.running:,} running" if facts.running else "", 4),
        Part(f"{facts.waiting:,} waiting" if facts.waiting else "", 5),
        Part(dollars(facts.cost), 2, gap=8),
        Part(f"of {facts.expected}" if facts.expected else "", 6, gap=1),
        Part(f"({facts.likely})" if facts.likely else "", 7, gap=1),
        Part(facts.files, 9, gap=4),
        Part(f"journal {facts.journal}" if facts.journal else "", 8, gap=4),
    ]
    latest = list(facts.latest)[-3 if width >= WIDE else -1 :]
    return bar, [
        fitted(beside, width - (bar + 2 if bar else 0)),
        fitted(below, width),
        *([Part(answer.line(width), 0, "dim")] for answer in latest),
    ]


def _pace(rate: float | None) -> str:
    if not rate:
        return ""
    return f"{rate:,.0f} submissions a minute" if rate >= 10 else f"{rate:.2g} submissions a minute"


def _wrong(facts: Facts) -> Line:
    return [
        Part(f"{facts.failed:,} failed" if facts.failed else "", 0, "red"),
        Part(f"{facts.in_doubt:,} in doubt" if facts.in_doubt else "", 1, "yellow"),
    ]


def _narrow(facts: Facts, width: int) -> list[Line]:
    """Two lines at most, in the order of importance; what is less important only fills up the last one."""
    lines: list[Line] = [[]]
    first = [Part(facts.count, 0), *_wrong(facts), Part(dollars(facts.cost), 0), Part(facts.time_left, 0)]
    more = [
        Part(f"{facts.running:,} running" if facts.running else "", 0),
        Part(f"{facts.waiting:,} waiting" if facts.waiting else "", 0),
        Part(clock(facts.elapsed), 0),
    ]
    for part in filter(lambda part: part.text, first):
        if _width([*lines[-1], part]) > width and lines[-1]:
            if len(lines) == 2:
                return lines
            lines.append([])
        if len(part.text) <= width:
            lines[-1].append(part)
    for part in filter(lambda part: part.text, more):
        if _width([*lines[-1], part]) > width:
            break
        lines[-1].append(part)
    return lines


def fitted(parts: Sequence[Part], width: int) -> Line:
    """The parts that fit, in their order: those of the highest rank are left out first."""
    kept = [part for part in parts if part.text]
    while len(kept) > 1 and _width(kept) > width:
        kept.remove(max(kept, key=lambda part: part.rank))
    return kept


def _width(parts: Sequence[Part]) -> int:
    return sum(len(part.text) + (part.gap if at else 0) for at, part in enumerate(parts))


def plain(facts: Facts) -> str:
    """The facts as one line of a log: `14:05  184 of 300, 3 failed, $172.40, about 9 min left`."""
    parts = [facts.count, *(part.text for part in _wrong(facts)), dollars(facts.cost), facts.time_left]
    return f"{clock(facts.elapsed)}  {', '.join(filter(None, parts))}"


def for_a_program(facts: Facts) -> dict[str, object]:
    """The facts by name, for `--progress json`."""
    return {
        "finished": facts.finished,
        "total": facts.total,
        "done": facts.done,
        "failed": facts.failed,
        "in_doubt": facts.in_doubt,
        "running": facts.running,
        "waiting": facts.waiting,
        "cost": round(facts.cost, 6),
        "seconds": round(facts.elapsed, 1),
        "seconds_left": None if facts.remaining is None else round(facts.remaining),
    }


def about(seconds: float) -> str:
    """A time that is foretold, no more exactly than it is known."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under a minute"
    if minutes < 60:
        return f"about {minutes} min"
    minutes = 5 * round(minutes / 5)
    return f"about {minutes // 60} h {minutes % 60:02d} min"
