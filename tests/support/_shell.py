"""How the tests start the command line as a process, wait for it and read its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import Process

from aiopplx.emulator import Emulator, WireServer

QUESTIONS = Path(__file__).parent.parent.parent / "docs" / "questions.txt"
KEY = "a-key-that-must-not-be-seen"
ENDS_WITHIN = 20
"""Seconds after which a process that should end is taken for stuck."""
FAST = ("--poll", "0.05")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "aiopplx", *words]


def environment(**more: str) -> dict[str, str]:
    hidden = ("PERPLEXITY_", "PPLX_", "AIOPPLX_", "FORCE_COLOR", "COLUMNS")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(hidden)}, **more}


def run(*words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        env=environment(**env),
        check=False,
    )


async def run_at(
    server: Emulator | WireServer, *words: str, stdin: str = "", key: str = KEY
) -> subprocess.CompletedProcess[str]:
    """The same, while this process goes on to be the server."""
    return await anyio.to_thread.run_sync(
        lambda: run(*words, stdin=stdin, PERPLEXITY_BASE_URL=server.url, PERPLEXITY_API_KEY=key)
    )


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def lines(found: Iterable[dict[str, Any]]) -> list[int]:
    return [row["line"] for row in found]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(ENDS_WITHIN):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await anyio.sleep(0.02)


@asynccontextmanager
async def started(
    server: Emulator, *words: str, stdout: int = subprocess.PIPE, program: tuple[str, ...] = ("-m", "aiopplx")
) -> AsyncIterator[Process]:
    env = environment(PERPLEXITY_BASE_URL=server.url, PERPLEXITY_API_KEY=KEY)
    async with await anyio.open_process([sys.executable, *program, *words], env=env, stdout=stdout) as process:
        yield process


async def ending(process: Process) -> tuple[int, str]:
    """The exit code, and all that was said on stderr."""
    assert process.stderr is not None
    with anyio.fail_after(ENDS_WITHIN):
        said = b"".join([part async for part in process.stderr])
        return await process.wait(), said.decode()
