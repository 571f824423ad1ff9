"""A ledger of two people, one of whom is to be erased, and a search for her that is not ours."""

from __future__ import annotations

import os
import re
import zlib
from base64 import b64decode
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
from tests.ledger_by_hand import NOON, OTHER_WRITER, WRITER, HandMade, altered

from litellm_ledger import Ledger
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._records.adjustment import Adjustment, encode_addition, group_of
from litellm_ledger._records.layout import SEGMENTS, SegmentName, record_id
from litellm_ledger._records.line import line_of

MARY, JOHN = "mary-jones", "john-smith"
LATER = date(2030, 1, 1)
ADDER = "99991231T000000Z-006959f53f0123ab"
_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})")


class People(HandMade):
    """One writer's calls of both; hers have her name in every member that can have it."""

    def call(self, seq: int, who: str, *, pico: int = 1_230_000, **fields: Any) -> list[bytes]:
        """The beginning of a call and its outcome."""
        given = {
            "ts": NOON + timedelta(seconds=seq),
            "operation": self.id(seq),
            "attempt": 1,
            "model": "m",
            "provider": "openai",
            "tags": {"user": who, "team": f"team of {who}"},
            "call_id": f"call-{who}-{self.writer}-{seq}",
            **fields,
        }
        outcome = {
            "cost": Decimal(pico).scaleb(-12),
            "cost_source": "price_map",
            "price_version": "map-0123456789abcdef01234567",
            "input_tokens": 1_000 + seq,
            "output_tokens": 5,
            "response_id": f"resp-{who}-{seq}",
            "meta": {"said": who},
            "content": {"request": {"messages": [{"content": f"I am {who}"}]}},
        }
        return [
            self.line(seq, kind="started", **given),
            self.line(seq + 1, **given, **outcome),
        ]


def escaped(line: bytes, text: str) -> bytes:
    """The line with the first letter of a text as an escape, as another program may write it."""
    return altered(line, text.encode(), b"\\u%04x%b" % (ord(text[0]), text[1:].encode()))


def adjusted(root: Path, *lines: bytes) -> None:
    """Add a segment in which each of these outcomes costs a dollar more."""
    made = []
    for seq, raw in enumerate(lines, 1):
        line = line_of(raw)
        assert line is not None
        one = Adjustment(
            v=2, id=record_id(ADDER, seq), seq=seq, kind="adjustment", adjusts=line.id,
            at=NOON + timedelta(days=1), who="x", why=f"as {(line.tags or {})['user']} asked",
            old_cost=line.cost, new_cost=(line.cost or 0) + 10**12, **group_of(line),  # type: ignore[arg-type]
        )  # fmt: skip
        made.append(encode_addition(one))
    name = SegmentName(ADDER, 1, len(made))
    (root / SEGMENTS / str(name)).write_bytes(b"".join(made))


def two_people(root: Path, *, archive: bool = True, adjust: bool = True) -> None:
    """Her records and his: in the archive, in segments that overlap, in ``recovery/``."""
    first, second = People(root, WRITER), People(root, OTHER_WRITER)
    mary, john = first.call(1, MARY), first.call(3, JOHN)
    first.sealed(1, 4, [*mary, *john])
    first.sealed(5, 8, [*first.call(5, MARY), *first.call(7, MARY)])
    seal(root)
    if archive:
        compact(root, until=LATER)
    there = [*second.call(1, JOHN), *second.call(3, MARY), *second.call(5, JOHN)]
    second.sealed(1, 6, there)
    second.sealed(3, 5, there[2:5])  # the same lines twice
    odd = [escaped(line, MARY) for line in second.call(7, MARY)]
    second.sealed(7, 8, odd)
    (root / "recovery").mkdir(exist_ok=True)
    kept = root / "recovery" / f"{WRITER}.0000000000000001.jsonl.open.77.torn"
    kept.write_bytes(mary[1][:-40])
    original = root / "recovery" / f"{WRITER}.0000000000000001-0000000000000004.jsonl"
    original.write_bytes(mary[0] + b"damaged" + john[0])
    if adjust:
        adjusted(root, mary[1], john[1])
    seal(root)


def says(root: Path, who: str | None = None) -> Any:
    """All figures of one of them, or of both, line by line and in every group."""
    where = {} if who is None else {"where": {"user": who}}
    keys = ["day", "model", "status", "provider"]
    report = Ledger(root).report(keys, **where)  # type: ignore[arg-type]
    assert not report.problems
    return report.rows, report.total


def traces(root: Path, mark: str = MARY) -> list[str]:
    """Every file below a directory with a mark, by a reading of our own of all that is packed."""
    found = []
    for directory, _, names in os.walk(root):
        for path in (Path(directory) / name for name in names):
            if any(_has(part, mark) for part in _parts(path)) or mark in path.name:
                found += [str(path.relative_to(root))]
    return found


def _has(data: bytes, mark: str) -> bool:
    plain = _ESCAPE.sub(lambda it: chr(int(it[1], 16)).encode("utf-8", "replace"), data)
    return mark.encode() in data.lower() or mark.encode() in plain.lower()


def _parts(path: Path) -> list[bytes]:
    data = path.read_bytes()
    if path.suffix != ".parquet":
        return [data]
    with duckdb.connect() as database:
        rows = database.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
        pairs = database.execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(path)])
        metadata = {bytes(key).decode(): bytes(value) for key, value in pairs.fetchall()}
    kept = zlib.decompress(b64decode(metadata["litellm_ledger_manifests"]))
    return [data, repr(rows).encode(), kept, *metadata.values()]
