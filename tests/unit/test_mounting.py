"""The dashboard below a mount, whichever framework cuts the path in which way."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_ledger._web.mounting import whole_path


@pytest.mark.parametrize(
    ("raw", "path", "root", "whole", "mount"),
    [
        ("/usage/explore", "/usage/explore", "/usage", "/usage/explore", "/usage"),  # Starlette
        ("/explore", "/explore", "", "/explore", ""),  # served alone
        ("/usage/explore", "/explore/", "", "/usage/explore", "/usage"),  # Litestar
        ("/usage/", "/", "", "/usage/", "/usage"),
        ("/usage", "/", "", "/usage", "/usage"),
        ("/api/usage/explore", "/explore/", "/api", "/api/usage/explore", "/api/usage"),
        ("/usage/explore", "/explore", "/usage", "/usage/explore", "/usage"),
        ("/usage/operations/a%20b", "/operations/a b/", "", "/usage/operations/a b", "/usage"),
        ("/usage/%C3%BC?a=/b", "/ü", "", "/usage/ü", "/usage"),
        ("/old/explore", "/usage/explore", "/usage", "/usage/explore", "/usage"),  # rewritten
        ("", "/explore", "", "/explore", ""),
    ],
)
def test_the_path_is_whole_and_the_mount_is_known(
    raw: str, path: str, root: str, whole: str, mount: str
) -> None:
    scope: dict[str, Any] = {"path": path, "root_path": root, "raw_path": raw.encode(), "more": 1}
    found = whole_path(scope)
    assert (found["path"], found["root_path"], found["more"]) == (whole, mount, 1)
    assert (scope["path"], scope["root_path"]) == (path, root)


def test_a_server_need_not_tell_the_raw_path() -> None:
    scope = {"path": "/explore", "root_path": ""}
    assert whole_path(scope) is scope
