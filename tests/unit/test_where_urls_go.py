"""A URL where a directory is meant: what is refused, and where to go instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from litellm_ledger import LiteLLMClient, UsageTracker
from litellm_ledger._cli.app import app

DATABASE = "postgresql://user:s3cret@db.example.com/usage"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["doctor", DATABASE], "database check URL"),
        (["alerts", DATABASE], "metrics URL"),
        (["budgets", "s3://bucket/x"], "run budgets on each machine"),
        (["backup", "there", DATABASE], "pg_dump"),
        (["ship", DATABASE, "--to", DATABASE], "where ledgers are shipped to"),
    ],
)
def test_a_command_of_a_directory_says_where_to_go(args: list[str], words: str) -> None:
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 2
    assert words in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize("url", [DATABASE, "s3://bucket/s3cret", "file:///s3cret"])
def test_nothing_is_written_to_a_url(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for make in (LiteLLMClient, UsageTracker):
        with pytest.raises(ValueError, match="a ledger is written to a directory") as refused:
            make(url)
        assert "s3cret" not in str(refused.value)
    monkeypatch.setenv("LITELLM_LEDGER_DIR", url)
    with pytest.raises(ValueError, match="a ledger is written to a directory"):
        UsageTracker()
    assert list(tmp_path.iterdir()) == []


def test_a_sink_is_a_database(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="litellm-ledger ship PATH --to URL --follow"):
        UsageTracker(tmp_path, sink="s3://bucket/x")


def test_flags_before_a_command_are_not_taken_for_a_directory(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["-q", "--json", "verify", str(tmp_path)])
    assert done.exit_code == 2
    assert "litellm-ledger verify -q --json" in done.stderr


def test_quiet_says_nothing_of_what_went_well(tmp_path: Path) -> None:
    root = tmp_path / "usage"
    (root / "segments").mkdir(parents=True)
    (root / "live").mkdir()
    for args in (["verify"], ["recover"], ["seal"], ["prune", "--keep", "1d"], ["compact"]):
        done = CliRunner().invoke(app, [*args, str(root), "-q"])
        assert (done.exit_code, done.output) == (0, ""), args
