"""`tunesmith base` on a real data directory, with a model made for the test."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest

from tests.tiny_base import write_tiny_base
from tests.unit.cli.conftest import Run, problem
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli import base
from tunesmith.store.db import open_database
from tunesmith.store.repo import bases


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def resolved(data: Path, name: str) -> str | None:
    with open_database(data).read() as conn:
        found = bases.resolve(conn, name)
    return found and found.name


def test_add_registers_under_name_and_aliases(run: Run, model: Path, data: Path) -> None:
    result = run("base", "add", model, "--alias", "gpt-4o-mini", "--alias", "gpt-4", "--data", data)
    assert result.exit_code == 0, result.output
    assert (
        resolved(data, "tiny") == resolved(data, "gpt-4o-mini") == resolved(data, "gpt-4") == "tiny"
    )
    listed = run("base", "list", "--data", data).output
    assert "tiny" in listed and "gpt-4, gpt-4o-mini" in listed and str(model) in listed


def test_a_base_with_an_error_is_refused_with_what_to_do(
    run: Run, model: Path, data: Path, tmp_path: Path
) -> None:
    broken = write_tiny_base(tmp_path / "broken")
    (broken / "chat_template.jinja").unlink()
    result = run("base", "add", broken, "--data", data)
    assert "not registered" in problem(result) and "template" in result.output
    assert resolved(data, "broken") is None


def test_aliases_move_and_go(run: Run, model: Path, data: Path) -> None:
    run("base", "add", model, "--data", data)
    run("base", "add", model, "--name", "other", "--data", data)
    assert run("base", "alias", "gpt-4", "tiny", "--data", data).output == "gpt-4 now means tiny.\n"
    run("base", "alias", "gpt-4", "other", "--data", data)
    assert resolved(data, "gpt-4") == "other"
    assert "already" not in run("base", "unalias", "gpt-4", "--data", data).output
    assert resolved(data, "gpt-4") is None
    assert "No alias gpt-4" in problem(run("base", "unalias", "gpt-4", "--data", data))


def test_names_that_cannot_be_aliases(run: Run, model: Path, data: Path) -> None:
    run("base", "add", model, "--data", data)
    for name in ("tiny", "a:b", "a/b", "", " ", "-x"):
        assert problem(run("base", "alias", "--data", data, "--", name, "tiny"))


def test_remove(run: Run, model: Path, data: Path) -> None:
    run("base", "add", model, "--alias", "gpt-4", "--data", data)
    assert run("base", "remove", "tiny", "--data", data).exit_code == 0
    assert resolved(data, "tiny") is resolved(data, "gpt-4") is None
    assert "No base tiny" in problem(run("base", "remove", "tiny", "--data", data))
    embedded = problem(run("base", "remove", EMBEDDED_NAME, "--data", data))
    assert "comes with the package" in embedded


def test_a_hub_name_without_a_network_says_so(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str, **options: object) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    line = problem(run("base", "add", "org/model", "--data", data))
    assert "cannot be reached" in line and "give its directory" in line


def test_a_hub_name_is_fetched_into_the_data_directory(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(name: str, *, local_dir: Path, allow_patterns: list[str]) -> str:
        assert name == "org/model" and allow_patterns == base.HUB_FILES
        return str(write_tiny_base(local_dir))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert run("base", "add", "org/model", "--data", data).exit_code == 0
    assert resolved(data, "model") == "model"
    kept = data / "bases" / "model" / "config.json"
    assert json.loads(kept.read_text())["model_type"] == "llama"
    run("base", "remove", "model", "--data", data)
    assert not kept.exists()


def test_a_base_is_kept_in_four_bits(
    run: Run, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("base", "add", model, "--quantize", "nf4", "--data", data)
    assert result.exit_code == 0, result.output
    assert resolved(data, "tiny-nf4") == "tiny-nf4"
    kept = data / "bases" / "tiny-nf4"
    assert json.loads((kept / "config.json").read_text())["quantization_config"]["load_in_4bit"]
    again = problem(run("base", "add", model, "--quantize", "nf4", "--data", data))
    assert "registered already" in again

    def download(name: str, *, local_dir: Path, allow_patterns: list[str]) -> str:
        return str(write_tiny_base(local_dir))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    run("base", "add", "org/model", "--quantize", "nf4", "--data", data)
    assert resolved(data, "model-nf4") == "model-nf4"
    assert sorted(path.name for path in (data / "bases").iterdir()) == ["model-nf4", "tiny-nf4"]
    run("base", "remove", "tiny-nf4", "--data", data)
    assert not kept.exists()
    empty = data / "empty"
    empty.mkdir()
    refused = problem(run("base", "add", empty, "--quantize", "nf4", "--data", data))
    assert "config.json" in refused
