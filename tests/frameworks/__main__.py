"""`make frameworks`: try each framework in its environment; write the table in docs/capture.md.

Fails, and writes nothing, if a framework cannot be tried. Fails after writing if a call is not on
record, or lacks its tags or its cost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.frameworks.asking import FRAMEWORKS
from tests.frameworks.table import cell, faults, with_table

ROOT = Path(__file__).parents[2]
SEEN = Path(__file__).with_name("seen.json")
PAGE = ROOT / "docs" / "capture.md"
LONG = 600.0
"""Seconds for one framework; some import for 20 s."""
QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "127.0.0.1",
    "OTEL_SDK_DISABLED": "true",
    "PYTHONPATH": str(ROOT),
}


def tried(name: str) -> dict[str, Any]:
    """Run one framework in a process of its own; return what it tells."""
    python = ROOT / ".venv-frameworks" / name / "bin" / "python"
    command = [python, "-m", "tests.frameworks.trial", name]
    environment = {**os.environ, **QUIET}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=LONG, check=False
    )
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-4_000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for case, told in found["cases"].items():
        print(f"{name}: {case}: {cell(told)}")
    return found


def main(names: list[str]) -> None:
    """Try `names`, or all; what is not tried stays as it was."""
    found = json.loads(SEEN.read_text()) if SEEN.exists() else {}
    found |= {name: tried(name) for name in names or FRAMEWORKS}
    found = {name: found[name] for name in FRAMEWORKS if name in found}
    SEEN.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), found))
    if wrong := faults(found):
        sys.exit("\n".join(["not as it should be:", *wrong]))


if __name__ == "__main__":
    main(sys.argv[1:])
