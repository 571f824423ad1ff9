"""Where a ledger is: its default directory, and the file system that holds a directory.

Owns these questions and nothing else; never creates a directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

__all__ = ["ENVIRONMENT", "default_directory", "file_system_of", "is_network"]

ENVIRONMENT: Final = "LITELLM_LEDGER_DIR"

_MOUNTS: Final = Path("/proc/self/mountinfo")

_NETWORK: Final = re.compile(
    r"9p|afs|beegfs|ceph|cifs|coda|gfs2?|glusterfs|gpfs|lustre|ncpfs|nfs\d?|ocfs2|orangefs|smb\w*|wekafs"
    r"|fuse\.(ceph|davfs|gcsfuse|glusterfs|goofys|juicefs|blobfuse|moosefs|mount-s3|rclone|s3|sshfs).*"
)
"""Types whose files are shared by machines, so that "the lock is free" does not mean "it died"."""

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def default_directory() -> Path:
    """Return ``$LITELLM_LEDGER_DIR`` if it is set and not empty, else the user's data directory."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given).expanduser()
    from platformdirs import user_data_dir  # only where it is needed: the import takes milliseconds

    return Path(user_data_dir("litellm-ledger", appauthor=False))


def is_network(path: Path, *, mounts: Path = _MOUNTS) -> bool:
    """Whether ``path``, or the nearest parent that exists, is on a network file system, where
    neither locks nor counters can be trusted.

    Where that cannot be told (no ``/proc``), the answer is no.
    """
    return _NETWORK.fullmatch(file_system_of(path, mounts=mounts) or "") is not None


def file_system_of(path: Path, *, mounts: Path = _MOUNTS) -> str | None:
    """Return the type of the file system that holds ``path`` (``ext4``, ``nfs4``, …), if known."""
    try:
        table = mounts.read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    real = os.path.realpath(path)
    best, kind = -1, None
    for line in table.splitlines():
        # 36 35 98:0 /root /mount/point options [optional fields] - type source options (proc(5))
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # the last mount on a point hides those before it
            best, kind = len(point), right.split(" ")[0]
    return kind
