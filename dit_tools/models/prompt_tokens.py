"""Which token of a prompt lies at which position of the text that a transformer sees."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any

PADDING, SPECIAL = -1, -2
"""In place of a token's id: filling up, and marks of the beginning and the end."""


def tokens(tokenizer: Any, text: str, length: int) -> list[int]:
    """Ids at ``length`` positions."""
    found = tokenizer(text, truncation=True, max_length=length).input_ids
    marks = set(tokenizer.all_special_ids)
    ids = [SPECIAL if i in marks else int(i) for i in found]
    return (ids + [PADDING] * length)[:length]


def unread_words(tokenizer: Any, text: str, length: int) -> str:
    """What of a prompt lies behind ``length`` tokens. ``tokenizer``: of the tokenizers library."""
    text = text.lower().strip()
    tokenizer.enable_truncation(length)
    rest = tokenizer.encode(text).overflowing
    return text[rest[0].offsets[0][0] :].strip() if rest else ""


def token_positions(spell: Callable[[str], list[int]], prompt: str, phrase: str) -> list[int]:
    """Positions of every occurrence of a phrase in a prompt; ``spell`` gives a text's ids.

    They are those that the prompt up to the phrase's end has, and up to its beginning has not: a
    phrase alone may be spelled otherwise, as the space before it belongs to many tokens.
    """
    ids, found = spell(prompt), set[int]()
    for match in re.finditer(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", prompt, re.IGNORECASE):
        before, upto = spell(prompt[: match.start()].rstrip()), spell(prompt[: match.end()])
        parts = enumerate(zip(ids, before, upto, strict=True))
        found |= {i for i, (a, b, c) in parts if a >= 0 and a == c and a != b}
    return sorted(found)


def align_tokens(
    source: Sequence[int], target: Sequence[int], swap: bool = True
) -> tuple[list[tuple[int, int, float]], list[int], list[int]]:
    """How the words of two prompts belong together.

    Returns ``(source position, target position, weight)`` for what the target takes from the
    source, then the positions of changed words in the source and in the target. With ``swap`` words
    that stand in the place of others take those of theirs, spread evenly.
    """
    pairs: list[tuple[int, int, float]] = []
    old: list[int] = []
    new: list[int] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, source, target, False).get_opcodes():
        if tag == "equal":
            pairs += [(i, j, 1.0) for i, j in zip(range(i1, i2), range(j1, j2), strict=True)]
            continue
        old += [i for i in range(i1, i2) if source[i] >= 0]
        new += [j for j in range(j1, j2) if target[j] >= 0]
        if tag == "replace" and swap:
            pairs += [(i, j, 1 / (j2 - j1)) for i in range(i1, i2) for j in range(j1, j2)]
    return pairs, old, new
