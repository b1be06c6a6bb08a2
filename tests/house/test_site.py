"""What the site of the documents must have, seen without building it. `.ci/run` builds it, with warnings as errors."""

from __future__ import annotations

import importlib
import re
from pkgutil import resolve_name
from types import ModuleType

import pytest
from _source import ROOT, modules

DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(DOCS).with_suffix("").as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")
}
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"^\.\. auto(\w+):: ([\w.]+)\n((?:   :.*\n)*)", re.MULTILINE)
# What a user's program does not import: the command line, and a folder that only holds modules.
NOT_IMPORTED = {"aiopplx.__main__", "aiopplx.contrib"}


def listed(page: str) -> list[str]:
    """The pages in the toctrees of a page."""
    lines = [line for block in TOCTREE.findall(PAGES[page]) for line in block.splitlines()]
    entries = [line for line in lines if line and not line.startswith(":")]
    return [name for entry in entries for name in (matching(entry) if "*" in entry else [entry])]


def matching(pattern: str) -> list[str]:
    return [path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.glob(f"{pattern}.md")]


def public_modules() -> list[ModuleType]:
    """The modules that users import: no part of the name is private, or a public one offers it."""
    names = {name for name in modules() if not re.search(r"\._|\.cli\b", name)} - NOT_IMPORTED
    loaded = [importlib.import_module(name) for name in sorted(names)]
    offered = [getattr(module, name) for module in loaded for name in module.__all__]
    return [*loaded, *(thing for thing in offered if isinstance(thing, ModuleType) and thing not in loaded)]


def documented() -> list[object]:
    """All that the pages of the reference name or take in."""
    found: list[object] = []
    for page in (text for name, text in PAGES.items() if name.startswith("reference/")):
        for kind, name, options in DIRECTIVE.findall(page):
            if kind != "module":
                found.append(resolve_name(f"aiopplx.{name.removeprefix('aiopplx.')}"))
            elif ":no-members:" not in options:
                module = resolve_name(name)
                apart = {
                    one.strip() for given in re.findall(r":exclude-members:(.*)", options) for one in given.split(",")
                }
                assert apart <= set(module.__all__), f"{name} has no {apart - set(module.__all__)} to leave out"
                found += [module, *(getattr(module, one) for one in module.__all__ if one not in apart)]
    return found


DOCUMENTED = documented()


def test_every_page_is_in_a_toctree_once() -> None:
    reached, left = [], ["index"]
    while left:
        page = left.pop()
        reached.append(page)
        left += listed(page)
    assert sorted(reached) == sorted(PAGES)


def test_front_page_links_to_every_page_of_its_sidebar() -> None:
    assert set(re.findall(r"\]\(([\w/.-]+)\.md", PAGES["index"])) == set(listed("index"))


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(module: ModuleType) -> None:
    ids = {id(thing) for thing in DOCUMENTED}
    assert [name for name in module.__all__ if id(getattr(module, name)) not in ids] == []


def test_no_name_is_in_the_reference_twice() -> None:
    named = [name for text in PAGES.values() for kind, name, _ in DIRECTIVE.findall(text)]
    assert [name for name in named if named.count(name) > 1] == []


def test_pages_of_prose_hold_no_directive_but_toctrees() -> None:
    prose = {page: text for page, text in PAGES.items() if not page.startswith("reference/")}
    odd = {page: re.findall(r"(?m)^```\{(?!toctree\}$).*|^:::.*", text) for page, text in prose.items()}
    assert {page: found for page, found in odd.items() if found} == {}
