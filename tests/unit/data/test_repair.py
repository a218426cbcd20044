"""Repairs: what they mend, what they leave alone, what they never lose."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data import repair as module
from tunesmith.data.codes import CODES
from tunesmith.data.mend import mend
from tunesmith.data.repair import DEFAULT, REPAIRS, Change, Repaired, repair

ROOT = Path(module.__file__).parents[2]
REAL = ROOT / "tunesmith/assets/demo/snips_heldout.jsonl"
PRETTY = ROOT / "tests/tutorials/marv_pretty.json"
MARV = [json.loads(line) for line in (ROOT / "tests/tutorials/marv.jsonl").open(encoding="utf-8")]
GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}

Fix = Callable[..., tuple[list[str], list[Change], Repaired]]


@pytest.fixture
def fix(tmp_path: Path) -> Fix:
    def run(content: str | bytes, *only: str) -> tuple[list[str], list[Change], Repaired]:
        path = tmp_path / "data.jsonl"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        out, result = io.BytesIO(), Repaired()
        changes = list(repair(path, out, frozenset(only) or DEFAULT, result))
        lines = out.getvalue().decode("utf-8", "replace").split("\n")
        assert lines.pop() == ""
        return lines, changes, result

    return run


def dumped(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_clean_rows_stay_byte_for_byte(tmp_path: Path) -> None:
    out, result = io.BytesIO(), Repaired()
    assert list(repair(REAL, out, DEFAULT, result)) == []
    assert out.getvalue() == REAL.read_bytes()
    assert result.num_rows == 280 and result.codes == {}


def test_a_tutorial_s_pretty_printed_text(fix: Fix) -> None:
    lines, changes, result = fix(PRETTY.read_text())
    assert list(map(json.loads, lines)) == MARV
    assert result.codes == {"pretty_printed": 3}
    assert [change.line for change in changes] == [1, 8, 15]


@pytest.mark.parametrize("quotes", ["\u201c\u201d", "\u201e\u201c", "\u00ab\u00bb", "''"])
def test_the_same_with_other_quotes(fix: Fix, quotes: str) -> None:
    """As it looks after a copy from a web page; apostrophes inside the texts stay."""
    inside = PRETTY.read_text().replace("What's", "What\u2019s").replace("doesn't", "doesn\u2019t")
    parts = inside.replace("'", "").split('"')
    text = "".join(
        part + (quotes[place % 2] if place < len(parts) - 1 else "")
        for place, part in enumerate(parts)
    )
    lines, _, result = fix(text)
    assert "What\u2019s the capital of France?" in lines[0]
    told = [json.dumps(row, ensure_ascii=False) for row in MARV]
    told[1] = told[1].replace("'", "")
    assert [json.loads(line) for line in lines] == [
        json.loads(text.replace("'", "\u2019")) for text in told
    ]
    assert result.num_unreadable == 0


def test_arrays_and_several_rows_on_a_line(fix: Fix) -> None:
    for text in (
        json.dumps(MARV),
        json.dumps(MARV, indent=2),
        "[\n" + ",\n".join(map(json.dumps, MARV)) + "\n]\n",
        " ".join(map(json.dumps, MARV)),
        ", ".join(map(json.dumps, MARV)),
    ):
        lines, _, result = fix(text)
        assert list(map(json.loads, lines)) == MARV
        assert result.num_unreadable == 0


def test_file_marks_line_ends_and_blank_lines(fix: Fix) -> None:
    lines, changes, result = fix(
        b"\xef\xbb\xbf" + dumped(*MARV).encode().replace(b"\n", b"\r\n\r\n")
    )
    assert list(map(json.loads, lines)) == MARV
    assert changes == []
    assert result.codes == {"byte_order_mark": 1, "crlf": 6, "blank_lines": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2,], }', {"a": [1, 2]}),
        ("{'a': 'it\\'s', 'b': True, 'c': None}", {"a": "it's", "b": True, "c": None}),
        ('{"a": "one\ntwo\tthree"}', {"a": "one\ntwo\tthree"}),
        ('{\u201ca\u201d: \u201csay \u201chi\u201d now\u201d}', {"a": "say \u201chi\u201d now"}),
        ('{\u201ca\u201d: \u201csay "hi" now\u201d}', {"a": 'say "hi" now'}),
    ],
)  # fmt: skip
def test_mending(text: str, value: Any) -> None:
    mended, codes = mend(text)
    assert json.loads(mended) == value and codes


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=20), nested))
def test_right_json_is_left_as_it_is(value: Any) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert mend(text) == (text, set())


@pytest.mark.parametrize(
    ("code", "role", "keys", "fixed_role", "fixed_keys"),
    [
        ("wrong_role", "Human ", {}, "user", {}),
        ("unknown_key", "user", {"id": 7}, "user", {}),
        ("bad_weight", "assistant", {"weight": True}, "assistant", {"weight": 1}),
        ("bad_weight", "assistant", {"weight": 0.0}, "assistant", {"weight": 0}),
        ("bad_weight", "assistant", {"weight": "1"}, "assistant", {"weight": 1}),
    ],
)
def test_messages(
    fix: Fix, code: str, role: str, keys: Any, fixed_role: str, fixed_keys: Any
) -> None:
    row = {"messages": [{"role": role, "content": "x", **keys}, GOOD["messages"][1]]}
    expected = {"role": fixed_role, "content": "x", **fixed_keys}
    lines, changes, _ = fix(dumped(row))
    assert json.loads(lines[0])["messages"][0] == expected
    assert changes[0].codes == (code,)
    kept, _, _ = fix(dumped(row), "crlf")
    assert json.loads(kept[0]) == row


def test_unknown_keys_of_rows_that_may_have_them_stay(fix: Fix) -> None:
    row = {"messages": [{"role": "user", "content": "2+2?"}], "reference": "4"}
    assert fix(dumped(row))[0] == [json.dumps(row)]


def test_arguments_become_text(fix: Fix) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    row = {"messages": [GOOD["messages"][0], {"role": "assistant", "tool_calls": [call]}]}
    lines, changes, _ = fix(dumped(row))
    fixed = json.loads(lines[0])["messages"][1]["tool_calls"][0]["function"]
    assert fixed == {"name": "f", "arguments": '{"x": 1}'}
    assert changes[0].codes == ("arguments_not_json",)


def test_duplicates_and_double_keys(fix: Fix) -> None:
    double = dumped(GOOD).replace('"content": "Hi"', '"content": "No", "content": "Hi"')
    lines, changes, result = fix(dumped(GOOD) + double)
    assert list(map(json.loads, lines)) == [GOOD]
    assert result.num_left_out == 1
    assert changes[0].codes == ("duplicate_keys", "exact_duplicate") and changes[0].after is None


def test_what_loses_something_is_done_only_when_it_is_named(fix: Fix) -> None:
    secret = "My key is ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3gH6" + ", mail ada@lovelace.org"
    messages = [{"role": "user", "content": secret}, {"role": "assistant", "content": " Yo\n"}]
    row = {"messages": messages}
    assert fix(dumped(row))[0] == [json.dumps(row)]
    assert "ghp_" not in fix(dumped(row), "secret")[0][0]
    assert "ada@" in fix(dumped(row), "secret")[0][0]
    assert "ada@" not in fix(dumped(row), "personal_data")[0][0]
    assert json.loads(fix(dumped(row), "mixed_endings")[0][0])["messages"][1]["content"] == "Yo"


def test_system_messages_are_made_one(fix: Fix) -> None:
    def row(system: str, number: int) -> dict[str, Any]:
        first = {"role": "system", "content": system}
        return {"messages": [first, {"role": "user", "content": str(number)}, GOOD["messages"][1]]}

    rows = [row("You are a helpful assistant.", number) for number in range(5)]
    rows.append(row("you are a helpful  assistant", 9))
    lines, changes, _ = fix(dumped(*rows), "system_variants")
    assert len({json.loads(line)["messages"][0]["content"] for line in lines}) == 1
    assert [change.line for change in changes] == [6]


def test_equal_preferences_go(fix: Fix) -> None:
    answer = [{"role": "assistant", "content": "x"}]
    row = {"input": {"messages": [GOOD["messages"][0]]}, "preferred_output": answer}
    lines, _, result = fix(dumped({**row, "non_preferred_output": answer}))
    assert lines == [] and result.codes == {"equal_preference": 1}


def test_what_no_reading_fits_is_kept(fix: Fix) -> None:
    bad = b'{"messages": [\n' + b"\xff\xfe\n" + b"plain words\n"
    lines, _, result = fix(bad + dumped(GOOD).encode())
    assert lines[0] == '{"messages": [' and lines[2] == "plain words"
    assert json.loads(lines[3]) == GOOD
    assert result.num_unreadable == 3 and result.num_rows == 1


def test_a_cut_off_object_costs_only_itself(fix: Fix) -> None:
    text = PRETTY.read_text().split("}\n{")[0][:90] + "\n" + dumped(*MARV)
    lines, _, result = fix(text)
    assert [json.loads(line) for line in lines if line.startswith('{"messages": [{')] == MARV
    assert result.num_unreadable > 0


def test_a_second_run_changes_nothing(fix: Fix) -> None:
    lines, changes, _ = fix("[" + PRETTY.read_text().replace("}\n{", "},\n{") + "]")
    assert changes
    again, changes, _ = fix("".join(line + "\n" for line in lines))
    assert again == lines and changes == []


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_never_raise_and_repairing_twice_is_repairing_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    source = data.draw(st.sampled_from([dumped(*MARV), PRETTY.read_text(), json.dumps(MARV)]))
    content = bytearray(source.encode())
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(
            st.sampled_from(
                [b"", b'"', b"{", b"}", b"\n", b",", b"\xff", b"\\", b"[", "\u201c".encode()]
            )
        )
        content[place : place + data.draw(st.integers(0, 3))] = piece  # fmt: skip
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    path.write_bytes(content)
    first = io.BytesIO()
    list(repair(path, first))
    path.write_bytes(first.getvalue())
    second = io.BytesIO()
    list(repair(path, second))
    assert second.getvalue() == first.getvalue()


def test_every_repair_is_a_finding_and_every_repairable_finding_has_one() -> None:
    assert {code for code, info in CODES.items() if info.repairable} == set(REPAIRS)
    assert all(REPAIRS[code].does for code in REPAIRS)
    assert set(REPAIRS) > DEFAULT


def test_a_large_row_is_mended_in_linear_time(fix: Fix) -> None:
    text = "x\u201d, \u201c" * 50_000
    row = {"messages": [{"role": "user", "content": text}, GOOD["messages"][1]]}
    lines, _, _ = fix(json.dumps(row, ensure_ascii=False)[:-2] + ",]}\n")
    assert json.loads(lines[0]) == row
