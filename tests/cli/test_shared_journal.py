"""The commands over a journal on PostgreSQL: a run, run again, and what reads it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from _postgres import Server

from aiopplx.emulator import AfterPolls, Emulator

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
        for words, why in (
            (("--wait", "5"), "--wait is about a journal in a file"),
            (("--without-log",), "--without-log is about a journal in a file"),
        ):
            code, said = await run("run", "questions.csv", "--journal", url, "--yes", *words)
            assert (code, why in said) == (2, True), said
        code, said = await run("run", "-", "--journal", url, "--yes")
        assert (code, "give --run NAME" in said) == (2, True), said
        assert server.ledger.created == 4
