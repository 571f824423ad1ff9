"""A sealed year, quickly: each day has the calls of the first one, under other numbers and times.

So the tables of each day's manifest are those of the first, which ``seal`` has made, a day later
each time.  ``verify --full`` finds nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from litellm_ledger._aggregates.steps import QUARTER
from litellm_ledger._reading.listing import list_segments
from litellm_ledger._records.layout import MANIFESTS, SEGMENTS, SegmentName
from litellm_ledger._storage.manifest import encode, identity, parse

from .reading import make

__all__ = ["make_year"]

_DAY = timedelta(days=1)
_LINE = b'{"v":1,"id":"%b","seq":%d,"kind":"usage","ts":"%b%b"operation":"%b",'


def make_year(root: Path, lines: int, days: int, begin: datetime, users: int = 50) -> None:
    """Write that many days of outcomes, one segment a day, each with its manifest.

    Args:
        root: where no ledger is yet.
        lines: in all; as many on each day.
        begin: midnight of the first, UTC.
        users: values of the tag ``user``.
    """
    count = max(1, lines // days)
    make(root, count, 1, users, begin)
    subprocess.run(
        [sys.executable, "-m", "litellm_ledger", "seal", str(root)], check=True, capture_output=True
    )
    (name,) = list_segments(root)
    first = root / MANIFESTS / name.manifest
    manifest = parse(first.read_bytes(), name)
    assert manifest is not None
    templates = _templates((root / SEGMENTS / str(name)).read_bytes())
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        write = partial(_write_day, root, name.writer, templates, begin)
        sealed = [*pool.map(write, range(1, days), chunksize=8)]
    previous = identity(first.read_bytes())
    for day, (segment, size, digest, checksum) in enumerate(sealed, 1):
        of_day = msgspec.structs.replace(
            manifest,
            segment=str(segment),
            previous=previous,
            size=size,
            sha256=digest,
            crc32=checksum,
            earliest=_later(manifest.earliest, day),
            latest=_later(manifest.latest, day),
            short=_shifted(manifest.short, day),
            durations=_shifted(manifest.durations, day),
            table=_shifted(manifest.table, day),
            tag_tables={tag: _shifted(raw, day) for tag, raw in manifest.tag_tables.items()},
        )
        data = encode(of_day)
        (root / MANIFESTS / segment.manifest).write_bytes(data)
        previous = identity(data)


def _templates(data: bytes) -> list[tuple[str, bytes, bytes]]:
    """Part lines into their time of day, what is before the response's id, and what is after it."""
    found = []
    for line in data.splitlines():
        body = line[: line.rindex(b',"crc":')]
        at = body.index(b'"ts":"') + 6
        time = body[at + 10 : at + 27]
        middle = body[at + 27 : body.index(b'"operation":"')]
        rest = body[body.index(b'"attempt":') : body.index(b"chatcmpl-")]
        end = body[body.index(b'"', body.index(b"chatcmpl-")) :]
        found.append((time.decode(), b"%b\0%b" % (middle, rest), end))
    return found


def _write_day(
    root: Path, writer: str, templates: list[tuple[str, bytes, bytes]], begin: datetime, day: int
) -> tuple[SegmentName, int, str, str]:
    first = seq = day * len(templates) + 1
    name = writer.encode()
    date = (begin + day * _DAY).date().isoformat()
    held = []
    for time, told, end in templates:
        middle, rest = told.split(b"\0")
        number, moment = b"%b-%016d" % (name, seq), (date + time).encode()
        body = _LINE % (number, seq, moment, middle, number)
        body = b"%b%bchatcmpl-%016x%b" % (body, rest, seq, end)
        held.append(b'%b,"crc":"%08x"}\n' % (body, crc32(body)))
        seq += 1
    data = b"".join(held)
    segment = SegmentName(writer, first, seq - 1)
    (root / SEGMENTS / str(segment)).write_bytes(data)
    return segment, len(data), sha256(data).hexdigest(), f"{crc32(data):08x}"


def _later(moment: str | None, days: int) -> str:
    assert moment is not None
    at = datetime.fromisoformat(moment).astimezone(UTC) + days * _DAY
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _shifted(raw: msgspec.Raw, days: int) -> msgspec.Raw:
    """Return a table of a manifest, days later."""
    table: dict[str, Any] | None = msgspec.json.decode(raw)
    for group in table["groups"] if table else ():
        group["quarters"] = [q + days * (_DAY // QUARTER) for q in group["quarters"]]
    return msgspec.Raw(msgspec.json.encode(table))
