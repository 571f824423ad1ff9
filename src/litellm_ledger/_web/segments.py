"""What single segments come to, for one question.

Owns where it is taken from: a manifest that tells, else the lines, which of an open segment are
read on from where they were read to.  What was added up is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litellm_ledger._reading.lines import Problem, entries
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._storage.manifest import Manifest, read

from .fixed import Amounts
from .kept import LARGEST, Kept
from .lines import Matches, needles, new_lines
from .state import Family
from .sums import Adder, Growing, Question, Sums
from .tables import add_durations, sums_of

__all__ = ["Segments"]


class Segments:
    """The segments of a ledger, for one question.

    Args:
        root: the ledger.
        kept: of the question's shape; its lock is held.
        question: to them.
        matches: the lines that were found in sealed segments.
    """

    def __init__(self, root: Path, kept: Kept, question: Question, matches: Matches) -> None:
        self._root = root
        self._kept = kept
        self._question = question
        self._shape = question.shape
        self._matches = matches

    def by_manifest(self, name: SegmentName, manifest: Manifest, into: Amounts) -> bool:
        """Add a sealed segment by its manifest, if that tells."""
        there = self._kept.sealed.get(name)
        if there is None or there[0] != manifest.sha256:
            sums = self._from_manifest(name, manifest, short=True)
        else:
            sums = there[1]
        if sums is not None and self._question.put(sums, *into):
            return True
        if sums is None or not sums.short:
            return False
        sums = self._from_manifest(name, manifest, short=False)
        return sums is not None and self._question.put(sums, *into)

    def by_lines(self, name: SegmentName, manifest: Manifest, into: Amounts) -> bool:
        """Add a sealed segment by its lines, after its manifest did not tell."""
        there = self._kept.sealed.get(name)
        if there == (manifest.sha256, None) or (there and there[1] and there[1].exact):
            return False  # too many, or read before
        sums = self._from_lines(name, manifest)
        return sums is not None and self._question.put(sums, *into)

    def by_family(self, family: Family, into: Amounts) -> list[Problem] | None:
        """Add the lines of segments that nobody writes to; return what is wrong there.

        ``None``, and nothing added: they are to be read again each time.
        """
        sums, problems = self._of_family(family)
        return problems if sums is not None and self._question.put(sums, *into) else None

    def by_growth(self, name: SegmentName, into: Amounts) -> bool:
        """Add an open segment, as far as it is written; tell whether that could be done."""
        growing = self._kept.growing.get(name)
        if growing is None:
            growing = self._kept.growing[name] = Growing(self._shape)
        self._read(growing, name)
        if growing.odd or growing.sums.size > LARGEST:
            return False
        return self._question.put(growing.sums, *into)

    def _from_manifest(self, name: SegmentName, manifest: Manifest, *, short: bool) -> Sums | None:
        """Return the sums that a manifest tells; ``short``: its few rows, if they may do."""
        tags = self._shape.tags
        if manifest.tags is not None:  # of a tag that is on no call here nothing is to be told
            tags = tags.intersection(manifest.tags)
        if len(tags) > 1 or (tags and self._shape.timed):
            return None
        if short and not tags and not self._shape.timed:
            rows = manifest.short_table()
            if rows is not None:
                sums = sums_of(rows, self._shape, None)
                sums.short = True
                return self._kept.keep(name, manifest.sha256, sums)
        there = read(self._root, name)
        if there is None or there[0].sha256 != manifest.sha256:  # another one by now
            return None
        whole = there[0]
        tag = next(iter(tags), None)
        table = whole.table_of(tag)
        durations = whole.duration_table() if self._shape.timed else None
        if table is None or (self._shape.timed and durations is None):
            return None
        sums = sums_of(table, self._shape, tag)
        if durations is not None:
            add_durations(sums, durations, self._shape)
        return self._kept.keep(name, manifest.sha256, sums)

    def _from_lines(self, name: SegmentName, manifest: Manifest) -> Sums | None:
        growing = Growing(self._shape)
        if sought := needles(self._shape.where):
            self._search(growing, name, manifest, sought)
        else:
            self._read(growing, name)
        return self._kept.keep(name, manifest.sha256, None if growing.odd else growing.sums)

    def _of_family(self, family: Family) -> tuple[Sums | None, list[Problem]]:
        if family.signature is None:
            return None, []
        known = self._kept.families.get(family.names)
        if known is not None and known[0] == family.signature:
            return known[1], known[2]
        sums, problems = Sums(1, timed=self._shape.timed, exact=True), list[Problem]()
        adder = Adder(self._shape, sums)
        grows = any(name.open for name in family.all)
        fits = True
        for entry in entries(self._root, family.names, problems, family=family.all):
            if entry.line.status == "unsettled" and grows:  # its outcome may be there one day
                fits = False
                break
            adder.add(entry.line)
        adder.flush()
        fits = fits and sums.size <= LARGEST * len(family.names)
        found = sums.pack() if fits else None
        self._kept.families[family.names] = family.signature, found, problems
        return found, problems

    def _read(self, growing: Growing, name: SegmentName) -> None:
        """Add what was written since; note what is not as a writer leaves it."""
        if growing.odd:
            return
        try:
            for line, after, _ in new_lines(self._root, name, growing.offset):
                growing.take(line)
                growing.offset = after
        except OSError:
            growing.odd = True
        growing.adder.flush()

    def _search(
        self, growing: Growing, name: SegmentName, manifest: Manifest, sought: Sequence[bytes]
    ) -> None:
        """Add the few lines that are wanted, of a segment whose manifest vouches for all."""
        try:
            for line in self._matches.lines(name, manifest.sha256, sought):
                growing.take(line)
        except OSError:
            growing.odd = True
        growing.adder.flush()
