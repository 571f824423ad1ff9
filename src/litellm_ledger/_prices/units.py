"""Units that are billed in place of tokens: images, seconds, characters, pages, searches, video.

Owns the rule that tells which calls those are, and their terms.
"""

from __future__ import annotations

from .bill import Bill

__all__ = ["charge_units"]


def charge_units(bill: Bill) -> bool:
    """Add the terms of such units; tell whether they stand for the tokens of the call as well."""
    return bill.entry.members.get("mode") == "rerank"
