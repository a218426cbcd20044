"""A family without a decoder of ours trains through transformers, says so, and resumes exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.tiny_base import TINY
from tests.tiny_transformers import build
from tests.trainer_job import (
    adapter_bytes,
    events_of,
    make_job,
    relaunched,
    result_of,
    tiny_base,
)
from tunesmith.jobdir.control import write_control
from tunesmith.jobdir.spec import BaseRef
from tunesmith.train import loop
from tunesmith.trainer.process import DONE, run

HYPER = {"n_epochs": 2, "batch_size": 3, "lora_rank": 4}


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2, which keeps its weights transposed, with the tiny base's tokenizer and template."""
    directory = tmp_path_factory.mktemp("gpt2") / "base"
    build(
        "gpt2", vocab_size=TINY.vocab_size, n_positions=512, max_position_embeddings=512
    ).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_base() / name, directory / name)
    generation = json.loads((tiny_base() / "generation_config.json").read_text())
    (directory / "generation_config.json").write_text(json.dumps(generation))
    return directory


def test_it_learns_and_resumes_bit_for_bit(
    gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = BaseRef("gpt2", gpt2)
    whole = make_job(tmp_path / "whole", base=base, hyperparameters=HYPER)
    assert run("train", whole) == DONE
    result = result_of(whole)
    assert result.status == "succeeded", result.error
    events = {event.key: event for event in events_of(whole)}
    assert "transformers" in events["warn:slow"].message
    assert events["step:7"].data["train_loss"] < events["step:1"].data["train_loss"]
    config = json.loads((whole / result.checkpoints[-1].path / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] is True

    halved = make_job(tmp_path / "halved", base=base, hyperparameters=HYPER)
    learn = loop.learn

    def pause_after_three(job: loop.Job, run: loop.Run, step: int) -> None:
        learn(job, run, step)
        if step == 3:
            write_control(job.dir, "pause")

    monkeypatch.setattr(loop, "learn", pause_after_three)
    assert run("train", halved) == DONE
    assert result_of(halved).status == "paused"
    monkeypatch.undo()
    assert run("train", relaunched(halved)) == DONE
    assert adapter_bytes(halved) == adapter_bytes(whole)
