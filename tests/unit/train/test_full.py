"""Full fine-tuning: exact gradients of every weight, bitwise resume, whole models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.tiny_transformers import build
from tests.trainer_job import events_of, make_job, metrics_of, relaunched, result_of, tiny_base
from tunesmith.bases import describe
from tunesmith.data.render import Example
from tunesmith.errors import JobError
from tunesmith.ids import SystemClock
from tunesmith.jobdir import checkpoints
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import CHECKPOINTS_DIR, PLAN_FILE
from tunesmith.jobdir.spec import BaseRef
from tunesmith.model.decoder import Decoder
from tunesmith.model.load import load_model
from tunesmith.model.shapes import EMBEDDING, HEAD
from tunesmith.train import fit, full, loop, loss
from tunesmith.train.batches import Corpus
from tunesmith.train.full import FullWeights
from tunesmith.train.objective import Preference, Supervised
from tunesmith.train.plan import Plan
from tunesmith.train.step import Forward, accumulate
from tunesmith.trainer.process import DONE, run

HYPER = {"n_epochs": 4, "batch_size": 3, "finetuning_type": "full"}
ROWS = [
    ([5, 9, 11, 2, 7, 3], [0, 0, 1, 1, 0, 1]),
    ([5, 4, 6, 8], [0, 0, 1, 1]),
    ([5, 9, 20, 21, 22, 23, 3], [0, 0, 0, 1, 1, 1, 1]),
    ([5, 31, 3], [0, 1, 1]),
]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few positions at a time, so that the head's gradient is formed in several parts."""
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", {"cpu": 200, "cuda": 200})


def corpus() -> Corpus:
    return Corpus(
        Example(ids, [float(weight) for weight in weights], number)
        for number, (ids, weights) in enumerate(ROWS, 1)
    )


def start(kind: str, dtype: torch.dtype = torch.float64) -> Decoder:
    """A random model of transformers as our decoder."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        build(kind).save_pretrained(directory)
        model = load_model(Path(directory), dtype=dtype)
        assert isinstance(model, Decoder)
        return Decoder(model.config, {name: x.clone() for name, x in model.weights.items()})


def expected_gradients(model: Decoder, coefficients: Any) -> dict[str, torch.Tensor]:
    """By plain autograd over full logits, one row after the other."""
    weights = {name: x.detach().clone().requires_grad_() for name, x in model.weights.items()}
    plain = Decoder(model.config, weights)
    rows = corpus()
    losses = []
    for sequence in range(rows.num_sequences):
        ids, weighs = rows.tokens(sequence)
        logits_TV = plain.logits(plain.hidden(ids[None, :-1].long()))[0]
        nll_T = F.cross_entropy(logits_TV, ids[1:].long(), reduction="none")
        losses.append((weighs[1:] * nll_T).sum())
    coefficients(losses).backward()
    return {name: x.grad for name, x in weights.items() if x.grad is not None}


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "qwen2", "qwen3"])
@pytest.mark.parametrize("max_tokens", [4, 100])
def test_gradients_equal_plain_autograd(kind: str, max_tokens: int, small_chunks: None) -> None:
    model = start(kind)
    rows = corpus()

    def mean(losses: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(losses).sum() / rows.total_weight(range(4))

    expected = expected_gradients(model, mean)
    weights = FullWeights(model, torch.float64)
    forward = Forward(weights.model, "split", weights.head_gradient)
    means = accumulate(forward, weights, weights.optimizer, Supervised(rows), range(4), max_tokens)
    clip = min(1.0, 1.0 / (means.gradient_norm + 1e-6))
    assert set(expected) == set(weights.masters)
    for name, master in weights.masters.items():
        assert master.grad is not None
        torch.testing.assert_close(
            master.grad, expected[name] * clip, rtol=1e-9, atol=1e-13, msg=name
        )


def test_gradients_of_preferences_equal_plain_autograd(small_chunks: None) -> None:
    model = start("llama-tied")
    rows = Corpus(
        Example(ids, [float(weight) for weight in weights], number // 2)
        for number, (ids, weights) in enumerate(ROWS)
    )
    reference = torch.tensor([-3.0, -2.0, -9.0, -4.0], dtype=torch.float64)

    def preference(losses: list[torch.Tensor]) -> torch.Tensor:
        gains = [-loss - ref for loss, ref in zip(losses, reference, strict=True)]
        margins = [0.3 * (gains[0] - gains[1]), 0.3 * (gains[2] - gains[3])]
        return -torch.stack([F.logsigmoid(margin) for margin in margins]).mean()

    expected = expected_gradients(model, preference)
    weights = FullWeights(model, torch.float64)
    forward = Forward(weights.model, "split", weights.head_gradient)
    objective = Preference(rows, reference, 0.3)
    means = accumulate(forward, weights, weights.optimizer, objective, range(2), 100)
    clip = min(1.0, 1.0 / (means.gradient_norm + 1e-6))
    for name, master in weights.masters.items():
        assert master.grad is not None
        torch.testing.assert_close(master.grad, expected[name] * clip, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", ["llama", "llama-tied"])
def test_bf16_adds_gradients_up_in_fp32_and_follows_every_update(kind: str) -> None:
    model = start(kind, torch.float32)
    weights = FullWeights(model, torch.bfloat16)
    assert weights.model.dtype == torch.bfloat16
    forward = Forward(weights.model, "split", weights.head_gradient)
    accumulate(forward, weights, weights.optimizer, Supervised(corpus()), range(4), 4)
    before = {name: weight.clone() for name, weight in weights.model.weights.items()}
    for name, master in weights.masters.items():
        assert master.dtype == torch.float32
        assert master.grad is not None and master.grad.any(), name
        assert weights.model.weights[name].grad is None
    weights.optimizer.update(0.1)
    for name, master in weights.masters.items():
        assert torch.equal(weights.model.weights[name], master.to(torch.bfloat16))
        assert not torch.equal(weights.model.weights[name], before[name]), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job_dir = make_job(tmp_path_factory.mktemp("full") / "job", hyperparameters=HYPER)
    assert run("train", job_dir) == DONE
    return job_dir


def model_bytes(job_dir: Path) -> dict[str, bytes]:
    """Every file of the final model."""
    directory = job_dir / result_of(job_dir).checkpoints[-1].path
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_job_ends_with_whole_models(finished: Path) -> None:
    result = result_of(finished)
    assert result.status == "succeeded"
    assert [entry.form for entry in result.checkpoints] == ["model"] * 3
    base = load_model(tiny_base())
    for entry in result.checkpoints:
        model = load_model(finished / entry.path)
        assert set(model.weights) == set(base.weights)
        assert all(not torch.equal(model.weights[name], x) for name, x in base.weights.items())
    metrics = metrics_of(finished)
    assert metrics["step:14"]["train_loss"] < 0.8 * metrics["step:1"]["train_loss"]
    (plan,) = [event.message for event in events_of(finished) if event.key == "plan"]
    assert "weights (the whole model)" in plan


def test_only_the_newest_checkpoint_can_be_resumed_from(finished: Path) -> None:
    directories = sorted((finished / CHECKPOINTS_DIR).iterdir())
    kept = [(path / checkpoints.OPTIMIZER_FILE).exists() for path in directories]
    assert kept == [False, False, True]
    found = [checkpoints.verify(path, "ftjob-test") for path in directories]
    assert [each.resumable for each in found] == kept


def test_the_same_job_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    again = make_job(tmp_path / "again", hyperparameters=HYPER)
    assert run("train", again) == DONE
    assert model_bytes(again) == model_bytes(finished)
    assert metrics_of(again) == metrics_of(finished)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_a_resume_is_bit_for_bit(stored: str, tmp_path: Path, monkeypatch: Any) -> None:
    base = tiny_base() if stored == "float32" else narrow_base(tmp_path / "base")
    spec = {"hyperparameters": HYPER, "base": BaseRef("tiny", base)}
    whole = make_job(tmp_path / "whole", **spec)
    assert run("train", whole) == DONE
    broken = make_job(tmp_path / "broken", save_every_s=1e-9, **spec)
    kill_in(monkeypatch, step=6)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    with pytest.raises(Killed):
        run("train", broken)
    monkeypatch.undo()
    assert run("train", relaunched(broken)) == DONE
    assert any(event.key.startswith("resume:") for event in events_of(broken))
    assert model_bytes(broken) == model_bytes(whole)
    assert metrics_of(broken) == metrics_of(whole)


class Killed(Exception):
    pass


def kill_in(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ends the trainer in the middle of writing the model of that step."""
    original = full.FullWeights.save
    saves = iter(range(1, 100))

    def save(self: FullWeights, directory: Path, *rest: Any) -> None:
        original(self, directory, *rest)
        if next(saves) == step:
            (directory / "model" / "model.safetensors").write_bytes(b"half")
            raise Killed

    monkeypatch.setattr(full.FullWeights, "save", save)


def narrow_base(directory: Path) -> Path:
    """The tiny base as most bases are kept."""
    from safetensors.torch import save_file

    from tests.tiny_base import write_tiny_base

    write_tiny_base(directory)
    path = directory / "model.safetensors"
    weights = {name: x.to(torch.bfloat16) for name, x in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    return directory


def test_full_goes_on_from_an_adapter(tmp_path: Path) -> None:
    """Its update is in the weights that the job starts from."""
    adapted = make_job(tmp_path / "adapted")
    assert run("train", adapted) == DONE
    start_adapter = adapted / result_of(adapted).checkpoints[-1].path
    job = make_job(tmp_path / "job", hyperparameters=HYPER, start_adapter=start_adapter)
    assert run("train", job) == DONE
    first, last = metrics_of(job)["step:1"], metrics_of(adapted)["step:14"]
    assert first["train_loss"] < 1.5 * last["train_loss"] + 0.1
    start = full.fresh(tiny_base(), torch.float32, "cpu", start_adapter)
    assert not torch.equal(
        start.weights["model.layers.0.mlp.up_proj.weight"],
        load_model(tiny_base()).weights["model.layers.0.mlp.up_proj.weight"],
    )


def test_an_adapter_goes_on_from_a_whole_model(finished: Path, tmp_path: Path) -> None:
    base = finished / result_of(finished).checkpoints[-1].path
    job = make_job(tmp_path / "job", base=BaseRef("sha256:abc", base))
    assert run("train", job) == DONE
    assert [entry.form for entry in result_of(job).checkpoints] == ["adapter"] * 3


def test_too_little_disk_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path / "job", hyperparameters=HYPER)
    monkeypatch.setattr(full.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert run("train", job) == DONE
    error = result_of(job).error
    assert error is not None
    assert error.code == "not_enough_disk"
    assert "3 kept" in error.message
    assert not metrics_of(job)


def test_too_little_memory_is_said_before_the_base_is_loaded(finished: Path) -> None:
    plan = read_record(Plan, finished / PLAN_FILE)
    assert plan is not None
    plan = replace(plan, dtype="bfloat16")
    info = describe(tiny_base(), "tiny", SystemClock())
    num_bytes = 18 * info.num_parameters
    assert fit.weigh(info, plan, num_bytes) == (False, None)
    with pytest.raises(JobError, match="Use the finetuning_type 'lora'") as caught:
        fit.weigh(info, plan, num_bytes - 1)
    assert caught.value.code == "out_of_memory"
    beside = replace(plan, finetuning_type="lora", dtype="float32", fixed=True)
    num_bytes = int(2 * info.num_parameters / fit.BASE_SHARE) + 1
    assert fit.weigh(info, beside, num_bytes) == (False, None)
    _, warning = fit.weigh(info, replace(beside, fixed=False), 2 * num_bytes - 9)
    assert warning is not None and "in float32" in warning
    _, warning = fit.weigh(info, beside, num_bytes - 9)
    assert warning is not None and "in 16-bit fixed point" in warning


def test_families_without_a_decoder_are_refused(tmp_path: Path) -> None:
    build("gpt-neox").save_pretrained(tmp_path)
    with pytest.raises(JobError) as caught:
        full.fresh(tmp_path, torch.float32, "cpu", None)
    assert caught.value.code == "full_needs_decoder"


def test_the_head_is_trained_once_where_it_is_tied() -> None:
    tied, apart = (FullWeights(start(kind), torch.float64) for kind in ("llama-tied", "llama"))
    assert tied.head_gradient is tied.masters[EMBEDDING].grad
    assert apart.head_gradient is apart.masters[HEAD].grad
