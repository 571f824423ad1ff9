"""``Table``: what a query of the user's own answers.

Owns the fence around such a statement (it reads the two views and nothing else), and the words for
what is wrong with one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

from litellm_ledger._archive.columns import text_list
from litellm_ledger._archive.database import literally, module
from litellm_ledger._reading.elsewhere import Places, Wanted, at_hand
from litellm_ledger._reading.lines import Problem

from .relation import Relation, ask

__all__ = ["Table", "run_sql"]

_NAME: Final = r"(?:[^\W\d]|[^\x00-\x7f\s])"
_IN_NAME: Final = r"(?:\w|[^\x00-\x7f\s])"
_TOKEN: Final = re.compile(
    rf"""
    (?: --[^\r\n]* | \s )+                             # line comments and blanks
    | (?P<comment> /\* )                               # these nest
    | (?P<token>
        [eE]'(?:\\.|''|[^'\\])*' | '(?:''|[^'])*'      # text
        | \$(?P<tag>(?:{_NAME}{_IN_NAME}*)?)\$.*?\$(?P=tag)\$
        | "(?:""|[^"])*" | {_NAME}(?:{_IN_NAME}|\$)* | \w+ | :: | \S
    )
    """,
    re.VERBOSE | re.DOTALL,
)
"""As the database reads a statement: text that it would run must not look like a comment here."""
_WORD: Final = re.compile(r"\w+")
_COMMENT_SIGN: Final = re.compile(r"/\*|\*/")
_READING: Final = re.compile(
    r"desc(ribe)?|explain|from|select|show|summarize|table|(un)?pivot|pivot_(long|wid)er|values|with"
)
"""The first words of statements that only read."""

_OWN_WORDS: Final = re.compile(r"current_(catalog|role|schema|user)|session_user|user")
"""Words that mean the database's own session where no column has the name."""

_OUTSIDE: Final = re.compile(
    r"\w*arrow_scan\w*|\w*external_resource\w*|enable_logging|json_execute_serialized_sql|"
    r"pandas_scan|python_map_function|query"
)
"""Functions that reach into this process, change it, or run a statement given as text."""

_FILES: Final = re.compile(r"read_\w+|parquet_\w+|sniff_csv|query_table")
"""Functions that read files; the name of a table may be computed, and that of a file."""

_NO_COLUMN: Final = re.compile(r'(?:column|named) "(\w+)"(?: not found|\s|$)')
_GUESS: Final = re.compile(r'\nDid you mean "(?!calls"|records")[^"]*"\??')
_ONLY_VIEWS: Final = (
    "a statement reads only the views calls and records; --allow-files (allow_files=True) lets it "
    "read files"
)
_ALL: Final = frozenset({"gap", "started", "usage"})
_ANALYZE: Final = re.compile("analy[sz]e", re.IGNORECASE)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a query.

    Attributes:
        columns: their names.
        types: their types, as DuckDB writes them.
        rows: Python values: ``Decimal`` for money, ``datetime``, ``dict`` for tags.
        problems: places on the ledger that hold no valid record.
    """

    columns: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]
    problems: list[Problem] = []

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a dict a row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def run_sql(
    places: Places,
    query: str,
    parameters: Sequence[object] | Mapping[str, object] | None = None,
    *,
    allow_files: bool = False,
) -> Table:
    """Run one statement that only reads; see ``Ledger.sql``."""
    duck = module()
    tokens = _tokens(query)

    def question(relation: Relation) -> Table:
        *before, statement = _checked(relation.database.extract_statements(query), tokens)
        if not allow_files:
            _refuse_files(tokens, relation.files)
        _fence(relation, allow_files=allow_files)
        for step in before:  # a PIVOT first collects the values that become columns
            relation.database.execute(step)
        result = relation.database.execute(statement, parameters)
        described = result.description or []
        return Table(
            columns=[column[0] for column in described],
            types=[str(column[1]) for column in described],
            rows=result.fetchall(),
            problems=[*there.problems, *relation.problems],
        )

    _refuse_own_words(tokens)
    for name in _called(tokens):
        if _OUTSIDE.fullmatch(name):
            raise ValueError(f"{name}() does more than read; write the statement without it")
    try:
        with at_hand(places, Wanted(kinds=_ALL)) as there:
            return ask(there.roots, question)
    except duck.Error as exc:
        raise ValueError(f"the query fails: {_explained(str(exc))}") from exc


def _tokens(query: str) -> list[str]:
    """Split a statement into words, texts and signs; comments are left out."""
    found: list[str] = []
    at = 0
    while match := _TOKEN.match(query, at):
        at = match.end()
        if match["comment"]:
            at = _after_comment(query, at)
        elif match["token"]:
            found.append(match["token"])
    while found[-1:] == [";"]:
        del found[-1]
    return found


def _after_comment(query: str, at: int) -> int:
    """Return where a block comment ends that begins before ``at``."""
    depth = 1
    for sign in _COMMENT_SIGN.finditer(query, at):
        depth += 1 if sign[0] == "/*" else -1
        if not depth:
            return sign.end()
    return len(query)


def _checked(statements: list[Any], tokens: list[str]) -> list[Any]:
    """Return the steps of a statement that only reads.

    Its first word tells: the database takes a PIVOT, and anything around one, apart into several
    steps, or calls it a statement of several kinds.
    """
    kinds = module().StatementType
    words = [token.lower() for token in tokens]
    first = next((word for word in words if word != "("), "")
    reading = bool(_READING.fullmatch(first)) and ";" not in words and bool(statements)
    pivots = "pivot" in words or "pivot_wider" in words
    single = len(statements) == 1 or pivots
    allowed = {kinds.SELECT, kinds.EXPLAIN} | ({kinds.CREATE, kinds.MULTI} if pivots else set())
    if not (reading and single and all(step.type in allowed for step in statements)):
        raise ValueError("give one statement that only reads: SELECT, FROM, WITH, SUMMARIZE …")
    if first == "explain" and any(map(_ANALYZE.search, words)):
        raise ValueError("EXPLAIN ANALYZE runs what it explains; leave ANALYZE out")
    return statements


def _called(tokens: list[str]) -> set[str]:
    """Return the names of functions."""
    names = (name.lower() for name, after in pairwise(tokens) if after == "(")
    # By its last word: a sign that is no letter here may be a blank to the database.
    return {word for name in names for word in _WORD.findall(name)[-1:]}


def _refuse_files(tokens: list[str], files: Sequence[Path]) -> None:
    """Refuse what reads files; the database itself bars all but those that the views read.

    Raises:
        ValueError: a function that reads files, or the name of one of ``files``.
    """
    said = " ".join(token for token in tokens if token[:1] in "'\"eE$")
    if any(map(_FILES.fullmatch, _called(tokens))) or any(path.name in said for path in files):
        raise ValueError(_ONLY_VIEWS)


def _refuse_own_words(tokens: list[str]) -> None:
    """Refuse a bare ``user``, which is not the tag but the login, unless the query defines it.

    Raises:
        ValueError: the text has the column that is meant.
    """
    used: set[str] = set()
    defined: set[str] = set()
    for at, token in enumerate(tokens):
        word = token.strip('"').lower()
        before = tokens[at - 1].lower() if at else ""
        after = tokens[at + 1] if at + 1 < len(tokens) else ""
        if not _OWN_WORDS.fullmatch(word) or before == "." or after in ("(", "."):
            continue
        alias = before == "as" and tokens[at - 2].strip('"').lower() != word
        (defined if alias or after == ":" or before in ("]", ")") else used).add(word)
    for word in sorted(used - defined):
        raise ValueError(
            f"{word} is a keyword of the database, not a column; the tag is tags['{word}']"
        )


def _fence(relation: Relation, *, allow_files: bool) -> None:
    """Keep a statement to the views ``calls`` and ``records``, and to the files that they read."""
    with contextlib.suppress(OSError, module().IOException):  # no room: the table stays in sight
        relation.hide_tables()
    if not allow_files:
        names = {
            name for path in relation.files for name in (str(path.absolute()), literally(path))
        }
        relation.database.execute(f"SET allowed_paths = {text_list(sorted(names))}")
        relation.database.execute("SET enable_external_access = false")
    relation.database.execute("SET lock_configuration = true")


def _explained(said: str) -> str:
    """Return what the database says, with what to write instead where that is known."""
    said = _GUESS.sub("", said)
    words, gap, place = said.partition("\n\nLINE ")
    column = _NO_COLUMN.search(words)
    if said.startswith("Permission Error"):
        words += f"\n{_ONLY_VIEWS}"
    elif "Table with name" in words:
        words += "\nThe views are calls and records."
    elif column:
        words += f"\nA tag is written tags['{column[1]}']."
    return words + gap + place  # the caret below the place stays last
