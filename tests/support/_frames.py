"""Looks for a word in everything that a traceback with local variables may show.

Error trackers print the variables of each frame of an exception, of its causes and contexts, and some print what lies
in these objects too. So does this search, some levels down.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from aiopplx._http.secret import Secret

DEPTH = 4
# What these hold is not part of any report: code, the running tasks, and the one object that is made to hide the key.
OPAQUE = (type, types.ModuleType, types.FunctionType, types.CodeType, asyncio.AbstractEventLoop, asyncio.Task, Secret)


def chain(problem: BaseException | None) -> Iterator[BaseException]:
    """An exception, its causes and contexts, and the members of groups."""
    seen: set[int] = set()
    left: list[BaseException | None] = [problem]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [one.__cause__, one.__context__]
            left += one.exceptions if isinstance(one, BaseExceptionGroup) else ()


def frames(tb: TracebackType | None) -> Iterator[types.FrameType]:
    while tb is not None:
        yield tb.tb_frame
        tb = tb.tb_next


def where_shown(word: str, problem: BaseException, *, but: str = "") -> list[str]:
    """Each place in the tracebacks of `problem` where the word can be read; frames of the file `but` are the test's."""
    found = []
    for one in chain(problem):
        found += [f"{type(one).__name__}.{where}" for where in _in(word, vars(one) | {"args": one.args}, "")]
        for frame in frames(one.__traceback__):
            if frame.f_code.co_filename != but:
                name = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}:{frame.f_lineno}"
                found += [f"{type(one).__name__} {name} {where}" for where in _in(word, frame.f_locals, "")]
    return found


def _in(word: str, value: Any, where: str) -> list[str]:
    found: list[str] = []
    seen: set[int] = set()
    left: list[tuple[str, Any, int]] = [(where, value, 0)]
    while left:
        name, one, depth = left.pop()
        if id(one) in seen or isinstance(one, OPAQUE):
            continue
        seen.add(id(one))
        if word in repr(one) or (isinstance(one, bytes) and word.encode() in one):
            found.append(name)
        if depth < DEPTH and not isinstance(one, str | bytes | int | float | None):
            left += [(f"{name}.{key}", inner, depth + 1) for key, inner in _parts(one)]
    return found


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(key), inner) for key, inner in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(str(n), inner) for n, inner in enumerate(value)]
    slots = [slot for cls in type(value).__mro__ for slot in vars(cls).get("__slots__", ())]
    names = [*getattr(value, "__dict__", {}), *slots, *getattr(value, "__struct_fields__", ())]
    return [(name, getattr(value, name)) for name in names if isinstance(name, str) and hasattr(value, name)]
