"""``Totals``: running sums of usage and cost, by group.

Owns the accumulators behind ``client.usage.summary(by=…)`` and ``Ledger.report(by=…)``.  Adding a
record is O(1), a summary O(groups); nothing is ever scanned again.  Money is added as whole
picodollars, never as floats.  Pure: no I/O, no clock.

Two ways to group.  ``Totals()`` keeps model, provider, call, status and tags apart, so that every
later ``summary(by=…)`` over those is possible; the number of combinations is bounded, because a tag
such as a request id would otherwise eat the memory.  ``Totals(by=[…])`` keeps only what is asked
for, any key included, and summarises by exactly that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from operator import itemgetter
from typing import Any, Final

from litellm_ledger._records.money import picousd, usd
from litellm_ledger._records.record import Fields

from .calendar import Calendar
from .groups import MISSING, OTHER, Row, check_by, key_of

__all__ = ["FIELDS", "FIGURES", "Row", "Totals", "follows", "row_of"]

_STATUSES: Final = ("ok", "error", "cancelled", "abandoned", "unsettled", "refused")
_COUNTERS: Final = {"provider": "provider_reported", "estimated": "estimated", "none": "uncounted"}
_KEPT_AT: Final = {"status": 0, "usage_source": 1, "model": 2, "provider": 3, "call": 4}
_WASTED: Final = ("error", "cancelled", "abandoned")
FIELDS: Final = (
    "cache_hits",
    "cache_read_tokens",
    "cache_write_tokens",
    "calls",
    "input_tokens",
    "output_tokens",
    "pico",
    "priced",
    "reasoning_tokens",
    "retries",
    "saved",
    "total_tokens",
)
"""What is added up for each combination; all else follows from these, in ``_fold``.

Whole numbers, so that the order of adding is no matter.  They stand in manifests as well
(docs/FORMAT.md), which name the sums that they have.
"""


class _Sums:
    """The sums of one combination; ``status`` and who counted are part of its key."""

    __slots__ = FIELDS

    def __init__(self) -> None:
        self.calls = self.priced = self.pico = self.saved = self.retries = self.cache_hits = 0
        self.input_tokens = self.output_tokens = self.total_tokens = 0
        self.cache_read_tokens = self.cache_write_tokens = self.reasoning_tokens = 0

    def copy(self) -> _Sums:
        other = _Sums()
        for name in FIELDS:
            setattr(other, name, getattr(self, name))
        return other


class Totals:
    """Running sums.  Not safe for several threads adding at once.

    Args:
        by: the keys to keep apart; ``None`` keeps model, provider, call, status and every tag.
        key: what is kept apart, in place of ``by``; read by ``sums``, of which there is no summary.
        max_groups: combinations kept apart; what comes after them goes to ``(other)``, which is
            said by ``folded`` and shown as a group of that name.
        calendar: what the periods among the keys are of.
    """

    __slots__ = ("_by", "_groups", "_key", "_max", "_spare", "folded")

    def __init__(
        self,
        by: Sequence[str] | None = None,
        *,
        key: Callable[[Fields], tuple[Any, ...]] | None = None,
        max_groups: int = 10_000,
        calendar: Calendar | None = None,
    ) -> None:
        self._by = None if by is None else check_by(by)
        keys = [key_of(name, calendar or Calendar()) for name in self._by or ()]
        if key is None and by is not None:
            key = lambda record: (record.status, record.usage_source, *[of(record) for of in keys])  # noqa: E731
        self._key = key
        self._groups: dict[tuple[Any, ...], _Sums] = {}
        self._max = max_groups
        self._spare = max_groups // 10
        self.folded = 0
        """Outcomes counted under ``(other)`` because there were too many groups."""

    def add(self, record: Fields, cost_picousd: int | None) -> None:  # noqa: C901 - one sum after the other, in one function for speed
        """Add one outcome (a ``usage`` record).  O(1).

        ``cost_picousd`` is its cost in picodollars, ``None`` when it is unknown.
        """
        if self._key is None:
            tags = record.tags
            key: tuple[Any, ...] = (
                record.status,
                record.usage_source,
                record.model,
                record.provider,
                record.call,
                tuple(tags.items()) if tags else None,
            )
        else:
            key = self._key(record)
        sums = self._groups.get(key)
        if sums is None:
            sums = self._open(key, 1)
        sums.calls += 1
        if record.cache_hit:
            sums.cache_hits += 1
        if (attempt := record.attempt) is not None and attempt > 1:
            sums.retries += 1
        if cost_picousd is not None:
            sums.priced += 1
            sums.pico += cost_picousd
        saved: Any = record.saved_cost
        if saved is not None:  # a line has it as picodollars already
            sums.saved += saved if type(saved) is int else picousd(saved)
        if count := record.input_tokens:
            sums.input_tokens += count
        if count := record.output_tokens:
            sums.output_tokens += count
        if count := record.total_tokens:
            sums.total_tokens += count
        if count := record.cache_read_tokens:
            sums.cache_read_tokens += count
        if count := record.cache_write_tokens:
            sums.cache_write_tokens += count
        if count := record.reasoning_tokens:
            sums.reasoning_tokens += count

    def add_sums(
        self, status: str | None, source: str | None, group: Sequence[str], sums: Mapping[str, int]
    ) -> None:
        """Add what somebody else has added up over outcomes of one status and one usage source.

        Args:
            group: the values of the keys given to the constructor.
            sums: a sum for each of ``FIELDS``.
        """
        key = (status, source, *group)
        into = self._groups.get(key) or self._open(key, sums["calls"])
        for name in FIELDS:
            setattr(into, name, getattr(into, name) + sums[name])

    def add_all(self, other: Totals) -> None:
        """Add what other totals by the same keys have; what has cancelled out is no group."""
        self.folded += other.folded
        for (status, source, *group), sums in other.sums():
            if any(sums):
                self.add_sums(status, source, group, dict(zip(FIELDS, sums, strict=True)))

    def copy(self) -> Totals:
        """Return totals of their own that go on from these."""
        other = copy(self)
        mine = self._groups.items()
        other._groups = {key: sums.copy() for key, sums in mine}  # noqa: SLF001 - its own class
        return other

    def merge(self, other: Totals) -> None:
        """Add the sums of others, of the same keys."""
        for (status, source, *group), sums in other._groups.items():
            of_one = {name: getattr(sums, name) for name in FIELDS}
            self.add_sums(status, source, group, of_one)
        self.folded += other.folded

    @property
    def limit(self) -> int:
        """How many combinations are kept apart."""
        return self._max

    @property
    def groups(self) -> int:
        """How many combinations there are."""
        return len(self._groups)

    def calls(self) -> int:
        """Return how many outcomes are in the sums."""
        return sum(sums.calls for sums in self._groups.values())

    def sums(self) -> Iterator[tuple[tuple[Any, ...], list[int]]]:
        """Yield what is kept apart, and the sums of it in the order of ``FIELDS``."""
        for key, sums in self._groups.items():
            yield key, [getattr(sums, name) for name in FIELDS]

    def _open(self, key: tuple[Any, ...], calls: int) -> _Sums:
        """Begin a combination, or find the one that stands for those that are too many."""
        if len(self._groups) >= self._max:
            self.folded += calls
            if self._by is None and (folded := (*key[:-1], OTHER)) in self._groups:
                return self._groups[folded]
            if self._by is None and self._spare:  # at first only the tags are given up
                self._spare -= 1
                key = (*key[:-1], OTHER)
            else:
                key = (*key[:2], *[OTHER] * (len(key) - 2))
        return self._groups.setdefault(key, _Sums())

    def summary(self, by: Sequence[str] | None = None) -> list[Row]:
        """Return one row per group, the most expensive first.  O(groups).

        Args:
            by: group keys; ``None`` is those given to the constructor, or one row over everything.

        Raises:
            ValueError: no such key, or one that these totals do not keep apart.
        """
        names = (self._by or ()) if by is None else check_by(by)
        rows = self.figures(names)
        ordered = sorted(
            rows.items(), key=lambda item: (-item[1]["pico"], -item[1]["calls"], item[0])
        )
        return [row_of(dict(zip(names, group, strict=True)), sums) for group, sums in ordered]

    def figures(self, names: Sequence[str]) -> dict[tuple[str, ...], dict[str, int]]:
        """Return ``FIGURES`` of each group.  O(groups).

        Args:
            names: group keys, as ``check_by`` returns them.

        Raises:
            ValueError: as for ``summary``.
        """
        if self._by is None:
            pick = [_kept_key(name) for name in names]
        else:
            missing = [name for name in names if name not in self._by]
            if missing:
                raise ValueError(f"these totals are by {list(self._by)}, not by {missing[0]!r}")
            pick = [itemgetter(2 + self._by.index(name)) for name in names]
        rows: dict[tuple[str, ...], dict[str, int]] = {}
        for key, sums in list(self._groups.items()):
            _fold(
                rows.setdefault(tuple([of(key) for of in pick]), dict.fromkeys(FIGURES, 0)),
                key,
                sums,
            )
        return rows

    def total(self) -> Row:
        """Return the sums over everything."""
        rows = self.summary([])
        return rows[0] if rows else Row()


_PICO: Final = ("estimated_pico", "wasted_pico")
FIGURES: Final = (*FIELDS, *_STATUSES, *_PICO, "unpriced", "unknown_cost", *_COUNTERS.values())
"""What is known of a group: ``FIELDS``, and what follows from them."""


def _kept_key(name: str) -> Callable[[tuple[Any, ...]], str]:
    if name.startswith("tag:"):
        tag = name.removeprefix("tag:")
        return lambda key: OTHER if key[-1] is OTHER else dict(key[-1] or ()).get(tag, MISSING)
    if name not in _KEPT_AT:
        raise ValueError(
            f"running totals are not kept by {name}; Ledger(path).report(by=[{name!r}]) is"
        )
    at = _KEPT_AT[name]
    return lambda key: key[at] or MISSING


def _fold(into: dict[str, int], key: tuple[Any, ...], sums: _Sums) -> None:
    status, source = key[0], key[1]
    for name in FIELDS:
        into[name] += getattr(sums, name)
    if status in _STATUSES:
        into[status] += sums.calls
    sent = status not in ("error", "refused")
    used = sent or source in ("provider", "estimated")
    if used:
        into[_COUNTERS.get(source, "uncounted")] += sums.calls
    if status == "ok":
        into["unpriced"] += sums.calls - sums.priced
    elif used:
        into["unknown_cost"] += sums.calls - sums.priced
    if source == "estimated":
        into["estimated_pico"] += sums.pico
    if status in _WASTED:
        into["wasted_pico"] += sums.pico


def follows(status: str | None, source: str | None) -> dict[str, dict[str, int]]:
    """Return what each of ``FIGURES`` is of outcomes of one status and one usage source.

    It is the sum of ``FIELDS``, each times a factor; those of factor 0 are left out.  So a database
    can add up by the rules of ``_fold``.
    """
    found: dict[str, dict[str, int]] = {figure: {} for figure in FIGURES}
    for name in FIELDS:
        unit, figures = _Sums(), dict.fromkeys(FIGURES, 0)
        setattr(unit, name, 1)
        _fold(figures, (status, source), unit)
        for figure, factor in figures.items():
            if factor:
                found[figure][name] = factor
    return found


def row_of(group: dict[str, str], sums: dict[str, Any]) -> Row:
    """Return the row of a group from its ``FIGURES``, which it uses up."""
    return Row(
        group=group,
        cost=usd(sums.pop("pico")),
        saved_cost=usd(sums.pop("saved")),
        estimated_cost=usd(sums.pop("estimated_pico")),
        wasted_cost=usd(sums.pop("wasted_pico")),
        **sums,
    )
