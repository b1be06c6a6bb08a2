"""The options of the command line as values, with their help texts.

This module does not know what an option does.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
from cyclopts import Group, Parameter, Token
from cyclopts.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from cyclopts.validators import Number

from aiopplx.apis import ApiName
from aiopplx.cli._exits import UsageError
from aiopplx.tables import AskOptions, Format, ReadOptions

if TYPE_CHECKING:
    from aiopplx import NetworkOptions

OnDoubt = Literal["resend", "hold"]
Results = Literal["keep", "until-delivered", "refetch"]
OutputFormat = Literal["jsonl", "csv", "tsv", "excel", "parquet", "html", "markdown"]
Progress = Literal["live", "plain", "json", "none"]
CostsBy = Literal["tag", "api", "state"]

STANDARD = "\0-"
"""Stands for a bare `-`, which the parser would take for an option. No file can have this name."""


_MAY_BE_STANDARD = frozenset({"output", "tag", "delimiter"})
"""Options that may be `-`: stdout, none, and the character itself."""


def refuse_standard(_: object, given: object) -> None:
    """Validates each argument, and the options of a class together. Raises `ValueError`: one is `-`."""
    if is_dataclass(given):
        for field in fields(given):
            if field.name not in _MAY_BE_STANDARD and _is_standard(getattr(given, field.name)):
                raise UsageError(f"--{field.name.replace('_', '-')}: {_NOT_HERE}")
    elif _is_standard(given):
        raise ValueError(_NOT_HERE)


_NOT_HERE = "- stands for stdin or stdout, and neither can be meant here"


def _is_standard(given: object) -> bool:
    values = cast("tuple[object, ...]", given) if isinstance(given, tuple) else (given,)
    return any(str(each) == STANDARD for each in values)


def _may_be_standard(_: object, given: object) -> None:
    """Validates an argument that may be `-`, in place of `refuse_standard`."""


MAY_BE_STANDARD = Parameter(validator=_may_be_standard)
"""Of an argument that may be `-`."""

KEY_LIMIT = 4096
"""Bytes read of a key file."""


# With the driver's name, in quotation marks, of another kind, or without its beginning: `user:password@host/database`.
_URL = r"""[\s"'<]*[A-Za-z][\w+.-]+:/|[^:@/\\\s]+:[^@/\\\s]+@[\w.\[]"""


def is_url(place: str) -> bool:
    """Whether a journal is on PostgreSQL, and no file: or is meant to be, as its URL of whatever kind is refused."""
    return re.match(_URL, place) is not None


def without_password(given: str) -> str:
    """Where a journal is. Of a database's URL it is text without the password, which `aiopplx` finds kept apart in it.

    So nothing that is told of a journal can show the password.
    """
    import aiopplx  # only when a journal was typed

    return os.fspath(aiopplx.JournalOptions(given).path)


def _place(_: object, tokens: Sequence[Token]) -> str:
    given = tokens[0].value
    return given if given == STANDARD else without_password(given)


PLACE = Parameter(converter=_place)
"""Of an argument that names a journal."""

_SERVICE = Group("Service")
_PRICE = Group("Price")


@Parameter(name="*", group=_SERVICE)
@dataclass(frozen=True, kw_only=True)
class Connection:
    """Which server to use, and with which key."""

    emulate: Annotated[
        bool,
        Parameter(
            show_default=False, help="Use the built-in emulator: no key, no network, no cost. The answers are invented."
        ),
    ] = False
    api_key_file: Annotated[
        Path | None,
        Parameter(help="File whose first line is the API key. Default: PERPLEXITY_API_KEY, then PPLX_API_KEY."),
    ] = None
    base_url: Annotated[
        str | None, Parameter(help="Address of the service. Default: PERPLEXITY_BASE_URL, then Perplexity's own.")
    ] = None
    api: Annotated[
        ApiName | None,
        Parameter(help="Which API to use. Default: AIOPPLX_API, then `auto`: Sonar, or Agent once Sonar is retired."),
    ] = None
    proxy: Annotated[
        str | None,
        Parameter(
            help="HTTP proxy to go through, `http://host:port`; or `env` for the environment's: HTTPS_PROXY, ALL_PROXY,"
            " NO_PROXY, and the certificates of REQUESTS_CA_BUNDLE. Default: none."
        ),
    ] = None
    poll: Annotated[
        PositiveFloat | None,
        Parameter(help="Seconds between two polls of a job. Default: no polls at first, then one every few seconds."),
    ] = None

    def check(self) -> None:
        """Refuse options that do not go together, before anything is printed or opened.

        Raises:
            UsageError: --emulate together with an address or a key, a password in --proxy, or a key file that cannot be
            read.
        """
        if self.emulate and (self.base_url or self.api_key_file):
            raise UsageError("--emulate brings its own address and key; leave out --base-url and --api-key-file")
        if self.emulate and self.proxy:
            raise UsageError("--emulate needs no network; leave out --proxy")
        if self.proxy and "@" in self.proxy:
            raise UsageError(
                "--proxy takes no user and password: a command line can be read by every user of the machine. Put the"
                " whole address into HTTPS_PROXY, and give --proxy env"
            )
        self.key()

    def network(self) -> NetworkOptions | None:
        """The way to the network that was typed; None if none was."""
        if self.proxy is None:
            return None
        from aiopplx import NetworkOptions

        return NetworkOptions(trust_env=True) if self.proxy == "env" else NetworkOptions(proxy=self.proxy)

    def key(self) -> str | None:
        """The key from the file; None if the key comes from the environment.

        There is no option for the key itself: a command line can be read by every user of the machine.

        Raises:
            UsageError: the file cannot be read or is empty.
        """
        if self.api_key_file is None:
            return None
        try:
            with self.api_key_file.open("rb") as file:
                words = file.read(KEY_LIMIT).decode("ascii", "replace").split()
        except OSError as error:
            raise UsageError(f"cannot read {self.api_key_file}: {error.strerror}") from None
        if not words:
            raise UsageError(f"{self.api_key_file} is empty; its first line should be the API key")
        return words[0]


Outputs = Annotated[
    tuple[str, ...],
    Parameter(
        name=["--output", "-o"],
        show_default=False,
        help="File for the answers: .jsonl .csv .tsv .xlsx .parquet .html .md, or FOLDER/ for a page of each; may be"
        " repeated; - is stdout. Default: stdout.",
    ),
]
Form = Annotated[
    OutputFormat | None, Parameter(help="Form of the answers. Default: the file's name says so; JSON lines.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run a file of questions."""

    output: Outputs = ()
    output_format: Form = None
    dry_run: Annotated[
        bool,
        Parameter(name="--dry-run", show_default=False, help="Look at the file and stop: no key, no request, no cost."),
    ] = False
    json: Annotated[bool, Parameter(show_default=False, help="With --dry-run: what was found as one JSON object.")] = (
        False
    )
    pilot: Annotated[
        PositiveInt | None,
        Parameter(
            group=_PRICE, help="Ask the first N that are not finished; then say what the others would cost, and ask."
        ),
    ] = None
    confirm_above: Annotated[
        NonNegativeFloat,
        Parameter(
            group=_PRICE,
            help="At a terminal, ask before anything is sent if it may cost more dollars than this; 0 always asks."
            " Without a terminal nothing is ever asked.",
        ),
    ] = 10.0
    yes: Annotated[
        bool,
        Parameter(name=["--yes", "-y"], group=_PRICE, show_default=False, help="Agree to the price, whatever it is."),
    ] = False
    unique: Annotated[
        bool, Parameter(show_default=False, help="Ask equal questions once; each row gets the answer.")
    ] = False
    force: Annotated[
        bool, Parameter(show_default=False, help="Overwrite an output file even if it holds something else.")
    ] = False
    limit: Annotated[PositiveInt | None, Parameter(help="Run at most this many questions.")] = None
    model: Annotated[str | None, Parameter(help="Model for questions that name none.")] = None
    rpm: Annotated[
        PositiveFloat | None,
        Parameter(help="Submissions per minute. Default: learned from the service's answers."),
    ] = None
    max_in_flight: Annotated[PositiveInt, Parameter(help="Jobs in progress at once.")] = 1000
    timeout: Annotated[
        PositiveFloat, Parameter(help="Seconds for each job; one that takes longer continues at the service.")
    ] = 3600
    max_cost: Annotated[
        PositiveFloat | None,
        Parameter(
            group=_PRICE,
            help="Dollars that may be spent, over all runs of the journal. Jobs already paid for are still collected."
            " What running jobs cost above what such jobs have cost so far can exceed it.",
        ),
    ] = None
    cancel_on_exit: Annotated[
        bool, Parameter(show_default=False, help="On Ctrl-C ask the service to cancel running jobs (Agent API only).")
    ] = False
    in_order: Annotated[
        bool, Parameter(show_default=False, help="Hold answers back until those of earlier questions are written.")
    ] = False
    as_finished: Annotated[
        bool,
        Parameter(
            show_default=False,
            help="Leave the rows of files as they finished. Default: at the end, in the order of the questions.",
        ),
    ] = False
    progress: Annotated[
        Progress | None,
        Parameter(help="How it is shown on stderr. Default: `live` on a terminal, else `plain` lines."),
    ] = None
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], show_default=False, help="Only errors on stderr.")] = False

    @property
    def needs_look(self) -> bool:
        """Whether all of a stream has to be seen before anything of it is sent."""
        return self.dry_run or self.unique or self.pilot is not None

    def check(self) -> None:
        """Refuse options that do not go together. Raises `UsageError`."""
        if self.json and not self.dry_run:
            raise UsageError("--json goes with --dry-run: what a run writes to stdout is JSON already")
        if self.in_order and self.as_finished:
            raise UsageError("--in-order and --as-finished do not go together")


_TABLE = Group("Rows")


@Parameter(name="*", group=_TABLE)
@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What the questions' file is, and how its rows become questions; what is not said is found out."""

    question: Annotated[str | None, Parameter(help="Column that is asked.")] = None
    template: Annotated[
        str | None,
        Parameter(help="Question made of columns: 'What did {company} announce?'. {name?} may be empty."),
    ] = None
    tag: Annotated[str | None, Parameter(help="Column that identifies a row; - for none.")] = None
    fields: Annotated[
        tuple[str, ...],
        Parameter(
            show_default=False,
            help="Columns that are sent as request fields of their name, with commas between them; `all` sends each"
            " that is one, `none` none. Default: none; JSON objects with such a name are refused until you say it.",
        ),
    ] = ()
    set: Annotated[
        tuple[str, ...],
        Parameter(show_default=False, help="FIELD=VALUE for each row that does not have it itself; may be repeated."),
    ] = ()
    keep: Annotated[
        tuple[str, ...],
        Parameter(
            show_default=False,
            help="Columns of yours that come back with the answers, with commas between them, or `none`; others are"
            " kept nowhere. Default: all.",
        ),
    ] = ()
    skip_bad: Annotated[
        bool, Parameter(show_default=False, help="Leave out rows that cannot be used. Default: refuse the file.")
    ] = False
    input_format: Annotated[
        Format | None, Parameter(help="What the file is. Default: what it begins with, then its name, says so.")
    ] = None
    sheet: Annotated[str, Parameter(show_default=False, help="Sheet of an Excel file.")] = ""
    encoding: Annotated[str, Parameter(show_default=False, help="Encoding of a file of text.")] = ""
    delimiter: Annotated[str, Parameter(show_default=False, help="Character between the cells of a line.")] = ""
    no_header: Annotated[
        bool, Parameter(name="--no-header", show_default=False, help="The first row is no header: columns are 1, 2, 3.")
    ] = False
    skip_lines: Annotated[NonNegativeInt, Parameter(show_default=False, help="Lines before the header.")] = 0
    each_line: Annotated[
        bool, Parameter(show_default=False, help="Ask each line of a Markdown file. Default: all of it at once.")
    ] = False

    def read(self) -> ReadOptions:
        """How to read the file."""
        return ReadOptions(
            self.input_format,
            self.sheet,
            self.encoding,
            {"tab": "\t", "\\t": "\t", STANDARD: "-"}.get(self.delimiter, self.delimiter),
            not self.no_header,
            self.skip_lines,
            self.each_line,
            AskOptions(self.question, self.template, None if self.tag == STANDARD else self.tag).columns,
        )

    def asked(self, model: str | None = None) -> AskOptions:
        """How its rows become questions.

        Args:
            model: for rows that name none.

        Raises:
            UsageError: `--set` is not FIELD=VALUE.
        """
        fields, keep = _listed(self.fields), _listed(self.keep)
        given = {} if model is None else {"model": model}
        for pair in self.set:
            name, sign, value = pair.partition("=")
            if not sign or not name:
                raise UsageError(f"--set {pair}: give FIELD=VALUE")
            given[name] = _value_of(value)
        return AskOptions(
            self.question,
            self.template,
            "-" if self.tag == STANDARD else self.tag,
            "all" if fields == ("all",) else "none" if fields == ("none",) else fields or None,
            given,
            "none" if keep == ("none",) else keep or None,
        )

    @property
    def needs_columns(self) -> bool:
        """Whether anything is said about columns, or about the reading, for which all of the source has to be seen."""
        asked = self.asked()
        return (self.read(), asked, self.skip_bad) != (
            ReadOptions(self.input_format if self.input_format in (None, "text", "jsonl") else None),
            AskOptions(set=asked.set, fields=asked.fields if isinstance(asked.fields, str) else None),
            False,
        )


def _listed(values: Sequence[str]) -> tuple[str, ...]:
    """Names with commas between them; one that has a comma itself is put into double quotes."""
    return tuple(name.strip() for row in csv.reader(values, skipinitialspace=True) for name in row)


def _value_of(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


@Parameter(name="*", group=Group("Journal"))
@dataclass(frozen=True, kw_only=True)
class JournalOptions:
    """What a run records, so that the same command resumes it."""

    journal: Annotated[
        str | None,
        PLACE,
        Parameter(
            help="File, or postgresql:// URL, that records submissions and results, so that the same command resumes"
            " the run. Default: QUESTIONS.journal.db; for stdin, beside the output file; none with --emulate."
        ),
    ] = None
    run: Annotated[
        str | None,
        Parameter(
            help="Name of the run, by which questions without a tag are found again in a journal on PostgreSQL."
            " Default: the name of QUESTIONS."
        ),
    ] = None
    no_journal: Annotated[
        bool, Parameter(show_default=False, help="Record nothing: an interrupted run is paid for again.")
    ] = False
    results: Annotated[
        Results | None,
        Parameter(
            help="Results in the journal: `keep` (default), keep `until-delivered`, or `refetch` from the service."
        ),
    ] = None
    on_doubt: Annotated[
        OnDoubt | None,
        Parameter(
            help="A submission that got no answer: `resend` it under the same key, or `hold` it for `aiopplx review`."
            " Default: resend where the API honours keys (Sonar), else hold."
        ),
    ] = None
    retry_failed: Annotated[
        bool, Parameter(show_default=False, help="Submit questions that failed in an earlier run again, and pay again.")
    ] = False
    replace: Annotated[
        bool,
        Parameter(
            show_default=False,
            help="Ask anew, and pay again, where a tag stood for another question in an earlier run that has ended.",
        ),
    ] = False
    same_account: Annotated[
        bool, Parameter(show_default=False, help="The API key is a new one of the journal's account.")
    ] = False
    without_log: Annotated[
        bool,
        Parameter(
            show_default=False, help="Go on though the journal's -wal is lost; what was only in it may be paid again."
        ),
    ] = False
    wait: Annotated[
        NonNegativeFloat,
        Parameter(
            show_default=False,
            help="Seconds to wait for another process that has the file open, or a database that is away. Default: 0.",
        ),
    ] = 0.0


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Which rows of a journal are written, and where to."""

    output: Outputs = ()
    output_format: Form = None
    all: Annotated[
        bool,
        Parameter(
            show_default=False,
            help="Everything that was ever asked, also by earlier runs, and also what has no outcome yet. Default: what"
            " the last run asked and has ended.",
        ),
    ] = False
    tenant: Annotated[
        str | None, Parameter(help="Only what was asked for this tenant, of a journal that serves several.")
    ] = None
    force: Annotated[
        bool, Parameter(show_default=False, help="Overwrite an output file even if it holds something else.")
    ] = False


_DECISION = Group("Decision")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReviewOptions:
    """The decision about a submission in doubt."""

    resubmit: Annotated[
        str | None,
        Parameter(
            group=_DECISION, help="KEY: submit it again under a new key; it may be billed twice (needs --pay-again)."
        ),
    ] = None
    pay_again: Annotated[
        bool,
        Parameter(group=_DECISION, show_default=False, help="Agree that the resubmitted question may be billed twice."),
    ] = False
    adopt: Annotated[tuple[str, str] | None, Parameter(group=_DECISION, help="KEY ID: it created this job.")] = None
    drop: Annotated[str | None, Parameter(group=_DECISION, help="KEY: give it up; it is not submitted again.")] = None
    json: Annotated[bool, Parameter(show_default=False, help="Print JSON, one object a line.")] = False

    @property
    def key(self) -> str | None:
        """The key of the submission to decide about; None to list them."""
        return self.resubmit or (self.adopt[0] if self.adopt else None) or self.drop

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: two decisions at once, or a resubmission without --pay-again.
        """
        if sum(given is not None for given in (self.resubmit, self.adopt, self.drop)) > 1:
            raise UsageError("decide one thing at a time: --resubmit, --adopt or --drop")
        if self.resubmit is not None and not self.pay_again:
            raise UsageError(
                "the job may already exist, so submitting it again may be billed twice: agree with --pay-again"
            )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EmulatorOptions:
    """Settings of the emulator."""

    port: Annotated[
        int, Parameter(help="Port on 127.0.0.1; 0 picks a free one.", validator=Number(gte=0, lt=65536))
    ] = 0
    seed: Annotated[NonNegativeInt, Parameter(help="The same seed gives the same answers and durations.")] = 0
    time_scale: Annotated[PositiveFloat, Parameter(help="Emulated seconds per real second.")] = 1.0
    tier: Annotated[
        int | None,
        Parameter(help="Enforce the rate limits of this usage tier, 0 to 5.", validator=Number(gte=0, lte=5)),
    ] = None
    rpm: Annotated[PositiveInt | None, Parameter(help="Enforce this limit of submissions per minute.")] = None
    failure_rate: Annotated[
        float, Parameter(help="Share of jobs that fail, 0 to 1.", validator=Number(gte=0, lte=1))
    ] = 0.0
    idempotency: Annotated[
        Literal["replay", "ignore", "reject"], Parameter(help="What a repeated idempotency key does.")
    ] = "replay"
    key: Annotated[
        tuple[str, ...],
        Parameter(
            show_default=False,
            help="An API key to accept; may be repeated. Default: any that does not look like a real one.",
        ),
    ] = ()
    unknown_field: Annotated[
        tuple[str, ...],
        Parameter(
            show_default=False,
            help="A field of Agent API requests to refuse as unknown, as an earlier release of the service would; may"
            " be repeated.",
        ),
    ] = ()
    file: Annotated[
        tuple[Path, ...],
        Parameter(
            show_default=False,
            help="A file that Agent API runs with the tool `sandbox` share; may be repeated. Default: a small table.",
        ),
    ] = ()
