"""`tunesmith export` on a data directory with a job that has ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tiny_base import write_tiny_base
from tests.trainer_job import rows, write_rows
from tests.unit.cli.conftest import Run, problem
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.bases import describe
from tunesmith.ids import SystemClock
from tunesmith.model.adapter_files import LoraSpec
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.db import open_database
from tunesmith.store.repo import bases, files, jobs, models
from tunesmith.store.repo.files import FileRow
from tunesmith.store.repo.jobs import JobRow
from tunesmith.store.repo.models import ModelRow

JOB = "ftjob-000000000000000000000001"
TRAIN, VALID = "file-000000000000000000000001", "file-000000000000000000000002"
ADAPTED, WHOLE = "ft:tiny:personal::adapted1", "ft:tiny:personal::whole001"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One base, a job with both files, a model of each form."""
    directory = tmp_path_factory.mktemp("export") / "data"
    base = describe(write_tiny_base(directory.parent / "tiny"), "tiny", SystemClock())
    db = open_database(directory)
    blobs = LocalBlobs(directory / "blobs")
    adapter = directory / "adapters" / "new"
    adapter.mkdir(parents=True)
    model = load_model(base.path)
    update = Adapter.create(model.linears, LoraSpec(2, 4.0), 0)
    for matrix in update.b.values():
        matrix.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    sha256 = update.save(adapter, "tiny")
    adapter.rename(adapter.with_name(sha256))
    with db.write() as conn:
        bases.insert(conn, base)
        for file_id, num_rows in ((TRAIN, 30), (VALID, 20)):
            content = write_rows(directory / "rows.jsonl", rows(num_rows)).read_bytes()
            writer = blobs.writer(file_id)
            writer.write(content)
            num_bytes, digest = writer.finish()
            files.insert(
                conn,
                FileRow(file_id, DEFAULT_PROJECT, "a.jsonl", num_bytes, "fine-tune", digest, 1),
            )
        jobs.insert(conn, JobRow(
            JOB, DEFAULT_PROJECT, 1, "succeeded", "o", "tiny", "tiny", "tiny", TRAIN, 1, {}, {},
            finished_at=2, validation_file=VALID, trained_tokens=3,
            fine_tuned_model=ADAPTED, fence=2,
        ))  # fmt: skip
        for name, weights in ((ADAPTED, sha256), (WHOLE, None)):
            models.insert(
                conn, ModelRow(name, DEFAULT_PROJECT, "tuned", "tiny", "tiny", weights, JOB, 2, "o")
            )
    db.close()
    return directory


@pytest.mark.parametrize("name", [ADAPTED, WHOLE])
def test_a_merged_model_with_its_comparison(
    name: str, run: Run, data: Path, tmp_path: Path
) -> None:
    result = run("export", name, "--format", "merged", "-o", tmp_path / "out", "--data", data)
    assert result.exit_code == 0, result.output
    assert f"answer tokens of 16 rows ({VALID}, validation file: held out)" in result.output
    assert "merged files" in result.output
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["exported"]["mean"] < 1e-4
    assert (comparison["merged"] is None) == (name == WHOLE)
    assert ("adapter on its base" in result.output) == (name == ADAPTED)
    assert ("model as it was trained" in result.output) == (name == WHOLE)
    again = run("base", "add", tmp_path / "out", "--name", "again", "--data", tmp_path / "data")
    assert again.exit_code == 0, again.output


def test_an_adapter_on_rows_of_ones_own(run: Run, data: Path, tmp_path: Path) -> None:
    own = write_rows(tmp_path / "own.jsonl", rows(3, offset=50))
    result = run("export", ADAPTED, "-o", tmp_path / "out", "--rows", own, "--data", data)
    assert result.exit_code == 0, result.output
    assert "3 rows (rows of own.jsonl)" in result.output
    assert "adapter files        0" in result.output
    whole = run("export", WHOLE, "-o", tmp_path / "other", "--data", data)
    assert "has no adapter" in problem(whole)


def test_gguf_says_where_nothing_could_run_it(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.model.export.has_llama_cpp", lambda: False)
    out = tmp_path / "out"
    result = run("export", ADAPTED, "--format", "gguf", "--type", "q8_0", "-o", out, "--data", data)
    assert result.exit_code == 0, result.output
    assert "Not verified: llama-cpp-python is not installed here" in result.output
    assert (out / "model-q8_0.gguf").stat().st_size > 100_000
    assert json.loads((out / "comparison.json").read_text())["exported"] is None


def test_what_cannot_be_exported(run: Run, data: Path, tmp_path: Path) -> None:
    unknown = run("export", "ft:nobody", "-o", tmp_path / "out", "--data", data)
    assert ADAPTED in problem(unknown)
    taken = run("export", ADAPTED, "-o", tmp_path, "--data", data)
    assert "exists already" in problem(taken)
    typed = run("export", ADAPTED, "--type", "q8_0", "-o", tmp_path / "out", "--data", data)
    assert "--type q8_0 is for --format gguf" in problem(typed)
    (tmp_path / "bad.jsonl").write_text("nothing\n")
    bad = run(
        "export", ADAPTED, "-o", tmp_path / "out", "--rows", tmp_path / "bad.jsonl", "--data", data
    )
    assert "bad.jsonl: Invalid file format. Example 1 cannot be parsed" in problem(bad)
    nowhere = run("export", ADAPTED, "-o", tmp_path / "out", "--data", tmp_path / "none")
    assert "is no data directory" in problem(nowhere)


def test_rows_that_were_deleted_are_asked_for(run: Run, data: Path, tmp_path: Path) -> None:
    blobs = LocalBlobs(data / "blobs")
    kept = {name: blobs.path(name).read_bytes() for name in (VALID, TRAIN)}
    blobs.path(VALID).unlink()
    result = run("export", ADAPTED, "-o", tmp_path / "one", "--data", data)
    assert f"{TRAIN}, training file: no validation file is here" in result.output
    blobs.path(TRAIN).unlink()
    gone = run("export", ADAPTED, "-o", tmp_path / "two", "--data", data)
    assert "--rows FILE" in problem(gone)
    for name, content in kept.items():
        blobs.path(name).write_bytes(content)
