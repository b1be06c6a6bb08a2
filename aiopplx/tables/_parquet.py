"""Tables in Parquet files, read by row groups. Needs pyarrow, the `parquet` extra.

This module knows nothing of questions.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

from aiopplx._checks.cells import as_cell
from aiopplx.tables._table import Row, Rows, Table, TableError


class _Group(Protocol):
    def to_pylist(self) -> list[dict[str, Any]]: ...


class _Columns(Protocol):
    @property
    def names(self) -> list[str]: ...


class _File(Protocol):
    """What is used of `pyarrow.parquet.ParquetFile`, which has no types."""

    @property
    def schema_arrow(self) -> _Columns: ...
    @property
    def num_row_groups(self) -> int: ...
    def read_row_group(self, group: int) -> _Group: ...
    def close(self) -> None: ...


def read_parquet(name: str, path: str) -> Table:
    """A table from a Parquet file. Raises `TableError`: pyarrow is missing, or the file cannot be read."""
    file = _opened(name, path)
    columns, groups = tuple(file.schema_arrow.names), file.num_row_groups
    file.close()
    if twice := next((column for column in columns if columns.count(column) > 1), ""):
        raise TableError(f'{name} has two columns of the name "{twice[:60]}": rename one')

    def read() -> Rows:
        at = 0
        again = _opened(name, path)
        try:
            for group in range(groups):
                for cells in again.read_row_group(group).to_pylist():
                    at += 1
                    yield Row(f"row {at}", {column: as_cell(cell) for column, cell in cells.items()})
        finally:
            again.close()

    return Table(name, "Parquet", columns, read)


def _opened(name: str, path: str) -> _File:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise TableError(f"{name} is a Parquet file: pip install 'aiopplx[parquet]' reads it") from None
    try:
        return cast("_File", parquet.ParquetFile(path))
    except Exception as error:  # a damaged file makes it fail in many ways
        said = f"{name} cannot be read as Parquet ({type(error).__name__}): was it cut off? Save it again"
        raise TableError(said) from None
