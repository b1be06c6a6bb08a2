"""A notebook's kernel in small, for a process that can be interrupted and killed.

Cells come on stdin, one a line as JSON text; each runs with top-level `await` on one loop, over one namespace. What a
cell prints goes to stdout, and `--- done` or `--- <name of the error>` follows it. An interrupt cancels the cell's
task, as ipykernel does it. Nothing here knows what the cells do.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import signal
import sys
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

WITH_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def play_ipython() -> None:
    """Its display protocol: what is shown is printed, after `shows `."""
    module, display = ModuleType("IPython"), ModuleType("IPython.display")

    def show(thing: Any, *, display_id: bool = False) -> Any:
        print("shows", thing._repr_html_(), flush=True)
        return SimpleNamespace(update=show)

    vars(module)["get_ipython"] = lambda: SimpleNamespace(kernel=object())
    vars(display)["display"] = show
    sys.modules |= {"IPython": module, "IPython.display": display}


async def run(code: CodeType, namespace: dict[str, Any]) -> None:
    value = eval(code, namespace)
    if inspect.isawaitable(value):
        await value


async def main() -> None:
    loop = asyncio.get_running_loop()
    namespace: dict[str, Any] = {}
    cells = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(cells), sys.stdin)
    while line := await cells.readline():
        code = compile(json.loads(line), "<cell>", "exec", flags=WITH_AWAIT)
        cell = loop.create_task(run(code, namespace))
        loop.add_signal_handler(signal.SIGINT, cell.cancel)
        try:
            await cell
        except BaseException as error:
            print("---", type(error).__name__, flush=True)
        else:
            print("--- done", flush=True)


if __name__ == "__main__":
    play_ipython()
    asyncio.run(main())
