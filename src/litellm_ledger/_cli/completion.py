"""``completion``: the script that has a shell complete commands, flags and directories.

Owns nothing of it: the scripts are Click's, and so is what they ask.
"""

from __future__ import annotations

import sys
from typing import Annotated, Final

from .parameters import argument

__all__ = ["completion"]

_SHELLS: Final = ("bash", "zsh", "fish")


def completion(shell: Annotated[str, argument(help="bash, zsh or fish.")]) -> int:
    """Print the script that completes commands and flags in a shell (docs/CLI.md)."""
    from click.shell_completion import get_completion_class

    from .app import app

    found = get_completion_class(shell) if shell in _SHELLS else None
    if found is None:
        raise ValueError(f"there is no completion for {shell!r}; give {', '.join(_SHELLS)}")
    script = found(app, {}, "litellm-ledger", "_LITELLM_LEDGER_COMPLETE").source()
    sys.stdout.write(script.rstrip("\n") + "\n")
    return 0
