"""What the programs that tests fork share with fresh ones."""

from __future__ import annotations

import pytest
from tests import forked


@pytest.mark.parametrize(
    ("option", "shown"), [("ignore::UserWarning", False), ("ignore::DeprecationWarning", True)]
)
def test_a_forked_program_has_the_warnings_of_its_options(option: str, shown: bool) -> None:
    """They stand before the interpreter's own; urllib3 puts some of its own after those."""
    done = forked.run(
        ["-c", "import warnings; warnings.warn('seen')"],
        options=("-X", "dev", "-W", option),
        modules=("urllib3",),
    )
    assert (done.returncode, "seen" in done.stderr) == (0, shown)
