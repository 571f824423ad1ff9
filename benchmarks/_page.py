"""``docs/BENCHMARKS.md``: the figures and the soak, each part replaced whole by who ran it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ._machine import describe
from ._table import Table

__all__ = ["PAGE", "ROOT", "write_figures", "write_part"]

ROOT: Final = Path(__file__).resolve().parent.parent
"""Where `python -m benchmarks…` has to be run."""
PAGE: Final = ROOT / "docs" / "BENCHMARKS.md"

_HEAD: Final = """\
# Benchmarks

Measured by `make bench` (about seven minutes) and `make soak`, which write this page; do not edit
it. Every figure stands beside a peer or a limit that was measured in the same run and in turns with
it, because absolute figures say more about the machine. `a (b–c)` is the median and the quartiles
of all rounds. What each section does is in [benchmarks/](../benchmarks/README.md).
"""
_PARTS: Final = ("figures", "soak")


def write_figures(page: Path, sections: Mapping[str, list[Table] | None], took: float) -> None:
    """Write the machine and all tables; a section without tables failed, and the page says so."""
    parts = ["## The machine\n", "| | |\n| --- | --- |"]
    machine = [*describe(Path(tempfile.gettempdir())), ("this run", f"{took / 60:.1f} minutes")]
    parts[-1] += "".join(f"\n| {name} | {value} |" for name, value in machine) + "\n"
    for title, tables in sections.items():
        parts.append(f"## {title}\n")
        if tables is None:
            parts.append("This section failed in this run.\n")
        else:
            parts += [table.markdown() for table in tables]
    write_part(page, "figures", "\n".join(parts))


def write_part(page: Path, part: str, text: str) -> None:
    """Replace one part of the page, or make the page; the other part stays as it is."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    parts = []
    for name in _PARTS:
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        if name == part:
            body = text.rstrip("\n") + "\n"
        else:
            kept = re.search(re.escape(begin) + "(.*?)" + re.escape(end), old, re.DOTALL)
            body = kept[1] if kept else ""
        parts.append(begin + body + end)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join([_HEAD, *parts]), encoding="utf-8")
