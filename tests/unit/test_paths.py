"""The directory that is used when none is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from litellm_ledger._storage.location import ENVIRONMENT, default_directory


def test_the_environment_names_the_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "mine"))
    assert default_directory() == tmp_path / "mine"
    assert not (tmp_path / "mine").exists()


def test_a_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(ENVIRONMENT, "~/usage")
    assert default_directory() == tmp_path / "usage"


@pytest.mark.parametrize("empty", [None, ""])
def test_otherwise_it_is_the_data_directory_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    if empty is not None:
        monkeypatch.setenv(ENVIRONMENT, empty)
    assert default_directory().name == "litellm-ledger"
    assert default_directory().is_relative_to(tmp_path)
