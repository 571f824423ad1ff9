"""What LiteLLM reads from its own globals and from the environment: keys, addresses, switches.

Owns the fingerprint of all that, which makes equal arguments another call when it changes.  Reads
only: no secret leaves this file but as part of a SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from .packing import fingerprint

__all__ = ["Surroundings"]

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
    """The fingerprint, computed anew only when something has changed."""

    def __init__(self) -> None:
        self._size = -1
        self._values: Callable[[dict[str, Any]], tuple[Any, ...]] | None = None
        self._names: tuple[str, ...] = ()
        self._known: tuple[Any, ...] = ()
        self._environment: dict[Any, Any] = {}
        self._digest = b""

    def fingerprint(self, litellm: Any) -> bytes:
        """Return 32 bytes that change with the globals and the environment.

        Raises:
            Unpackable: a global holds what cannot be compared.
        """
        found = vars(litellm)
        if self._size != len(found):  # LiteLLM adds to its globals as parts of it are first used
            self._look(found)
        assert self._values is not None
        try:
            values = self._values(found)
        except KeyError:  # one is gone
            self._look(found)
            values = self._values(found)
        if any(found.get(name) is not None for name in _SESSIONS):
            return fingerprint(object())  # raises: nobody can tell what these send
        tables = [found.get(name) for name in _TABLES]
        digest = fingerprint(tables) if any(tables) else b""
        environment = _environment()
        if (values, digest) != self._known or environment != self._environment:
            self._known = (values, digest)
            self._environment = dict(environment)
            chosen = sorted(item for item in environment.items() if _VARIABLE.search(item[0]))
            named = sorted(zip(self._names, values, strict=True))
            self._digest = hashlib.sha256(
                fingerprint([list(pair) for pair in named if pair[1] is not None])
                + fingerprint([list(pair) for pair in chosen])
                + digest
            ).digest()
        return self._digest

    def _look(self, found: dict[str, Any]) -> None:
        self._size = len(found)
        self._names = tuple(
            name
            for name, value in found.items()
            if isinstance(value, _SWITCHES)
            and name.islower()
            and not name.startswith("_")
            and name not in _COSMETIC
        )
        self._values = itemgetter(*self._names)


def _environment() -> dict[bytes, bytes]:
    """The environment as the interpreter holds it; a copy of it costs ten times a comparison."""
    held = getattr(os.environ, "_data", None)
    if isinstance(held, dict):
        return held
    return {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
