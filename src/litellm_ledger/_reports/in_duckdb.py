"""Lists asked of the database: what reading line by line finds, sooner.

Owns the translation of group keys and selections into SQL.  What is added up is ``grouped``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from litellm_ledger._aggregates.calendar import PERIODS, Calendar
from litellm_ledger._aggregates.conditions import Comparison
from litellm_ledger._aggregates.groups import MISSING
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.tag_values import LARGEST, TagValues
from litellm_ledger._archive.columns import OF_RECORD, quoted
from litellm_ledger._archive.database import statement
from litellm_ledger._records.money import usd
from litellm_ledger._records.record import KEYS, UsageRecord

from .history import Calls, Operation, operation
from .relation import Relation

__all__ = ["calls", "condition", "expression", "find_operation", "selected", "tag_values", "tags"]

_MODEL: Final = "nullif(model, '')"
_MODEL_NAMES: Final = (
    f"coalesce({_MODEL}, {quoted(MISSING)})",
    f"substr({_MODEL}, strpos({_MODEL}, '/') + 1)",
    f"nullif(provider, '') || '/' || {_MODEL}",
)
"""What ``model_names`` returns, and NULL for what there is not."""


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


def selected(relation: Relation, selection: Selection, ids: Iterable[str]) -> set[str]:
    """Return which of these are the ids of outcomes that are asked for."""
    where, values = condition(selection)
    query = f"SELECT id FROM calls WHERE {where} AND id IN (SELECT unnest(?::VARCHAR[]))"
    return {name for (name,) in relation.rows(query, [*values, sorted(ids)])}


def expression(name: str, calendar: Calendar) -> str:
    """Return the expression for a group key; a period is a number, see ``Calendar``."""
    if name in PERIODS:
        return calendar.sql(name, "ts")
    if name in KEYS:
        return f"coalesce(nullif({name}, ''), {quoted(MISSING)})"
    return f"coalesce(tags[{quoted(name.removeprefix('tag:'))}], {quoted(MISSING)})"


def condition(selection: Selection) -> tuple[str, list[Any]]:
    """Return a condition over the columns, and the values of its parameters."""
    conditions, parameters = ["true"], list[Any]()
    for sign, bound in ((">=", selection.since), ("<", selection.until)):
        if bound is not None:
            conditions.append(f"ts {sign} ?::TIMESTAMP")
            parameters.append(_utc(bound))
    for asked, begun, sign in (
        (selection.where, selection.begun, "IS TRUE"),
        (selection.where_not, selection.not_begun, "IS NOT TRUE"),
    ):
        for name, wanted in asked.items():
            key = expression(name, selection.calendar)
            values: list[Any] = sorted(wanted)
            if name in PERIODS:
                values = [selection.calendar.parse(name, v) for v in values if v != MISSING]
                values = [value for value in values if value is not None]
                condition = f"list_contains(?::BIGINT[], {key})"
                if MISSING in wanted:
                    condition = f"({condition} OR {key} IS NULL)"
            elif name == "model":
                condition = f"list_has_any(?::VARCHAR[], [{', '.join(_MODEL_NAMES)}])"
            else:
                condition = f"list_contains(?::VARCHAR[], {key})"
            parameters.append(values)
            if name in begun:
                begins, more = _begins(_MODEL_NAMES if name == "model" else (key,), begun[name])
                condition += begins
                parameters += more
            conditions.append(f"({condition}) {sign}")
    for one in selection.compared:
        text, more = _compared(one)
        conditions.append(text)
        parameters += more
    return " AND ".join(conditions), parameters


def _begins(names: Sequence[str], beginnings: Sequence[str]) -> tuple[str, list[Any]]:
    """Return what else a value may be: one with a beginning; and the values of its parameters."""
    text = "".join(
        f" OR ({name} <> {quoted(MISSING)} AND starts_with({name}, ?::VARCHAR))"
        for name in names
        for _ in beginnings
    )
    return text, [beginning for _ in names for beginning in beginnings]


def _compared(one: Comparison) -> tuple[str, list[Any]]:
    """Return a condition on a number, and the values of its parameters."""
    numbers = [value for value in one.values if value is not None]
    if one.sign not in ("=", "!="):
        return f"({one.column} {one.sign} ?::{one.type}) IS TRUE", numbers
    equal = [f"{one.column} = ?::{one.type}" for _ in numbers]
    if None in one.values:
        equal.append(f"{one.column} IS NULL")
    sign = "IS TRUE" if one.sign == "=" else "IS NOT TRUE"
    return f"({' OR '.join(equal) or 'false'}) {sign}", numbers


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
