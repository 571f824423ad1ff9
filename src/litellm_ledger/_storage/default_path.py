"""Where the ledger is when nobody says so.

Owns the default directory and nothing else; never creates it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["ENVIRONMENT", "default_directory"]

ENVIRONMENT: Final = "LITELLM_LEDGER_DIR"


def default_directory() -> Path:
    """Return ``$LITELLM_LEDGER_DIR`` if it is set and not empty, else the user's data directory."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given).expanduser()
    from platformdirs import user_data_dir  # only where it is needed: the import takes milliseconds

    return Path(user_data_dir("litellm-ledger", appauthor=False))
