"""Packages that LiteLLM needs for some of its calls, and that are not everywhere."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_ledger import MissingExtra
from litellm_ledger._litellm import packages as needs
from litellm_ledger._litellm.calls import CALLS

__all__ = ["missing", "packages"]


async def missing(name: str, **kwargs: Any) -> str:
    """Say what LiteLLM lacks for this call; nothing, if it lacks nothing."""
    need = CALLS[name].need(kwargs)
    if need is not None:
        try:
            await needs.require(need.modules, need.extra, name)
        except MissingExtra as exc:
            return str(exc)
    return ""


async def packages(name: str, **kwargs: Any) -> None:
    """Skip where LiteLLM lacks a package for this call."""
    lacks = await missing(name, **kwargs)
    if lacks:
        pytest.skip(lacks)
