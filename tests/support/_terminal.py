"""How the tests run the command line at a terminal, read its screen and press keys."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import Any

import anyio.to_thread
from _shell import KEY, command, environment

from aiopplx.emulator import Emulator


def on_a_terminal(
    *words: str, keys: bytes = b"", press_at: bytes = b"", piped: bytes | None = None, columns: int = 100, **env: str
) -> tuple[int, str]:
    """Run with a terminal for stderr and stdin; press `keys` once `press_at` is on the screen.

    With `piped` stdin is no terminal, and has this in it.
    """
    ours, theirs = pty.openpty()
    given, giving = os.pipe()
    os.write(giving, piped or b"")
    os.close(giving)
    process = subprocess.Popen(
        command(*words),
        stdin=theirs if piped is None else given,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environment(TERM="xterm", COLUMNS=str(columns), **env),
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(theirs), os.O_RDWR)),  # makes it the terminal of the session
    )
    os.close(theirs)
    os.close(given)
    seen = b""
    with process:
        try:
            while part := read_some(ours):
                seen += part
                if keys and press_at in seen:
                    os.write(ours, keys)
                    keys = b""
        finally:
            os.close(ours)
            process.kill()
    return process.returncode, seen.decode()


def read_some(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says EIO when the last one has closed the terminal
        return b""


async def on_a_terminal_at(server: Emulator, *words: str, **options: Any) -> tuple[int, str]:
    """The same, while this process goes on to be the server."""
    env = {"PERPLEXITY_BASE_URL": server.url, "PERPLEXITY_API_KEY": KEY}
    return await anyio.to_thread.run_sync(lambda: on_a_terminal(*words, **options, **env))
