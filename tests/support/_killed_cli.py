"""The command line that gets killed over a file: `python _killed_cli.py POINT PATH WORDS...`.

It ends itself as `kill -9` would, when the interpreter is about to do something with a file of this path: `open` it,
`os.chmod` it (it is written and synced then), or `os.rename` it; or just `after` the last of these. With `ctrl-c` as
the point it is interrupted, as by Ctrl-C, when it opens the file.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from aiopplx.cli import run

PROGRAM = __file__


def killer(point: str, path: str) -> Callable[[str, tuple[object, ...]], None]:
    was_renamed = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal was_renamed
        is_it = bool(arguments) and arguments[0] == path
        if point == "ctrl-c" and event == "open" and is_it:
            os.kill(os.getpid(), signal.SIGINT)
        if was_renamed or (event == point and is_it):
            was_renamed = False  # the kill is an event, too
            os.kill(os.getpid(), signal.SIGKILL)
        was_renamed = point == "after" and event == "os.rename" and is_it

    return hook


if __name__ == "__main__":
    sys.addaudithook(killer(sys.argv[1], sys.argv[2]))
    sys.exit(run(sys.argv[3:]))
