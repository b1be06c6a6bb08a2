"""Finished jobs as a report that people read: one page of HTML, or Markdown.

`html_report` and `markdown_report` take jobs and give the parts of a file, so that a report of thousands of answers
need not be in memory as a whole. Needs markdown-it-py, the `report` extra. This package knows nothing of sessions,
journals or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aiopplx._job import Job
from aiopplx._text.safe import visible
from aiopplx.report._entry import entries
from aiopplx.report._page import page
from aiopplx.report._plain import as_markdown

__all__ = ["html_report", "markdown_report"]


def html_report(jobs: Sequence[Job], *, title: str = "Research", day: str = "", source: str = "") -> Iterator[str]:
    """A self-contained page of HTML, without a script, that makes no request: the parts, in order.

        path.write_text("".join(html_report(done, title="Heat pumps")))

    Args:
        jobs: in the order in which they are shown.
        title: of the report.
        day: its date, as it should read; "" leaves it out.
        source: where the questions came from, as it should read; "" leaves it out.

    Raises:
        ConfigError: markdown-it-py is missing.
    """
    return page(entries(jobs), title=visible(title), day=visible(day), source=visible(source))


def markdown_report(jobs: Sequence[Job], *, title: str = "", day: str = "", source: str = "") -> Iterator[str]:
    """The same as Markdown: the parts, in order. Without a title there is no head, only the questions."""
    return as_markdown(entries(jobs), title=visible(title), day=visible(day), source=visible(source))
