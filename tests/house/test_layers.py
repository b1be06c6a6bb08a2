"""The rules of the architecture, checked against the source itself."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _source import PACKAGE, ROOT, foreign_imports, inner_imports, modules, room_of, tree_of

from aiopplx.apis import known_apis
from aiopplx.apis._registry import APIS
from aiopplx.journal import State

# The tower, from the bottom up: a module imports only from those that stand before it. A name that ends in a dot is a
# folder, whose modules follow it in their own order.
TOWER = """
_version  _errors  _waiting
_text.  amounts safe code marks structured thought names values words
_checks.  builtin cells path span rules conversion unseen
report.  _markdown _notebook
_job  _events
_wire.  limited said naming call headers messages request fields kinds api decoding status words addresses thinking
    roles
    forms
sonar.  _responses _api
agent.  _tools _request _responses _translate _api
apis.  _registry
apis
tables.  _table _template _encoding _objects _kind _text _delimited _frames _parquet _sheets _file _asking _writing
tables
journal.  _errors _kinds _names _packing _records _steps _unwritten _taking store _protocol _standing _memory _forgetful
    _jobs
    _sqlite.lock _sqlite.schema _sqlite.space _sqlite.errors _sqlite.files _sqlite.log _sqlite.file _sqlite.opening
    _sqlite.reading _sqlite.writing _sqlite.writer _sqlite.reader _sqlite.journal
    _postgres.url _postgres.room _postgres.driver _postgres.hearing _postgres.account _postgres.schema
    _postgres.statements _postgres.tables _postgres.lease _postgres.holding _postgres.money _postgres.wake
    _postgres.reading _postgres.opening _postgres.migrate _postgres.writing _postgres.journal _postgres.reader
_policy.  network retry recovery durations laws turns forecast pace polling paging bursts epochs noise told spans
    limiter departures limits gate budget given estimate
_submission
_http.  clock limit secret proxy default_headers apart transport account line client
_config
_core.  store.contained store.patience store.reaching slots live store.learnt shared.pacing spending shared.pooling
    pages poller outcomes announcing freezing finding sending shared.elsewhere shared.holding lifecycle loading leaving
    calls job.following batch.board job.decisions job.cancelling job.single job.listing job.files batch.reading
    batch.source batch.results batch.asked store.opening assembly stats batch.foreseeing batch.estimating batch.notebook
_batch
_session progress
journal
report.  _entry _style _page _plain
testing.  _timers _jumping
"""


def _layers() -> list[str]:
    layers: list[str] = []
    folder = ""
    for line in TOWER.strip().splitlines():
        words = line.split()
        if not line.startswith(" "):
            folder = words.pop(0) if words[0].endswith(".") else ""
            layers += [folder[:-1]] if folder else []
        layers += [f"{folder}{word}" for word in words]
    return layers


LAYERS = _layers()

# These stand beside the layers. The emulator shares no code with the client: a fake that did would hide its errors.
EMULATOR, CLI = "emulator", ("cli", "__main__")
# What joins the package to another library, each by a module. The package itself imports nothing of it.
CONTRIB = "contrib"
# A folder for users, over what lies beneath it: the package itself imports nothing of it.
TESTING = "testing"

# The folder of each API, as registered: a further one is pure and apart from the others without a word here.
API_FOLDERS = sorted({type(api).__module__.split(".")[1] for api, _ in APIS.values()})

PURE = (
    "_version",
    "_errors",
    "_text.",
    *("_checks.builtin", "_checks.cells", "_checks.rules", "_checks.conversion"),
    "_job",
    "_wire.",
    "_policy.",
    *(f"{folder}." for folder in API_FOLDERS),
)
NO_I_O = (
    "aiohttp anyio asyncio concurrent contextvars http io logging multiprocessing os pathlib queue random sched secrets"
    " select selectors shutil signal socket sqlite3 ssl subprocess sys tempfile threading time uuid warnings"
)

# Where one library, and only there. `sys.modules` of these rooms is what a change of that library can break.
ONLY_IN = {
    "aiohttp": {
        "_http.transport": "one attempt of one call",
        "_session": "the type of `http=`",
        "_config": "the same, for type checkers",
    },
    "yarl": {
        "_http.transport": "aiohttp's type of a URL",
        "_http.secret": "reads one as aiohttp does",
        "_http.proxy": "the same",
    },
    "socket": {"_http.transport": "what a broken connection says"},
    "time": {
        "_http.clock": "the one clock",
        "testing._jumping": "the date at which the other one begins",
        "journal._sqlite.writer": "its thread waits for company",
        "journal._postgres.holding": "a lease is measured by one that counts suspensions",
    },
    "random": {"_core.assembly": "handed down as a function", "_core.store.opening": "the same"},
    "asyncpg": {"journal._postgres.driver": "the room behind which it lies"},
    "sqlite3": {
        f"journal._sqlite.{name}": "the journal in a file"
        for name in ["errors", "file", "log", "opening", "reader", "reading", "writer", "writing"]
    },
}


def core() -> Iterator[tuple[str, Path]]:
    """Each module of the tower by its name within the package, `""` for the package itself."""
    for name, path in modules().items():
        if room_of(path) not in (EMULATOR, CONTRIB, *CLI):
            yield name.removeprefix("aiopplx").removeprefix("."), path


def is_folder(name: str) -> bool:
    return modules()[f"aiopplx.{name}".rstrip(".")].name == "__init__.py"


# --- layers


def test_tower_names_every_module() -> None:
    assert {name for name, _ in core() if name and not is_folder(name)} - set(LAYERS) == set()


def test_modules_import_only_downwards() -> None:
    wrong = []
    for name, path in core():
        if not name or is_folder(name):
            continue  # these give names to users, and import what stands in them
        allowed = set(LAYERS[: LAYERS.index(name)])
        for module, _, line in inner_imports(path):
            below = module.removeprefix("aiopplx").removeprefix(".")
            if below not in allowed:
                wrong.append(f"{name}:{line} imports {module}")
    assert wrong == []


@pytest.mark.parametrize(("folder", "users"), [(TESTING, {TESTING, CONTRIB}), (CONTRIB, {CONTRIB})])
def test_package_imports_nothing_of_what_is_for_users_alone(folder: str, users: set[str]) -> None:
    wrong = [
        f"{name}:{line} imports {module}"
        for name, path in modules().items()
        if room_of(path) not in users
        for module, _, line in inner_imports(path)
        if f"{module}.".startswith(f"aiopplx.{folder}.")
    ]
    assert wrong == []


def test_only_the_clock_converts_to_real_seconds() -> None:
    wrong = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name, path in core()
        if name != "_http.clock"
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Attribute) and node.attr.strip("_") == "speed")
        or (isinstance(node, ast.Name) and node.id.strip("_") == "speed")
    ]
    assert wrong == []


REAL_TIME = frozenset({"asyncio.sleep", "asyncio.timeout", "asyncio.timeout_at", "asyncio.wait_for"})
# Where real seconds are meant, in all else but these the clock is asked to wait.
ARE_REAL = {
    "_http.clock": "what it is made of",
    "_waiting": "files and connections take real time to close, and so does the caller's code",
    "_http.apart": "the caller's code knows nothing of the session's clock",
    "testing._jumping": "it jumps",
    "testing._timers": "the same",
    "journal._memory": "it waits for another session, which has a clock of its own",
    "journal._postgres.driver": "the database's server takes real time",
    "journal._postgres.hearing": "the same",
    "journal._postgres.holding": "a lease is of real time",
    "journal._postgres.wake": "it waits for another session, which has a clock of its own",
    "journal._postgres.journal": "it waits for the database's server",
}


def test_every_wait_goes_through_the_clock() -> None:
    """`asyncio.sleep(0)` waits for nothing."""
    wrong = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name, path in core()
        if name not in ARE_REAL
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and (
            ast.unparse(node.func) in REAL_TIME
            or ast.unparse(node.func).endswith((".call_later", ".call_at"))
            or (ast.unparse(node.func) == "asyncio.wait" and any(word.arg == "timeout" for word in node.keywords))
        )
        if ast.unparse(node) != "asyncio.sleep(0)" and "clock.call_at" not in ast.unparse(node.func)
    ]
    assert wrong == []


def test_apis_know_nothing_of_each_other() -> None:
    wrong = [
        f"{path.name}:{line} imports {module}"
        for room, path in core()
        for module, _, line in inner_imports(path)
        for folder in API_FOLDERS
        if f"{module}.".startswith(f"aiopplx.{folder}.")
        and room.split(".")[0] in API_FOLDERS
        and room.split(".")[0] != folder
    ]
    assert wrong == []


def test_api_folders_are_those_of_the_registry() -> None:
    found = {path.parent.name for path in PACKAGE.glob("*/_api.py")}
    assert found == set(API_FOLDERS)


def test_emulator_imports_nothing_of_the_client() -> None:
    wrong = [
        f"{name}:{line} imports {module}"
        for name, path in modules().items()
        if room_of(path) == EMULATOR
        for module, _, line in inner_imports(path)
        if not f"{module}.".startswith("aiopplx.emulator.")
    ]
    assert wrong == []


# Pure, and of no package: what is written of an amount is the same on a page and in a terminal.
SHARED = frozenset({"aiopplx._text.amounts"})


@pytest.mark.parametrize("rooms", [CLI, (CONTRIB,)], ids=["cli", "contrib"])
def test_what_stands_on_the_package_knows_only_public_names(rooms: tuple[str, ...]) -> None:
    public = {
        name: set(importlib.import_module(name).__all__)
        for name in (
            "aiopplx",
            "aiopplx.apis",
            "aiopplx.emulator",
            "aiopplx.journal",
            "aiopplx.tables",
            "aiopplx.progress",
            "aiopplx.report",
            "aiopplx.testing",
        )
    }
    wrong = []
    for name, path in modules().items():
        if room_of(path) not in rooms:
            continue
        used = [*inner_imports(path), *_attributes_of_the_package(path)]
        for module, imported, line in used:
            mine = (
                f"{module}.".startswith(f"aiopplx.{rooms[0]}.")
                or (module in public and not imported)
                or module in SHARED
            )
            if not mine and imported not in public.get(module, set()):
                wrong.append(f"{name}:{line} uses {imported or module} of {module}")
    assert wrong == []


def _attributes_of_the_package(path: Path) -> Iterator[tuple[str, str, int]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "aiopplx":
            yield "aiopplx", node.attr, node.lineno


# The command line shows what the library says of a state (`words_of`, `records_at`) and of an API (`known_apis`). So a
# further state or API is shown without an edit there.


def test_cli_names_no_state_and_no_api() -> None:
    names = {name for api in known_apis() for name in api.names}
    assert names == APIS.keys() - {"auto"}
    wrong = []
    for name, path in modules().items():
        if room_of(path) not in CLI:
            continue
        for node in ast.walk(tree_of(path)):
            is_state = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "State"
            if is_state and node.attr in State.__members__:
                wrong.append(f"{name}:{node.lineno} names {ast.unparse(node)}")
            if isinstance(node, ast.Constant) and node.value in names:
                wrong.append(f"{name}:{node.lineno} names {node.value!r}")
    assert wrong == []


def test_stores_need_only_public_names_of_the_journal() -> None:
    """So a store outside the package can be written as those inside are."""
    from aiopplx import journal
    from aiopplx.journal import store

    public = {*journal.__all__, *store.__all__, *(name for name in vars(journal.steps) if not name.startswith("_"))}
    wrong = [
        f"{name}:{line} uses {imported} of {module}"
        for name, path in core()
        if name == "journal._memory" or name.startswith(("journal._sqlite.", "journal._postgres."))
        for module, imported, line in inner_imports(path)
        if module.startswith("aiopplx.journal.")
        # How a value looks on a disk is a store's own affair.
        if not module.startswith(("aiopplx.journal._sqlite", "aiopplx.journal._postgres", "aiopplx.journal._packing"))
        if imported not in public
    ]
    assert wrong == []


def test_pure_modules_have_no_io_and_no_clock() -> None:
    wrong = [
        f"{path.name}:{line} imports {module}"
        for room, path in core()
        if f"{room}.".startswith(PURE) or room in PURE
        for module, line in foreign_imports(path)
        if module in NO_I_O.split()
    ]
    assert wrong == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_only_where_allowed(library: str) -> None:
    rooms = {room for room, path in core() if library in {module for module, _ in foreign_imports(path)}}
    assert rooms <= set(ONLY_IN[library])


def test_importing_the_package_loads_nothing_it_may_not_need() -> None:
    loaded = _loaded("import aiopplx; aiopplx.Session")
    assert "aiopplx._session" in loaded
    mine = {"aiopplx.emulator", "aiopplx.cli", "aiopplx.tables", "aiopplx._policy.estimate"}
    assert not {*mine, "rich", "cyclopts", "sqlite3", "pydantic", "statistics"} & loaded


def test_help_of_the_command_line_imports_no_aiohttp() -> None:
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
    # entered and left by one task, and so is what a framework asks for: a fixture, a stream of events.
    asked_for = {
        "aiopplx.contrib.pytest_plugin._emulator",
        "aiopplx.contrib.pytest_plugin._session",
        "aiopplx.contrib.fastapi._updates",
    }
    wrong = []
    for name, path in modules().items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.AsyncFunctionDef) and _yields(node):
                decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                is_entered = any(decorator.endswith("asynccontextmanager") for decorator in decorators)
                if not is_entered and f"{name}.{node.name}" not in asked_for:
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


def test_test_folders_mirror_the_package() -> None:
    """Beside the package's own folders, `house` holds the rules of the source, `promises` what spans the package."""
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == {path.parent.name.lstrip("_") for path in PACKAGE.glob("*/__init__.py")} | {"house", "promises"}
