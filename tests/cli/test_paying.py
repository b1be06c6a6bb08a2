"""Nothing is paid before somebody has agreed to the price, and a script is never held up by a question."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from _shell import FAST, ending, run_at, started, until
from _terminal import on_a_terminal_at

from aiopplx import Estimate
from aiopplx.__main__ import main
from aiopplx.cli._price import Expectation, conflict, consent, told_of
from aiopplx.emulator import Emulator

QUESTION = b"Go on? [y/N]"


def expected(count: int, low: float | None, high: float | None, **more: Any) -> Estimate:
    return Estimate(count, low, high, None, 120.0, 600.0, **more)


def table(folder: Path, count: int) -> Path:
    file = folder / "q.csv"
    file.write_text("id,question\n" + "".join(f"{number:03},Why {number}?\n" for number in range(count)))
    return file


def made(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- who has to agree ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimate", "limit", "given", "said"),
    [
        (expected(5, 2.0, 6.0), 10.0, {}, "given"),
        (expected(5, 2.0, 10.0), 10.0, {}, "given"),
        (expected(50, 2.0, 10.1), 10.0, {}, "needed"),
        (expected(5, 2.0, 6.0), 0.0, {}, "needed"),
        (expected(5, None, None), 1e9, {}, "needed"),  # what is not known is above every limit
        (expected(50, 20.0, 60.0), 10.0, {"yes": True}, "given"),
        (expected(50, 20.0, 60.0), 10.0, {"can_ask": False}, "missing"),
        (expected(50, 20.0, 60.0), 10.0, {"can_ask": False, "is_watched": False}, "given"),
        (expected(0, 0.0, 0.0), 0.0, {}, "given"),
    ],
)
def test_price_above_the_limit_needs_a_yes(estimate: Estimate, limit: float, given: dict[str, bool], said: str) -> None:
    assert consent(estimate, limit, **{"yes": False, "can_ask": True, "is_watched": True, **given}) == said


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (expected(300, 110.0, 360.0), "about $110 to $360, 2 min to 10 min (published"),
        (expected(9, None, None, unknown=1), "the cost of 1 of 9 is not known, 2 min to 10 min; --pilot 5 finds out"),
        (expected(0, 0.0, 0.0, finished=204, running=96), "204 finished, 96 running in q.db; nothing to pay for"),
        (expected(295, 200.0, 320.0, finished=5), "5 finished in q.db; the other 295: about $200 to $320"),
    ],
)
def test_price_is_told_after_what_is_paid(estimate: Estimate, said: str) -> None:
    assert told_of(estimate, "q.db").startswith(said)


def test_tags_of_other_questions_are_told() -> None:
    assert conflict(expected(5, 1.0, 2.0), "q.db", replace=False) == ""
    two = expected(5, 1.0, 2.0, conflicts=2, conflicts_paid=1.5)
    assert conflict(two, "q.db", replace=False) == (
        "2 tags ask something else in q.db; --replace asks them anew and pays again (2 cost $1.50), --journal NEW.db"
        " begins afresh, --skip-bad goes on without them"
    )
    assert conflict(two, "q.db", replace=True).startswith(
        "2 tags ask something else in q.db, which is still running or in doubt; --journal"
    )


def test_passing_the_estimate_is_told_once() -> None:
    expectation = Expectation()
    expectation.set(expected(5, None, None), 0.0)
    assert expectation.passed(1e6) == ""
    expectation.set(expected(295, 200.0, 320.0), 4.5)
    assert expectation.passed(324.5) == ""
    assert expectation.passed(325.0).startswith("$325.00 has passed the estimate of $204.50 to $324.50; --max-cost")
    assert expectation.passed(326.0) == ""


# --- at a terminal ---------------------------------------------------------------------------------------------------


def flat(screen: str) -> str:
    """What it says, wherever its lines end."""
    return " ".join(screen.split())


@pytest.mark.parametrize("keys", [b"\n", b"\x04", b"\x03"], ids=["Enter", "Ctrl-D", "Ctrl-C"])
async def test_without_a_yes_nothing_is_sent_or_made(tmp_path: Path, keys: bytes) -> None:
    file = table(tmp_path, 20)
    async with Emulator(duration=0.0) as server:
        code, seen = await on_a_terminal_at(
            server, "run", str(file), "-o", str(tmp_path / "a.csv"), *FAST, keys=keys, press_at=QUESTION
        )
        assert server.ledger.created == 0
    assert code == 130
    assert "about $7.60 to $24, " in flat(seen)
    assert "Nothing was sent." in flat(seen)
    assert made(tmp_path) == ["q.csv"]


async def test_piped_questions_need_a_yes_on_the_command_line(tmp_path: Path) -> None:
    piped = "".join(f"Why {number}?\n" for number in range(20)).encode()
    async with Emulator(duration=0.0) as server:
        code, seen = await on_a_terminal_at(server, "run", "-", *FAST, piped=piped)
        assert (code, server.ledger.created) == (2, 0)
        assert "say --yes. Nothing was sent." in flat(seen)
        code, seen = await on_a_terminal_at(server, "run", "-", "--yes", *FAST, piped=piped)
        assert (code, server.ledger.created) == (0, 20)


# --- a pilot ---------------------------------------------------------------------------------------------------------


async def test_pilot_asks_and_its_rows_are_not_paid_again(tmp_path: Path) -> None:
    file, answers = table(tmp_path, 12), tmp_path / "a.csv"
    words = ("run", str(file), "-o", str(answers), *FAST)
    async with Emulator(duration=0.0, answer_chars=300) as server:
        code, seen = await on_a_terminal_at(server, *words, "--pilot", "5", keys=b"n\n", press_at=QUESTION)
        assert (code, server.ledger.created) == (130, 5)
        assert "5 of 12 questions done, $" in flat(seen)
        assert "The other 7: about $" in flat(seen)
        assert "(from 5 of yours)" in flat(seen)
        assert "Nothing more was sent." in flat(seen)
        code, seen = await on_a_terminal_at(server, *words, "--pilot", "3", keys=b"y\n", press_at=QUESTION)
        assert (code, server.ledger.created) == (0, 12)
        assert "8 of 12 questions done, $" in flat(seen)
    found = csv.DictReader(answers.read_text().splitlines())
    assert [row["id"] for row in found] == [f"{number:03}" for number in range(12)]


@pytest.mark.parametrize("journal", [(), ("--no-journal",)], ids=["journal", "none"])
async def test_pilot_of_a_script_stops_or_goes_on(tmp_path: Path, journal: tuple[str, ...]) -> None:
    words = ("run", str(table(tmp_path, 12)), "-o", str(tmp_path / "a.jsonl"), *FAST, *journal, "--pilot", "5")
    async with Emulator(duration=0.0, answer_chars=300) as server:
        stopped = await run_at(server, *words)
        assert (stopped.returncode, server.ledger.created) == (0, 5), stopped.stderr
        assert "The other 7: about $" in stopped.stderr
        assert "(from 5 of yours)" in stopped.stderr
        assert stopped.stderr.endswith("Nothing more was sent: --yes goes on without asking.\n")
        if not journal:
            exported = await run_at(server, "export", f"{words[1]}.journal.db")
            assert exported.returncode == 75
            assert "Not all questions have been read" in exported.stderr
        if journal:  # with one, the rows of a pilot are not paid again, which is tried above
            whole = await run_at(server, *words, "--yes", "--force")
            assert (whole.returncode, server.ledger.created) == (0, 17), whole.stderr
            assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 12


async def test_pilot_that_was_broken_off_pays_no_further_rows(tmp_path: Path) -> None:
    words = ("run", str(table(tmp_path, 12)), "-o", str(tmp_path / "a.csv"), *FAST, "--pilot", "3")
    async with Emulator(duration=3600.0, answer_chars=300) as server:
        async with started(server, *words) as process:
            await until(lambda: server.ledger.created == 3)
            process.send_signal(signal.SIGINT)
            assert (await ending(process))[0] == 130
        server.advance(3600.0)
        again = await run_at(server, *words)
        assert (again.returncode, server.ledger.created) == (0, 3)
    assert "3 of 12 questions done, $" in again.stderr
    assert "The other 9: about $" in again.stderr


# --- the look for a program ------------------------------------------------------------------------------------------


def test_look_is_one_object_with_the_same_names(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def look(code: int, *words: str) -> dict[str, Any]:
        assert main(["run", str(file), *words]) == code
        return dict(json.loads(capfd.readouterr().out or "{}"))

    file = table(tmp_path, 3)
    fine = look(0, "--dry-run", "--json")
    file.write_text("id,question\n1,Why?\n2,\n3,How?\n")
    bad = look(2, "--dry-run", "--json")
    file.write_text('id,question\n1,"Why?\n')
    broken = look(2, "--dry-run", "--json")
    assert list(fine) == list(bad) == list(broken)
    assert (fine["rows"], fine["asks"], fine["keeps"]) == (3, ["Why 0?", "Why 1?", "Why 2?"], ["id"])
    assert (fine["estimate"]["count"], fine["refused"]) == (3, None)
    assert bad["unusable"] == [{"place": "line 3", "reason": '"question" is empty'}]
    assert "--skip-bad" in bad["refused"]
    assert "never closed" in broken["refused"]
    assert look(2, "--json") == {}


def test_look_tells_what_this_command_would_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As a person and as a program read it: with --unique nothing is paid twice, with --limit no more is asked."""
    file = tmp_path / "q.csv"
    file.write_text("id,question\n1,Why?\n2,Why?\n3,How?\n")
    assert main(["run", str(file), "--dry-run", "--json", "--unique", "--limit", "1"]) == 0
    found = capfd.readouterr()
    told = json.loads(found.out)
    assert (told["asks"], told["repeats"]) == (["Why?"], 1)
    assert told["notes"] == ["1 row asks what an earlier row asks; each question is asked once"]
    assert told["notes"][0] in found.err
    assert main(["run", str(file), "--dry-run", "--limit", "1"]) == 0
    said = capfd.readouterr().err
    assert "  asks   Why?\n  sends" in said
    assert "each is asked and paid" in said
