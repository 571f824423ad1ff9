"""Packages that LiteLLM needs for some of its calls, and that are not everywhere."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_ledger import MissingExtra
from litellm_ledger import _litellm_needs as needs
from litellm_ledger._calls import CALLS

__all__ = ["packages"]


async def packages(name: str, **kwargs: Any) -> None:
    """Skip where LiteLLM lacks a package for this call."""
    need = CALLS[name].need(kwargs)
    if need is not None:
        try:
            await needs.require(need.modules, need.install, name)
        except MissingExtra as exc:
            pytest.skip(str(exc))
