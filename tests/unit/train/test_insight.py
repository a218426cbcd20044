"""The loss of each row, sample answers and advice: what a job leaves for people to look at."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer_job import (
    adapter_bytes,
    events_of,
    make_job,
    metrics_of,
    relaunched,
    result_of,
)
from tests.unit.train.test_loop import stop_at
from tunesmith.bases import embedded_directory
from tunesmith.jobdir.control import write_control
from tunesmith.jobdir.layout import EVENTS_FILE
from tunesmith.jobdir.row_losses import RowLosses, page, read_rows
from tunesmith.jobdir.samples import read_samples
from tunesmith.jobdir.spec import BaseRef
from tunesmith.train import advice, answers
from tunesmith.train.advice import rises
from tunesmith.train.batches import Order
from tunesmith.trainer.process import DONE, run


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 4))
def test_every_row_gets_the_losses_of_its_first_and_last_epoch(
    num_rows: int, batch_size: int, num_epochs: int
) -> None:
    """Wherever steps cut the epochs: here a row's loss says its epoch and its number."""
    order = Order(3, num_rows, batch_size, num_epochs)
    losses = RowLosses(Path("/nowhere"), num_rows, num_epochs)
    for step in range(1, order.total_steps + 1):
        first, rows = (step - 1) * batch_size, order.rows(step)
        found = [100 * ((first + at) // num_rows) + row for at, row in enumerate(rows)]
        losses.record(first, rows, found)
    numbers = np.arange(num_rows)
    assert (losses._losses[:, 0] == numbers).all()
    if num_epochs > 1:
        assert (losses._losses[:, 1] == 100 * (num_epochs - 1) + numbers).all()
    else:
        assert np.isnan(losses._losses[:, 1]).all()


def test_rows_are_kept_through_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halved = make_job(tmp_path / "whole"), make_job(tmp_path / "halved")
    assert run("train", whole) == DONE
    stop_at(monkeypatch, 8, lambda job: write_control(job.dir, "pause"))
    assert run("train", halved) == DONE
    monkeypatch.undo()
    partly = read_rows(halved)
    assert partly is not None and not np.isnan(partly[:, 0]).any() and np.isnan(partly[:, 1]).all()
    assert run("train", relaunched(halved)) == DONE
    expected, found = read_rows(whole), read_rows(halved)
    assert expected is not None and found is not None
    assert found.tobytes() == expected.tobytes()
    rows, has_more = page(expected, "loss", None, 100)
    assert {row.row for row in rows} == set(range(1, 11)) and not has_more
    assert sum(row.change < 0 for row in rows if row.change is not None) >= 8
    # Of one epoch's steps, weighted by tokens, they make the loss that was told.
    first_step = metrics_of(whole)["step:1"]["train_loss"]
    assert min(expected[:, 0]) <= first_step <= max(expected[:, 0])


def test_samples_answer_the_same_prompts_at_each_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FREE_S", 60.0)
    job_dir = make_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    found = read_samples(job_dir)
    assert [sample.step for sample in found.samples] == [0, 7, 10, 14]
    assert [sample.epoch for sample in found.samples] == [0, 2, 3, 4]
    assert [prompt.row for prompt in found.prompts] == [1, 2, 3, 4]
    assert all(prompt.file == "validation_file" for prompt in found.prompts)
    assert found.prompts[0].text.startswith("<|bos|>")
    assert found.prompts[0].expected in ("play_music", "get_weather", "book_restaurant")
    assert all(len(sample.answers) == 4 for sample in found.samples)
    assert all(0 < each.num_tokens <= 64 for each in found.samples[0].answers)
    keys = [event.key for event in events_of(job_dir)]
    assert [key for key in keys if key.startswith("samples:")] == [
        "samples:7", "samples:10", "samples:14"
    ]  # fmt: skip


@pytest.mark.parametrize(("step", "epoch", "before"), [(8, 3, [0, 7]), (2, 1, [0])])
def test_samples_are_as_before_after_a_pause_which_has_its_own(
    step: int, epoch: int, before: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FREE_S", 60.0)
    whole, halved = make_job(tmp_path / "whole"), make_job(tmp_path / "halved")
    assert run("train", whole) == DONE
    with monkeypatch.context() as patch:
        stop_at(patch, step, lambda job: write_control(job.dir, "pause"))
        assert run("train", halved) == DONE
    assert result_of(halved).checkpoints[-1].step == step
    found = read_samples(halved).samples
    assert [sample.step for sample in found] == [*before, step]
    assert found[-1].epoch == epoch and len(found[-1].answers) == answers.NUM_PROMPTS - 1
    assert run("train", relaunched(halved)) == DONE
    rest = [sample for sample in read_samples(halved).samples if sample.step != step]
    assert replace(read_samples(halved), samples=rest) == read_samples(whole)


def test_an_interrupted_job_takes_no_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is offered its safety copy."""
    job_dir = make_job(tmp_path / "job")
    stop_at(monkeypatch, 2, lambda job: os.kill(os.getpid(), signal.SIGTERM))
    assert run("train", job_dir) == DONE
    assert result_of(job_dir).status == "interrupted"
    assert read_samples(job_dir).samples == []


@pytest.mark.parametrize(
    ("num_affordable", "steps", "says"),
    [(0, [], "at the checkpoints"), (1, [0, 14], "before epoch 4"), (9, [0, 7, 10, 14], None)],
)
def test_samples_that_take_too_long_are_left_out_and_that_is_said(
    num_affordable: int,
    steps: list[int],
    says: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The start's answers take one second of this clock.
    clock = iter(range(1000))
    monkeypatch.setattr(answers, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(answers, "SHARE", 0.0)
    monkeypatch.setattr(answers, "FREE_S", 1.0 + num_affordable)
    job_dir = make_job(tmp_path / "job", with_validation=False)
    assert run("train", job_dir) == DONE
    found = read_samples(job_dir)
    assert [sample.step for sample in found.samples] == steps
    assert found.skipped == (says is not None)
    # Nor does a pause take them where the first epoch that is kept does not.
    paused = make_job(tmp_path / "paused", with_validation=False)
    stop_at(monkeypatch, 2, lambda job: write_control(job.dir, "pause"))
    assert run("train", paused) == DONE
    at_pause = [sample.step for sample in read_samples(paused).samples]
    assert at_pause == {0: [], 1: [0], 9: [0, 2]}[num_affordable]
    told = [event.message for event in events_of(job_dir) if event.key == "samples:skipped"]
    assert [says in text for text in told if says] == [True] * (says is not None)


def losing(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """The whole validation file has these losses at the epochs' ends."""
    from tunesmith.train import loop

    original, rest = loop.score, list(losses)

    def score(job: Any, run: Any, phase: str, rows: Any) -> None:
        original(job, run, phase, rows)
        if phase == "full_valid":
            run.metrics["full_valid_loss"] = rest.pop(0)

    monkeypatch.setattr(loop, "score", score)


def advice_of(job_dir: Path) -> dict[str, str]:
    keys = ("best", "warn:rising")
    return {e.key: e.message for e in events_of(job_dir) if e.key.startswith(keys)}


def test_a_better_checkpoint_than_the_last_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing(monkeypatch, [0.9, 0.5, 0.6, 0.7])
    job_dir = make_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    assert result_of(job_dir).status == "succeeded"
    assert result_of(job_dir).checkpoints[0].metrics["full_valid_loss"] == 0.5
    told = advice_of(job_dir)
    assert set(told) == {"warn:rising:4", "best"}
    assert "risen for 2 epochs (0.500, 0.600, 0.700)" in told["warn:rising:4"]
    assert "lowest after epoch 2 (step 7: 0.500)" in told["best"]
    assert "The checkpoint of step 7 may answer better" in told["best"]


def test_a_best_epoch_that_was_not_kept_is_told_with_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing(monkeypatch, [0.3, 0.5, 0.45, 0.4])
    job_dir = make_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    assert "was not kept: for it, tune again with n_epochs 1" in advice_of(job_dir)["best"]


def test_the_best_epoch_is_counted_where_steps_end_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing(monkeypatch, [0.3, 0.5, 0.45])
    hyper = {"n_epochs": 6, "batch_size": 20, "lora_rank": 4}
    job_dir = make_job(tmp_path / "job", hyperparameters=hyper)
    assert run("train", job_dir) == DONE
    best = advice_of(job_dir)["best"]
    assert "lowest after epoch 2 (step 1: 0.300)" in best
    assert "tune again with n_epochs 2" in best


def test_a_model_made_worse_is_told(tmp_path: Path) -> None:
    """Every loss is a number, the job succeeds, and the model is of no use."""
    hyper = {"n_epochs": 3, "batch_size": 4, "lora_rank": 4, "learning_rate_multiplier": 3000}
    base = BaseRef("tunesmith-nano", embedded_directory())
    job_dir = make_job(tmp_path / "job", base=base, hyperparameters=hyper)
    assert run("train", job_dir) == DONE
    assert result_of(job_dir).status == "succeeded", result_of(job_dir).error
    (told,) = (event for event in events_of(job_dir) if event.key == "unlearned")
    assert told.level == "warn"
    assert "Lower learning_rate_multiplier" in told.message


def test_a_job_that_only_gets_better_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing(monkeypatch, [0.9, 0.5, 0.4, 0.402])
    job_dir = make_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    assert advice_of(job_dir) == {}
    assert "unlearned" not in {event.key for event in events_of(job_dir)}


def test_rising_takes_two_notable_rises_in_a_row() -> None:
    assert rises([0.5, 0.6, 0.7])
    assert not rises([0.5, 0.6])
    assert not rises([0.5, 0.6, 0.59])
    assert not rises([0.5, 0.501, 0.502])


def test_without_validation_there_is_nothing_to_say(tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job", with_validation=False)
    assert run("train", job_dir) == DONE
    assert advice_of(job_dir) == {}
    assert advice.epoch_losses(job_dir) == {}


def test_a_garbled_event_log_is_told_of_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, job_dir = make_job(tmp_path / "whole"), make_job(tmp_path / "job")
    assert run("train", whole) == DONE
    stop_at(monkeypatch, 6, lambda job: write_control(job.dir, "pause"))
    assert run("train", job_dir) == DONE
    monkeypatch.undo()
    log = job_dir / EVENTS_FILE
    lines = log.read_bytes().splitlines(keepends=True)
    loss = json.dumps({"step": 4, "total_steps": 14, advice.LOSS: "low"}).encode()
    wrong = b'{"key": "step:4", "message": "", "created_at": 1, "type": "metrics", "data": %s}\n'
    middle = len(lines) // 2
    # What is left of the first line, rubbish after it, and no end.
    garbled = lines[0][30:], *lines[1:middle], b"\0" * 50 + b"\n", wrong % loss, *lines[middle:]
    log.write_bytes(b"".join(garbled) + b'{"key": "st')
    for _ in range(2):
        assert run("train", relaunched(job_dir)) == DONE
    assert adapter_bytes(job_dir) == adapter_bytes(whole)
    warnings = [each for each in events_of(job_dir) if each.key.startswith("warn:events:")]
    # In the places of what is missing, and in the words of the trainer, which said them once.
    assert Counter(event.key for event in warnings) == dict.fromkeys(
        {event.key for event in warnings}, 2
    )
    assert len(warnings) == 4 and {event.level for event in warnings} == {"warn"}
    assert {*metrics_of(job_dir)} == {*metrics_of(whole)}


def test_a_job_goes_on_with_a_directory_in_place_of_its_event_log(tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job")
    (job_dir / EVENTS_FILE).mkdir()
    assert run("train", job_dir) == DONE
    assert result_of(job_dir).status == "succeeded"
    assert events_of(job_dir)[0].key == "warn:events:directory"
