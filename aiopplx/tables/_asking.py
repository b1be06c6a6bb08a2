"""From rows to requests: which cell is the question, which the tag, which are request fields, and what is kept.

A column's name is not a wish. Tables have columns called `model` (of a car), `temperature` or `stop`; to send one
because of its name would change the request and hand over the user's data in silence. So a column is sent only where
`fields` names it, whatever the source. What `keep` says comes back, sent or not.

A mapping or a JSON object may be a row of data, or a request that somebody wrote: kept unsent, another run would be
paid for than was meant. So a name of a request field in one is refused until `fields` or `keep` says what it is. The
body of a line of the provider's batch form is nothing but a request: all of its fields are sent unless `fields` says
otherwise.

This module knows nothing of files or of sessions.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from aiopplx._checks.cells import as_cell
from aiopplx._errors import InvalidRequest
from aiopplx._wire.request import Request
from aiopplx.apis._registry import request_about, request_fields, request_of
from aiopplx.tables._objects import value_of
from aiopplx.tables._table import (
    QUESTION,
    Advice,
    BadRow,
    Broken,
    Note,
    Row,
    Table,
    TableError,
    as_typed,
    named,
    one_line,
)
from aiopplx.tables._template import EmptyHole, Template, columns_in

LONGEST = 400_000
"""Characters of a question: more is a file that was taken for one."""
META_LIMIT = 1 << 20
"""Bytes of JSON of a row's other columns."""
_RANKS = (("question", "prompt", "query"), ("input", "text"))
_TAGS = ("tag", "custom_id")
_NO_TAG = "-"
"""What is said for no tag."""
_ASKS_ITSELF = ("messages", "input")
_TOTAL = re.compile(
    r"(?:(?:grand |sub-?)?totals?|sum|summe|summa|suma|somme|gesamt|gesamtsumme|totaal|razem|итого|всего|合計|合计)\b",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"[-+(]?\W{0,3}\d[\d.,' \u00a0\u202f]*\W{0,3}(?:[A-Z]{3})?")
"""A number as people write it, with its currency."""
_HALF = re.compile("[\ud800-\udfff]|\\\\ud[89a-f][0-9a-f]{2}")
"""Half of a surrogate pair, as it is and as `repr` writes it."""
_NEARLY = 0.85
"""A column `score` is no slip of the pen for `store`: one letter in five is another word."""


_OTHER_TAG = Advice("tag", '"COLUMN"', "names another column", Advice("tag", '"-"', "uses none"))


class AskOptions(msgspec.Struct, frozen=True):
    """What a user says about the rows.

    Attributes:
        question: the column that is asked.
        template: the question, with columns in braces.
        tag: the column that identifies a row; "-" for none, unless a column has that name.
        fields: columns that are request fields of that name; "all" takes every column whose name is one, "none" or an
            empty list takes none. None: nobody has said it.
        set: request fields for every row that does not have them itself.
        keep: columns that are kept and come back; None keeps all, and "none", unless a column has that name, or an
            empty list keeps none.
    """

    question: str | None = None
    template: str | None = None
    tag: str | None = None
    fields: Sequence[str] | Literal["all", "none"] | None = None
    set: Mapping[str, object] = {}
    keep: Sequence[str] | Literal["none"] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that must stand in the header, as far as that can be said without a table (`ReadOptions`)."""
        return columns_in(self.question, self.template, self.tag)


class Asking:
    """How the rows of one table become requests.

    Args:
        table: whose columns it is about.
        options: what the user says.

    Attributes:
        question: the column that is asked; "" for a template.
        tag: the column of the tag; "" if there is none.
        kept: the columns that are kept, in order; None for mappings, which may all differ.
        set: the request fields for each row that does not send them itself.
        notes: what was found out and should be told.

    Raises:
        TableError: no column, or more than one, could be the question; or a column is named that does not exist.
    """

    def __init__(self, table: Table, options: AskOptions) -> None:
        self.notes: list[str] = []
        self._table = table
        self._known = request_fields()
        self.set: Mapping[str, object] = options.set
        self._says_fields = options.fields is not None
        has_no_tag = options.tag == _NO_TAG and _NO_TAG not in table.columns
        options = self._as_in_the_table(options)
        fields, self._keep = self._listed("fields", options.fields), self._listed("keep", options.keep)
        names = (options.question, None if has_no_tag else options.tag)
        for name in [*(name for name in names if name is not None), *(fields or ()), *(self._keep or ())]:
            self._check_column(name)
        self._fields = self._sent(options, fields)
        self._template = self._made(options.template) if options.template is not None else None
        if self._template is not None and options.question is not None:
            raise TableError("give either a question's column or a template, not both")
        self.question: str = "" if self._template is not None else options.question or self._found_question()
        self.tag: str = "" if has_no_tag else options.tag or self._found_tag()
        # Surely the user's own: what is kept by its name, or is part of the question.
        self._own = frozenset([*(self._keep or ()), *(self._template.columns if self._template is not None else ())])
        self._may_slip = table.has_fields and options.fields in (None, "all")
        self.kept: tuple[str, ...] | None = (
            None
            if table.has_fields
            else tuple(name for name in table.columns if self._keep is None or name in self._keep)
        )
        self._check_set()

    def _as_in_the_table(self, options: AskOptions) -> AskOptions:
        """With the names of columns as they stand in the table, which may have line breaks."""
        typed = as_typed(self._table.columns)

        def column(name: str | None) -> str | None:
            return typed.get(name, name) if isinstance(name, str) else name

        keep = options.keep
        if keep is not None and not isinstance(keep, str):
            keep = [typed.get(name, name) for name in keep]
        return msgspec.structs.replace(options, question=column(options.question), tag=column(options.tag), keep=keep)

    def _check_column(self, name: object) -> None:
        columns = self._table.columns
        if not isinstance(name, str):
            raise TableError(f'a column is named by text: give "{name}" and not {name!r}'[:200])
        if name not in columns:
            guess = difflib.get_close_matches(name, columns, 1)
            hint = f'; did you mean "{one_line(guess[0])}"?' if guess else f"; it has {named(columns)}"
            raise TableError(f'{self._table.place} has no column "{name}"{hint}', self._another_sheet())

    def _check_set(self) -> None:
        for name in self.set:
            if name not in self._known:
                guess = difflib.get_close_matches(name, self._known, 1)
                raise TableError(
                    f"there is no request field {name[:60]!r}" + (f"; did you mean {guess[0]!r}?" if guess else "")
                )

    def _listed(self, option: str, said: Sequence[str] | None) -> tuple[str, ...] | None:
        """The columns that an option names; None if it leaves that open, or takes all."""
        if said is None or (option == "fields" and said == "all"):
            return None
        if not isinstance(said, str):
            return tuple(said)
        if said == "none":
            return (said,) if option == "keep" and said in self._table.columns else ()
        raise TableError(f"{option} is a list of columns: give {option}=[{said!r}]"[:200])

    def _sent(self, options: AskOptions, fields: Sequence[str] | None) -> frozenset[str]:
        """The columns that are request fields by what the user says."""
        fit = self._known - {QUESTION, "tag"}
        if options.fields == "all":
            return fit
        for name in fields or ():
            if name not in self._known:
                guess = difflib.get_close_matches(name, self._known, 1)
                raise TableError(
                    f'the column "{name}" is not a request field' + (f"; did you mean {guess[0]!r}?" if guess else "")
                )
        if not self._table.has_fields and fields != ():
            for name in self._table.columns:
                if name in fit and name not in (*(fields or ()), options.question, options.tag, *_ASKS_ITSELF):
                    advice = Advice("fields", f"[{name!r}]", "sends it")
                    is_kept = self._keep is None or name in self._keep
                    self.notes.append(Note(f'the column "{name}" is {"kept, " * is_kept}not sent', advice))
        return frozenset(fields or ())

    def _found_question(self) -> str:
        columns = self._table.columns
        if not columns:
            bad = next((row for row in self._table.read() if isinstance(row, BadRow)), None)
            raise TableError(
                f"{self._table.name}, {bad.place}: {bad.reason}" if bad else f"{self._table.name} has no rows",
                bad.advice if bad else None,
            )
        if columns == ("1",):  # a table of one column without a header
            return columns[0]
        self._check_pair()
        for rank in _RANKS:
            found = [name for name in columns if one_line(name).lower() in rank]
            if not found and self._table.has_fields and any(name in columns for name in _ASKS_ITSELF):
                return QUESTION  # a row with messages or input asks by itself
            if len(found) == 1:
                if found[0] != QUESTION:
                    self.notes.append(f"question: {found[0]}")
                return found[0]
            if found:
                break
        raise TableError(
            f"which column of {self._table.place} is the question? It has {named(columns)}",
            Advice(
                "question",
                '"COLUMN"',
                "names it",
                Advice("template", '"... {COLUMN} ..."', "makes it of several", self._another_sheet()),
            ),
        )

    def _check_pair(self) -> None:
        """Refuse rows that train a model, whose input is no question without the instruction. Raises `TableError`."""
        lowered = {one_line(name).lower(): one_line(name) for name in self._table.columns}
        instruction, given = lowered.get("instruction"), lowered.get("input")
        if instruction is not None and given is not None and not any(name in lowered for name in _RANKS[0]):
            raise TableError(
                f"which column of {self._table.place} is the question? {instruction} and {given} ask only together",
                Advice("template", f'"{{{instruction}}} {{{given}?}}"', "makes it of both"),
            )

    def _made(self, template: str) -> Template:
        try:
            return Template(template, self._table.columns)
        except TableError as error:
            another, advice = self._another_sheet(), error.advice
            if another is None:
                raise
            advice = msgspec.structs.replace(advice, other=another) if advice is not None else another
            problem = f"{error.problem} ({self._table.sheet})"
        raise TableError(problem, advice)

    def _another_sheet(self) -> Advice | None:
        return Advice("sheet", '"NAME"', "reads another sheet") if self._table.sheet else None

    def _found_tag(self) -> str:
        name = next((name for name in _TAGS if name in self._table.columns), "")
        if name and not self._table.has_fields:
            self.notes.append(f"tag: {name}")
        return name

    # --- one row -----------------------------------------------------------------------------------------------------

    def request(self, row: Row) -> Request | BadRow:
        """The request of a row, checked by the rules of its fields."""
        try:
            return self._request(row)
        except EmptyHole as hole:
            return BadRow(row.place, hole.why)
        except InvalidRequest as error:
            return _of_half(row) or BadRow(row.place, error.message)

    def _request(self, row: Row) -> Request | BadRow:
        cells = row.cells
        if open_ := self.undecided(row):
            keeps = Advice("fields", '"none"', "keeps them unsent")
            advice = Advice("fields", '"all"', "sends such columns", keeps)
            return BadRow(row.place, f'has "{open_[0]}", which is also the name of a request field', advice=advice)
        fields: dict[str, object] = {}
        for name in (*self._asks_itself(row), *self.sent(row)):
            value = cells[name]
            if isinstance(value, Broken):
                return BadRow(row.place, f'"{name}" {value.why}', advice=value.advice)
            fields[name] = value if row.is_request or self._table.has_fields else self._as_field(name, value)
        meta = self._meta(row)
        if isinstance(meta, BadRow):
            return meta
        if self._template is not None:
            fields[QUESTION] = self._template.fill(cells, as_text)
        elif not self._asks_itself(row):
            asked = cells.get(self.question)
            if isinstance(asked, Broken):
                return BadRow(row.place, f'"{self.question}" {asked.why}', advice=asked.advice)
            if asked is None or as_text(asked).strip() == "":
                is_there = not self._table.has_fields or self.question in cells
                return BadRow(row.place, f'"{self.question}" is empty' if is_there else f'has no "{self.question}"')
            if isinstance(asked, dict | list | bool):
                kind = (
                    "true or false" if isinstance(asked, bool) else "a list" if isinstance(asked, list) else "an object"
                )
                other = Advice("question", '"COLUMN"', "names another column")
                return BadRow(row.place, f'"{self.question}" must be text and is {kind}', advice=other)
            fields[QUESTION] = as_text(asked).strip() if not isinstance(asked, str) else asked.strip()
        if len(str(fields.get(QUESTION, ""))) > LONGEST:
            return BadRow(row.place, f"the question has more than {LONGEST:,} characters")
        tag = cells.get(self.tag) if self.tag else None
        if isinstance(tag, Broken):  # without it the row would be another submission than the one of its tag
            return BadRow(row.place, f'"{self.tag}" {tag.why}', advice=tag.advice)
        tag = tag.strip() if isinstance(tag, str) and not (row.is_request or self._table.has_fields) else tag
        if tag is not None and tag != "":
            fields["tag"] = tag if isinstance(tag, int) else as_text(tag)
        for name, value in self.set.items():
            fields.setdefault(name, value)
        if meta:
            fields["meta"] = meta
        asked = fields.pop(QUESTION, None)
        request = request_of(fields) if asked is None else request_about(str(asked), fields)
        request.check()
        return request

    def _asks_itself(self, row: Row) -> tuple[str, ...]:
        """The cells that are the question of a row which has no other: messages, or the input of an agent."""
        if self._template is not None or not (row.is_request or self._table.has_fields) or self.question in row.cells:
            return ()
        return tuple(name for name in _ASKS_ITSELF if name != self.tag and _has_value(row.cells.get(name)))

    def sent(self, row: Row) -> list[str]:
        """The columns of a row that are sent, apart from the question and the tag."""
        is_all = row.is_request and not self._says_fields
        return [name for name in self._alike(row) if is_all or name in self._fields]

    def undecided(self, row: Row) -> list[str]:
        """The columns of a row that could be meant as request fields, and of which nobody has said what they are."""
        if self._says_fields or row.is_request or not self._table.has_fields:
            return []
        return [name for name in self._alike(row) if name not in self._own]

    def _alike(self, row: Row) -> Iterator[str]:
        """The columns of a row with a value, and the name of a request field."""
        used = {QUESTION, "tag", self.question, self.tag, *self._asks_itself(row)}
        for name, value in row.cells.items():
            if name in self._known and name not in used and _has_value(value):
                yield name

    def _as_field(self, name: str, value: Any) -> object:
        """A cell of a table as the value of a field: text as it is if the field takes it so, else as JSON."""
        if not isinstance(value, str):
            return value
        value = value.strip()
        try:
            request_about("?", {name: value})
        except InvalidRequest:
            try:
                return value_of(value)
            except ValueError:
                return value
        return value

    def _meta(self, row: Row) -> dict[str, Any] | BadRow:
        """What comes back beside the answer: what asks or tags under another name as well. The columns `question` and
        `tag` are not in it if they are that: the job has them under these names.
        """
        kept: dict[str, Any] = {}
        gone = {*self._asks_itself(row), *(self.sent(row) if row.is_request else ())}
        gone |= {name for name, ours in ((self.question, QUESTION), (self.tag, "tag")) if name == ours}
        for name, cell in row.cells.items():
            if name in gone:
                continue
            if self._may_slip and name not in self._own and (near := self._near(name)):
                advice = Advice("fields", '"none"', "keeps it as a column of yours")
                said = f'"{name[:60]}" is nearly "{near}", a request field: correct it if it is meant'
                return BadRow(row.place, said, advice=advice)
            if self._keep is None or name in self._keep:
                kept[name] = as_cell(cell)
        try:
            others = {name: value for name, value in kept.items() if name not in (self.question, self.tag)}
            msgspec.json.encode(kept)
            size = len(msgspec.json.encode(others)) if others else 0
        except (TypeError, ValueError, RecursionError):
            said = "its other columns have a value that JSON cannot express; keep the other columns alone"
            return _of_half(row) or BadRow(row.place, said, advice=Advice("keep", '["COLUMN"]', "names those"))
        if size > META_LIMIT:
            return BadRow(row.place, f"its other columns are more than {META_LIMIT >> 20} MiB")
        return kept

    def _near(self, name: str) -> str:
        """The request field that a name nearly is: a slip of the pen that would change the request in silence."""
        if len(name) < 5 or name in self._known:
            return ""
        near = difflib.get_close_matches(name, self._known, 1, _NEARLY)
        turned = next((known for known in self._known if sorted(known) == sorted(name)), "")  # `modle`
        return near[0] if near else turned


def _of_half(row: Row) -> BadRow | None:
    """What is wrong with a cell that has half of a character, as where a text was cut within an emoji."""
    for name, cell in row.cells.items():
        text = cell if isinstance(cell, str) else str(cast("object", cell)) if isinstance(cell, dict | list) else ""
        if half := _HALF.search(text):
            code = half[0] if "\\" in half[0] else f"\\u{ord(half[0]):04x}"
            return BadRow(row.place, f'"{name}" has half of a character ({code}), which UTF-8 has not: delete it there')
    return None


def _has_value(cell: Any) -> bool:
    """Whether a cell says anything. One that is broken does: nobody knows what."""
    return isinstance(cell, Broken) or (cell is not None and (not isinstance(cell, str) or bool(cell.strip())))


def as_text(cell: Any) -> str:
    """A cell as it stands in a question."""
    if isinstance(cell, str):
        return cell
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    return str(cell) if isinstance(cell, int | float) else msgspec.json.encode(cell).decode()


class Look(msgspec.Struct, kw_only=True):
    """What was found in a whole table, before anything is sent.

    Attributes:
        table: the table.
        asking: how its rows become requests.
        count: rows that can be asked.
        first: the first three different questions.
        bad: the rows that cannot be used.
        repeats: rows that ask what an earlier row asks.
        sends: the columns that are sent as request fields, apart from the question and the tag.
        notes: what should be told.
    """

    table: Table
    asking: Asking
    count: int = 0
    first: list[str] = []
    bad: list[BadRow] = []
    repeats: int = 0
    sends: tuple[str, ...] = ()
    notes: list[str] = []

    def requests(self) -> Iterator[Request]:
        """A request for each row that can be asked, read anew."""
        for row in self.table.read():
            request = self.asking.request(row) if isinstance(row, Row) else row
            if not isinstance(request, BadRow):
                yield request


def look(table: Table, options: AskOptions) -> Look:
    """Read all of a table and make every request once, so that nothing is found out after the first was paid for.

    Args:
        table: the table.
        options: how its rows become questions.

    Raises:
        TableError: see `Asking`; or two rows have one tag, or no row can be used, or most cannot: then it is a file of
            another kind; or nobody has said whether columns with names of request fields are sent.
    """
    asking = Asking(table, options)
    seen = Look(table=table, asking=asking, notes=[*table.notes, *asking.notes])
    places: dict[str | int, str] = {}
    asked: set[bytes] = set()
    sends: dict[str, None] = {}
    undecided: dict[str, None] = {}
    last: Row | None = None
    unreckoned = 0
    for row in table.read():
        if isinstance(row, Row):
            sends.update(dict.fromkeys(asking.sent(row)))
            undecided.update(dict.fromkeys(asking.undecided(row)))
        request = asking.request(row) if isinstance(row, Row) else row
        if isinstance(request, BadRow):
            seen.bad.append(request)
            continue
        seen.count += 1
        if isinstance(row, Row):
            last = row
            kept = row.cells if asking.kept is None else asking.kept
            unreckoned += any(isinstance(cell := row.cells.get(name), Broken) and not cell for name in kept)
        if request.tag is not None:
            if (earlier := places.setdefault(request.tag, row.place)) != row.place:
                said = f"the tag {str(request.tag)[:60]!r} (column {asking.tag}) stands on {earlier} and on {row.place}"
                raise TableError(said, _OTHER_TAG)
        elif (digest := _digest(request)) in asked:
            seen.repeats += 1
            continue
        else:
            asked.add(digest)
        if len(seen.first) < 3:
            seen.first.append(request.asked)
    if undecided:
        raise _which_is_it(table, list(undecided))
    seen.sends = tuple(sends)
    if not seen.count and not seen.bad:
        raise TableError(f"{table.name} has no rows")
    if len(seen.bad) > seen.count:
        advice = next((row.advice for row in seen.bad if row.advice is not None), None)
        told = complaints([row._replace(advice=None) for row in seen.bad])
        raise TableError(f"{table.name}: most rows cannot be used. {told}", advice)
    if last is not None and seen.count > 1 and (total := _total_in(last)):
        seen.notes.append(
            f"{last.place} looks like a sum of the others ({total}), and is asked; delete it if it is one"
        )
    if unreckoned:
        rows = "1 row has a formula" if unreckoned == 1 else f"{unreckoned:,} rows have formulas"
        comes = "comes" if unreckoned == 1 else "come"
        seen.notes.append(f"{rows} without a value, which {comes} back empty: save the file in Excel once")
    if seen.repeats:
        rows = "1 row asks" if seen.repeats == 1 else f"{seen.repeats:,} rows ask"
        advice = Advice("unique", "True", "asks each once")
        seen.notes.append(Note(f"{rows} what an earlier row asks; each is asked and paid", advice))
    return seen


def _which_is_it(table: Table, names: list[str]) -> TableError:
    """The refusal of columns in mappings that may be meant as request fields, or not."""
    is_one = len(names) == 1
    has = f"{named(names)} {'has the name of a request field' if is_one else 'have names of request fields'}"
    it = "it" if is_one else "them"
    keeps = Advice("fields", '"none"', f"keeps {it} unsent")
    said = f"{table.place}: {has}, and nobody has said whether to send {it}"
    return TableError(said, Advice("fields", f"{names}", f"sends {it}", keeps))


def _total_in(row: Row) -> str:
    """What a last row says that sums up the others; "" if it is a row like any."""
    cells = [text for text in (as_text(cell).strip() for cell in row.cells.values()) if text]
    if len(cells) < 2 or not _TOTAL.match(cells[0]) or not all(_AMOUNT.fullmatch(cell) for cell in cells[1:]):
        return ""
    return ", ".join(cells[:3])[:60]


def complaints(bad: Sequence[BadRow]) -> str:
    """The rows that cannot be used, alike ones together with the first three places."""
    by_reason: dict[str, list[str]] = {}
    for row in bad:
        by_reason.setdefault(row.said, []).append(row.place)
    parts: list[str] = []
    for reason, places in by_reason.items():
        more = f" and {len(places) - 3:,} more" if len(places) > 3 else ""
        parts.append(f"{', '.join(places[:3])}{more}: {reason}")
    rest = f" (and {len(parts) - 5} other complaints)" if len(parts) > 5 else ""
    return "; ".join(parts[:5]) + rest


def _digest(request: Request) -> bytes:
    return hashlib.sha256(request.canonical()).digest()
