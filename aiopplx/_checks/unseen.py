"""Refusals without the arguments that they are about: a secret may have been given in the wrong place.

Error trackers print the variables of each frame of a traceback. Whatever checks a caller's argument has it in one, and
the argument may be a key, a password or an address with one. So what refuses arguments at the edge of the library ends
its own frames: the traceback begins where the caller called, and the message says what is wrong.

This module knows nothing of which arguments there are.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from aiopplx._errors import ConfigError, InvalidRequest

P = ParamSpec("P")
T = TypeVar("T")
_MOST = 20
"""Errors that one was raised from."""


def unseen(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, whose refusals show none of its arguments."""

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            raised = _bare(error)
        del args, kwargs  # of this frame, which raises
        raise raised

    return checked


def unseen_call(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same coroutine function, whose refusals show none of its arguments."""

    @functools.wraps(function)
    async def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except BaseException as error:
            raised = _bare(error)
        del args, kwargs
        raise raised

    return checked


def _bare(error: BaseException) -> BaseException:
    """A refusal without its frames; what came before it stays, without its variables. Any other error as it is."""
    tb = error.__traceback__
    is_of_the_call = isinstance(error, TypeError) and tb is not None and tb.tb_next is None  # too many arguments
    if not is_of_the_call and not isinstance(error, (ConfigError, InvalidRequest)):
        return error
    before: BaseException | None = error
    for _ in range(_MOST):
        if before is None:
            break
        traceback.clear_frames(before.__traceback__)
        before = before.__cause__ or before.__context__
    return error.with_traceback(None)
