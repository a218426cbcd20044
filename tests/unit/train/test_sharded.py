"""Layers spread over the processes of a job: the figures and bytes of those that have all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

# Before the processes are forked, so that none imports it by itself.
import torch.distributed.fsdp

from tests.trainer_job import events_of, make_job, metrics_of, relaunched, result_of, tiny_base
from tests.unit.group.test_world import at, final_bytes, trained
from tests.unit.train.test_full import corpus, start
from tunesmith.bases import describe
from tunesmith.errors import JobError
from tunesmith.group.fork import run_forked
from tunesmith.group.place import Place
from tunesmith.group.world import ALONE, World, join
from tunesmith.ids import SystemClock
from tunesmith.jobdir.control import write_control
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import PLAN_FILE
from tunesmith.jobdir.samples import read_samples
from tunesmith.train import answers, fit
from tunesmith.train import plan as planning
from tunesmith.train import step as steps
from tunesmith.train.full import FullWeights
from tunesmith.train.objective import Supervised
from tunesmith.train.plan import Plan
from tunesmith.train.sharded_full import ShardedFullWeights
from tunesmith.train.step import Forward, accumulate
from tunesmith.trainer.process import DONE, run

# Bytes that are free to each of two processes: in fp32 the tiny base takes 427,264, with gradients
# and moments 1,281,792.
FREE, FREE_FULL = 500_000, 1_100_000
LORA = {"n_epochs": 1, "batch_size": 4, "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.1}
FULL = {"n_epochs": 1, "batch_size": 4, "finetuning_type": "full"}
SPECS: dict[str, dict[str, Any]] = {
    "lora": {"hyperparameters": LORA},
    "dora": {"hyperparameters": LORA | {"finetuning_type": "dora"}},
    "dpo": {"hyperparameters": LORA, "method": "dpo"},
}


@pytest.fixture(autouse=True)
def in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short answers, and rows so short that the processes have different numbers of them."""
    monkeypatch.setattr(answers, "FREE_S", 60.0)
    monkeypatch.setattr(answers, "MAX_ANSWER_TOKENS", 2)
    monkeypatch.setattr(answers, "GRACE_TOKENS", 0)
    monkeypatch.setattr(planning, "MAX_MICRO_TOKENS", {"cpu": 128})


def leave(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    """Memory for parts of a model but not for all of it, in each of two processes."""
    monkeypatch.setattr(fit, "available_bytes", lambda device: 2 * free_bytes)
    # The tiny base has two layers: both would be there when one computes and one is fetched.
    monkeypatch.setattr(fit, "NUM_FETCHED", 0)


def plan_of(job_dir: Path) -> Plan:
    plan = read_record(Plan, job_dir / PLAN_FILE)
    assert plan is not None
    return plan


@pytest.mark.parametrize("kind", SPECS)
def test_a_spread_base_gives_the_bytes_of_a_whole_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole", 2, **SPECS[kind])
    leave(monkeypatch, FREE)
    spread = trained(tmp_path / "spread", 2, **SPECS[kind])
    assert (plan_of(whole).sharded, plan_of(spread).sharded) == (False, True)
    assert final_bytes(spread) == final_bytes(whole)
    assert metrics_of(spread) == metrics_of(whole)
    assert read_samples(spread) == read_samples(whole)
    [told] = [event.message for event in events_of(spread) if event.key == "warn:sharded"]
    assert "free to each of 2 processes: its layers are spread over them" in told


def test_all_weights_are_trained_in_parts_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By two processes bit for bit; by one, too, since a checkpoint says nothing of parts."""
    alone = trained(tmp_path / "alone", 1, hyperparameters=FULL)
    leave(monkeypatch, FREE_FULL)
    spread = trained(tmp_path / "spread", 2, hyperparameters=FULL)
    assert plan_of(spread).sharded
    for key, expected in metrics_of(alone).items():
        assert metrics_of(spread)[key] == pytest.approx(expected, abs=1e-6), key
    assert {name: len(each) for name, each in final_bytes(spread).items()} == {
        name: len(each) for name, each in final_bytes(alone).items()
    }
    for processes in (2, 1):
        halved = make_job(tmp_path / f"{processes}", processes=2, hyperparameters=FULL)
        with monkeypatch.context() as patch:
            at(patch, 0, 2, lambda job: write_control(job.dir, "pause"))
            assert run("train", halved) == DONE
        assert result_of(halved).status == "paused"
        leave(monkeypatch, FREE_FULL * 3 // processes)
        assert run("train", relaunched(halved, processes=processes)) == DONE
        assert plan_of(halved).sharded == (processes == 2)
        if processes == 2:
            assert final_bytes(halved) == final_bytes(spread)
        for key, expected in metrics_of(spread).items():
            assert metrics_of(halved)[key] == pytest.approx(expected, abs=1e-6), key


def learned(weights: FullWeights, world: World) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of two steps, and the weights afterwards."""
    forward = Forward(weights.model, "split", weights.head_gradient, world)
    for _ in range(2):
        means = accumulate(forward, weights, weights.optimizer, Supervised(corpus()), range(4), 4)
        weights.optimizer.update(0.01)
    return means.loss, dict(weights.whole())


@pytest.mark.parametrize(
    ("kind", "dtype", "size"), [("qwen2", torch.float32, 3), ("llama-tied", torch.bfloat16, 2)]
)
def test_parts_learn_what_the_whole_learns(kind: str, dtype: torch.dtype, size: int) -> None:
    """Also where the rows of a weight cannot be divided evenly."""
    model = start(kind, torch.float32)

    def work(place: Place) -> int:
        world = join(place)
        spread = ShardedFullWeights(model, dtype, "cpu", world)
        loss, weights = learned(spread, world)
        state = spread.optimizer.state()
        again = ShardedFullWeights(model, dtype, "cpu", world)
        if world.is_first:
            whole = FullWeights(model, dtype)
            expected_loss, expected = learned(whole, ALONE)
            is_wide = dtype == torch.float32
            assert loss == pytest.approx(expected_loss, rel=1e-6 if is_wide else 0.02)
            # A hundredth of an update: Adam makes the rounding of a gradient near zero as large
            # as it makes any gradient.
            limit = 1e-4 if is_wide else 2e-2
            for name, weight in expected.items():
                torch.testing.assert_close(weights[name], weight, rtol=limit, atol=limit)
            torch.testing.assert_close(
                state["mean"], whole.optimizer.state()["mean"], rtol=0.1, atol=limit
            )
        # In a job every process reads them from the disk.
        state = {name: world.same(each.reshape(-1)) for name, each in state.items()}
        again.optimizer.load_state(state | {"num_updates": state["num_updates"][0]})
        for key, each in again.optimizer.state().items():
            assert not world.is_first or torch.equal(each.reshape(-1), state[key])
        world.leave()
        return DONE

    assert run_forked(size, work) == DONE


def test_memory_that_one_lacks_within_a_pass_fails_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = steps._own_batches

    def own_batches(forward: Any, *rest: Any) -> Any:
        if forward.world.rank == 1:
            raise MemoryError
        return original(forward, *rest)

    monkeypatch.setattr(steps, "_own_batches", own_batches)
    leave(monkeypatch, FREE)
    job_dir = make_job(tmp_path / "job", processes=2)
    assert run("train", job_dir) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert error.code == "out_of_memory"
    assert "Use more processes" in error.message


def test_what_fits_stays_whole_and_what_does_not_is_spread_or_refused(tmp_path: Path) -> None:
    job_dir = trained(tmp_path / "job", 1, hyperparameters=LORA)
    base, plan = describe(tiny_base(), "tiny", SystemClock()), plan_of(job_dir)
    num_bytes = 4 * base.num_parameters
    two = replace(plan, processes=2)
    assert fit.weigh(base, two, 2 * num_bytes) == (False, None)
    is_spread, _ = fit.weigh(base, two, num_bytes * 5 // 4)
    # Two layers at once are all that there are.
    assert not is_spread
    eight = replace(plan, processes=8)
    needed = fit.spread_bytes(fit.Sizes(1000, 8000, 100), torch.bfloat16, False, 8)
    assert needed == 2 * (1000 + 8000 / 8 + 2 * 100)
    full = fit.spread_bytes(fit.Sizes(1000, 8000, 100), torch.bfloat16, True, 8)
    assert full == 1000 * (8 + 1 + 2) + 8000 * 16 / 8 + 2 * 100 * 4
    for each in (two, eight):
        with pytest.raises(JobError, match="--quantize nf4") as caught:
            fit.weigh(base, each, num_bytes // 4)
        assert caught.value.code == "out_of_memory"
