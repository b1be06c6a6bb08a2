"""The pages of `docs/benchmarks/`, made of results: one for each question, with its tables and pictures.

This module knows nothing of how a benchmark is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._harness import markdown
from benchmarks._questions import Question

DOCS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"


def pictures(name: str, result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The pictures of a page, by file name."""
    shown = result["pictures"]
    return {f"{name}{f'-{n}' if n > 1 else ''}.svg": picture for n, picture in enumerate(shown, 1)}


def page(question: Question, result: Mapping[str, Any]) -> str:
    """The page of one question, as Markdown."""
    name, versions = question.name, ", ".join(f"{name} {one}" for name, one in result["versions"].items())
    parts = [
        f"# {question.asks}",
        re.sub(r"(?m)^ {4}(.+)$", r"```sh\n\1\n```", question.how),
        "## What was measured",
        *(markdown(table) for table in result["tables"]),
        *(f"![{picture['title']}]({file})" for file, picture in pictures(name, result).items()),
        "## Made",
        f"By `python -m benchmarks {name}` on {result['date']}: {result['machine']}; {versions}. This page is"
        f" written by that command from `docs/benchmarks/{name}.json`, which has every figure."
        " [All benchmarks](../benchmarks.md).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(question: Question, result: Mapping[str, Any], to: Path) -> None:
    """Write the results, the page and its pictures."""
    from benchmarks._pictures import draw  # the one part that needs matplotlib

    to.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in result.items())
    (to / f"{question.name}.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    (to / f"{question.name}.md").write_text(page(question, result), encoding="utf-8")
    drawn = pictures(question.name, result)
    for old in to.glob(f"{question.name}*.svg"):
        if old.name not in drawn and re.fullmatch(rf"{question.name}(-\d+)?\.svg", old.name):
            old.unlink()
    for file, picture in drawn.items():
        draw(picture, to / file)
