"""Every fault that is planted into real rows is found with its row; clean rows have no error."""

from __future__ import annotations

import copy
import json
import random
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data.checks.plants import (
    CHAT,
    COMPLETION,
    EVALS,
    PREFERENCE,
    REINFORCEMENT,
    TOOLS,
    Row,
    dump,
    load,
    near_copy,
    write,
)
from tunesmith.bases import embedded_directory
from tunesmith.data.codes import CODES
from tunesmith.data.findings import Finding
from tunesmith.data.formats import read_rows
from tunesmith.data.pair_rows import read_pairs
from tunesmith.data.render import Renderer
from tunesmith.data.report import Report, report
from tunesmith.errors import DataError

CLEAN = ("snips_train.jsonl", "snips_heldout.jsonl", "sgd_chat.jsonl", "bfcl_tools.jsonl")
Plant = Callable[[Row], Any]


def completions() -> list[Row]:
    return [
        {"prompt": row["messages"][-2]["content"], "completion": row["messages"][-1]["content"]}
        for row in load("snips_heldout.jsonl")[:60]
    ]


def reinforcement() -> list[Row]:
    return [
        {"messages": row["messages"][:2], "label": row["messages"][2]["content"]}
        for row in load("snips_heldout.jsonl")[:60]
    ]


def evals() -> list[Row]:
    return [{"item": {"question": row["prompt"]}} for row in completions()]


CORPORA: dict[str, tuple[Callable[[], list[Row]], dict[str, tuple[Plant, ...]], str]] = {
    "snips": (lambda: load("snips_heldout.jsonl"), CHAT, "supervised"),
    "sgd": (lambda: load("sgd_chat.jsonl"), CHAT, "supervised"),
    "bfcl": (lambda: load("bfcl_tools.jsonl"), TOOLS, "supervised"),
    "preference": (lambda: load("hh_preference.jsonl"), PREFERENCE, "dpo"),
    "completions": (completions, COMPLETION, "supervised"),
    "reinforcement": (reinforcement, REINFORCEMENT, "reinforcement"),
    "evals": (evals, EVALS, "evals"),
}
FILE_PLANTED = {
    "too_few_rows",
    "few_rows",
    "empty_file",
    "byte_order_mark",
    "json_array",
    "csv_file",
    "foreign_format",
    "wrong_file_kind",
    "cannot_render",
    "too_long",
    "answer_cut",
    "leakage",
    "near_leakage",
    "exact_duplicate",
    "near_duplicate",
    "contradiction",
    "one_answer",
    "refusals",
    "mixed_json",
    "mixed_endings",
    "system_variants",
    "label_imbalance",
    "preference_length_bias",
    "language_mismatch",
    "mixed_languages",
    "length_outlier",
}
"""Those that take more than one row: each has a test below."""


def found(result: Report, code: str) -> Finding | None:
    return next((each for each in result.all_findings if each.code == code), None)


def errors(result: Report) -> list[Finding]:
    return [each for each in result.all_findings if each.severity == "error"]


def at(result: Report, code: str) -> set[int]:
    each = found(result, code)
    assert each is not None, [other.code for other in result.all_findings]
    return set(each.rows)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer.load(embedded_directory())


def test_every_code_is_planted() -> None:
    planted = set().union(*(table for _, table, _ in CORPORA.values())) | FILE_PLANTED
    assert planted == set(CODES)


@pytest.mark.parametrize("name", CLEAN)
def test_clean_rows_have_no_error(name: str, tmp_path: Path, renderer: Renderer) -> None:
    path = write(tmp_path / name, load(name))
    base = None if name.startswith("bfcl") else renderer
    result = report(path, renderer=base, max_tokens=2048)
    assert errors(result) == []
    assert result.num_rows == len(load(name))


@pytest.mark.parametrize("corpus", ["preference", "completions", "reinforcement", "evals"])
def test_clean_rows_of_other_methods_have_no_error(corpus: str, tmp_path: Path) -> None:
    make, _, method = CORPORA[corpus]
    assert errors(report(write(tmp_path / "a.jsonl", make()), method=method)) == []


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_plant_is_found_with_its_row(corpus: str, tmp_path: Path) -> None:
    make, table, method = CORPORA[corpus]
    clean = make()
    rng = random.Random(11)
    for code, plants in table.items():
        for plant in plants:
            for place in rng.sample(range(3, len(clean)), 2):
                rows = [*clean[:place], plant(clean[place]), *clean[place + 1 :]]
                result = report(write(tmp_path / "a.jsonl", rows[: place + 20]), method=method)
                assert place + 1 in at(result, code), (code, plants.index(plant))


@pytest.mark.parametrize("corpus", ["snips", "sgd", "bfcl", "preference"])
def test_errors_are_those_of_a_job(corpus: str, tmp_path: Path) -> None:
    """A plant is an error in the report exactly where the job's reader refuses the file."""
    make, table, method = CORPORA[corpus]
    read = read_pairs if method == "dpo" else read_rows
    clean = make()[:60]
    for code, plants in table.items():
        for plant in plants:
            path = write(tmp_path / "a.jsonl", [*clean[:7], plant(clean[7]), *clean[8:]])
            try:
                list(read(path))
                refused = None
            except DataError as error:
                refused = error.line
            wrong = errors(report(path, method=method))
            assert (refused is not None) == bool(wrong), (code, plants.index(plant))
            if refused is not None:
                assert refused in {line for each in wrong for line in each.lines}


def test_many_plants_in_one_file(tmp_path: Path) -> None:
    clean = load("snips_train.jsonl")
    plants = [(code, plant) for code, each in CHAT.items() for plant in each]
    rows: list[Any] = list(clean)
    wanted: dict[str, set[int]] = {}
    places = random.Random(5).sample(range(1, len(clean)), len(plants) * 5)
    for number, place in enumerate(places):
        code, plant = plants[number % len(plants)]
        rows[place] = plant(clean[place])
        wanted.setdefault(code, set()).add(place)
    result = report(write(tmp_path / "a.jsonl", dump(rows)))
    for code, where in wanted.items():
        assert {place + 1 for place in where} <= at(result, code), code
    assert result.num_rows == len(clean)


def test_whole_file_kinds(tmp_path: Path) -> None:
    rows = load("snips_heldout.jsonl")[:60]
    pairs = completions()
    cases: dict[str, list[bytes]] = {
        "empty_file": [b"", b"\n \n"],
        "json_array": [json.dumps(rows).encode(), json.dumps(rows, indent=1).encode()],
        "csv_file": [b'prompt,completion\nhello,"a, b"\nwhy,because\n', b"a;b\n1;2\n"],
        "foreign_format": [
            b"\n".join(
                dump([{"conversations": [{"from": "human", "value": "x"}]} for _ in range(12)])
            ),
            b"\n".join(dump([{"instruction": "x", "input": "", "output": "y"} for _ in range(12)])),
        ],
        "wrong_file_kind": [b"PK\x03\x04abc", b"PAR1abc", b"\xff\xfe{\x00", b"\x1f\x8bxyz"],
        "byte_order_mark": [b"\xef\xbb\xbf" + b"\n".join(dump(rows))],
        "pretty_printed": ["\n".join(json.dumps(row, indent=2) for row in rows).encode()],
        "too_few_rows": [b"\n".join(dump(rows[:9]))],
        "few_rows": [b"\n".join(dump(rows[:49]))],
        "wrong_format": [b"\n".join(dump(load("hh_preference.jsonl")))],
        "invalid_json": [b"not json\n" * 12],
    }
    for code, contents in cases.items():
        for content in contents:
            path = tmp_path / "a.jsonl"
            path.write_bytes(content)
            assert found(report(path), code) is not None, (code, content[:20])
    assert found(report(write(tmp_path / "b.jsonl", pairs)), "wrong_format") is None


def test_a_pretty_printed_object_is_one_finding(tmp_path: Path) -> None:
    rows: list[Any] = load("snips_heldout.jsonl")[:60]
    rows[10] = json.dumps(rows[10], indent=2)
    result = report(write(tmp_path / "a.jsonl", rows))
    assert [(each.code, each.rows, each.lines) for each in errors(result)] == [
        ("pretty_printed", array("I", [11]), array("I", [11]))
    ]


def test_rows_for_the_base(tmp_path: Path, renderer: Renderer) -> None:
    rows = load("sgd_chat.jsonl")
    long = copy.deepcopy(rows[20])
    long["messages"][-1]["content"] = "yes and no " * 300
    cut = copy.deepcopy(rows[30])
    cut["messages"][-2]["content"] = "yes and no " * 300
    rows[20], rows[30] = long, cut
    result = report(write(tmp_path / "a.jsonl", rows), renderer=renderer, max_tokens=400)
    assert at(result, "too_long") == {21}
    assert at(result, "answer_cut") == {31}
    assert result.tokens is not None
    assert [each["row"] for each in result.tokens["truncated"]] == [21, 31]
    if not renderer.has_tools:
        path = write(tmp_path / "b.jsonl", load("bfcl_tools.jsonl"))
        assert len(at(report(path, renderer=renderer), "cannot_render")) == 100


def test_duplicates(tmp_path: Path) -> None:
    rows = load("sgd_chat.jsonl")
    rng = random.Random(2)
    copied = rng.sample(range(150), 40)
    result = report(write(tmp_path / "a.jsonl", [*rows, *(rows[place] for place in copied)]))
    assert at(result, "exact_duplicate") == set(range(151, 191))
    changed = [near_copy(rows[place % 150], rng) for place in range(300)]
    result = report(write(tmp_path / "a.jsonl", [*rows, *changed]))
    seen = at(result, "near_duplicate")
    assert len(seen & set(range(151, 451))) >= 297


def test_leakage(tmp_path: Path) -> None:
    rows = load("sgd_chat.jsonl")
    rng = random.Random(4)
    train = write(tmp_path / "train.jsonl", rows[:100])
    valid = [*rows[100:], *rows[:50], *(near_copy(rows[place % 100], rng) for place in range(200))]
    result = report(train, valid=write(tmp_path / "valid.jsonl", valid))
    assert at(result, "leakage") >= set(range(51, 101))
    seen = at(result, "leakage") | at(result, "near_leakage")
    assert len(seen & set(range(101, 301))) >= 198
    assert not seen & set(range(1, 51))
    assert result.validation is not None
    assert result.validation.num_rows == 300


def answers(rows: list[Row], change: dict[int, str]) -> list[Row]:
    rows = copy.deepcopy(rows)
    for place, answer in change.items():
        rows[place]["messages"][-1]["content"] = answer
    return rows


def test_answers_beside_each_other(tmp_path: Path) -> None:
    rows = load("sgd_chat.jsonl")
    plain = report(write(tmp_path / "a.jsonl", rows))
    aggregate = ("contradiction", "one_answer", "refusals", "mixed_json", "mixed_endings")
    assert not any(found(plain, code) for code in aggregate)

    def check(changed: list[Row]) -> Report:
        return report(write(tmp_path / "a.jsonl", changed))

    other = answers([rows[5], rows[9]], {0: "No, never.", 1: "Who knows?"})
    assert at(check([*rows, *other]), "contradiction") == {6, 10, 151, 152}
    assert at(check(answers(rows, dict.fromkeys(range(40), "Sure!"))), "one_answer") == set(
        range(1, 41)
    )
    no = {place: f"I'm sorry, but I can't do number {place}." for place in range(90)}
    assert at(check(answers(rows, no)), "refusals") == set(range(1, 91))
    parses = {place: json.dumps({"n": place}) for place in range(150)}
    broken = parses | {4: '{"n": 4', 70: "n = 70", 149: '{"n": 1,}'}
    assert at(check(answers(rows, broken)), "mixed_json") == {5, 71, 150}
    ends = {place: f"{rows[place]['messages'][-1]['content']}\n" for place in (3, 60, 61)}
    assert at(check(answers(rows, ends)), "mixed_endings") == {4, 61, 62}
    assert at(check(answers(rows, {77: "word after word " * 400})), "length_outlier") == {78}


def test_system_messages_that_are_almost_equal(tmp_path: Path) -> None:
    rows = copy.deepcopy(load("sgd_chat.jsonl"))
    rows[8]["messages"][0]["content"] = "You are a booking assistent."
    rows[50]["messages"][0]["content"] = "You are a booking assistant"
    rows[99]["messages"][0]["content"] = "Answer as a pirate would do."
    result = report(write(tmp_path / "a.jsonl", rows))
    assert at(result, "system_variants") == {9, 51}


def test_labels_that_are_far_from_balanced(tmp_path: Path) -> None:
    rows = load("banking_labels.jsonl")
    assert found(report(write(tmp_path / "a.jsonl", rows)), "label_imbalance") is None
    few = dict.fromkeys(range(200), "other") | {17: "card_arrival", 90: "card_arrival"}
    assert at(report(write(tmp_path / "a.jsonl", answers(rows, few))), "label_imbalance") == {
        18,
        91,
    }


def test_preferred_answers_that_are_nearly_always_longer(tmp_path: Path) -> None:
    rows = load("hh_preference.jsonl")
    assert (
        found(report(write(tmp_path / "a.jsonl", rows), method="dpo"), "preference_length_bias")
        is None
    )
    for row in rows:
        row["preferred_output"][0]["content"] += " Let me say more about that." * 30
    result = report(write(tmp_path / "a.jsonl", rows), method="dpo")
    assert found(result, "preference_length_bias") is not None


def test_languages(tmp_path: Path) -> None:
    rows = copy.deepcopy(load("sgd_chat.jsonl"))
    german = "Ich habe das nicht gefunden, und es ist auch nicht auf der Liste, die wir haben."
    russian = "\u042f \u043d\u0435 \u043d\u0430\u0448\u0451\u043b \u044d\u0442\u043e\u0433\u043e."
    rows[3]["messages"][-2]["content"] = "What is the name of the place that you have found for me?"
    rows[3]["messages"][-1]["content"] = german
    rows[70]["messages"][-2]["content"] = "What is the name of the place that you have found?"
    rows[70]["messages"][-1]["content"] = russian
    rows[80]["messages"][-2]["content"] = german
    rows[80]["messages"][-1]["content"] = german
    result = report(write(tmp_path / "a.jsonl", rows))
    assert at(result, "language_mismatch") == {4, 71}
    assert at(result, "mixed_languages") == {81}
