"""How long does `import aiopplx` take, against aiohttp alone and the official SDK?

CPU milliseconds of the import in a fresh interpreter with its bytecode cached, and how much of the memory stays.

    python benchmarks/import_time.py [--quick] [--rounds N]
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from typing import Any

import _harness as harness

# The last is what `aiopplx --help` begins with: it should not pay for the network.
SUBJECTS = ("msgspec", "aiohttp", "aiopplx", "perplexity", "aiopplx.__main__")


def child(spec: Mapping[str, Any]) -> None:
    held, before = harness.memory("VmRSS"), time.process_time()
    importlib.import_module(spec["peer"])
    cpu = time.process_time() - before
    grown = harness.memory("VmRSS") - held
    harness.answer({"import_ms": cpu * 1e3, "grown_mb": grown / 1e6, "gauge": harness.gauge()})


def main() -> None:
    given = harness.arguments(__doc__, rounds=15)
    if given.child:
        child(given.child)
        return
    cases = [{"peer": name} for name in SUBJECTS]
    for case in cases:
        harness.run(__file__, case)  # writes the bytecode
    records = list(harness.interleaved([cases], given.rounds, lambda case: harness.run(__file__, case)))
    found: dict[str, Any] = {}
    for name in SUBJECTS:
        ours = [record for record in records if record["peer"] == name]
        found[name] = {
            "import_ms": harness.spread([record["import_ms"] for record in ours]),
            "to_aiohttp": harness.ratios(records, "import_ms", name, "aiohttp"),
            "grown_mb": harness.spread([record["grown_mb"] for record in ours]),
        }
    rows = [
        [f"`{name}`", harness.shown(of["import_ms"]), harness.shown(of["to_aiohttp"], 2), harness.shown(of["grown_mb"])]
        for name, of in found.items()
    ]
    head = ["import", "CPU ms", "to aiohttp", "MB"]
    harness.finish("import_time", found, harness.table(head, rows))


if __name__ == "__main__":
    main()
