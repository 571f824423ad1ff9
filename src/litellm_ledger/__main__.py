"""``python -m litellm_ledger`` and the ``litellm-ledger`` command.

Owns the one check that the optional packages of the command line are there.
"""

from __future__ import annotations

import gc
import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> int:
    """Run the command line; return its exit status (0 fine, 1 lost or damaged, 2 cannot)."""
    for needed in ("click", "rich"):
        if find_spec(needed) is None:
            from litellm_ledger._errors import MissingExtra

            sys.stderr.write(f"litellm-ledger: {MissingExtra(needed, 'cli')}\n")
            return 2
    from litellm_ledger._cli.app import app

    try:
        app(prog_name="litellm-ledger")
    finally:
        # What is left ends with the process.  To search it for cycles once more takes a sixth of
        # the time of a short command.
        gc.freeze()
    return 0  # the app ends by SystemExit with the status


if __name__ == "__main__":
    sys.exit(main())
