"""Sequences that share a row: each one's states are those it has alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.attention.varlen
from torch import Tensor

from tests.trainer_job import events_of, make_job, metrics_of, result_of, tiny_base
from tunesmith.data.render import Example
from tunesmith.errors import JobError
from tunesmith.model.attention import AttentionRule, causal
from tunesmith.model.load import CausalModel, load_model
from tunesmith.model.packed import SplitAttention
from tunesmith.train import attention
from tunesmith.train.attention import VarlenAttention, choose, hidden, keeps_apart
from tunesmith.train.batches import Corpus, pack
from tunesmith.trainer.process import DONE, run

LENGTHS = [3, 17, 9, 9, 9, 30, 2, 17]
RULES = [
    AttentionRule(),
    AttentionRule(window=4),
    AttentionRule(scale=0.3),
    AttentionRule(softcap=2.0),
]


def model(dtype: torch.dtype) -> CausalModel:
    return load_model(tiny_base(), dtype=dtype)


def corpus() -> Corpus:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(512, (n + 1,), generator=generator).tolist() for n in LENGTHS]
    return Corpus(Example(ids, [0.0] * (len(ids) - 1) + [1.0], n) for n, ids in enumerate(rows))


@pytest.mark.parametrize("kind", ["split", "padded"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_packed_equals_alone(kind: attention.Kind, dtype: torch.dtype, limit: float) -> None:
    decoder, rows = model(dtype), corpus()
    batch = pack(rows, range(len(LENGTHS)))
    together = torch.split(hidden(decoder, batch, kind, None), list(batch.lengths))
    by_length = sorted(range(len(LENGTHS)), key=rows.length, reverse=True)
    for sequence, found_TE in zip(by_length, together, strict=True):
        alone_TE = decoder.hidden(rows.tokens(sequence)[0][None, :-1].long())[0]
        assert (found_TE - alone_TE).abs().max() <= limit


@pytest.mark.parametrize("rule", RULES)
def test_gradients_of_packed_equal_those_of_alone(rule: AttentionRule) -> None:
    lengths = (9, 5, 5, 2)
    generator = torch.Generator().manual_seed(2)
    shapes = ((1, 21, 4, 8), (1, 21, 2, 8), (1, 21, 2, 8))
    qkv = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    toward = torch.randn(shapes[0], generator=generator, dtype=torch.float64)

    def gradients(attend: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in qkv]
        found = torch.autograd.grad((attend(*leaves) * toward).sum(), leaves)
        return list(found)

    def alone(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cut = [torch.split(x, list(lengths), 1) for x in (q, k, v)]
        return torch.cat([causal(0, *part, rule) for part in zip(*cut, strict=True)], 1)

    packed = SplitAttention(lengths)
    for one, other in zip(gradients(lambda *x: packed(0, *x, rule)), gradients(alone), strict=True):
        assert (one - other).abs().max() <= 1e-12


def test_the_probe_sees_a_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = model(torch.float32)
    assert keeps_apart(decoder, "split")
    assert choose(decoder) == ("split", None)
    monkeypatch.setattr(attention, "PackedAttention", lambda *given: causal)
    assert not keeps_apart(decoder, "split")
    with pytest.raises(JobError, match="packed_equals_alone") as caught:
        choose(decoder)
    assert caught.value.code == "packing_mixes_rows"


def test_the_probe_sees_a_wrong_position(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = model(torch.float32)
    original = decoder.hidden

    def backwards(ids_BT: Tensor, **options: Any) -> Tensor:
        if options.get("positions_BT") is not None:
            options["positions_BT"] = -options["positions_BT"]
        return original(ids_BT, **options)

    monkeypatch.setattr(decoder, "hidden", backwards)
    assert not keeps_apart(decoder, "split")


def test_a_job_whose_rows_would_mix_fails_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "PackedAttention", lambda *given: causal)
    job_dir = make_job(tmp_path / "job")
    assert run("train", job_dir) == DONE
    error = result_of(job_dir).error
    assert error is not None
    assert error.code == "packing_mixes_rows"


def test_an_attention_that_was_passed_over_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, slower = make_job(tmp_path / "plain"), make_job(tmp_path / "slower")
    assert run("train", plain) == DONE
    monkeypatch.setattr(attention, "choose", lambda model: ("padded", "It mixes sequences."))
    assert run("train", slower) == DONE
    told = {event.key: event.message for event in events_of(slower)}
    assert told["warn:attention"] == "It mixes sequences."
    for key, data in metrics_of(plain).items():
        assert metrics_of(slower)[key] == pytest.approx(data, abs=2e-3)


def varlen_by_split(seen: list[dict[str, object]]) -> Callable[..., Tensor]:
    """What torch's operator promises, computed by torch's plain attention on a CPU."""

    def varlen_attn(
        q: Tensor, k: Tensor, v: Tensor, starts: Tensor, ends: Tensor, *longest: int, **more: object
    ) -> Tensor:
        assert torch.equal(starts, ends)
        assert starts.dtype == torch.int32
        assert longest == (int(starts.diff().max()),) * 2
        seen.append(more)
        left, right = more["window_size"]  # type: ignore[misc]
        assert right == 0
        rule = AttentionRule(None if left < 0 else left + 1, more["scale"])  # type: ignore[arg-type]
        lengths = tuple(starts.diff().tolist())
        return SplitAttention(lengths)(0, q[None], k[None], v[None], rule)[0]

    return varlen_attn


@pytest.mark.parametrize("rule", RULES)
def test_the_fused_operator_is_asked_for_the_same(
    rule: AttentionRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator itself needs a GPU: here its arguments are held to what it documents."""
    seen: list[dict[str, object]] = []
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", varlen_by_split(seen))
    lengths = (6, 4, 4)
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(1, 14, heads, 8, generator=generator) for heads in (4, 2, 2))
    found = VarlenAttention(lengths, torch.device("cpu"))(0, q, k, v, rule)
    assert torch.equal(found, SplitAttention(lengths)(0, q, k, v, rule))
    assert [more["enable_gqa"] for more in seen] == ([] if rule.softcap else [True])
