"""Answers beside each other: their form, refusals, contradictions, sameness."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data import strict_json
from tunesmith.data.checks.view import View, normal

HAS_SYSTEM, HAS_USER, HAS_CALLS, IS_JSON, STARTS_BLANK, ENDS_BLANK, REFUSES, COPIES = (
    1 << place for place in range(8)
)
JSON_STARTS = ("{", "[")
REFUSAL = re.compile(
    r"(?i)\b(?:i(?:'|\u2019)?m (?:very |really |so )?sorry,? but (?:i|as)\b"
    r"|i (?:can(?:'|\u2019)?t|cannot|can not|am unable to|am not able to|won(?:'|\u2019)t|will not)"
    r" (?:help|assist|provide|do that|answer|comply|fulfil|support|discuss|engage|create|generate)"
    r"|as an ai(?: language)? (?:model|assistant)?,? ?i (?:can|am|do|must)"
    r"|i must (?:decline|refuse)|(?:against|violates) (?:my|our) (?:guidelines|polic))"
)
REFUSAL_CHARS = 240
MIN_COPIED_CHARS = 12
MIN_ROWS = 20
REFUSAL_SHARE = 0.2
JSON_SHARE = 0.8
MINORITY = 0.2
SAME_ANSWER_SHARE = 0.2
# Data is a classification where few short answers make up all rows.
MAX_LABEL_CHARS = 64
LABEL_SHARE = 0.2
MAX_LABELS = 256
MIN_PROMPT_ROWS = 10

Rows = NDArray[np.int64]
"""Places in the columns."""
# Odd, so that multiplying by it permutes the 64-bit numbers.
_MIX = np.uint64(0x9E3779B97F4A7C15)


def flags(seen: View, said: str) -> int:
    """What is to be known of an answer; `said` is its normal text."""
    answer = seen.answer
    found = HAS_SYSTEM * seen.has_system | HAS_USER * seen.has_user | HAS_CALLS * seen.has_calls
    if not answer or seen.has_calls:
        return found
    found |= IS_JSON * is_json(answer)
    found |= STARTS_BLANK * answer[0].isspace() | ENDS_BLANK * answer[-1].isspace()
    found |= REFUSES * (REFUSAL.search(answer[:REFUSAL_CHARS]) is not None)
    copies = len(said) >= MIN_COPIED_CHARS and said == normal(seen.asked)
    return found | COPIES * copies


def is_json(answer: str) -> bool:
    if not answer.lstrip().startswith(JSON_STARTS):
        return False
    try:
        strict_json.loads(answer)
    except strict_json.JsonError:
        return False
    return True


def written(columns: NDArray[Any]) -> Rows:
    """The rows whose answer is a text."""
    is_text = (columns["answer_chars"] > 0) & (columns["flags"] & HAS_CALLS == 0)
    return np.flatnonzero(is_text)


def not_json(columns: NDArray[Any]) -> Rows:
    """The answers that do not parse, where nearly all others do."""
    rows = written(columns)
    parses = columns["flags"][rows] & IS_JSON != 0
    if len(rows) < MIN_ROWS or parses.mean() < JSON_SHARE:
        return rows[:0]
    odd: Rows = rows[~parses]
    return odd


def odd_endings(columns: NDArray[Any]) -> Rows:
    """The answers that begin or end in white space where few do, or do not where most do."""
    rows = written(columns)
    found = np.zeros(len(rows), bool)
    if len(rows) >= MIN_ROWS:
        for flag in (STARTS_BLANK, ENDS_BLANK):
            has = columns["flags"][rows] & flag != 0
            if 0 < has.mean() <= MINORITY:
                found |= has
            elif 1 - MINORITY <= has.mean() < 1:
                found |= ~has
    return rows[found]


def refusals(columns: NDArray[Any]) -> Rows:
    """The answers that refuse, where they are many."""
    rows = written(columns)
    found: Rows = rows[columns["flags"][rows] & REFUSES != 0]
    return found if len(found) >= max(5, REFUSAL_SHARE * len(rows)) else found[:0]


def copies(columns: NDArray[Any]) -> Rows:
    return np.flatnonzero(columns["flags"] & COPIES)


def contradictions(columns: NDArray[Any]) -> tuple[Rows, int]:
    """The rows whose prompt has different answers, and how many such prompts there are."""
    used = np.flatnonzero((columns["prompt"] != 0) & (columns["answer"] != 0))
    prompts, answers = columns["prompt"][used], columns["answer"][used]
    _, firsts = np.unique(prompts * _MIX ^ answers, return_index=True)
    found, counts = np.unique(prompts[firsts], return_counts=True)
    several = found[counts > 1]
    return used[np.isin(prompts, several)], len(several)


def is_classification(columns: NDArray[Any]) -> bool:
    """Whether the answers are a few short labels."""
    rows = written(columns)
    if len(rows) < MIN_ROWS or np.percentile(columns["answer_chars"][rows], 95) > MAX_LABEL_CHARS:
        return False
    num_labels = len(np.unique(columns["answer"][rows]))
    return 2 <= num_labels <= min(LABEL_SHARE * len(rows), MAX_LABELS)


def one_answer(columns: NDArray[Any]) -> Rows:
    """The rows with the one answer that far too many prompts have."""
    rows = written(columns)
    if len(rows) < MIN_PROMPT_ROWS or is_classification(columns):
        return rows[:0]
    found, counts = np.unique(columns["answer"][rows], return_counts=True)
    same = rows[columns["answer"][rows] == found[counts.argmax()]]
    num_prompts = len(np.unique(columns["prompt"][same]))
    enough = num_prompts >= max(MIN_PROMPT_ROWS // 2, SAME_ANSWER_SHARE * len(rows))
    return same if enough else rows[:0]
