"""The recipe, run in this process on the tiny base: what it writes, and every way it can end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from tests.tiny_base import TINY, write_tiny_base
from tests.trainer_job import (
    adapter_bytes,
    copy_job,
    events_of,
    make_job,
    metrics_of,
    relaunched,
    result_of,
    tiny_base,
)
from tunesmith.errors import JobError
from tunesmith.group.world import ALONE
from tunesmith.jobdir import checkpoints
from tunesmith.jobdir.control import write_control
from tunesmith.jobdir.files import read_record, write_record
from tunesmith.jobdir.layout import CHECKPOINTS_DIR, PLAN_FILE, RESULT_FILE, VALIDATION_FILE
from tunesmith.jobdir.outcome import Result, Validation
from tunesmith.jobdir.spec import BaseRef, read_spec
from tunesmith.model import learning
from tunesmith.model.adapter_files import CONFIG
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.train import forecast, loop, shortage, start
from tunesmith.train import plan as planning
from tunesmith.train.objective import Means
from tunesmith.train.plan import Plan
from tunesmith.train.step import Forward
from tunesmith.trainer.process import DONE, FENCED, run

STEPS = 14  # ceil(10 rows * 4 epochs / 3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job_dir = make_job(tmp_path_factory.mktemp("loop") / "job")
    assert run("train", job_dir) == DONE
    return job_dir


def without_times(job_dir: Path) -> Result:
    return replace(result_of(job_dir), took={})


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Calls `act(job)` once `step` has been learned."""
    original = loop.learn

    def learn(job: Any, run: Any, at: int) -> None:
        original(job, run, at)
        if at == step:
            act(job)

    monkeypatch.setattr(loop, "learn", learn)


def test_a_job_ends_with_its_last_three_epochs_to_serve(finished: Path) -> None:
    result = result_of(finished)
    assert (result.status, result.step, result.total_steps) == ("succeeded", STEPS, STEPS)
    assert [(entry.step, entry.epoch) for entry in result.checkpoints] == [(7, 2), (10, 3), (14, 4)]
    directories = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert directories == ["step-00000007", "step-00000010", "step-00000014"]
    model = load_model(read_spec(finished).base.path)
    for entry in result.checkpoints:
        adapter = Adapter.load(finished / entry.path, model.linears)
        assert all(matrix.any() for matrix in adapter.b.values())
        assert adapter.spec.rank == 4
        assert adapter.spec.alpha == 8


def test_the_loss_falls(finished: Path) -> None:
    metrics = metrics_of(finished)
    assert metrics[f"step:{STEPS}"]["train_loss"] < 0.8 * metrics["step:1"]["train_loss"]


def test_every_step_has_an_event_with_the_contracts_fields(finished: Path) -> None:
    events = [event for event in events_of(finished) if event.type == "metrics"]
    assert [event.key for event in events] == [f"step:{step}" for step in range(1, STEPS + 1)]
    always = {"step", "train_loss", "train_mean_token_accuracy", "total_steps"}
    valid = {"valid_loss", "valid_mean_token_accuracy"}
    full = {"full_valid_loss", "full_valid_mean_token_accuracy"}
    for step, event in enumerate(events, 1):
        ends_epoch = step in (4, 7, 10, 14)
        expected = always | (valid if ends_epoch or step % 10 == 0 else set())
        assert set(event.data) == expected | (full if ends_epoch else set())
        assert event.data["step"] == step
        assert 0 <= event.data["train_mean_token_accuracy"] <= 1
    assert events[-1].message.startswith("Step 14/14: training loss=")
    assert ", validation loss=" in events[-1].message
    assert ", full validation loss=" in events[-1].message


def test_checkpoint_metrics_are_those_of_their_step(finished: Path) -> None:
    metrics = metrics_of(finished)
    for entry in result_of(finished).checkpoints:
        data = dict(metrics[f"step:{entry.step}"])
        del data["step"], data["total_steps"]
        assert entry.metrics == data


def test_trained_tokens_are_those_of_all_epochs(finished: Path, tmp_path: Path) -> None:
    assert run("validate", finished) == DONE
    validation = read_record(Validation, finished / VALIDATION_FILE)
    assert validation is not None
    assert result_of(finished).trained_tokens == 4 * validation.num_tokens
    assert validation.total_steps == STEPS


def test_the_plan_and_the_smoke_test_are_told(finished: Path) -> None:
    messages = {event.key: event for event in events_of(finished) if event.type == "message"}
    plan = read_record(Plan, finished / PLAN_FILE)
    assert plan is not None
    text = messages["plan"].message
    assert plan.dtype in text
    assert "thread" in text
    assert "learning rate" in text
    assert "LoRA parameters" in text
    assert "Smoke test" in messages["smoke"].message


def test_a_second_run_of_the_same_job_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    again = make_job(tmp_path / "again")
    run("train", again)
    assert adapter_bytes(again) == adapter_bytes(finished)
    assert metrics_of(again) == metrics_of(finished)
    other = make_job(tmp_path / "other", seed=8)
    run("train", other)
    assert adapter_bytes(other) != adapter_bytes(finished)


def test_micro_batches_change_nothing_but_the_last_bits(finished: Path, tmp_path: Path) -> None:
    split = make_job(tmp_path / "split")
    plan = read_record(Plan, finished / PLAN_FILE)
    assert plan is not None
    write_record(replace(plan, micro_tokens=1), split / PLAN_FILE)
    run("train", split)
    whole, parts = metrics_of(finished), metrics_of(split)
    for key in whole:
        assert parts[key] == pytest.approx(whole[key], abs=2e-3)


def test_bf16_learns_the_same_and_resumes_bit_for_bit(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = read_record(Plan, finished / PLAN_FILE)
    assert plan is not None
    narrow = replace(plan, dtype="bfloat16")
    whole, halved = make_job(tmp_path / "whole"), make_job(tmp_path / "halved")
    for job_dir in (whole, halved):
        write_record(narrow, job_dir / PLAN_FILE)
    assert run("train", whole) == DONE
    for key, data in metrics_of(finished).items():
        assert metrics_of(whole)[key]["train_loss"] == pytest.approx(data["train_loss"], rel=0.03)
    stop_at(monkeypatch, 8, lambda job: write_control(job.dir, "pause"))
    assert run("train", halved) == DONE
    monkeypatch.undo()
    assert run("train", relaunched(halved)) == DONE
    assert adapter_bytes(halved) == adapter_bytes(whole)


@pytest.mark.parametrize("step", [1, 7, 9])
def test_pause_keeps_a_checkpoint_and_resume_ends_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    job_dir = make_job(tmp_path / "job")
    stop_at(monkeypatch, step, lambda job: write_control(job.dir, "pause"))
    assert run("train", job_dir) == DONE
    paused = result_of(job_dir)
    assert (paused.status, paused.step) == ("paused", step)
    assert paused.checkpoints[-1].step == step
    assert 0 < paused.trained_tokens < result_of(finished).trained_tokens
    assert run("train", relaunched(job_dir)) == DONE
    assert without_times(job_dir) == replace(without_times(finished), fence=2)
    assert adapter_bytes(job_dir) == adapter_bytes(finished)
    assert metrics_of(job_dir) == metrics_of(finished)
    keys = [event.key for event in events_of(job_dir)]
    assert len(keys) == len(set(keys)) + 1  # the plan is told again
    assert any(
        event.message == f"Resuming after step {step}/{STEPS}" for event in events_of(job_dir)
    )


def test_a_damaged_plan_is_made_anew_and_that_is_said(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_dir = make_job(tmp_path / "job")
    stop_at(monkeypatch, 5, lambda job: write_control(job.dir, "pause"))
    assert run("train", job_dir) == DONE
    monkeypatch.undo()
    (job_dir / PLAN_FILE).write_bytes(b'{"device": "c')
    assert run("train", relaunched(job_dir)) == DONE
    assert result_of(job_dir).status == "succeeded"
    told = [event.message for event in events_of(job_dir) if event.key.startswith("warn:plan")]
    assert [text.startswith("The plan of the job is damaged and made anew") for text in told]
    # On the same machine it is the same plan.
    assert told and adapter_bytes(job_dir) == adapter_bytes(finished)


def test_a_compiler_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if learning.library() is None:
        pytest.skip("there is no C compiler here")
    job_dir = make_job(tmp_path / "job")
    stop_at(monkeypatch, 5, lambda job: write_control(job.dir, "pause"))
    assert run("train", job_dir) == DONE
    monkeypatch.undo()
    assert json.loads((job_dir / PLAN_FILE).read_bytes())["compiled"]
    monkeypatch.setattr(learning, "_is_wanted", True)
    monkeypatch.setattr(learning, "library", lambda: None)
    assert run("train", relaunched(job_dir)) == DONE
    assert result_of(job_dir).status == "succeeded"
    told = [event.message for event in events_of(job_dir) if event.key.startswith("warn:compiler")]
    assert [text.startswith("There is no C compiler any more") for text in told] == [True]
    assert not json.loads((job_dir / PLAN_FILE).read_bytes())["compiled"]


def test_a_pause_before_the_first_step_starts_over(finished: Path, tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job")
    write_control(job_dir, "pause")
    assert run("train", job_dir) == DONE
    assert (result_of(job_dir).status, result_of(job_dir).step) == ("paused", 0)
    assert run("train", relaunched(job_dir)) == DONE
    assert adapter_bytes(job_dir) == adapter_bytes(finished)


def test_cancel_ends_within_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_dir = make_job(tmp_path / "job")
    stop_at(monkeypatch, 5, lambda job: write_control(job.dir, "cancel"))
    assert run("train", job_dir) == DONE
    assert (result_of(job_dir).status, result_of(job_dir).step) == ("cancelled", 5)


def test_an_overtaken_trainer_writes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_dir = make_job(tmp_path / "job", save_every_s=1e-9)
    stop_at(monkeypatch, 5, lambda job: relaunched(job.dir))
    assert run("train", job_dir) == FENCED
    assert not (job_dir / RESULT_FILE).exists()
    assert list(metrics_of(job_dir)) == [f"step:{step}" for step in range(1, 5)]
    assert (job_dir / "checkpoints" / "step-00000004").exists()
    assert not (job_dir / "checkpoints" / "step-00000005").exists()


def test_a_damaged_checkpoint_is_skipped_with_a_warning(finished: Path, tmp_path: Path) -> None:
    job_dir = copy_job(finished, tmp_path / "job")
    damaged = job_dir / "checkpoints" / "step-00000014" / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert run("train", relaunched(job_dir)) == DONE
    (warning,) = [event for event in events_of(job_dir) if event.level == "warn"]
    assert "step-00000014" in warning.message
    assert "optimizer.safetensors" in warning.message
    assert adapter_bytes(job_dir) == adapter_bytes(finished)
    assert metrics_of(job_dir) == metrics_of(finished)


def test_a_finished_job_that_is_run_again_changes_nothing(finished: Path, tmp_path: Path) -> None:
    job_dir = copy_job(finished, tmp_path / "job")
    before = without_times(job_dir)
    assert run("train", job_dir) == DONE
    assert without_times(job_dir) == before


@pytest.mark.parametrize(
    ("part", "what", "step"), [("accumulate", "training", 1), ("evaluate", "validation", 4)]
)
def test_a_loss_that_is_no_number_fails_the_job(
    part: str, what: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(loop, part)

    def broken(*args: Any) -> Means:
        return replace(original(*args), loss=float("nan"))

    monkeypatch.setattr(loop, part, broken)
    job_dir = make_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    result = result_of(job_dir)
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code == "non_finite_loss"
    assert f"{what} loss is not finite at step {step} of {STEPS}" in result.error.message
    assert "learning_rate_multiplier" in result.error.message


def run_out_above(monkeypatch: pytest.MonkeyPatch, max_tokens: int) -> None:
    """Passes over more than `max_tokens` at once run out of memory as torch does on a CPU."""
    original = loop.accumulate

    def limited(*args: Any) -> Means:
        if args[-1] > max_tokens:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")
        return original(*args)

    monkeypatch.setattr(loop, "accumulate", limited)


def test_running_out_of_memory_halves_the_micro_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out_above(monkeypatch, 600)
    job_dir = make_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    assert result_of(job_dir).status == "succeeded"
    plan = read_record(Plan, job_dir / PLAN_FILE)
    assert plan is not None
    assert plan.micro_tokens == 512
    warnings = [event.message for event in events_of(job_dir) if event.level == "warn"]
    assert [text.startswith("Out of memory") for text in warnings] == [True, True]


def test_a_single_example_that_does_not_fit_fails_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out_above(monkeypatch, 0)
    job_dir = make_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert error.code == "out_of_memory"
    assert "Shorten the longest examples" in error.message


def test_after_the_smallest_micro_batch_layers_are_computed_twice(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.accumulate

    def limited(forward: Forward, *args: Any) -> Means:
        if not forward.recompute:
            raise MemoryError
        return original(forward, *args)

    monkeypatch.setattr(loop, "accumulate", limited)
    job_dir = make_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    plan = read_record(Plan, job_dir / PLAN_FILE)
    assert plan is not None
    assert plan.recompute
    warnings = [event.message for event in events_of(job_dir) if event.level == "warn"]
    assert all("tokens at once" in text for text in warnings[:-1])
    assert "computed twice" in warnings[-1]
    for key, data in metrics_of(finished).items():
        assert metrics_of(job_dir)[key] == pytest.approx(data, abs=2e-3)


def test_a_gpu_then_keeps_less_on_itself(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of what is given up, on a job that says it runs on a GPU."""
    job_dir = copy_job(finished, tmp_path / "job")
    decided = read_record(Plan, job_dir / PLAN_FILE)
    assert decided is not None

    class Stage:
        plan = replace(decided, device="cuda", micro_tokens=100)
        model = load_model(tiny_base())

    class Log:
        told: ClassVar[list[str]] = []

        def message(self, key: str, text: str, level: str) -> None:
            self.told.append(text)

    class Work:
        dir, journal, world = job_dir, Log(), ALONE

    job, stage = Work(), Stage()
    for _ in range(3):
        shortage._give_way(job, stage, 60)  # type: ignore[arg-type]
    assert (stage.plan.micro_tokens, stage.plan.recompute, stage.plan.offload) == (50, True, True)
    assert [text.split()[-1] for text in Log.told] == ["once", "slower", "slower"]
    with pytest.raises(JobError, match="does not hold one example of 60 tokens"):
        shortage._give_way(job, stage, 60)  # type: ignore[arg-type]


def test_little_memory_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "available_bytes", lambda device: 1 << 16)
    job_dir = make_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    twice, longest = [event for event in events_of(job_dir) if event.level == "warn"]
    assert twice.message.startswith("Memory is short: each layer is computed twice")
    assert longest.message.startswith("The longest example has ")


def test_what_is_expected_is_said_before_and_compared_after(finished: Path) -> None:
    events = {event.key: event for event in events_of(finished)}
    keys = list(events)
    assert keys.index("forecast") < keys.index("step:1") < keys.index("took")
    expected, took = events["forecast"].data, events["took"].data
    assert expected["tokens_per_step"] > 0
    assert expected["peak_bytes"] > 1 << 20
    assert took["expected_seconds"] == expected["seconds"] > 0
    assert took["seconds"] > 0
    assert result_of(finished).took == took


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_forecast_counts_what_a_step_takes_beside_its_rows(
    batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, original = [0.0], loop.form_gradient

    def form_gradient(job: Any, run: Any, rows: Any, step: int) -> Any:
        now_s[0] += 0.01 + 0.001 * len(rows)
        return original(job, run, rows, step)

    clock = SimpleNamespace(monotonic=lambda: now_s[0], perf_counter=lambda: now_s[0])
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(loop, "form_gradient", form_gradient)
    hyper = {"n_epochs": 2, "batch_size": batch_size, "lora_rank": 4}
    job_dir = make_job(tmp_path / "job", hyperparameters=hyper, with_validation=False)
    assert run("train", job_dir) == DONE
    expected_s = (0.01 + 0.001 * batch_size) * result_of(job_dir).total_steps
    took = result_of(job_dir).took
    # Processes agree on whole microseconds.
    assert took["expected_seconds"] == pytest.approx(expected_s, rel=1e-3)
    assert took["seconds"] == pytest.approx(expected_s)


def test_long_steps_are_tried_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes that are cut short by the time that they may take, and rows that take longer."""
    tried: list[int] = []
    now_s = [0.0]
    for row_s, passes in ((0.06, [1, 8, 8]), (0.7, [1])):
        tried.clear()

        def form_gradient(*given: Any, step: int, row_s: float = row_s) -> None:
            tried.append(len(given[2]))
            now_s[0] += row_s * len(given[2])

        monkeypatch.setattr(loop, "form_gradient", form_gradient)
        monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
        stage: Any = SimpleNamespace(
            plan=SimpleNamespace(batch_size=20, processes=1),
            train=SimpleNamespace(typical=range),
            optimizer=SimpleNamespace(clip=lambda: torch.ones(())),
        )
        job: Any = SimpleNamespace(world=ALONE)
        assert loop.step_seconds(job, stage) == pytest.approx(20 * row_s)
        assert tried == passes


def test_a_full_disk_is_waited_for(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(checkpoints.time, "sleep", waits.append)
    failures = [OSError(28, "No space left on device")] * 3
    original = checkpoints.fsync_dir

    def full(path: Path) -> None:
        if failures:
            raise failures.pop()
        original(path)

    monkeypatch.setattr(checkpoints, "fsync_dir", full)
    job_dir = make_job(tmp_path / "job")
    (job_dir / CHECKPOINTS_DIR).mkdir()
    assert run("train", job_dir) == DONE
    assert waits == [1.0, 2.0, 4.0]
    assert adapter_bytes(job_dir) == adapter_bytes(finished)


def test_a_job_goes_on_from_an_adapter_and_keeps_its_shape(finished: Path, tmp_path: Path) -> None:
    start = finished / result_of(finished).checkpoints[-1].path
    job_dir = make_job(
        tmp_path / "job",
        start_adapter=start,
        hyperparameters={"n_epochs": 1, "batch_size": 3, "lora_rank": 4},
    )
    assert run("train", job_dir) == DONE
    config = json.loads(
        (job_dir / result_of(job_dir).checkpoints[0].path / "adapter_config.json").read_text()
    )
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    first = metrics_of(job_dir)["step:1"]["train_loss"]
    assert first < 0.8 * metrics_of(finished)["step:1"]["train_loss"]


def test_an_adapter_cannot_change_its_shape_on_the_way(finished: Path, tmp_path: Path) -> None:
    start = finished / result_of(finished).checkpoints[-1].path
    asked = [("lora_rank", 2), ("lora_targets", ["x"]), ("lora_targets", "mlp")]
    for number, (param, value) in enumerate(asked):
        hyper = {param: value}
        job_dir = make_job(tmp_path / f"{number}", start_adapter=start, hyperparameters=hyper)
        assert run("train", job_dir) == DONE
        error = result_of(job_dir).error
        assert error is not None
        assert error.code == "invalid_hyperparameters"
        assert error.param == f"hyperparameters.{param}"


@pytest.mark.parametrize(
    "shape", [{"finetuning_type": "dora"}, {"lora_rslora": True}, {"lora_targets": "attention"}]
)
def test_every_shape_learns_resumes_and_is_continued(
    shape: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hyper = {"n_epochs": 2, "batch_size": 3, "lora_rank": 4, "learning_rate_multiplier": 4} | shape
    whole = make_job(tmp_path / "whole", hyperparameters=hyper, with_validation=False)
    assert run("train", whole) == DONE
    losses = [data["train_loss"] for data in metrics_of(whole).values()]
    assert losses[-1] < 0.9 * losses[0]
    halved = make_job(tmp_path / "halved", hyperparameters=hyper, with_validation=False)
    stop_at(monkeypatch, 3, lambda job: write_control(job.dir, "pause"))
    assert run("train", halved) == DONE
    monkeypatch.undo()
    assert run("train", relaunched(halved)) == DONE
    assert adapter_bytes(halved) == adapter_bytes(whole)
    start = whole / result_of(whole).checkpoints[-1].path
    onward = make_job(tmp_path / "onward", start_adapter=start, hyperparameters={"n_epochs": 1})
    assert run("train", onward) == DONE
    assert metrics_of(onward)["step:1"]["train_loss"] < losses[0]
    last = onward / result_of(onward).checkpoints[-1].path
    assert (last / CONFIG).read_bytes() == (start / CONFIG).read_bytes()


def test_a_target_that_is_not_there_is_named(tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job", hyperparameters={"lora_targets": ["q_proj", "qq"]})
    assert run("train", job_dir) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert "called 'qq'" in error.message
    assert "q_proj" in error.message
    assert error.param == "hyperparameters.lora_targets"


def test_dropout_is_the_same_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hyper = {"n_epochs": 2, "batch_size": 3, "lora_rank": 4, "lora_dropout": 0.3}
    whole = make_job(tmp_path / "whole", hyperparameters=hyper)
    assert run("train", whole) == DONE
    halved = make_job(tmp_path / "halved", hyperparameters=hyper)
    stop_at(monkeypatch, 3, lambda job: write_control(job.dir, "pause"))
    assert run("train", halved) == DONE
    monkeypatch.undo()
    torch.rand(5)
    assert run("train", relaunched(halved)) == DONE
    assert adapter_bytes(halved) == adapter_bytes(whole)


def test_a_changed_base_is_refused_on_resume(finished: Path, tmp_path: Path) -> None:
    job_dir = copy_job(finished, tmp_path / "job")
    plan = read_record(Plan, job_dir / PLAN_FILE)
    assert plan is not None
    write_record(replace(plan, base_fingerprint="0" * 64), job_dir / PLAN_FILE)
    assert run("train", relaunched(job_dir)) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert error.code == "base_model_changed"


def test_a_bad_row_fails_the_job_by_line(tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job")
    path = read_spec(job_dir).training_file.path
    lines = path.read_text().splitlines()
    lines[4] = lines[4].replace('"user"', '"nobody"', 1)
    path.write_text("\n".join(lines))
    assert run("train", job_dir) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert (error.param, error.line) == ("training_file", 5)


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning.torch.cuda, "is_available", lambda: False)
    job_dir = make_job(tmp_path / "job", device="cuda")
    assert run("train", job_dir) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert error.code == "device_unavailable"


@pytest.mark.parametrize(
    ("method", "noun", "tight"), [("supervised", "example", 3000), ("dpo", "pair", 5000)]
)
def test_what_goes_through_at_once_is_held_against_memory(
    method: str, noun: str, tight: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long example alone is no reason to warn; of a pair both answers count."""
    base = write_tiny_base(tmp_path / "base", shape=replace(TINY, max_positions=4096))
    words = "please " * 450
    answer = [{"role": "assistant", "content": words}]
    prompt = [{"role": "user", "content": "request"}]
    row = {"messages": prompt + answer} if method == "supervised" else {
        "input": {"messages": prompt}, "preferred_output": answer, "non_preferred_output": answer
    }  # fmt: skip
    said = []
    for name, fitting in (("roomy", 100_000), ("tight", tight)):
        monkeypatch.setattr(forecast, "num_fitting", lambda *_, found=fitting: found)
        monkeypatch.setattr(start, "num_fitting", lambda *_, found=fitting: found)
        job_dir = make_job(tmp_path / name, method=method, base=BaseRef("long", base))
        write_control(job_dir, "cancel")
        with read_spec(job_dir).training_file.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        assert run("train", job_dir) == DONE
        assert result_of(job_dir).status == "cancelled", result_of(job_dir).error
        said.append([e.message for e in events_of(job_dir) if e.key == "warn:memory"])
    assert said[0] == []
    assert said[1][0].startswith(f"The longest {noun} has")
    assert f"memory may hold about {tight} at once" in said[1][0]
