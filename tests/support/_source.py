"""The package's own source as values, for the tests of the house rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "aiopplx"


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, str, int]]:
    """(module, name, line) of every import, wherever it stands: in a function, or only for type checkers."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import, which this test could not follow"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner, "", node.lineno) if inner in modules() else (str(node.module), alias.name, node.lineno)


def inner_imports(path: Path) -> Iterator[tuple[str, str, int]]:
    return (one for one in imports(path) if one[0].split(".")[0] == "aiopplx")


def foreign_imports(path: Path) -> Iterator[tuple[str, int]]:
    return ((module.split(".")[0], line) for module, _, line in imports(path))
