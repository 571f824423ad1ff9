"""The command ``ship``: what is on this machine is sent to another place.

Owns which kind of place a URL names, and the words for object storage.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

from litellm_ledger._aggregates.formatting import clean, counted

from .flags import Output, complain, emit, said_begin
from .parameters import option
from .progress import working
from .tables import tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from litellm_ledger._objects.sending import Shipment
    from litellm_ledger._objects.ship import ObjectShipper
    from litellm_ledger._reports.ledger import Ledger as Ledgers

__all__ = ["ship"]

_EVERY: Final = 30
"""Seconds between two looks of a follower whose files go to object storage."""


def ship(
    output: Output,
    ledger: Ledgers,
    to: Annotated[
        str,
        option(
            "--to",
            metavar="URL",
            help="Where to: postgresql://HOST/DATABASE, s3://BUCKET/PREFIX, gs://, az:// or "
            "file:///DIRECTORY. Credentials are taken from the environment, of a database from a "
            "password file or a service file too.",
        ),
    ],
    follow: Annotated[bool, option("--follow", "-f", help="Continue until Ctrl-C.")] = False,
    every: Annotated[
        int | None,
        option(
            "--every",
            metavar="SECONDS",
            help="With --follow: how often to look. Default: 1 for a database, 30 for object "
            "storage. A database has less work with 60, and is behind by that.",
        ),
    ] = None,
    remove_compacted: Annotated[
        bool,
        option(
            "--remove-compacted",
            help="Object storage: remove segments there that a file of the archive there holds.",
        ),
    ] = False,
) -> int:
    """Send records to another place; what is there already is not sent again."""
    from litellm_ledger._objects.names import is_prefix

    if every is not None and not follow:
        raise ValueError("--every is of --follow: a run without it ships once")
    if is_prefix(to):
        every = _EVERY if every is None else every
        return _ship_objects(output, ledger, to, follow=follow, every=every, tidy=remove_compacted)
    if to.startswith(("postgresql:", "postgres:")):
        from litellm_ledger._reading.listing import each

        from .shipping_database import ship_database

        if remove_compacted:
            raise ValueError("--remove-compacted is of object storage; a database has no segments")
        paths = each(_directories(ledger))
        return ship_database(output, paths, to, follow=follow, every=every)
    raise ValueError(
        "--to: give postgresql://HOST/DATABASE, s3://BUCKET/PREFIX, gs://, az:// or "
        "file:///DIRECTORY"
    )


def _directories(ledger: Ledgers) -> tuple[Path, ...]:
    """Return the ledgers that are shipped.

    Raises:
        ValueError: one of them is shipped already.
    """
    from litellm_ledger._reading.elsewhere import Elsewhere

    for one in ledger.places:
        if isinstance(one, Elsewhere):
            raise ValueError(f"{one} is where ledgers are shipped to; give the directory of one")
    return ledger.paths


def _ship_objects(
    output: Output, ledger: Ledgers, to: str, *, follow: bool, every: int, tidy: bool
) -> int:
    from litellm_ledger._objects.ship import ObjectShipper
    from litellm_ledger._objects.store import open_prefix
    from litellm_ledger._reading.listing import each

    paths = each(_directories(ledger))
    prefix = open_prefix(to, create=True)
    shippers = [ObjectShipper(path, prefix, remove_compacted=tidy) for path in paths]
    if follow:
        said_begin(output, paths, prefix.url)
        return _follow_objects(shippers, paths, every)
    done = []
    for shipper, path in zip(shippers, paths, strict=True):
        with working(f"shipping {path} to {prefix.url}"):
            done.append(shipper.run())
    return emit(
        output,
        lambda: _plain(prefix.url, paths, done),
        lambda: _print(prefix.url, paths, done),
        status=int(any(one.problems for one in done)),
        calm=True,
    )


def _follow_objects(shippers: Sequence[ObjectShipper], paths: Sequence[Path], every: int) -> int:
    """Send again and again; an error is said once, and what it held up is sent later."""
    from litellm_ledger._errors import LedgerPathError

    said: dict[Path, str] = {}
    with _until_told() as told:
        while True:
            for shipper, path in zip(shippers, paths, strict=True):
                try:
                    done = shipper.run(listed=True)
                except LedgerPathError as exc:
                    words = str(exc)
                else:
                    words = "\n".join(
                        f"{one.file}: {one.what}: {one.detail}" for one in done.problems
                    )
                    if done.changed:
                        tell(f"{path}: {_what(done)}")
                        sys.stdout.flush()
                if words and said.get(path) != words:
                    complain(words, lines=True)
                elif said.get(path) and not words:
                    complain(f"{path}: shipping again")
                said[path] = words
            if told.wait(max(every, 1)):
                return int(any(said.values()))


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and SIGTERM set: what is being sent is sent first.

    A second one ends the process at once: the next run sends the rest.
    """
    told = threading.Event()

    def tell_it(*_: object) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, tell_it) for number in numbers]
    try:
        yield told
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _plain(url: str, paths: Sequence[Path], done: Sequence[Shipment]) -> dict[str, Any]:
    import msgspec

    ledgers = [
        {"path": str(path), **msgspec.to_builtins(one)}
        for path, one in zip(paths, done, strict=True)
    ]
    return {"to": url, "ok": not any(one.problems for one in done), "ledgers": ledgers}


def _what(done: Shipment) -> str:
    parts = [f"{counted(done.files, 'file')} of {done.bytes:,} bytes sent"] if done.files else []
    if done.replaced:
        parts.append(f"{counted(done.replaced, 'object')} replaced, as records were erased")
    if done.removed:
        parts.append(f"{counted(done.removed, 'object')} removed")
    return ", ".join(parts) or "nothing new to send"


def _print(url: str, paths: Sequence[Path], done: Sequence[Shipment]) -> None:
    for path, one in zip(paths, done, strict=True):
        tell(f"{path}: {_what(one)}; {url} has {counted(one.segments, 'segment')} of it.")
        if one.waiting:
            tell(
                f"{counted(one.waiting, 'segment')} not sent yet: still being written. A segment "
                "is sealed at 64 MiB, at the change of the UTC day, or when its process closes."
            )
        for problem in one.problems:
            tell(f"{problem.file}: {problem.what}: {clean(problem.detail, 4_096)}")
        if one.keeps_versions and (one.replaced or one.removed):
            tell(
                "The bucket keeps versions: what was replaced or removed is still in it, as older "
                "versions, until its lifecycle rule removes these."
            )
    tell(f"Check it: litellm-ledger verify {url}")
