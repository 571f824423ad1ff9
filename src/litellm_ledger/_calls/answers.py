"""Handing out an answer with its record on it, and otherwise as LiteLLM made it.

Owns the one attribute we add, to answers and to exceptions.  Dump, JSON, equality and pickling of
every type of answer stay as they were.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from litellm_ledger._records.record import UsageRecord

if TYPE_CHECKING:  # an answer stays LiteLLM's object; this is how type checkers see it
    from litellm.types import rerank, utils
    from litellm.types.llms import openai

    class EmbeddingResponse(utils.EmbeddingResponse):
        usage_record: UsageRecord

    class HttpxBinaryResponseContent(openai.HttpxBinaryResponseContent):
        usage_record: UsageRecord

    class ImageResponse(utils.ImageResponse):
        usage_record: UsageRecord

    class LiteLLMBatch(utils.LiteLLMBatch):
        usage_record: UsageRecord

    class ModelResponse(utils.ModelResponse):
        usage_record: UsageRecord

    class OpenAIModerationResponse(openai.OpenAIModerationResponse):
        usage_record: UsageRecord

    class RerankResponse(rerank.RerankResponse):
        usage_record: UsageRecord

    class ResponsesAPIResponse(openai.ResponsesAPIResponse):
        usage_record: UsageRecord

    class TextCompletionResponse(utils.TextCompletionResponse):
        usage_record: UsageRecord

    class TranscriptionResponse(utils.TranscriptionResponse):
        usage_record: UsageRecord


__all__ = ["RecordedDict", "hand_out", "label", "twin_of"]


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


def label(exc: BaseException, record: UsageRecord | None) -> None:
    """Put the record of a call on the exception that ended it, as ``usage_record``.

    Type, text, ``args`` and equality stay; it stands in ``vars(exc)``, and is pickled with the
    exception where that can be pickled at all.  One that takes no attribute goes without.
    """
    if record is not None:
        with contextlib.suppress(AttributeError, TypeError):
            object.__setattr__(exc, "usage_record", record)


def twin_of(exc: Exception) -> Exception:
    """An exception like another: one object raised in many tasks would mix up their tracebacks."""
    try:
        twin = type(exc).__new__(type(exc), *exc.args)
        twin.__dict__.update(exc.__dict__)
        twin.args = exc.args
        twin.__cause__, twin.__suppress_context__ = exc.__cause__, exc.__suppress_context__
    except Exception:  # noqa: BLE001 - a class with ideas of its own
        return exc
    return twin.with_traceback(exc.__traceback__)
