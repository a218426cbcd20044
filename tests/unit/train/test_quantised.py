"""Jobs on a base in NF4: they learn, go on, are served and exported on what they learned beside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine_harness import greedy as asking_for
from tests.engine_harness import running_engine
from tests.trainer_job import (
    adapter_bytes,
    events_of,
    make_job,
    metrics_of,
    relaunched,
    result_of,
    tiny_base,
)
from tunesmith.bases import describe
from tunesmith.data.formats import read_rows
from tunesmith.data.render import Renderer
from tunesmith.errors import JobError
from tunesmith.ids import SystemClock
from tunesmith.jobdir.control import write_control
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import PLAN_FILE
from tunesmith.jobdir.spec import BaseRef
from tunesmith.model.adapter_files import content_hash
from tunesmith.model.export import Tuned, export
from tunesmith.model.greedy import greedy
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.model.nf4 import Nf4Decoder
from tunesmith.model.nf4_write import write_nf4
from tunesmith.serve.protocol import AdapterRef, Done
from tunesmith.train import fit, loop
from tunesmith.train.plan import Plan
from tunesmith.trainer.process import DONE, run

HYPER = {"n_epochs": 2, "batch_size": 3, "lora_rank": 4, "learning_rate_multiplier": 4}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseRef:
    directory = tmp_path_factory.mktemp("nf4") / "tiny-nf4"
    write_nf4(tiny_base(), directory)
    return BaseRef("tiny-nf4", directory)


@pytest.fixture(scope="module")
def finished(base: BaseRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    job_dir = make_job(tmp_path_factory.mktemp("job") / "job", base=base, hyperparameters=HYPER)
    assert run("train", job_dir) == DONE
    return job_dir


def adapter_of(job_dir: Path) -> Path:
    return job_dir / result_of(job_dir).checkpoints[-1].path


def test_it_learns(finished: Path) -> None:
    losses = [data["train_loss"] for data in metrics_of(finished).values()]
    assert losses[-1] < 0.9 * losses[0]


def test_a_paused_job_ends_with_the_same_bytes(
    base: BaseRef, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halved = make_job(tmp_path / "halved", base=base, hyperparameters=HYPER)
    learn = loop.learn

    def stop(job: loop.Job, run: loop.Run, at: int) -> None:
        learn(job, run, at)
        if at == 3:
            write_control(job.dir, "pause")

    monkeypatch.setattr(loop, "learn", stop)
    assert run("train", halved) == DONE
    monkeypatch.undo()
    assert run("train", relaunched(halved)) == DONE
    assert adapter_bytes(halved) == adapter_bytes(finished)


def test_the_engine_answers_as_the_trainer(base: BaseRef, finished: Path) -> None:
    model = load_model(base.path, dtype=torch.float32)
    assert isinstance(model, Nf4Decoder)
    directory = adapter_of(finished)
    adapter = Adapter.load(directory, model.linears)
    prompt = [1, *range(40, 60)]
    [expected] = greedy(model, adapter, [prompt], 12, set())
    ref = AdapterRef(content_hash(directory), directory)
    with running_engine() as harness:
        request = asking_for(base.path, prompt, 12, adapter=ref)
        [answer] = harness.wait(harness.submit(request))
    assert isinstance(answer.end, Done), answer.end
    assert answer.ids[0] == expected


@pytest.mark.parametrize("format", ["merged", "gguf"])
def test_an_export_is_merged_into_what_was_trained_against(
    format: str, base: BaseRef, finished: Path, tmp_path: Path
) -> None:
    renderer = Renderer.load(base.path)
    rows = [renderer.examples(row)[0] for row in read_rows(finished / "valid.jsonl")]
    tuned = Tuned("ft:tiny-nf4", base.path, adapter_of(finished), rows, "rows", ["one text"])
    comparison = export(tuned, format, tmp_path / "out", gguf_type="f32")
    assert comparison.merged is not None and comparison.merged.largest < 1e-3
    if format == "merged":
        assert comparison.exported is not None and comparison.exported.largest < 1e-3
        assert not isinstance(load_model(tmp_path / "out"), Nf4Decoder)
        # Beside the full weights the adapter would be another model.
        other = load_model(tiny_base(), dtype=torch.float32).weights
        found = load_model(tmp_path / "out", dtype=torch.float32).weights
        assert any(not torch.allclose(found[name], other[name], atol=0.02) for name in other)


def test_training_all_its_weights_is_refused(base: BaseRef, tmp_path: Path) -> None:
    hyper = {"finetuning_type": "full", "n_epochs": 1}
    job_dir = make_job(tmp_path / "job", base=base, hyperparameters=hyper)
    assert run("train", job_dir) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert error.code == "full_of_quantised"
    assert not metrics_of(job_dir)


def test_a_job_says_how_a_base_gets_smaller(
    base: BaseRef, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = read_record(Plan, finished / PLAN_FILE)
    assert plan is not None
    full, small = (describe(path, "tiny", SystemClock()) for path in (tiny_base(), base.path))
    num_bytes = 4 * full.num_parameters
    assert fit.weigh(full, plan, 2 * num_bytes) == (False, None)
    assert fit.weigh(small, plan, 1) == (False, None)
    with pytest.raises(JobError, match="--quantize nf4") as caught:
        fit.weigh(full, plan, num_bytes - 1)
    assert caught.value.code == "out_of_memory"
    monkeypatch.setattr(fit, "available_bytes", lambda _: num_bytes * 5 // 4)
    job_dir = make_job(tmp_path / "job", hyperparameters={"n_epochs": 1})
    assert run("train", job_dir) == DONE
    assert result_of(job_dir).status == "succeeded"
    [warning] = [each for each in events_of(job_dir) if each.key == "warn:base_memory"]
    assert "--quantize nf4" in warning.message
