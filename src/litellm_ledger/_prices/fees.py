"""Fees beside the tokens: searches, containers, grounding, citations, requests.

Owns the terms of paid tools.
"""

from __future__ import annotations

from .bill import Bill

__all__ = ["charge_fees"]


def charge_fees(bill: Bill) -> None:
    """Add the terms of the paid tools that were used."""
