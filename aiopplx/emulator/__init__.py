"""A server that emulates Perplexity's job APIs on a real socket, for tests, demos and the tests of users.

`Emulator` behaves like the service, with faults on demand (`aiopplx.emulator.faults`). `WireServer` does what an HTTP
server cannot be made to do: malformed answers, answers that arrive byte by byte, resets. Both bind the loopback
interface only, and share no code with the client: a fake that did would hide the client's errors.
"""

from aiopplx.emulator import faults, limits, wire
from aiopplx.emulator._emulator import Emulator
from aiopplx.emulator._exchange import Asked
from aiopplx.emulator._jobs import AfterPolls
from aiopplx.emulator._ledger import JobRecord, Ledger, RequestRecord
from aiopplx.emulator._serve import serve
from aiopplx.emulator.wire import WireServer

__all__ = [
    "AfterPolls",
    "Asked",
    "Emulator",
    "JobRecord",
    "Ledger",
    "RequestRecord",
    "WireServer",
    "faults",
    "limits",
    "serve",
    "wire",
]
