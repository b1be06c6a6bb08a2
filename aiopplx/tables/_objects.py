"""Tables as JSON: lines, arrays, indented objects, and what pandas and jq write.

All of these are read as one sequence of JSON values with any white space between them, so JSONL, one array,
`json.dump(indent=2)` and the output of `jq '.[]'` are the same thing. Only JSONL streams: there each line is a value by
itself, and one that cannot be read is that line's problem. `NaN`, which Python writes, is null.

The lines that the provider's batch service takes (`custom_id`, `method`, `url`, `body`) are requests, too.

This module knows nothing of files, of which name is the question, or of any API.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

from aiopplx.apis._registry import api_at
from aiopplx.tables._table import QUESTION, Advice, BadRow, Broken, Row, Rows, Table, TableError, list_of

WHOLE = 64 << 20
"""Characters of JSON that are read at once. Only JSON lines may be longer."""
KNOWN = ("question", "prompt", "query", "input", "text", "messages")
"""Names of a question, in rows of any kind."""
_BATCH_LINE = {"custom_id", "method", "url", "body"}
_BLANK = " \t\r\n"
_TOO_LONG = "a number has more digits than Python reads (4,300)"


def read_objects(name: str, open_lines: Callable[[], Iterable[str]]) -> Table:
    """A table from JSON in any of its forms.

    Args:
        name: what messages call it.
        open_lines: begins to read its lines.

    Raises:
        TableError: it is not JSON, or not rows.
    """
    if _is_by_line(open_lines()):
        return _of_lines(name, open_lines)
    text = _whole(name, open_lines())
    return _of_values(name, _values(name, text))


def value_of(text: str) -> Any:
    """One JSON value. Raises ValueError."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        after = text[error.pos :].strip()
        said = _A_COMMA if after == "," else f"{error.msg}, column {error.colno}"
        said = _CUT if error.msg.startswith(_UNTERMINATED) else _LAST_COMMA if _is_last_comma(error, text) else said
        said = _python(text) if _is_python(error, text) else said
    except _TwiceNamed as error:
        said = str(error)
    except ValueError:
        said = _TOO_LONG
    except RecursionError:
        said = "nested too deeply"
    raise ValueError(said)


def _is_cut(error: json.JSONDecodeError, text: str) -> bool:
    return error.pos >= len(text.rstrip()) or error.msg.startswith(_UNTERMINATED)


def _is_python(error: json.JSONDecodeError, text: str) -> bool:
    """Whether it is a list or a dict as Python prints it: in single quotes, or with True, False and None."""
    return text.startswith(("'", "True", "False", "None"), error.pos)


def _python(text: str) -> str:
    """What to say of it, with what makes JSON of it."""
    values = "map(ast.literal_eval, sys.stdin)"  # a dict a line
    if not text.partition("\n")[0].rstrip().endswith("}"):
        values = "[ast.literal_eval(sys.stdin.read())]"
    made = f"import ast, json, sys; print(*map(json.dumps, {values}), sep=chr(10))"
    return f'it is what Python prints of a dict or a list; python3 -c "{made}" < FILE > rows.jsonl makes JSON of it'


def _is_last_comma(error: json.JSONDecodeError, text: str) -> bool:
    # Python 3.13 and later point to the comma and call it so, earlier ones to the bracket.
    is_bracket = text[error.pos : error.pos + 1] in ("]", "}")
    return error.msg.startswith("Illegal trailing comma") or (is_bracket and text[: error.pos].rstrip().endswith(","))


class _TwiceNamed(ValueError):
    """An object has a name twice: other readers of JSON keep one of the two, in silence."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        once = dict.fromkeys(made, True)
        twice = next(name for name, _ in pairs if not once.pop(name, False))
        raise _TwiceNamed(f'an object has the name "{twice[:60]}" twice')
    return made


_CONSTANTS = {"Infinity": "inf", "-Infinity": "-inf"}
"""As `as_cell` has them: JSON has no such numbers. NaN is a missing value."""
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_CONSTANTS.get)
_UNTERMINATED = "Unterminated string"  # a string over several lines is told in other words
_CUT = "it ends too early; was it cut off?"
_LAST_COMMA = "a comma stands after the last value, before ] or }; take it out"
_A_COMMA = "a comma follows; write [ before the first object and ] after the last, or no commas between the lines"


def line_of_objects(place: str, line: str) -> Row | BadRow | None:
    """What a `line` of JSON lines asks; None for a blank one. `place` is where it stands, for messages."""
    text = line.strip(_BLANK + "\ufeff")
    return _row_of_text(place, text, set()) if text else None


def _row_of_text(place: str, text: str, dropped: set[str]) -> Row | BadRow:
    try:
        value = value_of(text)
    except ValueError as error:
        return BadRow(place, f"not JSON: {error}")
    return _row(place, value, dropped)


def _is_by_line(lines: Iterable[str]) -> bool:
    """Whether the first line with something on it is an object or a text by itself, and is not all there is."""
    seen: list[Any] = []
    for line in lines:
        if not line.strip():
            continue
        try:
            seen.append(value_of(line))
        except ValueError:
            return bool(seen)
        if len(seen) == 2:
            return True
    if len(seen) != 1 or not isinstance(seen[0], dict):
        return False
    alone = cast("dict[str, Any]", seen[0])
    return not _holds_rows(alone) and not _rows_beside(alone) and _lists_within("", alone) is None


def _whole(name: str, lines: Iterable[str]) -> str:
    parts: list[str] = []
    size = 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size > WHOLE:
            raise TableError(f"{name} is JSON of more than {WHOLE >> 20} MiB; JSON lines may be longer (jq -c '.[]')")
    return "".join(parts).lstrip("\ufeff")


def _values(name: str, text: str) -> list[tuple[int, Any]]:
    """Each value with the number of the line where it begins."""
    values: list[tuple[int, Any]] = []
    at, line, counted = 0, 1, 0
    while True:
        while at < len(text) and text[at] in _BLANK:
            at += 1
        line, counted = line + text.count("\n", counted, at), at
        if at == len(text):
            return values
        try:
            value, at = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            said, where = error.msg, error.lineno
            if _is_cut(error, text):
                said = _CUT
            elif _is_last_comma(error, text):
                said = _LAST_COMMA
            elif _is_python(error, text):
                said = _python(text)
            elif values and text[error.pos] == ",":
                said = _A_COMMA
        except _TwiceNamed as error:
            said, where = str(error), line
        except ValueError:
            said, where = _TOO_LONG, line
        except RecursionError:
            said, where = "nested too deeply", line
        else:
            values.append((line, value))
            continue
        raise TableError(f"{name}, line {where}: not JSON: {said}")


def _holds_rows(value: dict[str, Any]) -> bool:
    """Whether an object is a container of rows and not a row."""
    if _are_columns(value):
        return True
    if any(name.lower() in KNOWN and not isinstance(value[name], dict) for name in value):
        return False
    if len(value) == 1 and _is_objects(next(iter(value.values()))):
        return True
    return _is_split(value) or (bool(value) and all(isinstance(item, dict) for item in value.values()))


def _are_columns(value: dict[str, Any]) -> bool:
    """Columns by name, as pandas' `orient="list"` has them: `{"question": ["Why?", "How?"], "id": [1, 2]}`.

    One whose question is a list of objects is a request as it is.
    """
    if not value or any(name in value for name in ("messages", "input")):
        return False
    lengths = {len(list_of(cells)) for cells in value.values()}
    nested = (isinstance(cell, dict | list) for cells in value.values() for cell in list_of(cells))
    return len(lengths) == 1 and min(lengths) > 0 and not any(nested)


def _is_by_column(value: dict[str, Any]) -> bool:
    """Whether an object is a table with its columns first, as a frame writes itself."""
    if not _holds_rows(value):
        return False
    is_pandas = all(isinstance(cells, dict) for cells in value.values()) and any(n.lower() in KNOWN for n in value)
    return is_pandas or _is_split(value) or _are_columns(value)


def _is_objects(value: Any) -> bool:
    items = list_of(value)
    return bool(items) and all(isinstance(item, dict) for item in items)


def _is_split(value: dict[str, Any]) -> bool:
    """pandas' `orient="split"`."""
    return set(value) - {"index"} == {"columns", "data"} and all(isinstance(item, list) for item in value.values())


def _of_lines(name: str, open_lines: Callable[[], Iterable[str]]) -> Table:
    dropped: set[str] = set()

    def read() -> Rows:
        for number, line in enumerate(open_lines(), 1):
            text = line.strip(_BLANK + "\ufeff")
            if not text:
                continue
            yield _row_of_text(f"line {number}", text, dropped)

    count, columns = _survey(read())
    if not count:
        raise TableError(f"{name} has no rows")
    return Table(name, "JSON lines", columns, read, _notes(dropped), has_fields=True)


def _of_values(name: str, values: Sequence[tuple[int, Any]]) -> Table:
    if not values:
        raise TableError(f"{name} has no rows")
    rows = _items(name, values)
    if all(isinstance(value, str) for _, value in rows):
        return Table(
            name,
            f"JSON ({len(rows):,} text{'s' * (len(rows) != 1)})",
            (QUESTION,),
            lambda: (Row(place, {QUESTION: value}) for place, value in rows),
            has_fields=True,
        )
    if any(isinstance(value, str) for _, value in rows):
        raise TableError(f"{name} has texts among its objects; questions are all texts, or all objects")

    dropped: set[str] = set()

    def read() -> Rows:
        return (_row(place, value, dropped) for place, value in rows)

    _, columns = _survey(read())
    first: object = values[0][1]
    is_table = len(values) == 1 and isinstance(first, dict) and _is_by_column(cast("dict[str, Any]", first))
    return Table(name, "JSON", columns, read, _notes(dropped), has_fields=not is_table)


def _items(name: str, values: Sequence[tuple[int, Any]]) -> list[tuple[str, Any]]:
    """The rows of a sequence of values, each with its place."""
    if len(values) > 1:
        return [(f"line {line}", value) for line, value in values]
    value: object = values[0][1]
    if isinstance(value, list):
        found = [(f"item {at}", item) for at, item in enumerate(list_of(values[0][1]), 1)]
        if not found:
            raise TableError(f"{name} has no rows")
        if all(isinstance(item, list) for _, item in found):
            raise _of_lists(name, "")
        return found
    if not isinstance(value, dict):
        return [("line 1", value)]
    mapping = cast("dict[str, Any]", value)
    if refusal := _lists_within(name, mapping):
        raise refusal
    within = next((outer for outer in mapping if outer in _WRAPPERS and len(mapping) == 1), "")
    inner: object = mapping.get(within)
    beside = _rows_beside(cast("dict[str, Any]", inner), is_alone=True) if isinstance(inner, dict) else ""
    if beside or not _holds_rows(mapping):
        if beside := f"{within}.{beside}" if beside else _rows_beside(mapping):
            said = f'{name} has its rows under "{beside[:60]}"' + ", beside other values" * ("." not in beside)
            raise TableError(f"{said}: jq '.{beside[:60]}' {name} prints the rows alone")
        return [("line 1", mapping)]
    return list(_held(name, mapping))


_PLURALS = ("questions", "prompts", "queries")
_SHEETS = ("values", "data", "rows")
_WRAPPERS = ("data", "response", "result", "results", "d")
"""Names under which services put all that they answer."""


def _rows_beside(mapping: dict[str, Any], *, is_alone: bool = False) -> str:
    """The name of the rows in an object that has other values as well, unless they are `is_alone`; "" if it is a row
    itself.
    """
    if any(column.lower() in KNOWN for column in mapping):
        return ""
    held = [column for column, value in mapping.items() if _is_objects(value)]
    return held[0] if len(held) == 1 and (is_alone or len(mapping) > 1) else ""


def _lists_within(name: str, mapping: dict[str, Any]) -> TableError | None:
    """The refusal of an object that is no row, since its questions or its rows stand in a list; None if it may be."""
    for under, held in mapping.items():
        items = list_of(held)
        if under.lower() in _PLURALS and items and all(isinstance(item, str) for item in items):
            return TableError(f"{name} has its questions under {under!r}: jq '.{under}' {name} prints them alone")
        if under in _SHEETS and items and all(isinstance(item, list) for item in items) and not _is_split(mapping):
            return _of_lists(name, under)
    return None


def _of_lists(name: str, under: str) -> TableError:
    """The refusal of rows that are lists, as a spreadsheet's service answers: which is the header it does not say."""
    table = f"{name.rpartition('.')[0] or name}.csv"
    return TableError(f"{name} has lists for rows: jq -r '.{under}[] | @csv' {name} > {table} makes a table of them")


def _held(name: str, mapping: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if len(mapping) == 1 and _is_objects(next(iter(mapping.values()))):
        for at, item in enumerate(next(iter(mapping.values())), 1):
            yield f"item {at}", item
    elif _is_split(mapping):
        names = [str(column) for column in mapping["columns"]]
        for at, row in enumerate(list_of(mapping["data"]), 1):
            yield f"item {at}", dict(zip(names, list_of(row), strict=False))
    elif _are_columns(mapping):
        for at, cells in enumerate(zip(*mapping.values(), strict=True), 1):
            yield f"item {at}", dict(zip(mapping, cells, strict=True))
    elif any(column.lower() in KNOWN for column in mapping):
        # pandas' default: columns first, then {"0": ..., "1": ...} in each.
        keys = list(cast("dict[str, Any]", next(iter(mapping.values()))))
        if any(list(cells) != keys for cells in mapping.values()):
            raise TableError(f"{name}: its columns have different rows")
        for key in keys:
            yield f"item {key}", {column: cells[key] for column, cells in mapping.items()}
    else:
        for tag, item in mapping.items():
            yield f'item "{tag[:40]}"', {"tag": tag, **item}


def _survey(rows: Rows) -> tuple[int, tuple[str, ...]]:
    """How many rows there are, and their names in the order of their first use."""
    count = 0
    names: dict[str, None] = {}
    for row in rows:
        count += 1
        if isinstance(row, Row):
            names.update(dict.fromkeys(row.cells))
    return count, tuple(names)


def _notes(dropped: set[str]) -> list[str]:
    named = " and ".join(sorted(dropped))
    return [f"{named} of the batch lines: left out, a job needs neither"] if dropped else []


def _row(place: str, value: Any, dropped: set[str]) -> Row | BadRow:
    if isinstance(value, str):
        return Row(place, {QUESTION: value})
    if not isinstance(value, dict):
        said = "null" if value is None else "a list" if isinstance(value, list) else "true or false"
        said = "a number" if isinstance(value, int | float) and not isinstance(value, bool) else said
        return BadRow(place, f'is {said}, and not a text or an object with names, such as {{"question": "Why?"}}')
    cells = cast("dict[str, Any]", value)
    if cells.keys() >= _BATCH_LINE:
        return _batch_line(place, cells, dropped)
    return Row(place, cells)


def _batch_line(place: str, cells: dict[str, Any], dropped: set[str]) -> Row | BadRow:
    url, body = str(cells["url"]), cast("object", cells["body"])
    api = api_at(url)
    if api is None:
        return BadRow(place, f"the url {url[:60]!r} is not one that makes a research job{_as_a_row(body)}")
    if not isinstance(body, dict):
        return BadRow(place, "its body is not an object")
    fields = dict(cast("dict[str, Any]", body))
    if (asks := api.batch_urls[url]) not in fields:
        inner = "; jq -c '.body = .body.request' FILE prints lines whose body has it" * (asks in _inner(fields))
        return BadRow(place, f"its body has no {asks}{inner}")
    for name in ("model", "models"):
        models = [model for model in _listed(fields.get(name)) if isinstance(model, str)]
        if foreign := [model for model in models if not api.has_model(model)]:
            why = f"is {foreign[0][:60]!r}, and the provider has no model of that name at {url}"
            fields[name] = Broken(", ".join(models), why, Advice("fields", '"none"', "asks without it"))
    dropped.update(name for name in ("background", "stream") if fields.pop(name, None) is not None)
    return Row(place, {"tag": cells["custom_id"], **fields}, is_request=True)


def _listed(value: Any) -> list[Any]:
    return list_of(cast("Any", value)) if isinstance(value, list) else [value]


def _inner(body: dict[str, Any]) -> dict[str, Any]:
    """The request in the body of a submission: what the asynchronous API takes, and batch lines do not have."""
    inner: object = body.get("request")
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}


def _as_a_row(body: object) -> str:
    """How a chat of another provider's batch file is made a row that asks the same; "" if it is none."""
    made = "jq -c '{tag: .custom_id, messages: .body.messages}' FILE"
    return f"; {made} prints rows that ask the same" if isinstance(body, dict) and "messages" in body else ""
