"""What is public, as values: the modules that users import, and each name in them."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

from _source import modules

# What a user's program does not import: the command line, and a folder that only holds modules.
NOT_IMPORTED = re.compile(r"\._|\.cli\b|\.__main__|\.contrib$")


def public_modules() -> Iterator[ModuleType]:
    names = sorted(name for name in modules() if not NOT_IMPORTED.search(name))
    for name in names:
        yield importlib.import_module(name)


def names() -> Iterator[tuple[str, object]]:
    """Each public name with what it names, and each public attribute of a class, once."""
    seen: set[int] = set()
    for module in public_modules():
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            yield f"{module.__name__}.{name}", thing
            if inspect.isclass(thing) and id(thing) not in seen and thing.__module__.startswith("aiopplx"):
                seen.add(id(thing))
                members = thing.__members__ if issubclass(thing, enum.Enum) else {}
                for attribute, value in sorted({**vars(thing), **members}.items()):
                    if not attribute.startswith("_"):
                        yield f"{module.__name__}.{name}.{attribute}", getattr(value, "__func__", value)
