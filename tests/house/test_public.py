"""What is public, name by name; that all of it is described; and what an import of it costs.

`public.txt` has every name that users may use, with its parameters, one a line: a name that became public by accident,
or a parameter that has gone, is a line of a diff that somebody reads. `python tests/house/test_public.py` writes it.
"""

from __future__ import annotations

import ast
import enum
import importlib.metadata
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from _public import attributes_of, names, public_modules
from _source import ROOT, modules, tree_of

from aiopplx import AiopplxError

LISTED = Path(__file__).with_name("public.txt")
# Parts of a protocol that is described as a whole (`Journal`, `API`), and answers in the server's own words.
OF_A_PROTOCOL = ("aiopplx.agent", "aiopplx.sonar", "aiopplx.apis", "aiopplx.journal")
MADE_FOR_THE_USER = {
    f"aiopplx.{name}"
    for name in ("Batch", "progress.BatchFollow", "progress.Follow", "progress.EventStream", "emulator.Ledger")
}
"""Classes that nobody calls: a method gives them."""
MODULES_AT_IMPORT = 131
"""Modules of this package that a program with a session loads: each costs about half a millisecond."""


def is_made_by_nobody(thing: object) -> bool:
    """A protocol, the type of a mapping, or an enum, whose members have sentences of their own."""
    return inspect.isclass(thing) and (issubclass(thing, enum.Enum | dict) or getattr(thing, "_is_protocol", False))


def line_of(name: str, thing: Any) -> str:
    is_called = inspect.isfunction(thing) or (inspect.isclass(thing) and thing.__module__.startswith("aiopplx"))
    if not is_called or is_made_by_nobody(thing):
        return name
    told: list[str] = []
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not any(word.startswith("*") for word in told):
            told.append("*")
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        told.append(f"{star}{parameter.name}{'' if parameter.default is parameter.empty else '='}")
    return f"{name}({', '.join(told)})"


def listing() -> str:
    return "".join(f"{line_of(name, thing)}\n" for name, thing in names())


def test_public_names_are_those_that_are_listed() -> None:
    listed, found = set(LISTED.read_text(encoding="utf-8").splitlines()), set(listing().splitlines())
    said = "python tests/house/test_public.py writes the list"
    assert (sorted(found - listed), sorted(listed - found)) == ([], []), said


def test_public_module_says_which_of_its_names_are_meant() -> None:
    assert [module.__name__ for module in public_modules() if not getattr(module, "__all__", None)] == []


def test_public_module_has_no_public_names_but_those() -> None:
    # As tools see it that read the source (griffe, editors): what has no underscore is offered.
    hooks = {"pytest_configure"}
    beside = {module.__name__: own_names(module) - {*module.__all__} - hooks for module in public_modules()}
    assert [(module, name) for module, found in beside.items() for name in found if not name.startswith("_")] == []


def own_names(module: ModuleType) -> set[str]:
    """What its statements define; what it imports is another module's."""
    found: set[str] = set()
    for node in tree_of(modules()[module.__name__]).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


# --- described -------------------------------------------------------------------------------------------------------


def is_described(name: str, doc: str) -> bool:
    """As an entry (`name: ...`, `one, name: ...`), or in a sentence (`name`)."""
    entry = rf"(?m)^\s*(?:\*{{0,2}}\w+, )*\*{{0,2}}{name}(?:, \*{{0,2}}\w+)*:"
    return bool(re.search(entry, doc) or re.search(rf"`(?:\w+, )*{name}\b", doc))


def undescribed() -> Iterator[str]:
    for name, thing in names():
        if name.startswith(OF_A_PROTOCOL) or not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        doc = inspect.getdoc(thing) or ""
        if not doc:
            yield name
        elif is_made_by_nobody(thing):
            continue
        elif inspect.isclass(thing) and issubclass(thing, AiopplxError):
            doc = "\n".join(base.__doc__ or "" for base in thing.__mro__)
            yield from (f"{name} {one}" for one in options(thing.__init__) if not is_described(one, doc))
        elif "as for `" in doc or "as `" in doc:
            continue  # another function's are the same
        elif inspect.isfunction(thing):
            yield from (f"{name} {one}" for one in options(thing) if not is_described(one, doc))
        elif issubclass(thing, msgspec.Struct):
            yield from (f"{name} {one}" for one in thing.__struct_fields__ if not is_described(one, doc))
        elif name not in MADE_FOR_THE_USER and inspect.isfunction(thing.__init__):
            yield from (f"{name} {one}" for one in options(thing.__init__) if not is_described(one, doc))


def options(function: Callable[..., object]) -> list[str]:
    """Parameters that need a word: all of several, and one that may be left out. One alone is in the first sentence."""
    held = [one for one in inspect.signature(function).parameters.values() if one.name not in ("self", "cls")]
    held = [one for one in held if not one.name.startswith("_")]
    return [one.name for one in held if len(held) > 1 or one.default is not one.empty]


def test_every_public_name_and_option_is_described() -> None:
    assert sorted(set(undescribed())) == []


def test_every_attribute_of_public_objects_is_described() -> None:
    missing = {
        f"{name}.{one}"
        for name, thing in names()
        if inspect.isclass(thing) and thing.__module__.startswith("aiopplx") and not is_made_by_nobody(thing)
        for one in attributes_of(thing)
        if not is_described(one, "\n".join(base.__doc__ or "" for base in thing.__mro__))
    }
    assert sorted(missing) == []


# --- what an import costs --------------------------------------------------------------------------------------------


def loaded_with_a_session() -> set[str]:
    program = (
        "import aiopplx, sys; [getattr(aiopplx, name) for name in ('Session', 'Batch', 'Job')]; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_few_modules_and_no_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        re.split(r"[^\w.-]", line)[0].lower().replace("_", "-")
        for name, lines in project["optional-dependencies"].items()
        for line in lines
    }
    optional = {
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if extras & {one.lower().replace("_", "-") for one in distributions} - {"aiopplx"}
    }
    assert {"rich", "fastapi", "openpyxl"} <= optional
    loaded = loaded_with_a_session()
    assert {name.partition(".")[0] for name in loaded} & optional == set()
    assert sum(name.startswith("aiopplx") for name in loaded) <= MODULES_AT_IMPORT


def test_import_of_session_loads_no_http_library() -> None:
    program = """
import sys
from aiopplx import Session
print("aiohttp" in sys.modules, "aiopplx._core.assembly" in sys.modules)
Session("pplx-0123456789")
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, with_session = done.stdout.splitlines()
    assert first == "False False"
    others = ("sqlite3", "aiopplx.journal._sqlite", "aiopplx.journal._postgres.", "aiopplx.report", "aiopplx.tables")
    # What hides the password of a URL is needed before it is known whether there is one.
    loaded = {name for name in with_session.split() if name.startswith(others)} - {"aiopplx.journal._postgres.url"}
    assert loaded == set()


if __name__ == "__main__":
    LISTED.write_text(listing(), encoding="utf-8")
