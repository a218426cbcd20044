"""Records: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.jobdir.events import EventLine
from tunesmith.jobdir.outcome import CheckpointEntry, Failure, Result, Validation
from tunesmith.jobdir.records import RecordError, from_json, to_json
from tunesmith.jobdir.spec import BaseRef, FileRef, Spec

numbers = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.dictionaries(st.text(), numbers, max_size=4)
paths = st.sampled_from([Path("/a/b"), Path("checkpoints/step-1")])
records = st.one_of(
    st.builds(
        Spec,
        base=st.builds(BaseRef, path=paths),
        training_file=st.builds(FileRef, path=paths),
        validation_file=st.none() | st.builds(FileRef, path=paths),
        start_adapter=st.none() | paths,
        hyperparameters=st.dictionaries(st.text(), st.just("auto") | numbers | st.integers()),
        save_every_s=numbers,
    ),
    st.builds(Validation, error=st.none() | st.builds(Failure)),
    st.builds(
        Result,
        error=st.none() | st.builds(Failure),
        checkpoints=st.lists(
            st.builds(CheckpointEntry, path=paths, metrics=metrics, epoch=st.none() | st.integers())
        ),
    ),
    st.builds(EventLine, data=metrics),
)


@given(records)
def test_a_record_survives_the_round_trip(record: object) -> None:
    line = to_json(record)
    assert b"\n" not in line
    assert from_json(type(record), line) == record


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"fence": "1"}, "Result.fence"),
        ({"fence": True}, "Result.fence"),
        ({"status": "done"}, "Result.status"),
        ({"extra": 1}, "extra"),
        ({"step": None}, "Result.step"),
        ({"error": {"code": "x"}}, "message"),
        ({"checkpoints": [{"step": 1}]}, "Result.checkpoints[0]"),
    ],
)
def test_what_does_not_fit_is_refused_by_place(change: dict[str, object], place: str) -> None:
    good = {"fence": 1, "status": "failed", "step": 0, "total_steps": 1, "trained_tokens": 0}
    assert from_json(Result, json.dumps(good).encode()).fence == 1
    with pytest.raises(RecordError) as caught:
        from_json(Result, json.dumps(good | change).encode())
    assert place in caught.value.message


def test_a_missing_key_and_broken_json_are_refused() -> None:
    with pytest.raises(RecordError, match="'message' is missing"):
        from_json(Failure, b'{"code": "x"}')
    for text in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(RecordError):
            from_json(Failure, text)


def test_numbers_that_json_does_not_have_are_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(EventLine("k", "m", 0, data={"loss": float("nan")}))
