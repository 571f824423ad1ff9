"""A prefix in object storage: listed, read, and written to so that nothing is put over anything.

Owns the requests and what is done about one that fails: it is tried again, after a pause that
doubles, unless the answer is final.  An answer that never came decides nothing: an object is
created only where there is none, and who tries again finds its own.  Owns the words of errors, too:
the driver's text may hold a signed address, so that no more than its first line is passed, without
what follows a ``?``, and no error is the cause of ours.

The only module that imports obstore, and only when a prefix is opened.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from litellm_ledger._errors import LedgerError, LedgerPathError, MissingExtra

from .names import SCHEMES, refuse_secrets, scheme_of

__all__ = [
    "Denied",
    "Missing",
    "NotFetched",
    "ObjectStorageError",
    "Prefix",
    "Stored",
    "Taken",
    "open_prefix",
]

CHECKSUM: Final = "litellm-ledger-sha256"
"""The metadata of an object that tells the SHA-256 of what was sent."""

TRIES: Final = 8
_FIRST: Final = 0.1
_LONGEST: Final = 10.0
"""Seconds between two tries."""
_PATIENCE: Final = 120.0
"""Seconds after which a request is not made again."""
ANSWER: Final = 20
CONTENT: Final = 300
"""Seconds within which a listing must be there, and an object; a store may accept and be silent."""

_FINAL: Final = ("NotSupportedError", "InvalidPathError", "UnknownConfigurationKeyError")
_DENIED: Final = ("PermissionDeniedError", "UnauthenticatedError")
_TAKEN: Final = ("AlreadyExistsError", "PreconditionError", "NotModifiedError")
_QUERY: Final = re.compile(r"\?[^\s\"')]*")
_USER: Final = re.compile(r"://[^/\s@]*@")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_REFUSED: Final = frozenset(range(300, 500)) - {408, 409, 425, 429}
_LOOPBACK: Final = re.compile(r"http://(localhost|127(\.\d+){3}|\[::1\])(:|/|$)", re.IGNORECASE)
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_ENDPOINT")
_ROLE: Final = re.compile(r"//(169\.254\.169\.254|metadata\.google)")
"""Where a machine is asked for the credentials of its role."""
_SECRETS: Final = re.compile(r"SECRET|TOKEN|PASSWORD|ACCOUNT_KEY|SAS|CREDENTIAL|ACCESS_KEY")

_T = TypeVar("_T")


class ObjectStorageError(LedgerPathError):
    """Object storage did not do what it was asked."""


class Denied(ObjectStorageError):
    """The credentials do not allow it, or there are none."""


class Taken(ObjectStorageError):
    """There is an object of this name already, or another one than that to be replaced."""


class Refused(ObjectStorageError):
    """The request itself is wrong: another try has the same answer."""


class Missing(ObjectStorageError, FileNotFoundError):
    """There is no such object, or no such bucket."""


class NotFetched(LedgerError):
    """A file could not be fetched: no reader may take that for one that is damaged or gone."""


class Stored(NamedTuple):
    """An object, as a listing or the answer to a request has it.

    Attributes:
        size: in bytes.
        e_tag, version: by which one that took its place is told from it.
        modified: when it was written.
    """

    size: int
    e_tag: str | None
    version: str | None = None
    modified: datetime | None = None

    @property
    def mark(self) -> str:
        """Text that is another one if the object is."""
        return f"{self.size}:{self.e_tag}:{self.version}"


def open_prefix(url: str, *, create: bool = False) -> Prefix:
    """Open a prefix: ``s3://BUCKET/PREFIX``, ``gs://``, ``az://`` or ``file:///DIRECTORY``.

    Credentials, region and endpoint are those of the environment (``AWS_*``, ``GOOGLE_*``,
    ``AZURE_*``), or of the machine's role.  Nothing is asked of the store yet.

    Args:
        url: of the prefix.
        create: make the directory of a ``file://`` URL.

    Raises:
        LedgerPathError: it is no such URL, or has a secret in it; the settings do not do.
        MissingExtra: obstore is not installed (the extra ``object``).
    """
    url = refuse_secrets(url)
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        raise LedgerPathError(f"{url}: give s3://, gs://, az:// or file:// and a bucket")
    try:
        from obstore.store import LocalStore, MemoryStore, from_url
    except ImportError:
        raise MissingExtra("obstore", "object") from None
    if scheme == "memory":
        return Prefix(memory.setdefault(url, MemoryStore()), url)
    try:
        if scheme == "file":
            path = Path(unquote(urlsplit(url).path))
            return Prefix(LocalStore(path, mkdir=create), url)
        endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
        local = {"allow_http": True} if _LOOPBACK.match(endpoint) else {}
        once: Any = {"max_retries": 0}  # we try again ourselves

        def opened(seconds: int) -> Any:
            how: Any = {"connect_timeout": "10s", "timeout": f"{seconds}s", **local}
            return from_url(url, client_options=how, retry_config=once)

        return Prefix(opened(CONTENT), url, quick=opened(ANSWER))
    except Exception as exc:  # noqa: BLE001 - the driver's own, of many kinds
        raise LedgerPathError(f"cannot open {url}: {said(exc)}") from None


memory: Final[dict[str, Any]] = {}
"""The stores of ``memory://`` URLs, which live as long as the process: for tests."""


def said(exc: BaseException) -> str:
    """Return the first line of a driver's error, without what may be a secret."""
    text = (str(exc).strip().splitlines() or [type(exc).__name__])[0].partition(": <")[0]
    text = _USER.sub("://…@", _QUERY.sub("?…", text))
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRETS.search(name.upper()):
            text = text.replace(value, "…")
    return text[:500]


class Prefix:
    """What is under one prefix, by names relative to it.

    Args:
        store: obstore's, whose root is the prefix.
        url: for messages.
        tries: how often a request is made, at most.
        pause: waits this many seconds.
        quick: the same store, for requests with a short answer.

    Attributes:
        requests: how many were made of each kind: ``list`` (a page of a thousand names), ``get``,
            ``put``, ``delete``.
        keeps_versions: whether an answer told that the bucket keeps what is replaced or deleted.
    """

    def __init__(
        self,
        store: Any,
        url: str,
        *,
        tries: int = TRIES,
        pause: Callable[[float], object] = time.sleep,
        quick: Any = None,
    ) -> None:
        self.url = url
        self.tries = tries
        self.pause = pause
        self.requests = dict.fromkeys(("list", "get", "put", "delete"), 0)
        self.keeps_versions = False
        self._store = store
        self._quick = store if quick is None else quick

    def list(self, part: str) -> dict[str, Stored]:
        """Return the objects in ``part/``, by their names there; none of deeper levels.

        Raises:
            ObjectStorageError: it cannot be listed.
        """

        def listed() -> dict[str, Stored]:
            found = {}
            self.requests["list"] += 1
            for number, page in enumerate(self._quick.list(part)):
                self.requests["list"] += bool(number)
                for meta in page:
                    name = str(meta["path"]).removeprefix(f"{part}/")
                    if "/" not in name:
                        found[name] = _stored(meta, meta["size"])
            return found

        return self._tried("list", f"{part}/", listed)

    def get(self, name: str) -> tuple[bytes, Stored, str | None]:
        """Return an object's content, what it is, and the SHA-256 that was sent with it.

        Raises:
            Missing, ObjectStorageError: as said there.
        """

        def got() -> tuple[bytes, Stored, str | None]:
            answer, known = self._asked(name)
            data = bytes(answer.bytes())
            if len(data) != known.size:
                raise ConnectionError(f"{len(data)} of {known.size} bytes came")
            return data, known, _checksum(answer)

        return self._tried("read", name, got)

    def checksum(self, name: str) -> tuple[Stored, str]:
        """Return what an object is, and its SHA-256: that which was sent with it, else computed.

        Raises:
            Missing, ObjectStorageError: as said there.
        """

        def told() -> tuple[Stored, str]:
            answer, known = self._asked(name)
            return known, _checksum(answer) or _hashed(answer, known.size)

        return self._tried("read", name, told)

    def digest(self, name: str) -> tuple[Stored, str]:
        """Return what an object is, and the SHA-256 of its content, all of which is read.

        Raises:
            Missing, ObjectStorageError: as said there.
        """

        def computed() -> tuple[Stored, str]:
            answer, known = self._asked(name)
            return known, _hashed(answer, known.size)

        return self._tried("read", name, computed)

    def opened(self, name: str) -> tuple[Stored, str | None, Iterator[bytes]]:
        """Return what an object is, the SHA-256 that was sent with it, and its content in blocks.

        Raises:
            Missing, ObjectStorageError: as said there; also between two blocks.
        """

        answer, known = self._tried("read", name, lambda: self._asked(name))
        return known, _checksum(answer), self._blocks(name, answer, known.size)

    def _asked(self, name: str) -> tuple[Any, Stored]:
        self.requests["get"] += 1
        answer = self._store.get(name)
        return answer, _stored(answer.meta, answer.meta["size"])

    def _blocks(self, name: str, answer: Any, left: int) -> Iterator[bytes]:
        try:
            for block in answer.stream(min_chunk_size=2**20):
                left -= len(block)
                yield bytes(block)
        except Exception as exc:  # noqa: BLE001 - the driver's own, of many kinds
            raise self._error("read", name, exc) from None
        if left:
            raise ObjectStorageError(f"cannot read {self.url}/{name}: {left:,} bytes did not come")

    def ending(self, name: str, size: int, start: int) -> bytes:
        """Return an object's content from ``start`` on.

        Raises:
            Missing, ObjectStorageError: as said there.
        """

        def got() -> bytes:
            self.requests["get"] += 1
            data = bytes(self._quick.get_range(name, start=start, end=size))
            if len(data) != size - start:
                raise ConnectionError(f"{len(data)} of {size - start} bytes came")
            return data

        return self._tried("read", name, got)

    def create(self, name: str, data: bytes, sha256: str) -> Stored:
        """Create an object, whole or not at all.

        Raises:
            Taken: there is one of this name, perhaps ours: the answer to an earlier try was lost.
            ObjectStorageError: it cannot be written.
        """
        try:
            return self._put(name, data, sha256, "create")
        except NotImplementedError:
            raise ObjectStorageError(
                f"cannot write {self.url}/{name}: this store cannot create an object only where "
                "there is none (If-None-Match), without which shipping is not safe"
            ) from None

    def replace(self, name: str, data: bytes, sha256: str, old: Stored) -> Stored:
        """Put an object in the place of one that is as it was listed.

        Stores that cannot compare (``file://``) put it in the place of any.

        Raises:
            Taken: there is another one by now.
            ObjectStorageError: it cannot be written.
        """
        try:
            known = {"e_tag": old.e_tag, "version": old.version}
            told = {key: value for key, value in known.items() if value is not None}
            return self._put(name, data, sha256, told)
        except NotImplementedError:
            return self._put(name, data, sha256, "overwrite")

    def _put(self, name: str, data: bytes, sha256: str, mode: Any) -> Stored:
        def put() -> Stored:
            self.requests["put"] += 1
            answer = self._sent(name, data, sha256, mode)
            self.keeps_versions |= answer.get("version") is not None
            return _stored(answer, len(data))

        return self._tried("write", name, put)

    def _sent(self, name: str, data: bytes, sha256: str, mode: Any) -> Any:
        how: dict[str, Any] = {"mode": mode, "use_multipart": False}
        if self._takes_metadata:
            try:
                return self._store.put(name, data, attributes={CHECKSUM: sha256}, **how)
            except NotImplementedError:  # of that, or of the mode
                answer = self._store.put(name, data, **how)
                self._takes_metadata = False
                return answer
        return self._store.put(name, data, **how)

    _takes_metadata = True
    """Files have none."""

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is removed.

        Raises:
            ObjectStorageError: it cannot be removed.
        """

        def deleted() -> None:
            self.requests["delete"] += 1
            self._quick.delete(name)

        try:
            self._tried("remove", name, deleted)
        except Missing:
            pass

    def _tried(self, verb: str, name: str, request: Callable[[], _T]) -> _T:
        """Make a request until it is answered."""
        wait, end = _FIRST, time.monotonic() + _PATIENCE
        for left in reversed(range(self.tries)):
            try:
                return request()
            except NotImplementedError:
                raise
            except Exception as exc:  # noqa: BLE001 - the driver's own, of many kinds
                error = self._error(verb, name, exc)
                given_up = not left or time.monotonic() > end
                if given_up or type(error) is not ObjectStorageError:
                    raise error from None
            self.pause(wait * (0.5 + random.random() / 2))
            wait = min(2 * wait, _LONGEST)
        raise AssertionError("unreachable")

    def _error(self, verb: str, name: str, exc: Exception) -> ObjectStorageError:
        kind = _kind(exc)
        text = f"cannot {verb} {self.url}/{name}: {said(exc)}"
        if _ROLE.search(text):
            text += (
                "; no credentials are in the environment (docs/objects.md), nor has the machine any"
            )
        status = _STATUS.search(text)
        code = int(status[1]) if status else 0
        if isinstance(exc, FileNotFoundError) or code == 404:
            return Missing(text)
        if kind in _DENIED or isinstance(exc, PermissionError) or code in (401, 403):
            return Denied(text)
        if kind in _TAKEN:
            return Taken(text)
        if kind in _FINAL or isinstance(exc, ValueError | TypeError) or code in _REFUSED:
            return Refused(text)
        return ObjectStorageError(text)


def _kind(exc: Exception) -> str:
    return type(exc).__name__


def _stored(meta: Any, size: int) -> Stored:
    return Stored(size, meta.get("e_tag"), meta.get("version"), meta.get("last_modified"))


def _checksum(answer: Any) -> str | None:
    """Return the SHA-256 that was sent with an object."""
    found = answer.attributes
    value = next((found[name] for name in found if name.lower() == CHECKSUM), None)
    return value if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else None


def _hashed(answer: Any, size: int) -> str:
    sha256 = hashlib.sha256()
    for block in answer.stream(min_chunk_size=2**20):
        sha256.update(block)
        size -= len(block)
    if size:
        raise ConnectionError(f"{size:,} bytes did not come")
    return sha256.hexdigest()
