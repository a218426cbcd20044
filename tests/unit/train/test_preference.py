"""Preferences: in float64 equal to the plain formula, and jobs on pairs from start to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.trainer_job import (
    adapter_bytes,
    copy_job,
    events_of,
    make_job,
    metrics_of,
    relaunched,
    result_of,
    tiny_base,
    write_rows,
)
from tests.unit.train.test_loop import stop_at
from tunesmith.data.render import Example
from tunesmith.jobdir.control import write_control
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import VALIDATION_FILE
from tunesmith.jobdir.outcome import Validation
from tunesmith.jobdir.spec import read_spec
from tunesmith.model.adapter_files import LoraSpec
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.train import preference
from tunesmith.train.batches import Corpus, Order
from tunesmith.train.objective import Preference
from tunesmith.train.optimizer import MAX_NORM, AdamW
from tunesmith.train.step import Forward, accumulate, evaluate
from tunesmith.trainer.process import DONE, run

BETA = 0.3
STEPS = 7  # ceil(10 pairs * 2 epochs / 3)
HYPER = {"n_epochs": 2, "batch_size": 3, "lora_rank": 4, "learning_rate_multiplier": 40}


def corpus() -> Corpus:
    """Three pairs whose sides are of different lengths."""
    generator = torch.Generator().manual_seed(3)
    examples = []
    for number, (prompt, *answers) in enumerate([(3, 2, 6), (5, 4, 1), (2, 3, 3)], 1):
        start = torch.randint(10, 500, (prompt,), generator=generator).tolist()
        for length in answers:
            answer = torch.randint(10, 500, (length,), generator=generator).tolist()
            weights = [0.0] * prompt + [1.0] * length
            examples.append(Example(start + answer, weights, number))
    return Corpus(examples)


def plain_logps(model: Any, adapter: Adapter | None, pairs: Corpus) -> torch.Tensor:
    """Each answer's log-probability from full logits, one sequence after the other."""
    found = []
    for sequence in range(pairs.num_sequences):
        ids, weights = pairs.tokens(sequence)
        logits = model.logits(model.hidden(ids[None, :-1].long(), lora=adapter))[0]
        logp = F.log_softmax(logits, -1)[torch.arange(len(ids) - 1), ids[1:].long()]
        found.append((logp * (weights[1:] > 0)).sum())
    return torch.stack(found)


def reference_of(model: Any, pairs: Corpus) -> torch.Tensor:
    with torch.no_grad():
        return plain_logps(model, None, pairs)


def doubled(seed: int = 0) -> tuple[Any, Adapter]:
    """The tiny base in float64, with an adapter that does something."""
    model = load_model(tiny_base(), dtype=torch.float64)
    adapter = Adapter.create(model.linears, LoraSpec(2, 4.0), seed)
    generator = torch.Generator().manual_seed(seed)
    for b in adapter.b.values():
        b.normal_(0, 0.05, generator=generator)
    return model, adapter.to(torch.float64).train()


# In trl's DPOTrainer, loss_type "sigmoid" without label smoothing: the log-ratios of both answers
# under the policy and under the reference are subtracted, and the loss is -logsigmoid(beta * that).
def trl_loss(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    pi_logratios = policy[0::2] - policy[1::2]
    ref_logratios = reference[0::2] - reference[1::2]
    return -F.logsigmoid(BETA * (pi_logratios - ref_logratios)).mean()


@pytest.mark.parametrize("max_tokens", [1, 20, 1000])
def test_loss_and_gradient_are_those_of_the_formula(max_tokens: int) -> None:
    """Also when every pair is a micro-batch of its own."""
    model, adapter = doubled()
    pairs = corpus()
    reference = reference_of(model, pairs)
    policy = plain_logps(model, adapter, pairs)
    expected = trl_loss(policy, reference)
    gradients = torch.autograd.grad(expected, adapter.parameters())

    policy, expected = policy.detach(), expected.detach()
    found = Preference(pairs, reference, BETA)
    optimizer = Flat(adapter)
    means = accumulate(Forward(model, "split"), adapter, optimizer, found, [0, 1, 2], max_tokens)
    assert means.loss == pytest.approx(float(expected), abs=1e-12)
    for parameter, gradient in zip(adapter.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - gradient).abs().max() <= 1e-12
    rewards = BETA * (policy - reference)
    margins = rewards[0::2] - rewards[1::2]
    assert means.rewards == pytest.approx(
        {
            "chosen": float(rewards[0::2].mean()),
            "rejected": float(rewards[1::2].mean()),
            "margin": float(margins.mean()),
            "accuracy": float((margins > 0).double().mean()),
        },
        abs=1e-9,
    )
    assert means.row_losses == pytest.approx((-F.logsigmoid(margins)).tolist(), abs=1e-9)
    alone = evaluate(Forward(model, "split"), adapter, found, [0, 1, 2], max_tokens)
    assert alone.loss == pytest.approx(means.loss, abs=1e-12)
    assert alone.rewards == pytest.approx(means.rewards, abs=1e-9)


class Flat(AdamW):
    """Keeps float64 and does not clip, so that gradients can be compared."""

    def __init__(self, adapter: Adapter) -> None:
        self._parameters = adapter.parameters()
        self.gradient = torch.empty(0)
        for parameter in self._parameters:
            parameter.grad = None

    def zero_gradient(self) -> None:
        pass

    def clip(self) -> torch.Tensor:
        assert MAX_NORM == 1
        return torch.tensor(0.0)


def test_accuracy_counts_the_tokens_of_the_preferred_answers() -> None:
    model, adapter = doubled()
    pairs = corpus()
    right = total = 0
    for sequence in (0, 2, 4):
        ids, weights = pairs.tokens(sequence)
        best = model.logits(model.hidden(ids[None, :-1].long(), lora=adapter))[0].argmax(-1)
        right += int(((best == ids[1:]) & (weights[1:] > 0)).sum())
        total += int((weights > 0).sum())
    found = Preference(pairs, reference_of(model, pairs), BETA)
    means = evaluate(Forward(model, "split"), adapter, found, [0, 1, 2], 100)
    assert means.accuracy == right / total


def pair_job(directory: Path, **spec: Any) -> Path:
    return make_job(directory, **({"method": "dpo", "hyperparameters": HYPER} | spec))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job_dir = pair_job(tmp_path_factory.mktemp("pairs") / "job")
    assert run("train", job_dir) == DONE
    return job_dir


def test_a_job_learns_to_prefer(finished: Path) -> None:
    assert result_of(finished).status == "succeeded"
    metrics = metrics_of(finished)
    first, last = metrics["step:1"], metrics[f"step:{STEPS}"]
    # Nothing was learned yet: no preference, a loss of log 2.
    assert first["train_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert first["train_reward_margin"] == pytest.approx(0, abs=1e-3)
    assert last["train_loss"] < 0.5
    assert last["full_valid_reward_accuracy"] == 1
    assert last["full_valid_reward_margin"] > 0.5
    phases = ("train", "valid", "full_valid")
    names = ("loss", "mean_token_accuracy", *(f"reward_{name}" for name in preference_names()))
    assert set(last) == {"step", "total_steps", *(f"{a}_{b}" for a in phases for b in names)}
    entry = result_of(finished).checkpoints[-1]
    assert entry.metrics["full_valid_reward_accuracy"] == 1


def preference_names() -> tuple[str, ...]:
    return ("chosen", "rejected", "margin", "accuracy")


def test_the_plan_and_the_reference_are_told(finished: Path) -> None:
    messages = {event.key: event.message for event in events_of(finished)}
    assert "on preferences (beta 0.1)" in messages["plan"]
    assert "has rated the 10 pairs of the training file" in messages["reference:train"]
    assert "has rated the 4 pairs of the validation file" in messages["reference:valid"]


def test_the_same_job_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    again = pair_job(tmp_path / "again")
    assert run("train", again) == DONE
    assert adapter_bytes(again) == adapter_bytes(finished)
    assert metrics_of(again) == metrics_of(finished)


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_resume_ends_the_same_with_the_reference_that_was_kept(
    is_lost: bool, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_dir = pair_job(tmp_path / "job")
    stop_at(monkeypatch, 4, lambda job: write_control(job.dir, "pause"))
    assert run("train", job_dir) == DONE
    monkeypatch.undo()
    kept = job_dir / "reference-train.safetensors"
    if is_lost:
        # One value changed: the hash says so, and the start is asked again.
        kept.write_bytes(kept.read_bytes()[:-1] + b"\x00")
    else:
        monkeypatch.setattr(preference, "sums", None)
    assert run("train", relaunched(job_dir)) == DONE
    assert adapter_bytes(job_dir) == adapter_bytes(finished)
    assert metrics_of(job_dir) == metrics_of(finished)
    told = [event.key for event in events_of(job_dir)]
    assert told.count("reference:train") == 1 + is_lost


def test_a_pause_while_the_reference_is_asked(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preference, "BLOCK_ROWS", 4)
    job_dir = pair_job(tmp_path / "job")
    original, calls = preference.sums, []

    def counted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            write_control(job_dir, "pause")
        return original(*args)

    monkeypatch.setattr(preference, "sums", counted)
    assert run("train", job_dir) == DONE
    assert (result_of(job_dir).status, result_of(job_dir).step, len(calls)) == ("paused", 0, 2)
    assert run("train", relaunched(job_dir)) == DONE
    # Two of three blocks of the training file were kept, and the validation file is one.
    assert len(calls) == 4
    assert metrics_of(job_dir)[f"step:{STEPS}"] == pytest.approx(
        metrics_of(finished)[f"step:{STEPS}"], abs=1e-3
    )


def test_the_reference_is_the_adapter_that_is_continued(finished: Path, tmp_path: Path) -> None:
    """Not the base: otherwise the first margins would be those that were learned before."""
    start = finished / result_of(finished).checkpoints[-1].path
    job_dir = pair_job(
        tmp_path / "job",
        start_adapter=start,
        hyperparameters={"n_epochs": 1, "batch_size": 3, "beta": 0.5},
    )
    assert run("train", job_dir) == DONE
    first = metrics_of(job_dir)["step:1"]
    assert first["train_reward_margin"] == pytest.approx(0, abs=1e-3)
    assert first["train_loss"] == pytest.approx(0.6931, abs=1e-3)
    # And it is kept under the name of that adapter: another start asks again.
    other = copy_job(job_dir, tmp_path / "other")
    assert run("train", relaunched(other, start_adapter=None)) == DONE
    assert [event.key for event in events_of(other)].count("reference:train") == 2


def test_a_chat_file_is_refused_by_line(tmp_path: Path) -> None:
    job_dir = pair_job(tmp_path / "job")
    spec = read_spec(job_dir)
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    spec.training_file.path.write_text((row + "\n") * 10)
    assert run("validate", job_dir) == DONE
    found = read_record(Validation, job_dir / VALIDATION_FILE)
    assert found is not None and found.error is not None
    assert found.error.code == "invalid_training_file"
    assert "not using 'supervised'" in found.error.message


def test_the_validate_phase_decides_beta(tmp_path: Path) -> None:
    job_dir = pair_job(tmp_path / "job", hyperparameters={})
    assert run("validate", job_dir) == DONE
    found = read_record(Validation, job_dir / VALIDATION_FILE)
    assert found is not None and found.ok
    assert found.hyperparameters["beta"] == 0.1
    assert (found.num_examples, found.num_valid_examples) == (10, 4)
    assert found.total_steps == 13  # 10 epochs of 10 pairs, eight at a time


def test_a_reference_that_is_not_the_start_fails_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the base stands in for the adapter that is continued."""
    original = preference.sums

    def of_something_else(*args: Any) -> Any:
        found = original(*args)
        return replace(found, loss={each: loss * 1.01 for each, loss in found.loss.items()})

    monkeypatch.setattr(preference, "sums", of_something_else)
    job_dir = pair_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert error.code == "reference_differs"
    assert "please report it" in error.message


def test_dropout_moves_the_first_margins_and_that_is_no_fault(tmp_path: Path) -> None:
    hyper = HYPER | {"lora_dropout": 0.5, "n_epochs": 1}
    start = pair_job(tmp_path / "start", hyperparameters=HYPER)
    assert run("train", start) == DONE
    adapter = start / result_of(start).checkpoints[-1].path
    job_dir = pair_job(tmp_path / "job", hyperparameters=hyper, start_adapter=adapter)
    assert run("train", job_dir) == DONE
    assert result_of(job_dir).status == "succeeded"
    assert abs(metrics_of(job_dir)["step:1"]["train_reward_chosen"]) > 1e-3


def make_equal(job_dir: Path, numbers: list[int]) -> None:
    """Both answers of these pairs become the preferred one."""
    path = read_spec(job_dir).training_file.path
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number in numbers:
        rows[number]["non_preferred_output"] = rows[number]["preferred_output"]
    write_rows(path, rows)


def test_a_first_step_of_equal_answers_is_no_fault(tmp_path: Path) -> None:
    """Such a pair has no gradient; the adapter's is looked at where the first other one is."""
    job_dir = pair_job(tmp_path / "job", hyperparameters=HYPER | {"n_epochs": 1, "batch_size": 1})
    make_equal(job_dir, [row for step in (1, 2) for row in Order(7, 10, 1, 1).rows(step)])
    assert run("train", job_dir) == DONE
    assert result_of(job_dir).status == "succeeded", result_of(job_dir).error
    assert metrics_of(job_dir)["step:1"]["train_loss"] == pytest.approx(0.6931, abs=1e-3)


def test_pairs_that_prefer_nothing_are_refused(tmp_path: Path) -> None:
    job_dir = pair_job(tmp_path / "job")
    make_equal(job_dir, list(range(10)))
    assert run("train", job_dir) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert (error.code, error.param) == ("no_preference", "training_file")
    assert "tunesmith data fix" in error.message
