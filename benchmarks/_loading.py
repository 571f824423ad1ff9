"""A database with millions of records: how long it takes to fill it, its size, and its reports.

Owns the section ``load`` of ``benchmarks.shipping``.  The ledger and the server's data stay in a
directory, so that what was interrupted goes on from there.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tests.postgres.shipped import ZONES
from tests.postgres_server import Server
from tests.shipped import ask

from litellm_ledger import Ledger
from litellm_ledger._aggregates.groups import Row
from litellm_ledger._postgres import database, schema
from litellm_ledger._shipping.road import Road
from litellm_ledger._shipping.rollup import bring_forward
from litellm_ledger._shipping.shipper import Shipper

from ._year import make_year

__all__ = ["load"]

_DAYS: Final = 365
_USERS: Final = 2_000
_BEGIN: Final = datetime(2025, 1, 1, tzinfo=UTC)
_SETTINGS: Final = {"autovacuum": "on", "shared_buffers": "512MB", "work_mem": "64MB"}
_SIZES: Final = """
SELECT coalesce(i.kind, 'the table'), sum(pg_relation_size(c.oid))::bigint
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'litellm_ledger'
LEFT JOIN LATERAL (
    SELECT CASE WHEN c.relname LIKE '%_pkey' THEN 'primary key'
        WHEN c.relname LIKE '%_tags' THEN 'index of tags (GIN)'
        WHEN c.relname LIKE '%_brin' THEN 'index of time (BRIN)'
        ELSE 'index of marked lines' END AS kind
    WHERE c.relkind = 'i'
) AS i ON true
WHERE c.relname ~ '^calls_' AND c.relkind IN ('r', 'i') GROUP BY 1 ORDER BY 2 DESC
"""
_GROUPED: Final = """
SELECT to_char(ts AT TIME ZONE '{zone}', 'YYYY-MM-DD') AS day, model, count(*),
    sum(cost_picousd), sum(input_tokens), sum(output_tokens)
FROM litellm_ledger.calls GROUP BY 1, 2
"""


def load(place: Path, records: int) -> bool:
    """Fill a database with a year of records, and print what that took and what reports take.

    Returns whether sums and GROUP BY agree in every zone, and the database with the ledger.

    Args:
        place: a directory for the ledger and the server's data; what is there is used.
        records: in all; the same as before, where there are some.
    """
    place.mkdir(parents=True, exist_ok=True)
    root = place / "ledger"
    _make(place, root, records)
    server = Server(place / "server", _SETTINGS)
    try:
        url = asyncio.run(_filled(server, root, records))
        return _reports(url, records)
    finally:
        server.close()


def _make(place: Path, root: Path, records: int) -> None:
    done = place / "made"
    if done.exists():
        assert int(done.read_text()) == records, f"there is another ledger in {place}"
        return
    shutil.rmtree(root, ignore_errors=True)
    began = time.perf_counter()
    make_year(root, records, _DAYS, _BEGIN, _USERS)
    done.write_text(str(records))
    print(f"a ledger of {records:,} records was made in {time.perf_counter() - began:.0f} s")


async def _filled(server: Server, root: Path, records: int) -> str:
    """Have all records in the database, and all sums; print the speed of what was missing."""
    if not await ask(server.url(), "SELECT FROM pg_database WHERE datname = 'load'"):
        await ask(server.url(), "CREATE DATABASE load TEMPLATE template0")
    url = server.url("load")
    connection = await database.connect(url)
    await schema.init(connection)
    shipper = Shipper(url, [Road(root, url)])
    shipper._sums_at = math.inf  # after it, and timed apart
    began, client, told = time.perf_counter(), time.process_time(), 0
    while await shipper.step() or shipper.failing is not None:
        if shipper.failing is not None:  # a connection was lost: the shipper makes another
            print(f"   {shipper.failing}; again")
            await asyncio.sleep(1)
        if shipper.records >= told + 1_000_000:
            told = shipper.records
            print(f"   {told:,} records, {told / (time.perf_counter() - began):,.0f} a second")
            sys.stdout.flush()
    await shipper.close()
    if shipper.records:
        took, client = time.perf_counter() - began, time.process_time() - client
        print(
            f"shipped {shipper.records:,} records in {took:.0f} s: {shipper.records / took:,.0f} "
            f"a second, {client / shipper.records * 1e6:.1f} us CPU of the client a record"
        )
    began, added = time.perf_counter(), 0
    while more := await bring_forward(connection):
        added += more
    if added:
        took = time.perf_counter() - began
        print(f"sums by quarter of an hour: {took:.0f} s, {took / records * 1e6:.1f} us a record")
        await connection.execute("VACUUM (ANALYZE) litellm_ledger.calls", timeout=3_600)
        await connection.execute("VACUUM (ANALYZE) litellm_ledger.rollup_15m", timeout=3_600)
    sizes = await connection.fetch(_SIZES)
    parts = ", ".join(f"{kind} {size / records:.1f}" for kind, size in sizes)
    print(f"bytes a record: {sum(size for _, size in sizes) / records:.0f} ({parts})")
    await connection.close()
    return url


def _reports(url: str, records: int) -> bool:
    ledger = Ledger(url)
    month = _BEGIN + timedelta(days=180)
    until = month + timedelta(days=30)
    one = {"tag:user": "user-7"}
    questions: dict[str, Callable[[], Any]] = {
        "by day and model": lambda: ledger.report(["day", "model"]),
        "by month": lambda: ledger.report(["month"]),
        "by feature": lambda: ledger.report(["tag:feature"]),
        "one user, 30 days, by day": lambda: ledger.report(
            ["day"], where=one, since=month, until=until
        ),
        "one user, all the year": lambda: ledger.report(["month"], where=one),
        "one day by model": lambda: ledger.report(
            ["model"], since=month, until=month + timedelta(days=1)
        ),
        "the ten users who spend most in 30 days": lambda: ledger.report(
            ["tag:user"], since=month, until=until, limit=10
        ),
        "the ten users who spend most": lambda: ledger.report(["tag:user"], limit=10),
    }
    for name, question in questions.items():
        took, found = _timed(question)
        print(f"   {took:8.2f} s  {name}: {len(found.rows):,} groups, {found.total.calls:,} calls")
        sys.stdout.flush()
    good = _agree(ledger, url)
    took, verified = _timed(ledger.verify)
    good = good and verified.ok
    print(f"   {took:8.2f} s  verify of the database: {'OK' if verified.ok else 'WRONG'}")
    return good


def _agree(ledger: Ledger, url: str) -> bool:
    """Compare the sums with a GROUP BY of all rows, in every zone."""
    good = True
    for zone in ZONES:
        of_sums, found = _timed(lambda zone=zone: ledger.report(["day", "model"], tz=zone))
        of_rows, rows = _timed(lambda zone=zone: asyncio.run(_ask_long(url, zone)))
        same = {_told(row) for row in found.rows} == set(map(tuple, rows))
        good = good and same
        print(
            f"   {of_sums:8.2f} s  by day and model in {zone}, by sums; {of_rows:.2f} s by GROUP "
            f"BY: {len(rows):,} groups, {'equal' if same else 'DIFFERENT'}"
        )
        sys.stdout.flush()
    return good


def _told(row: Row) -> tuple[Any, ...]:
    pico = int((row.cost or 0) * 10**12)
    model, day = row.group["model"], row.group["day"]
    return day, model, row.calls, pico, row.input_tokens, row.output_tokens


async def _ask_long(url: str, zone: str) -> list[Any]:
    connection = await database.connect(url, statement_timeout=3_600)
    try:
        return list(await connection.fetch(_GROUPED.format(zone=zone)))
    finally:
        await connection.close()


def _timed(question: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = question()
    return time.perf_counter() - began, found
