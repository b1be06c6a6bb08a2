"""Runs benchmarks, and writes what they measured into `docs/benchmarks/`: results as JSON, and the page made of them.

    python -m benchmarks                     # all of them: some hours
    python -m benchmarks --list
    python -m benchmarks limits --quick      # small runs, written to build/benchmarks: shows that it works
    python -m benchmarks limits -- --only shared-50    # the benchmark's own words
    python -m benchmarks --draw              # the pages again, from the results that are there

Each benchmark is a program of its own, and runs alone: they would spoil each other's figures. Pictures need the extra
`bench`. This module knows nothing of what is measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._pages import DOCS, write
from benchmarks._questions import HERE, Question, questions

TRIED = HERE.parent / "build" / "benchmarks"


def measured(question: Question, words: Sequence[str]) -> dict[str, Any]:
    """Run one benchmark to its end. Raises `CalledProcessError` if it fails."""
    command = [sys.executable, str(HERE / f"{question.name}.py"), *words]
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def stored(question: Question, folder: Path) -> dict[str, Any] | None:
    """The results that are there."""
    try:
        result: dict[str, Any] = json.loads((folder / f"{question.name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="which benchmarks; default: all")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--quick", action="store_true", help="few and small runs, for nobody's eyes")
    parser.add_argument(
        "--draw", action="store_true", help="run nothing: write the pages of the results that are there"
    )
    parser.add_argument("--out", type=Path, help="where results and pages go; default docs/benchmarks")
    own = sys.argv[1:]
    split = own.index("--") if "--" in own else len(own)
    given = parser.parse_args(own[:split])
    given.words = own[split + 1 :]
    return given


def main() -> int:
    given, known = arguments(), questions()
    unknown = [name for name in given.names if name not in known]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in given.names or known]
    if given.list:
        for question in chosen:
            print(f"{question.name:22} {question.asks}")
        return 0
    if importlib.util.find_spec("matplotlib") is None:  # said now, and not after hours of measuring
        print("pictures need matplotlib: pip install -e '.[bench]'", file=sys.stderr)
        return 2
    to = given.out or (TRIED if given.quick else DOCS)
    failed = []
    for question in chosen:
        if given.draw:
            result = stored(question, to)
        else:
            print(f"== {question.name}: {question.asks}", file=sys.stderr, flush=True)
            try:
                result = measured(question, [*(["--quick"] if given.quick else []), *given.words])
            except subprocess.CalledProcessError:
                failed.append(question.name)
                continue
        if result is not None:
            write(question, result, to)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
