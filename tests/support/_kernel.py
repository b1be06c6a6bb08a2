"""Gives cells to a kernel in small (`_kernel_child.py`), and reads what they print."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

CHILD = Path(__file__).resolve().parent / "_kernel_child.py"


class Kernel:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []

    @classmethod
    async def started(cls, url: str, cwd: Path) -> Kernel:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, str(CHILD), cwd=cwd, stdin=-1, stdout=-1, stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "PERPLEXITY_API_KEY": "key", "PERPLEXITY_BASE_URL": url}, limit=1 << 20,
            )
        )  # fmt: skip

    def give(self, cell: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(cell).encode() + b"\n")

    async def until(self, begin: str) -> str:
        """The next line that begins so."""
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            self.said.append(line)
            if line.startswith(begin):
                return line.strip()
        raise AssertionError(f"the kernel ended before {begin!r}: {self.said[-5:]}")

    async def run(self, cell: str) -> str:
        self.give(cell)
        return await self.until("---")

    async def killed(self) -> None:
        self.process.kill()
        await self.process.wait()
