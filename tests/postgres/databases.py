"""What tests do to a database and ask of one, each with a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from click.exceptions import Exit
from tests.postgres.shipped import TEAM, ZONES

from litellm_ledger import Ledger
from litellm_ledger._cli.app import app
from litellm_ledger._maintenance.retention import Retention
from litellm_ledger._postgres.database import connect
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.verdict import Verification
from litellm_ledger._warehouse import retention
from litellm_ledger._warehouse.retention import PruningThere

if TYPE_CHECKING:
    import asyncpg

_T = TypeVar("_T")

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EACH_OTHER = """
    SELECT (SELECT sum(usage) FROM litellm_ledger.writers)
            = (SELECT count(*) FROM litellm_ledger.calls),
        (SELECT coalesce(sum((detail->>'outcomes')::int), 0) FROM litellm_ledger.deeds)
            = (SELECT coalesce(sum(usage), 0) FROM litellm_ledger.gaps WHERE here),
        (SELECT sum(t.calls) FROM litellm_ledger.rollup_15m t
            JOIN litellm_ledger.rollup_groups USING (group_id) WHERE tag_name IS NULL)
            = (SELECT count(*) FROM litellm_ledger.usage WHERE line IS NULL)
"""
"""What is there, what was taken and what the sums are made of is the same."""


def work(url: str, do: Callable[[asyncpg.Connection], Awaitable[_T]]) -> _T:
    """Do something with a connection of its own."""

    async def done() -> _T:
        connection = await connect(url)
        try:
            return await do(connection)
        finally:
            await connection.close()

    return asyncio.run(done())


def ask(url: str, query: str, *values: Any) -> list[Any]:
    rows = work(url, lambda there: there.fetch(query, *values))
    return [tuple(row) for row in rows]


def run(url: str, *statements: str) -> None:
    async def all_of_them(there: asyncpg.Connection) -> None:
        for statement in statements:
            await there.execute(statement)

    work(url, all_of_them)


def choose(url: str, tag: str) -> None:
    """Have sums by a tag from now on, whatever its values are."""
    ask(url, "INSERT INTO litellm_ledger.rollup_tags VALUES ($1, true, false, 1, 1)", tag)


def prune(url: str, keep: timedelta | None, *, now: datetime = NOW, **how: Any) -> PruningThere:
    rule = Retention(keep=keep, **how)
    told: dict[str, Any] = {"who": "ops", "why": str(rule), "now": now, "patience": 0.0}
    return work(url, lambda there: retention.prune(there, rule, **told))


def command(*args: str) -> tuple[int, str]:
    """Run a command here; return its status and what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = app.main(list(args), "litellm-ledger", standalone_mode=False)
        except Exit as exc:
            status = exc.exit_code
    return status or 0, out.getvalue()


def answers(place: Any) -> list[Any]:
    """What sums tell: by period of a zone, by one tag, of a time that is no whole days."""
    there = Ledger(place)
    one = there.report(["day", "model", "status"], tz=ZONES[-1])
    since = datetime(2025, 1, 9, 1, 15, tzinfo=UTC)
    ok = {"status": "ok"}
    span = there.report([], since=since, until=since + timedelta(days=60), where=ok)
    return [one.rows, one.total, there.report([f"tag:{TEAM}", "month"]).rows, span.total]


def wrong(found: Verification) -> list[Problem]:
    """What is not as it was shipped; the ledgers that are made here have damage of their own."""
    problems = [one for writer in found.writers for one in writer.problems]
    return [one for one in problems if one.what != "damaged"]


def texts(url: str) -> bytes:
    """All that is in the tables, as COPY writes it, and bytea as it is."""
    found: list[bytes] = []

    async def take(piece: bytes) -> None:
        found.append(piece)

    async def everything(there: asyncpg.Connection) -> None:
        tables = await there.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'litellm_ledger'::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        for (name,) in tables:
            await there.copy_from_query(
                f"SELECT * FROM litellm_ledger.{name} t ORDER BY t::text",
                output=take,
                format="binary",
            )

    work(url, everything)
    return b"".join(found)
