"""Products in fixed point are off by what fixed.py says and no more, whatever the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tunesmith.bases import embedded_directory
from tunesmith.model import fixed, head, memory
from tunesmith.model.adapter_files import LoraSpec
from tunesmith.model.decoder import Decoder
from tunesmith.model.families import decoder_config
from tunesmith.model.fixed import BLOCK, FixedRows, FixedWeight
from tunesmith.model.fixed_decoder import FixedDecoder
from tunesmith.model.head import losses
from tunesmith.model.load import load_model, read_config
from tunesmith.model.lora import Adapter
from tunesmith.model.weights import load_weights

pytestmark = pytest.mark.skipif(
    fixed.library() is None, reason="this processor does not multiply integers of 16 bits in pairs"
)
Saved = Callable[[str], tuple[Path, Any]]

SIZES = st.integers(1, 600)
THREADS = st.sampled_from((1, 2, 3))
# Errors relative to the lengths of what is multiplied: as a rule, and where inputs are ten thousand
# times as large as others.
TYPICAL, WORST = 3e-4, 5e-3


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator)


def check(weight: Tensor, x: Tensor, toward: Tensor, most: float = WORST) -> None:
    """An error is one of a row of the input and one of a row of the weight, either way."""
    frozen, wide = FixedWeight.of(weight), weight.double()
    rows = wide.norm(dim=1)
    found = frozen.product(FixedRows(x)).double()
    errors = (found - x.double() @ wide.T).abs()
    assert bool((errors <= TYPICAL * x.double().norm(dim=1)[:, None] * rows).all())
    before = numbers(len(toward), weight.shape[1], seed=5) * float(toward.abs().max())
    of_x = before.clone()
    frozen.add_back_(of_x, toward)
    errors = (of_x.double() - before.double() - toward.double() @ wide).abs()
    lengths = (toward.double() * rows).norm(dim=1)
    rounding = 1e-6 * (before.abs() + of_x.abs())
    assert bool((errors <= most * lengths[:, None] + rounding).all())


@given(st.integers(1, 40), SIZES, SIZES, THREADS)
@settings(deadline=None, max_examples=60)
def test_any_sizes(num: int, outputs: int, inputs: int, num_threads: int) -> None:
    weight = numbers(outputs, inputs) * numbers(outputs, 1, seed=1).exp()
    # Rows that lie among others.
    x, toward = numbers(num, inputs + 3, seed=2)[:, :inputs], numbers(num, outputs, seed=3)
    with threads(num_threads):
        check(weight, x, toward, TYPICAL if inputs > 30 else WORST)


@given(
    st.sampled_from(("ones", "outlier", "columns", "huge", "tiny", "zeros")), SIZES, st.booleans()
)
@settings(deadline=None, max_examples=60)
def test_any_numbers(kind: str, size: int, is_negative: bool) -> None:
    """Sums as large as they get, and numbers beside far larger ones."""
    weight, x, toward = numbers(size, size), numbers(5, size, seed=1), numbers(5, size, seed=2)
    for each in (weight, x, toward):
        if kind == "ones":
            each.fill_(-1.0 if is_negative else 1.0)
        if kind == "outlier":
            each[:, size // 2] = 1e4
        if kind == "columns":
            each[:, ::7] *= 300
        if kind == "huge":
            each *= 1e12
        if kind == "tiny":
            each *= 1e-12
        if kind == "zeros":
            each[::2] = 0
    check(weight, x, toward)


def test_the_longest_rows_do_not_overflow() -> None:
    """Both sides of a block are one direction: every sum is as large as its lengths allow."""
    row = numbers(1, 4 * BLOCK)
    weight, x = row.repeat(70, 1), -row.repeat(13, 1)
    check(weight, x, numbers(13, 70), TYPICAL)
    column = numbers(4 * BLOCK, 1)
    check(column.repeat(1, 50), numbers(3, 50), column.T.repeat(3, 1), TYPICAL)


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_stays_none(odd: float) -> None:
    weight, x = numbers(40, 300), numbers(4, 300)
    x[2, 299] = odd
    found = FixedWeight.of(weight).product(FixedRows(x))
    assert found[2].isnan().all()
    assert found[[0, 1, 3]].isfinite().all()
    of_x, toward = torch.zeros(4, 300), numbers(4, 40)
    toward[1, 0] = odd
    FixedWeight.of(weight).add_back_(of_x, toward)
    assert of_x[1].isnan().all()
    assert of_x[[0, 2, 3]].isfinite().all()


def test_a_row_gets_the_same_bits_in_any_company() -> None:
    weight, bias = FixedWeight.of(numbers(77, 500)), numbers(77)
    x, toward = numbers(60, 500), numbers(60, 77)
    whole = weight.product(FixedRows(x), bias)
    back = torch.zeros(60, 500)
    weight.add_back_(back, toward)
    for number in (1, 2, 3):
        with threads(number):
            alone = torch.cat([weight.product(FixedRows(part), bias) for part in x.split(7)])
            assert torch.equal(alone, whole)
            of_x = torch.zeros(60, 500)
            for sums, part in zip(of_x.split(11), toward.split(11), strict=True):
                weight.add_back_(sums, part)
            assert torch.equal(of_x, back)


def test_a_part_of_the_outputs_is_that_part() -> None:
    weight, x, bias = FixedWeight.of(numbers(700, 90)), FixedRows(numbers(20, 90)), numbers(700)
    whole = weight.product(x, bias)
    for start, stop in ((0, BLOCK), (BLOCK, 2 * BLOCK), (BLOCK, 700), (2 * BLOCK, 700)):
        found = weight.part(start, stop).product(x, bias[start:stop])
        assert torch.equal(found, whole[:, start:stop])
    assert weight.num_bytes == 2 * 700 * 90 + 4 * (700 + 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_read_in_any_type(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = numbers(900, 64).to(dtype), FixedRows(numbers(3, 64))
    whole = FixedWeight.of(weight).product(x)
    monkeypatch.setattr(fixed, "AT_ONCE", 1)
    assert torch.equal(FixedWeight.of(weight).product(x), whole)
    assert torch.equal(FixedWeight.of(weight.float()).product(x), whole)


@pytest.mark.parametrize("vocab", [50, 1000])
@pytest.mark.parametrize("sharpness", [0.3, 3.0, 30.0])
def test_loss_and_gradient_at_a_head(
    vocab: int, sharpness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sure guesses, too: what is left of their gradient is small."""
    monkeypatch.setattr(head, "BLOCK_ELEMENTS", BLOCK * 40)
    weight, hidden = numbers(vocab, 96), numbers(40, 96, seed=1) * sharpness / 10
    targets = torch.arange(40) % vocab
    targets[:20] = (hidden @ weight.T).argmax(-1)[:20]
    expected, gradients = torch.empty_like(hidden.double()), torch.empty_like(hidden)
    nll, _ = losses(weight.double(), hidden.double(), targets, expected)
    found, is_right = losses(weight, hidden, targets, gradients, FixedWeight.of(weight))
    assert (found - nll).abs().max() <= 2e-3 * sharpness
    assert is_right[:20].all()
    # Of each row by itself, whether its gradient is large or next to nothing.
    errors, lengths = (gradients - expected).norm(dim=1), expected.norm(dim=1)
    rounding = 1e-6 * weight[targets].norm(dim=1)
    assert bool((errors <= 2e-3 * max(1.0, sharpness) * lengths + rounding).all())


def both(directory: Path) -> tuple[Decoder, FixedDecoder]:
    config = decoder_config(read_config(directory))
    assert config is not None
    plain = Decoder(config, load_weights(directory, config, dtype=torch.float32))
    found = load_model(directory, fixed=True)
    assert isinstance(found, FixedDecoder)
    return plain, found


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_families_learn_the_same(kind: str, dropout: float, saved: Saved, ids_BT: Tensor) -> None:
    """With dropout base and adapter are products of their own."""
    decoders = both(saved(kind)[0])
    gradients, states = [], []
    for model in decoders:
        adapter = Adapter.create(model.linears, LoraSpec(4, 8.0, dropout), 0)
        for number, b in enumerate(adapter.b.values()):
            b.copy_(0.1 * numbers(*b.shape, seed=number))
        torch.manual_seed(1)
        state = model.hidden(ids_BT, lora=adapter.train())
        logits = model.logits(state)
        logits.log_softmax(-1)[..., 3].sum().backward()
        gradients.append(torch.cat([each.grad.flatten() for each in adapter.parameters()]))  # type: ignore[union-attr]
        states.append(logits.detach())
    for one, other in (gradients, states):
        assert (one - other).norm() <= 3e-3 * one.norm()
    with torch.no_grad():
        plain, found = (model.hidden(ids_BT) for model in decoders)
        assert (plain - found).norm() <= 2e-3 * plain.norm()


def test_nothing_is_kept_twice(saved: Saved) -> None:
    plain, found = both(embedded_directory())
    assert found.num_bytes < 0.8 * plain.num_bytes
    assert set(found.weights) == set(plain.weights)
    assert len(found.weights) == len(plain.weights)
    assert all(torch.equal(found.weights[name], weight) for name, weight in plain.weights.items())
    assert (found.dtype, found.device, found.hidden_size) == (
        (plain.dtype, plain.device, plain.hidden_size)
    )
    kept = {each.data_ptr() for each in found.kept_weights}
    assert found.head.data_ptr() in kept
    assert not any(found.weights[f"{name}.weight"].data_ptr() in kept for name in found.linears)


def test_pages_of_a_file_are_given_back(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    size = 1 << 24
    save_file({"a": numbers(size), "b": numbers(3)}, tmp_path / "x.safetensors")
    tensor = load_file(tmp_path / "x.safetensors")["a"]
    expected = float(tensor.double().sum())
    before = memory.used_bytes(torch.device("cpu"))
    memory.give_back(tensor)
    assert memory.used_bytes(torch.device("cpu")) <= before - 0.9 * tensor.nbytes
    assert float(tensor.double().sum()) == expected
    own = numbers(size)
    copy = own.clone()
    memory.give_back(own)
    assert torch.equal(own, copy)
