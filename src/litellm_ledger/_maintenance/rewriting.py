"""What an erasure writes in place of a person's records: gaps, or lines that name nobody.  Pure.

Owns what stays of a record whose amounts are kept, and how a file that is not whole keeps every
other byte at its place.  Bytes in, bytes out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from litellm_ledger._records.adjustment import Adjustment, ErasedAdjustment, encode_addition
from litellm_ledger._records.audit import Audit, Released
from litellm_ledger._records.layout import ADJUSTMENT_VERSION, SegmentName, split_id
from litellm_ledger._records.line import SEALED, SUFFIX, Line, line_of
from litellm_ledger._records.record import KEYS
from litellm_ledger._records.scan import Head, heads
from litellm_ledger._storage.manifest import Manifest, encode, utc_text

from .person import Person
from .salvage import gap_line

__all__ = ["InPlace", "Rewriter", "anonymous", "in_place", "untold"]

_DROPPED: Final = ("tags", "call_id", "response_id", "meta", "content", "price_version")
"""What goes although the amounts stay.  A price that cannot be checked without ``meta`` has no
version."""
_TEXTS: Final = ("call", "model", "response_model", "provider", "error", "cost_source")
_encode: Final = msgspec.json.Encoder().encode
_head: Final = msgspec.json.Decoder(Head).decode


class Rewriter:
    """Makes what stands in place of a person's lines.

    Args:
        person: whose.
        keep: whether their amounts stay.
    """

    def __init__(self, person: Person, *, keep: bool) -> None:
        self.person = person
        self.keep = keep
        self._operations: dict[str, str] = {}

    def lines(
        self, lines: Iterable[bytes], name: SegmentName, gone: Container[int]
    ) -> Iterator[bytes]:
        """Yield the lines of a whole segment without those of these numbers.

        Numbers that follow each other become one gap, with the erased ones that are there already.
        """
        begin = b'{"v":1,"id":"%b-' % name.writer.encode()
        at = slice(len(begin), len(begin) + 16)
        first = last = 0
        for raw in lines:
            plain = raw.startswith(begin) and raw[at].isdigit() and b'"kind":"gap"' not in raw
            head = None if plain else _head(raw)
            seq = int(raw[at]) if head is None else head.seq
            erased = head is not None and head.kind == "gap" and head.reason == "erased"
            if not erased and seq not in gone:
                if first:
                    yield gap_line(name.writer, first, last, "erased")
                    first = 0
                yield raw
            elif erased and head is not None:
                first, last = first or seq, head.last
            elif self.keep:
                if first:
                    yield gap_line(name.writer, first, last, "erased")
                    first = 0
                yield self.kept(raw)
            else:
                first, last = first or seq, seq
        if first:
            yield gap_line(name.writer, first, last, "erased")

    def kept(self, raw: bytes) -> bytes:
        """Return a line with its number, time and amounts, and nothing that names somebody."""
        line = line_of(raw)
        if line is None:
            raise ValueError("no record")  # pragma: no cover - only lines that were read come here
        members: dict[str, Any] = msgspec.to_builtins(line)
        for name in _DROPPED:
            members.pop(name, None)
        for name in _TEXTS:
            members[name] = self.person.without(members[name])
        if line.ts is not None:
            members["ts"] = utc_text(line.ts)
        if line.operation is not None and split_id(line.operation) is None:
            members["operation"] = self._operations.setdefault(line.operation, line.id)
        known = {name: value for name, value in members.items() if value is not None}
        body = _encode({"v": 1} | known)[:-1]
        return SEALED % (body, crc32(body))

    def is_kept(self, raw: bytes) -> bool:
        """Whether a line is already what stays of it."""
        return self.keep and self.kept(raw) == raw

    def adjustment(self, one: Adjustment, *, keep: bool = False) -> bytes:
        """Return what stands in place of an adjustment; ``keep``: its amount stays in any case."""
        if not (self.keep or keep):
            gone = ErasedAdjustment(
                v=ADJUSTMENT_VERSION, id=one.id, seq=one.seq, gap_until=one.seq, at=one.at
            )
            return encode_addition(gone)
        texts = {name: self.person.without(getattr(one, name)) for name in _TEXTS}
        why = "" if self.person.is_in(one.why) else one.why
        versions = dict.fromkeys(("old_price_version", "new_price_version"))
        kept = msgspec.structs.replace(one, tags=None, why=why, **texts, **versions)
        return encode_addition(kept)

    def release(self, one: Audit, is_theirs: Callable[[Released], bool]) -> bytes:
        """Return an audit of releases without those of the person, or without their names.

        A release goes with the amount that it takes off: else it would be taken off of others.
        """
        released = []
        for let in one.released:
            if not is_theirs(let):
                released.append(let)
            elif self.keep:
                model = self.person.without(let.model)
                released.append(msgspec.structs.replace(let, tags=None, model=model))
        return encode_addition(msgspec.structs.replace(one, released=released))


class InPlace(NamedTuple):
    """A file whose every other byte stayed at its place.

    Attributes:
        data: its bytes now.
        records: ids of the person's records in it.
        hidden: places without a record that were written over, as a mark was in them.
    """

    data: bytes
    records: list[str]
    hidden: int


def in_place(
    data: bytes,
    rewriter: Rewriter,
    is_theirs: Callable[[Line], bool],
    hides: Callable[[bytes], bool],
) -> InPlace:
    """Take a person's lines out of bytes that need be no whole segment.

    What takes their place is as long: blanks before its checksum make up for what is gone.  So all
    else, damage included, stays where somebody has seen it.

    Args:
        data: of a segment, or of a part of one.
        rewriter: makes what takes the place of a line.
        is_theirs: whether a line is the person's.
        hides: whether bytes that are no line are to be written over.
    """
    parts: list[bytes] = []
    records: list[str] = []
    hidden = 0
    for _, head, raw in heads(data):
        line = line_of(raw) if head is not None else None
        if line is not None and is_theirs(line):
            parts.append(_instead(raw, line, rewriter))
            records.append(line.id)
        elif line is None and hides(raw):
            parts.append(_blackened(raw))
            hidden += 1
        else:
            parts.append(raw)
    return InPlace(b"".join(parts), records, hidden)


def _instead(raw: bytes, line: Line, rewriter: Rewriter) -> bytes:
    owner = split_id(line.id)
    if rewriter.keep:
        new = rewriter.kept(raw)
    elif owner is None:  # not a line of ours: no gap can have its name
        return _blackened(raw)
    else:
        new = gap_line(*owner, owner[1], "erased")
    body = new[:-SUFFIX] + b" " * (len(raw) - len(new))
    return SEALED % (body, crc32(body))


def _blackened(raw: bytes) -> bytes:
    end = len(raw) - len(raw.rstrip(b"\n"))
    return b"#" * (len(raw) - end) + b"\n" * end


def untold(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest without its tables: of a segment that is not what it says."""
    bare = msgspec.structs.replace(manifest.light(), tags=None, head="")
    return encode(bare)


def anonymous(manifest: Manifest, hides: Callable[[str | None, str], bool]) -> Manifest | None:
    """Return a manifest whose tables name a person nowhere; ``None`` if they do not.

    What the person's values came to is counted as of records without them.  For a manifest whose
    lines are not there any more: no total changes.

    Args:
        manifest: of a segment that is gone.
        hides: whether a value is the person's; of a tag, ``None``: of a member of records.
    """
    names = ("short", "durations", "table")
    tables: dict[str, Any] = {
        name: new
        for name in names
        if (new := _anonymous(getattr(manifest, name), None, hides)) is not None
    }
    of_tags = {
        tag: new
        for tag, raw in manifest.tag_tables.items()
        if (new := _anonymous(raw, tag, hides)) is not None
    }
    if not (tables or of_tags):
        return None
    tables["tag_tables"] = {**manifest.tag_tables, **of_tags}
    return msgspec.structs.replace(manifest, head="", **tables)


def _anonymous(
    raw: msgspec.Raw, tag: str | None, hides: Callable[[str | None, str], bool]
) -> msgspec.Raw | None:
    table: dict[str, Any] | None = msgspec.json.decode(raw)
    if table is None:
        return None
    groups: list[dict[str, Any]] = []
    places: dict[str, int] = {}
    found = False
    for group in table["groups"]:
        of = group["of"]
        for at, value in enumerate(of):
            which = tag if at == len(KEYS) else None
            if value is not None and hides(which, value):
                of[at], found = None, True
        key = msgspec.json.encode(of).decode()
        if key in places and "sums" in group:
            groups[places[key]] = _joined(groups[places[key]], group)
        else:
            places[key] = len(groups)
            groups.append(group)
    return msgspec.Raw(msgspec.json.encode({**table, "groups": groups})) if found else None


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Add two groups of a table up, quarter by quarter."""
    sums: dict[int | None, dict[str, int]] = {}
    for group in (one, other):
        for at, quarter in enumerate(group["quarters"]):
            there = sums.setdefault(quarter, {})
            for name, values in group["sums"].items():
                there[name] = there.get(name, 0) + values[at]
    quarters = sorted(sums, key=lambda quarter: (quarter is not None, quarter or 0))
    names = {name for there in sums.values() for name in there}
    return {
        "of": one["of"],
        "quarters": quarters,
        "sums": {name: [sums[quarter].get(name, 0) for quarter in quarters] for name in names},
    }
