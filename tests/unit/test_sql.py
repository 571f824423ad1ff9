"""A statement of the user's own: it reads the two views, and is told what else it cannot do."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from tests.ledger_by_hand import HandMade

from litellm_ledger import Ledger
from litellm_ledger._reports import relation as _relation

TAGS = [{"user": "alice", "tenant": "acme"}, {"user": "bob", "tenant": "acme"}, {"user": "bob"}]


ONE_WAY = pytest.mark.parametrize("ledger", ["database"], indirect=True)
"""For what does not hang on the way in which the segments are read."""


@pytest.fixture(params=["database", "copies", "line by line"])
def ledger(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Ledger:
    """Three calls, read in each of the ways in which a segment is read."""
    hand = HandMade(tmp_path / "us'age[1]")
    lines = [
        hand.line(n, cost=Decimal(n), tags=tags, status="error" if n == 3 else "ok", meta={"n": n})
        for n, tags in enumerate(TAGS, 1)
    ]
    if request.param == "database":
        monkeypatch.setattr(_relation, "_SMALL", 0)
    if request.param == "copies":
        monkeypatch.setattr(_relation, "_WORTH_A_COPY", 0)
        hand.open(1, lines, tail=b"torn")
    else:
        hand.sealed(1, 3, lines)
    return Ledger(hand.root)


def test_nothing_is_in_sight_but_the_two_views(ledger: Ledger) -> None:
    assert ledger.sql("SHOW TABLES").rows == [("calls",), ("records",)]
    for query in ("SHOW ALL TABLES", "DESCRIBE"):
        assert [row["name"] for row in ledger.sql(query).to_dicts()] == ["calls", "records"]
    query = "SELECT table_name FROM information_schema.tables ORDER BY 1"
    assert ledger.sql(query).rows == [("calls",), ("records",)]
    for name in ("line_by_line", "foo"):
        with pytest.raises(ValueError, match=r"The views are calls and records\.") as caught:
            ledger.sql(f"FROM {name}")
        assert "pg_" not in str(caught.value)


def test_every_column_is_there_when_the_tables_are_hidden(ledger: Ledger) -> None:
    query = "SELECT seq, cost, meta->>'$.n' AS n, tags['user'] AS who, typeof(meta) AS kind, ts"
    found = ledger.sql(f"{query} FROM records ORDER BY seq").to_dicts()
    assert [(row["seq"], row["cost"], row["n"], row["who"]) for row in found] == [
        (n, Decimal(n), str(n), tags["user"]) for n, tags in enumerate(TAGS, 1)
    ]
    assert {(row["kind"], row["ts"].year) for row in found} == {("JSON", 2025)}


@ONE_WAY
@pytest.mark.parametrize(
    "query",
    [
        "SELECT user, sum(cost) FROM calls GROUP BY user",
        "SELECT sum(cost) FROM calls WHERE USER = 'alice'",
        'SELECT "user" FROM calls',
        "SELECT user AS user FROM calls",
        "SELECT count(DISTINCT user) FROM calls -- AS user",
        "SELECT ' AS user ', user FROM calls",
        "PIVOT calls ON user USING sum(cost)",
        "SELECT calls.user FROM calls",
        "EXPLAIN SELECT user FROM calls",
    ],
)
def test_a_bare_user_is_refused_with_the_column_that_is_meant(ledger: Ledger, query: str) -> None:
    with pytest.raises(ValueError, match=r"tags\['user'\]"):
        ledger.sql(query)


@ONE_WAY
def test_a_bare_tag_is_refused_with_the_column_that_is_meant(ledger: Ledger) -> None:
    for word in ("tenant", "session_user", "current_user"):
        with pytest.raises(ValueError, match=rf"tags\['{word}'\]"):
            ledger.sql(f"SELECT {word} FROM calls")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT tags['user'] AS user, sum(cost) FROM calls GROUP BY user ORDER BY user",
        "SELECT user: tags['user'], sum(cost) FROM calls GROUP BY ALL ORDER BY user",
        (
            "WITH c AS (FROM calls SELECT tags['user'] AS \"user\", cost) "
            "FROM c SELECT c.user, sum(cost) GROUP BY user ORDER BY ALL"
        ),
        (
            "FROM (FROM calls SELECT tags['user'] AS user, 2 * cost / 2 AS c) SELECT user, sum(c) "
            "GROUP BY 1 ORDER BY 1"
        ),
        "SELECT tags['user'] /* user */, sum(cost) FROM calls -- by user\nGROUP BY 1 ORDER BY 1",
    ],
)
def test_a_column_that_the_query_names_user_is_a_column(ledger: Ledger, query: str) -> None:
    assert ledger.sql(query).rows == [("alice", Decimal(1)), ("bob", Decimal(5))]


@ONE_WAY
def test_the_word_user_in_a_text_is_no_column(ledger: Ledger) -> None:
    query = r"SELECT 'it''s user', E'\'user', $$user$$, $a$ user $$ $a$"
    assert ledger.sql(query).rows == [("it's user", "'user", "user", " user $$ ")]


@pytest.mark.parametrize(
    "query",
    [
        "PIVOT (SELECT status, cost FROM calls) ON status USING sum(cost)",
        "FROM (PIVOT (SELECT status, cost FROM calls) ON status USING sum(cost))",
        "WITH c AS (SELECT status, cost FROM calls) PIVOT c ON status USING sum(cost);",
        "FROM (PIVOT calls ON status USING sum(cost) GROUP BY kind) SELECT error, ok",
        "PIVOT (SELECT status, cost FROM calls) ON status IN ('error', 'ok') USING sum(cost)",
    ],
)
def test_a_pivot_answers(ledger: Ledger, query: str) -> None:
    table = ledger.sql(query)
    assert (table.columns, table.rows) == (["error", "ok"], [(Decimal(3), Decimal(3))])


def test_a_pivot_with_the_values_named_takes_parameters(ledger: Ledger) -> None:
    pivot = "PIVOT calls ON status IN ('error', 'ok') USING sum(cost) GROUP BY seq"
    query = f"SELECT seq, error, ok FROM ({pivot}) WHERE seq > $least"
    assert ledger.sql(query, {"least": 2}).rows == [(3, Decimal(3), None)]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.csv"
    path.write_text("a,b\n1,2\n")
    return path


READING = [
    "FROM '{secret}'",
    "FROM read_csv('{secret}')",
    "FROM read_text('{secret}')",
    "FROM read_blob(['{secret}'])",
    "FROM \"read_text\" ('{secret}')",
    "FROM sniff_csv('{secret}')",
    "FROM glob('{folder}/*')",
    "FROM glob('{folder}/secret.csv')",
    "SELECT (SELECT content FROM read_text('{secret}'))",
    "PIVOT '{secret}' ON a USING sum(b)",
    "SELECT * FROM calls, '{secret}'",
    "SUMMARIZE '{secret}'",
    "DESCRIBE FROM '{secret}'",
    "EXPLAIN FROM read_csv('{secret}')",
]


@pytest.mark.parametrize("query", READING)
def test_a_statement_reads_no_file(ledger: Ledger, secret: Path, query: str) -> None:
    with pytest.raises(ValueError, match="reads only the views calls and records; --allow-files"):
        ledger.sql(query.format(secret=secret, folder=secret.parent))


@ONE_WAY
@pytest.mark.parametrize("query", READING)
def test_a_statement_reads_files_where_they_are_allowed(
    ledger: Ledger, secret: Path, query: str
) -> None:
    assert ledger.sql(query.format(secret=secret, folder=secret.parent), allow_files=True).rows


@pytest.mark.parametrize(
    "query", ["FROM '{}'", "FROM read_text('{}')", "FROM read_json_auto('{}')"]
)
def test_the_files_of_the_ledger_itself_are_no_tables_either(ledger: Ledger, query: str) -> None:
    for path in (ledger.path / "segments").iterdir():
        with pytest.raises(ValueError, match="reads only the views calls and records"):
            ledger.sql(query.format(str(path.absolute()).replace("'", "''")))


@ONE_WAY
@pytest.mark.parametrize("allow_files", [False, True])
@pytest.mark.parametrize(
    "query",
    [
        "COPY calls TO '{}'",
        "COPY (PIVOT calls ON status USING sum(cost)) TO '{}'",
        "COPY (PIVOT calls ON status USING sum(cost)) TO '{}' (USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY (PIVOT calls ON status USING sum(cost)) TO '{}'",
        "CREATE TABLE t AS PIVOT calls ON status USING sum(cost)",
        "CREATE TYPE t AS ENUM ('a'); PIVOT calls ON status USING sum(cost)",
        "ATTACH '{}'",
        "EXPORT DATABASE '{}'",
        "IMPORT DATABASE '{}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA enable_profiling",
        "CALL enable_logging()",
        "PREPARE q AS SELECT 1",
        "SELECT 1; COPY calls TO '{}'",
        "/* SELECT */ COPY calls TO '{}'",
        "FROM enable_logging(storage = 'file', storage_path = '{}')",
        "FROM query('SELECT 1')",
        "FROM pandas_scan(1)",
    ],
)
def test_a_statement_that_does_more_than_read_is_refused(
    ledger: Ledger, tmp_path: Path, query: str, allow_files: bool
) -> None:
    target = tmp_path / "target"
    with pytest.raises(ValueError, match=r"give one statement that only reads|leave ANALYZE out|"
                       r"does more than read"):  # fmt: skip
        ledger.sql(query.format(target), allow_files=allow_files)
    assert not target.exists()


FACE = "\N{GRINNING FACE}"
HIDDEN = {
    "a dollar sign in a name": "SELECT 1 AS pivot, 2 AS a$b$ {} AS x$b$",
    "a name that is no letter": f"SELECT 1 AS pivot, 2 AS {FACE}$b$ {{}} AS x$b$",
    "a comment in a comment": "SELECT 1 AS pivot /* /* */ ' */ {} --'",
    "a line that ends in a carriage return": "SELECT 1 AS pivot -- it's\r {} --'",
    "a text whose sign is no letter": f"SELECT 1 AS pivot, ${FACE}$ ' ${FACE}$ {{}} --'",
}


@ONE_WAY
@pytest.mark.parametrize("allow_files", [False, True])
@pytest.mark.parametrize("around", HIDDEN.values(), ids=HIDDEN)
def test_what_looks_like_a_text_or_a_comment_and_is_none_is_not_run(
    ledger: Ledger, tmp_path: Path, around: str, allow_files: bool
) -> None:
    target = tmp_path / "target"
    for hidden in (
        ", * FROM query('SELECT 2 AS q')",
        f"; COPY (SELECT 1) TO '{target}'; SELECT 1",
        "; CREATE TABLE t AS SELECT 1; SELECT 1",
    ):
        with pytest.raises(ValueError, match=r"only reads|does more than read"):
            ledger.sql(around.format(hidden), allow_files=allow_files)
    assert not target.exists()


def test_comments_texts_and_names_of_every_form_are_read(ledger: Ledger) -> None:
    query = """
        SELECT /* one; /* in */ another; */ $t$ read_text('; $t$ AS "read_text", -- query(
        1 AS a$b$, 'it''s; query(' AS té, e'\\'; query(' AS e FROM calls LIMIT 1
    """
    assert ledger.sql(query).rows == [(" read_text('; ", 1, "it's; query(", "'; query(")]


def test_the_name_of_a_table_is_not_computed(ledger: Ledger) -> None:
    for path in (ledger.path / "segments").iterdir():
        name = str(path.absolute()).replace("'", "''")
        with pytest.raises(ValueError, match="reads only the views calls and records"):
            ledger.sql(f"FROM query_table('{name[:-8]}' || '{name[-8:]}')")


@ONE_WAY
def test_a_query_sees_no_variable_of_the_program(ledger: Ledger) -> None:
    import pyarrow

    secret = pyarrow.table({"a": [1]})
    assert secret.num_rows
    with pytest.raises(ValueError, match="The views are calls and records"):
        ledger.sql("FROM secret", allow_files=True)


@ONE_WAY
def test_what_is_too_large_for_memory_is_sorted_on_disk_inside_the_fence(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = _relation.connect
    monkeypatch.setattr(_relation, "connect", lambda: small("60MB", 1))
    numbers = "SELECT range AS x FROM range(8000000) ORDER BY hash(range) LIMIT 7999999"
    assert len(ledger.sql(f"SELECT sum(x) FROM ({numbers})")) == 1


def test_without_room_for_a_temporary_file_a_query_is_answered(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_relation.Relation, "hide_tables", full)
    assert ledger.sql("SELECT sum(cost) FROM calls").rows == [(Decimal(6),)]
