"""Network file systems are told from the mount table."""

from __future__ import annotations

from pathlib import Path

import pytest

from litellm_ledger._storage.location import file_system_of, is_network

TABLE = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw shared:2 - proc proc rw
30 22 0:40 / /home rw shared:5 - nfs4 server:/home rw
31 30 8:2 / /home/local rw - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/with\040space rw - fuse.sshfs me@host: rw
33 22 0:42 / /mnt/twice rw - cifs //host/share rw
34 33 0:43 / /mnt/twice rw - tmpfs tmpfs rw
35 22 0:44 / /shares rw - 9p host rw
not a line
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/var/lib/usage", "ext4", False),
        ("/home/ann/usage", "nfs4", True),
        ("/home", "nfs4", True),
        ("/homeless/usage", "ext4", False),
        ("/home/local/usage", "xfs", False),
        ("/mnt/with space/usage", "fuse.sshfs", True),
        ("/mnt/twice/usage", "tmpfs", False),
        ("/shares/usage", "9p", True),
    ],
)
def test_the_innermost_mount_counts(mounts: Path, path: str, kind: str, network: bool) -> None:
    assert file_system_of(Path(path), mounts=mounts) == kind
    assert is_network(Path(path), mounts=mounts) is network


def test_where_nobody_can_tell_the_answer_is_no(tmp_path: Path) -> None:
    assert file_system_of(tmp_path, mounts=tmp_path / "none") is None
    assert not is_network(tmp_path, mounts=tmp_path / "none")


def test_a_link_into_a_network_file_system_is_followed(mounts: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/home/ann")
    assert is_network(link / "usage", mounts=mounts)
