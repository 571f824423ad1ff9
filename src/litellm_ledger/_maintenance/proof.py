"""The proof by the database that the columns of an archive file are the lines of its sources.

Owns the comparison, which makes no line an object of Python: that takes a third of the time.  It is
enough for what nearly every line is.  Where it does not prove it, ``parquet`` compares what readers
get, line by line.

A reader gets the columns as JSON of the database's, decoded and encoded (``archive.rebuilt``).
Those bytes are these here, written one after the other, where

- no line has a backslash: then each text is in the line as it is, by both;
- floats are of a size that both write without an exponent, in the fewest digits;
- values of JSON stay the same when they are decoded and encoded: each different one is tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from litellm_ledger._archive.archive import AS_TEXT, Source
from litellm_ledger._archive.columns import COLUMNS, quoted, text_list
from litellm_ledger._archive.database import literally, statement
from litellm_ledger._storage.manifest import LONGEST

if TYPE_CHECKING:
    import duckdb

__all__ = ["gives_back"]

_IN_QUOTES: Final = ("VARCHAR", "TIMESTAMP")
_BATCH: Final = 1_000
_object: Final = msgspec.json.Decoder(dict[str, dict[str, object]])


def gives_back(
    database: duckdb.DuckDBPyConnection,
    path: Path,
    sources: Sequence[Source],
    segments: Sequence[Path],
) -> bool:
    """Whether it is proved that a file gives back every line of its sources, and no other.

    Args:
        database: it reads files in the order of their rows: ``ordered``.
        path: the file, without lines beside their columns.
        sources: what its metadata says of each.
        segments: where the sources are.

    Raises:
        duckdb.Error: something is not read as a line, say.
    """
    counts = ", ".join(f"count({name})" for name in COLUMNS)
    file = f"read_parquet({quoted(literally(path))}, hive_partitioning=false)"
    rows, *found = database.execute(f"SELECT count(*), {counts} FROM {file}").fetchone() or ()
    there = {name: count for name, count in zip(COLUMNS, found, strict=True) if count}
    if "content" in there:  # texts of people: there is a backslash in nearly all of them
        return False
    query = statement("proof").format(
        pieces=_pieces(there, rows),
        plain=" AND ".join(["true", *map(_has_no_exponent, _of_type("DOUBLE", there))]),
        path=quoted(literally(path)),
        paths=text_list(map(literally, segments)),
        longest=LONGEST + 1,
    )
    paths = [str(segment.absolute()) for segment in segments]
    proved = [
        (number, name, source.lines, source.bytes, 0)
        for number, (name, source) in enumerate(zip(paths, sources, strict=True))
    ]
    if sorted(database.execute(query).fetchall(), key=str) != sorted(proved, key=str):
        return False
    return all(_stays(database, name, file) for name in _of_type("JSON", there))


def _of_type(kind: str, names: Mapping[str, int]) -> list[str]:
    return [name for name in names if COLUMNS[name] == kind]


def _pieces(there: Mapping[str, int], rows: int) -> str:
    """Write the line as pieces of it; what a row does not have is left out of it as NULL."""
    pieces = []
    text = '{"v":1'
    for name, count in there.items():
        kind = COLUMNS[name]
        sign = '"' if kind in _IN_QUOTES else ""
        value = f"to_json({name})" if kind.startswith("MAP") else AS_TEXT.get(name, name)
        begin = f',"{name}":{sign}'
        if count == rows:
            pieces += [quoted(text + begin), value]
            text = sign
        else:
            pieces += [quoted(text), f"{quoted(begin)} || CAST({value} AS VARCHAR) || '{sign}'"]
            text = ""
    return ", ".join([*pieces, quoted(f'{text},"crc":"'), "printf('%08x', crc)", quoted('"}')])


def _has_no_exponent(name: str) -> str:
    return f"coalesce({name} = 0 OR abs({name}) BETWEEN 0.001 AND 1e15, true)"


def _stays(database: duckdb.DuckDBPyConnection, name: str, file: str) -> bool:
    """Whether each different value of a column is, as a reader gets it, what it was in the line."""
    value = f"CAST(to_json(struct_pack(value := {name})) AS VARCHAR)"
    values = f"SELECT DISTINCT {name} FROM {file} WHERE {name} IS NOT NULL"
    result = database.execute(f"SELECT CAST({name} AS VARCHAR), {value} FROM ({values})")
    while batch := result.fetchmany(_BATCH):
        for text, given in batch:
            try:
                if msgspec.json.encode(_object.decode(given)["value"]) != text.encode():
                    return False
            except msgspec.DecodeError:
                return False
    return True
