"""A frozen decoder is the decoder it was made of, and says which products it uses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.tiny_base import TINY
from tunesmith.model import frozen, native, products
from tunesmith.model.decoder import Decoder
from tunesmith.model.fresh import init_weights
from tunesmith.model.frozen import freeze
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter, AdapterBatch, LoraSpec
from tunesmith.model.shapes import weight_shapes

IDS = torch.tensor([[1, 9, 4, 30, 77, 200, 5]])
SHAPES = {
    "tied": TINY,
    "untied": replace(TINY, tie_embeddings=False),
    "biased": replace(TINY, biased=("q_proj", "v_proj")),
}


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "WORTHWHILE", dict.fromkeys(products.WORTHWHILE, 10_000))
    monkeypatch.setattr(products, "WORTHWHILE_INT8", 10_000)


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
def test_weights_of_sixteen_bits_stay_so_and_nothing_is_rounded(case: str) -> None:
    stored = {name: each.bfloat16() for name, each in init_weights(SHAPES[case], 0).items()}
    wide = {name: each.float() for name, each in stored.items()}
    made = freeze(Decoder(SHAPES[case], stored), in_fp32=True)
    assert isinstance(made, frozen.FrozenDecoder)
    assert made.dtype == torch.float32
    torch.testing.assert_close(
        logits(made), logits(Decoder(SHAPES[case], wide)), atol=1e-5, rtol=1e-5
    )
    for name, weight in wide.items():
        assert torch.equal(made.weights[name], weight)
    if native.library() is not None:
        assert made.products == "native"
        assert made.num_bytes < freeze(Decoder(SHAPES[case], wide)).num_bytes * 2 / 3


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
        monkeypatch.setattr(products, "packed", missing)
    else:
        monkeypatch.setattr(
            products, "multiply", lambda x, weight, bias: x @ weight.to_dense().T + 1
        )
    plain = Decoder(TINY, init_weights(TINY, 0))
    made = freeze(plain)
    assert isinstance(made, frozen.FrozenDecoder)
    assert made.products == "plain"
    assert ("not available" if broken == "missing" else "wrong and not used") in caplog.text
    torch.testing.assert_close(logits(made), logits(plain), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", SHAPES)
def test_in_eight_bits_it_is_nearly_the_same(case: str, dtype: torch.dtype) -> None:
    plain = Decoder(SHAPES[case], init_weights(SHAPES[case], 0))
    stored = {name: each.to(dtype) for name, each in plain.weights.items()}
    made = freeze(Decoder(SHAPES[case], stored), int8=True)
    assert isinstance(made, frozen.FrozenDecoder)
    assert (made.products, made.dtype) == ("int8", torch.float32)
    found, expected = logits(made), logits(plain)
    assert float((found - expected).norm() / expected.norm()) < 0.05
    adapter = Adapter.create(plain.linears, LoraSpec(4, 8.0), 0)
    for matrix in adapter.b.values():
        matrix.normal_(0, 0.1)
    lora = AdapterBatch.of([adapter])
    found, expected = logits(made, lora), logits(plain, lora)
    assert float((found - expected).norm() / expected.norm()) < 0.05


def test_in_eight_bits_weights_are_read_back_rounded() -> None:
    weights = init_weights(TINY, 0)
    made = freeze(Decoder(TINY, weights), int8=True)
    for name, weight in weights.items():
        step = weight.abs().amax(-1, keepdim=True) / products.MAX_INT8
        assert bool(((made.weights[name] - weight).abs() <= 0.51 * step).all()), name


def test_in_eight_bits_rows_keep_their_bits_in_any_company() -> None:
    product = products.Int8Product(torch.randn(300, 200), torch.randn(300))
    x = torch.randn(40, 200) * torch.logspace(-3, 3, 40)[:, None]
    whole = product(x)
    for number in (1, 2, 7, 16, 33):
        assert torch.equal(product(x[:number]), whole[:number])
    assert bool(product(torch.zeros(1, 200)).isfinite().all())


def test_without_eight_bits_in_the_processor_it_serves_in_fp32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    plain = Decoder(TINY, init_weights(TINY, 0))
    stored = {name: each.to(torch.bfloat16) for name, each in plain.weights.items()}
    made = freeze(Decoder(TINY, stored), int8=True)
    assert isinstance(made, frozen.FrozenDecoder)
    expected = "native" if native.library() else "packed"
    assert (made.products, made.dtype) == (expected, torch.float32)
    assert "does not multiply 8 bits" in caplog.text
