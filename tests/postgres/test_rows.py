"""A line that went into PostgreSQL reads the same when it comes back, whatever it says."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args
from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.realistic import lines as realistic_lines
from tests.realistic import writer_name

from litellm_ledger._archive.columns import COLUMNS as MEMBERS
from litellm_ledger._postgres import database
from litellm_ledger._records.layout import record_id
from litellm_ledger._records.line import SEALED, checked, decode, line_of
from litellm_ledger._records.record import MAX_INT, Status
from litellm_ledger._shipping.rows import COLUMNS, MARK, Rows
from litellm_ledger._warehouse.as_lines import line_of_row

WRITER = writer_name(7)
MONTHS = frozenset({202611})


def sealed(members: dict[str, Any] | bytes) -> bytes:
    body = members if isinstance(members, bytes) else json.dumps(members).encode()
    return b'%b,"crc":"%08x"}\n' % (body[:-1], crc32(body[:-1]))


def outcome(seq: int = 1, **members: Any) -> bytes:
    """A line by hand: members as JSON has them."""
    fixed = {"v": 1, "id": record_id(WRITER, seq), "seq": seq, "kind": "usage"}
    return sealed({**fixed, **members})


class Table:
    """The table ``calls`` of a database, for one test after the other."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._connection = self.run(database.connect(url))
        made = (
            "SELECT litellm_ledger.make_partition(month) FROM unnest($1::int[]) AS month "
            "WHERE month NOT IN (SELECT * FROM litellm_ledger.partitions())"
        )
        self.run(self._connection.fetch(made, [202609, 202610, *MONTHS]))

    def run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    def lines(self, rows: Rows, writer: str = WRITER) -> list[bytes]:
        """Copy rows into the table, and return them as lines."""
        self.through(rows, ["seq"])
        asked = (
            f"SELECT c.line, {line_of_row(slim=False)} FROM litellm_ledger.calls c, "
            "(SELECT $1 AS writer) AS w ORDER BY c.seq"
        )
        found = self.run(self._connection.fetch(asked, writer))
        bodies = [body.encode() for _, body in found]
        return [
            kept or SEALED % (body, crc32(body))
            for (kept, _), body in zip(found, bodies, strict=True)
        ]

    def through(self, rows: Rows, columns: Sequence[str]) -> list[Any]:
        """Copy rows into the table, and return what is there then."""

        async def source() -> AsyncIterator[bytes]:
            for chunk in rows.chunks():
                yield chunk

        async def both() -> list[Any]:
            await self._connection.execute("TRUNCATE litellm_ledger.calls")
            await self._connection.copy_to_table(
                "calls",
                schema_name="litellm_ledger",
                columns=rows.columns,
                source=source(),
                format="binary",
            )
            asked = f"SELECT {', '.join(columns)} FROM litellm_ledger.calls ORDER BY seq"
            return list(await self._connection.fetch(asked))

        return self.run(both())

    def close(self) -> None:
        self.run(self._connection.close())
        self._runner.close()


@pytest.fixture(scope="module")
def table(module_database_url: str) -> Iterator[Table]:
    table = Table(module_database_url)
    yield table
    table.close()


def rows_of(lines: list[bytes], months: frozenset[int] = MONTHS) -> Rows:
    rows = Rows(WRITER, 3, months)
    rows.extend(range(1, len(lines) + 1), lines)
    return rows


# -- what any line may say -----------------------------------------------------------------------

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["\0", "a\0b", "␀", "\\u0000", "�", "\U0001f600", "'\"", "\x7f\x1f"]
)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_count = st.integers(0, MAX_INT)
_money = st.integers(-(2**63) + 1, 2**63 - 1)
_hold = st.integers(0, 2**63 - 1)
_real = st.floats(allow_nan=False, allow_infinity=False)
_moment = st.datetimes(
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))])
) | st.timedeltas(timedelta(0), timedelta(days=30)).map(
    lambda since: datetime(2026, 11, 1, tzinfo=UTC) + since
)
_operation = (
    st.integers(0, 10**16 - 1).map(lambda seq: record_id(WRITER, seq))
    | st.integers(1, 9).map(lambda seq: record_id(writer_name(8), seq))
    | _text
    | st.sampled_from([f"{WRITER}-+000000000000005", f"{WRITER}-00000000000000_5", f"{WRITER}-٣"])
)
_BY_TYPE = {
    "BIGINT": _count,
    "BOOLEAN": st.booleans(),
    "DOUBLE": _real,
    "VARCHAR": _text,
    "MAP(VARCHAR, VARCHAR)": st.dictionaries(_text, _text, max_size=4),
    "JSON": st.dictionaries(_text, _json, max_size=3),
}
_BY_NAME = {
    "cost_picousd": _money,
    "saved_cost_picousd": _money,
    "hold_picousd": _hold,
    "most_picousd": _hold,
    "audio_seconds": st.floats(0, MAX_INT),
    "ts": _moment.map(lambda ts: ts.isoformat()),
    "operation": _operation,
    "status": st.sampled_from(get_args(Status)),
    "usage_source": st.sampled_from(["provider", "estimated", "none"]),
}
_OPTIONAL = [name for name in MEMBERS if name not in ("id", "seq", "kind", "gap_until", "reason")]
_members = st.fixed_dictionaries(
    {},
    optional={
        name: st.none() | _BY_NAME.get(name, _BY_TYPE.get(MEMBERS[name])) for name in _OPTIONAL
    },
)


@given(st.lists(_members, min_size=1, max_size=12))
@example([{"ts": "0001-01-01T00:00:00Z"}, {"ts": "9999-12-31T23:59:59.999999Z"}])
@example([{"ts": "0001-01-01T00:00:00+05:45"}, {"ts": "2026-11-01T00:00:00+05:45"}])
@example([{"tags": {"a\0": "\0", "a␀": "x"}, "meta": {"\0": [{"\0": "\0"}]}, "model": "\0"}])
@example([{"cost_picousd": -(2**63) + 1}, {"cost_picousd": 2**63 - 1, "latency_ms": -0.0}])
@example([{"meta": {"n": 10**40, "f": 1e308, "g": 5e-324, "one": 1.0}, "latency_ms": 1.7e308}])
@example([{"operation": record_id(WRITER, 1), "status": "unsettled", "attempt": 2}])
@settings(max_examples=40)
def test_any_line_reads_the_same_when_it_comes_back(
    table: Table, given: list[dict[str, Any]]
) -> None:
    lines = [outcome(seq, **members) for seq, members in enumerate(given, 1)]
    rows = rows_of(lines)
    valid = {seq: line for seq, line in enumerate(lines, 1) if line_of(line) is not None}
    assert rows.damaged == sorted(set(range(1, len(lines) + 1)) - set(valid))
    back = table.lines(rows)
    assert all(map(checked, back))
    assert list(map(line_of, back)) == list(map(line_of, valid.values()))
    assert list(map(decode, back)) == list(map(decode, valid.values()))
    assert rows.cost_picousd == sum(line_of(line).cost or 0 for line in valid.values())
    assert rows.outcomes == len(rows.settled) == len(valid)


def test_lines_of_a_busy_service_read_the_same(table: Table) -> None:
    writer = writer_name(9)
    lines = list(realistic_lines(writer, 500))
    rows = Rows(writer, 3, {202609, 202610})
    rows.extend(range(1, 501), lines)
    back = table.lines(rows, writer)
    assert list(map(line_of, back)) == list(map(line_of, lines))


# -- what is no record ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        b'{"tags":{"a":1}}',
        b'{"tags":["a"]}',
        b'{"tags":"a"}',
        b'{"meta":[1]}',
        b'{"meta":{"a":1e999}}',
        b'{"meta":{"a":"\\ud800"}}',
        b'{"tags":{"a":"\\udc00"}}',
        b'{"meta":{"a":"\xff"}}',
        b'{"meta":{"a":"\xed\xa0\x80"}}',
        b'{"model":"\\ud800"}',
        b'{"content":1}',
        b'{"content":{"a":"' + b"x" * 300_000 + b'"}}',
        b'{"cost_picousd":9223372036854775808}',
        b'{"input_tokens":9007199254740992}',
        b'{"input_tokens":-1}',
        b'{"status":"done"}',
        b'{"reason":"lost"}',
        b'{"gap_until":7}',
        b'{"seq":7}',
        b'{"id":"20260901T000000Z-0000000000000007-0000000000000002"}',
        b'{"kind":"other"}',
        b'{"ts":"2026-11-31T00:00:00Z"}',
        b'{"ts":"2026-11-30T00:00:00"}',
        b'{"ts":"0001-01-01T00:00:00+01:00"}',
        b'{"latency_ms":1e999}',
        b'{"latency_ms":NaN}',
        b'{"v":2}',
        b'{"attempt":1.5}',
        b"{",
    ],
)
def test_what_is_no_record_is_damage_here_too(members: bytes) -> None:
    fixed = outcome()[: -len(b',"crc":"00000000"}\n')]
    assert line_of(sealed(fixed + b"}")) is not None
    line = sealed(fixed + b"," + members[1:-1] + b"}")
    found = line_of(line)
    assert found is None or (found.id, found.seq) != (record_id(WRITER, 1), 1)
    rows = rows_of([line])
    assert (rows.damaged, rows.outcomes) == ([1], 0)


_bytes = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"\\u0000", b"1", b"e9", b"null", b"a"]
        + [name.encode() for name in ("tags", "meta", "ts", "model", "content", "2026-11-05")]
    ),
    max_size=14,
)


@given(st.sampled_from(["tags", "meta", "content", "model", "ts", "cost_picousd"]), _bytes)
def test_the_verdict_on_any_bytes_is_that_of_the_reader(name: str, pieces: list[bytes]) -> None:
    fixed = outcome()[: -len(b',"crc":"00000000"}\n')]
    line = sealed(fixed + b',"%b":%b}' % (name.encode(), b"".join(pieces)))
    found = line_of(line)
    good = found is not None and found.id == record_id(WRITER, 1) and found.seq == 1
    rows = rows_of([line])
    assert (rows.damaged == []) == good
    assert rows.outcomes + len(rows.started) + len(rows.gaps) == good


# -- kinds ---------------------------------------------------------------------------------------


def test_each_kind_goes_to_its_place(table: Table) -> None:
    ts = "2026-11-05T06:07:08.900000Z"
    lines = [
        outcome(1, kind="started", ts=ts, operation=record_id(WRITER, 1), attempt=1, model="a\0b"),
        outcome(2, ts=ts, operation=record_id(WRITER, 1), attempt=1, cost_picousd=5),
        outcome(3, kind="gap", gap_until=6, reason="lost", acked_until=4),
        outcome(7, status="unsettled", operation="theirs", attempt=2),
    ]
    rows = Rows(WRITER, 3, MONTHS)
    rows.extend([1, 2, 3, 7], lines)
    assert rows.started == [
        (1, datetime(2026, 11, 5, 6, 7, 8, 900_000, UTC), 1, None, 1, None, None, lines[0])
    ]
    assert rows.settled == [(1, None, 1), (None, "theirs", 2)]
    assert rows.unsettled == [(7, (None, "theirs", 2))]
    assert rows.gaps == [(3, 6, "lost", 4)]
    assert (rows.outcomes, rows.cost_picousd, rows.damaged, rows.missing) == (2, 5, [], set())
    found = table.through(rows, ["seq", "month", "ts", "isfinite(ts)"])
    assert [(row["seq"], row["month"], row["isfinite"]) for row in found] == [
        (2, 202611, True),
        (7, 0, False),
    ]


def test_a_month_without_a_partition_is_named_and_its_rows_have_a_place(table: Table) -> None:
    lines = [outcome(1, ts="2031-02-03T00:00:00Z"), outcome(2, ts="2026-11-03T00:00:00Z")]
    rows = rows_of(lines)
    assert rows.missing == {203102}
    found = table.through(rows, ["month", "tableoid::regclass::text AS place"])
    assert sorted(map(tuple, found)) == [
        (0, "litellm_ledger.calls_outside"),
        (202611, "litellm_ledger.calls_202611"),
    ]


def test_poison_is_marked_where_people_look_and_kept_as_it_is(table: Table) -> None:
    line = outcome(1, model="m\0", tags={"user": "a\0"}, meta={"x": "\0"}, call_id="\\u0000")
    (row,) = table.through(
        rows_of([line]), ["model", "tags->>'user' AS u", "meta->>'x' AS x", "call_id", "line"]
    )
    assert tuple(row) == (f"m{MARK}", f"a{MARK}", MARK, "\\u0000", line)


# -- the table -----------------------------------------------------------------------------------


def test_the_table_has_the_members_of_a_line_and_no_others(table: Table) -> None:
    found = {
        row["attname"]
        for row in table.run(
            table._connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped "
                "AND attrelid = 'litellm_ledger.calls'::regclass"
            )
        )
    }
    assert found == set(COLUMNS)
    members = set(MEMBERS) - {"id", "kind", "gap_until", "reason"}
    assert found - members == {"writer_id", "month", "operation_seq", "line"}
    assert members <= found


def test_caches_of_encoded_values_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    from litellm_ledger._shipping import fields

    lines = [
        outcome(
            seq,
            ts="2026-11-05T06:07:08.900000Z",
            operation=record_id(WRITER, seq),
            attempt=1,
            model=f"m{seq}",
            cost_picousd=1,
            input_tokens=1,
            output_tokens=1,
            total_tokens=2,
            latency_ms=1.5,
            tags={"request": str(seq)},
            meta={"n": seq, "long": "x" * (seq % 2 * 2_000)},
        )
        for seq in range(1, 6_001)
    ]
    monkeypatch.setattr(fields, "_KEPT", 4_000)
    rows = rows_of(lines)
    assert rows.outcomes == 6_000
    for cache in (fields.known_combinations, fields.known_tags, fields.known_objects):
        assert 0 < len(cache) <= 4_000
        assert max(map(len, cache.values())) <= 300
    assert math.isclose(rows.cost_picousd, 6_000)
