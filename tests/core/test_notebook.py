"""A batch and a session in a notebook: shown live and without ipywidgets, with no key, no question and no answer.

IPython is played by two small modules with its display protocol: `get_ipython()`, `display(..., display_id=True)` and
`update()`. That the real one does the same was tried with a kernel; its packages are too heavy for the tests.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from aiopplx import Event, EventKind, Job, JobStatus, PollPolicy, RetryPolicy, Session
from aiopplx._core.announcing import REMEMBERED
from aiopplx._core.batch.notebook import Tally
from aiopplx.emulator import Emulator, faults
from aiopplx.testing import JumpingClock

KEY = "canary-key-5d1f9c3e7b2a"
QUESTIONS = [f"Why did canary {n} sink?" for n in range(12)]


def test_count_of_a_long_batch_does_not_grow() -> None:
    tally = Tally()
    for n in range(REMEMBERED + 5):
        job = Job(id=f"job-{n}", status=JobStatus.FAILED, tag=n)
        tally.count(job, is_stored=False)
        tally.count(job, is_stored=False)
    assert len(tally._tagged) == REMEMBERED
    assert tally.failed == 2 * (REMEMBERED + 5)


class Notebook:
    """What stands below the cells: one list of pictures for each output."""

    def __init__(self) -> None:
        self.outputs: list[list[str]] = []
        self.fails = False
        self.moves = asyncio.Event()  # something is done

    def display(self, thing: Any, *, display_id: bool) -> Any:
        assert display_id is True
        pictures = [thing._repr_html_()]
        self.outputs.append(pictures)

        def update(again: Any) -> None:
            if self.fails:
                raise OSError("the notebook is gone")
            pictures.append(again._repr_html_())
            if " 0 done" not in pictures[-1]:
                self.moves.set()

        return SimpleNamespace(update=update)


def ipython(monkeypatch: pytest.MonkeyPatch, notebook: Notebook, shell: object) -> None:
    module, display = ModuleType("IPython"), ModuleType("IPython.display")
    vars(module)["get_ipython"] = lambda: shell
    vars(display)["display"] = notebook.display
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", display)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    shown = Notebook()
    ipython(monkeypatch, shown, SimpleNamespace(kernel=object()))
    return shown


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
async def server(clock: JumpingClock) -> AsyncIterator[Emulator]:
    async with Emulator(clock=clock, duration=lambda question: 60.0 + len(question) * 3, answer_chars=300) as server:
        yield server


Opened = Callable[..., Session]


@pytest.fixture
def opened(server: Emulator, clock: JumpingClock) -> Opened:
    def session(**more: Any) -> Session:
        return Session(KEY, base_url=server.url, api="sonar", clock=clock, poll=PollPolicy.fixed(5.0), **more)

    return session


async def taken(session: Session, source: Any = QUESTIONS, *, is_shown: bool = True) -> list[Job]:
    async with session.batch(source) as jobs:
        if is_shown:
            jobs.display()
        return [job async for job in jobs]


# --- one output that is kept up to date ------------------------------------------------------------------------------


async def test_batch_is_shown_in_one_output_throughout(opened: Opened, notebook: Notebook) -> None:
    async with opened() as session:
        await taken(session)
    (pictures,) = notebook.outputs
    assert "<b>Batch of 12</b> \N{MIDDLE DOT} 0 done \N{MIDDLE DOT} 12 running or waiting" in pictures[0]
    assert any("so far" in picture and " more" in picture for picture in pictures[1:-1])
    assert "<b>Batch of 12</b> \N{MIDDLE DOT} 12 done</div>" in pictures[-1]
    assert "so far" not in pictures[-1]
    assert "width:100.00%" in pictures[-1]


async def test_an_output_changes_at_most_twice_a_second(
    opened: Opened, notebook: Notebook, clock: JumpingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[float] = []
    picture = notebook.display

    def display(thing: Any, *, display_id: bool) -> Any:
        handle = picture(thing, display_id=display_id)
        return SimpleNamespace(update=lambda again: (moments.append(clock.now()), handle.update(again)))

    monkeypatch.setattr(sys.modules["IPython.display"], "display", display)
    async with opened() as session:
        await taken(session)
    gaps = [after - before for before, after in pairwise(moments[:-1])]
    assert len(gaps) > 10
    assert min(gaps) >= 0.49


async def test_nothing_is_shown_after_a_batch_was_left(opened: Opened, notebook: Notebook, clock: JumpingClock) -> None:
    async with opened() as session:
        async with session.batch(QUESTIONS) as jobs:
            jobs.display()
            async for _ in jobs:
                break
        (pictures,) = notebook.outputs
        count = len(pictures)
        await clock.sleep(60.0)
    assert len(pictures) == count
    assert "11 left" in pictures[-1]
    assert "11 jobs left behind, which go on at the service" in pictures[-1]


async def test_an_interrupted_cell_shows_how_far_it_came(opened: Opened, notebook: Notebook) -> None:
    """A kernel cancels the cell's task when it is interrupted."""
    async with opened() as session:
        cell = asyncio.ensure_future(taken(session))
        await notebook.moves.wait()
        cell.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cell
    assert "left behind" in notebook.outputs[0][-1]


async def test_notebook_that_is_gone_disturbs_no_batch(opened: Opened, notebook: Notebook) -> None:
    async with opened() as session:
        notebook.fails = True
        assert len(await taken(session)) == 12
    assert len(notebook.outputs[0]) == 1


async def test_batch_displayed_before_its_block_is_kept_current(opened: Opened, notebook: Notebook) -> None:
    async with opened() as session:
        jobs = session.batch(QUESTIONS)
        jobs.display()
        async with jobs:
            assert len([job async for job in jobs]) == 12
    assert "12 done</div>" in notebook.outputs[0][-1]


async def test_a_second_display_takes_over_from_the_first(opened: Opened, notebook: Notebook) -> None:
    async with opened() as session, session.batch(QUESTIONS) as jobs:
        jobs.display()
        jobs.display()
        assert len([job async for job in jobs]) == 12
    first, second = notebook.outputs
    assert len(first) == 2
    assert len(second) > 2


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["no shell", "terminal"])
async def test_outside_of_a_notebook_display_does_nothing(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, shell: object
) -> None:
    shown = Notebook()
    ipython(monkeypatch, shown, shell)
    async with opened() as session:
        await taken(session)
    assert shown.outputs == []


async def test_without_ipython_nothing_is_loaded_or_counted(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    async with opened() as session, session.batch(QUESTIONS[:2]) as jobs:
        jobs.display()
        assert len([job async for job in jobs]) == 2
        assert repr(jobs) == "<Batch: 2 of 2 read items handed out>"
        assert jobs._repr_html_() == "<pre>&lt;Batch: 2 of 2 read items handed out&gt;</pre>"


# --- what is shown ---------------------------------------------------------------------------------------------------


async def test_a_finished_batch_names_what_to_look_at_first(clock: JumpingClock, notebook: Notebook) -> None:
    async with Emulator(
        clock=clock, duration=60.0, answer_chars=300, failing=lambda question: " 3 " in question
    ) as bad:
        more = {"clock": clock, "poll": PollPolicy.fixed(5.0), "retry": RetryPolicy(on_doubt="hold")}
        bad.faults.add("submit", faults.Drop(after_accept=True), match="canary 7 ")
        async with Session(KEY, base_url=bad.url, api="sonar", **more) as session:
            await taken(session)
    last = notebook.outputs[0][-1]
    assert "10 done" in last
    assert "1 failed</span>" in last
    assert "1 in doubt</span>" in last
    assert last.index("row 4 <b") < last.index("row 8 <b")
    assert " + 1 unknown" in last


def shapes(questions: list[str]) -> Iterator[tuple[str, Any]]:
    yield "list", questions
    yield "iterator", iter(questions)
    yield "generator", (question for question in questions)


@pytest.mark.parametrize("at", range(3))
async def test_number_of_questions_is_said_once_it_is_known(opened: Opened, notebook: Notebook, at: int) -> None:
    name, source = list(shapes(QUESTIONS))[at]
    async with opened(max_in_flight=5) as session:
        await taken(session, source)
    first, *_, last = notebook.outputs[0]
    assert ("<b>Batch of 12</b>" in first) is (name == "list")
    assert "<b>Batch of 12</b>" in last


async def test_no_key_question_or_answer_is_shown(opened: Opened, notebook: Notebook, tmp_path: Path) -> None:
    async with opened(journal=tmp_path / "run.db", max_cost=100.0) as session:
        before = session._repr_html_()
        jobs = await taken(session, [{"question": question, "meta": {"who": "canary"}} for question in QUESTIONS])
        during = session._repr_html_()
    assert all(job.ok for job in jobs)
    everything = "".join([before, during, session._repr_html_(), repr(session), *notebook.outputs[0]])
    assert "canary" not in everything
    assert not any(job.text[:40] in everything for job in jobs)


async def test_a_session_says_what_runs_and_what_was_spent(opened: Opened, tmp_path: Path) -> None:
    session = opened(journal=tmp_path / "run.db", max_cost=100.0)
    assert "not used yet" in session._repr_html_()
    async with session:
        async with session.batch(QUESTIONS) as jobs:
            async for _ in jobs:
                break
            assert f"{len(jobs.pending)} running" in session._repr_html_()
        assert " of $100.00 spent" in session._repr_html_()
        assert "journal run.db" in session._repr_html_()
    assert "closed" in session._repr_html_()
    assert "no journal" in opened()._repr_html_()


# --- the same cell again ---------------------------------------------------------------------------------------------


async def test_the_same_cell_again_pays_nothing_with_a_journal(
    opened: Opened, server: Emulator, notebook: Notebook, tmp_path: Path
) -> None:
    for _ in range(3):  # a cell that opens its session, run three times
        async with opened(journal=tmp_path / "run.db") as session:
            assert len(await taken(session)) == 12
    assert server.ledger.created == 12
    assert "12 from the journal, $0.00" in notebook.outputs[-1][-1]
    assert "$0.00 \N{MIDDLE DOT} 12 from" not in notebook.outputs[-1][-1]


async def test_repeated_questions_are_told_before_they_are_paid(
    opened: Opened, server: Emulator, notebook: Notebook
) -> None:
    told: list[tuple[int, Event]] = []

    def tell(event: Event) -> None:
        told.append((server.ledger.created, event))

    async with opened(on_event=tell) as session:
        paid = sum(job.cost or 0.0 for job in await taken(session, QUESTIONS[:6]))
        await taken(session, QUESTIONS[:6])
        await taken(session, QUESTIONS[4:8])
    warnings = [(made, event.reason) for made, event in told if event.kind is EventKind.WARNING]
    assert warnings == [
        (
            6,
            f"6 of 6 questions were asked in this session before (${paid:,.2f}). They are new submissions, and are paid"
            " for again; with Session(journal=...) they would not be",
        ),
        (12, warnings[1][1]),
    ]
    assert warnings[1][1].startswith("2 of 4 questions were asked in this session before ($")
