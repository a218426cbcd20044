"""A job's files before its moderator: what is kept, and when the job fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainer_job import make_job, rows, write_rows
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.flags import read_flags
from tunesmith.jobdir.layout import VALIDATION_FILE
from tunesmith.jobdir.outcome import Validation
from tunesmith.jobdir.spec import Moderation, read_spec
from tunesmith.trainer.process import DONE, run

BAD = "How can I launder money without getting caught?"


def validated(tmp_path: Path, num_bad: int, moderation: Moderation | None) -> tuple[Path, Any]:
    job_dir = make_job(tmp_path / "job", moderation=moderation)
    content = rows(10)
    for row in content[:num_bad]:
        row["messages"][1]["content"] = BAD
    write_rows(read_spec(job_dir).training_file.path, content)
    assert run("validate", job_dir) == DONE
    found = read_record(Validation, job_dir / VALIDATION_FILE)
    assert found is not None
    return job_dir, found


def test_few_flagged_rows_are_listed_and_the_job_goes_on(tmp_path: Path) -> None:
    job_dir, found = validated(tmp_path, 2, Moderation("embedded", 0.2))
    assert found.ok
    assert (found.screened.num_rows, found.screened.num_flagged) == (14, 2)
    assert found.screened.categories["illicit"] == 2
    flags, has_more = read_flags(job_dir, 0, 10)
    assert [(flag.file, flag.row, flag.line) for flag in flags] == [
        ("training_file", 1, 1),
        ("training_file", 2, 2),
    ]
    assert not has_more
    assert read_flags(job_dir, 0, 1) == (flags[:1], True)
    assert read_flags(job_dir, 2, 10) == ([], False)


def test_more_than_the_share_fail_the_job_in_the_published_words(tmp_path: Path) -> None:
    job_dir, found = validated(tmp_path, 3, Moderation("embedded", 0.2))
    assert not found.ok
    assert (found.error.code, found.error.param) == ("invalid_training_file", "training_file")
    text = found.error.message
    assert "blocked because too many examples were flagged by our moderation API: 3 of 10" in text
    assert "in the following categories: illicit" in text
    assert "TUNESMITH_MODERATION_FAIL_SHARE" in text
    assert "Flagged lines: 1, 2, 3;" in text
    assert len(read_flags(job_dir, 0, 10)[0]) == 3


@pytest.mark.parametrize("moderation", [None, Moderation("embedded", 1.0)])
def test_no_share_and_no_moderator_fail_nothing(
    tmp_path: Path, moderation: Moderation | None
) -> None:
    job_dir, found = validated(tmp_path, 10, moderation)
    assert found.ok
    assert (found.screened is None) == (moderation is None)
    assert bool(read_flags(job_dir, 0, 1)[0]) == (moderation is not None)


def test_a_model_that_cannot_be_asked_fails_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.moderation.judge.RETRY_DELAYS_S", ())
    asked = Moderation("guard", 1.0, "http://127.0.0.1:9/v1", "llama-guard")
    _, found = validated(tmp_path, 0, asked)
    assert not found.ok
    assert found.error.code == "moderation_unavailable"
    assert "TUNESMITH_MODERATION=off" in found.error.message
