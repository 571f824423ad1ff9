"""A record in PostgreSQL: its bytes, and what it takes to make a row of its line.

``python -m benchmarks rows`` runs this section alone;
``python -m benchmarks.rows --lines 1000000`` makes a larger table.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

from tests.postgres_server import Server
from tests.realistic import lines, writer_name

from litellm_ledger._postgres import database, schema
from litellm_ledger._records.line import line_of
from litellm_ledger._shipping.rows import COLUMNS, Rows

from ._rounds import race
from ._size import Size
from ._table import Table, quantity

__all__ = ["run"]

_MONTHS: Final = frozenset({202609, 202610})
_BATCH: Final = 5_000
_WRITERS: Final = 4
_PARTS: Final = {
    "the table": "c.relkind = 'r'",
    "primary key (writer, number)": "c.relname LIKE '%_pkey'",
    "index of tags (GIN)": "c.relname LIKE '%_tags'",
    "index of time (BRIN)": "c.relname LIKE '%_brin'",
    "index of marked lines": "c.relname LIKE '%_lines'",
}
_BYTES: Final = """
SELECT coalesce(sum(pg_relation_size(c.oid)), 0)::bigint FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'litellm_ledger' AND c.relname ~ '^calls_2026(09|10)' AND {}
"""
_TUPLES: Final = f"SELECT {', '.join(COLUMNS)} FROM litellm_ledger.calls WHERE writer_id = 9"


def run(size: Size) -> list[Table]:
    """Return the tables of this section."""
    return asyncio.run(_tables(size(200_000, 2_000), size(15, 2)))


async def _tables(count: int, rounds: int) -> list[Table]:
    server = Server()
    try:
        connection = await database.connect(server.socket_url())
        await schema.init(connection)
        made = "SELECT litellm_ledger.make_partition(month) FROM unnest($1::int[]) AS month"
        there = {row[0] for row in await connection.fetch("SELECT litellm_ledger.partitions()")}
        await connection.fetch(made, sorted(_MONTHS - there))
        sizes = await _sizes(connection, count)
        speeds = await _speeds(connection, min(count, _BATCH), rounds)
        await database.close(connection)
    finally:
        server.close()
    return [sizes, speeds]


async def _sizes(connection: Any, count: int) -> Table:
    written = 0
    for number in range(1, _WRITERS + 1):
        writer = writer_name(number)
        part: list[bytes] = []
        first = 1
        for raw in lines(writer, count // _WRITERS):
            part.append(raw)
            written += len(raw)
            if len(part) == _BATCH:
                await _copied(connection, _rows(writer, number, first, part))
                first, part = first + len(part), []
        await _copied(connection, _rows(writer, number, first, part))
    await connection.execute("VACUUM litellm_ledger.calls")  # the index of tags is brought up
    table = Table(
        "Bytes of a record in PostgreSQL",
        ["", "bytes", "of its line"],
        f"{count:,} outcomes of {_WRITERS} writers and 2,000 users over 30 days, with every member "
        "that a client writes: tags, `call_id`, `response_id`, `meta`, durations.",
    )
    line = written / count
    found = {}
    for name, which in _PARTS.items():
        found[name] = await connection.fetchval(_BYTES.format(which)) / count
    table.add("the line in its segment", quantity(line), "1")
    for name, taken in {**found, "all": sum(found.values())}.items():
        table.add(name, quantity(taken), quantity(taken / line))
    return table


def _rows(writer: str, writer_id: int, first: int, part: Sequence[bytes]) -> Rows:
    rows = Rows(writer, writer_id, _MONTHS)
    rows.extend(range(first, first + len(part)), part)
    return rows


async def _copied(connection: Any, rows: Rows) -> None:
    await database.copy(connection, "calls", rows.columns, rows.chunks())


async def _speeds(connection: Any, count: int, rounds: int) -> Table:
    writer = writer_name(9)
    many = list(lines(writer, count, days=1))
    whole = _rows(writer, 9, 1, many)
    await _copied(connection, whole)
    tuples = [tuple(row) for row in await connection.fetch(_TUPLES)]
    await connection.execute("CREATE TEMPORARY TABLE plain (LIKE litellm_ledger.calls)")

    async def emptied() -> None:
        await connection.execute("TRUNCATE plain")

    async def pieces(found: Iterable[bytes]) -> AsyncIterator[bytes]:
        for piece in found:
            yield piece

    async def ours() -> None:
        rows = _rows(writer, 9, 1, many)
        await connection.copy_to_table(
            "plain", columns=rows.columns, source=pieces(rows.chunks()), format="binary"
        )
        await emptied()

    async def bare() -> None:
        await connection.copy_records_to_table("plain", columns=COLUMNS, records=tuples)
        await emptied()

    async def made() -> None:
        _rows(writer, 9, 1, many)

    async def read() -> None:
        for raw in many:
            line_of(raw)

    contenders = {
        "line to row": (made, count),
        "line to row, and COPY": (ours, count),
        "COPY of tuples that are there, by asyncpg": (bare, count),
        "reading the line (JSON to fields)": (read, count),
    }
    found = await race(contenders, rounds=rounds)
    table = Table(
        "A row of a line",
        ["", "µs of this process", "of asyncpg's COPY"],
        f"Processor time of the client for each record, in batches of {count:,}. asyncpg's COPY "
        "begins with Python values of all columns; ours begins with the bytes of the ledger.",
    )
    peer = found["COPY of tuples that are there, by asyncpg"]
    for name, timed in found.items():
        taken, ratio = statistics.median(timed.cpu), statistics.median(timed.cpu_over(peer))
        table.add(name, quantity(taken * 1e6), quantity(ratio))
    return table


def main() -> None:
    """Print the tables for a ledger of any size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    for table in asyncio.run(_tables(parser.parse_args().lines, 15)):
        print(table.text())


if __name__ == "__main__":
    main()
