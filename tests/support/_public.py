"""What is public, as values: the modules that users import, and each name in them."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

from _source import modules, tree_of

# What a user's program does not import: the command line, and a folder that only holds modules.
NOT_IMPORTED = re.compile(r"\._|\.cli\b|\.__main__|\.contrib$")


def public_modules() -> Iterator[ModuleType]:
    names = sorted(name for name in modules() if not NOT_IMPORTED.search(name))
    for name in names:
        yield importlib.import_module(name)


def attributes_of(made: type) -> list[str]:
    """What only objects of a class have: names that its methods assign, or that its body declares."""
    tree = tree_of(modules()[made.__module__])
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == made.__name__)
    declared = (node.target for node in found.body if isinstance(node, ast.AnnAssign))
    held = {node.id for node in declared if isinstance(node, ast.Name)}
    for node in ast.walk(found):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            held.add(node.attr)
    return sorted(name for name in held - vars(made).keys() if not name.startswith("_"))


def names() -> Iterator[tuple[str, object]]:
    """Each public name with what it names, and each public attribute of a class, once; None for one of its objects."""
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
                for attribute in attributes_of(thing):
                    yield f"{module.__name__}.{name}.{attribute}", None
