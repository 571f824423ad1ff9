"""``Person``: whose records an erasure takes out, and the marks by which they are found.

Owns which line is a person's, and where bytes hold one of the marks.  Pure: bytes in, answers out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from litellm_ledger._aggregates.conditions import read_conditions
from litellm_ledger._aggregates.groups import MISSING
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import Released
from litellm_ledger._records.line import Line

__all__ = ["SHORT", "Person", "tags_in", "unescaped"]

SHORT: Final = 4
"""Characters of a mark below which it is looked for as a word of its own: ``u1`` is in many."""

_IDS: Final[dict[str, Callable[[Line], str | None]]] = {
    "call_id": lambda line: line.call_id,
    "response_id": lambda line: line.response_id,
    "operation": lambda line: line.operation or line.id,
}
_CONDITION: Final = re.compile(rf"\s*({'|'.join(_IDS)})\s*(!?)==?(.*)", re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_PLAIN: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_UNUSUAL: Final = (b"\\u", b"\\/")
"""How escapes begin that a line of ours has for no text that can be a mark."""


class Person:
    """The conditions of an erasure: of one key any value may match, all keys must match.

    Args:
        where: ``KEY=VALUE`` and ``KEY!=VALUE``, as reports take them; and ``call_id``,
            ``response_id``, ``operation``.

    Attributes:
        marks: the values that say who it is: of tags and ids.
        forms: how they may stand in a text: as they are, and as writers of JSON escape them.
        selection: the conditions but those of ids; ``ids``: these, by member.
        one_tag: a tag and its values, where nothing else was asked for.

    Raises:
        ValueError: a condition that cannot be read, or none that names a person.
    """

    def __init__(self, where: Sequence[str]) -> None:
        ids: dict[str, set[str]] = {}
        rest = []
        for text in where:
            found = _CONDITION.fullmatch(text)
            if found is None:
                rest.append(text)
            elif found[2]:
                raise ValueError(
                    f"--where {text!r}: give the id that it is, not one that it is not"
                )
            else:
                ids.setdefault(found[1], set()).add(found[3])
        read = read_conditions(rest)
        if read.times:
            raise ValueError("--where ts: an erasure takes no times; it takes all records")
        self.selection = Selection(where=rest)
        self.ids = {key: frozenset(values) for key, values in ids.items()}
        self._ids = [(_IDS[key], values) for key, values in self.ids.items()]
        tags = {
            key: frozenset((*read.wanted.get(key, ()), *read.begun.get(key, ())))
            for key in (*read.wanted, *read.begun)
            if key.startswith("tag:")
        }
        marked = [*tags.values(), *(frozenset(values) for values in ids.values())]
        self.marks = sorted({value for values in marked for value in values})
        if not self.marks:
            raise ValueError(
                "an erasure needs a mark of the person: --where user=u1, or another tag, call_id, "
                "response_id or operation"
            )
        if MISSING in self.marks or "" in self.marks:
            raise ValueError(f"an empty text, or {MISSING}, is not a mark of a person")
        self.forms = sorted(
            {form.decode("utf-8", "surrogatepass") for mark in self.marks for form in _forms(mark)}
        )
        self._forms = [[form for value in values for form in _forms(value)] for values in marked]
        self._sought = [_Sought(value) for value in self.marks]
        self._each = [[_Sought(value) for value in values] for values in marked]
        self.one_tag: tuple[str, frozenset[str]] | None = None
        if len(rest) == len(next(iter(read.wanted.values()), ())) and len(tags) == 1 and not ids:
            ((key, values),) = tags.items()
            self.one_tag = key.removeprefix("tag:"), values

    def has(self, line: Line) -> bool:
        """Whether a record is the person's."""
        if line.kind == "gap":
            return False
        return all(of(line) in values for of, values in self._ids) and self.selection.fits(line)

    def has_adjustment(self, one: Adjustment) -> bool:
        """Whether an adjustment says by itself that it is of the person."""
        if self._ids or self.selection.compared:
            return False
        return self.selection.fits(one)  # type: ignore[arg-type]  # it has the members of a group

    def has_released(self, let: Released) -> bool:
        """Whether a release says by itself that it is of the person's call."""
        if self.one_tag is None:
            return False
        key, values = self.one_tag
        return (let.tags or {}).get(key) in values

    def may_be_in(self, data: bytes) -> bool:
        """Whether a line of the person's may be among these bytes, before any is parsed."""
        if all(any(form in data for form in forms) for forms in self._forms):
            return True
        return any(mark in data for mark in _UNUSUAL)

    def are_all_in(self, data: bytes) -> bool:
        """Whether a mark of each key is in bytes that are no line."""
        text = unescaped(data).lower()
        return all(any(one.count(text) for one in either) for either in self._each)

    def count(self, data: bytes) -> int:
        """Return how often a mark is in bytes, in any way that JSON may write it, in any case.

        A mark that is shorter than ``SHORT`` counts where it is a word of its own.
        """
        low = data.lower()
        found = sum(one.count(low) for one in self._sought)
        if any(mark in data for mark in _UNUSUAL):
            for line in data.splitlines():
                if any(mark in line for mark in _UNUSUAL):
                    plain, written = unescaped(line).lower(), line.lower()
                    found += sum(
                        max(0, one.count(plain) - one.count(written)) for one in self._sought
                    )
        return found

    def is_in(self, text: str) -> bool:
        """Whether a mark is in a text, as ``count`` tells it."""
        return self.count(text.encode("utf-8", "surrogatepass")) > 0

    def without(self, text: str | None) -> str | None:
        """Return a text, or ``None`` if it has a mark; a short one must be all of it."""
        if text is None:
            return None
        low = text.lower()
        for mark in self.marks:
            part = mark.lower()
            if part == low or (len(mark) >= SHORT and part in low):
                return None
        return text


class _Sought:
    """A mark that is looked for in bytes in lower case."""

    def __init__(self, mark: str) -> None:
        self._forms = [form.lower() for form in _forms(mark)]
        self._words = None
        if len(mark) < SHORT:
            either = b"|".join(map(re.escape, self._forms))
            self._words = re.compile(rb"(?<![0-9a-z\x80-\xff])(?:%b)(?![0-9a-z\x80-\xff])" % either)

    def count(self, low: bytes) -> int:
        if self._words is None:
            return sum(map(low.count, self._forms))
        if not any(form in low for form in self._forms):
            return 0
        return sum(1 for _ in self._words.finditer(low))


def tags_in(where: Sequence[str]) -> set[str]:
    """Return the tags in conditions."""
    read = read_conditions(text for text in where if _CONDITION.fullmatch(text) is None)
    keys = {*read.wanted, *read.begun}
    return {key.removeprefix("tag:") for key in keys if key.startswith("tag:")}


def _forms(mark: str) -> list[bytes]:
    """Return how a mark may stand in a file: as it is, and as writers of JSON escape it."""
    plain = mark.encode("utf-8", "surrogatepass")
    forms = {plain, msgspec.json.encode(mark)[1:-1] if _is_text(mark) else plain}
    forms.add(json.dumps(mark)[1:-1].encode())
    return sorted(forms)


def _is_text(mark: str) -> bool:
    try:
        mark.encode()
    except UnicodeEncodeError:
        return False
    return True


def unescaped(data: bytes) -> bytes:
    """Return bytes with the escapes of JSON as what they stand for."""
    if b"\\" not in data:
        return data
    high: list[int] = []

    def plain(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            high.clear()
            return _PLAIN.get(found[2], found[2])
        code = int(found[1], 16)
        if 0xD800 <= code < 0xDC00:
            high[:] = [code]
            return b""
        if 0xDC00 <= code < 0xE000 and high:
            code = 0x10000 + ((high.pop() - 0xD800) << 10) + code - 0xDC00
        high.clear()
        return chr(code).encode("utf-8", "surrogatepass")

    return _ESCAPE.sub(plain, data)
