"""Which API keys are accepted, and which account each one belongs to.

This module knows nothing of HTTP beyond the value of one header.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

WRONG = "Invalid API key provided. Ensure your API key is correct and active."
REAL = (
    "This is the aiopplx emulator, and the key begins with 'pplx-', as real Perplexity keys do. Do not use a real"
    " key here: use any other word, or name the key in Emulator(keys=...)."
)


class Keys:
    """The keys of an emulator.

    With None every word is accepted and belongs to one account, except words that look like a real key. A collection
    makes each key an account of its own; a mapping gives the account of each key, so that two keys can share one.
    """

    def __init__(self, keys: Collection[str] | Mapping[str, str] | None) -> None:
        self._accounts: dict[str, str] | None = None
        if isinstance(keys, str):
            raise TypeError("keys is a collection of keys, not one key: write keys={...}")
        if keys is not None:
            self._accounts = {key: key for key in keys}
            if isinstance(keys, Mapping):
                self._accounts.update(cast("Mapping[str, str]", keys))
        self._revoked: set[str] = set()

    def revoke(self, key: str) -> None:
        self._revoked.add(key)

    def restore(self) -> None:
        self._revoked.clear()

    def account(self, authorization: str) -> tuple[str, str]:
        """(account, reason for refusal): one of the two is empty."""
        scheme, _, key = authorization.partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key or key in self._revoked:
            return "", WRONG
        if self._accounts is not None:
            return self._accounts.get(key, ""), WRONG
        return ("", REAL) if key.startswith("pplx-") else ("default", "")
