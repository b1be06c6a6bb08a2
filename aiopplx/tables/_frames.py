"""Tables in memory: DataFrames of any library, lists of mappings, lists of questions.

Frames are recognised by what they can do, in this order: `to_dicts` (polars), `to_pylist` (pyarrow), `to_dict` with
`columns` (pandas; a Series has `to_dict` too). So nothing has to be installed or imported. NaN, NaT and NA are missing
values, and become None.

This module knows nothing of files or of questions.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from io import IOBase
from typing import Any, cast

from aiopplx._checks.cells import as_cell, is_iterable
from aiopplx._wire.request import Request
from aiopplx.tables._table import QUESTION, BadRow, Row, Rows, Table, TableError


def is_frame(source: object) -> bool:
    """Whether this is a DataFrame of a library that is known by what it can do."""
    kind = type(source)
    return (
        callable(getattr(kind, "to_dicts", None))
        or callable(getattr(kind, "to_pylist", None))
        or (callable(getattr(kind, "to_dict", None)) and hasattr(source, "columns"))
    )


def read_memory(source: object) -> Table:
    """A table from a frame, a mapping of columns' rows, or an iterable of mappings or texts.

    Raises:
        TableError: it is none of these.
    """
    kind = type(source).__name__
    if kind == "LazyFrame":
        raise TableError("a LazyFrame has no rows yet: give frame.collect()")
    if is_frame(source):
        _check_names(source)
        return _of_rows("the frame", f"frame ({kind})", _rows_of(source), has_fields=False)
    said = f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind} is not a table: give a list of mappings, a frame, or"
    if isinstance(source, str | bytes | Mapping):
        raise TableError(f"{said} a pathlib.Path of a file")
    if isinstance(source, IOBase) or (hasattr(source, "readline") and hasattr(source, "seek")):
        raise TableError(f"{said} the pathlib.Path of the file")  # its lines may be JSON, or rows of a table
    if isinstance(source, AsyncIterable):
        raise TableError(f"{said} a pathlib.Path; session.batch reads an async source of requests as it is")
    try:
        items = list(cast("Iterable[Any]", source))
    except TypeError:
        raise TableError(f"{said} a pathlib.Path") from None
    if items and all(isinstance(item, str) for item in items):
        rows = [Row(f"item {at}", {QUESTION: str(item)}) for at, item in enumerate(items, 1)]
        return Table("the list", f"list ({len(rows):,} texts)", (QUESTION,), lambda: iter(rows), has_fields=True)
    return _of_rows("the list", "list", items, has_fields=True)


def _check_names(frame: Any) -> None:
    """Of two columns with one name the libraries silently keep one. Raises `TableError`."""
    names: object = getattr(frame, "column_names", None) or getattr(frame, "columns", ())
    if not is_iterable(names):
        return
    seen: set[str] = set()
    for name in map(str, names):
        if name in seen:
            raise TableError(f'the frame has two columns of the name "{name[:60]}": rename one')
        seen.add(name)


def _rows_of(frame: Any) -> Sequence[Any]:
    if callable(getattr(frame, "to_dicts", None)):
        return cast("Sequence[Any]", frame.to_dicts())
    if callable(getattr(frame, "to_pylist", None)):
        return cast("Sequence[Any]", frame.to_pylist())
    return cast("Sequence[Any]", _with_index(frame).to_dict("records"))


def _with_index(frame: Any) -> Any:
    """`to_dict("records")` loses pandas' index: one that says something travels as a column."""
    index = getattr(frame, "index", None)
    if index is None or (type(index).__name__ == "RangeIndex" and index.name is None):
        return frame
    # `set_index("id", drop=False)`: the column is there already.
    twice = [name for name in index.names if name is not None and name in frame.columns]
    for name in twice:
        if list(map(as_cell, index.get_level_values(name))) != list(map(as_cell, frame[name])):
            raise TableError(f'the frame\'s index and a column both have the name "{str(name)[:60]}": rename one')
    if len(twice) == len(index.names):
        return frame.reset_index(drop=True)
    try:
        return (frame.reset_index(level=twice, drop=True) if twice else frame).reset_index()
    except ValueError:
        said = "the frame's index has no name, and columns have those that pandas gives it (index, level_0)"
    raise TableError(f"{said}: frame.rename_axis(...) names it")


def _of_rows(name: str, what: str, items: Sequence[Any], *, has_fields: bool) -> Table:
    if not items:
        raise TableError(f"{name} has no rows")
    columns: dict[str, None] = {}
    for item in items:
        if isinstance(item, Mapping):
            columns.update(dict.fromkeys(str(column) for column in cast("Mapping[object, object]", item)))

    def read() -> Rows:
        for at, item in enumerate(items, 1):
            if isinstance(item, Mapping):
                cells = cast("Mapping[object, object]", item)
                yield Row(f"item {at}", {str(column): as_cell(cell) for column, cell in cells.items()})
            elif isinstance(item, str):
                yield Row(f"item {at}", {QUESTION: str(item)})
            elif item is None or as_cell(item) is None:
                yield BadRow(f"item {at}", "is empty")
            else:
                kind = type(item).__name__
                batch = "; session.batch takes requests as they are" * isinstance(item, Request)
                give = f'give a text, or a mapping like {{"question": "Why?"}}{batch}'
                yield BadRow(f"item {at}", f"is of type {kind}: {give}")

    return Table(name, what, tuple(columns), read, has_fields=has_fields)
