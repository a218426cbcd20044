"""The check of a base: each bad model gets its own finding, none of them hangs or raises."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny_base import SPECIAL, write_tiny_base
from tests.tiny_transformers import build
from tunesmith.model import probe, template_probe
from tunesmith.model.decoder import EMBEDDING, Decoder
from tunesmith.model.load import load_model
from tunesmith.model.probe import BaseReport, check_base
from tunesmith.model.template_probe import Finding

END = SPECIAL.index("<|end|>")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_tiny_base(tmp_path / "base")


def error(report: BaseReport) -> Finding:
    """The one error of a report."""
    (found,) = [finding for finding in report.findings if finding.severity == "error"]
    assert not report.ok
    return found


def codes(report: BaseReport) -> list[str]:
    return [finding.code for finding in report.findings]


class Noon:
    def now(self) -> float:
        return 43200.5


def test_a_good_base_has_nothing_to_say(base: Path) -> None:
    report = check_base(base, "tiny", Noon())
    assert report.ok
    assert report.findings == []
    assert report.info is not None
    assert (report.info.name, report.info.slow) == ("tiny", False)
    assert report.info.path == base
    assert report.info.created_at == 43200


def test_another_family_is_slow_but_good(base: Path) -> None:
    model = build("phi", vocab_size=512)
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        (base / name).unlink()
    model.save_pretrained(base)
    report = check_base(base, "phi")
    assert report.ok
    assert codes(report) == ["slow"]
    assert report.info is not None
    assert report.info.slow


def test_what_is_no_model_directory_is_described_as_such(tmp_path: Path) -> None:
    assert "no directory" in error(check_base(tmp_path / "absent", "x")).message
    assert "config.json" in error(check_base(tmp_path, "x")).message


def test_missing_weights_are_an_error_of_loading(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors")
    report = check_base(base, "x")
    assert error(report).code == "load"
    assert "model.layers.1.mlp.up_proj.weight" in error(report).message


def change(directory: Path, name: str, edit: Callable[[Tensor], object]) -> None:
    weights = {
        key: tensor.clone() for key, tensor in load_file(directory / "model.safetensors").items()
    }
    edit(weights[name])
    save_file(weights, directory / "model.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_must_be_finite(value: float, base: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    change(base, name, lambda weight: weight[3, 5].fill_(value))
    found = error(check_base(base, "x"))
    assert found.code == "finite"
    assert name in found.message


def test_an_answer_that_overflows_is_an_error(base: Path) -> None:
    change(base, "model.norm.weight", lambda weight: weight.fill_(3e38))
    assert error(check_base(base, "x")).code == "finite"


def test_a_stop_token_that_was_never_trained_is_a_warning(base: Path) -> None:
    change(base, EMBEDDING, lambda weight: weight[END].mul_(0.01))
    report = check_base(base, "x")
    assert report.ok
    assert codes(report) == ["stop_token"]
    assert f"id {END}" in report.findings[0].message


def test_a_stop_token_with_the_row_of_another_is_a_warning(base: Path) -> None:
    change(base, EMBEDDING, lambda weight: weight[END].copy_(weight[200]))
    assert codes(check_base(base, "x")) == ["stop_token"]


def write_template(base: Path, text: str) -> None:
    (base / "chat_template.jinja").write_text(text)


def test_a_template_that_does_not_stop_a_turn_is_an_error(base: Path) -> None:
    write_template(base, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    assert "never learn to stop" in error(check_base(base, "x")).message


def test_a_template_without_tools_is_worth_a_word(base: Path) -> None:
    write_template(
        base,
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    )
    report = check_base(base, "x")
    assert report.ok
    assert codes(report) == ["tools"]


def test_a_template_that_rewrites_history_is_worth_a_word(base: Path) -> None:
    write_template(
        base,
        "{% for m in messages %}<|{{ m.role }}|>"
        "{% if m.role == 'assistant' and loop.last %}<|tool|>{% endif %}"
        "{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><|tool|>{% endif %}",
    )
    report = check_base(base, "x")
    assert report.ok
    assert codes(report) == ["history", "tools"]
    assert report.info is not None
    assert not report.info.preserves_history


def test_two_starts_are_a_warning(base: Path) -> None:
    template = (base / "chat_template.jinja").read_text()
    write_template(base, "{{- '<|bos|>' -}}" + template)
    report = check_base(base, "x")
    assert report.ok
    assert codes(report) == ["bos"]


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}a{% endfor %}{% endfor %}",
        "{{ 'a' * 10**8 }}",
        "{{ 'a' * 10**11 }}",
        "{{ 7 ** 1000000000 }}",
        "{{ raise_exception('no') }}",
        "{% for m in messages %}{{ m.nothing.there }}{% endfor %}",
        "{{ messages.__class__.__mro__ }}",
    ],
)
def test_hostile_templates_are_refused_in_time(
    text: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_probe, "MAX_CPU_S", 2)
    write_template(base, text + "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}")
    report = check_base(base, "x")
    assert error(report).code in ("describe", "template")
    assert report.info is None


def test_a_template_that_waits_is_refused_in_time(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_probe, "MAX_WALL_S", 0.01)
    assert error(check_base(base, "x")).code == "template"


class Leaky:
    """A model whose states depend on what follows them, as in models that read both ways."""

    def __init__(self, model: Decoder) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def hidden(self, ids_BT: Tensor) -> Tensor:
        hidden = self._model.hidden(ids_BT)
        return hidden + hidden.mean(dim=1, keepdim=True)


def test_rows_that_feel_their_padding_are_an_error(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaky(directory: Path, **options: Any) -> Any:
        return Leaky(load_model(directory, **options))  # type: ignore[arg-type]

    monkeypatch.setattr(probe, "load_model", leaky)
    assert error(check_base(base, "x")).code == "padding"


def test_decoding_that_differs_from_reading_is_an_error(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("config.json", "model.safetensors"):
        (base / name).unlink()
    build("gpt-neox", vocab_size=512).save_pretrained(base)
    step = probe.TransformersModel.step

    def forgetful(self: Any, ids_1T: Tensor, past: Any = None, lora: Any = None) -> Any:
        return step(self, ids_1T, None, lora)

    monkeypatch.setattr(probe.TransformersModel, "step", forgetful)
    assert error(check_base(base, "x")).code == "decoding"


def test_the_embedded_base_passes(tmp_path: Path) -> None:
    from tunesmith.bases import embedded_directory

    shutil.copytree(embedded_directory(), tmp_path / "nano")
    report = check_base(tmp_path / "nano", "nano")
    assert report.ok
    assert report.findings == []
    config = json.loads((tmp_path / "nano" / "config.json").read_text())
    assert report.info is not None
    assert report.info.context_length == config["max_position_embeddings"]
