"""LiteLLM's internals that are used here: names that it does not document, each spelled once.

Owns the spelling and the look-up.  ``tests/unit/test_internals.py`` says which of them the
installed LiteLLM lacks.  Where one is used the code does without it: a version may keep it
elsewhere.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "BOUND_LOOP",
    "CALLBACK_LISTS",
    "COST_CALCULATORS",
    "FIRST_CALL",
    "HIDDEN",
    "LOGGING_TASKS",
    "MCP_CHAT",
    "MCP_RESPONSES",
    "MESSAGES_STREAM",
    "NAMES",
    "OWNS_CLIENT",
    "OWNS_SESSION",
    "PRE_CALL",
    "Modules",
    "internal",
]

NAMES: Final = {
    "CustomLogger": "litellm.integrations.custom_logger",
    "GLOBAL_LOGGING_WORKER": "litellm.litellm_core_utils.logging_worker",
    "PromptTokensDetailsWrapper": "litellm.types.utils",
    "ProviderConfigManager": "litellm.utils",
    "VertexBase": "litellm.llms.vertex_ai.vertex_llm_base",
    "_check_provider_match": "litellm.utils",
    "_get_model_cost_key": "litellm.utils",
    "_get_potential_model_names": "litellm.utils",
    "_handle_completed_batch": "litellm.batches.batch_utils",
    "_is_off_peak": "litellm.litellm_core_utils.llm_cost_calc.utils",
    "batch_cost_calculator": "litellm.cost_calculator",
    "callback_list": "litellm.utils",
    "executor": "litellm.litellm_core_utils.thread_pool_executor",
    "get_model_cost_map_source_info": "litellm.litellm_core_utils.get_model_cost_map",
    "get_model_cost_mutation_generation": "litellm.utils",
    "get_ssl_configuration": "litellm.llms.custom_httpx.http_handler",
    "infer_openai_data_residency": "litellm.llms.openai.data_residency",
    "version": "litellm._version",
}
"""Functions, classes and objects, each with its module."""


def internal(name: str) -> Any:
    """Return one of ``NAMES``; ``ImportError`` or ``AttributeError`` where LiteLLM lacks it."""
    return getattr(__import__(NAMES[name], fromlist=(name,)), name)  # import_module takes 5 µs more


# --- Attributes ------------------------------------------------------------------------------

HIDDEN: Final = "_hidden_params"
"""What LiteLLM tells of an answer beside the answer."""

BOUND_LOOP: Final = "_bound_loop"
OWNS_CLIENT: Final = "_owns_client"
OWNS_SESSION: Final = "_owns_session"

CALLBACK_LISTS: Final = (
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "service_callback",
    "_async_input_callback",
    "_async_success_callback",
    "_async_failure_callback",
)
"""Where LiteLLM keeps callbacks; the first is where they are put, a call copies them to others."""

COST_CALCULATORS: Final = ("response_cost_calculator", "_response_cost_calculator")
"""The method of LiteLLM's object of a call, by the version."""

PRE_CALL: Final = "pre_call"
"""The method of that object that calls ``log_pre_api_call`` of each callback."""

LOGGING_TASKS: Final = frozenset(
    {
        "Logging.async_failure_handler",
        "Logging.async_success_handler",
        "Logging.dispatch_failure_handlers",
        "Logging.dispatch_success_handlers",
        "_client_async_logging_helper",
    }
)
"""Coroutines of LiteLLM's that log, some through its worker."""

# --- Modules, each under the names that versions of LiteLLM give it, the newest name first ------

Modules = tuple[tuple[str, ...], ...]

FIRST_CALL: Final = (
    # What the first call imports with the loop stalled (0.6 s on the machine this was measured on).
    "openai.resources",
    "litellm.proxy._types",
    "litellm._service_logger",
    "litellm.llms.fal_ai.cost_calculator",
    "litellm.llms.vertex_ai.vertex_ai_partner_models.anthropic.transformation",
    "litellm.litellm_core_utils.default_encoding",
    "anyio._backends._asyncio",
)

MCP_CHAT: Final[Modules] = (("litellm.responses.mcp.chat_completions_handler",),)
MCP_RESPONSES: Final[Modules] = (("litellm.responses.mcp.litellm_proxy_mcp_handler",),)
MESSAGES_STREAM: Final[Modules] = (
    (
        "litellm.llms.anthropic.messages.native.streaming_iterator",
        "litellm.llms.anthropic.pass_through.messages.streaming_iterator",
        "litellm.llms.anthropic.experimental_pass_through.messages.streaming_iterator",
    ),
    ("litellm.proxy.pass_through_endpoints.streaming_handler",),
)
