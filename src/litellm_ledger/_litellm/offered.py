"""What becomes of each coroutine that LiteLLM exports and that is no row of ``CALLS``.

Owns the two lists.  A test compares them and the table with the installed LiteLLM.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NOT_OFFERED", "UNBILLED"]

UNBILLED: Final = frozenset(
    {
        "a_add_message",
        "acancel_batch",
        "acancel_eval",
        "acancel_fine_tuning_job",
        "acancel_responses",
        "acancel_run",
        "acount_tokens",
        "acreate_agent",
        "acreate_assistants",
        "acreate_eval",
        "acreate_file",
        "acreate_skill",
        "acreate_thread",
        "adelete_agent",
        "adelete_assistant",
        "adelete_container",
        "adelete_eval",
        "adelete_responses",
        "adelete_run",
        "adelete_skill",
        "afile_content",
        "afile_delete",
        "afile_list",
        "afile_retrieve",
        "aget_agent",
        "aget_assistants",
        "aget_eval",
        "aget_messages",
        "aget_run",
        "aget_skill",
        "aget_thread",
        "alist_agent_versions",
        "alist_agents",
        "alist_batches",
        "alist_container_files",
        "alist_containers",
        "alist_evals",
        "alist_fine_tuning_jobs",
        "alist_input_items",
        "alist_runs",
        "alist_skills",
        "aretrieve_container",
        "aretrieve_fine_tuning_job",
        "aupload_container_file",
        "avector_store_file_content",
        "avector_store_file_create",
        "avector_store_file_delete",
        "avector_store_file_list",
        "avector_store_file_retrieve",
        "avector_store_file_update",
        "avideo_content",
        "avideo_create_character",
        "avideo_get_character",
        "avideo_list",
        "avideo_status",
    }
)
"""Calls that no provider bills by themselves: they go to LiteLLM as they are, and on no record."""

_INSIDE: Final = "it makes billed calls of its own: ``capture()`` records those"
_PROXY: Final = (
    "it serves LiteLLM's proxy: the audio or the key goes to a browser, and no usage comes back"
)
_SANDBOX: Final = "it runs code on a service that LiteLLM has no price of"

NOT_OFFERED: Final = {
    "aadapter_completion": _INSIDE,
    "aadapter_generate_content": _INSIDE,
    "acompletion_with_retries": "``acompletion`` with ``retries=`` records each attempt",
    "acode_interpreter_tool": _SANDBOX,
    "acreate_realtime_client_secret": _PROXY,
    "acreate_realtime_transcription_session": _PROXY,
    "acreate_realtime_translation_client_secret": _PROXY,
    "acreate_run": "OpenAI bills the runs of an evaluation to the account, without a usage",
    "acreate_sandbox": _SANDBOX,
    "adelete_sandbox": _SANDBOX,
    "ahealth_check": _INSIDE,
    "aingest": _INSIDE,
    "aquery": _INSIDE,
    "arealtime_calls": _PROXY,
    "arealtime_translation_calls": _PROXY,
    "aresponses_api_with_mcp": _INSIDE,
    "aresponses_with_retries": "``aresponses`` with ``retries=`` records each attempt",
    "arun_code": _SANDBOX,
    "arun_thread": "OpenAI has closed its assistants; a run's usage is not in LiteLLM's answer",
    "arun_tool_loop": _INSIDE,
    "async_completion_with_fallbacks": _INSIDE,
    "asystemone": _INSIDE,
    "bill_first_round_on_failure": "it is a part of LiteLLM's",
    "close_litellm_async_clients": "``aclose`` closes what a client of this library opened",
    "maybe_run_chat_completion_agentic_loop": "it is a part of LiteLLM's",
    "realtime_health_check": _PROXY,
}
"""Coroutines that a client does not have, and why."""
