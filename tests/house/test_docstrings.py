"""Code in the docstrings of public names runs as it is printed, with the names round it that a reader has in mind."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import typing
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp.web
import fastapi
import pandas
import perplexity
import polars
import pytest
from _public import names, public_modules

import aiopplx
import aiopplx.contrib.aiohttp
import aiopplx.contrib.fastapi
import aiopplx.emulator
import aiopplx.report
import aiopplx.testing
from aiopplx.emulator import wire

PARAGRAPH = re.compile(r"(?:^|\n\n)((?: {4}.*\n?|\n(?= {4}))+)")
SECTION = re.compile(r"(?m)^(?:Args|Attributes|Raises|Returns)\b.*:\n(?: {4}.*\n?|\n(?= ))+")
# An example of a module for one framework uses that module's names, and those of the framework.
OF = {
    "aiopplx.contrib.fastapi": {**vars(fastapi), **vars(aiopplx.contrib.fastapi)},
    "aiopplx.contrib.aiohttp": {"web": aiohttp.web, **vars(aiopplx.contrib.aiohttp)},
}


def docstrings() -> Iterator[tuple[str, str]]:
    for module in public_modules():
        yield module.__name__, inspect.getdoc(module) or ""
    for name, thing in names():
        if isinstance(thing, property):
            thing = thing.fget
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield name, inspect.getdoc(thing) or ""


DOCSTRINGS = dict(docstrings())


def examples() -> dict[str, str]:
    found = {}
    for name, doc in DOCSTRINGS.items():
        for match in PARAGRAPH.finditer(SECTION.sub("", doc)):
            found.setdefault(textwrap.dedent(match[1]).strip(), name)
    return {name: code for code, name in found.items()}


EXAMPLES = examples()


@asynccontextmanager
async def reader(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """What the reader of an example has: a session, a server, answers, a frame, a place for files."""
    clock = aiopplx.testing.JumpingClock()
    async with (
        aiopplx.emulator.Emulator(duration=60.0, answer_chars=200, clock=clock) as server,
        aiopplx.Session("any", base_url=server.url, clock=clock) as session,
    ):
        questions = ["Why did the Vasa sink?", "Who first measured the speed of light?"]
        yield {
            **{name: vars(typing)[name] for name in ("Annotated", "Any")},
            **vars(aiopplx.emulator),
            **vars(wire),
            **{name: getattr(aiopplx, name) for name in aiopplx.__all__},
            "aiopplx": aiopplx,
            "html_report": aiopplx.report.html_report,
            "JumpingClock": aiopplx.testing.JumpingClock,
            "AsyncPerplexity": perplexity.AsyncPerplexity,
            "pandas": pandas,
            "polars": polars,
            "server": server,
            "session": session,
            "questions": questions,
            "done": [await session.ask(question) for question in questions],
            "frame": pandas.DataFrame({"id": [1, 2], "company": ["Acme", "Umbrella"]}),
            "path": tmp_path / "report.html",
        }


@pytest.mark.parametrize("name", EXAMPLES)
async def test_example_in_a_docstring_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER", "0")
    code = EXAMPLES[name]
    if code.endswith(":"):
        code += "\n    assert [job.ok async for job in jobs] == [True, True]"
    module = re.sub(r"(aiopplx\.contrib\.\w+).*", r"\1", name)
    async with reader(tmp_path) as known:
        known = {**known, **OF.get(module, {})}
        compiled = compile(code, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = eval(compiled, known)
        if inspect.iscoroutine(running):
            await running


def test_examples_are_found_and_of_one_form() -> None:
    assert {"aiopplx.Batch.display", "aiopplx.contrib.fastapi", "aiopplx.testing.JumpingClock"} <= set(EXAMPLES)
    assert [name for name, doc in DOCSTRINGS.items() if ">>>" in doc or "```" in doc] == []
