"""A person's records taken out of a prefix in object storage.

Owns the way there and back: all of the prefix is fetched into a directory, where it is a ledger
like any other; records are erased from that; and what changed is sent by the shipper, whose order
holds here too: the audits first, then what takes the place of other objects, then files of the
archive, and what these replace is removed last.  Killed anywhere, the next run ends it.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from litellm_ledger._maintenance.erase import Erased, erase
from litellm_ledger._maintenance.person import Person
from litellm_ledger._reading.lines import Problem

from .mirror import Mirror
from .names import PARTS
from .sending import Shipment
from .ship import ObjectShipper
from .store import Prefix

__all__ = ["erase_objects"]


def erase_objects(
    prefix: Prefix, person: Person, *, who: str | None = None, why: str = "", keep: bool = False
) -> tuple[Erased, Shipment]:
    """Look for a person's records in a prefix; with ``who``, take them out.

    Needs room for all of the prefix in the directory for temporary files, and once more for what
    is written anew.

    Args:
        prefix: where.
        person, who, why, keep: as for ``_maintenance.erase.erase``.

    Raises:
        ValueError, UnsupportedFormat, MissingExtra, UnsupportedPlatform: as there.
        ObjectStorageError: the store refused, or did not answer; run it again.
    """
    with tempfile.TemporaryDirectory(prefix="litellm-ledger-") as name:
        root = Path(name)
        mirror = Mirror(prefix, root)
        mirror.refresh()
        for part in PARTS:
            mirror.bring(part, mirror.there[part])
        before = {(part, one) for part in PARTS for one in mirror.there[part]}
        done = erase(root, person, who=who, why=why, keep=keep)
        if who is None:
            return done, Shipment()
        shipper = ObjectShipper(root, prefix, remember=False)
        sent = shipper.run(finish=False)
        since = {(part, one) for part in PARTS for one in prefix.list(part)}
        new = sorted(since - before - {(part, one) for part in PARTS for one in _names(root, part)})
        came = [
            Problem(f"{part}/{one}", "unreadable", detail="came meanwhile; run this again")
            for part, one in new
        ]
        return replace(done, left=(*done.left, *sent.problems, *came)), sent


def _names(root: Path, part: str) -> list[str]:
    return [path.name for path in (root / part).iterdir()]
