"""The bounds of one HTTP exchange, as users give them.

How often an exchange is made again is the `RetryPolicy`'s matter. This module knows nothing of sockets.
"""

from __future__ import annotations

import msgspec

MIB = 1024 * 1024


class NetworkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one HTTP exchange: `Session(network=NetworkOptions(poll_seconds=20.0))`.

    The three times are real seconds, whatever clock the session has: a faster clock makes no socket faster.

    Attributes:
        max_response_bytes: an answer larger than this, decompressed, is not read. Default 64 MiB.
        allow_insecure: allow `http` to another machine, where the API key travels in the clear. Default False.
        connect_seconds: for making a connection, TLS included. Default 10.
        submit_seconds: for the whole of a submission, connecting and reading included. Default 60.
        poll_seconds: the same for every other request. Default 60.
        file_seconds: for the whole of a download of a file. Default 600.
        max_file_bytes: a file larger than this is not downloaded. Default 1 GiB.
    """

    max_response_bytes: int = 64 * MIB
    allow_insecure: bool = False
    connect_seconds: float = 10.0
    submit_seconds: float = 60.0
    poll_seconds: float = 60.0
    file_seconds: float = 600.0
    max_file_bytes: int = 1024 * MIB
