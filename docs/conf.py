"""How the pages of this folder become a site: `python -m sphinx -W docs build/site`.

Needs the extra `docs` and no network. Sphinx runs this file as a program; nothing else imports it. It knows nothing of
what the pages say.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from pkgutil import resolve_name

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

from aiopplx import __version__

project = "aiopplx"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["examples"]
html_theme = "furo"
html_title = f"aiopplx {__version__}"
html_show_copyright = False

# Headings get the names that GitHub gives them, so that a link to a section works in both places.
myst_heading_anchors = 4

# One backtick in a docstring is code, and a link where the reference has the name.
default_role = "py:obj"
napoleon_use_ivar = True
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
maximum_signature_line_length = 88

_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields)( \(.*\))?:$")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(\w?)")
_PAGE = re.compile(r"(?<![`\w/])(docs/([\w-]+)\.md)(?![`\w])")
_NAME = re.compile(r"[\w.]+")
_MODULE = re.compile(r"^\.\. automodule:: ([\w.]+)", re.MULTILINE)
_TOCTREE = re.compile(r"```\{toctree\}.*?```\n*", re.DOTALL)
_LINK = re.compile(r"\]\(([\w/.-]+)\.md(#[\w-]+)?\)")
_VALUES = ("attribute", "data", "property")
_COLON = "\x1f"
_log = logging.getLogger(__name__)


def as_rst(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Make of a docstring, which is plain text with backticks, what docutils reads.

    Indented lines become code, unless they belong to a section such as `Args:`. What stands in backticks and is no name
    becomes literal, and the name of a page a link to it.
    """
    text = _PAGE.sub(r":doc:`\1 </\2>`", _CODE.sub(_quoted, "\n".join(lines)))
    marked: list[str] = []
    in_section = in_code = False
    before = ""
    for line in text.splitlines():
        indented = line.startswith("    ")
        if line.strip() and not indented:
            in_section, in_code = bool(_SECTION.match(line)), False
        elif indented and not (in_section or in_code or before.strip()):
            marked += [".. code-block:: python", ""]
            in_code = True
        marked.append(line)
        before = line
    if what in _VALUES and marked:
        marked[0] = marked[0].replace(":", _COLON)
    lines[:] = marked


def put_colons_back(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Undo what hid a colon from napoleon, which takes the first line of a value for "type: description"."""
    if what in _VALUES:
        lines[:] = [line.replace(_COLON, ":") for line in lines]


def leave_out(app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object) -> bool | None:
    """Leave out the fields of named tuples, of which Python says no more than "Alias for field number 0"."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def _quoted(match: re.Match[str]) -> str:
    code, letter = match.groups()
    ticks = "`" if _NAME.fullmatch(code) else "``"
    # A letter may follow the closing backtick only behind a backslash: `Job`s.
    return f"{ticks}{' '.join(code.split())}{ticks}" + (f"\\ {letter}" if letter else "")


def read_homes(app: Sphinx) -> None:
    """Let Sphinx find the docstrings of constants and aliases that a public module imports.

    It reads them from source, and only from the source of the module whose name it was given.
    """
    for module in _documented(app):
        loaded = resolve_name(module)
        read = ModuleAnalyzer.for_module(loaded.__name__)
        ModuleAnalyzer.cache["module", module] = read  # a module may have a public name beside its own
        docs = read.find_attr_docs()
        for node in ast.walk(ast.parse(read.code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiopplx."):
                found = ModuleAnalyzer.for_module(node.module or "").find_attr_docs()
                for name in (alias.name for alias in node.names):
                    if said := found.get(("", name)):
                        docs["", name] = said


def _documented(app: Sphinx) -> list[str]:
    """The modules of the reference."""
    pages = sorted(Path(app.srcdir, "reference").glob("*.md"))
    return [module for page in pages for module in dict.fromkeys(_MODULE.findall(page.read_text(encoding="utf-8")))]


def _named(name: str) -> object:
    """What has this name; None for the key of a `TypedDict`, which is no attribute."""
    try:
        return resolve_name(name)
    except AttributeError:
        return None


def check_reference(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each public name that the reference does not have, under that name or another."""
    known = set(env.domains["py"].objects)
    documented = {id(thing) for name in known if "._" not in name and (thing := _named(name)) is not None}
    for module in _documented(app):
        loaded = resolve_name(module)
        for name in loaded.__all__:
            thing = getattr(loaded, name)
            if f"{module}.{name}" not in known and id(thing) not in documented and not inspect.ismodule(thing):
                _log.warning("%s.%s is not in the reference: it has no docstring", module, name)


def write_llms_txt(app: Sphinx, exception: Exception | None) -> None:
    """Write `llms.txt`, the front page's list of pages for programs: each link goes to the page as Markdown."""
    if exception is None and app.builder.format == "html":
        said = Path(app.srcdir, "index.md").read_text(encoding="utf-8")
        listed = _LINK.sub(r"](_sources/\1.md.txt)", _TOCTREE.sub("", said))
        # What the reference says is in no Markdown.
        listed = listed.replace("](_sources/reference/", "](reference/")
        listed = re.sub(r"\]\(reference/([\w-]+)\.md\.txt\)", r"](reference/\1.html)", listed)
        Path(app.outdir, "llms.txt").write_text(listed.rstrip() + "\n", encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", read_homes)
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # napoleon's comes next, at 500
    app.connect("autodoc-process-docstring", put_colons_back, priority=600)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("env-check-consistency", check_reference)
    app.connect("build-finished", write_llms_txt)
