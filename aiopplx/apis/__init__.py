"""Which job APIs there are: what `Session(api=...)` may say, and what a program may ask about each.

`known_apis` is for programs about any API, such as one that checks which of them answer for a key; a session needs
nothing of it. This module decides nothing: the registry and the APIs do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, cast

import msgspec

__all__ = ["ApiName", "KnownApi", "known_apis"]

# Written out, since type checkers and parsers read it. A test holds it equal to the registry.
ApiName: TypeAlias = Literal["auto", "sonar", "sonar-v1", "agent", "agent-v1"]
"""What `Session(api=...)` may say."""


class KnownApi(msgspec.Struct, frozen=True, kw_only=True):
    """One job API.

    Attributes:
        name: the name that a job and a journal keep.
        names: what `Session(api=...)` may say for it: `name`, and the names of further paths to the same jobs.
        is_in_auto: `api="auto"` uses it, in the order of `known_apis`.
        has_idempotency: a submission sent twice under one key makes one job.
        has_list: the server lists the account's jobs.
        unknown_id: an id that no job has. An API that answers that it does not exist has accepted the key; the poll is
            free.
        cheapest: the fields of the cheapest request, for a test that is paid for; about a cent.
    """

    name: str
    names: tuple[ApiName, ...]
    is_in_auto: bool
    has_idempotency: bool
    has_list: bool
    unknown_id: str
    cheapest: Mapping[str, object]


def known_apis() -> tuple[KnownApi, ...]:
    """All job APIs; those of `api="auto"` come in the order in which it uses them."""
    from aiopplx.apis._registry import APIS, registered  # with all requests and answers, of which a name needs nothing

    return tuple(
        KnownApi(
            name=api.name,
            names=cast("tuple[ApiName, ...]", names),
            is_in_auto=api in APIS["auto"],
            has_idempotency=api.has_idempotency,
            has_list=api.has_list,
            unknown_id=api.unknown_id,
            cheapest=api.cheapest,
        )
        for names, api in registered()
    )
