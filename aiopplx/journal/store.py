"""For those who write a store: the rules that all stores share, so that none decides them for itself.

A store is a class that fulfils `aiopplx.journal.Journal`, whose values (`Record`, `Claim`, `Step`, `State`, ...) and
errors are in `aiopplx.journal`; the steps and their table are `aiopplx.journal.steps`. Here is the rest: whether a step
may be taken and what it changes, how money is added up, the errors for what is in use already, and the names of
submissions. `MemoryJournal` is a whole store made of these.

- `may_take`, first of all in `apply`: it says whether the step is still to be taken, or was taken before, and raises
  `ClaimLost` or `ImpossibleStep`.
- `changes` for the columns afterwards, or `assignments` for the same in SQL; `keeps` for whether the body is stored.
- `duplicate`, `key_taken`, `name_taken` make the errors for an id, a key and a name that another row has.
- `age_of` for `Record.age`, `added_up` for `Journal.costs` and `ledger_of` for `Journal.ledger`, of `Bills`;
  `kind_label` for the kind of job that stored bytes ask for.
- `REPLACEABLE`, `REPLACEABLE_IF_ASKED`, `REUSABLE`, `RUNNING`, `BILLED`, `DELIVERABLE`, `OVER`: the states that
  matter to queueing, to money, to delivery and to removal.
- `NOTE`: the beginning of the names under which `remember` is given what a program notes.
- `item_name`, `job_name`, `sha_of`: the name and digest of a submission; `short_name` for an index that has no room for
  long names, `tenant_of` says whose a name is, and `fingerprint` tells accounts apart.

This module does nothing itself, and knows nothing of how rows are stored.
"""

from __future__ import annotations

from aiopplx.journal._errors import duplicate, key_taken, name_taken
from aiopplx.journal._kinds import kind_label
from aiopplx.journal._names import NOTE, fingerprint, item_name, job_name, sha_of, short_name, tenant_of
from aiopplx.journal._records import (
    BILLED,
    DELIVERABLE,
    OVER,
    REPLACEABLE,
    REPLACEABLE_IF_ASKED,
    REUSABLE,
    RUNNING,
    Bills,
    added_up,
    age_of,
    ledger_of,
)
from aiopplx.journal._taking import assignments, changes, keeps, may_take

__all__ = [
    "BILLED",
    "DELIVERABLE",
    "NOTE",
    "OVER",
    "REPLACEABLE",
    "REPLACEABLE_IF_ASKED",
    "REUSABLE",
    "RUNNING",
    "Bills",
    "added_up",
    "age_of",
    "assignments",
    "changes",
    "duplicate",
    "fingerprint",
    "item_name",
    "job_name",
    "keeps",
    "key_taken",
    "kind_label",
    "ledger_of",
    "may_take",
    "name_taken",
    "sha_of",
    "short_name",
    "tenant_of",
]
