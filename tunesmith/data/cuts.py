"""Where a text can be cut so that the ids of the parts are the ids of the whole.

Most tokenizers never join a single space between two characters that are not blank to what stands
before it. A text can then be encoded piece by piece, and the ids of a piece be kept for the next
time. Whether that holds is read off the tokenizer itself; of one that is built in another way
nothing is promised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

SPACE = "\u2581"
"""How SentencePiece writes a space; texts may hold it themselves."""
BLANK = rf"\s{SPACE}"
INNER_SPACE = re.compile(rf"[^{BLANK}] ")
JOINS_SPACE = re.compile(f"[^{SPACE}]{SPACE}")

# Alternatives of the pattern by which a byte-level tokenizer splits, of all the known families.
# None of them matches a space after a character that is not blank, and none but those of blank
# characters alone looks ahead. So every split has a border before such a space, and what is on
# either side of it does not depend on the other.
SAFE_ALTERNATIVES = frozenset(
    (
        *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "(?i:'s|'t|'re|'ve|'m|'ll|'d)"),
        *(
            r" ?\p{L}+",
            r" ?\p{N}+",
            r"\p{N}",
            r"\p{N}+",
            r"\p{N}{1,3}",
            r"[0-9]",
            r"[0-9][0-9][0-9]",
        ),
        *(r"[^\r\n\p{L}\p{N}]?\p{L}+", r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"),
        *(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        *(r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"),
    )
)
# Between alternatives, not within a group.
BAR = re.compile(r"\|(?![^(]*\))")


def piece_pattern(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Finds the pieces of a text, all of it; None where nothing is known.

    Each piece but the first begins with a single space and a character that is not blank.
    """
    added = list(tokenizer.get_added_tokens_decoder().values())
    if not _keeps_cuts(tokenizer.model):
        return None
    normaliser, splitter = _state(tokenizer.normalizer), _state(tokenizer.pre_tokenizer)
    if any(token.normalized and normaliser for token in added) or not all(map(_is_plain, added)):
        return None
    if _splits_at_spaces(normaliser, splitter):
        return _pattern(token.content for token in added if token.rstrip)
    if _is_cut_by_vocabulary(tokenizer):
        return _pattern(token.content for token in added)
    return None


def _pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Pieces run on over all blanks but a single space, and over that where a token may end.

    The `tokens` are those that change what comes after them.
    """
    ends = re.escape("".join(sorted({token[-1:] for token in tokens})))
    runs_on = rf"(?! [^{BLANK}])" + (f"|(?<=[{ends}])" if ends else "")
    return re.compile(
        rf"[{BLANK}]*+[^{BLANK}]++(?:(?:{runs_on})[{BLANK}]++[^{BLANK}]*+)*+|[{BLANK}]++"
    )


def _state(part: Any) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer as tokenizer.json has it, a sequence as its members."""
    if part is None:
        return []
    state = json.loads(part.__getstate__())
    members = state.get("normalizers", state.get("pretokenizers"))
    return [state] if members is None else list(members)


def _keeps_cuts(model: Any) -> bool:
    return isinstance(model, models.BPE) and not (
        model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix
    )


def _is_plain(token: AddedToken) -> bool:
    """Whether a token never takes a space that it does not end with (`rstrip` is seen to)."""
    return not (token.lstrip or token.single_word or INNER_SPACE.search(token.content))


def _splits_at_spaces(normaliser: list[dict[str, Any]], splitter: list[dict[str, Any]]) -> bool:
    """Byte-level tokenizers: the split has a border at every cut."""
    if any(each["type"] != "NFC" for each in normaliser) or not splitter:
        return False
    *splits, last = splitter
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return False
    has_border = last["use_regex"] or any(
        each["type"] == "Split" and _pattern_of(each).endswith(r"|\s+") for each in splits
    )
    return has_border and all(each["type"] == "Digits" or _is_safe(each) for each in splits)


def _is_safe(split: dict[str, Any]) -> bool:
    return (
        split["type"] == "Split"
        and (split["behavior"], split["invert"]) == ("Isolated", False)
        and SAFE_ALTERNATIVES.issuperset(BAR.split(_pattern_of(split)))
    )


def _pattern_of(split: dict[str, Any]) -> str:
    return str(split["pattern"].get("Regex", ""))


def _is_cut_by_vocabulary(tokenizer: Tokenizer) -> bool:
    """SentencePiece: a whole text is merged at once, but no token holds a cut."""
    prepend = {"type": "Prepend", "prepend": SPACE}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    metaspace = {"type": "Metaspace", "replacement": SPACE, "split": False}
    parts = [*_state(tokenizer.normalizer), *_state(tokenizer.pre_tokenizer)]
    for part in parts:
        part.pop("prepend_scheme", None)
    if parts not in ([prepend, replace], [replace], [metaspace]) or tokenizer.model.ignore_merges:
        return False
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    return SPACE in vocabulary and not any(map(JOINS_SPACE.search, vocabulary))
