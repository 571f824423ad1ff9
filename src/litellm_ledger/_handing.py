"""Handing out an answer with its record on it, and otherwise as LiteLLM made it.

Owns the one attribute we add.  Dump, JSON, equality and pickling of every type stay as they were.
"""

from __future__ import annotations

import contextlib
from typing import Any

from ._record import UsageRecord

__all__ = ["RecordedDict", "hand_out"]


class RecordedDict(dict[str, Any]):
    """An answer that LiteLLM gives as a plain ``dict``.

    Attributes:
        usage_record: the record of the call.
    """

    usage_record: UsageRecord | None = None


def hand_out(answer: Any, record: UsageRecord) -> Any:
    """Return the answer with ``usage_record`` on it; one that takes no attribute goes without."""
    if type(answer) is dict:
        answer = RecordedDict(answer)
    with contextlib.suppress(AttributeError, TypeError):
        # Past pydantic's own __setattr__, which would put it into model_dump() and JSON.
        object.__setattr__(answer, "usage_record", record)
    return answer
