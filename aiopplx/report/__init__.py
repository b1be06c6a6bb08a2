"""Finished jobs as a report that people read: one page of HTML, or Markdown.

`html_report` and `markdown_report` take jobs and give the parts of a file, `html_folder` and `markdown_folder` those of
a file for each job: a report of thousands of answers need not be in memory as a whole. Needs markdown-it-py, the
`report` extra. This package knows nothing of sessions, journals or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aiopplx._job import Job
from aiopplx._text.safe import visible
from aiopplx.report import _page, _plain
from aiopplx.report._entry import Entry, entry_of, short_and_whole, shortened

__all__ = ["html_folder", "html_report", "markdown_folder", "markdown_report"]


def html_report(jobs: Sequence[Job], *, title: str = "Research", day: str = "", source: str = "") -> Iterator[str]:
    """A self-contained page of HTML, without a script, that makes no request: the parts, in order.

        path.write_text("".join(html_report(done, title="Heat pumps")))

    Args:
        jobs: in the order in which they are shown. Each is read twice, and none is kept.
        title: of the report.
        day: its date, as it should read; "" leaves it out.
        source: where the questions came from, as it should read; "" leaves it out.

    Raises:
        ConfigError: markdown-it-py is missing.
    """
    return _page.page(*short_and_whole(jobs), title=visible(title), day=visible(day), source=visible(source))


def markdown_report(jobs: Sequence[Job], *, title: str = "", day: str = "", source: str = "") -> Iterator[str]:
    """The same as Markdown: the parts, in order. Without a title there is no head, only the questions.

    Arguments as for `html_report`.
    """
    return _plain.as_markdown(*short_and_whole(jobs), title=visible(title), day=visible(day), source=visible(source))


def html_folder(
    jobs: Sequence[Job], *, title: str = "Research", day: str = "", source: str = ""
) -> Iterator[tuple[str, Iterator[str]]]:
    """The files of a folder: a page of HTML for each question, then `index.html`. Each is a name and its parts.

    A page of thousands of answers is heavy for a phone. Arguments and errors as for `html_report`.
    """
    found: list[Entry] = []
    for number, job in enumerate(jobs, 1):
        entry = entry_of(number, job)
        yield _page.name_of(number), _page.one_page(entry, title=visible(title), is_last=number == len(jobs))
        found.append(shortened(entry))
    yield _page.INDEX, _page.index(found, title=visible(title), day=visible(day), source=visible(source))


def markdown_folder(
    jobs: Sequence[Job], *, title: str = "Research", day: str = "", source: str = ""
) -> Iterator[tuple[str, Iterator[str]]]:
    """The same as Markdown: a file for each question, then `index.md`. Arguments as for `html_report`."""
    found: list[Entry] = []
    for number, job in enumerate(jobs, 1):
        entry = entry_of(number, job)
        yield _plain.name_of(number), _plain.one(entry)
        found.append(shortened(entry))
    yield _plain.INDEX, _plain.as_index(found, title=visible(title), day=visible(day), source=visible(source))
