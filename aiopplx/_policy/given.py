"""What a user gives for a source of questions, and what is wrong with what is none: a file, or one question alone.

This module knows nothing of how a source is read, or of what is done with its items.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from aiopplx._errors import InvalidRequest
from aiopplx._wire.request import Request

T = TypeVar("T")
BATCH = "batch"
"""The call that a source is nearly always for."""


class _Polars(Protocol):
    @property
    def to_dicts(self) -> object: ...


class _Arrow(Protocol):
    @property
    def to_pylist(self) -> object: ...


class _Pandas(Protocol):
    @property
    def to_dict(self) -> object: ...
    @property
    def columns(self) -> object: ...


Frame: TypeAlias = "_Polars | _Arrow | _Pandas"
"""A DataFrame, by what it can do: polars, pyarrow, pandas and their like."""


def iterator_of(source: Iterable[T] | AsyncIterable[T] | Frame, call: str = BATCH) -> Iterator[T] | AsyncIterator[T]:
    """What reads the items of a source. See `Source`.

    Args:
        source: what the user gave.
        call: what takes it, as it is typed.

    Raises:
        InvalidRequest: its items are not questions; the message has the right call.
        TableError: a row of a table cannot be used.
    """
    who = "a batch" if call == BATCH else call
    if _is_table(source):
        return cast("Iterator[T]", _asked_in(source, who, call))
    if said := _not_questions(source, call):
        raise InvalidRequest(f"{who} takes an iterable or async iterable of questions{said}")
    if isinstance(source, AsyncIterable):
        return aiter(source)
    try:
        return iter(cast("Iterable[T]", source))
    except TypeError:
        raise InvalidRequest(
            f"{who} takes an iterable or async iterable of questions, not {type(source).__name__}"
        ) from None


def _is_table(source: object) -> bool:
    # Of the class: to ask a LazyFrame itself for its columns makes polars work, and warn.
    kind = type(source)
    return hasattr(kind, "__dataframe__") or (hasattr(kind, "columns") and hasattr(kind, "shape"))


def _asked_in(frame: Any, who: str, call: str) -> Iterator[Request]:
    """The questions of a DataFrame.

    Raises:
        InvalidRequest: it has no column of questions, or cannot be read; the message has the right call.
        TableError: a row cannot be used.
    """
    # Only for those who have tables.
    from aiopplx.tables import TableError, questions, read_memory
    from aiopplx.tables._frames import is_frame

    if not is_frame(frame):
        raise InvalidRequest(
            f'{who} cannot read the rows of this table: give one column of it, {call}(table["question"])'
        )
    try:
        columns = read_memory(frame).columns
    except TableError as error:
        raise InvalidRequest(f'{who} takes a DataFrame with a column "question": {error.problem}') from None
    if "question" not in columns:
        raise InvalidRequest(
            f'{who} takes a DataFrame with a column "question", and this one has {", ".join(columns[:20])}:'
            f' {call}(aiopplx.questions(table, question="COLUMN")) names another one, and template="... {{COLUMN}} ..."'
            " makes the question of several"
        )
    try:
        return questions(frame, question="question")
    except TableError as error:
        raise TableError(
            f"{error}. Options are those of aiopplx.questions: {call}(aiopplx.questions(table, ...))"
        ) from None


def _not_questions(source: Any, call: str) -> str:
    """What is wrong with an iterable whose items are not the questions that it seems to hold; `""` if nothing is."""
    if isinstance(source, (str, Request)):
        alone = "session.ask(question) or " if call == BATCH else ""
        return f"; for a single one use {alone}{call}([question])"
    if isinstance(source, (bytes, bytearray, memoryview)):
        kind = type(cast("object", source)).__name__
        return f", not {kind}: decode it, and give its lines: {call}(data.decode().splitlines())"
    if isinstance(source, Mapping):
        alone = "session.ask(mapping) or " if call == BATCH else ""
        return (
            f", and a mapping is one question with its fields: {alone}{call}([mapping]). If its"
            f" values are the questions: {call}(mapping.values())"
        )
    if hasattr(source, "readline") and hasattr(source, "seek"):
        return f', not a file, whose lines have ends: {call}(line.strip() for line in open("questions.txt"))'
    if hasattr(source, "__fspath__"):
        return f", not a path: {call}(aiopplx.questions(path)) reads the file"
    if type(source).__name__ == "LazyFrame":
        return f", and a LazyFrame has no rows yet: {call}(frame.collect())"
    if getattr(source, "ndim", 1) != 1:
        return f", not an array of {source.ndim} dimensions: give one column of it, {call}(array[:, 0])"
    if callable(source) and not hasattr(source, "__iter__") and not hasattr(source, "__aiter__"):
        return f", not the function that makes one: call it, {call}(questions())"
    return ""
