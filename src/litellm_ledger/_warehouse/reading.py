"""``Ledger("postgresql://…")``: what a question needs of a database, as a ledger of this machine.

Owns which rows are fetched, as lines of a temporary ledger, and which sums are asked of the
database in their place.  All of one question is of one moment: it runs in one transaction that
changes nothing.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from litellm_ledger._postgres.address import Address
from litellm_ledger._postgres.link import Link
from litellm_ledger._postgres.query import query
from litellm_ledger._reading.elsewhere import Elsewhere, Fetched, Unshipped, Wanted
from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.adjustment import encode_addition
from litellm_ledger._records.audit import PRUNE, audit_of
from litellm_ledger._records.layout import SegmentName, is_writer
from litellm_ledger._records.ranges import Spans

from . import sums
from .as_lines import TEXTS, line_of_row
from .asked import Condition, condition, of_time
from .laying import Laid
from .stream import Row, spool, stream

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

    from litellm_ledger._maintenance.erase import Erased
    from litellm_ledger._maintenance.person import Person
    from litellm_ledger._maintenance.retention import Retention
    from litellm_ledger._reading.verdict import Verification

    from .lent import SharedBudget
    from .retention import PruningThere

__all__ = ["Database", "elsewhere"]

_T = TypeVar("_T")

_PREFIX: Final = "litellm-ledger-"
_NEAR: Final = 2_000
"""Rows in which an id is looked for of which only a part is known."""


def elsewhere(url: str) -> Database:
    """Return the ledger that a URL names."""
    return Database(url)


class Database(Elsewhere):
    """Ledgers in a database of PostgreSQL.

    Args:
        url: ``postgresql://…``; nothing is opened yet.

    Raises:
        ValueError: it is no URL of a database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = Address.of(url)

    def __str__(self) -> str:
        return self._address.place

    def __repr__(self) -> str:
        return f"Database({self._address.place!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Database) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @contextlib.contextmanager
    def fetch(self, wanted: Wanted) -> Iterator[Fetched]:
        """Fetch what is wanted; see ``Elsewhere.fetch``."""
        with contextlib.ExitStack() as opened:
            where = tempfile.TemporaryDirectory(prefix=_PREFIX)
            here = Path(opened.enter_context(where))
            with Link(self._address) as link:
                fetching = _Fetching(here, wanted, opened, link.heard)
                fetched = link.ask(fetching.run)
            yield fetched

    def segments(self) -> list[SegmentName]:
        """Return what there is of each writer, as one segment; see ``Elsewhere.segments``."""
        with Link(self._address) as link:
            found = link.ask(_writers)
        return sorted(
            SegmentName(one.writer, 1, one.shipped)
            for one in found
            if one.shipped and is_writer(one.writer) and not SegmentName(one.writer, 1).adjusts
        )

    def verify(self, *, full: bool = False, against: Sequence[Path] = ()) -> Verification:
        """Check what is there; see ``Elsewhere.verify``."""
        from .proof import verify

        del full  # everything is always looked at
        with Link(self._address) as link:
            return verify(link, str(self), against)

    def prune(self, rule: Retention, *, who: str, why: str, **how: Any) -> PruningThere:
        """Remove months that a rule lets go; see ``retention.prune``."""
        from .removing import LONG
        from .retention import prune

        with Link(self._address, silence=LONG) as link:
            return link.change(lambda there: prune(there, rule, who=who, why=why, **how))

    def erase(
        self, person: Person, *, who: str | None = None, why: str = "", keep: bool = False
    ) -> Erased:
        """Look for a person's records; with ``who``, take them out; see ``erasure.erase``."""
        from .erasure import erase
        from .removing import LONG

        with Link(self._address, silence=LONG) as link:
            return link.change(lambda there: erase(there, person, who=who, why=why, keep=keep))

    def shared_budgets(self) -> list[SharedBudget]:
        """Return what is lent here of budgets that machines share."""
        from .lent import shared_budgets

        return self.ask(shared_budgets)

    def has_erased(self) -> bool:
        """Whether anybody was erased here: the last call with a tag may have gone with them."""
        text = "SELECT EXISTS (SELECT FROM litellm_ledger.deeds WHERE did = 'erase')"
        return bool(self.ask(lambda there: there.fetchval(text)))

    def ask(self, question: Callable[[asyncpg.Connection], Awaitable[_T]]) -> _T:
        """Put a question of its own, in a transaction that changes nothing; as ``Link.ask``."""
        with Link(self._address) as link:
            return link.ask(question)


class _Writer(NamedTuple):
    """A writer, as the database knows it."""

    writer_id: int
    writer: str
    shipped: int
    behind: int
    updated_at: datetime
    closed: bool


async def _writers(connection: asyncpg.Connection) -> list[_Writer]:
    from litellm_ledger._postgres.schema import check

    await check(connection)
    return [_Writer(*row) for row in await connection.fetch(query("writers"))]


class _Fetching:
    """One question."""

    def __init__(
        self,
        here: Path,
        wanted: Wanted,
        opened: contextlib.ExitStack,
        heard: Callable[[], None],
    ) -> None:
        self._here = here
        self._wanted = wanted
        self._opened = opened
        self._heard = heard
        self._added: sums.Added | None = None

    async def run(self, connection: asyncpg.Connection) -> Fetched:
        wanted = self._wanted
        writers = await _writers(connection)
        names = {one.writer_id: one.writer for one in writers}
        root = self._here / "ledger"
        root.mkdir()
        await connection.execute(TEXTS)
        beside = await self._beside(connection)
        laid = self._opened.enter_context(Laid(root, names, beside))
        left, tags = 0, frozenset[str]()
        if "usage" in wanted.kinds:
            left, tags = await self._outcomes(connection, laid)
        expired, expired_until = await sums.untold(connection, wanted.selection, self._added)
        laid.finish()
        if "started" in wanted.kinds:
            await self._run_in_flight(connection, laid, writers)
        if not wanted.tags and wanted.newest is None:
            await self._add_additions(connection, laid)
        return Fetched(
            root,
            writers=frozenset(
                one.writer for one in writers if not SegmentName(one.writer, 1).adjusts
            ),
            unshipped=_unshipped(writers),
            problems=[*_strange(laid.strange), *await self._damaged(connection)],
            left=left,
            tags=tags,
            aggregated=self._added.expired if self._added is not None else 0,
            expired=expired,
            expired_until=expired_until,
        )

    # -- outcomes --------------------------------------------------------------------------------

    async def _outcomes(
        self, connection: asyncpg.Connection, laid: Laid
    ) -> tuple[int, frozenset[str]]:
        """Fetch outcomes, or what they come to; return how many more there are, and their tags."""
        wanted, selection = self._wanted, self._wanted.selection
        if wanted.sums is not None:
            self._added = await sums.add(connection, *wanted.sums, selection)
            if self._added is not None:
                return 0, frozenset()
        asked = condition(selection)
        if wanted.key is not None or wanted.near is not None or wanted.after is not None:
            found = await self._of_key(connection)
            if found is None:
                return 0, frozenset()
            asked = found
        if wanted.tags and asked.exact:
            return 0, await sums.tags(connection, asked)
        if wanted.newest is None or not asked.exact:
            await self._copy(connection, "outcomes", asked, laid)
            return 0, frozenset()
        number = await sums.count(connection, selection, asked)
        since = await sums.newest_since(connection, selection, wanted.newest)
        if since is not None:
            asked = condition(selection.between(since, None))
        await self._copy(connection, "newest", asked, laid, limit=wanted.newest)
        return max(0, number - wanted.newest), frozenset()

    async def _copy(
        self,
        connection: asyncpg.Connection,
        name: str,
        asked: Condition,
        laid: Laid,
        limit: int = 0,
    ) -> None:
        """Lay outcomes out as they come."""
        text = query(name).format(
            line=line_of_row(slim=self._wanted.slim), where=asked.text, limit=int(limit)
        )
        await stream(connection, text, *asked.values, put=laid.put, heard=self._heard)

    async def _of_key(self, connection: asyncpg.Connection) -> Condition | None:
        """Return the condition of what has a key, or of what may be meant by a part of one."""
        from .keys import after, near, of_operation

        if self._wanted.key is not None:
            return await of_operation(connection, self._wanted.key)
        if self._wanted.after is not None:
            return await after(connection, self._wanted.after)
        return await near(connection, self._wanted.near or "", _NEAR)

    # -- beside ----------------------------------------------------------------------------------

    async def _beside(self, connection: asyncpg.Connection) -> Iterator[Row]:
        """Fetch what goes in between outcomes into a file, and return its rows."""
        wanted = self._wanted
        if not wanted.kinds:
            return iter(())
        time = of_time(wanted.selection.since, wanted.selection.until)
        text = query("beside").format(
            usage="usage" in wanted.kinds,
            started="started" in wanted.kinds,
            gap="gap" in wanted.kinds,
            where=time.text,
        )
        return await spool(
            connection, text, *time.values, file=self._here / "beside", heard=self._heard
        )

    async def _run_in_flight(
        self, connection: asyncpg.Connection, laid: Laid, writers: Sequence[_Writer]
    ) -> None:
        """Have writers with calls in flight look alive, unless they were closed."""
        rows = await connection.fetch("SELECT DISTINCT writer_id FROM litellm_ledger.in_flight")
        busy = {row[0] for row in rows}
        for one in writers:
            if one.writer_id in busy and not one.closed:
                laid.run(one.writer)

    async def _add_additions(self, connection: asyncpg.Connection, laid: Laid) -> None:
        """Fetch adjustments and audits; one that is missing ends a segment."""
        gone = await _expired(connection)
        before: tuple[int, int] | None = None

        def put(row: Row) -> None:
            nonlocal before
            if before != (row.writer_id, row.first - 1):
                laid.split()
            before = row.writer_id, row.last
            laid.put(row._replace(line=_without_what_is_here(row.line, gone)))

        await stream(connection, query("additions"), put=put, heard=self._heard)
        laid.finish()

    async def _damaged(self, connection: asyncpg.Connection) -> list[Problem]:
        return [
            Problem(writer, "damaged", lines=last - first + 1, detail=f"numbers {first} to {last}")
            for writer, first, last in await connection.fetch(query("damaged"))
        ]


async def _expired(connection: asyncpg.Connection) -> dict[str, Spans]:
    """Return the numbers of each writer that were pruned before they were shipped."""
    rows = await connection.fetch(
        "SELECT writer, g.first, g.last FROM litellm_ledger.gaps g "
        "JOIN litellm_ledger.writers USING (writer_id) WHERE reason = 'expired' AND NOT here"
    )
    found: dict[str, Spans] = {}
    for writer, first, last in rows:
        found.setdefault(writer, Spans()).add_range(first, last)
    return found


def _without_what_is_here(line: bytes, gone: dict[str, Spans]) -> bytes:
    """Return an addition; of an audit only the segments whose records never came here.

    What was pruned where it was written, after it had been shipped, is not gone here.
    """
    audit = audit_of(line) if b'"audit"' in line else None
    if audit is None or audit.did != PRUNE:
        return line
    numbers = gone.get(audit.writer)
    kept = []
    for one in audit.segments:
        name = SegmentName.parse(one.segment)
        if name is None or numbers is None:
            continue
        missing = sum(
            last - first + 1 for first, last in numbers.missing(name.first, name.last or 0)
        )
        if missing < (name.last or 0) - name.first + 1:
            kept.append(one)
    return (
        line if len(kept) == len(audit.segments) else encode_addition(replace(audit, segments=kept))
    )


def _strange(rows: int) -> list[Problem]:
    """Return what is said of rows that are no ledger's."""
    if not rows:
        return []
    detail = (
        "rows of no writer, or with a name or number that no ledger gives; "
        "litellm-ledger verify URL says whose"
    )
    return [Problem("litellm_ledger", "damaged", lines=rows, detail=detail)]


def _unshipped(writers: Sequence[_Writer]) -> Unshipped | None:
    behind = [one for one in writers if one.behind]
    if not behind:
        return None
    return Unshipped(
        records=sum(one.behind for one in behind),
        writers=len(behind),
        since=min(one.updated_at for one in behind),
    )
