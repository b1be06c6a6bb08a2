"""The options of the command line as values, with their help.

This module knows nothing of what an option brings about.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from cyclopts.validators import Number

from aiopplx.cli._exits import UsageError

Format = Literal["auto", "text", "jsonl"]
Api = Literal["auto", "sonar", "sonar-v1", "agent", "agent-v1"]
OnDoubt = Literal["resend", "hold"]
Results = Literal["keep", "until-delivered", "refetch"]
ExportFormat = Literal["jsonl", "csv", "markdown", "files"]
CostsBy = Literal["tag", "api", "state"]

STANDARD = "\0-"
"""How a bare `-` reaches the commands, since the parser takes it for an option. No file can be called this."""

KEY_LIMIT = 4096
"""Bytes of a key file that are read."""

_SERVICE = Group("Service")


@Parameter(name="*", group=_SERVICE)
@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where to ask, and as whom."""

    emulate: Annotated[
        bool,
        Parameter(
            show_default=False, help="Ask the built-in emulator: no key, no network, no cost. The answers are invented."
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
        Api | None,
        Parameter(help="Which API to speak. Default: AIOPPLX_API, then `auto`: Sonar, and Agent once that is retired."),
    ] = None
    poll: Annotated[
        PositiveFloat | None,
        Parameter(help="Seconds between two looks at a job. Default: none at first, then every few seconds."),
    ] = None

    def check(self) -> None:
        """Refuse what cannot go together, before anything is said or opened.

        Raises:
            UsageError: an emulator was asked for, and an address or a key as well; or the key file cannot be read.
        """
        if self.emulate and (self.base_url or self.api_key_file):
            raise UsageError("--emulate is an address and a key of its own; leave out --base-url and --api-key-file")
        self.key()

    def key(self) -> str | None:
        """The key from the file; None if the environment is to be asked.

        There is no option for the key itself: what is on a command line is seen by every user of the machine.

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


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a file of questions is run."""

    output: Annotated[
        str | None,
        Parameter(name=["--output", "-o"], show_default=False, help="File for the answers. Default: stdout."),
    ] = None
    force: Annotated[
        bool, Parameter(show_default=False, help="Write over an output file that has something else in it.")
    ] = False
    format: Annotated[
        Format,
        Parameter(help="How to read QUESTIONS. `auto` tells by the name (.jsonl, .ndjson) and the first character."),
    ] = "auto"
    limit: Annotated[PositiveInt | None, Parameter(help="Ask only the first so many questions.")] = None
    model: Annotated[str | None, Parameter(help="Model for questions that name none.")] = None
    rpm: Annotated[
        PositiveFloat | None,
        Parameter(help="Submissions a minute. Default: learnt from the service's answers."),
    ] = None
    max_in_flight: Annotated[PositiveInt, Parameter(help="Jobs at once.")] = 1000
    timeout: Annotated[
        PositiveFloat, Parameter(help="Seconds for each job; one that takes longer goes on at the service.")
    ] = 3600
    max_cost: Annotated[
        PositiveFloat | None,
        Parameter(help="Dollars that may be spent, over all runs of the journal. What is paid for is still collected."),
    ] = None
    cancel_on_exit: Annotated[
        bool, Parameter(show_default=False, help="Ctrl-C asks the service to cancel what runs (Agent API only).")
    ] = False
    in_order: Annotated[
        bool, Parameter(show_default=False, help="Write answers in the order of the questions, not as they finish.")
    ] = False
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], show_default=False, help="Only errors on stderr.")] = False


@Parameter(name="*", group=Group("Journal"))
@dataclass(frozen=True, kw_only=True)
class JournalOptions:
    """What is written down of a run, so that the same command goes on where it was."""

    journal: Annotated[
        Path | None,
        Parameter(
            help="File that remembers what was sent and keeps the results: the same command again goes on there."
            " Default: QUESTIONS.journal.db; of stdin, beside the output file; with --emulate none."
        ),
    ] = None
    no_journal: Annotated[
        bool, Parameter(show_default=False, help="Remember nothing: a run that is broken off is paid again.")
    ] = False
    results: Annotated[
        Results | None,
        Parameter(
            help="Results in the journal: `keep` (default), keep them `until-delivered`, `refetch` from the service."
        ),
    ] = None
    on_doubt: Annotated[
        OnDoubt | None,
        Parameter(
            help="A submission without an answer: `resend` under the same key, or `hold` for `aiopplx review`."
            " Default: resend where the API honours keys (Sonar), else hold."
        ),
    ] = None
    retry_failed: Annotated[
        bool, Parameter(show_default=False, help="Submit again, and pay again, what failed in an earlier run.")
    ] = False
    same_account: Annotated[
        bool, Parameter(show_default=False, help="The API key is a new one of the account the journal belongs to.")
    ] = False
    wait: Annotated[
        NonNegativeFloat,
        Parameter(
            show_default=False, help="Seconds to wait for another process that has the journal open. Default: 0."
        ),
    ] = 0.0


_DECISION = Group("Decision")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReviewOptions:
    """What to do about a submission in doubt."""

    resubmit: Annotated[
        str | None,
        Parameter(group=_DECISION, help="KEY: submit it again, under a new key; it may be paid twice (--pay-again)."),
    ] = None
    pay_again: Annotated[
        bool, Parameter(group=_DECISION, show_default=False, help="Yes: what is resubmitted may be paid twice.")
    ] = False
    adopt: Annotated[
        tuple[str, str] | None, Parameter(group=_DECISION, help="KEY ID: it is this job of the service.")
    ] = None
    drop: Annotated[str | None, Parameter(group=_DECISION, help="KEY: give it up; it is not asked again.")] = None
    json: Annotated[bool, Parameter(show_default=False, help="Print JSON, one object a line.")] = False

    @property
    def key(self) -> str | None:
        """The key of the submission that something is to be done about; None if nothing is."""
        return self.resubmit or (self.adopt[0] if self.adopt else None) or self.drop

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UsageError: two decisions at once, or a second bill that was not agreed to.
        """
        if sum(given is not None for given in (self.resubmit, self.adopt, self.drop)) > 1:
            raise UsageError("decide one thing at a time: --resubmit, --adopt or --drop")
        if self.resubmit is not None and not self.pay_again:
            raise UsageError(
                "the job may exist already, and submitting it again may be paid twice: say so with --pay-again"
            )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EmulatorOptions:
    """What the emulator plays."""

    port: Annotated[
        int, Parameter(help="Port on 127.0.0.1; 0 takes a free one.", validator=Number(gte=0, lt=65536))
    ] = 0
    seed: Annotated[NonNegativeInt, Parameter(help="The same seed gives the same answers and durations.")] = 0
    time_scale: Annotated[PositiveFloat, Parameter(help="Emulated seconds in a second.")] = 1.0
    tier: Annotated[
        int | None, Parameter(help="Keep the limits of this usage tier, 0 to 5.", validator=Number(gte=0, lte=5))
    ] = None
    rpm: Annotated[PositiveInt | None, Parameter(help="Keep this limit of submissions a minute.")] = None
    failure_rate: Annotated[
        float, Parameter(help="Share of jobs that fail, 0 to 1.", validator=Number(gte=0, lte=1))
    ] = 0.0
    idempotency: Annotated[
        Literal["replay", "ignore", "reject"], Parameter(help="What a key that was used before does.")
    ] = "replay"
    key: Annotated[
        tuple[str, ...],
        Parameter(
            show_default=False, help="An API key to accept; may be given often. Default: any that is not a real one."
        ),
    ] = ()
