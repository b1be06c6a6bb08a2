"""The commands over a journal on PostgreSQL: a run, run again, and what reads it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from _postgres import Server
from _rows import brought_to
from _shell import FAST, KEY, command, environment, rows

from aiopplx.cli._journals import others_running
from aiopplx.cli._run import _Run as Run
from aiopplx.emulator import AfterPolls, Emulator, faults
from aiopplx.journal import PostgresJournal, State

pytestmark = pytest.mark.slow

QUESTIONS = "question;tag\nWhy?;1\nHow?;2\nWhen?;\n"


async def test_commands_take_the_url_of_a_journal(postgres: Server, tmp_path: Path) -> None:
    url = postgres.url()
    (tmp_path / "questions.csv").write_text(QUESTIONS)
    async with Emulator(duration=AfterPolls(1), answer_chars=100) as server:
        env = {**os.environ, "PERPLEXITY_API_KEY": "k" * 20, "PERPLEXITY_BASE_URL": server.url}

        async def run(*words: str) -> tuple[int, str]:
            program = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "aiopplx", *words),
                env=env,
                cwd=tmp_path,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await program.communicate()
            return program.returncode or 0, said.decode()

        whole = ("run", "questions.csv", "--journal", url, "--yes", "--poll", "0.2", "-o", "answers.csv")
        for _ in range(2):
            code, said = await run(*whole)
            assert (code, "3 done" in said) == (0, True), said
        code, said = await run(*whole, "--run", "another")
        assert (code, server.ledger.created) == (0, 4), said  # the one without a tag is another run's now
        for words, has in (
            (("status", url), "done"),
            (("cost", url), "4"),
            (("cost", url, "--recount"), "$0.00 held"),
            (("review", url), ""),
            (("export", url, "-o", "exported.csv"), ""),
            (("journal", "migrate", url), "already"),
        ):
            code, said = await run(*words)
            assert (code, has in said) == (0, True), said
        exported = (tmp_path / "exported.csv").read_text("utf-8-sig")
        assert exported.count("COMPLETED") >= 3
        assert exported.startswith("question;tag;")  # as the run's own table is written
        code, said = await run("run", "questions.csv", "--journal", url, "--yes", "--without-log")
        assert (code, "--without-log is about a journal in a file" in said) == (2, True), said
        code, said = await run("run", "-", "--journal", url, "--yes")
        assert (code, "give --run NAME" in said) == (2, True), said
        assert server.ledger.created == 4


async def test_jobs_that_a_session_holds_are_nobody_elses(postgres: Server) -> None:
    journal = await PostgresJournal.open(url := await postgres.empty())
    record = await brought_to(journal, State.ACCEPTED)
    assert await asyncio.to_thread(others_running, url, []) == []
    await journal.close()
    assert [other.pk for other in others_running(url, [])] == [record.pk]
    assert others_running(url, [record.job_id]) == []


def test_journal_away_in_the_end_fails_no_run() -> None:
    said: list[str] = []
    run: Any = object.__new__(Run)
    run._view, run._timed_out = SimpleNamespace(remark=said.append), []
    run._say_others("postgresql:///x?host=/nowhere&user=u")
    assert len(said) == 1
    assert "could not be looked up: the database postgresql://u@/x" in said[0]


async def test_two_machines_do_one_run_together(postgres: Server, tmp_path: Path) -> None:
    """Two processes at once, each with a copy of the file, and no folder of the other's: nothing but the database."""
    url, questions = postgres.url(), "".join(f"What became of ship number {n}?\n" for n in range(30))

    async def machine(server: Emulator, name: str) -> list[dict[str, Any]]:
        home = tmp_path / name
        home.mkdir()
        (home / "questions.txt").write_text(questions, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *command("run", "questions.txt", "--journal", url, "-o", "answers.jsonl", *FAST),
            cwd=home,
            env=environment(
                HOME=str(home),
                TMPDIR=str(home),
                PERPLEXITY_BASE_URL=server.url,
                PERPLEXITY_API_KEY=KEY,
                PYTHONPATH=str(Path(__file__).parents[2]),
            ),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode == 0, said
        return rows((home / "answers.jsonl").read_text(encoding="utf-8"))

    async with Emulator(duration=AfterPolls(3), answer_chars=300) as server:
        server.faults.add("submit", faults.Delay(0.5))  # long enough for both to be at it
        one, other = await asyncio.gather(machine(server, "one"), machine(server, "other"))
        assert server.ledger.created == 30
    assert [answer["ok"] for answer in [*one, *other]] == [True] * 60
    assert {answer["id"] for answer in one} == {answer["id"] for answer in other}
    assert len({answer["id"] for answer in one}) == 30
