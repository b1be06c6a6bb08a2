"""The door of the command line: `python -m aiopplx` and the `aiopplx` script.

This module knows only where the command line is, and what to say when its libraries are not installed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

_NEEDED = ("cyclopts", "rich")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the words after the program's name; None takes them from `sys.argv`.
    """
    try:
        for name in _NEEDED:
            importlib.import_module(name)
        from aiopplx.cli import run
    except ModuleNotFoundError as missing:
        if missing.name not in _NEEDED:
            raise
        print('aiopplx: the command line needs two more libraries: pip install "aiopplx[cli]"', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
