from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data import strict_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(values)
def test_reads_what_json_reads(value: object) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        try:
            text.encode()
        except UnicodeEncodeError:
            continue
        assert strict_json.loads(text, max_depth=100) == json.loads(text)


@given(values, st.integers(0, 6))
def test_depth_is_exact(value: object, limit: int) -> None:
    def depth(node: object) -> int:
        if isinstance(node, dict | list):
            items = node.values() if isinstance(node, dict) else node
            return 1 + max(map(depth, items), default=0)
        return 0

    assert strict_json.exceeds_depth(json.dumps(value), limit) == (depth(value) > limit)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested deeper than 32 levels"),
        ('{"a":' * 100_000, "nested deeper than 32 levels"),
        ("9" * 1_000_000, "a number of 1000000 characters"),
        ("0." + "9" * 5000, "a number of 5002 characters"),
        ("1e999", "1e999 is out of range"),
        ("[-1e999]", "out of range"),
        ("NaN", "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('"\\ud800"', "lone surrogate U\\+D800"),
        ('{"\\uDFFF": 1}', "lone surrogate U\\+DFFF"),
        ('"tab\there"', "Invalid control character"),
        ("", "Expecting value: line 1 column 1 \\(char 0\\)"),
        ('{"a" 1}', "Expecting ':' delimiter: line 1 column 6 \\(char 5\\)"),
    ],
)
def test_refusals(text: str, said: str) -> None:
    with pytest.raises(strict_json.JsonError, match=said):
        strict_json.loads(text)


def test_surrogate_pairs_are_characters() -> None:
    assert strict_json.loads('"\\ud83d\\ude00"') == "\U0001f600"


def test_brackets_in_strings_are_text() -> None:
    text = json.dumps({"a": "[" * 1000 + '\\"' + "{" * 1000})
    assert strict_json.loads(text) == json.loads(text)
    # A string that never ends takes time in proportion to its length.
    with pytest.raises(strict_json.JsonError, match="Unterminated string"):
        strict_json.loads('"' + '\\"[' * 300_000)
