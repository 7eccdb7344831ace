"""Symbols to variants: explicit pins first, else a salted stable hash against the candidate's share."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from serve_app.types import VariantName

FIRST_EPOCH = 1
"""The epoch of what the YAML configures."""


@lru_cache(maxsize=4096)
def position_of(symbol: str, salt: str) -> float:
    """Return where a symbol lies in [0, 1): the same in every process, spread evenly, drawn anew by another salt."""
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    digest = hashlib.blake2b(f"{len(salt)}:{salt}{symbol}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


@dataclass(frozen=True, slots=True)
class Assignment:
    """The candidate answers the symbols that lie below its share: growing the share only ever adds symbols to it."""

    candidate_share: float = 0.0
    salt: str = ""
    pins: Mapping[str, VariantName] = field(default_factory=dict)

    def variant(self, symbol: str) -> VariantName:
        """Return the variant that answers `symbol`."""
        if symbol in self.pins:
            return self.pins[symbol]
        below = position_of(symbol, self.salt) < self.candidate_share
        return VariantName.CANDIDATE if below else VariantName.PRODUCTION
