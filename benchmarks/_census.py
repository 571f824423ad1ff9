"""Counts what is on a ledger, without the library: a second reader that shares nothing with it.

Reads the lines of segments as bytes, and archive files with DuckDB.  The same record under the same
id in two places is one record (a segment whose sync failed was written anew); under two ids it is
doubled.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

__all__ = ["Census", "take"]


@dataclass
class Census:
    """By prefix of ``call_id``: a mark of the id for each number that was found, 0 for none."""

    found: dict[str, array[int]] = field(default_factory=dict)
    doubled: int = 0
    copies: int = 0

    def note(self, record: bytes, call: bytes) -> None:
        """Note one record by its ``id`` and ``call_id``."""
        prefix, _, number = call.decode().rpartition("-")
        seen = self.found.get(prefix)
        if seen is None:
            seen = self.found[prefix] = array("I")
        n = int(number)
        if n >= len(seen):
            seen.extend(bytes(4 * (n + 1 + len(seen) // 2 - len(seen))))
        mark = crc32(record) | 1
        if not seen[n]:
            seen[n] = mark
        elif seen[n] == mark:
            self.copies += 1
        else:
            self.doubled += 1

    def missing(self, prefix: str, count: int) -> int:
        """Return how many of the numbers below ``count`` were not found."""
        seen = self.found.get(prefix, array("I"))
        return max(0, count - len(seen)) + seen[:count].count(0)

    def total(self) -> int:
        """Return how many different records were found."""
        return sum(len(seen) - seen.count(0) for seen in self.found.values())


def take(directory: Path) -> Census:
    """Read everything."""
    census = Census()
    for path in sorted((directory / "segments").glob("*.jsonl*")):
        with path.open("rb") as file:
            for line in file:
                start = line.rfind(b'"call_id":"') + 11
                if start > 10:  # not the gap that a death left
                    begin = line.index(b'"id":"') + 6
                    census.note(
                        line[begin : line.index(b'"', begin)], line[start : line.index(b'"', start)]
                    )
    archived = sorted((directory / "archive").glob("*.parquet"))
    if archived:
        import duckdb

        for path in archived:
            rows = duckdb.execute(
                "SELECT id, call_id FROM read_parquet(?) WHERE call_id IS NOT NULL", [str(path)]
            )
            while batch := rows.fetchmany(100_000):
                for record, call in batch:
                    census.note(record.encode(), call.encode())
    return census
