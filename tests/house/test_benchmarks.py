"""The benchmarks can be run, and the pages in docs/benchmarks say what their results say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _source import ROOT

sys.path.insert(0, str(ROOT))
from benchmarks._harness import bars, curves, markdown, spread, table
from benchmarks._pages import DOCS, page, pictures
from benchmarks._questions import questions

INDEX = ROOT / "docs" / "benchmarks.md"
RESULTS = sorted(DOCS.glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_page_is_made_of_its_results(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    written = path.with_suffix(".md").read_text(encoding="utf-8")
    assert written == page(questions()[path.stem], result), "python -m benchmarks --draw writes the pages again"
    assert all((DOCS / file).read_text(encoding="utf-8").startswith("<?xml") for file in pictures(path.stem, result))
    assert f"benchmarks/{path.stem}.md" in INDEX.read_text(encoding="utf-8")


def test_every_question_is_one_line_that_asks() -> None:
    found = questions()
    assert {"limits", "polling_frontier", "cpu_per_job"} <= set(found)
    assert [name for name, question in found.items() if "?" not in question.asks or not question.how] == []


def test_figures_are_shown_as_they_are() -> None:
    spreads = [spread([1.0, 2.0, 3.0]), None]
    assert markdown(table(["a", "b"], [["x", "1"]], title="T", notes="N")) == (
        "**T**\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n\nN"
    )
    assert bars("t", "s", ["g", "h"], {"ours": spreads})["series"] == {
        "ours": [{"median": 2.0, "low": 1.0, "high": 3.0, "n": 3}, None]
    }
    assert curves("t", "x", "y", {"ours": [(1.0, 2.0)]})["series"] == {"ours": [[1.0, 2.0]]}


def test_benchmarks_are_listed_by_name() -> None:
    told = _run("-m", "benchmarks", "--list").stdout
    assert [line.split()[0] for line in told.splitlines()] == list(questions())


@pytest.mark.slow
def test_benchmark_of_limits_runs_as_its_page_says() -> None:
    told = _run("benchmarks/limits.py", "--only", "library,gateway-15", "--rounds", "1").stdout
    result: dict[str, Any] = json.loads(told.splitlines()[-1])
    ours = result["results"]["gateway-15"]["library"]
    assert ours["last_submission"]["median"] >= ours["ideal"]["median"]
    assert result["tables"][0]["rows"]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=True)
