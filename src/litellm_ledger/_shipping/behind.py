"""How far the places are behind that a ledger is shipped to, without asking them.

Owns the count: what is certain on the ledger, less what was noted as shipped beside it.
"""

from __future__ import annotations

from pathlib import Path

from litellm_ledger._storage.shipping_marks import Mark, Place, places

__all__ = ["behind"]


def behind(root: Path) -> list[tuple[Place, int]]:
    """Return each place that the ledger is shipped to, and how many records it has not yet.

    Raises:
        LedgerPathError, UnsupportedFormat: the ledger cannot be read.
    """
    known = places(root)
    if not known:
        return []
    from .standing import Lookout

    lookout = Lookout(root)
    lookout.look()
    standings = lookout.standings.items()
    return [
        (
            one,
            sum(
                max(0, standing.top - one.writers.get(writer, Mark()).shipped)
                for writer, standing in standings
            ),
        )
        for one in known
    ]
