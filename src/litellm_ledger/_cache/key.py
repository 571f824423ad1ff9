"""When two calls are equal: what goes into a cache's key, and what does not.

Owns the answer.  Everything that may change what comes back counts, to the letter: the arguments,
and what LiteLLM reads from its own globals and from the environment.  Whatever cannot be compared
makes a call that is not cached.  A key is a SHA-256: no prompt, no API key and no header can be
read from it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from operator import itemgetter
from typing import Any, Final

from litellm_ledger._litellm import load as _litellm
from litellm_ledger._litellm.calls import Call

from .packing import Unpackable, fingerprint, refusing
from .response_cache import KeptAnswers

__all__ = ["IMPATIENCE", "cache_key"]

_FORM: Final = "1"
"""Of keys and entries: what another form made is never found."""

_OURS: Final = frozenset({"litellm_call_id", "litellm_session_id", "litellm_trace_id", "tags"})
"""Names for a call, and labels on it."""

IMPATIENCE: Final = (
    "max_retries",
    "num_retries",
    "request_timeout",
    "retry_policy",
    "stream_timeout",
    "timeout",
)
"""How long and how often it is tried: no part of the answer, but of how one fails."""

_NOT_COMPARED: Final = _OURS.union(IMPATIENCE)

_STATEFUL: Final = ("background", "conversation")
"""Arguments of a call that does more than answer, or answers later."""

_SWITCHES: Final = (str, int, float, bool, type(None))
"""Types of the globals that are taken as they are, whatever they are called."""

_COSMETIC: Final = frozenset(
    {
        "disable_token_counter",
        "json_logs",
        "log_level",
        "max_budget",
        "num_retries",  # LiteLLM sets it to None when a call has failed
        "request_timeout",
        "request_timeout_explicitly_set",
        "set_verbose",
        "suppress_debug_info",
    }
)
"""Globals that are plain values and change no answer."""

_TABLES: Final = (
    "content_policy_fallbacks",
    "context_window_fallbacks",
    "credential_list",
    "custom_prompt_dict",
    "default_fallbacks",
    "fallbacks",
    "headers",
    "model_alias_map",
    "model_fallbacks",
    "vertex_ai_safety_settings",
)
"""Globals that are lists or mappings and choose the model, the account or the prompt."""

_SESSIONS: Final = ("aclient_session", "client_session")
"""Connections of the user's own, with headers that cannot be seen from here."""

_VARIABLE: Final = re.compile(
    rb"^(?:AWS|AZURE|GOOGLE|VERTEX(?:AI)?|OPENAI|ANTHROPIC)_"
    rb"|(?:^|_)(?:\w*KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|ACCOUNT|PROFILE|ORG|ORGANIZATION|TENANT"
    rb"|PROJECT|REGION|LOCATION|BASE|URL|URI|ENDPOINT|HOST|VERSION|PROXY)(?:S|ID|_|$)",
    re.IGNORECASE,
)
"""Names of environment variables that may choose the account, the address or the model."""


class Surroundings:
    """The fingerprint of globals and environment, computed anew only when something has changed."""

    def __init__(self) -> None:
        self._size = -1
        self._names: tuple[str, ...] = ()
        self._values: Callable[[dict[str, Any]], tuple[Any, ...]]
        self._known: tuple[Any, bytes] = (None, b"")

    def fingerprint(self, litellm: Any) -> bytes:
        """Return 32 bytes that change with the globals and the environment."""
        found = vars(litellm)
        if any(found.get(name) is not None for name in _SESSIONS):
            raise Unpackable("nobody can tell what a session of the user's own sends")
        if self._size != len(found):  # LiteLLM adds to its globals as parts of it are first used
            self._look(found)
        try:
            switches = self._values(found)
        except KeyError:  # one is gone, and another one has come
            self._look(found)
            switches = self._values(found)
        tables = [found.get(name) for name in _TABLES]
        listed = fingerprint(tables) if any(tables) else b""
        environment = _environment()
        known, digest = self._known
        if (switches, listed, environment) != known:
            environment = dict(environment)
            named = sorted(zip(self._names, switches, strict=True))
            chosen = sorted(item for item in environment.items() if _VARIABLE.search(item[0]))
            digest = hashlib.sha256(
                fingerprint([list(pair) for pair in named if pair[1] is not None])
                + fingerprint([list(pair) for pair in chosen])
                + listed
            ).digest()
            self._known = ((switches, listed, environment), digest)
        return digest

    def _look(self, found: Mapping[str, Any]) -> None:
        self._names = tuple(
            name
            for name, value in found.items()
            if isinstance(value, _SWITCHES)
            and name.islower()
            and not name.startswith("_")
            and name not in _COSMETIC
        )
        self._values = itemgetter(*self._names)
        self._size = len(found)


def _environment() -> Mapping[bytes, bytes]:
    """The environment as the interpreter holds it; a copy of it costs ten times a comparison."""
    held = getattr(os.environ, "_data", None)
    if isinstance(held, dict):
        return held
    return {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}


_surroundings = Surroundings()


async def cache_key(
    call: Call,
    kwargs: Mapping[str, Any],
    litellm: Any,
    cache: KeptAnswers,
    off_loop: Callable[..., Awaitable[Any]],
) -> str | None:
    """Return the key of a call; ``None``: it cannot be compared, or must not be kept.

    Files are read to their end, by ``off_loop``, and left at the position where they were.
    """
    if call.keeps is None or any(kwargs.get(name) for name in _STATEFUL):
        return None
    left_out = _NOT_COMPARED | cache.ignore
    asked = {name: kwargs[name] for name in sorted(kwargs) if name not in left_out}
    try:
        for name in call.files:
            given = asked.get(name)
            if given is not None and type(given) is not bytes:
                asked[name] = await off_loop(_file, given)
        parts = [_FORM, _litellm.version(), cache.namespace, call.name]
        around = _surroundings.fingerprint(litellm)
        return hashlib.sha256(fingerprint([parts, around, asked])).hexdigest()
    except Unpackable:
        return None


def _file(given: Any) -> Any:
    """What a file holds, in the place of the file.  Blocks."""
    if isinstance(given, list | tuple):  # OpenAI's (name, content, type), or several files
        return [_file(part) for part in given]
    with refusing("a file that cannot be read"):
        if isinstance(given, os.PathLike):
            path = os.fspath(given)
            with open(path, "rb") as file:  # noqa: PTH123 - it may be bytes
                return [str(path), file.read()]
        if hasattr(given, "read"):
            at = given.tell()
            given.seek(0)
            try:
                content = given.read()
            finally:
                given.seek(at)
            return [str(getattr(given, "name", "")), at, content]
    return given
