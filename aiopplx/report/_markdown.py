"""A model's Markdown as HTML that is harmless by construction.

The parser knows no raw HTML (`html: False`), so whatever looks like it is text. Links go to http and https only, and
images are named and never loaded. So no element or attribute outside of a fixed list can come out, whatever goes in;
`tests/report` holds that with random hostile pieces and a second sanitizer. Nesting deeper than the parser allows is
dropped by it: such an answer is shown as plain text.

Citation marks become small linked numbers. They are found in the text between the parser's tokens, so never in code, in
a link or in an address. This module knows nothing of pages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from aiopplx._errors import ConfigError
from aiopplx._text.marks import Page, marks

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

DEEPEST = 20
"""Levels of lists and quotes."""
_LEVELS = 6
_NO_HOST = re.compile(r"[\x00-\x20<>\\^`{|}%\"]")


class Rendered(NamedTuple):
    """An answer as HTML, and where its sources are cited.

    Attributes:
        html: the answer.
        first: the id of the first mark of each cited source, by its place in the list, from 1.
        times: how many marks name it.
    """

    html: str
    first: dict[int, str]
    times: dict[int, int]


def is_web(url: str) -> bool:
    """Whether an address may be linked: http or https, and a host and port that a browser takes."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme.lower() in ("http", "https") and bool(host) and not _NO_HOST.search(parts.netloc)


def markdown(text: str, sources: Sequence[Page], *, prefix: str, sink: int = 2, without: str = "") -> Rendered:
    """An answer as HTML.

    Args:
        text: Markdown.
        sources: what its marks name.
        prefix: begins each id, so that several answers can stand on one page.
        sink: levels by which its headings sink.
        without: a first heading of these words is left out: it repeats the question.
    """
    parser = _parser()
    tokens = parser.parse(text)
    if _is_too_deep(tokens):
        return Rendered(f'<pre class="plain">{escape(text)}</pre>', {}, {})
    if (
        len(tokens) > 2
        and tokens[0].type == "heading_open"
        and _alike(tokens[1].content) == _alike(without)
        and _alike(without)
    ):
        tokens = tokens[3:]
    citing = _Citing(sources, prefix)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(_LEVELS, int(token.tag[1:]) + sink)}"
        elif token.type == "table_open":
            token.attrSet("class", "data")
        elif token.type == "inline" and token.children is not None:
            token.children = citing.mark(token.children)
    html = str(parser.renderer.render(tokens, parser.options, {}))
    html = html.replace('<table class="data">', '<div class="wide"><table>').replace("</table>", "</table></div>")
    return Rendered(html, citing.first, citing.times)


def _alike(text: str) -> str:
    return " ".join(text.split()).strip(" #?.!*_").casefold()


def _is_too_deep(tokens: Sequence[Token]) -> bool:
    """Whether the parser has dropped something: it opened a block at its last level, and put nothing into it."""
    return any(
        token.level >= DEEPEST - 1
        and token.nesting == 1
        and after.nesting == -1
        and after.type.startswith(token.type[:-5])
        for token, after in pairwise(tokens)
    )


def _parser() -> MarkdownIt:
    try:
        from markdown_it import MarkdownIt
        from markdown_it.common.utils import escapeHtml
    except ImportError:
        raise ConfigError("a report needs markdown-it-py: pip install 'aiopplx[report]'") from None

    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": DEEPEST})
    parser.enable(["table", "strikethrough"])
    parser.validateLink = is_web  # type: ignore[method-assign]  # its own documented way to set a rule

    def image(
        self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any
    ) -> str:  # Any: as the library calls it
        words = escapeHtml(tokens[at].content.strip())
        return f"[image: {words}]" if words else "[image]"

    def link_open(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:  # Any: as above
        token = tokens[at]
        address = str(token.attrGet("href") or "")
        token.attrs = {"href": address, "rel": "noopener noreferrer nofollow"} if is_web(address) else {}
        return str(self.renderToken(tokens, at, options, env))

    def fence(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:  # Any: as above
        return f"<pre><code>{escapeHtml(tokens[at].content)}</code></pre>\n"

    for name, rule in (("image", image), ("link_open", link_open), ("fence", fence)):
        parser.add_render_rule(name, rule)
    return parser


class _Citing:
    """Turns marks into links, and keeps count of which source was named where."""

    def __init__(self, sources: Sequence[Page], prefix: str) -> None:
        self._sources = sources
        self._prefix = prefix
        self._place = {id(source): place for place, source in reversed(list(enumerate(sources, 1)))}
        self.first: dict[int, str] = {}
        self.times: dict[int, int] = {}

    def mark(self, children: Sequence[Token]) -> list[Token]:
        from markdown_it.token import Token

        out: list[Token] = []
        links = 0
        for child in children:
            links += (child.type == "link_open") - (child.type == "link_close")
            if child.type != "text" or links:
                out.append(child)
                continue
            html = self._marked(child.content)
            token = Token("html_inline", "", 0)
            token.content = html
            out.append(token if html != escape(child.content, quote=False) else child)
        return out

    def _marked(self, text: str) -> str:
        """Adjacent marks become one group of numbers, in which each is once."""
        parts: list[str] = []
        group: dict[str | int, str] = {}
        at = 0
        for mark in marks(text, self._sources):
            if mark.start >= at:  # not another number of the mark before
                between = text[at : mark.start]
                if between.strip():
                    self._close(parts, group)
                if not group:
                    parts.append(escape(between.rstrip(" "), quote=False))
                at = mark.end
            number = self._number(mark.name, mark.page)
            group.setdefault(mark.name if mark.page is None else self._place[id(mark.page)], number)
        self._close(parts, group)
        parts.append(escape(text[at:], quote=False))
        return "".join(parts)

    @staticmethod
    def _close(parts: list[str], group: dict[str | int, str]) -> None:
        if group:
            parts.append(f'<sup class="marks">{",".join(group.values())}</sup>')
            group.clear()

    def _number(self, name: str, page: Page | None) -> str:
        if page is None:
            return f'<span class="lost">{escape(name.strip("[]"))}?</span>'
        place = self._place[id(page)]
        self.times[place] = self.times.get(place, 0) + 1
        mark_id = ""
        if place not in self.first:
            self.first[place] = f"{self._prefix}-m{place}"
            mark_id = f' id="{self.first[place]}"'
        return f'<a{mark_id} href="#{self._prefix}-s{place}">{place}</a>'
