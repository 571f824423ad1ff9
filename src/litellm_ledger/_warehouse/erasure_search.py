"""Where a person's records are in a database, and where bytes like their marks are.

Owns the search, which changes nothing.  Rows that may be meant come by the conditions in SQL; the
line that each of them was decides, as it does in a directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._maintenance.marks_left import MarksLeft
from litellm_ledger._maintenance.person import Person
from litellm_ledger._maintenance.rewriting import Rewriter
from litellm_ledger._postgres.database import one_moment, transaction
from litellm_ledger._postgres.query import query
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import Audit, addition_of
from litellm_ledger._records.layout import record_id
from litellm_ledger._records.line import Line, line_of
from litellm_ledger._shipping.rows import MARK

from .as_lines import TEXTS, id_of, line_of_row
from .asked import can_be, condition
from .removing import LONG
from .stream import Row, sealed, stream

if TYPE_CHECKING:
    import asyncpg

__all__ = ["THESE", "Found", "Place", "find", "marks"]

THESE: Final = "(c.writer_id, c.seq) IN (SELECT * FROM unnest($1::int[], $2::bigint[]))"
"""The condition that a row is of these writers and numbers."""
_SILENT: Final = "1 day"
"""A writer that has told nothing for so long brings no outcome of its calls in flight."""
_IDS: Final = {
    "call_id": "c.call_id",
    "response_id": "c.response_id",
    "operation": f"coalesce(c.operation, {id_of('coalesce(c.operation_seq, c.seq)')})",
}

Place = tuple[int, int]
"""A writer and a number."""


@dataclass
class Found:
    """What is a person's: places, of outcomes with their cost."""

    names: dict[int, str] = field(default_factory=dict)
    outcomes: dict[Place, int] = field(default_factory=dict)
    started: set[Place] = field(default_factory=set)
    rejected: dict[Place, bytes] = field(default_factory=dict)
    waiting: set[Place] = field(default_factory=set)
    additions: dict[Place, Adjustment | Audit] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)

    @property
    def records(self) -> int:
        """How many records that is."""
        return len(self.outcomes) + len(self.started) + len(self.rejected)

    def ids(self) -> set[str]:
        """Return the ids of the records."""
        places = (*self.outcomes, *self.started, *self.rejected)
        return {
            record_id(self.names[writer_id], seq)
            for writer_id, seq in places
            if writer_id in self.names
        }


async def find(connection: asyncpg.Connection, person: Person, rewriter: Rewriter) -> Found:
    """Look for all that is a person's, in one moment."""
    async with one_moment(connection, timeout=LONG):
        await connection.execute(TEXTS)
        search = _Search(connection, person, rewriter)
        await search.run()
    return search.found


class _Search:
    """One look through a database."""

    def __init__(self, connection: asyncpg.Connection, person: Person, rewriter: Rewriter) -> None:
        self._connection = connection
        self._person = person
        self._rewriter = rewriter
        self._keys: set[tuple[str, int]] = set()
        self.found = Found()

    async def run(self) -> None:
        fetch = self._connection.fetch
        rows = await fetch("SELECT writer_id, writer FROM litellm_ledger.writers")
        self.found.names = {row[0]: row[1] for row in rows}
        asked = condition(self._person.selection)
        values = [*asked.values]
        texts = [asked.text]
        for name, ids in self._person.ids.items():
            values.append(sorted(filter(can_be, ids)))
            texts.append(f"{_IDS[name]} = ANY(${len(values)}::text[])")
        await self._look(" AND ".join(texts), values)
        await self._look("c.line IS NOT NULL", [])
        await self._look_in_flight()
        await self._look_for_partners()
        await self._look_among_rejected()
        await self._look_among_additions()
        if self.found.outcomes:
            columns = list(map(list, zip(*self.found.outcomes, strict=True)))
            named = await fetch(
                "SELECT DISTINCT c.tableoid::regclass::text FROM litellm_ledger.calls c "
                f"WHERE {THESE}",
                *columns,
            )
            self.found.tables |= {row[0] for row in named}

    async def _look(self, where: str, values: Sequence[Any]) -> None:
        def put(row: Row) -> None:
            raw = sealed(row.line)
            line = line_of(raw)
            if line is not None and self._is_theirs(line, raw):
                self.found.outcomes[row.writer_id, row.first] = line.cost or 0

        text = query("persons").format(line=line_of_row(slim=False), where=where)
        await stream(self._connection, text, *values, put=put)

    def _is_theirs(self, line: Line, raw: bytes) -> bool:
        if not self._person.has(line) or self._rewriter.is_kept(raw):
            return False
        self._keys.add(_key(line))
        return True

    async def _look_in_flight(self) -> None:
        """Look among calls in flight; those that may still have an outcome wait."""
        rows = await self._connection.fetch(
            "SELECT f.writer_id, f.seq, f.line, "
            "w.closed OR w.updated_at < pg_catalog.now() - $1::text::interval AS ended "
            "FROM litellm_ledger.in_flight f JOIN litellm_ledger.writers w USING (writer_id)",
            _SILENT,
        )
        for writer_id, seq, raw, ended in rows:
            line = line_of(raw)
            if line is None or not (self._is_theirs(line, raw) or _key(line) in self._keys):
                continue
            if ended:
                self.found.started.add((writer_id, seq))
                self.found.tables.add("litellm_ledger.in_flight")
            else:
                self.found.waiting.add((writer_id, seq))

    async def _look_for_partners(self) -> None:
        """Look for outcomes of the same attempts: an unsettled one, and the one that beats it."""
        if not self._keys:
            return
        keys = [key for key in sorted(self._keys) if can_be(key[0])]
        names, attempts = list(map(list, zip(*keys, strict=True))) if keys else ([], [])
        for row in await self._connection.fetch(query("partners"), names, attempts):
            self.found.outcomes.setdefault((row[0], row[1]), int(row[2]))

    async def _look_among_rejected(self) -> None:
        rows = await self._connection.fetch(
            "SELECT writer_id, seq, line FROM litellm_ledger.rejected"
        )
        for writer_id, seq, raw in rows:
            line = line_of(raw)
            if line is None:
                theirs = self._person.are_all_in(raw)
            else:
                theirs = self._is_theirs(line, raw) or _key(line) in self._keys
            if theirs:
                self.found.rejected[writer_id, seq] = raw
                self.found.tables.add("litellm_ledger.rejected")

    async def _look_among_additions(self) -> None:
        """Look for adjustments of these records, or of the person, and audits of releases."""
        ids = self.found.ids()

        def put(row: Row) -> None:
            one = addition_of(row.line)
            if isinstance(one, Adjustment):
                theirs = one.adjusts in ids or self._person.has_adjustment(one)
                if self._rewriter.keep or one.adjusts not in ids:  # or nothing is left to do
                    theirs = theirs and self._rewriter.adjustment(one, keep=True) != row.line
            else:
                theirs = one is not None and any(
                    let.record in ids or self._person.has_released(let) for let in one.released
                )
            if one is not None and theirs:
                self.found.additions[row.writer_id, row.first] = one
                self.found.tables.add("litellm_ledger.additions")

        await stream(self._connection, query("additions"), put=put)


def _key(line: Line) -> tuple[str, int]:
    """Return which attempt of which call a line is of."""
    return line.operation or line.id, line.attempt or 1


async def marks(connection: asyncpg.Connection, person: Person) -> list[MarksLeft]:
    """Search every row of every table for the marks, as ``Person.count`` tells them."""
    async with transaction(connection, timeout=LONG, readonly=True):
        tables = await connection.fetch(
            "SELECT c.relname::text, ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a "
            "WHERE a.attrelid = c.oid AND a.atttypid = 'bytea'::regtype AND a.attnum > 0 "
            "AND NOT a.attisdropped) FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = 'litellm_ledger' AND c.relkind IN ('r', 'p') "
            "AND NOT c.relispartition ORDER BY 1"
        )
        forms = {form.replace("\0", MARK) for form in person.forms}
        sought = sorted({one for form in forms for one in (form, form.lower()) if can_be(one)})
        found = []
        for name, binary in tables:
            texts = [_AS_JSON, *(f"pg_catalog.encode(t.{one}, 'escape')" for one in binary)]
            wanted = [
                f"pg_catalog.strpos({side}({text}), {form}) > 0"
                for text, form in zip(texts, ["p", *[_ESCAPED] * len(binary)], strict=True)
                for side in ("", "pg_catalog.lower")
            ]
            rows = connection.cursor(
                f"SELECT {', '.join([_AS_JSON, *(f't.{one}' for one in binary)])} "
                f'FROM litellm_ledger."{name}" t WHERE EXISTS ('
                f"SELECT FROM unnest($1::text[]) AS p WHERE {' OR '.join(wanted)})",
                sought,
            )
            times = sum([_count(person, row) async for row in rows])
            if times:
                found.append(MarksLeft(f"litellm_ledger.{name}", times))
    return found


_AS_JSON: Final = "pg_catalog.row_to_json(t)::text"
"""Of a row: texts and ``tags`` are escaped once, ``meta`` as in its line; ``t::text`` doubles."""
_ESCAPED: Final = "pg_catalog.encode(pg_catalog.convert_to(p, 'UTF8'), 'escape')"


def _count(person: Person, row: Sequence[Any]) -> int:
    text, *binary = row
    return person.count(text.replace(MARK, "\0").encode()) + sum(
        person.count(one) for one in binary if one is not None
    )
