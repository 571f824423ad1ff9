"""``litellm-ledger.toml``: where it is found, whose it may be, what it sets and may not say."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.ledger_by_hand import NOON, HandMade
from tests.terminal import as_json, on_a_terminal, run, told

from litellm_ledger._cli import settings as _settings


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a ledger in ``usage``, in which commands run; home is above it."""
    project = tmp_path / "home" / "project"
    project.mkdir(parents=True)
    hand = HandMade(project / "usage")
    # 23:30 UTC: another day east of Greenwich
    hand.sealed(1, 1, [hand.line(1, ts=NOON.replace(hour=23, minute=30), cost=Decimal(1))])
    monkeypatch.setenv("HOME", str(project.parent))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(project.parent / "own"))
    monkeypatch.delenv("LITELLM_LEDGER_DIR", raising=False)
    monkeypatch.delenv("LITELLM_LEDGER_CONFIG", raising=False)
    monkeypatch.chdir(project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield project
    time.tzset()


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_sets_ledger_zone_and_columns_and_flags_beat_it(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(
        there / _settings.FILE,
        'ledger = "usage"\nzone = "Pacific/Auckland"\ncolumns = ["cost", "calls"]\n',
    )
    header, row, *_ = told("daily").splitlines()
    assert header.split() == ["day", "(Pacific/Auckland)", "cost", "calls"]
    assert row.split() == ["2025-01-02", "$1.00", "1"]
    for deeper in (there / "a" / "b", there):
        deeper.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(deeper)
        assert told().splitlines()[0] == header
    assert told("-z", "UTC", "--columns", "calls,tokens").splitlines()[0].split() == [
        "day", "(UTC)", "calls", "total", "tokens",
    ]  # fmt: skip
    assert as_json("statusline")["tz"] == "Pacific/Auckland"
    assert "total_tokens" in as_json("daily")["rows"][0]
    done = run("path")
    assert done.stdout == f"{there / 'usage'}\n"
    assert done.stderr == f"litellm-ledger: settings of {file}: ledger, zone, columns\n"
    findings = {one["check"]: one for one in as_json("doctor")["findings"]}
    assert findings["settings"]["text"] == f"settings of {file}: ledger, zone, columns"
    other = HandMade(there / "other")
    monkeypatch.setenv("LITELLM_LEDGER_DIR", str(other.root))
    assert "No calls on record" in told("daily")
    assert "($LITELLM_LEDGER_DIR beats its ledger)" in run("path").stderr
    assert told("daily", there / "usage").splitlines()[0] == header


def test_the_nearest_file_is_in_force_up_to_the_repository_then_the_users_own(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zone() -> object:
        return as_json("daily", there / "usage")["tz"]

    assert zone() == "UTC"
    put(there.parent / "own" / "litellm-ledger" / _settings.FILE, 'zone = "Asia/Kolkata"')
    assert zone() == "Asia/Kolkata"
    put(there.parent / _settings.FILE, 'zone = "Europe/Berlin"')  # home
    assert zone() == "Europe/Berlin"
    put(there.parent.parent / _settings.FILE, 'zone = "Europe/Rome"')  # above home
    assert zone() == "Europe/Berlin"
    (there / ".git").mkdir()
    assert zone() == "Asia/Kolkata"
    put(there / "pyproject.toml", '[project]\nname = "x"\n')
    assert zone() == "Asia/Kolkata"
    put(there / "pyproject.toml", '[tool.litellm-ledger]\nzone = "Asia/Tokyo"\n')
    assert zone() == "Asia/Tokyo"
    put(there / _settings.FILE, 'zone = "America/Lima"')
    assert zone() == "America/Lima"
    monkeypatch.setenv("LITELLM_LEDGER_CONFIG", "")
    assert zone() == "UTC"
    monkeypatch.setenv("LITELLM_LEDGER_CONFIG", str(there.parent / _settings.FILE))
    assert zone() == "Europe/Berlin"
    monkeypatch.setenv("LITELLM_LEDGER_CONFIG", str(there / "none.toml"))
    assert "none.toml" in run("daily", there / "usage").stderr


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('\nzoen = "UTC"\n', 2, "unknown key 'zoen'; did you mean zone? there are ledger, zone"),
        ("x = 1", 1, "unknown key 'x'; there are ledger, zone, columns"),
        ('zone = "UTC"\n\n[ledger]\na = 1', 3, "ledger is text in quotes"),
        ("zone = 7", 1, 'zone is text in quotes, such as zone = "Europe/Berlin"'),
        ('zone = "Mars"', 1, "unknown time zone 'Mars'"),
        ('# x\ncolumns = "calls"', 2, "columns is a list of names"),
        ('columns = ["calls", "prize"]', 1, "no column 'prize'; there are calls, ok, "),
        ("columns = []", 1, "no column is given"),
        ('zone = "UTC', 1, "at line 1"),
        ('zone = "\udcff"', 0, "UTF-8"),
    ],
)
def test_what_cannot_be_is_said_with_file_and_line(
    there: Path, text: str, line: int, said: str
) -> None:
    for name, before in ((_settings.FILE, ""), ("pyproject.toml", "\n\n[tool.litellm-ledger]\n")):
        for path in there.glob("*.toml"):
            path.unlink()
        shift = before.count("\n")
        if "[ledger]" in text and before:
            text = text.replace("[ledger]", "[tool.litellm-ledger.ledger]")
        file = there / name
        file.write_bytes((before + text).encode("utf-8", "surrogateescape"))
        done = run("daily", there / "usage")
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert str(file) in done.stderr
        if "line" not in said and line:
            assert f", line {line + shift}: {said}" in done.stderr
        elif line == 0:
            assert said in done.stderr


def test_a_file_of_another_user_or_that_all_can_write_is_left_out_and_that_is_said(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(there / _settings.FILE, 'ledger = "elsewhere"\nzone = "Asia/Tokyo"\n')
    real = os.fstat

    def foreign(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        return os.stat_result((*found[:4], os.geteuid() + 7, *found[5:]))

    with monkeypatch.context() as patch:
        patch.setattr(_settings.os, "fstat", foreign)
        done = run("daily", there / "usage")
        assert done.stdout.startswith("day (UTC) ")
        said = f"{file} is left out, because it belongs to another user (uid {os.geteuid() + 7})"
        assert done.stderr == f"litellm-ledger: {said}; LITELLM_LEDGER_CONFIG={file} has it read\n"
        findings = as_json("doctor", there / "usage")["findings"]
        assert any(said in one["text"] for one in findings)
        patch.setenv("LITELLM_LEDGER_CONFIG", str(file))
        assert as_json("daily", there / "usage")["tz"] == "Asia/Tokyo"
    file.chmod(0o666)
    assert "because everybody can write to it" in run("daily", there / "usage").stderr
    file.chmod(0o644)
    assert "no ledger at" in run("daily").stderr


def test_what_is_no_file_holds_nothing_up(there: Path) -> None:
    os.mkfifo(there / "pyproject.toml")
    assert as_json("daily", there / "usage")["tz"] == "UTC"
    os.mkfifo(there / _settings.FILE)
    assert "is no file of settings" in run("daily", there / "usage").stderr


def test_the_users_own_directory_is_that_of_platformdirs(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from platformdirs import user_config_dir

    for given in (str(there), "", None):
        if given is None:
            monkeypatch.delenv("XDG_CONFIG_HOME")
        else:
            monkeypatch.setenv("XDG_CONFIG_HOME", given)
        found = _settings._own_directory(str(there.parent))
        assert found == user_config_dir("litellm-ledger", appauthor=False)


@pytest.mark.parametrize(
    "command", ["daily", "report --by day", "hourly", "weekly", "top day", "calls", "records"]
)
def test_days_are_local_on_a_terminal_and_in_utc_in_a_pipe(
    there: Path, command: str, tmp_path: Path
) -> None:
    first, *rest = command.split()
    args = (
        [first, *rest[:1], there / "usage"] if first == "top" else [first, there / "usage", *rest]
    )
    seen, piped = on_a_terminal(*args), told(*args)
    assert "(Asia/Tokyo)" in seen
    assert "(UTC)" in piped
    if first != "weekly":
        assert "2025-01-02" in seen
        assert "2025-01-01" in piped
    assert "(Europe/Berlin)" in on_a_terminal(*args, "-z", "Europe/Berlin")
    put(there / _settings.FILE, 'zone = "America/Lima"')
    assert "(America/Lima)" in on_a_terminal(*args)
    assert "(America/Lima)" in told(*args)
    (there / _settings.FILE).unlink()
    if first in ("daily", "calls"):
        on_a_terminal(*args, "-o", tmp_path / "x.txt")
        assert (tmp_path / "x.txt").read_text() == piped


def test_times_without_a_zone_are_those_of_the_table(there: Path) -> None:
    def days(text: str) -> list[str]:
        return [word for word in text.split() if word.startswith("2025-")]

    for args in (["--since", "2025-01-02"], ["-w", "ts>=2025-01-02"], ["-w", "day=2025-01-02"]):
        assert days(on_a_terminal("daily", there / "usage", *args)) == ["2025-01-02"]
        assert told("daily", there / "usage", *args).startswith("No calls on record")
    assert 'tz": "Asia/Tokyo"' in on_a_terminal("statusline", there / "usage", "--json")
    assert as_json("statusline", there / "usage")["tz"] == "UTC"
    page = on_a_terminal("html", "-", there / "usage")  # a file is for others
    assert "time zone UTC" in page


def test_a_file_that_cannot_be_read_is_named_with_what_to_do(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "directory").mkdir()
    (there / "latin").write_bytes(b"zone = 'UTC'\n# \xe9t\xe9")
    for name, said in {
        "none.toml": "there is no file of settings none.toml; name another in LITELLM_LEDGER",
        "directory": "directory is no file of settings",
        "latin/x": "the file of settings latin/x cannot be read: Not a directory; name another",
        "latin": "latin: it is not UTF-8: byte 0xe9 in line 2; save it as UTF-8",
    }.items():
        monkeypatch.setenv("LITELLM_LEDGER_CONFIG", name)
        done = run("daily")
        assert (done.exit_code, done.stdout) == (2, "")
        assert said in done.stderr
        assert "Errno" not in done.stderr
    monkeypatch.delenv("LITELLM_LEDGER_CONFIG")
    (there / _settings.FILE).mkdir()
    assert f"{there / _settings.FILE} is no file of settings" in run("daily").stderr


def test_one_that_this_user_may_not_read_is_left_out_and_said(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(there / _settings.FILE, 'zone = "Asia/Tokyo"')
    real = os.open

    def refused(path: str, *args: int, **more: int) -> int:
        if path == str(file):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", refused)
    done = run("daily", there / "usage")
    assert done.exit_code == 0
    assert f"{file} is left out, because it cannot be read: Permission denied" in done.stderr


@pytest.mark.parametrize(("flag", "command"), [("--budgets", "budgets"), ("--anchor", "verify")])
def test_a_file_that_a_flag_names_and_nobody_can_read_is_said_so(
    there: Path, flag: str, command: str
) -> None:
    what = command if command == "budgets" else "anchors"
    (there / "binary").write_bytes(b"\xff\xfe\n")
    for name, said in {
        "none": f"there is no file of {what} none; give ",
        "usage": f"usage is a directory, and no file of {what}; give ",
        "binary/x": f"the file of {what} binary/x cannot be read: Not a directory; give ",
        "binary": "not UTF-8: byte 0xff in line 1" if what == "budgets" else "no anchor found in",
    }.items():
        done = run(command, "usage", flag, name)
        assert (done.exit_code, done.stdout) == (2, "")
        assert said in done.stderr
        assert "Errno" not in done.stderr


def test_a_word_that_is_nearly_a_command_is_suggested(there: Path) -> None:
    for words, meant in {("budgets", "relase"): "budgets release", ("bugdets",): "budgets"}.items():
        done = run(*words)
        assert done.exit_code == 2
        assert f"there is no command {' '.join(words)}; did you mean {meant}?" in done.stderr
    (there / "relase").mkdir()
    assert "no ledger at relase" in run("budgets", "relase").stderr
    assert "No such command 'zzz'" in run("zzz").stderr
