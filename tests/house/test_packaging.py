"""What is shipped: the wheel and the source archive are built, opened and read."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from _source import PACKAGE, ROOT, modules

import aiopplx


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a wheel and a source archive, made by the backend itself: nothing is fetched."""
    where = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(where)], cwd=ROOT, check=True, text=True)
    return where


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def read(wheel: zipfile.ZipFile, ending: str) -> str:
    (name,) = (name for name in wheel.namelist() if name.endswith(ending))
    return wheel.read(name).decode("utf-8")


def test_wheel_holds_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {path.relative_to(ROOT).as_posix() for path in modules().values()}
    assert inside == sources | {"aiopplx/py.typed"}


def test_wheel_carries_the_licence(wheel: zipfile.ZipFile) -> None:
    assert "Permission is hereby granted, free of charge" in read(wheel, "/LICENSE")
    assert "License-Expression: MIT" in read(wheel, "/METADATA")


def test_wheel_starts_the_command_line_under_its_name(wheel: zipfile.ZipFile) -> None:
    assert "aiopplx = aiopplx.__main__:main" in read(wheel, "/entry_points.txt")


def test_wheel_needs_three_libraries_and_no_other(wheel: zipfile.ZipFile) -> None:
    needs = re.findall(r"(?m)^Requires-Dist: ([\w-]+)(?!.*extra ==)", read(wheel, "/METADATA"))
    assert sorted(needs) == ["aiohttp", "anyio", "msgspec"]


def test_source_archive_can_be_unpacked_and_tested(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "docs/LICENSE", "docs/questions.txt", "tests/conftest.py"} <= inside
    assert {path.relative_to(ROOT).as_posix() for path in modules().values()} <= inside


def test_version_is_said_in_one_place() -> None:
    saying = [
        name for name, path in modules().items() if f'"{aiopplx.__version__}"' in path.read_text(encoding="utf-8")
    ]
    assert saying == ["aiopplx._version"]
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dynamic"]
    assert importlib.metadata.version("aiopplx") == aiopplx.__version__


def test_changelog_opens_with_this_version() -> None:
    said = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    newest = re.search(r"(?m)^## (\S+)", said)
    assert newest
    assert newest[1] == aiopplx.__version__


def test_every_dependency_has_a_minimum_and_the_core_ceilings() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+,<\d+", line) for line in project["dependencies"])
    assert (PACKAGE / "py.typed").read_bytes() == b""
