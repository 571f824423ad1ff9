"""Every cell of the table of guarantees, and that the page says what is tried here."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.children import Child
from tests.guarantees import (
    COUNT,
    FAULTS,
    LEVELS,
    NOTHING,
    PAGE,
    PROGRAM,
    QUEUED,
    Level,
    with_tables,
)
from tests.runs import assert_closed, keys

from litellm_ledger import Ledger
from litellm_ledger._maintenance.recover import recover

CELLS = [
    pytest.param(fault, way, level, id=f"{way}-{level}".replace(" ", "_"))
    for fault in FAULTS
    for way in fault.ways
    for level in LEVELS
]


@pytest.mark.parametrize(("fault", "way", "level"), CELLS)
def test_what_is_lost_of_what_was_acknowledged(
    tmp_path: Path, fault: object, way: str, level: Level
) -> None:
    assert isinstance(fault, type(FAULTS[0]))
    program = fault.ways[way]
    # Loops in turn: each fault meets both, and each level does.
    loop = ("asyncio", "uvloop")[(len(way) + LEVELS.index(level)) % 2]
    with Child(f"LEVEL = {level!r}\n{PROGRAM}{program.code}", tmp_path, loop=loop) as child:
        status = child.end()
    acked, there = child.acked, set(keys(tmp_path))
    assert len(acked) >= COUNT, child.stderr
    (writer,) = Ledger(tmp_path).verify().writers
    loss = fault.loses(level)
    if loss == QUEUED:
        assert acked - there, "nothing was lost: the cell shows nothing"
        assert writer.proves == "exact"
        assert writer.lost == len(acked - there), "the count is known"
        assert (writer.unacknowledged, writer.ok) == (0, False)
    else:
        assert loss.startswith(NOTHING)
        assert acked <= there
        assert writer.ok, "nothing that had been acknowledged is lost"
    if program.status != -signal.SIGKILL or level != "queued":
        assert status == program.status
    if writer.state == "died":
        recover(tmp_path)
        assert set(keys(tmp_path)) == there
        (recovered,) = Ledger(tmp_path).verify().writers
        assert recovered.ok == writer.ok
    else:
        assert_closed(tmp_path)
    assert len(keys(tmp_path)) == len(set(keys(tmp_path))), "a record twice"


# -- the page --------------------------------------------------------------------------------------


def test_the_page_shows_the_tables_that_are_tried() -> None:
    page = PAGE.read_text("utf-8")
    assert with_tables(page) == page, "run python -m tests.guarantees"
