"""What the benchmarks share: a fresh process for each run, rounds that interleave, medians, tables and pictures.

A run is a child: the same file again, with what to do as JSON in its arguments, and one JSON line as its answer. This
module knows nothing of what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
# Two runs whose gauges differ by more than this were made on two machines, as it were.
SAME_SPEED = 1.15
Record = dict[str, Any]


# --- in the child ----------------------------------------------------------------------------------------------------


def gauge() -> float:
    """CPU microseconds of a fixed piece of work: how fast this machine is at this moment.

    Shared machines change speed by a factor within seconds; every figure is kept together with this one.
    """
    return min(_fixed_work() for _ in range(5)) * 1e6


def _fixed_work() -> float:
    before = time.process_time()
    held: dict[int, str] = {}
    for n in range(4_000):
        held[n & 255] = str(n)
    return time.process_time() - before


def memory(field: str) -> int:
    """Bytes, from /proc/self/status: `VmHWM` is the peak of this process, `VmRSS` what it holds now.

    Elsewhere `ru_maxrss`, which is the peak for either, and on Linux would begin with the parent's: hence the first.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def answer(record: Mapping[str, object]) -> None:
    """The child's result."""
    print(json.dumps(record), flush=True)


# --- in the parent ---------------------------------------------------------------------------------------------------


def arguments(
    doc: str | None, *, rounds: int, words: Mapping[str, Mapping[str, Any]] | None = None
) -> argparse.Namespace:
    """The words all benchmarks take, and a benchmark's own. `quick` is for trying out; its figures are for nobody."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and small runs: to see that it works")
    parser.add_argument("--rounds", type=int, help=f"runs of each case (default {rounds}, quick 2)")
    parser.add_argument("--only", default="", help="names of peers, with commas")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    for word, how in (words or {}).items():
        parser.add_argument(word, **how)
    given = parser.parse_args()
    given.rounds = given.rounds or (2 if given.quick else rounds)
    given.only = [name for name in given.only.split(",") if name]
    given.child = json.loads(given.child) if given.child else None
    return given


def known(asked: Iterable[str], names: Sequence[str]) -> None:
    """Ends the program if one of the names is none."""
    unknown = sorted(set(asked) - set(names))
    if unknown:
        sys.exit(f"nothing here is called {', '.join(unknown)}; there are: {', '.join(names)}")


class Server:
    """The benchmark server, in its own process, for one run."""

    def __init__(self, *, size: int, gets: int, two_byte: bool = False) -> None:
        words = ["--size", str(size), "--gets", str(gets), *(["--two-byte"] if two_byte else [])]
        self._words = [sys.executable, str(HERE / "_server.py"), *words]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._process.communicate()

    def counts(self) -> dict[str, int]:
        """What it was asked for: `jobs`, `posts`, `gets`, `lists`, `connections`, `finished`."""
        with urllib.request.urlopen(f"{self.url}/_counts", timeout=10) as reply:
            counts: dict[str, int] = json.load(reply)
        return counts


def run(file: str, spec: Mapping[str, object]) -> Record:
    """One run of one case in a fresh process.

    Raises:
        RuntimeError: the child failed; its standard error is shown.
    """
    command = [sys.executable, file, "--child", json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        raise RuntimeError(f"{spec} failed:\n{done.stderr[-4000:]}")
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return record


def environment() -> dict[str, str]:
    """The environment of a child, without what would change a client's behaviour: proxies, keys, interpreter flags.

    PYTHONPATH is passed on, and is otherwise the tree that this file lies in: a child must measure that tree, not
    another one that happens to be installed.
    """
    odd = ("PERPLEXITY", "PPLX", "AIOPPLX", "PYTHON", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(odd)}
    return {**kept, "PYTHONPATH": os.environ.get("PYTHONPATH") or str(HERE.parent)}


def interleaved(
    groups: Sequence[Sequence[Mapping[str, object]]],
    rounds: int,
    one: Callable[[Mapping[str, object]], Record],
    *,
    tells_round: bool = False,
) -> Iterator[Record]:
    """Every case once a round, those of a group one after another: what one meets of the machine's moods, all meet.

    Order is drawn anew in each round, for the groups and within them. With `tells_round` a run is told its round, which
    is its seed.
    """
    order = random.Random(1628)
    for number in range(rounds):
        for group in order.sample(list(groups), len(groups)):
            for case in order.sample(list(group), len(group)):
                record = {**case, "round": number, **one({**case, "round": number} if tells_round else case)}
                print(json.dumps(record), flush=True)
                yield record


def spread(values: Sequence[float]) -> Record:
    """Median, quartiles (least and greatest of fewer than four) and count."""
    held = sorted(values)
    low, high = (held[0], held[-1]) if len(held) < 4 else statistics.quantiles(held, n=4, method="inclusive")[::2]
    return {"median": statistics.median(held), "low": low, "high": high, "n": len(held)}


def ratios(records: Sequence[Record], field: str, of: str, to: str) -> Record:
    """`field` of one peer over another's, round by round.

    A round in which the machine changed its speed between the two does not count, unless that leaves fewer than three.
    """
    rounds: dict[int, dict[str, Record]] = {}
    for record in records:
        rounds.setdefault(record["round"], {})[record["peer"]] = record
    pairs = [(found[of], found[to]) for found in rounds.values() if of in found and to in found]
    steady = [(ours, theirs) for ours, theirs in pairs if 1 / SAME_SPEED < ours["gauge"] / theirs["gauge"] < SAME_SPEED]
    return spread([ours[field] / theirs[field] for ours, theirs in (steady if len(steady) >= 3 else pairs)])


def finish(name: str, results: object, tables: Sequence[Record], pictures: Sequence[Record] = ()) -> None:
    """The last JSON line on standard output, which `python -m benchmarks` makes a page of; tables on standard error.

    Args:
        name: the benchmark's.
        results: all figures.
        tables: what people read; see `table`.
        pictures: see `bars` and `curves`.
    """
    made = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions()}
    whole = {"summary": name, **made, "tables": tables, "pictures": pictures, "results": results}
    print(json.dumps(whole), flush=True)
    print("\n" + "\n\n".join(markdown(one) for one in tables), file=sys.stderr)
    print(
        f"\n{made['machine']}; {', '.join(f'{name} {one}' for name, one in made['versions'].items())}", file=sys.stderr
    )


def versions() -> dict[str, str]:
    """What was measured with."""
    from aiopplx._version import __version__

    found = {"python": platform.python_version(), "aiopplx": f"{__version__}{commit()}"}
    for name in ("aiohttp", "msgspec", "anyio", "perplexityai", "httpx", "httpx-aiohttp"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that was measured, in brackets, and whether its code was changed; nothing outside a clone."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(HERE.parent), *words], capture_output=True, text=True, check=False)

    try:
        known = git("rev-parse", "--short=9", "HEAD")
        is_changed = git("diff", "--quiet", "HEAD", "--", "aiopplx", "benchmarks").returncode != 0
    except FileNotFoundError:  # no git
        return ""
    return f" (commit {known.stdout.strip()}{', changed' if is_changed else ''})" if not known.returncode else ""


def machine() -> str:
    """System, processor, how many of them, and how much ran beside."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    load = f", load {os.getloadavg()[2]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{platform.system()}, {model}, {os.cpu_count()} CPUs{load}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", notes: str = "") -> Record:
    """A table as a value: the first column stands left, the others right; `notes` stand below."""
    return {"title": title, "head": list(head), "rows": [list(row) for row in rows], "notes": notes}


def markdown(shown: Record) -> str:
    """A table in Markdown."""
    lines = [shown["head"], ["---", *("---:" for _ in shown["head"][1:])], *shown["rows"]]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join(part for part in (shown["title"] and f"**{shown['title']}**", text, shown["notes"]) if part)


def bars(
    title: str, unit: str, groups: Sequence[str], series: Mapping[str, Sequence[Any]], *, logarithmic: bool = False
) -> Record:
    """A picture as a value: for each group a bar of each series.

    Args:
        title: what it shows.
        unit: what the numbers are.
        groups: names of the groups.
        series: by name, a number for each group: a figure, a spread (`spread`), or None where there is none.
        logarithmic: each tenfold is as far apart.
    """
    held = {name: list(values) for name, values in series.items()}
    return {
        "kind": "bars",
        "title": title,
        "unit": unit,
        "groups": list(groups),
        "series": held,
        "logarithmic": logarithmic,
    }


def curves(
    title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]], *, logarithmic: bool = False
) -> Record:
    """A picture as a value: for each series a line through its points, or a single point."""
    held = {name: [list(point) for point in points] for name, points in series.items()}
    return {"kind": "curves", "title": title, "across": across, "up": up, "series": held, "logarithmic": logarithmic}


def shown(found: Mapping[str, float], digits: int = 0) -> str:
    """`median (low-high)`."""
    return f"{found['median']:,.{digits}f} ({found['low']:,.{digits}f}-{found['high']:,.{digits}f})"
