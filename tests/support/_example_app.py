"""An example application of the documents, as a server loads it: its session polls often, since jobs of tests take
seconds. `EXAMPLE` in the environment says which; `JOURNAL_WAIT`, if it is set, for how long it waits for its journal;
`LIMIT` the time limit of its session.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from typing import Any

import aiopplx

program: Any = importlib.import_module(f"{os.environ['EXAMPLE']}_app")  # Any: its names are replaced below
limit = {"timeout": float(os.environ["LIMIT"])} if "LIMIT" in os.environ else {}
program.Session = functools.partial(aiopplx.Session, poll=aiopplx.PollPolicy.fixed(0.3), **limit)
if wait := os.environ.get("JOURNAL_WAIT"):
    program.JournalOptions = lambda path, **_: aiopplx.JournalOptions(path, wait=float(wait))
app = program.app

if os.environ["EXAMPLE"] == "fastapi":

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()


if __name__ == "__main__":
    import socket

    from aiohttp import web

    listening = socket.socket(fileno=int(sys.argv[1]))
    web.run_app(app, sock=listening, print=None, shutdown_timeout=float(sys.argv[2]))
