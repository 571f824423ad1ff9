"""Exporting records: JSON lines, CSV, Parquet, in a file or on standard output.

Owns the writing of such a file: whole or not at all.  Reads through ``Ledger``; one record in
memory at a time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from litellm_ledger._aggregates.question import Question
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._archive.columns import quoted
from litellm_ledger._reading.elsewhere import Wanted, at_hand
from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.escaping import json_text
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._reports.csv_lines import csv_rows, put_csv
from litellm_ledger._reports.engine import is_large
from litellm_ledger._reports.ledger import Ledger
from litellm_ledger._reports.plain import record_dict

from .files import part_of, target
from .flags import place
from .progress import progress, working

if TYPE_CHECKING:
    from litellm_ledger._reports.relation import Relation

__all__ = ["export_records"]


def export_records(
    ledger: Ledger,
    question: Question,
    kinds: Sequence[str],
    form: str,
    out: Path | None,
    *,
    raw: bool = False,
) -> list[Problem]:
    """Write the records that are asked for; return the places that hold none.

    Args:
        form: ``csv``, ``jsonl`` or ``parquet``.
        raw: in CSV, leave text that is a formula to a spreadsheet as it is.

    Raises:
        LedgerPathError, UnsupportedFormat: the ledger cannot be read.
        OSError: the file cannot be written; nothing is left of it.
        MissingExtra: Parquet without DuckDB.
    """
    what = f"exporting {place(ledger)}"
    wanted = Wanted(frozenset(kinds), Selection(**question.selection()))
    with at_hand(ledger.places, wanted) as there:
        here = Ledger(there.roots) if there.fetched else ledger
        return there.problems + _export(here, question, kinds, form, out, what, raw=raw)


def _export(
    ledger: Ledger,
    question: Question,
    kinds: Sequence[str],
    form: str,
    out: Path | None,
    what: str,
    *,
    raw: bool,
) -> list[Problem]:
    """Write records that are in directories of this machine."""
    if form == "parquet":
        return _parquet(ledger, question, kinds, out, what)
    if form == "csv" and set(kinds) == {"usage"} and is_large(ledger.paths) and not _seen(out):
        return _csv(ledger, question, out, what, raw=raw)
    found = ledger.records(kinds=kinds, **question.selection())
    numbers = sum((name.last or name.first) - name.first + 1 for name in ledger.segments())
    with progress(what, numbers) as advance:
        records = _counted(found, advance)
        with target(out) as to:
            records = _kept_private(records, to)
            if form == "csv":
                put_csv(records, to, raw=raw)
            else:
                for record in records:
                    to.write(json_text(record_dict(record)) + "\n")
    return found.problems


def _seen(out: Path | None) -> bool:
    """Whether the output goes to a terminal: then it is escaped, row by row."""
    return (out is None or str(out) == "-") and sys.stdout.isatty()


def _csv(
    ledger: Ledger, question: Question, out: Path | None, what: str, *, raw: bool
) -> list[Problem]:
    """Have the database write the rows: what ``put_csv`` writes, several times sooner."""
    from litellm_ledger._reports.relation import ask

    def write(relation: Relation) -> list[Problem]:
        rows = csv_rows(relation, Selection(**question.selection()), raw=raw)
        first = next(rows, "")  # a file that is gone is found before anything is written
        with target(out) as to:
            put_csv((), to, raw=raw)
            to.write(first)
            to.writelines(rows)
        return relation.problems

    with working(what):
        return ask(ledger.paths, write)


def _parquet(
    ledger: Ledger, question: Question, kinds: Sequence[str], out: Path | None, what: str
) -> list[Problem]:
    """Have the database write the file: its views, so its columns; in no order."""
    from litellm_ledger._reports.in_duckdb import condition
    from litellm_ledger._reports.relation import ask

    if out is None or str(out) == "-":
        raise ValueError("Parquet cannot be written to standard output; name a file: -o FILE")
    where, values = condition(Selection(**question.selection()))

    def write(relation: Relation) -> list[Problem]:
        with part_of(out) as part:
            prompts = f"SELECT 1 FROM records WHERE content IS NOT NULL AND {where} LIMIT 1"
            if relation.database.execute(prompts, values).fetchone():
                part.unlink(missing_ok=True)
                part.touch(0o600, exist_ok=False)
            to = quoted(str(part.absolute()))
            relation.database.execute(
                f"COPY (SELECT * FROM records WHERE kind IN ({', '.join(map(quoted, kinds))}) "
                f"AND {where}) TO {to} (FORMAT parquet, COMPRESSION zstd, "
                "USE_TMP_FILE false)",
                values,
            )
        return relation.problems

    with working(what):
        return ask(ledger.paths, write)


def _counted(found: Iterator[UsageRecord], advance: Callable[[int], None]) -> Iterator[UsageRecord]:
    """Tell how far it is, by the numbers of the records: those in between were read as well."""
    at: dict[str, int] = {}
    waiting = 0
    for record in found:
        writer, number = (record.id or "")[:33], record.seq or 0
        waiting += number - at.get(writer, 0)
        at[writer] = number
        if waiting > 1_000:
            advance(waiting)
            waiting = 0
        yield record


def _kept_private(records: Iterator[UsageRecord], to: TextIO) -> Iterator[UsageRecord]:
    """Give a file to nobody but its owner before the first prompt goes into it."""
    private = to is sys.stdout or not hasattr(os, "fchmod")
    for record in records:
        if record.content is not None and not private:
            os.fchmod(to.fileno(), 0o600)
            private = True
        yield record
