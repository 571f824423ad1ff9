"""The words that users see: plain technical English, and the terms of the glossary.

Reads the README and the guides, every ``--help``, the strings of the code that users may see
(messages, errors, notes, labels), and the docstrings of the public API and of the packages.  Leaves
out the code in guides and docstrings.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

import click
import pytest

import litellm_ledger
from litellm_ledger._cli.app import app

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = ROOT / "src" / "litellm_ledger"
GENERATED: Final = ("BENCHMARKS.md", "MATRIX.md")
SERVED: Final = ("testing",)
"""Packages whose strings are answers of a server, not messages to users."""

_THING: Final = (
    "answer|cache|call|client|command|disk|function|handler|interpreter|library|loop|model|"
    "process|program|provider|record|request|script|server|store|stream|task|thread|tool|writer"
)

PLAIN: Final = {
    # odd words
    r"\bdearest\b": "the most expensive",
    r"\bwhoever\b": "anyone who; the code that; whichever",
    r"\bwhom\b": "say who it is",
    r"\bso many\b": "the number of …; N",
    r"\bby lot\b": "at random",
    r"\bas it comes\b": "line by line; at once",
    r"\bgo(es)? on\b(?! (the )?record)": "continue",
    r"\bgone on with\b": "continued",
    r"\bfor ever\b": "forever; without limit",
    r"\bsomebody\b": "say who; something",
    r"\breckoning\b": "calculation",
    r"\bhow sure\b": "data quality; how exact",
    r"\bdid not end well\b": "failed and abandoned calls",
    r"\bend in good order\b|\bin good order\b": "shut down cleanly; cleanly",
    r"\bunclean ends?\b": "unclean shutdown",
    r"\bcomes? alone\b": "a single …",
    r"\bcomes? by\b": "runs",
    r"\bcome to\b|\bcame to\b|\bcomes to\b": "is; in total",
    r"\bstands? in\b(?! for)": "is in",
    r"\bas they stand\b": "in ledger order; unchanged",
    r"\bput (it |them )?down as\b": "record as",
    r"\bgives? out\b|\bgave out\b|\bgiven out\b": "return; assign",
    r"\bhand(s|ed|ing)? (\w+ ){0,2}on to\b": "export; pass to",
    r"\blooked at\b": "checked",
    r"\bstrikes?\b": "arrive; pass; happen",
    r"\bthe hand\b": "the batch that is being written",
    r"\blast word\b": "decides; the last chunk",
    r"\bat work\b": "busy",
    r"\bof ours\b": "this library's",
    r"\bour own\b": "this library's",
    r"\bbut for\b": "except for",
    r"\bnothing but\b": "only",
    r"\btells? (nobody )?of\b|\bheard? of\b": "report",
    r"\btold apart\b|\btells? apart\b": "distinguish",
    r"\bpassed over\b": "skipped",
    r"\blived twice\b": "repeated (the hour when the clocks go back)",
    r"\bis what to do\b|\bwhat is to do\b": "what needs to be done",
    r"\bis no (stream|failure|fault|mistake|error|argument|session)\b": "is not a …",
    r"\b(an? (object|line|member|row|record)) an? (line|column|writer|thing)\b": "one … per …",
    r"\bhow it stands\b": "the state",
    # programs are not persons
    rf"\b({_THING})s?,? whom?\b": "which; that",
    # one term each: the glossary
    r"\bunder way\b": "in flight",
    r"\btorn ends?\b": "torn tail",
    r"\blog (entry|entries)\b": "record",
    r"\blog files?\b": "segment",
    r"\bpersist(s|ed|ing|ent)?\b": "write; sync; durable",
    r"\bfsync(s|ed)?\b": "sync",
    r"\bback-pressure\b": "backpressure",
    r"\broll(s|ed)? over\b": "rotate",
    r"\bsequence no\b|\bserial number\b": "sequence number",
    r"\brepair(s|ed)?\b": "recover",
    r"\boutstanding\b": "in flight; not yet written",
    r"\bunresolved\b": "unsettled",
    r"\bback pressure\b": "backpressure",
}
"""What is not said, and the plain form to say instead."""

_BANNED: Final = {re.compile(words, re.IGNORECASE): plain for words, plain in PLAIN.items()}


def faults(text: str) -> list[str]:
    """Return each banned phrase of a text with the plain form."""
    flat = " ".join(text.split())
    return [
        f"{flat[max(0, found.start() - 40) : found.end() + 40]!r}: say {plain!r}"
        for banned, plain in _BANNED.items()
        for found in banned.finditer(flat)
    ]


def without_code(text: str) -> str:
    """Leave out fenced blocks, code spans and the targets of links."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"``.*?``|`[^`]*`|\]\([^)]*\)", "_", text, flags=re.DOTALL)


def pages() -> Iterator[tuple[str, str]]:
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]:
        if page.name not in GENERATED:
            yield str(page.relative_to(ROOT)), without_code(page.read_text(encoding="utf-8"))


def helps() -> Iterator[tuple[str, str]]:
    context = click.Context(app)
    commands = {name: app.get_command(context, name) for name in app.list_commands(context)}
    for name, command in list(commands.items()):
        if isinstance(command, click.Group):
            more = {
                word: command.get_command(context, word) for word in command.list_commands(context)
            }
            commands |= {f"{name} {word}": one for word, one in more.items()}
    for name, command in {"": app, **commands}.items():
        texts = [command.help, command.short_help]
        texts += [getattr(parameter, "help", None) for parameter in command.params]
        yield f"litellm-ledger {name} --help", "\n".join(text for text in texts if text)


def strings(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the strings of a module that are no docstrings; names in f-strings are a dash."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    inside |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [getattr(part, "value", "") for part in node.values]
            text = "".join(part if isinstance(part, str) else "-" for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if " " in text and id(node) not in inside:
            yield f"{file.relative_to(SOURCE)}:{node.lineno}", text


def messages() -> Iterator[tuple[str, str]]:
    for file in sorted(SOURCE.rglob("*.py")):
        if file.relative_to(SOURCE).parts[0] not in SERVED:
            yield from strings(file)


def docstrings() -> Iterator[tuple[str, str]]:
    for file in sorted(SOURCE.rglob("__init__.py")):
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        yield str(file.relative_to(SOURCE)), without_code(text or "")
    for module in (litellm_ledger, import_module("litellm_ledger.fastapi")):
        for name in module.__all__:
            thing = getattr(module, name)
            if not callable(thing):
                continue
            yield name, without_code(inspect.getdoc(thing) or "")
            members = inspect.getmembers(thing) if inspect.isclass(thing) else []
            for member, value in members:
                code = value.fget if isinstance(value, property) else value
                ours = getattr(code, "__module__", "") or ""
                if not member.startswith("_") and ours.startswith("litellm_ledger"):
                    yield f"{name}.{member}", without_code(inspect.getdoc(value) or "")


KINDS: Final = {"pages": pages, "help": helps, "messages": messages, "docstrings": docstrings}


@pytest.mark.parametrize("kind", KINDS)
def test_what_users_read_is_plain(kind: str) -> None:
    texts = list(KINDS[kind]())
    found = [f"{where}: {fault}" for where, text in texts for fault in faults(text)]
    assert not found, "\n".join(["", *found])


def test_control_every_phrase_of_the_list_is_found() -> None:
    said = {
        "Begin with so many": "N",
        "the dearest users": "most expensive",
        "Go on with what is written from now on": "continue",
        "Calls that did not end well": "failed",
        "How sure that is": "quality",
        "a time drawn by lot": "random",
        "a server, who keeps its signals": "which",
        "requests under way": "in flight",
        "what a torn\nend leaves": "torn tail",
    }
    for text, plain in said.items():
        assert any(plain in fault for fault in faults(f"It says: {text}.")), text


def test_control_each_source_of_words_is_read() -> None:
    read = {kind: dict(texts()) for kind, texts in KINDS.items()}
    assert "tokens as the provider counted them" in read["pages"]["README.md"]
    assert "docs/CLI.md" in read["pages"]
    assert "Time zone of days" in read["help"]["litellm-ledger daily --help"]
    assert any("is not installed" in text for text in read["messages"].values())
    assert any("needs attention" in text for text in read["messages"].values())
    assert "Idempotent" in read["docstrings"]["LiteLLMClient.aclose"]
    assert "_cli/__init__.py" in read["docstrings"]


def test_control_code_is_left_out() -> None:
    assert not faults(without_code("```text\nso many\n```\nand `so many`, ``so many``."))
