"""What a person sees while a run goes on, at any width, and what a log gets of it."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import msgspec
import pytest
from _shell import FAST, run_at
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import aiopplx
from aiopplx.cli._course import Course
from aiopplx.cli._facts import Answer, Facts, about, plain
from aiopplx.cli._progress import JsonView, LiveView, StillView, View, drawn
from aiopplx.cli._tally import Tally
from aiopplx.emulator import Emulator
from aiopplx.progress import Forecast

ASKED = "Which methods of removing carbon dioxide from the air were in use in 2025, and what did a tonne cost at each?"
LATEST = [Answer(f"row {number}", ASKED, 0.94, 251.0, 31) for number in (185, 186, 187)]
FACTS = Facts(
    finished=184,
    total=300,
    done=180,
    failed=3,
    in_doubt=1,
    running=96,
    cost=172.4,
    elapsed=845.0,
    remaining=540.0,
    expected="about $285",
    likely="$262-$309",
    rate=38.0,
    longest="row 44, 6:12",
    budget="budget $300, $127.60 left",
    files="from companies.csv into companies.answers.csv",
    journal="companies.csv.journal.db",
    latest=LATEST,
)
FINE = msgspec.structs.replace(FACTS, failed=0, in_doubt=0)


def shown(facts: Facts, width: int, *, wait: str = "", colour: bool = False) -> list[str]:
    system: Literal["standard"] | None = "standard" if colour else None
    console = Console(width=width, file=io.StringIO(), force_terminal=colour, color_system=system)
    console.print(drawn(facts, width, wait=wait))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


# --- widths ----------------------------------------------------------------------------------------------------------


def test_forty_columns_show_what_matters_first() -> None:
    assert shown(FINE, 40)[1:] == ["184 of 300   $172.40   about 9 min left"]
    assert shown(FACTS, 40)[1:] == ["184 of 300   3 failed   1 in doubt", "$172.40   about 9 min left   96 running"]
    assert shown(FACTS, 30)[1:] == ["184 of 300   3 failed", "1 in doubt   $172.40"]
    assert shown(FINE, 40, wait="Submissions pause 0:42: rate limit") == [
        "Submissions pause 0:42: rate limit",
        "184 of 300   $172.40   about 9 min left",
    ]


def test_hundred_columns_show_the_last_answer() -> None:
    bar, counts, last = shown(FACTS, 100)
    assert bar.endswith("  184 of 300   14:05   about 9 min left")
    assert counts == (
        "180 done   3 failed   1 in doubt   96 running   20 waiting        $172.40 of about $285 ($262-$309)"
    )
    assert last.startswith("row 187  Which methods")
    assert last.endswith("…  $0.94")


def test_two_hundred_columns_show_all_there_is() -> None:
    bar, counts, *latest = shown(FACTS, 200)
    for words in ("38 submissions a minute", "longest running: row 44, 6:12", "budget $300, $127.60 left"):
        assert words in bar
    assert counts.endswith("journal companies.csv.journal.db")
    assert [line.split("  ")[0] for line in latest] == ["row 185", "row 186", "row 187"]
    assert all(line.endswith("?  $0.94, 4:11, 31 sources") for line in latest)


@pytest.mark.parametrize(("rate", "said"), [(1117.4, "1,117"), (38.2, "38"), (2.04, "2"), (0.5, "0.5")])
def test_pace_is_a_number_as_people_write_it(rate: float, said: str) -> None:
    assert f"   {said} submissions a minute   " in shown(msgspec.structs.replace(FACTS, rate=rate), 200)[0]


@given(
    st.integers(1, 260),
    st.integers(0, 10**7),
    st.integers(0, 10**6),
    st.floats(0, 1e7),
    st.none() | st.floats(0, 1e6),
    st.booleans(),
    st.text(alphabet="aä的字 ", max_size=200),
)
def test_nothing_is_cut_at_any_width(
    width: int, finished: int, failed: int, cost: float, remaining: float | None, is_known: bool, asked: str
) -> None:
    facts = msgspec.structs.replace(
        FACTS,
        finished=finished,
        total=finished + 3 if is_known else None,
        failed=failed,
        cost=cost,
        remaining=remaining,
        latest=[Answer("row 1", asked, cost)],
    )
    lines = shown(facts, width)
    assert all(cell_len(line) <= width for line in lines)
    if width >= 30:
        assert f"{finished:,} " in "\n".join(lines)
    parts = [part for line in lines for part in re.split(r" {2,}", line) if "row 1" not in line]
    assert not any("…" in part for part in parts if width >= 20)


def test_colour_is_for_what_went_wrong_only() -> None:
    text = "\n".join(shown(FACTS, 100, colour=True))
    assert "\x1b[31m3 failed" in text
    assert "\x1b[33m1 in doubt" in text
    assert "\x1b[" not in "\n".join(shown(FACTS, 100))
    _, counts, _ = shown(FINE, 100, colour=True)
    assert "\x1b[" not in counts


def test_display_that_comes_back_leaves_other_lines_alone() -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=True)
    assert isinstance(console.file, io.StringIO)
    view = LiveView(lambda elapsed: FACTS, console)
    view.start()
    view.stop()
    before = len(console.file.getvalue())
    view.start()
    view.say("Something")
    drawn_again, _, _ = console.file.getvalue()[before:].partition("184 of 300")
    view.stop()
    assert "\x1b[1A" not in drawn_again  # the cursor goes up to lines that are not its own


# --- time ------------------------------------------------------------------------------------------------------------


class Foretelling:
    """A session that foretells one end, and remembers how many jobs it was told of that are still to be sent."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.waiting: list[int] = []

    def eta(self, *, waiting: int) -> Forecast:
        self.waiting.append(waiting)
        return Forecast(last=None if self.seconds is None else time.time() + self.seconds)


def course_of(session: Foretelling, *, total: int | None, came: int, running: int) -> Course:
    tally = Tally()
    course = Course(tally, lambda: total, lambda index: f"line {index}")
    course.session = cast("aiopplx.Session", session)
    for number in range(came + running):
        event = aiopplx.Event(kind=aiopplx.EventKind.SUBMITTED, job_id=f"j{number}", index=number)
        tally.on_event(event, 100.0)
    for number in range(came):
        job = aiopplx.Job(id=f"j{number}", status=aiopplx.JobStatus.COMPLETED, seconds=20.0, polls=3, attempts=1)
        tally.count(job)
        course.answered(f"line {number}", "Why?", job, is_shown=False)
    course.reckon()
    return course


@pytest.mark.parametrize(
    ("total", "came", "running", "foretold", "waiting"),
    [
        (100, 3, 25, 60.0, [72]),
        (28, 3, 25, 60.0, [0]),
        (100, 3, 0, 60.0, [97]),
        (100, 3, 25, None, [72]),
        (100, 2, 25, 60.0, []),  # too little is known
        (300, 14, 280, 60.0, [6]),
        (300, 10, 280, 60.0, []),  # the first of many say little
        (None, 3, 25, 60.0, []),
        (3, 3, 0, 60.0, [0]),
    ],
)
def test_time_left_is_what_the_session_foretells(
    total: int | None, came: int, running: int, foretold: float | None, waiting: list[int]
) -> None:
    session = Foretelling(foretold)
    remaining = course_of(session, total=total, came=came, running=running).facts(20.0).remaining
    assert session.waiting == waiting
    if waiting and foretold is not None and (running or waiting != [0]):
        assert remaining is not None
        assert 0.0 < remaining <= foretold
    else:
        assert remaining is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (10, "under a minute"),
        (61, "about 1 min"),
        (3400, "about 57 min"),
        (4000, "about 1 h 05 min"),
        (3590, "about 1 h 00 min"),
    ],
)
def test_foretold_time_is_no_more_exact_than_known(seconds: float, said: str) -> None:
    assert about(seconds) == said


def test_course_counts_what_the_run_itself_paid() -> None:
    tally = Tally()
    course = Course(tally, lambda: 10, lambda index: f"line {index}", max_cost=5.0, spent=1.0)
    for number in range(2):
        event = aiopplx.Event(kind=aiopplx.EventKind.SUBMITTED, job_id=f"j{number}", index=number)
        tally.on_event(event, 100.0)
        course.submitted()
    course.reckon()
    facts = course.facts(7.0)
    assert (facts.running, facts.waiting, facts.remaining, facts.rate) == (2, 8, None, None)
    assert facts.longest.startswith("line 0, ")
    assert facts.budget == "budget $5.00, $4.00 left"
    course.expects(aiopplx.Estimate(8, 3.0, 9.0, 6.0, 1.0, 2.0))
    assert (course.facts(7.0).expected, course.facts(7.0).likely) == ("about $6.00", "$3.00-$9.00")


# --- logs ------------------------------------------------------------------------------------------------------------


def test_log_line_has_what_matters() -> None:
    assert plain(FACTS) == "14:05  184 of 300, 3 failed, 1 in doubt, $172.40, about 9 min left"
    assert plain(msgspec.structs.replace(FINE, total=None, remaining=None)) == "14:05  184 finished, $172.40"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (View, "0:00  Submissions pause 1:00: silence\ndone\n"),
        (lambda facts: StillView(facts, quiet=False), "done\n"),
        (lambda facts: StillView(facts, quiet=True), ""),
        (JsonView, '{"message":"Submissions pause 1:00: silence","seconds":0.0}\n{"message":"done"}\n'),
    ],
    ids=["plain", "none", "quiet", "json"],
)
def test_log_says_little(
    make: Callable[[Callable[[float], Facts]], View], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with make(lambda elapsed: FACTS) as view:
        view.update()
        view.waits("Submissions pause", "a moment", 0.5)
        view.waits("Submissions pause", "\x1b[31msilence", 60.0)
        view.waits("Submissions pause", "and again", 60.0)
        view.remark("done")
    assert capsys.readouterr() == ("", expected)


async def test_progress_as_json_is_an_object_a_line(tmp_path: Path) -> None:
    file = tmp_path / "q.txt"
    file.write_text("Why?\nHow?\n")
    async with Emulator(duration=0.0) as server:
        done = await run_at(server, "run", str(file), "--progress", "json", "-o", str(tmp_path / "a.jsonl"), *FAST)
    assert done.returncode == 0
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert "2 questions: 2 done" in said[-1]["message"]
