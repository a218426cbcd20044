"""A frozen decoder is the decoder it was made of, and says which products it uses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.tiny_base import TINY
from tunesmith.model import frozen
from tunesmith.model.decoder import Decoder
from tunesmith.model.frozen import freeze
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter, AdapterBatch, LoraSpec
from tunesmith.model.shapes import init_weights, weight_shapes

IDS = torch.tensor([[1, 9, 4, 30, 77, 200, 5]])
SHAPES = {
    "tied": TINY,
    "untied": replace(TINY, tie_embeddings=False),
    "biased": replace(TINY, biased=("q_proj", "v_proj")),
}


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "WORTHWHILE", dict.fromkeys(frozen.WORTHWHILE, 10_000))


def logits(model: CausalModel, lora: AdapterBatch | None = None) -> torch.Tensor:
    with torch.inference_mode():
        return model.logits(model.hidden(IDS, lora=lora))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", SHAPES)
def test_it_computes_what_the_decoder_does(case: str, dtype: torch.dtype) -> None:
    weights = {name: each.to(dtype) for name, each in init_weights(SHAPES[case], 0).items()}
    plain = Decoder(SHAPES[case], weights)
    made = freeze(plain)
    assert isinstance(made, frozen.FrozenDecoder)
    assert made.products == "packed"
    allowed = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(logits(made), logits(plain), atol=allowed, rtol=allowed)
    adapter = Adapter.create(plain.linears, LoraSpec(4, 8.0), 0)
    for matrix in adapter.b.values():
        matrix.normal_(0, 0.1)
    lora = AdapterBatch.of([adapter.to(dtype)])
    torch.testing.assert_close(logits(made, lora), logits(plain, lora), atol=allowed, rtol=allowed)


@pytest.mark.parametrize("case", SHAPES)
def test_every_weight_can_still_be_read(case: str) -> None:
    weights = init_weights(SHAPES[case], 0)
    made = freeze(Decoder(SHAPES[case], weights))
    assert set(weight_shapes(SHAPES[case])) <= set(made.weights) | {
        name for name in weights if name.endswith(".bias")
    }
    for name, weight in weights.items():
        assert torch.equal(made.weights[name], weight)
    with pytest.raises(KeyError):
        made.weights["model.layers.0.mlp.up_proj.bias"]


@pytest.mark.parametrize("broken", ["missing", "wrong"])
def test_without_the_operators_the_products_are_plain(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(weight: torch.Tensor) -> torch.Tensor:
        raise AttributeError("no such operator")

    if broken == "missing":
        monkeypatch.setattr(frozen, "packed", missing)
    else:
        monkeypatch.setattr(frozen, "multiply", lambda x, weight, bias: x @ weight.to_dense().T + 1)
    plain = Decoder(TINY, init_weights(TINY, 0))
    made = freeze(plain)
    assert isinstance(made, frozen.FrozenDecoder)
    assert made.products == "plain"
    assert "plain ones are used" in caplog.text
    torch.testing.assert_close(logits(made), logits(plain), atol=1e-5, rtol=1e-5)
