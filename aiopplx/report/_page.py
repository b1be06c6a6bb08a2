"""The report: one page of HTML that needs nothing else, for a desk, a phone and paper.

What needs a look comes first. The page has no script and makes no request: its first line forbids both to the browser.
This module knows nothing of jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from statistics import median
from urllib.parse import urlsplit

from aiopplx._job import Source
from aiopplx._text.amounts import dollars, duration, many
from aiopplx.report._entry import Entry, Status
from aiopplx.report._markdown import Rendered, is_web, markdown
from aiopplx.report._style import STYLE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_UP, _DOT = "\N{UPWARDS ARROW}", " \N{MIDDLE DOT} "
_FOOT = "The answers were written by a language model. Check what matters against its sources."
_OTHERS: tuple[Status, ...] = ("failed", "in doubt", "still running", "not sent")
_ASKED = (" It has a question mark.", " They have a question mark.")
_END = f'<footer dir="auto">{_FOOT}</footer></main></body></html>\n'


def page(
    entries: Sequence[Entry], whole: Iterable[Entry], *, title: str, day: str = "", source: str = ""
) -> Iterator[str]:
    """The parts of the page, in order: a report of thousands of answers need not be in memory at once.

    Args:
        entries: what its contents show.
        whole: the same with the answers.
        title: of the report.
        day: its date, as it should read.
        source: the file that the questions came from.
    """
    is_listed = len(entries) != 1
    yield _head(title, is_listed=is_listed)
    if not is_listed:  # which needs no contents
        named = title if title != entries[0].question else ""
        yield f'<main id="top"><p class="facts" dir="auto">{_facts([named, day, source])}</p>'
    else:
        yield from _navigation(entries, title)
        yield from _overview(entries, title, day, source, _within)
    for entry in whole:
        yield from _article(entry, "#contents" if is_listed else "")
    yield _END


def index(entries: Sequence[Entry], *, title: str, day: str = "", source: str = "") -> Iterator[str]:
    """The parts of the first page of a folder, which has a page for each question. Arguments as for `page`."""
    yield _head(title)
    yield from _overview(entries, title, day, source, lambda entry: name_of(entry.number))
    yield _END


def one_page(entry: Entry, *, title: str, is_last: bool) -> Iterator[str]:
    """The parts of the page of one question in a folder.

    Args:
        entry: what it shows.
        title: of the report.
        is_last: no question follows.
    """
    yield _head(entry.question[:160])
    others = [
        f'<a dir="auto" href="{INDEX}">{escape(title)}</a>',
        f'<a href="{name_of(entry.number - 1)}">previous</a>' if entry.number > 1 else "",
        "" if is_last else f'<a href="{name_of(entry.number + 1)}">next</a>',
    ]
    yield f'<main id="top"><p class="facts">{"".join(f"<span>{other}</span>" for other in others if other)}</p>'
    yield from _article(entry, f"{INDEX}#contents")
    yield _END


INDEX = "index.html"
"""The first page of a folder."""


def name_of(number: int) -> str:
    """The name of a question's page: a title, a tag or an id could name any file of the machine."""
    return f"{number:05}.html"


def _head(title: str, *, is_listed: bool = False) -> str:
    body = '<body class="listed">' if is_listed else "<body>"  # beside the list of questions, or in the middle
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="robots" content="noindex">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>{body}\n"
    )


def _within(entry: Entry) -> str:
    return f"#q{entry.number}"


def _overview(
    entries: Sequence[Entry], title: str, day: str, source: str, link: Callable[[Entry], str]
) -> Iterator[str]:
    yield f'<main id="top"><p class="small ui">Research report</p><h1 dir="auto">{escape(title)}</h1>'
    models = sorted({entry.model for entry in entries if entry.model})
    yield f'<p class="facts">{_facts([day, source, ", ".join(models[:3])])}</p>'
    yield _band(entries)
    yield _to_look_at(entries, link)
    yield from _contents(entries, link)


def _facts(facts: Sequence[str]) -> str:
    return "".join(f"<span>{escape(fact)}</span>" for fact in facts if fact)


def _navigation(entries: Sequence[Entry], title: str) -> Iterator[str]:
    yield f'<nav><b dir="auto">{escape(title)}</b><ol>'
    for entry in entries:
        yield (
            f'<li><span>{entry.number}</span><a dir="auto" href="#q{entry.number}">'
            f"{escape(entry.question[:160])}</a></li>"
        )
    yield "</ol></nav>"


def _band(entries: Sequence[Entry]) -> str:
    done = sum(entry.is_ok for entry in entries)
    others = Counter(entry.status for entry in entries if not entry.is_ok)
    costs = [entry.cost for entry in entries if entry.cost is not None]
    unknown = sum(entry.is_ok and entry.cost is None for entry in entries)
    unknown += others["in doubt"] + others["still running"]
    seconds = [entry.seconds for entry in entries if entry.seconds is not None]
    numbers = [
        (f"{len(entries):,}", "questions" if len(entries) != 1 else "question"),
        (f"{done:,}", "done"),
        *((f"{others[word]:,}" if others[word] else "", word) for word in _OTHERS),
        (dollars(sum(costs)) + (f" <small>+ {unknown:,} unknown</small>" if unknown else "") if costs else "", "cost"),
        (f"{sum(len(entry.sources) for entry in entries):,}", "sources"),
        (duration(median(seconds)) if seconds else "", "half took under"),
    ]
    shown = "".join(f"<div><b>{number}</b><span>{word}</span></div>" for number, word in numbers if number)
    return f'<div class="band">{shown}</div>'


def _class(word: str) -> str:
    return "failed" if word == "failed" else "doubt"


def _to_look_at(entries: Sequence[Entry], link: Callable[[Entry], str]) -> str:
    rows = [
        f'<li><a href="{link(entry)}">{entry.number}</a><span dir="auto"><b class="{_class(word)}">{word}</b>'
        f"{escape(_sentence(said[:300]))}</span></li>"
        for entry in entries
        for word, said in entry.concerns
    ]
    return f'<p class="label">To look at</p><ul class="look">{"".join(rows)}</ul>' if rows else ""


def _contents(entries: Sequence[Entry], link: Callable[[Entry], str]) -> Iterator[str]:
    yield '<p class="label" id="contents">Contents</p><ol class="contents">'
    for entry in entries:
        if entry.is_ok:
            fact = f'<span class="fact">{many(len(entry.sources), "source") if entry.sources else "no sources"}</span>'
        else:
            fact = f'<span class="fact {_class(entry.status)}">{entry.status}</span>'
        cost = dollars(entry.cost) if entry.cost is not None else ""
        yield (
            f'<li><span class="n">{entry.number}</span><a dir="auto" href="{link(entry)}">'
            f'{escape(entry.question[:300])}</a>{fact}<span class="fact">{cost}</span></li>'
        )
    yield "</ol>"


def _article(entry: Entry, back: str) -> Iterator[str]:
    name = f"q{entry.number}"
    head = _facts([str(entry.number) if back else "", entry.tag])
    yield f'<article id="{name}"{"" if entry.is_ok else " class=bare"}><p class="facts">{head}</p>'
    yield f'<h2 dir="auto">{escape(entry.question)}</h2>'
    cited = f", {entry.cited:,} cited" if entry.cited else ""
    yield (
        '<p class="facts">'
        + _facts([
            "" if entry.is_ok else entry.status,
            dollars(entry.cost) if entry.cost is not None else "",
            duration(entry.seconds) if entry.seconds is not None else "",
            many(len(entry.sources), "source") + cited if entry.sources else "",
            entry.model,
        ])
        + "</p>"
    )
    if entry.columns:
        cells = "".join(
            f'<div><dt>{escape(column)}</dt><dd dir="auto">{escape(value)}</dd></div>'
            for column, value in entry.columns.items()
        )
        yield f'<dl class="columns">{cells}</dl>'
    for word, said in entry.concerns:
        more = _ASKED[len(entry.unresolved) > 1] if word == "citations" else ""
        yield f'<p class="note {_class(word)}" dir="auto">{escape(_sentence(said))}{more}</p>'
    if entry.text:
        answer = markdown(entry.text, entry.sources, prefix=name, without=entry.question)
        yield f'<div class="answer" dir="auto">{answer.html}</div>'
        yield from _sources(entry.sources, answer, name)
    elif entry.sources:
        yield from _sources(entry.sources, Rendered("", {}, {}), name)
    if entry.reasoning:
        yield (
            f"<details><summary>Reasoning, {len(entry.reasoning):,} characters</summary>"
            f'<div dir="auto">{escape(entry.reasoning)}</div></details>'
        )
    if entry.facts:
        rows = "".join(f"<dt>{escape(fact)}</dt><dd>{escape(value)}</dd>" for fact, value in entry.facts.items())
        yield f"<details><summary>Details</summary><dl>{rows}</dl></details>"
    yield f'<p class="back"><a href="{back}">Contents</a></p></article>' if back else "</article>"


def _sentence(said: str) -> str:
    return said[:1].upper() + said[1:] + ("" if said.endswith((".", "?", "!")) else ".")


def _sources(sources: Sequence[Source], answer: Rendered, name: str) -> Iterator[str]:
    if not sources:
        return
    yield '<p class="label">Sources</p><ol class="sources">'
    for place, source in enumerate(sources, 1):
        yield f'<li id="{name}-s{place}"><span class="n">{place}</span><div>{_source(source, place, answer)}</div></li>'
    yield "</ol>"


def _source(source: Source, place: int, answer: Rendered) -> str:
    host = _host(source.url)
    words = escape(source.title or host or source.url or "a source without a title or an address")
    title = (
        f'<a dir="auto" href="{escape(source.url)}" rel="noopener noreferrer nofollow">{words}</a>'
        if is_web(source.url)
        else f'<span dir="auto">{words}</span>'
    )
    times = answer.times.get(place, 0)
    back = (
        f'<a class="up" href="#{answer.first[place]}"><span>{_UP} </span>cited {_times(times)}</a>'
        if times
        else "not cited"
    )
    facts = [escape(fact) for fact in (host if source.title else "", source.date) if fact]
    paper = f'<small class="paper">{escape(source.url)}</small>' if is_web(source.url) else ""
    return f"{title}<small>{_DOT.join([*facts, back])}</small>{paper}"


def _times(times: int) -> str:
    return "once" if times == 1 else f"{times:,} times"


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""
