"""What a command line asks for and the ledger does not have: misspelt tags, values on no call.

Owns the words for it.  A tag that is nowhere on the ledger is a mistake (status 2) unless
``--allow-missing``; a value that is nowhere is an answer, and what there is instead is said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from litellm_ledger._aggregates.formatting import listed
from litellm_ledger._aggregates.question import Question
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._reports.ledger import Ledger

from .flags import complain

__all__ = ["check_matched", "check_where", "refuse_misspelt"]

_MOST: Final = 20


def refuse_misspelt(ledger: Ledger, tags: Iterable[str], question: Question) -> None:
    """Refuse tags that are on no call of the whole ledger; one without calls has no wrong tag.

    Raises:
        ValueError: such a tag; the text has the nearest that there is, or lists them.
    """
    asked = list(tags)
    if not asked or question.allow_missing:
        return
    known = ledger.tags()
    for tag in asked:
        if tag in known or not (known or ledger.calls(limit=1).matched):
            continue
        from difflib import get_close_matches

        near = get_close_matches(tag, known, n=1)
        if near:
            hint = f"did you mean {near[0]}?"
        elif known:
            hint = f"the tags are {listed(known, _MOST)}."
        else:
            hint = "no call has any tag."
        raise ValueError(f"no call has the tag {tag}; {hint} --allow-missing accepts it")


def check_where(ledger: Ledger, question: Question, *, every: bool = False) -> None:
    """Refuse misspelt tags of ``--where`` that let calls pass, or (``every``) all of them.

    Raises:
        ValueError: as ``refuse_misspelt``.
    """
    tags = Selection(**question.selection()).tags(passing_without=not every)
    refuse_misspelt(ledger, sorted(tags), question)


def check_matched(ledger: Ledger, question: Question, matched: int) -> None:
    """Where nothing matched ``--where``, refuse a misspelt tag, or say what there is instead.

    Raises:
        ValueError: as ``refuse_misspelt``.
    """
    if matched or not (question.where or question.where_not):
        return
    check_where(ledger, question, every=True)
    for note in ledger.report([], **question.everything()).notes():
        complain(note)
