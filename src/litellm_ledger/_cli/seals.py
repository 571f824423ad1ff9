"""The commands about manifests: ``seal`` and ``anchor``.

Owns their words, and what they print.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litellm_ledger._aggregates.formatting import counted

from .flags import Output, complain, emit
from .progress import working
from .tables import put_text, write

if TYPE_CHECKING:
    from pathlib import Path

    from litellm_ledger._maintenance.seal import Sealing
    from litellm_ledger._reports.ledger import Ledger

__all__ = ["anchor", "seal"]


def seal(output: Output, ledger: Ledger) -> int:
    """Write the manifests that are missing; reports answer from them, verify checks by them."""
    import msgspec

    from litellm_ledger._maintenance.seal import seal as seal_directory

    with working(f"sealing {ledger.path}"):
        result = seal_directory(ledger.path)
    return emit(
        output,
        lambda: {"path": str(ledger.path), **msgspec.to_builtins(result)},
        lambda: _print_sealing(ledger.path, result),
        status=int(bool(result.left)),
        calm=True,
    )


def _print_sealing(path: Path, done: Sealing) -> None:
    if done.manifests:
        write(f"{counted(len(done.manifests), 'manifest')} written.")
    elif not done.left:
        write(f"Nothing to seal in {path}: no manifest is missing.")
    segments, records = counted(done.segments, "sealed segment"), counted(done.records, "record")
    if done.segments:  # those that are not compacted
        write(f"{segments} with {records} {'has' if done.segments == 1 else 'have'} a manifest.")
    for problem in done.left:
        write(f"no manifest: {problem.file}: {problem.detail}")


def anchor(output: Output, ledger: Ledger) -> int:
    """Print one line that later proves what the sealed segments held; keep it elsewhere."""
    from pathlib import Path

    import msgspec

    from litellm_ledger._reading.anchor import anchor as anchor_of
    from litellm_ledger._reading.elsewhere import Wanted, at_hand
    from litellm_ledger._reading.listing import each

    where = ledger.places[0]
    if not (isinstance(where, Path) or where.has_manifests):
        raise ValueError(f"{where} has no manifests: anchor the ledger where it is written")
    with at_hand(where, Wanted(kinds=frozenset())) as there:
        (root,) = each(there.roots)
        found = anchor_of(root)
    if found.missing:
        complain(
            f"{counted(found.missing, 'sealed segment')} not covered, for want of a manifest; "
            "run litellm-ledger seal first"
        )
    return emit(
        output,
        lambda: {"path": str(where), **msgspec.to_builtins(found), "line": str(found)},
        lambda: put_text(f"{found}\n"),
    )
