"""What a ledger holds, in Prometheus' text format: for scraping without OpenTelemetry.

Owns the names and the text (https://prometheus.io/docs/instrumenting/exposition_formats/).  The
sums are the ledger's, of all processes and all time, so that no restart sets them back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from litellm_ledger._reading.listing import live_writers
from litellm_ledger._shipping.behind import behind

from .conventions import operation, provider

if TYPE_CHECKING:
    from litellm_ledger._aggregates.groups import Row
    from litellm_ledger._reading.elsewhere import Place
    from litellm_ledger._reports.ledger import Ledger
    from litellm_ledger._reports.report import Report

__all__ = ["exposition"]

_KEYS: Final = ("call", "provider", "model", "status")
_TOKENS: Final = (
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("cache_read", "cache_read_tokens"),
    ("cache_write", "cache_write_tokens"),
    ("reasoning", "reasoning_tokens"),
)

Sample = tuple[dict[str, str], int | Decimal]
_Family = tuple[str, str, str, list[Sample]]


def exposition(ledger: Ledger) -> str:
    """Return the metrics of a ledger as text.

    Raises:
        LedgerPathError, UnsupportedFormat: as for ``Ledger.report``.
    """
    found = ledger.report(_KEYS)
    rows = [(_labels(row), row) for row in found.rows]
    cut_off = found.total.unsettled + found.cut_off
    families: tuple[_Family, ...] = (
        (
            "calls_total",
            "counter",
            "Outcomes, one for each request to a provider.",
            _each(rows, "calls"),
        ),
        ("cost_total", "counter", "US dollars, where the cost is known.", _each(rows, "cost")),
        (
            "saved_cost_total",
            "counter",
            "US dollars not spent: answered by a response cache.",
            _each(rows, "saved_cost"),
        ),
        (
            "unknown_cost_calls_total",
            "counter",
            "Calls whose cost is unknown.",
            [(labels, row.unpriced + row.unknown_cost) for labels, row in rows],
        ),
        (
            "tokens_total",
            "counter",
            "Tokens; cache_read and cache_write are parts of input, reasoning of output.",
            [
                ({**labels, "gen_ai_token_type": kind}, getattr(row, field))
                for labels, row in rows
                for kind, field in _TOKENS
            ],
        ),
        ("unsettled", "gauge", "Calls that were cut off; cost unknown.", [({}, cut_off)]),
        ("in_flight", "gauge", "Calls of running processes.", [({}, found.in_flight)]),
        ("damaged", "gauge", "Places without a valid record.", [({}, len(found.problems))]),
        *_of_place(ledger.places[0], found),
    )
    return "".join(
        line
        for name, kind, text, samples in families
        for line in _text_of(f"litellm_ledger_{name}", kind, text, samples)
    )


def _of_place(place: Place, found: Report) -> tuple[_Family, ...]:
    """Return what can be told where the ledger is: of a directory, or of a database."""
    if not isinstance(place, Path):
        missing = found.unshipped.records if found.unshipped is not None else 0
        return (("unshipped", "gauge", "Records accepted and not yet shipped.", [({}, missing)]),)
    queued, unsynced, alive = _writers(place)
    disk = os.statvfs(place)
    waiting: list[Sample] = [({"to": one.mark.to}, missing) for one, missing in behind(place)]
    return (
        ("writers", "gauge", "Writers that are alive.", [({}, alive)]),
        ("queue_depth", "gauge", "Records accepted and not yet written.", [({}, queued)]),
        ("unsynced", "gauge", "Records written and not yet synced.", [({}, unsynced)]),
        (
            "disk_free_bytes",
            "gauge",
            "Space left where the ledger is.",
            [({}, disk.f_bavail * disk.f_frsize)],
        ),
        ("unshipped", "gauge", "Records synced and not yet shipped.", waiting),
    )


def _labels(row: Row) -> dict[str, str]:
    group = row.group
    return {
        "gen_ai_operation_name": operation(group["call"]),
        "gen_ai_provider_name": provider(group["provider"]),
        "gen_ai_request_model": group["model"],
        "litellm_ledger_status": group["status"],
    }


def _each(rows: Iterable[tuple[dict[str, str], Row]], field: str) -> list[Sample]:
    return [(labels, getattr(row, field)) for labels, row in rows]


def _text_of(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    # Two names of LiteLLM's may be one of the conventions': a series must stand here once.
    summed: dict[tuple[tuple[str, str], ...], int | Decimal] = {}
    for labels, value in samples:
        key = tuple(labels.items())
        summed[key] = summed.get(key, 0) + value
    for key, value in summed.items():
        said = ",".join(f'{label}="{_escaped(text)}"' for label, text in key)
        figure = f"{value:f}" if isinstance(value, Decimal) else str(value)
        yield f"{name}{{{said}}} {figure}\n" if said else f"{name} {figure}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _writers(root: Path) -> tuple[int, int, int]:
    """Return the records queued and unsynced of living writers, and how many writers these are."""
    queued = unsynced = alive = 0
    for _, locked, counters in live_writers(root):
        if locked and counters.valid and not counters.recoverer:
            alive += 1
            queued += max(0, counters.accepted - counters.written)
            unsynced += max(0, counters.written - counters.synced)
    return queued, unsynced, alive
