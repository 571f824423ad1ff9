"""Tokens: the terms of input and output.

Owns which member of an entry prices which tokens.
"""

from __future__ import annotations

from .bill import Bill

__all__ = ["charge_tokens"]


def charge_tokens(bill: Bill) -> None:
    """Add the terms of all tokens to a bill."""
    used = bill.used
    bill.charge("input_cost_per_token", used.get("input_tokens", 0))
    bill.charge("output_cost_per_token", used.get("output_tokens", 0))
