"""``erase postgresql://…``: a person's records taken out of a database; deeds name nobody.

Owns the order of the steps.  ``erasure_search`` looks for what is theirs, in one moment.  Then it
goes part by part, each in one transaction with the adjustments of its records: gaps, or rows that
name nobody, take its place, and it is taken out of the sums by quarter of an hour.  The values of a
tag in sums of what expired go last (``forgetting``).  Killed anywhere, the next run finds the rest.
Shippers never send it again: its numbers are below their checkpoints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from litellm_ledger._maintenance.erase import Erased
from litellm_ledger._maintenance.person import Person
from litellm_ledger._maintenance.rewriting import Rewriter
from litellm_ledger._postgres import database
from litellm_ledger._postgres.query import query
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import addition_of
from litellm_ledger._records.layout import record_id
from litellm_ledger._records.line import line_of
from litellm_ledger._shipping import batch, rollup
from litellm_ledger._shipping.rollup import quarter_of
from litellm_ledger._shipping.rows import Rows, Started

from .as_lines import TEXTS, line_of_row
from .erasure_search import THESE, Found, Place, find, marks
from .forgetting import forget_scopes, forget_statistics, forget_values
from .removing import Removed, again, freeze, note_deed, only_the_owner, remove
from .stream import Row, sealed, stream

if TYPE_CHECKING:
    import asyncpg

__all__ = ["erase"]

_TIMES: Final = 3
"""How often it is looked for what was shipped meanwhile."""
_AT_ONCE: Final = 2_000
"""Rows that one transaction takes out."""
_BUDGETS: Final = ("budget_scopes", "budget_windows", "leases")
_GONE: Final = """
    SELECT c.writer_id, c.seq, c.cost_picousd, 1 AS usage, 0 AS rejected
    FROM litellm_ledger.calls c JOIN unnest($1::int[], $2::bigint[]) AS n (w, s)
        ON c.writer_id = n.w AND c.seq = n.s
    UNION ALL
    SELECT f.writer_id, f.seq, NULL, 0, 0
    FROM litellm_ledger.in_flight f JOIN unnest($3::int[], $4::bigint[]) AS n (w, s)
        ON f.writer_id = n.w AND f.seq = n.s
    UNION ALL
    SELECT r.writer_id, r.seq, NULL, 0, 1
    FROM litellm_ledger.rejected r JOIN unnest($5::int[], $6::bigint[]) AS n (w, s)
        ON r.writer_id = n.w AND r.seq = n.s
"""


class _Part(NamedTuple):
    """What one transaction takes out."""

    outcomes: list[Place]
    started: list[Place]
    rejected: list[Place]
    additions: list[Place]

    @property
    def records(self) -> int:
        return len(self.outcomes) + len(self.started) + len(self.rejected)

    @property
    def writers(self) -> list[int]:
        return sorted({writer_id for places in self for writer_id, _ in places})


_Raw = tuple[int, int, bytes]
"""A writer, a number and the line."""


async def erase(
    connection: asyncpg.Connection,
    person: Person,
    *,
    who: str | None = None,
    why: str = "",
    keep: bool = False,
) -> Erased:
    """Look for a person's records; with ``who``, take them out.

    Cancelled, or killed, some have gone and others are there whole: run it again.

    Args:
        connection: of the owner of the schema, unless it is only to look; in no transaction.
        person: whose.
        who, why: stand on the deeds; they must not name the person.
        keep: the records stay, with their amounts, and nothing in them that names somebody.

    Raises:
        ValueError: ``who`` or ``why`` has a mark of the person.
        LedgerPathError: there is no schema; the user is not its owner; others were in the way.
        UnsupportedFormat: a newer version made the schema.
    """
    from litellm_ledger._postgres.schema import check

    await check(connection)
    rewriter = Rewriter(person, keep=keep)
    if who is None:
        return _told(await find(connection, person, rewriter))
    for name, text in (("who", who), ("why", why)):
        if person.is_in(text):
            raise ValueError(
                f"--{name} has a mark of the person, and stays in the database; write it without"
            )
    await only_the_owner(connection, "erase")
    run = _Run(connection, rewriter, who, why)
    done, counted = Erased(), 0
    for _ in range(_TIMES):
        found = await find(connection, person, rewriter)
        done, counted = await run.go(found, done)
        done = replace(
            done, waiting=len(found.waiting), marks=tuple(await marks(connection, person))
        )
        if not done.marks:
            break
        came = await find(connection, person, rewriter)
        done = replace(done, waiting=len(came.waiting) + came.records)
        if not came.records:
            break  # these are in records of others, or have to wait
    return replace(
        done,
        waiting=done.waiting + counted,
        counted=counted,
        tables=tuple(sorted(run.tables)),
    )


def _told(found: Found) -> Erased:
    return Erased(
        records=found.records,
        calls=len(found.outcomes),
        cost=sum(found.outcomes.values()),
        adjustments=len(found.additions),
        waiting=len(found.waiting),
        tables=tuple(sorted(found.tables)),
    )


# -- taking out ------------------------------------------------------------------------------------


def _parts(found: Found) -> Iterator[_Part]:
    """Part what was found, by writer and number; adjustments go with their records."""
    of_record = defaultdict(list)
    for place, one in found.additions.items():
        of_record[one.adjusts if isinstance(one, Adjustment) else ""].append(place)
    started, rejected = sorted(found.started), sorted(found.rejected)
    outcomes = sorted(found.outcomes)
    for start in range(0, len(outcomes), _AT_ONCE):
        piece = outcomes[start : start + _AT_ONCE]
        yield _Part(piece, [], [], _of(of_record, found, piece))
    if started or rejected:
        yield _Part([], started, rejected, _of(of_record, found, [*started, *rejected]))
    rest = sorted(place for places in of_record.values() for place in places)
    for start in range(0, len(rest), _AT_ONCE):
        yield _Part([], [], [], rest[start : start + _AT_ONCE])


def _of(of_record: dict[str, list[Place]], found: Found, places: Iterable[Place]) -> list[Place]:
    """Take out the places of the adjustments of some records."""
    names = found.names
    ids = (record_id(names[one], seq) for one, seq in places if one in names)
    return sorted(place for key in ids for place in of_record.pop(key, ()))


def _columns(places: Collection[Place]) -> list[list[int]]:
    return [[writer_id for writer_id, _ in places], [seq for _, seq in places]]


class _Run:
    """One run, and the tally of it."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        rewriter: Rewriter,
        who: str,
        why: str,
    ) -> None:
        self._connection = connection
        self._rewriter = rewriter
        self._person = rewriter.person
        self._found = Found()
        self._ids: set[str] = set()
        self._who = who
        self._why = why
        self._run = datetime.now(UTC).isoformat()
        self.tables: set[str] = set()

    async def go(self, found: Found, done: Erased) -> tuple[Erased, int]:
        """Take out what was found; return what is done by now, and what budgets still count."""
        self._found, self._ids = found, found.ids()
        self.tables |= found.tables
        for part in _parts(found):
            taken = await again(self._connection, partial(self.take_out, part))
            done = replace(
                done,
                records=done.records + taken.records,
                calls=done.calls + len(taken.outcomes),
                cost=done.cost + sum(found.outcomes[place] for place in taken.outcomes),
                adjustments=done.adjustments + len(taken.additions),
            )
        await again(self._connection, self._forget_values)
        ask = self._connection, self._person
        scopes, counted = await again(self._connection, partial(forget_scopes, *ask))
        if scopes:
            self.tables |= {f"litellm_ledger.{name}" for name in _BUDGETS}
        await again(self._connection, partial(forget_statistics, *ask))
        return done, counted

    async def _forget_values(self) -> None:
        await freeze(self._connection, [])
        if changed := await forget_values(self._connection, self._person):
            self.tables.add("litellm_ledger.expired_sums")
            await self._note(records=0, outcomes=0, sums=changed)

    async def take_out(self, part: _Part) -> _Part:
        """Take a part out, in the caller's transaction; return what of it was still there.

        Since it was found, retention or another run may have taken some.
        """
        await freeze(self._connection, part.writers)
        part, lines = await self._still(part)
        if any(part):
            await self._take(part, lines)
        return part

    async def _still(self, part: _Part) -> tuple[_Part, list[_Raw]]:
        """Return what of a part is there; its lines, if something is to stay of them."""
        lines: list[_Raw] = []
        if self._rewriter.keep:
            lines = [one for one in await self._lines(part) if not self._rewriter.is_kept(one[2])]
            outcomes = started = {(writer_id, seq) for writer_id, seq, _ in lines}
        else:
            outcomes = set(await self._there("calls", part.outcomes, "NULL"))
            started = set(await self._there("in_flight", part.started, "NULL"))
        rejected = await self._there("rejected", part.rejected)
        self._found.rejected |= rejected
        await self._read_additions_again(part.additions)
        return _Part(
            [place for place in part.outcomes if place in outcomes],
            [place for place in part.started if place in started],
            [place for place in part.rejected if place in rejected],
            [place for place in part.additions if place in self._found.additions],
        ), lines

    async def _there(
        self, table: str, places: Collection[Place], what: str = "line"
    ) -> dict[Place, Any]:
        """Return which of some rows are there, with their lines as they are now."""
        if not places:
            return {}
        text = f"SELECT writer_id, seq, {what} FROM litellm_ledger.{table} c WHERE {THESE}"
        rows = await self._connection.fetch(text, *_columns(places))
        return {(row[0], row[1]): row[2] for row in rows}

    async def _read_additions_again(self, places: Collection[Place]) -> None:
        """Take adjustments and audits as they are now; another run may have written them anew."""
        additions, now = self._found.additions, await self._there("additions", places)
        for place in places:
            one = addition_of(now[place]) if place in now else None
            if one is None:
                additions.pop(place, None)
            else:
                additions[place] = one

    async def _take(self, part: _Part, lines: Sequence[_Raw]) -> None:
        places = _columns(part.outcomes)
        edges = await self._connection.fetchrow(
            f"SELECT min({quarter_of('c.ts')}), max({quarter_of('c.ts')}) "
            f"FROM litellm_ledger.calls c WHERE {THESE}",
            *places,
        )
        await rollup.take_away(self._connection, THESE, places)
        if self._rewriter.keep:
            removed = Removed(0, 0, 0, 0)
            await self._strip(part, lines)
            await rollup.take_away(self._connection, THESE, places, back=True)
        else:
            removed = await self._delete(part)
        if edges[0] is not None:
            await rollup.tidy(self._connection, *edges)
            self.tables.add("litellm_ledger.rollup_groups")
        await self._rewrite_additions(part.additions)
        await self._note(
            records=part.records,
            outcomes=removed.outcomes,
            numbers=removed.numbers,
            cost_picousd=str(removed.cost),
            writers=len(part.writers),
            adjustments=len(part.additions),
        )

    async def _note(self, **detail: Any) -> None:
        kept = self._rewriter.keep
        how = {"run": self._run, "kept": kept, **detail}
        await note_deed(self._connection, "erase", self._who, self._why, **how)

    async def _delete(self, part: _Part) -> Removed:
        columns = [_columns(places) for places in part[:3]]
        removed = await remove(
            self._connection, _GONE, [one for two in columns for one in two], "erased"
        )
        outcomes, started, rejected = columns
        await self._delete_from("beaten", outcomes)
        await self._delete_from("beaten", rejected)
        await self._delete_from("rollup_beaten", outcomes)
        await self._delete_from("calls", outcomes)
        await self._delete_from("in_flight", started)
        await self._delete_from("rejected", rejected)
        return removed

    async def _delete_from(self, table: str, columns: list[list[int]]) -> None:
        if columns[0]:
            await self._connection.execute(
                f"DELETE FROM litellm_ledger.{table} c WHERE {THESE}", *columns
            )

    # -- amounts that stay -----------------------------------------------------------------------

    async def _strip(self, part: _Part, stay: Iterable[_Raw]) -> None:
        """Put rows that name nobody in the place of these."""
        months = {
            row[0]
            for row in await self._connection.fetch("SELECT * FROM litellm_ledger.partitions()")
        }
        lines: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        for writer_id, seq, raw in stay:
            lines[writer_id].append((seq, self._rewriter.kept(raw)))
        columns = _columns(part.outcomes)
        await self._connection.execute(
            "UPDATE litellm_ledger.batches b SET rewritten = b.rewritten + n.rows FROM ("
            "SELECT o.writer_id, o.first, count(*) AS rows FROM litellm_ledger.batches o "
            "JOIN unnest($1::int[], $2::bigint[]) AS u (w, s) "
            "ON o.writer_id = u.w AND u.s BETWEEN o.first AND o.last GROUP BY 1, 2"
            ") AS n WHERE (b.writer_id, b.first) = (n.writer_id, n.first)",
            *columns,
        )
        await self._delete_from("calls", columns)
        await self._delete_from("in_flight", _columns(part.started))
        for writer_id, kept in lines.items():
            rows = Rows(self._found.names[writer_id], writer_id, months)
            rows.extend([seq for seq, _ in kept], [raw for _, raw in kept])
            await self._put(writer_id, rows)
        for place in part.rejected:
            raw = self._found.rejected[place]
            kept_raw = self._rewriter.kept(raw) if line_of(raw) is not None else b""
            await self._connection.execute(
                "UPDATE litellm_ledger.rejected SET line = $3, why = 'written anew by an erasure' "
                "WHERE writer_id = $1 AND seq = $2",
                *place,
                kept_raw,
            )

    async def _put(self, writer_id: int, rows: Rows) -> None:
        if rows.outcomes:
            await database.copy(self._connection, "calls", rows.columns, batch.pieces(rows))
        if rows.started:
            records = [(writer_id, *one) for one in rows.started]
            columns = ("writer_id", *Started._fields)
            await database.copy_records(self._connection, "in_flight", columns, records)

    async def _lines(self, part: _Part) -> list[_Raw]:
        found: list[_Raw] = []

        def put(row: Row) -> None:
            found.append((row.writer_id, row.first, sealed(row.line)))

        if part.outcomes:
            await self._connection.execute(TEXTS)
            text = query("persons").format(line=line_of_row(slim=False), where=THESE)
            await stream(self._connection, text, *_columns(part.outcomes), put=put)
        rows = await self._connection.fetch(
            f"SELECT writer_id, seq, line FROM litellm_ledger.in_flight c WHERE {THESE}",
            *_columns(part.started),
        )
        return sorted([*found, *(tuple(row) for row in rows)])

    # -- beside records --------------------------------------------------------------------------

    async def _rewrite_additions(self, places: Iterable[Place]) -> None:
        for place in places:
            one = self._found.additions[place]
            if isinstance(one, Adjustment):
                # The sums of what expired stay, and so does what was added to them.
                keep = one.adjusts not in self._ids
                raw = self._rewriter.adjustment(one, keep=keep)
            else:
                raw = self._rewriter.release(one, self._has_released)
            kind = one.kind if addition_of(raw) is not None else "gap"
            await self._connection.execute(
                "UPDATE litellm_ledger.additions SET line = $3, kind = $4 "
                "WHERE writer_id = $1 AND seq = $2",
                *place,
                raw,
                kind,
            )

    def _has_released(self, let: Any) -> bool:
        return let.record in self._ids or self._person.has_released(let)
