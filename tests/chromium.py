"""Where Chromium is, for the tests of pages."""

from __future__ import annotations

import os
import shutil

import pytest


def chromium_path() -> str:
    """Return where Chromium is; skip the test where it is not and cannot be."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.getuid() == 0 and shutil.which("apt-get"):
            pytest.fail("no chromium: apt-get install --no-install-recommends chromium")
        pytest.skip("no chromium here, and no way to install it")
    return found
