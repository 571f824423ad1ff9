"""Reports and lists asked of the database: the figures of reading line by line, sooner.

Owns the translation of group keys and selections into SQL.  Defines no figure: what was added up
goes through ``Totals``, which knows what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from litellm_ledger._aggregates.calendar import PERIODS, Calendar
from litellm_ledger._aggregates.groups import KEYS, MISSING
from litellm_ledger._aggregates.quantiles import MEASURED, Sketch, Spread, bucket_sql
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.tag_values import LARGEST, TagValues
from litellm_ledger._aggregates.totals import FIELDS, Totals
from litellm_ledger._archive.columns import OF_RECORD, quoted
from litellm_ledger._archive.database import statement
from litellm_ledger._records.money import usd
from litellm_ledger._records.record import UsageRecord

from .history import Calls, Operation, operation
from .relation import Relation
from .report import MAX_GROUPS, Report, finish
from .report import added as added_up

__all__ = ["calls", "condition", "report", "tag_values", "tags"]

_SUMS: Final = {
    "calls": "count(*)",
    "cache_hits": "count(*) FILTER (cache_hit)",
    "pico": "sum(cost_picousd)",
    "priced": "count(cost_picousd)",
    "retries": "count(*) FILTER (attempt > 1)",
    "saved": "sum(saved_cost_picousd)",
}
"""What is not the sum of the column of its name.  A sum of BIGINT is a HUGEINT: exact."""

_MODEL: Final = "nullif(model, '')"
_MODEL_NAMES: Final = (
    f"[coalesce({_MODEL}, {quoted(MISSING)}), substr({_MODEL}, strpos({_MODEL}, '/') + 1), "
    f"nullif(provider, '') || '/' || {_MODEL}]"
)
"""What ``model_names`` returns, and NULL for what there is not."""

_Group = tuple[str, ...]


def report(
    relation: Relation,
    totals: Totals,
    by: Sequence[str],
    selection: Selection,
    spread: Spread | None,
    *,
    limit: int | None = None,
) -> Report:
    """Add outcomes up by group, and to what ``totals`` (and ``spread``, for quantiles) have.

    See ``Ledger.report``.

    With a ``limit``, only the rows within it leave the database, if they are in order of cost.
    """
    keys = [_key(name, selection.calendar) for name in by]
    named = "".join(f", {key} AS k{at}" for at, key in enumerate(keys))
    where, values = condition(selection)
    label = _label(by, selection.calendar)
    sums = ", ".join(_SUMS.get(name, f"sum({name})") for name in FIELDS)
    query = statement("report").format(keys=named, sums=sums, where=where)
    if limit and by and spread is None and not set(by) & set(PERIODS):
        return _first(relation, totals, by, query, values, limit)
    for status, source, *rest in relation.rows(query, values):
        added = zip(FIELDS, rest[len(by) :], strict=True)
        group = label(rest[: len(by)])
        totals.add_sums(status, source, group, {name: value or 0 for name, value in added})
    if spread is None:
        return finish(totals, by, relation.problems, None, limit)
    names = "".join(f"k{at}, " for at in range(len(by)))
    buckets = {f"{name}_bucket": bucket_sql(name) for name in MEASURED}
    query = statement("spread").format(keys=named, names=names, where=where, **buckets)
    for row in relation.rows(query, values):
        group = label(row[: len(by)])
        of_ttft, *rest = row[len(by) :]
        bucket, count, least, most = rest[4:] if of_ttft else rest[:4]
        if bucket is not None:
            spread.merge(group, MEASURED[of_ttft], Sketch({bucket: count}, least, most))
    return finish(totals, by, relation.problems, spread.quantiles, limit)


def _first(
    relation: Relation,
    before: Totals,
    by: Sequence[str],
    query: str,
    values: Sequence[Any],
    limit: int,
) -> Report:
    """Return the most expensive groups; the others are only counted, and added up."""
    names = ", ".join(f"k{at}" for at in range(len(by)))
    columns = ["status", "usage_source", *names.split(", "), *FIELDS]
    relation.database.execute(
        f"CREATE OR REPLACE TEMP TABLE sums AS SELECT * FROM ({query}) "
        f"AS found({', '.join(columns)})",
        values,
    )
    told = [[*key, *added] for key, added in before.sums()]
    if told:
        marks = ", ".join("?" * len(columns))
        relation.database.executemany(f"INSERT INTO sums VALUES ({marks})", told)
    fields = ", ".join(f"sum({name})" for name in FIELDS)
    shown, whole = Totals(by, max_groups=MAX_GROUPS), Totals([])
    ranked = statement("ranked").format(names=names, fields=", ".join(FIELDS), limit=limit)
    for totals, of in (
        (shown, ranked),
        (whole, f"SELECT status, usage_source, {fields} FROM sums GROUP BY ALL"),
    ):
        keys = len(by) if totals is shown else 0
        for status, source, *rest in relation.rows(of):
            added = zip(FIELDS, rest[keys:], strict=True)
            totals.add_sums(status, source, rest[:keys], {name: n or 0 for name, n in added})
    ((count,),) = relation.rows(f"SELECT count(DISTINCT ({names},)) FROM sums")
    found, total = finish(shown, by, relation.problems, None), whole.total()
    beyond = count - len(found.rows)
    others = added_up(found.rows, total, -1) if beyond else None
    return replace(found, total=total, others=others, others_count=beyond)


def calls(relation: Relation, selection: Selection, limit: int | None) -> Calls:
    """List outcomes, the newest first; see ``Ledger.calls``."""
    where, values = condition(selection)
    query = statement("calls").format(
        columns=", ".join(OF_RECORD), where=where, limit="ALL" if limit is None else int(limit)
    )
    found = [_record_of(row) for row in relation.rows(query, values)]
    ((matched,),) = relation.rows(f"SELECT count(*) FROM calls WHERE {where}", values)
    return Calls(records=found, matched=matched, problems=relation.problems)


def find_operation(relation: Relation, key: str) -> Operation | None:
    """Return one operation with its attempts; see ``Ledger.operation``."""
    found = relation.rows(statement("whose"), [key])
    if not found:
        return None
    query = statement("operation").format(columns=", ".join(OF_RECORD))
    rows = relation.rows(query, [found[0][0]])
    return operation(found[0][0], [_record_of(row) for row in rows])


def _record_of(row: Sequence[Any]) -> UsageRecord:
    """Make a record of a row of the view ``records``."""
    fields = {name: value for name, value in zip(OF_RECORD, row, strict=True) if value is not None}
    if "ts" in fields:
        fields["ts"] = fields["ts"].replace(tzinfo=UTC)
    for name in ("cost", "saved_cost"):
        pico = fields.pop(f"{name}_picousd", None)
        if pico is not None:
            fields[name] = usd(pico)
    for name in ("meta", "content"):
        if name in fields:
            fields[name] = msgspec.json.decode(fields[name])
    return UsageRecord(**fields)


def tags(relation: Relation, selection: Selection) -> set[str]:
    """Return the names of the tags that the outcomes asked for have."""
    where, values = condition(selection)
    return {name for (name,) in relation.rows(statement("tags").format(where=where), values)}


def tag_values(relation: Relation, selection: Selection) -> dict[str, TagValues]:
    """Return how the values of each tag are spread over the outcomes asked for."""
    where, values = condition(selection)
    query = statement("tag_values").format(where=where, most=LARGEST)
    return {
        name: TagValues(calls=calls, values=count, largest=largest)
        for name, calls, count, largest in relation.rows(query, values)
    }


def _key(name: str, calendar: Calendar) -> str:
    """Return the expression for a group key; a period is a number, see ``Calendar``."""
    if name in PERIODS:
        return calendar.sql(name, "ts")
    if name in KEYS:
        return f"coalesce(nullif({name}, ''), {quoted(MISSING)})"
    return f"coalesce(tags[{quoted(name.removeprefix('tag:'))}], {quoted(MISSING)})"


def _label(by: Sequence[str], calendar: Calendar) -> Callable[[Sequence[Any]], _Group]:
    """Return what turns the values of the keys into text."""

    def label(values: Sequence[Any]) -> _Group:
        return tuple(
            value
            if name not in PERIODS
            else MISSING
            if value is None
            else calendar.label(name, value)
            for name, value in zip(by, values, strict=True)
        )

    return label


def condition(selection: Selection) -> tuple[str, list[Any]]:
    """Return a condition over the columns, and the values of its parameters."""
    conditions, parameters = ["true"], list[Any]()
    for sign, bound in ((">=", selection.since), ("<", selection.until)):
        if bound is not None:
            conditions.append(f"ts {sign} ?::TIMESTAMP")
            parameters.append(_utc(bound))
    for asked, sign in ((selection.where, "IS TRUE"), (selection.where_not, "IS NOT TRUE")):
        for name, wanted in asked.items():
            key: str = _key(name, selection.calendar)
            values: list[Any] = sorted(wanted)
            if name in PERIODS:
                values = [selection.calendar.parse(name, v) for v in values if v != MISSING]
                values = [value for value in values if value is not None]
                condition = f"list_contains(?::BIGINT[], {key})"
                if MISSING in wanted:
                    condition = f"({condition} OR {key} IS NULL)"
            elif name == "model":
                condition = f"list_has_any(?::VARCHAR[], {_MODEL_NAMES})"
            else:
                condition = f"list_contains(?::VARCHAR[], {key})"
            conditions.append(f"({condition}) {sign}")
            parameters.append(values)
    return " AND ".join(conditions), parameters


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
