"""A job in fixed point learns what one in fp32 does, and is as exact in repeating itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer_job import (
    copy_job,
    events_of,
    make_job,
    relaunched,
    result_of,
    tiny_base,
)
from tests.unit.train.test_forward import gradient
from tests.unit.train.test_loop import adapter_bytes, metrics_of, stop_at
from tunesmith.bases import embedded_directory
from tunesmith.jobdir.control import write_control
from tunesmith.jobdir.layout import PLAN_FILE
from tunesmith.jobdir.spec import BaseRef
from tunesmith.model import fixed, learning, precision
from tunesmith.model.adapter_files import LoraSpec
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.model.nf4_write import write_nf4
from tunesmith.train.forecast import kept_bytes
from tunesmith.train.step import Forward
from tunesmith.trainer.process import DONE, run

pytestmark = pytest.mark.skipif(
    fixed.library() is None, reason="this processor does not multiply integers of 16 bits in pairs"
)
BASE = BaseRef("tunesmith-nano", embedded_directory())
HYPER: dict[str, Any] = {"n_epochs": 2, "batch_size": 3, "lora_rank": 4}


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded base's would be left in fp32, and a processor with bf16 would take that."""
    monkeypatch.setattr(precision, "NARROW_PRODUCT", 0)
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: False)


def plan_of(job_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job_dir / PLAN_FILE).read_bytes())
    return found


def test_it_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [
        make_job(tmp_path / name, base=BASE, hyperparameters=HYPER)
        for name in ("one", "two", "wide")
    ]
    for job_dir in jobs[:2]:
        assert run("train", job_dir) == DONE
        assert plan_of(job_dir)["fixed"]
        (told,) = (event.message for event in events_of(job_dir) if event.key == "plan")
        assert "in float32, frozen weights in 16-bit fixed point on CPU" in told
    assert adapter_bytes(jobs[0]) == adapter_bytes(jobs[1])
    monkeypatch.setattr(fixed, "library", lambda: None)
    assert run("train", jobs[2]) == DONE
    assert not plan_of(jobs[2])["fixed"]
    for key, data in metrics_of(jobs[2]).items():
        found = metrics_of(jobs[0])[key]
        assert found == pytest.approx(data, abs=1e-3), key
    assert adapter_bytes(jobs[0]) != adapter_bytes(jobs[2])


@pytest.mark.parametrize(("method", "num"), [("supervised", 1), ("dpo", 1), ("supervised", 2)])
def test_it_resumes_bit_for_bit(
    method: str, num: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"base": BASE, "hyperparameters": HYPER, "method": method}
    whole, halved = (
        make_job(tmp_path / name, processes=num, threads=num, **fields)
        for name in ("whole", "halved")
    )
    assert run("train", whole) == DONE
    assert plan_of(whole)["fixed"]
    stop_at(monkeypatch, 5, lambda job: write_control(job.dir, "pause"))
    assert run("train", halved) == DONE
    assert result_of(halved).status == "paused"
    monkeypatch.undo()
    assert run("train", relaunched(halved)) == DONE
    assert plan_of(halved)["fixed"]
    assert adapter_bytes(halved) == adapter_bytes(whole)


def test_several_processes_learn_the_same(tmp_path: Path) -> None:
    """Up to what another order of sums makes of it, which rounding to integers lets grow."""
    fields: dict[str, Any] = {"base": BASE, "hyperparameters": HYPER}
    alone, together = (
        make_job(tmp_path / str(num), processes=num, threads=num, **fields) for num in (1, 2)
    )
    for job_dir in (alone, together):
        assert run("train", job_dir) == DONE
        assert plan_of(job_dir)["fixed"]
    first, *others = metrics_of(alone)
    assert metrics_of(together)[first] == pytest.approx(metrics_of(alone)[first], abs=1e-6)
    for key in others:
        assert metrics_of(together)[key] == pytest.approx(metrics_of(alone)[key], abs=1e-3)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("way", [{"recompute": True}, {"offload": True}])
def test_less_memory_changes_no_bit(way: dict[str, bool], dropout: float) -> None:
    plain = Forward(load_model(tiny_base(), fixed=True), "split")
    assert torch.equal(gradient(replace(plain, **way), dropout), gradient(plain, dropout))


def test_beginnings_computed_once_give_the_gradient_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward = Forward(load_model(tiny_base(), fixed=True), "split")
    rows = [[7] * 30 + list(range(n, n + 9)) for n in range(3)]
    shared = gradient(forward, 0.0, rows=rows)
    monkeypatch.setattr(Forward, "shares", False)
    apart = gradient(forward, 0.0, rows=rows)
    assert (shared - apart).norm() <= 3e-3 * apart.norm()


def test_what_a_token_keeps_is_counted_without_the_weights() -> None:
    """As for a base in fp32: weights in fixed point are no part of it."""
    base, spec = tiny_base(), LoraSpec(4, 8.0)
    found = []
    for is_fixed in (True, False):
        model = load_model(base, dtype=torch.float32, fixed=is_fixed)
        adapter = Adapter.create(model.linears, spec, 0).train()
        found.append(kept_bytes(Forward(model, "split"), adapter))
    assert found[0] == found[1]


def test_a_processor_without_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_dir = make_job(tmp_path / "job", base=BASE, hyperparameters=HYPER)
    stop_at(monkeypatch, 5, lambda job: write_control(job.dir, "pause"))
    assert run("train", job_dir) == DONE
    monkeypatch.undo()
    no_compiler = copy_job(job_dir, tmp_path / "no_compiler")
    monkeypatch.setattr(fixed, "library", lambda: None)
    assert run("train", relaunched(job_dir)) == DONE
    monkeypatch.setattr(learning, "_is_wanted", True)
    monkeypatch.setattr(learning, "library", lambda: None)
    assert run("train", relaunched(no_compiler)) == DONE
    for directory, key in ((job_dir, "warn:fixed:2"), (no_compiler, "warn:compiler:2")):
        assert result_of(directory).status == "succeeded"
        found = [event.key for event in events_of(directory) if event.key.startswith("warn:")]
        assert found == [key]
        assert not plan_of(directory)["fixed"]


@pytest.mark.parametrize("kind", ["full", "dora", "nf4"])
def test_weights_that_change_or_are_looked_at_stay_as_they_are(kind: str, tmp_path: Path) -> None:
    base, hyper = BaseRef("tiny", tiny_base()), dict(HYPER)
    if kind == "nf4":
        write_nf4(tiny_base(), tmp_path / "tiny-nf4")
        base = BaseRef("tiny-nf4", tmp_path / "tiny-nf4")
    else:
        hyper["finetuning_type"] = kind
    job_dir = make_job(tmp_path / "job", base=base, hyperparameters=hyper)
    assert run("train", job_dir) == DONE
    assert result_of(job_dir).status == "succeeded"
    assert not plan_of(job_dir)["fixed"]
