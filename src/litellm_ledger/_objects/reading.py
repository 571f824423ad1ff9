"""``Ledger("s3://…")``: a ledger in object storage, answered from a mirror of it.

Owns where the mirror is and how large it may be, and what a question makes of it.  Manifests answer
what they can; a segment or a file of the archive is fetched when its lines are needed.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR
from threading import Lock
from typing import TYPE_CHECKING, Final

import msgspec

from litellm_ledger._aggregates.formatting import counted
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._reading.elsewhere import Elsewhere, Fetched, Wanted
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.listing import Snapshot, list_segments
from litellm_ledger._records.layout import ARCHIVE, SEGMENTS, SegmentName
from litellm_ledger._storage.manifest import utc_text
from litellm_ledger._storage.partial import sources

from .mirror import Mirror, View
from .names import refuse_secrets
from .store import NotFetched, ObjectStorageError, Prefix, open_prefix

if TYPE_CHECKING:
    from litellm_ledger._maintenance.erase import Erased
    from litellm_ledger._maintenance.person import Person
    from litellm_ledger._reading.anchor import Anchor
    from litellm_ledger._reading.verdict import Verification

__all__ = ["DIRECTORY", "SIZE", "ObjectLedger", "cache_limit", "elsewhere"]

DIRECTORY: Final = "LITELLM_LEDGER_CACHE"
"""The directory of mirrors."""
SIZE: Final = "LITELLM_LEDGER_CACHE_SIZE"
"""How large each of them may be between questions: ``10G``; ``0``: nothing is kept."""
_LIMIT: Final = 10 * 2**30
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_ENDPOINT")


def elsewhere(url: str) -> ObjectLedger:
    """Return the ledger under a prefix; nothing is asked yet."""
    return ObjectLedger(url)


class ObjectLedger(Elsewhere):
    """A ledger under a prefix in object storage.

    Args:
        url: ``s3://BUCKET/PREFIX``, ``gs://``, ``az://`` or ``file:///DIRECTORY``.

    Raises:
        LedgerPathError: there is a secret in it.
    """

    has_manifests = True

    def __init__(self, url: str) -> None:
        self.url = refuse_secrets(url)

    def __str__(self) -> str:
        return self.url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectLedger) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    @contextlib.contextmanager
    def fetch(self, wanted: Wanted) -> Iterator[Fetched]:
        """Have the manifests here, and a directory that fetches the rest when it is read."""
        prefix = open_prefix(self.url)
        with _directory(prefix) as directory:
            mirror = Mirror(prefix, directory)
            mirror.refresh()
            _refuse_nothing(mirror)
            hidden, tags = _not_needed(mirror, wanted)
            with _opened(mirror, View(mirror, hidden)) as root:
                try:
                    yield Fetched(root, writers=mirror.writers(), tags=frozenset(tags))
                except NotFetched as exc:
                    raise ObjectStorageError(str(exc)) from None

    def segments(self) -> list[SegmentName]:
        """Return the segments that are there, compacted ones included."""
        with self.fetch(Wanted()) as there:
            return list_segments(there.root)

    def erase(
        self, person: Person, *, who: str | None = None, why: str = "", keep: bool = False
    ) -> Erased:
        """Look for a person's records; with ``who``, take them out; see ``erase_objects``."""
        from .erase import erase_objects

        prefix = open_prefix(self.url)
        return erase_objects(prefix, person, who=who, why=why, keep=keep)[0]

    def verify(
        self,
        *,
        full: bool = False,
        against: Sequence[Path] = (),
        anchors: Sequence[Anchor] = (),
    ) -> Verification:
        """Read every object, and compare it with its manifest.

        Args:
            full: check every line as well; needs room for all segments in the directory for
                temporary files.
            against: directories that are shipped there: what they have and the prefix lacks, or
                has with another content, is a problem.
            anchors: what the manifests there must have been at some time.
        """
        from litellm_ledger._reading.verify import verify

        prefix = open_prefix(self.url)
        with _temporary() as directory:
            mirror = Mirror(prefix, directory, proving=True)
            mirror.refresh()
            _refuse_nothing(mirror)
            with _opened(mirror, View(mirror, set())) as root:
                found = verify(root, full=full, anchors=anchors)
                problems = [one for path in against for one in _differences(root, path)]
        return msgspec.structs.replace(
            found,
            path=self.url,
            place="prefix",
            against=list(map(str, against)),
            archive=[*found.archive, *problems],
        )


def cache_limit() -> int:
    """Return how many bytes a mirror may have.

    Raises:
        LedgerPathError: the setting is no size.
    """
    given = os.environ.get(SIZE)
    if not given:
        return _LIMIT
    if given.strip() == "0":
        return 0
    from litellm_ledger._maintenance.retention import size

    try:
        return size(given)
    except ValueError as exc:
        raise LedgerPathError(f"{SIZE}={given}: {exc}") from None


@contextlib.contextmanager
def _directory(prefix: Prefix) -> Iterator[Path]:
    """Give the directory of a mirror, which stays as it is while the ``with`` runs."""
    limit = cache_limit()
    directory = _kept(prefix.url) if limit and os.name == "posix" else None
    if directory is None:
        with _temporary() as temporary:
            yield temporary
        return
    from litellm_ledger._storage.live_file import lock_directory, unlock

    held = None
    while held is None:  # for a moment: another process removes what is beyond the size
        held = lock_directory(directory, shared=True)
    try:
        yield directory
    finally:
        unlock(held)
    alone = lock_directory(directory)
    if alone is not None:
        try:
            Mirror(prefix, directory).trim(limit)
        finally:
            unlock(alone)


def _kept(url: str) -> Path | None:
    """Return the directory of a mirror in the user's caches; ``None`` if there is no place."""
    endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
    key = hashlib.sha256(f"{endpoint}\n{url}".encode()).hexdigest()[:32]
    given = os.environ.get(DIRECTORY)
    try:
        if given:
            base = Path(given).expanduser()
        else:
            from platformdirs import user_cache_dir

            base = Path(user_cache_dir("litellm-ledger", appauthor=False))
        directory = base / f"objects-{key}"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        if given:
            raise
        return None
    state = directory.lstat()
    if state.st_uid != os.geteuid() or not S_ISDIR(state.st_mode):
        raise LedgerPathError(
            f"{directory} belongs to another user, or is a link; set {DIRECTORY} to another one"
        )
    return directory


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="litellm-ledger-") as name:
        yield Path(name)


_lock: Final = Lock()
_views: Path | None = None
_of_process = 0


@contextlib.contextmanager
def _opened(mirror: Mirror, view: View) -> Iterator[Path]:
    """Give a name of the mirror under which a question sees what it is to see of it.

    Few names are used again and again, as more is remembered of a directory than of its files.
    """
    with _lock:
        directory = _own_directory()
        key = hashlib.sha256(os.fsencode(mirror.directory)).hexdigest()[:16]
        slot = 0
        while (root := directory / f"{key}-{slot}") in sources:
            slot += 1
        root.unlink(missing_ok=True)
        root.symlink_to(mirror.directory, target_is_directory=True)
        sources[root] = view
    try:
        yield root
    finally:
        with _lock:
            sources.pop(root, None)
            root.unlink(missing_ok=True)


def _own_directory() -> Path:
    """Return a directory for this process, which goes when it ends."""
    global _views, _of_process
    if _views is None or _of_process != os.getpid() or not _views.is_dir():
        _views, _of_process = Path(tempfile.mkdtemp(prefix="litellm-ledger-")), os.getpid()
        atexit.register(_remove, _views, _of_process)
    return _views


def _remove(directory: Path, process: int) -> None:
    if os.getpid() == process:  # and not in a fork of it
        shutil.rmtree(directory, ignore_errors=True)


def _refuse_nothing(mirror: Mirror) -> None:
    if not any(mirror.there.values()):
        raise LedgerPathError(
            f"no ledger at {mirror.prefix.url}: nothing of one is there; litellm-ledger ship --to "
            "with this URL sends one, from where it is written"
        )


def _has_conditions(selection: Selection) -> bool:
    """Whether outcomes of the time are left out."""
    return bool(selection.where or selection.where_not or selection.compared)


def _not_needed(mirror: Mirror, wanted: Wanted) -> tuple[set[str], set[str]]:
    """Return the segments that a question need not read, and names of tags that these have.

    Those have no outcome of the time that is asked for, by their manifests; and where only the
    names of tags matter, those whose manifest has all of them.  Lines that are no outcomes matter
    only where somebody may be writing, which nobody is here, or where they are asked for.
    """
    only = {"usage", "started"} if wanted.slim else {"usage"}
    if not wanted.kinds <= only or not wanted.kinds:
        return set(), set()
    selection = wanted.selection
    since, until = (
        None if one is None else utc_text(one) for one in (selection.since, selection.until)
    )
    names_alone = wanted.tags and not _has_conditions(selection)
    hidden, tags = set(), set()
    for name, manifest in mirror.manifests():
        first, last = manifest.earliest, manifest.latest
        timed = since is not None or until is not None
        if first is None or last is None:
            outside, inside = timed, not timed
        else:
            outside = (since is not None and last < since) or (until is not None and first >= until)
            inside = (since is None or first >= since) and (until is None or last < until)
        if outside:
            hidden.add(str(name))
        elif names_alone and inside and manifest.tags is not None:
            hidden.add(str(name))
            tags.update(manifest.tags)
    return hidden, tags


def _differences(there: Path, here: Path) -> Iterator[Problem]:
    """Yield what a directory has and a prefix has not."""
    from litellm_ledger._archive.archive import digest, source_of
    from litellm_ledger._storage.manifest import read_head

    ours, theirs = Snapshot.take(here), Snapshot.take(there)
    known = set(theirs.segments)
    for name in ours.segments:
        manifest = None if name.open else read_head(here, name)
        if manifest is None:
            continue  # not shipped until it has one
        if name not in known:
            detail = f"{here} has it, and it was not shipped: {counted(manifest.records, 'record')}"
            yield Problem(f"{SEGMENTS}/{name}", "missing", detail=detail)
            continue
        if name in theirs.archive:
            sha256 = source_of(theirs.archive[name])[0]
        else:
            sha256 = digest(there / SEGMENTS / str(name))
        if sha256 != manifest.sha256:
            detail = f"is not what {here} has"
            yield Problem(f"{SEGMENTS}/{name}", "altered", detail=detail)
    for path in ours.broken:
        yield Problem(f"{ARCHIVE}/{path.name}", "unreadable", detail=f"is not whole in {here}")
