"""The validate phase: counts and decisions, or an error that names the line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer_job import make_job, relaunched, rows, write_rows
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import VALIDATION_FILE
from tunesmith.jobdir.outcome import Validation
from tunesmith.jobdir.spec import read_spec
from tunesmith.trainer import validate as phase
from tunesmith.trainer.process import DONE, FENCED, run


def validated(job_dir: Path) -> Validation:
    assert run("validate", job_dir) == DONE
    found = read_record(Validation, job_dir / VALIDATION_FILE)
    assert found is not None
    return found


def test_a_good_job_is_counted_and_decided(tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job", hyperparameters={"n_epochs": "auto"})
    found = validated(job_dir)
    assert found.ok
    assert found.error is None
    assert (found.num_examples, found.num_valid_examples) == (10, 4)
    assert found.num_tokens > 100
    assert found.hyperparameters == {
        "n_epochs": 10,
        "batch_size": 1,
        "learning_rate_multiplier": 1.0,
        "beta": None,
        "finetuning_type": "lora",
        "lora_rank": 16,
        "lora_alpha": 32.0,
        "lora_dropout": 0.0,
        "lora_targets": "all",
        "lora_rslora": False,
    }
    assert found.total_steps == 100


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job")
    path = read_spec(job_dir).training_file.path
    path.write_text(path.read_text().replace('"assistant"', '"robot"', 1))
    found = validated(job_dir)
    assert not found.ok
    assert found.error is not None
    assert found.error.param == "training_file"
    assert found.error.line == 1


def test_too_few_examples_and_a_bad_validation_file(tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "few", num_rows=9)
    error = validated(job_dir).error
    assert error is not None
    assert error.code == "invalid_n_examples"
    job_dir = make_job(tmp_path / "valid")
    valid = read_spec(job_dir).validation_file
    assert valid is not None
    valid.path.write_bytes(b"{")
    error = validated(job_dir).error
    assert error is not None
    assert error.param == "validation_file"


def test_an_example_longer_than_allowed_is_refused(tmp_path: Path) -> None:
    error = validated(make_job(tmp_path / "job", max_tokens=20)).error
    assert error is not None
    assert "longer than the 20 tokens" in error.message


def test_a_line_longer_than_allowed_is_refused(tmp_path: Path) -> None:
    error = validated(make_job(tmp_path / "job", max_line_bytes=100)).error
    assert error is not None
    assert error.line == 1


def test_a_hyperparameter_out_of_range_is_named(tmp_path: Path) -> None:
    error = validated(make_job(tmp_path / "job", hyperparameters={"n_epochs": 0})).error
    assert error is not None
    assert error.param == "hyperparameters.n_epochs"


def test_a_base_that_is_gone_is_an_answer(tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job")
    spec = read_spec(job_dir)
    gone = replace(spec.base, path=tmp_path / "gone")
    error = validated(relaunched(job_dir, base=gone)).error
    assert error is not None
    assert (error.code, error.param) == ("invalid_base_model", "model")


def test_running_out_of_memory_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(phase, "rendered", exhausted)
    error = validated(make_job(tmp_path / "job")).error
    assert error is not None
    assert error.code == "out_of_memory"


def test_an_overtaken_validation_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_dir = make_job(tmp_path / "job")
    original = phase.rendered

    def overtaken(*args: object) -> object:
        relaunched(job_dir)
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(phase, "rendered", overtaken)
    assert run("validate", job_dir) == FENCED
    assert not (job_dir / VALIDATION_FILE).exists()


def test_weights_of_messages_count(tmp_path: Path) -> None:
    """Rows whose only answer is switched off teach nothing and are refused by line."""
    job_dir = make_job(tmp_path / "job")
    content = rows(10)
    answer = {"role": "assistant", "content": "x", "weight": 0}
    content[3]["messages"] = [*content[3]["messages"][:2], answer]
    write_rows(read_spec(job_dir).training_file.path, content)
    error = validated(job_dir).error
    assert error is not None
    assert error.line == 4
