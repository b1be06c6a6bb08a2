"""The rules of the house, held over the source itself: the page of the architecture that cannot rot."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _source import foreign_imports, inner_imports, modules, room_of, tree_of

# From the bottom up: a module imports only from those that stand before it. `_policy` is one room of several modules.
LAYERS = (
    "_version",
    "_errors",
    "_clock",
    "_token",
    "_limit",
    "_citations",
    "_job",
    "_events",
    "_call",
    "_rules",
    "_parts",
    "_request",
    "_agent_parts",
    "_agent_request",
    "_api",
    "_tolerant",
    "_bodies",
    "_sonar_structs",
    "sonar",
    "_agent_structs",
    "_translate",
    "agent",
    "_policy",
    "_journal",
    "_transport",
    "_accounts",
    "_submission",
    "_client",
    "_watch",
    "_poller",
    "_waiting",
    "_keeper",
    "_purse",
    "_engine",
    "_batch",
    "_listing",
    "_settings",
    "_opening",
    "_session",
    "journal",
    "__init__",
)

# These stand beside the layers. The emulator shares no code with the client: a fake that did would hide its errors.
EMULATOR, CLI = "emulator", ("cli", "__main__")

PURE = frozenset(LAYERS[LAYERS.index("_job") : LAYERS.index("_journal")]) | {"_version", "_errors"}
NO_I_O = (
    "aiohttp anyio asyncio concurrent contextvars http io logging multiprocessing os pathlib queue random sched secrets"
    " select selectors shutil signal socket sqlite3 ssl subprocess sys tempfile threading time uuid warnings"
)

# Where one library, and only there. `sys.modules` of these rooms is what a change of that library can break.
ONLY_IN = {
    "aiohttp": {"_transport": "one attempt of one call", "_session": "the type of `http=`", "_opening": "the same"},
    "yarl": {"_transport": "aiohttp's type of a URL"},
    "socket": {"_transport": "what a broken connection says"},
    "time": {"_clock": "the one clock", "_journal": "its thread waits for company"},
    "random": {"_opening": "handed down as a function"},
    "os": {
        "_settings": "the environment",
        "_opening": "the type of a path",
        "_session": "the process that opened it",
        "_journal": "its file",
    },
    "sqlite3": {"_journal": "the one that keeps a file"},
}


def core() -> Iterator[tuple[str, Path]]:
    return ((room_of(path), path) for path in modules().values() if room_of(path) not in (EMULATOR, *CLI))


# --- layers


def test_layers_name_every_room_of_the_package() -> None:
    assert {room for room, _ in core()} - set(LAYERS) == set()


def test_layers_import_only_downwards() -> None:
    wrong = []
    for room, path in core():
        allowed = LAYERS[: LAYERS.index(room)] if room in LAYERS else ()
        for module, _, line in inner_imports(path):
            below = room_of(modules()[module])
            if below != room and below not in allowed:
                wrong.append(f"{path.name}:{line} imports {module}")
    assert wrong == []


def test_apis_know_nothing_of_each_other() -> None:
    wrong = [
        f"{path.name}:{line} imports {module}"
        for room, path in core()
        for module, _, line in inner_imports(path)
        if ("sonar" in room and "agent" in module) or ("agent" in room and "sonar" in module)
    ]
    assert wrong == []


def test_emulator_imports_nothing_of_the_client() -> None:
    wrong = [
        f"{name}:{line} imports {module}"
        for name, path in modules().items()
        if room_of(path) == EMULATOR
        for module, _, line in inner_imports(path)
        if not f"{module}.".startswith("aiopplx.emulator.")
    ]
    assert wrong == []


def test_cli_knows_only_public_names() -> None:
    public = {
        name: set(importlib.import_module(name).__all__) for name in ("aiopplx", "aiopplx.emulator", "aiopplx.journal")
    }
    wrong = []
    for name, path in modules().items():
        if room_of(path) not in CLI:
            continue
        used = [*inner_imports(path), *_attributes_of_the_package(path)]
        for module, imported, line in used:
            mine = f"{module}.".startswith("aiopplx.cli.") or (module in public and not imported)
            if not mine and imported not in public.get(module, set()):
                wrong.append(f"{name}:{line} uses {imported or module} of {module}")
    assert wrong == []


def _attributes_of_the_package(path: Path) -> Iterator[tuple[str, str, int]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "aiopplx":
            yield "aiopplx", node.attr, node.lineno


def test_pure_modules_do_no_i_o_and_own_no_clock() -> None:
    wrong = [
        f"{path.name}:{line} imports {module}"
        for room, path in core()
        if room in PURE
        for module, line in foreign_imports(path)
        if module in NO_I_O.split()
    ]
    assert wrong == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_only_in_its_rooms(library: str) -> None:
    rooms = {room for room, path in core() if library in {module for module, _ in foreign_imports(path)}}
    assert rooms <= set(ONLY_IN[library])


def test_import_of_the_package_takes_nothing_along_that_it_may_not_need() -> None:
    loaded = _loaded("import aiopplx; aiopplx.Session")
    assert "aiopplx._session" in loaded
    assert not {"aiopplx.emulator", "aiopplx.cli", "rich", "cyclopts", "sqlite3", "pydantic"} & loaded


def test_help_of_the_command_line_is_quick_because_it_imports_no_aiohttp() -> None:
    program = "import contextlib, io; from aiopplx.__main__ import main"
    loaded = _loaded(f"{program}\nwith contextlib.redirect_stdout(io.StringIO()): assert main(['--help']) == 0\n")
    assert "aiopplx.cli" in loaded
    assert "aiohttp" not in loaded


def _loaded(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


# --- forms that are dangerous


def test_no_async_generator_stands_in_the_package() -> None:
    # PEP 789: a `yield` inside a task group hands cancellation to whoever happens to run. A context manager's one is
    # entered and left by one task.
    wrong = []
    for name, path in modules().items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.AsyncFunctionDef) and _yields(node):
                decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                if not any(decorator.endswith("asynccontextmanager") for decorator in decorators):
                    wrong.append(f"{name}:{node.lineno} {node.name}")
    assert wrong == []


def _yields(function: ast.AsyncFunctionDef) -> bool:
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.GeneratorExp):
            pending.extend(ast.iter_child_nodes(node))
    return False


def test_core_prints_nothing() -> None:
    wrong = [
        f"{path.name}:{node.lineno}"
        for _, path in core()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert wrong == []
