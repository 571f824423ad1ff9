"""Run the benchmarks and write the page.

    python -m benchmarks                       every section, and docs/BENCHMARKS.md
    python -m benchmarks recording calls       some sections, printed and not written
    python -m benchmarks --quick               all of it in tiny counts: does it still run?

Each section runs in a process of its own, under a time limit, so that none can disturb, hang or end
the others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from ._page import PAGE, ROOT, write_figures
from ._size import Size
from ._table import Table

SECTIONS = {
    "recording": "Recording",
    "memory": "Memory",
    "lag": "The event loop",
    "calls": "Calls",
    "prices": "Prices",
    "cache": "The response cache",
    "budgets": "Budgets",
    "processes": "Several processes",
    "starting": "Start",
    "reading": "Reading a history",
    "rows": "Rows in PostgreSQL",
    "loss": "What is lost",
}
LIMIT = 400.0
"""Seconds after which a section is ended; on a quiet machine all of them take seven minutes."""


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 1 if a section failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="tiny counts: does it still run?")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="default, if all of them run: docs/BENCHMARKS.md"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if options.json is not None:
        (name,) = options.sections
        options.json.write_text(json.dumps(_run_here(name, Size(quick=options.quick))))
        return 0

    names = options.sections or list(SECTIONS)
    began = time.monotonic()
    found: dict[str, list[Table]] = {}
    for name in names:
        tables = _run_apart(name, quick=options.quick)
        if tables is not None:
            found[name] = tables
    took = time.monotonic() - began
    print(f"\n{len(found)} of {len(names)} sections in {took:.0f} s")
    page = options.page
    if page is None and not options.sections and not options.quick:
        page = PAGE
    if page is not None:
        write_figures(page, {SECTIONS[name]: found.get(name) for name in names}, took)
        print(f"written: {page}")
    return 0 if len(found) == len(names) else 1


def _run_here(name: str, size: Size) -> list[dict[str, object]]:
    tables: list[Table] = import_module(f"{__package__}.{name}").run(size)
    return [table.json() for table in tables]


def _run_apart(name: str, *, quick: bool) -> list[Table] | None:
    print(f"==> {name}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory, "tables.json")
        command = [sys.executable, "-m", "benchmarks", name, "--json", str(result)]
        began = time.monotonic()
        try:
            subprocess.run(command + ["--quick"] * quick, check=True, timeout=LIMIT, cwd=ROOT)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            print(f"benchmarks: {name} failed: {exc}", file=sys.stderr)
            return None
        tables = [Table(**table) for table in json.loads(result.read_text())]
    for table in tables:
        print(table.text())
    print(f"\n    {time.monotonic() - began:.0f} s", flush=True)
    return tables


if __name__ == "__main__":
    sys.exit(main())
