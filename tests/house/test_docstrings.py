"""Code in the docstrings of public names runs as it is printed, with the names round it that a reader has in mind."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from _public import names, public_modules
from _reader import run_as_read

PARAGRAPH = re.compile(r"(?:^|\n\n)((?: {4}.*\n?|\n(?= {4}))+)")
SECTION = re.compile(r"(?m)^(?:Args|Attributes|Raises|Returns)\b.*:\n(?: {4}.*\n?|\n(?= ))+")


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


@pytest.mark.parametrize("name", EXAMPLES)
async def test_example_in_a_docstring_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER", "0")
    code = EXAMPLES[name]
    if code.endswith(":"):
        code += "\n    assert [job.ok async for job in jobs] == [True, True]"
    await run_as_read(code, name, re.sub(r"(aiopplx\.contrib\.\w+).*", r"\1", name))


def test_examples_are_found_and_of_one_form() -> None:
    assert {"aiopplx.Batch.display", "aiopplx.contrib.fastapi", "aiopplx.testing.JumpingClock"} <= set(EXAMPLES)
    assert [name for name, doc in DOCSTRINGS.items() if ">>>" in doc or "```" in doc] == []
