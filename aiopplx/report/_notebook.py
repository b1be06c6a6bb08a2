"""What a notebook shows of a job, a batch and a session: small cards of HTML, the answer by the report's renderer.

Only sanitized HTML goes into a notebook, and never Markdown: JupyterLab runs scripts in what `_repr_markdown_` gives,
beside a live kernel, and typesets "$5 to $10" as mathematics. The class `mathjax_ignore` keeps it from that here. A
notebook that is opened again is not trusted and drops style sheets, so the card has its few styles on its elements and
reads well without them. Colours are the page's own, so that it is right in light and dark.

This module knows nothing of jobs, batches or sessions: it is given what to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple, Protocol

import msgspec

from aiopplx._errors import ConfigError
from aiopplx._text.amounts import dollars, many, roughly
from aiopplx._text.marks import Page
from aiopplx._text.safe import visible
from aiopplx.report._markdown import is_web, markdown

_DOT = " \N{MIDDLE DOT} "
_QUIET = "opacity:.7;font-size:.9em"
_LINE = "border:0;border-top:1px solid #8884;margin:.5em 0"


_GREEN, _RED, _AMBER, _GREY = "#3f7f5f", "#d0483b", "#976617", "#8884"
_BOX = '<div class="mathjax_ignore" style="max-width:46rem;font-size:14px;line-height:1.5">'


class Concern(NamedTuple):
    """A row of a batch that should be looked at. They sort by how grave they are.

    Attributes:
        rank: 0 is the gravest.
        row: its place in the source, from 1; 0 if it has none.
        tag: the caller's own name for it; "" if there is none.
        word: what is wrong, in a word or two.
        why: a sentence.
    """

    rank: int
    row: int
    tag: str
    word: str
    why: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch has come.

    Attributes:
        total: items of its source; None while nobody knows.
        done, failed, in_doubt, unsent: items that were handed out, by what came of them.
        stored: those of `done` whose answer the journal had from before.
        unread: items that have ended and were not handed out yet.
        running: jobs that run at the service.
        left: jobs that the batch left behind; they go on at the service.
        is_over: nothing more will come.
        cost: US dollars that this batch has paid, as far as it is known.
        priced, unknown: jobs behind it, and jobs that did not say what they cost.
        elapsed: seconds since it began; None before.
        more: seconds until it is expected to be done; None if nobody can say.
        journal: where it is written down; "" if nowhere.
        concerns: what to look at first.
    """

    total: int | None = None
    done: int = 0
    failed: int = 0
    in_doubt: int = 0
    unsent: int = 0
    stored: int = 0
    unread: int = 0
    running: int = 0
    left: int = 0
    is_over: bool = False
    cost: float = 0.0
    priced: int = 0
    unknown: int = 0
    elapsed: float | None = None
    more: float | None = None
    journal: str = ""
    concerns: Sequence[Concern] = ()

    @property
    def ended(self) -> int:
        """Items that were handed out."""
        return self.done + self.failed + self.in_doubt + self.unsent

    @property
    def rest(self) -> int:
        """Items that are still to come, as far as is known."""
        return max(0, self.total - self.ended) if self.total is not None else self.running + self.unread

    @property
    def title(self) -> str:
        """`Batch of 300`."""
        return f"Batch of {self.total:,}" if self.total is not None else "Batch"

    def words(self) -> list[tuple[str, str]]:
        """What came of the items so far, each with its colour."""
        waits = "left" if self.is_over else "running or waiting"
        counts = [
            (f"{self.done:,} done", ""),
            (f"{self.failed:,} failed" if self.failed else "", _RED),
            (f"{self.in_doubt:,} in doubt" if self.in_doubt else "", _AMBER),
            (f"{self.unsent:,} not sent" if self.unsent else "", _AMBER),
            (f"{self.rest:,} {waits}" if self.rest else "", ""),
        ]
        return [(word, colour) for word, colour in counts if word]

    def facts(self) -> list[str]:
        """What it has cost, how long it took and may take, and where it is written down."""
        cost = dollars(self.cost) + ("" if self.is_over else " so far")
        if self.priced >= ENOUGH and self.rest and not self.is_over:
            cost += f", about {_round(self.cost + self.cost / self.priced * self.rest)} in all"
        if self.unknown:
            cost += f" + {self.unknown:,} unknown"
        time = roughly(self.elapsed) if self.elapsed is not None else ""
        if self.more is not None and not self.is_over:
            time += f", about {roughly(self.more)} more"
        return [
            cost if self.priced or self.unknown else "",
            f"{self.stored:,} from the journal, $0.00" if self.stored else "",
            f"{many(self.left, 'job')} left behind, which go on at the service" if self.left else "",
            time,
            f"journal {self.journal}" if self.journal else "",
        ]


# What the report does by its style sheet. Text is escaped, so these are elements wherever they stand. JupyterLab sets
# cells right, and its headings are a page's.
_PADDED = "padding:.25em 1em .25em 0"
_STYLED = {
    **{f'"text-align:{side}"': f'"text-align:{side};{_PADDED}"' for side in ("left", "right", "center")},
    **{f"<{cell}>": f'<{cell} style="text-align:left;{_PADDED}">' for cell in ("td", "th")},
    **{
        f"<h{level}>": f'<h{level} style="font-size:{size}em;margin:1em 0 .4em">'
        for level, size in ((3, 1.2), (4, 1.1), (5, 1), (6, 1))
    },
    "<pre>": '<pre style="overflow-x:auto">',
    '<div class="wide">': '<div class="wide" style="overflow-x:auto">',
    '<span class="lost">': f'<span class="lost" style="color:{_AMBER}">',
    '<sup class="marks">': '<sup class="marks" style="line-height:0">',
}

ENOUGH = 5
"""Known costs from which the cost of the rest is foretold."""


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
        _BOX,
        f'<div dir="auto" style="font-size:1.25em">{escape(question)}</div>' if question else "",
        _quiet(facts),
        f'<div dir="auto" style="margin-top:.5em">{escape(error)}</div>' if error else "",
    ]
    if text:
        parts += [
            f'<hr style="{_LINE}"><div dir="auto" style="max-height:30rem;overflow:auto">',
            _answer(text, sources, prefix, question),
            f'</div><hr style="{_LINE}">',
        ]
    if sources:
        rows = "".join(_source(source, f"{prefix}-s{place}") for place, source in enumerate(sources, 1))
        parts.append(_folded(many(len(sources), "source"), f"<ol>{rows}</ol>"))
    if reasoning:
        shown = f'<div dir="auto" style="white-space:pre-wrap;{_QUIET}">{escape(reasoning)}</div>'
        parts.append(_folded(f"reasoning, {len(reasoning):,} characters", shown))
    return "".join([*parts, "</div>"])


def batch_card(standing: Standing) -> str:
    """One batch: how far it has come, a bar, what it has cost, and once it is over what to look at first."""
    words = [f"<b>{standing.title}</b>", *(_coloured(word, colour) for word, colour in standing.words())]
    parts = [_BOX, f"<div>{_DOT.join(words)}</div>", _bar(standing), _quiet(standing.facts())]
    if standing.is_over:
        parts += ['<div style="height:.5em"></div>', *map(_concern, standing.concerns)] if standing.concerns else []
    return "".join([*parts, "</div>"])


def session_card(facts: Sequence[str]) -> str:
    """One session."""
    return f"{_BOX}<div><b>Session</b></div>{_quiet(facts)}</div>"


def _round(amount: float) -> str:
    return f"${amount:,.0f}" if amount >= 10 else dollars(amount)


def _quiet(facts: Sequence[str]) -> str:
    return f'<div style="{_QUIET}">{_DOT.join(escape(visible(fact)) for fact in facts if fact)}</div>'


def _coloured(word: str, colour: str) -> str:
    return f'<span style="color:{colour}">{word}</span>' if colour else word


def _bar(standing: Standing) -> str:
    whole = max(1, standing.ended + standing.rest)
    parts = "".join(
        f'<div style="width:{100 * count / whole:.2f}%;background:{colour}"></div>'
        for count, colour in (
            (standing.done, _GREEN),
            (standing.failed, _RED),
            (standing.in_doubt + standing.unsent, _AMBER),
        )
        if count
    )
    return (
        f'<div style="display:flex;height:5px;max-width:30rem;margin:.35em 0;border-radius:3px;overflow:hidden;'
        f'background:{_GREY}">{parts}</div>'
    )


def _concern(concern: Concern) -> str:
    row = " ".join(filter(None, [f"row {concern.row:,}" if concern.row else "", visible(concern.tag)[:60]]))
    colour = _RED if concern.word == "failed" else _AMBER
    why = escape(visible(concern.why)[:300])
    return f'<div dir="auto">{escape(row)} <b style="color:{colour}">{concern.word}</b> {why}</div>'


def _answer(text: str, sources: Sequence[Titled], prefix: str, question: str) -> str:
    try:
        html = markdown(text, sources, prefix=prefix, without=question).html
    except ConfigError:  # without markdown-it-py
        return f'<pre style="white-space:pre-wrap">{escape(text)}</pre>'
    for plain, styled in _STYLED.items():
        html = html.replace(plain, styled)
    return html


def _source(source: Titled, place: str) -> str:
    words = escape(visible(source.title or source.url or "no title"))
    date = f' <span style="{_QUIET}">{escape(visible(source.date)[:10])}</span>' if source.date else ""
    if is_web(source.url):
        words = f'<a href="{escape(visible(source.url))}" rel="noopener noreferrer nofollow">{words}</a>'
    return f'<li id="{place}" dir="auto">{words}{date}</li>'


def _folded(title: str, html: str) -> str:
    return f'<details><summary style="cursor:pointer;{_QUIET}">{title}</summary>{html}</details>'
