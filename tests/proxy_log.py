"""A callback that LiteLLM's proxy runs in its own process: one line for each attempt it made.

The proxy's configuration names it, so the proxy imports it from the directory of that file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from litellm.integrations.custom_logger import CustomLogger


class AttemptLog(CustomLogger):
    """Appends to the file that `PROXY_LOG` names."""

    def _write(self, status: str, kwargs: Mapping[str, Any]) -> None:
        line = {
            "status": status,
            "id": kwargs.get("litellm_call_id"),
            "call": kwargs.get("call_type"),
            "cost": repr(kwargs.get("response_cost")),
        }
        with open(os.environ["PROXY_LOG"], "a") as file:
            file.write(json.dumps(line) + "\n")

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._write("ok", kwargs)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._write("error", kwargs)


log = AttemptLog()
