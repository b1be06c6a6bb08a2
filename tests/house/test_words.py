"""What the source and the documents must say, and what they must not contain."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from _source import PACKAGE, ROOT, imports, modules, room_of, tree_of

# What the public page may say of itself: large enough for the errors, small enough to be read at one sitting.
PUBLIC_NAMES = range(25, 43)


# --- what is said


@pytest.mark.parametrize("name", modules())
def test_module_says_its_purpose_and_what_it_ignores(name: str) -> None:
    path = modules()[name]
    said = " ".join((ast.get_docstring(tree_of(path)) or "").split())
    assert said
    # A folder says what lies in it; the version is one line; what stands beside the tower has fewer neighbours.
    if path.name not in ("__init__.py", "__main__.py", "_version.py") and room_of(path) not in ("cli", "emulator"):
        assert re.search(
            r"[Tt]his (?:module|folder) (?:knows|decides|does)|[Nn]othing (?:here|of)|knows (?:only|nothing)", said
        )


def test_all_is_exactly_what_the_package_imports() -> None:
    import aiopplx

    homes = {name: module for module, name, _ in imports(PACKAGE / "__init__.py") if name}
    offered = {name for name, module in homes.items() if module.startswith("aiopplx.")}
    assert set(aiopplx.__all__) == offered
    assert len(aiopplx.__all__) == len(offered)
    assert len(offered) in PUBLIC_NAMES
    # They are loaded at first use, so what a type checker reads and what a program gets are written in two places.
    assert all(getattr(aiopplx, name) is getattr(importlib.import_module(homes[name]), name) for name in offered)
    assert offered <= set(dir(aiopplx))


def test_late_names_stand_in_the_order_of_imports() -> None:
    import aiopplx

    by_module: dict[str, list[str]] = {}
    for module, name, _ in imports(PACKAGE / "__init__.py"):
        if name and module.startswith("aiopplx."):
            by_module.setdefault(module, []).append(name)
    assert [(module, list(names)) for module, names in aiopplx._HOMES.items()] == list(by_module.items())


def public_objects() -> Iterator[tuple[str, object]]:
    """Each public class and function, by the name that a user would import."""
    for module in (
        "aiopplx",
        "aiopplx.apis",
        "aiopplx.sonar",
        "aiopplx.emulator",
        "aiopplx.emulator.faults",
        "aiopplx.emulator.wire",
        "aiopplx.journal.store",
        "aiopplx.testing",
    ):
        loaded = importlib.import_module(module)
        names = getattr(loaded, "__all__", [name for name in vars(loaded) if not name.startswith("_")])
        for name in names:
            thing = getattr(loaded, name)
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("aiopplx"):
                yield f"{module}.{name}", thing


PUBLIC = dict(public_objects())
PUBLIC_CLASSES = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing)}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented(name: str) -> None:
    assert (vars(PUBLIC[name]).get("__doc__") or getattr(PUBLIC[name], "__doc__", "") or "").strip()


@pytest.mark.parametrize("name", PUBLIC_CLASSES)
def test_public_methods_and_properties_are_documented(name: str) -> None:
    cls = PUBLIC_CLASSES[name]
    kinds = (property, staticmethod, classmethod)
    bare = [
        attribute
        for attribute, value in vars(cls).items()
        if not attribute.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds))
        if not inspect.getdoc(getattr(cls, attribute))
    ]
    assert bare == []


@pytest.mark.parametrize("name", PUBLIC_CLASSES)
def test_public_constructor_documents_each_argument(name: str) -> None:
    cls = PUBLIC_CLASSES[name]
    if "__init__" not in vars(cls) or issubclass(cls, msgspec.Struct | BaseException):
        return
    said = inspect.getdoc(cls) or ""
    named = {word.strip() for line in re.findall(r"(?m)^ +([\w, ]+):", said) for word in line.split(",")}
    wanted = {parameter for parameter in inspect.signature(cls).parameters if not parameter.startswith("_")}
    # An object that only the package makes has no arguments for users; its docstring says who makes it.
    assert named >= wanted or "Args:" not in said


# --- what is not said

# One letter of each word stands in brackets, so that this list is not its own finding.
FORBIDDEN = {
    "a path of somebody's machine": r"/(?:r[o]ot|h[o]me|U[s]ers|w[o]rk|w[o]rkspace)/[a-z._]",
    "a temporary path": r"(?<![\w.])/t[m]p/[a-z_]",
    "a key that could be real": r"p[p]lx-[A-Za-z0-9]{20,}|\bs[k]-[A-Za-z0-9]{20,}|g[h][ps]_[A-Za-z0-9]{20,}",
    "a private key": r"-----BEGIN [A-Z ]*P[R]IVATE KEY",
    "a package registry": r"i[n]dex-url|/s[i]mple/|p[y]thonhosted|r[e]gistry\.npm",
    "a promise instead of code": r"\b(?:T[O]DO|F[I]XME|X[X]X)\b|raise N[o]tImplemented",
}


def texts() -> Iterator[Path]:
    for top in ("aiopplx", "tests", "benchmarks", "docs", ".ci"):
        for path in (ROOT / top).rglob("*"):
            inner = path.relative_to(ROOT / top).parts
            if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in inner):
                yield path
    yield from (path for path in ROOT.iterdir() if path.suffix in (".md", ".toml") or path.name == ".gitignore")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_tree_does_not_hold(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_every_silenced_check_has_its_reason_beside_it() -> None:
    silenced = re.compile(r"# (?:noqa|type: ignore|pyright: ignore|pragma)\b(?:: ?[A-Z0-9, ]+)?(?:\[[\w, -]+\])?(.*)")
    found = []
    for top in ("aiopplx", "tests", "benchmarks"):
        for path in (ROOT / top).rglob("*.py"):
            lines = path.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines):
                match = silenced.search(line)
                above = lines[number - 1].strip() if number else ""
                if match and not re.search(r"[a-z]{3}", match[1]) and not above.startswith("#"):
                    found.append(f"{path.relative_to(ROOT)}:{number + 1}")
    assert found == []


def test_top_level_has_the_agreed_names() -> None:
    agreed = {"pyproject.toml", "aiopplx", "tests", "benchmarks", "docs", "README.md"}
    built = {"build", "dist"}  # git-ignored
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert agreed <= names
    assert {name for name in names - agreed - built if not name.endswith((".egg-info", ".jsonl"))} == set()


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_points_only_at_files_that_are_there(page: Path) -> None:
    said = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", said)
    broken = [to for to in links if not re.match(r"[a-z]+:", to) and not (page.parent / to).exists()]
    named = re.findall(r"`((?:tests|docs|benchmarks|aiopplx)/[\w./-]+)`", said)
    assert broken + [to for to in named if not (ROOT / to).exists()] == []


FOR_CONTRIBUTORS = [ROOT / "docs" / name for name in ("contributing.md", "architecture.md")]


@pytest.mark.parametrize("page", FOR_CONTRIBUTORS, ids=lambda page: page.name)
def test_names_that_contributors_are_told_are_there(page: Path) -> None:
    """A name that was changed or deleted sends whoever follows the page nowhere."""
    prose = re.sub(r"^    .*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = set(re.findall(r"`([A-Za-z_][\w.]*)`", prose))
    files = [path for folder in ("aiopplx", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    known = set(re.findall(r"\w+", "".join(path.read_text(encoding="utf-8") for path in files)))
    known |= {part for path in files for part in path.relative_to(ROOT).with_suffix("").parts} | {"py", "toml"}
    assert {name for name in named if not set(name.split(".")) - {""} <= known} == set()


def names_of_tests() -> set[str]:
    """What comes after `test_` in the name of each test."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"def test_(\w+)", file.read_text(encoding="utf-8"))}


def test_names_of_tests_have_nine_words_at_most() -> None:
    assert sorted(name for name in names_of_tests() if name.count("_") >= 9) == []


def test_every_test_that_the_reliability_page_names_exists() -> None:
    known = names_of_tests()
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    cells = [line.rstrip("| ").rsplit("|", 1)[-1] for line in page.splitlines() if line.startswith("| ")]
    named = [name for cell in cells for name in re.findall(r"`([a-z]+_[a-z0-9_]+_[a-z0-9_]+)(?:\[\w+\])?`", cell)]
    assert len(named) > 60
    assert [name for name in named if name not in known] == []


# What only a program can do. It stands in `remedy=`, for which the command line has remedies of its own; errors about
# an argument, or about how the package is used, have none but this.
FOR_PROGRAMS = re.compile(
    r"\bsession\.\w|\b\w+=|--[a-z]|\b[A-Z]\w+\(|\b(?:base_url|max_cost|api_key|max_response_bytes)\b"
)
ERRORS = {
    name
    for module in ("aiopplx", "aiopplx.journal")
    for name in importlib.import_module(module).__all__
    if inspect.isclass(thing := getattr(importlib.import_module(module), name)) and issubclass(thing, Exception)
}
ABOUT_ARGUMENTS = ("ConfigError", "InvalidRequest", "TableError", "TypeError", "ValueError")


def test_error_messages_name_nothing_only_a_program_has() -> None:
    wrong = []
    for name, path in modules().items():
        if room_of(path) in ("cli", "emulator"):
            continue
        for call in (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)):
            what = ast.unparse(call.func).rpartition(".")[2]
            if not (what in ERRORS or what == "refused") or what in ABOUT_ARGUMENTS:
                continue
            texts = [
                node.value
                for argument in call.args
                for node in ast.walk(argument)
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
            ]
            wrong += [f"{name}:{call.lineno} {text}" for text in texts if FOR_PROGRAMS.search(text)]
    assert wrong == []
