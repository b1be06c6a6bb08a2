"""The pre-commit configuration runs the linters of the environment, and fetches nothing."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml
from _source import ROOT

CONFIGURATION: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
HOOKS: list[dict[str, Any]] = [hook for repo in CONFIGURATION["repos"] for hook in repo["hooks"]]


def test_pre_commit_runs_only_local_hooks():
    assert [repo["repo"] for repo in CONFIGURATION["repos"]] == ["local"]
    # Neither a language that builds an environment of its own, nor packages to put into it.
    assert {hook["language"] for hook in HOOKS} == {"system"}
    assert not any("additional_dependencies" in hook for hook in HOOKS)


def test_pre_commit_runs_tools_of_the_dev_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    tools = {re.split(r"[\[<>=]", line)[0] for line in project["optional-dependencies"]["dev"]}
    commands = {hook["entry"].split()[0] for hook in HOOKS}
    assert commands == {"ruff", "mypy", "pyright"}
    assert {*commands, "pre-commit"} <= tools
