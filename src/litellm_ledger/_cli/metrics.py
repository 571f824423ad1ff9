"""``metrics``: the ledger in Prometheus' text format.

Owns its words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .flags import Output
from .tables import put_text

if TYPE_CHECKING:
    from litellm_ledger._reports.ledger import Ledger

__all__ = ["metrics"]


def metrics(output: Output, ledger: Ledger) -> int:  # noqa: ARG001 - every command takes it
    """Print sums and health of the ledger as Prometheus metrics, for node_exporter and others."""
    from litellm_ledger._telemetry.exposition import exposition

    put_text(exposition(ledger))
    return 0
