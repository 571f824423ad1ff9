"""``backup``: a ledger copied to another directory.

Owns its words, and what it prints.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from litellm_ledger._aggregates.formatting import clean, counted

from .flags import Output, emit, home, in_a_directory
from .parameters import argument, option
from .progress import working
from .tables import write

if TYPE_CHECKING:
    from litellm_ledger._maintenance.backup import Backup
    from litellm_ledger._reports.ledger import Ledger

__all__ = ["backup"]


def backup(
    dest: Annotated[
        Path,
        argument(
            help="Directory of the backup, outside the ledger.",
            callback=lambda _context, _parameter, path: home(path),
        ),
    ],
    output: Output,
    ledger: Ledger,
    incremental: Annotated[
        bool,
        option(
            "--incremental",
            help="Bring a backup that exists up to date: copy only what is new or has grown.",
        ),
    ] = False,
) -> int:
    """Copy a ledger that is in use; litellm-ledger verify DEST then checks the copy."""
    import msgspec

    from litellm_ledger._maintenance.backup import back_up

    in_a_directory(
        ledger,
        "a database is copied by pg_dump, object storage by its own tools; litellm-ledger export "
        "URL writes the records",
    )
    with working(f"copying {ledger.path}"):
        done = back_up(ledger.path, dest, incremental=incremental)
    return emit(
        output,
        lambda: {"path": str(ledger.path), "dest": str(dest), **msgspec.to_builtins(done)},
        lambda: _print_backup(dest, done),
        status=int(bool(done.problems)),
        calm=True,
    )


def _print_backup(dest: Path, done: Backup) -> None:
    files, segments = counted(done.files, "file"), counted(done.segments, "segment")
    write(f"{files} of {done.bytes:,} bytes copied; {dest} has {segments} of the ledger.")
    if done.removed:
        write(f"{counted(done.removed, 'file')} removed there: sealed or compacted since.")
    if done.renewed:
        files = counted(done.renewed, "file")
        write(f"{files} there that records were erased from since, copied again; verify says when.")
    if done.only_here:
        write(f"{counted(done.only_here, 'segment')} there that the ledger does not have any more.")
    for problem in done.problems:
        write(f"not copied: {problem.file}: {clean(problem.detail)}")
    write(f"Check it: litellm-ledger verify {dest}")
