"""What a notebook shows of a job: a small card of HTML, by the report's renderer.

Only sanitized HTML goes into a notebook, and never Markdown: JupyterLab runs scripts in what `_repr_markdown_` gives,
beside a live kernel, and typesets "$5 to $10" as mathematics. The class `mathjax_ignore` keeps it from that here. A
notebook that is opened again is not trusted and drops style sheets, so the card has its few styles on its elements and
reads well without them. Colours are the page's own, so that it is right in light and dark.

This module knows nothing of jobs: it is given what to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

from aiopplx._errors import ConfigError
from aiopplx._text.marks import Page
from aiopplx._text.safe import visible
from aiopplx.report._markdown import is_web, markdown

_DOT = " \N{MIDDLE DOT} "
_QUIET = "opacity:.7;font-size:.9em"
_LINE = "border:0;border-top:1px solid #8884;margin:.5em 0"


class Titled(Page, Protocol):
    """A source with what is shown of it."""

    @property
    def title(self) -> str | None: ...
    @property
    def date(self) -> str | None: ...


def card(
    *,
    name: str,
    question: str,
    facts: Sequence[str],
    error: str = "",
    text: str = "",
    sources: Sequence[Titled] = (),
    reasoning: str = "",
) -> str:
    """One job.

    Args:
        name: begins the ids of its elements; the job's id, so that two cards of one page do not mix.
        question: what was asked.
        facts: shown on one quiet line.
        error: why there is no answer.
        text: the answer, in Markdown.
        sources: what its marks name.
        reasoning: the model's own notes.
    """
    text, question = visible(text), visible(question)
    error, reasoning = visible(error), visible(reasoning)
    prefix = "aiopplx-" + "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name[:80])
    parts = [
        '<div class="mathjax_ignore" style="max-width:46rem;font-size:14px;line-height:1.5">',
        f'<div dir="auto" style="font-size:1.25em">{escape(question)}</div>' if question else "",
        f'<div style="{_QUIET}">{_DOT.join(escape(visible(fact)) for fact in facts if fact)}</div>',
        f'<div dir="auto" style="margin-top:.5em">{escape(error)}</div>' if error else "",
    ]
    if text:
        parts += [
            f'<hr style="{_LINE}"><div dir="auto" style="max-height:30rem;overflow:auto">',
            _answer(text, sources, prefix),
            f'</div><hr style="{_LINE}">',
        ]
    if sources:
        rows = "".join(_source(source, f"{prefix}-s{place}") for place, source in enumerate(sources, 1))
        parts.append(_folded(f"{len(sources):,} source{'s' * (len(sources) != 1)}", f"<ol>{rows}</ol>"))
    if reasoning:
        shown = f'<div dir="auto" style="white-space:pre-wrap;{_QUIET}">{escape(reasoning)}</div>'
        parts.append(_folded(f"reasoning, {len(reasoning):,} characters", shown))
    return "".join([*parts, "</div>"])


def _answer(text: str, sources: Sequence[Titled], prefix: str) -> str:
    try:
        html = markdown(text, sources, prefix=prefix, sink=2).html
    except ConfigError:  # without markdown-it-py
        return f'<pre style="white-space:pre-wrap">{escape(text)}</pre>'
    # JupyterLab sets cells right.
    return html.replace("<td>", '<td style="text-align:left">').replace("<th>", '<th style="text-align:left">')


def _source(source: Titled, place: str) -> str:
    words = escape(visible(source.title or source.url or "no title"))
    date = f' <span style="{_QUIET}">{escape(visible(source.date)[:10])}</span>' if source.date else ""
    if is_web(source.url):
        words = f'<a href="{escape(visible(source.url))}" rel="noopener noreferrer nofollow">{words}</a>'
    return f'<li id="{place}" dir="auto">{words}{date}</li>'


def _folded(title: str, html: str) -> str:
    return f'<details><summary style="cursor:pointer;{_QUIET}">{title}</summary>{html}</details>'
