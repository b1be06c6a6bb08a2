"""How long does `from aiopplx import Session` take, against aiohttp alone and the official SDK?

CPU milliseconds of the statement in a fresh interpreter with its bytecode cached, and how much memory stays. The
package loads its parts when they are first named: a bare `import aiopplx` costs next to nothing, and says nothing.

    python benchmarks/import_time.py [--quick] [--rounds N]
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import _harness as harness

STATEMENTS = (
    "import msgspec",
    "import aiohttp",
    "import aiopplx",
    "from aiopplx import Session",
    "from perplexity import AsyncPerplexity",
)
FLOOR = "import aiohttp"


def child(spec: Mapping[str, Any]) -> None:
    held, before = harness.memory("VmRSS"), time.process_time()
    exec(spec["peer"], {})
    cpu = time.process_time() - before
    grown = harness.memory("VmRSS") - held
    harness.answer({"import_ms": cpu * 1e3, "grown_mb": grown / 1e6, "gauge": harness.gauge()})


def main() -> None:
    given = harness.arguments(__doc__, rounds=15)
    if given.child:
        child(given.child)
        return
    cases = [{"peer": statement} for statement in STATEMENTS]
    for case in cases:
        harness.run(__file__, case)  # writes the bytecode
    records = list(harness.interleaved([cases], given.rounds, lambda case: harness.run(__file__, case)))
    found: dict[str, Any] = {}
    for statement in STATEMENTS:
        ours = [record for record in records if record["peer"] == statement]
        found[statement] = {
            "import_ms": harness.spread([record["import_ms"] for record in ours]),
            "to_aiohttp": harness.ratios(records, "import_ms", statement, FLOOR),
            "grown_mb": harness.spread([record["grown_mb"] for record in ours]),
        }
    rows = [
        [f"`{name}`", harness.shown(of["import_ms"]), harness.shown(of["to_aiohttp"], 2), harness.shown(of["grown_mb"])]
        for name, of in found.items()
    ]
    table = harness.table(["statement", "CPU ms", "to aiohttp", "MB"], rows)
    names = [
        name.replace("from aiopplx import", "").replace("from perplexity import", "").split()[-1] for name in found
    ]
    picture = harness.bars("Import", "CPU ms", names, {"import": [of["import_ms"] for of in found.values()]})
    harness.finish("import_time", found, [table], [picture])


if __name__ == "__main__":
    main()
