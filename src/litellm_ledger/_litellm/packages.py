"""Packages that LiteLLM needs for some calls only, looked for before the request leaves.

Owns the look and the error.  LiteLLM imports these modules on the event loop, some of them after
the provider has answered: here it happens in a thread (seconds, the first time), and what is
missing is said while nothing has been spent.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Final

from litellm_ledger._errors import MissingExtra

from .costs import provider_of
from .failures import causes
from .internals import Modules, internal
from .load import load_sync

__all__ = ["needs_messages_stream", "require"]

_found: Final[set[Modules]] = set()


async def require(modules: Modules, extra: str, what: str) -> None:
    """Import the ``modules`` of a ``Need``, in a thread; skip those that this LiteLLM lacks.

    A later name of a module is only tried where LiteLLM lacks the earlier ones: it may be
    deprecated.

    Raises:
        MissingExtra: one of them needs a package that is not installed; the text names it, the
            ``extra`` that brings it and ``what`` the call is.
    """
    if modules not in _found:
        await asyncio.to_thread(_import, modules, extra, what)
        _found.add(modules)


def _import(modules: Modules, extra: str, what: str) -> None:
    for names in modules:
        for name in names:
            try:
                importlib.import_module(name)
            except ImportError as exc:
                missing = _missing(exc)
                if missing is None or missing.partition(".")[0] == "litellm":
                    continue  # another version of LiteLLM, which keeps it elsewhere
                raise MissingExtra(missing, extra, what=what) from exc
            break


def _missing(exc: BaseException) -> str | None:
    """The module that was not found, however LiteLLM has wrapped that."""
    for cause in causes(exc):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return cause.name
    return None


def needs_messages_stream(model: str | None, provider: str | None) -> bool:
    """Whether LiteLLM hands Anthropic's own stream through, which it does with its proxy's code.

    Models of providers without that interface are translated instead.  In doubt ``True``.
    """
    try:
        litellm: Any = load_sync()
        _, _, bare = (model or "").partition("/")
        known = provider or provider_of(model or "")
        config = internal("ProviderConfigManager").get_provider_anthropic_messages_config(
            model=bare or model, provider=litellm.LlmProviders(known)
        )
        return config is not None
    except Exception:
        return True
