"""Stores of objects for tests: one that fails, is killed, or loses its answers at a request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import RLock
from typing import Any

from obstore.store import MemoryStore

from litellm_ledger._objects import store as objects_store
from litellm_ledger._objects.store import CHECKSUM, Prefix
from litellm_ledger.testing import Killed


class FaultyStore:
    """A store in front of another one; counts requests, and makes some of them fail.

    Attributes:
        below: the store.
        asked: the requests so far, each as its verb and the name.
    """

    def __init__(self, below: Any = None) -> None:
        self.below = MemoryStore() if below is None else below
        self.asked: list[tuple[str, str]] = []
        self._faults: dict[int, Callable[[], None]] = {}
        self._after: dict[int, Callable[[], None]] = {}
        self._dead = False
        self._lock = RLock()

    def fail(self, nth: int, *, lost: bool = False, error: Exception | None = None) -> None:
        """Have the nth request from now on fail: not be done, or its answer be ``lost``."""

        def strike() -> None:
            raise error or ConnectionError("error sending request for https://host/?X-Sig=hidden")

        (self._after if lost else self._faults)[len(self.asked) + nth] = strike

    def kill(self, nth: int, *, lost: bool = False) -> None:
        """Have the process die at the nth request, before or after it is done."""

        def strike() -> None:
            self._dead = True
            raise Killed

        (self._after if lost else self._faults)[len(self.asked) + nth] = strike

    def on(self, nth: int, act: Callable[[], None]) -> None:
        """Do something at the nth request from now on, before it."""
        self._faults[len(self.asked) + nth] = act

    def heal(self) -> None:
        self._faults.clear()
        self._after.clear()
        self._dead = False

    def _do(self, verb: str, name: str, request: Callable[[], Any]) -> Any:
        with self._lock:
            if self._dead:
                raise Killed
            self.asked.append((verb, name))
            number = len(self.asked)
            before, after = self._faults.pop(number, None), self._after.pop(number, None)
        if before is not None:
            before()
        found = request()
        if after is not None:
            after()
        return found

    def put(self, name: str, data: Any, **how: Any) -> Any:
        return self._do("put", name, lambda: self.below.put(name, data, **how))

    def get(self, name: str) -> Any:
        return self._do("get", name, lambda: self.below.get(name))

    def get_range(self, name: str, **how: Any) -> Any:
        return self._do("range", name, lambda: self.below.get_range(name, **how))

    def list(self, part: str) -> Iterator[Any]:
        return iter(self._do("list", part, lambda: [*self.below.list(part)]))

    def delete(self, name: str) -> Any:
        return self._do("delete", name, lambda: self.below.delete(name))


def prefix(store: Any, url: str = "memory://there", **how: Any) -> Prefix:
    """A prefix that does not pause, and that ``Ledger(url)`` finds as well."""
    objects_store.memory[url] = store
    return Prefix(store, url, **{"pause": lambda _: None, **how})


def contents(store: Any) -> dict[str, bytes]:
    """Every object, by its name."""
    below = getattr(store, "below", store)
    names = [str(meta["path"]) for page in below.list() for meta in page]
    return {name: bytes(below.get(name).bytes()) for name in sorted(names)}


def files(root: Path, *parts: str) -> dict[str, bytes]:
    """The files that are shipped of a ledger, by their names."""
    parts = parts or ("segments", "manifests", "archive", "prices")
    found = [path for part in parts for path in (root / part).glob("*") if path.is_file()]
    kept = [path for path in found if path.suffix in (".jsonl", ".json", ".parquet")]
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(kept)}


def written(store: Any, to: Path) -> Path:
    """Every object as a file."""
    for name, data in contents(store).items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(data)
    return to


def overwrite(store: Any, name: str, data: bytes, *, signed: bool = False) -> None:
    """What an attacker does who may write there; ``signed``: with the checksum of the old one."""
    below = getattr(store, "below", store)
    old = below.get(name)
    attributes = {CHECKSUM: old.attributes.get(CHECKSUM, "")} if signed else {}
    below.put(name, data, attributes=attributes)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
