"""Checkpoints: whole or not there, verified to the byte, pruned to what is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.jobdir.checkpoints import (
    OPTIMIZER_FILE,
    CheckpointError,
    Checkpoints,
    Standing,
    verify,
)
from tunesmith.model.adapter_files import LoraSpec
from tunesmith.model.lora import Adapter
from tunesmith.train.optimizer import AdamW

JOB = "ftjob-1"


@pytest.fixture
def adapter() -> Adapter:
    adapter = Adapter.create({"model.layers.0.mlp.up_proj": (6, 8)}, LoraSpec(2, 4.0), 0)
    for matrix in adapter.b.values():
        matrix.fill_(0.5)
    return adapter


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, JOB, fence=3)


def put(checkpoints: Checkpoints, adapter: Adapter, step: int, epoch: int | None = None) -> Path:
    optimizer = AdamW(adapter.parameters())
    standing = Standing(step, epoch, servable=epoch is not None, metrics={"train_loss": 0.5})

    def write(directory: Path) -> None:
        adapter.save(directory, "tiny")
        save_file(optimizer.state(), directory / OPTIMIZER_FILE)

    return checkpoints.save(standing, write).path


def steps(checkpoints: Checkpoints) -> list[int]:
    good, bad = checkpoints.verified()
    assert not bad
    return [checkpoint.standing.step for checkpoint in good]


def test_what_is_saved_is_found_again(
    tmp_path: Path, checkpoints: Checkpoints, adapter: Adapter
) -> None:
    put(checkpoints, adapter, 12, epoch=1)
    ((found,), bad) = checkpoints.verified()
    assert not bad
    assert found.standing == Standing(12, 1, True, {"train_loss": 0.5})
    assert set(load_file(found.path / OPTIMIZER_FILE)) == {"mean", "square", "num_updates"}
    entry = found.entry(tmp_path)
    assert entry.path == Path("checkpoints/step-00000012")
    assert entry.metrics == {"train_loss": 0.5}
    loaded = Adapter.load(found.path, {"model.layers.0.mlp.up_proj": (6, 8)})
    for one, other in zip(loaded.parameters(), adapter.parameters(), strict=True):
        assert torch.equal(one, other)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit flipped in the adapter": lambda path: flip(path / "adapter_model.safetensors"),
    "a bit flipped in the moments": lambda path: flip(path / "optimizer.safetensors"),
    "a bit flipped in the manifest": lambda path: flip(path / "MANIFEST.json"),
    "a truncated file": lambda path: (path / "optimizer.safetensors").write_bytes(b"short"),
    "a missing file": lambda path: (path / "adapter_config.json").unlink(),
    "no manifest": lambda path: (path / "MANIFEST.json").unlink(),
    "no state": lambda path: (path / "state.json").unlink(),
    "an empty manifest": lambda path: (path / "MANIFEST.json").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_never_believed(
    checkpoints: Checkpoints, adapter: Adapter, damage: str
) -> None:
    put(checkpoints, adapter, 1)
    newest = put(checkpoints, adapter, 2)
    DAMAGES[damage](newest)
    good, bad = checkpoints.verified()
    assert [checkpoint.standing.step for checkpoint in good] == [1]
    ((path, problem),) = bad
    assert path == newest
    assert problem


def test_that_of_another_job_is_refused(checkpoints: Checkpoints, adapter: Adapter) -> None:
    path = put(checkpoints, adapter, 1)
    with pytest.raises(CheckpointError, match="belongs to job"):
        verify(path, "ftjob-2")


def test_an_unfinished_one_is_invisible_and_swept(
    checkpoints: Checkpoints, adapter: Adapter
) -> None:
    path = put(checkpoints, adapter, 1)
    path.rename(checkpoints.directory / ".tmp-2")
    (checkpoints.directory / ".old-step-00000000").mkdir()
    assert steps(checkpoints) == []
    checkpoints.sweep()
    assert list(checkpoints.directory.iterdir()) == []


def test_saving_a_step_again_replaces_it(checkpoints: Checkpoints, adapter: Adapter) -> None:
    put(checkpoints, adapter, 1)
    put(checkpoints, adapter, 1, epoch=1)
    ((found,), _) = checkpoints.verified()
    assert found.standing.servable


def test_pruning_keeps_the_last_epochs_and_the_newest(
    checkpoints: Checkpoints, adapter: Adapter
) -> None:
    for step in range(1, 12):
        put(checkpoints, adapter, step, epoch=step // 2 if step % 2 == 0 else None)
    checkpoints.prune(3)
    assert steps(checkpoints) == [6, 8, 10, 11]
    checkpoints.prune(1)
    assert steps(checkpoints) == [10, 11]
