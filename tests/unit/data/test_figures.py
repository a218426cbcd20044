"""The figures against the notebook's own code, on rows as it knows them and as they are today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.data import figures
from tunesmith.data.figures import Distribution, FigureCounter, Figures

ASSETS = Path(figures.__file__).parents[1] / "assets"
USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}


def counted(rows: list[Any], tokens: bool = False) -> Figures:
    counter = FigureCounter(encodings=("cl100k_base",) if tokens else ())
    for row in rows:
        counter.add(row)
    figures = counter.figures()
    assert figures is not None
    return figures


def chat(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


def test_each_error_by_its_name() -> None:
    found = counted(
        [
            ["no object"],
            {"prompt": "x"},
            chat(),
            chat({"content": "x"}, ANSWER),
            chat({**USER, "colour": "red"}, ANSWER),
            chat({"role": "robot", "content": "x"}, ANSWER),
            chat({"role": "user", "content": 5}, ANSWER),
            chat(USER),
        ]
    )
    assert found.errors == {
        "data_type": 1,
        "missing_messages_list": 2,
        "message_missing_key": 1,
        "message_unrecognized_key": 1,
        "unrecognized_role": 2,
        "missing_content": 1,
        "example_missing_assistant_message": 1,
    }
    assert found.valid_today == {}
    assert found.verdict == "Found errors:"
    assert (found.num_missing_system, found.num_missing_user) == (5, 2)


def test_what_is_valid_today_is_said_to_be() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    found = counted(
        [
            chat(
                {"role": "developer", "content": "Be kind."},
                USER,
                {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": "1"},
                ANSWER,
            )
        ]
    )
    assert found.errors == found.valid_today
    assert set(found.errors) == {
        "message_missing_key",
        "message_unrecognized_key",
        "unrecognized_role",
        "missing_content",
    }


def test_percentiles_are_numpy_s_and_the_ones_they_are_called() -> None:
    values = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35]
    found = Distribution.of(values)
    assert found is not None
    assert (found.min, found.max) == (1, 35)
    assert found.mean == np.mean(values) and found.median == np.median(values)
    assert np.isclose(found.p10, np.quantile(values, 0.1))
    assert np.isclose(found.p90, np.quantile(values, 0.9))
    assert Distribution.of([]) is None


def test_real_rows_have_no_errors_and_every_token() -> None:
    rows = [json.loads(line) for line in (ASSETS / "demo/snips_heldout.jsonl").open()]
    found = counted(rows, tokens=True)
    assert found.verdict == "No errors found"
    assert found.num_messages_per_example == Distribution(3, 3, 3.0, 3, 3.0, 3.0)
    assert found.num_total_tokens_per_example is not None
    assert found.num_tokens == round(found.num_total_tokens_per_example.mean * len(rows))


def test_nothing_a_file_can_hold_raises() -> None:
    for row in (None, 1, "x", [], {}, {"messages": 1}, {"messages": [1, None, []]}):
        counted([row], tokens=True)
    for value in (None, 1, [], {}, ""):
        counted([chat({"role": value, "content": value, "name": value})], tokens=True)
