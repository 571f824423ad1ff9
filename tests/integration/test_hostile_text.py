"""Model names, tags and other text on record do nothing to a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger_by_hand import OTHER_WRITER, HandMade
from tests.terminal import in_a_pipe, on_a_terminal

from litellm_ledger import Ledger
from litellm_ledger._cli import tables as _tables
from litellm_ledger._cli.tables import put_text
from litellm_ledger._records.escaping import escaped, json_text
from litellm_ledger._reports.csv_lines import CsvLines

HOSTILE = "a\x1b]0;pwned\x07\x9b31mb\u202ec\u2066d\r\n\x7fe\u2028f"
SHOWN = r"a\x1b]0;pwned\x07\x9b31mb\u202ec\u2066d\r\n\x7fe\u2028f"
UNSAFE = set(map(chr, [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)])) | set(
    "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
QUIET = ("daily", "verify", "doctor", "records PATH --all-kinds")
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"]


def hostile(root: Path) -> None:
    names = ("model", "provider", "error", "call_id", "response_id")
    fields: dict[str, Any] = {
        **dict.fromkeys(names, HOSTILE),
        "tags": {HOSTILE: HOSTILE, "user": HOSTILE},
        "meta": {HOSTILE: [HOSTILE]},
        "cost": Decimal("0.5"),
        "input_tokens": 1,
    }
    hand = HandMade(root)
    lines = [
        hand.started(1),
        hand.outcome(2, of=1, **fields),
        hand.line(3, status="error", model="m"),
    ]
    hand.sealed(1, 3, lines)
    HandMade(root, OTHER_WRITER).open(1, [], tail=b"torn")


COMMANDS = [
    "daily PATH", "report PATH --by model,tag:user,error", "report PATH --by misspelt",
    "report PATH --by provider --md", "report PATH --by model --csv",
    "report PATH --by model --json", "report PATH --breakdown", "top models PATH",
    "top tags PATH", "top tags PATH --csv", "calls PATH", "calls PATH --md", "calls PATH --csv",
    "calls PATH --json", "records PATH --all-kinds", "records PATH --json", "tail PATH",
    "tail PATH --json", "export PATH --csv", "export PATH --jsonl", "verify PATH --all",
    "verify PATH --json", "doctor PATH", "doctor PATH --json",
]  # fmt: skip


def asked(command: str, path: Path) -> list[str]:
    return [str(path) if word == "PATH" else word.replace("_", " ") for word in command.split()]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("run", [in_a_pipe, on_a_terminal])
def test_no_command_writes_a_control_character_of_a_record(
    tmp_path: Path, run: Callable[..., str], command: str
) -> None:
    hostile(tmp_path)
    shown = run(*asked(command, tmp_path))
    unsafe = UNSAFE & set(shown)
    if run is in_a_pipe and "--csv" in command:
        assert unsafe, "a file of CSV has the text as it is"
    else:
        assert not unsafe, shown
        assert "pwned" in shown or command.startswith(QUIET), "the text is not there at all"


@pytest.mark.parametrize("run", [in_a_pipe, on_a_terminal])
def test_errors_and_paths_write_no_control_character_either(
    tmp_path: Path, run: Callable[..., str]
) -> None:
    strange = tmp_path / "a\x1b[31m\x9bb"
    for command in ("show ID PATH", "calls PATH", "verify PATH", "sql SELECT_1 PATH"):
        shown = run(*(HOSTILE if word == "ID" else word for word in asked(command, strange)))
        assert r"\x1b" in shown
        assert not UNSAFE & set(shown)
    hostile(strange)
    none = "calls PATH --where model=none"
    for command in (none, "calls PATH", "verify PATH", "doctor PATH", "show none PATH"):
        assert not UNSAFE & set(run(*asked(command, strange)))
    (record,) = (r for r in Ledger(strange).records() if r.model == HOSTILE)
    assert not UNSAFE & set(run("show", str(record.id), str(strange)))
    failing = f"SELECT CAST(model AS INT) FROM calls WHERE id = '{record.id}'"
    shown = run("sql", failing, str(strange))
    assert "query fails" in shown
    assert not UNSAFE & set(shown)
    named = 'SELECT model AS "[bold]\x1b[/x]" FROM calls ORDER BY id'
    for form in ("--json", "--md", ""):
        shown = run("sql", named, str(strange), *form.split())
        assert "bold]" in shown
        assert not UNSAFE & set(shown)


def test_json_keeps_the_very_text(tmp_path: Path) -> None:
    hostile(tmp_path)
    for run in (in_a_pipe, on_a_terminal):
        found = json.loads(run("calls", str(tmp_path), "--json"))["calls"]
        assert HOSTILE in [call.get("model") for call in found]
    assert json.loads(json_text({HOSTILE: [HOSTILE, "é😀"]})) == {HOSTILE: [HOSTILE, "é😀"]}
    assert json_text("é😀\x85\u202e") == r'"é😀\u0085\u202e"'


def test_ordinary_text_of_any_language_is_shown_as_it_is() -> None:
    for text in ("prix 3\xa0€", "می\u200cخواهم", "👩\u200d🔬", "東京\u3000"):
        assert escaped(text) == text
    assert escaped(HOSTILE) == SHOWN
    assert escaped("a\tb\n", "\n\t") == "a\tb\n"


def test_the_answer_of_ask_is_exact_in_a_pipe_and_escaped_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_text("one\ttwo\n\x1b[31m")
    monkeypatch.setattr(_tables, "on_terminal", lambda: True)
    put_text("one\ttwo\n\x1b[31m")
    assert capsys.readouterr().out == "one\ttwo\n\x1b[31mone\ttwo\n\\x1b[31m"


# -- spreadsheets ----------------------------------------------------------------------------------


def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(tmp_path: Path) -> None:
    cost = Decimal("-0.25")
    calls = [{"model": text, "tags": {"user": text}, "cost": cost} for text in FORMULAS]
    path = str(HandMade(tmp_path).filled(*calls).root)

    def read(*command: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(in_a_pipe(*command, "--csv"), newline="")))

    for command in (
        ["report", path, "--by", "model,user"],
        ["top", "users", path],
        ["calls", path],
        ["export", path],
        ["sql", "SELECT model, cost, tags['user'] AS \"=user\" FROM calls", path],
    ):
        rows, raw = read(*command), read(*command, "--raw")
        assert len(rows) == len(raw) == len(FORMULAS)
        for text in FORMULAS:
            assert [f"'{text}" in row.values() for row in rows].count(True) == 1
            assert not any(text in row.values() for row in rows)
            assert [text in row.values() for row in raw].count(True) == 1
            assert not any(f"'{text}" in row.values() for row in raw)
        for row in rows:
            assert Decimal(row["cost"]) == Decimal("-0.25"), "a number of ours is a number"
        if command[0] == "sql":
            assert list(rows[0]) == ["model", "cost", "'=user"]


def test_a_carriage_return_in_a_cell_begins_no_row() -> None:
    assert CsvLines().line(["a\r=1+1", "b"]) == '"a\r=1+1",b\n'


def test_what_is_csv_only_is_refused_elsewhere(tmp_path: Path) -> None:
    hostile(tmp_path)
    for command in ("calls PATH --raw", "export PATH --raw --jsonl", "report PATH --json --raw"):
        assert "--raw needs --csv" in in_a_pipe(*asked(command, tmp_path))


@given(rows=st.lists(st.lists(st.text(), min_size=1, max_size=4), min_size=1))
def test_what_is_written_raw_is_read_back_by_any_reader_of_csv(rows: list[list[str]]) -> None:
    form = CsvLines(raw=True)
    text = "".join(map(form.line, rows))
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows
