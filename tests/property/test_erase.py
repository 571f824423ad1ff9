"""Erasing from random ledgers of two people: his figures stay to the picodollar, she is nowhere."""

from __future__ import annotations

import shutil
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.disks import QUICK
from tests.ledger_by_hand import OTHER_WRITER, WRITER
from tests.people import JOHN, LATER, MARY, People, adjusted, escaped, says, traces

from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.erase import erase
from litellm_ledger._maintenance.person import Person
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading.anchor import anchor
from litellm_ledger._reading.verify import verify

call = st.fixed_dictionaries(
    {
        "who": st.sampled_from([MARY, JOHN]),
        "pico": st.integers(0, 10**15),
        "cut": st.booleans(),
        "escaped": st.booleans(),
        "status": st.sampled_from(["ok", "error", "cancelled"]),
        "more": st.dictionaries(st.sampled_from("abc"), st.text(max_size=3), max_size=2),
    }
)
segments = st.lists(st.lists(call, min_size=1, max_size=3), min_size=1, max_size=3)


@settings(max_examples=12, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    first=segments,
    second=segments,
    archive=st.booleans(),
    twice=st.booleans(),
    keep=st.booleans(),
)
def test_his_figures_stay_to_the_picodollar_and_she_is_in_no_byte(
    first: Any, second: Any, archive: bool, twice: bool, keep: bool
) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        outcomes = fill(root, WRITER, first, twice=False)
        seal(root, fs=QUICK)
        if archive:
            compact(root, until=LATER, fs=QUICK)
        outcomes += fill(root, OTHER_WRITER, second, twice=twice)
        adjusted(root, *outcomes[::2])
        seal(root, fs=QUICK)
        check(root, keep=keep)
    finally:
        shutil.rmtree(root)


def fill(root: Path, writer: str, calls: list[list[Any]], *, twice: bool) -> list[bytes]:
    """Seal segments of these calls; return the outcomes."""
    hand, seq, outcomes = People(root, writer), 1, []
    for segment in calls:
        lines: list[bytes] = []
        for one in segment:
            made = hand.call(seq + len(lines), one["who"], pico=one["pico"])
            if one["cut"]:
                fields = {"status": one["status"], "cost": Decimal(one["pico"]).scaleb(-12)}
                tags = {**one["more"], "user": one["who"]}
                made = [hand.line(seq + len(lines), tags=tags, **fields)]
            if one["escaped"]:
                made = [escaped(line, one["who"]) for line in made]
            lines += made
            outcomes.append(made[-1])
        hand.sealed(seq, seq + len(lines) - 1, lines)
        if twice and len(lines) > 1:
            hand.sealed(seq, seq + len(lines) - 2, lines[:-1])
        seq += len(lines)
    return outcomes


def check(root: Path, *, keep: bool) -> None:
    his, both, then = says(root, JOHN), says(root), anchor(root)
    done = erase(root, Person([f"user={MARY}"]), who="x", why="y", keep=keep, fs=QUICK)
    assert done.done
    assert done.marks == ()
    assert traces(root) == []
    assert says(root, JOHN) == his
    assert says(root)[1] == (both if keep else his)[1]
    found = verify(root, full=True, anchors=[then])
    assert found.ok
    assert len(found.erasures) == (done.records > 0)
    again = erase(root, Person([f"user={MARY}"]), who="x", why="y", keep=keep, fs=QUICK)
    assert again.nothing
