"""Runs code of the documents that is no whole program, with the names round it that its reader has in mind."""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp.web
import fastapi
import msgspec
import pandas
import perplexity
import polars

import aiopplx
import aiopplx.contrib.aiohttp
import aiopplx.contrib.fastapi
from aiopplx.emulator import Emulator, wire
from aiopplx.report import html_report
from aiopplx.testing import JumpingClock

# An example of a module for one framework uses that module's names, and those of the framework.
OF = {
    "aiopplx.contrib.fastapi": {**vars(fastapi), **vars(aiopplx.contrib.fastapi)},
    "aiopplx.contrib.aiohttp": {"web": aiohttp.web, **vars(aiopplx.contrib.aiohttp)},
}
QUESTIONS = ["Why did the Vasa sink?", "Who first measured the speed of light?"]


class Wrecks(msgspec.Struct):
    """What an answer is read into."""

    wrecks: list[str]


@asynccontextmanager
async def reader() -> AsyncIterator[dict[str, Any]]:
    """What a reader has: a session with a journal in the working directory, answers, one job in doubt, a frame."""
    clock = JumpingClock()
    async with (
        Emulator(duration=60.0, answer_chars=200, clock=clock) as server,
        aiopplx.Session("any", base_url=server.url, clock=clock, journal="research.db") as session,
    ):
        done = [await session.ask(question, tag=question) for question in QUESTIONS]
        server.faults.add("submit", "accept_then_drop", times=1)
        with suppress(aiopplx.InDoubt):
            await session.submit(aiopplx.AgentRequest("Which of them is it?", tag="in doubt"))
        yield {
            "Annotated": typing.Annotated,
            **vars(aiopplx.emulator),
            **vars(wire),
            **{name: getattr(aiopplx, name) for name in aiopplx.__all__},
            "aiopplx": aiopplx,
            "html_report": html_report,
            "JumpingClock": JumpingClock,
            "AsyncPerplexity": perplexity.AsyncPerplexity,
            "Wrecks": Wrecks,
            "pandas": pandas,
            "polars": polars,
            "server": server,
            "session": session,
            "question": QUESTIONS[0],
            "questions": QUESTIONS,
            "done": done,
            "job": done[0],
            "frame": pandas.DataFrame({"id": [1, 2], "company": ["Acme", "Umbrella"]}),
            "path": Path("report.html"),
        }


async def run_as_read(code: str, name: str, module: str = "") -> None:
    """Run it in the working directory, which should be an empty one. `await` may stand anywhere, as in a notebook."""
    compiled = compile(textwrap.dedent(code), name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with reader() as known:
        running = eval(compiled, {**known, **OF.get(module, {})})
        if inspect.iscoroutine(running):
            await running
