"""A question to the person at the terminal about a price. Only `y` is a yes.

This module does not know what the money is for.
"""

from __future__ import annotations

import sys

from aiopplx.cli._lines import Lines
from aiopplx.cli._questions import is_typed


class Declined(Exception):
    """The person at the terminal has not agreed."""


def is_watched(source: str) -> bool:
    """Whether a person is at the terminal who does not type the questions: that person agrees by typing them."""
    return sys.stderr.isatty() and not is_typed(source)


def can_ask() -> bool:
    """Whether a person can answer: stdin is the terminal, too."""
    return sys.stderr.isatty() and sys.stdin is not None and sys.stdin.isatty()


async def agrees(question: str = "Go on?") -> bool:
    """Ask, and wait for a line. Enter, the end of the input, and every other word is a no."""
    _forget_what_was_typed()
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    got = await Lines(sys.stdin.fileno(), "the terminal").next()
    if got is None:  # Ctrl-D leaves the cursor where it was
        print(file=sys.stderr)
    return got is not None and got[1].strip().lower() == b"y"


def _forget_what_was_typed() -> None:
    """What was typed before the question was there is no answer to it."""
    try:
        import termios
    except ImportError:  # Windows
        return
    try:
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    except termios.error:
        return
