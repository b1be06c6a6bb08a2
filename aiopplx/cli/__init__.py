"""The command line. It uses only the public names of `aiopplx`, `aiopplx.journal` and `aiopplx.emulator`.

No module here imports the HTTP library by itself, and each command imports what it runs only when it is called, so that
`--help` stays quick.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from aiopplx.cli._app import make_app
from aiopplx.cli._exits import INTERRUPTED, LATER, PIPE_CLOSED, USAGE, OutputLost, UsageError, complain, exit_code
from aiopplx.cli._options import STANDARD, is_url, without_password


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code. An error that a user can cause is one line on stderr, never a
    traceback.

    Args:
        argv: the words after the program's name.
    """
    logging.getLogger("aiopplx").addHandler(logging.NullHandler())  # the commands print what happens themselves
    try:
        words = [_with_standard(word) for word in argv]
        code: object = make_app()(words, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        command = " ".join(["aiopplx", *(error.command_chain or ())])
        complain(_as_typed(f"{' '.join(str(error).split())} (see {command} --help)", argv))
        return USAGE
    except UsageError as error:
        complain(_as_typed(str(error), argv))
        return USAGE
    except OutputLost as error:
        complain(_as_typed(str(error), argv))
        return LATER
    except BrokenPipeError:
        _forget_stdout()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        from aiopplx import AiopplxError

        if not isinstance(error, AiopplxError):
            raise
        complain(error)
        return exit_code(error)
    return code if isinstance(code, int) else 0


def _with_standard(word: str) -> str:
    """A word for the parser, with `STANDARD` in place of a value that is `-`, as in `--output=-` and `-o-` too."""
    return word[:-1] + STANDARD if re.fullmatch(r"(--[^=]+=|-o=?)?-", word) else word


def _as_typed(said: str, argv: Sequence[str]) -> str:
    """A message about what was typed, which may repeat a database's URL that was typed in a wrong place."""
    said = said.replace(STANDARD, "-")
    for word in argv:
        for part in (word, word.partition("=")[2]):
            if is_url(part):
                said = said.replace(part, without_password(part))
    return said


def _forget_stdout() -> None:
    # The interpreter flushes stdout once more when it exits, and would report the same closed pipe again.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
