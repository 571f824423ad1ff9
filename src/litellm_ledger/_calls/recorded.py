"""LiteLLM's answers as a type checker sees them once they carry ``usage_record``.

Owns names for type checkers and editors.  Nothing here exists at run time: an answer stays the
object that LiteLLM made, with one attribute more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litellm.types import rerank, utils
    from litellm.types.llms import openai

    from litellm_ledger._records.record import UsageRecord

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
