"""The shipped base model and the recipe that made it: files, template, samples, resume."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from base.corpus import ASSETS, parse_lines, render
from base.export import EXAMPLE, TOOLS, check, config
from base.pretrain import NANO, Position, batches, make_optimizers, rate, restore, save
from base.synthetic import Maker, Sample
from base.tokenizer import SPECIAL
from tunesmith.model.decoder import Decoder
from tunesmith.model.fresh import init_weights
from tunesmith.model.shapes import weight_shapes

WORDS = "river stone house walked under lantern quiet morning".split()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(ASSETS / "tokenizer.json"))


def made(num: int) -> list[Sample]:
    maker = Maker(random.Random(5), WORDS)
    return [maker.sample() for _ in range(num)]


# -- the shipped folder -------------------------------------------------------------------------


def test_special_tokens_have_the_first_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == list(range(16))
    assert SPECIAL[:10] == [
        "<|pad|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>",
        "<|end|>", "<|tools|>", "<|tool_call|>",
    ]  # fmt: skip
    assert tokenizer.get_vocab_size() == NANO.vocab_size


def test_weights_have_the_decoder_s_names_and_shapes() -> None:
    weights = load_file(ASSETS / "model.safetensors")
    assert {name: tuple(w.shape) for name, w in weights.items()} == weight_shapes(NANO)
    assert all(w.dtype == torch.bfloat16 and w.isfinite().all() for w in weights.values())


def test_configs_name_rope_and_stops_for_both_transformers_generations() -> None:
    stored = json.loads((ASSETS / "config.json").read_text())
    assert stored == config()
    assert stored["rope_parameters"]["rope_theta"] == stored["rope_theta"] == 10000.0
    assert stored["torch_dtype"] == stored["dtype"] == "bfloat16"
    generation = json.loads((ASSETS / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [7, 2]


def test_transformers_reads_the_folder_and_agrees() -> None:
    pytest.importorskip("transformers")
    assert check(ASSETS) <= 1e-4


@pytest.mark.parametrize(
    "text", ["two  spaces\n\ttab", "Z\u00fcrich \u4f60\u597d \U0001f600", "12345.67", ""]
)
def test_tokenizer_gives_any_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("2026").tokens == ["2", "0", "2", "6"]


def test_the_model_closes_its_turn(tokenizer: Tokenizer) -> None:
    """A base whose end token is untrained can be tuned to answer, but never to stop."""
    weights = {n: w.float() for n, w in load_file(ASSETS / "model.safetensors").items()}
    decoder = Decoder(NANO, weights)
    ids = tokenizer.encode(render([{"role": "user", "content": "Hello!"}]) + "<|assistant|>").ids
    with torch.no_grad():
        for _ in range(60):
            ids.append(int(decoder.logits(decoder.hidden(torch.tensor([ids]))[0, -1]).argmax()))
            if ids[-1] == 7:
                return
    pytest.fail(f"no end in {tokenizer.decode(ids)!r}")


# -- the template -------------------------------------------------------------------------------


def test_template_text_is_exact() -> None:
    assert render(EXAMPLE, TOOLS) == (
        "<|bos|><|system|>You can use tools.<|end|>"
        f"<|tools|>{json.dumps(TOOLS)}<|end|>"
        "<|user|>What is 'the weather' in <Paris> & Zuerich?<|end|>"
        '<|assistant|><|tool_call|>{"name": "get_weather", "arguments": {"city": "Paris"}}'
        '<|tool_call|>{"name": "get_weather", "arguments": {"city": "Z"}}<|end|>'
        '<|tool|>{"sky": "clear"}<|end|>'
        "<|assistant|>It is clear.<|end|>"
        "<|system|>Be brief.<|end|>"
    )


def test_tools_without_a_system_message_come_first() -> None:
    text = render([{"role": "user", "content": " hi\n"}], TOOLS)
    assert text == f"<|bos|><|tools|>{json.dumps(TOOLS)}<|end|><|user|> hi\n<|end|>"


def test_shipped_template_is_the_one_of_the_recipe() -> None:
    recipe = Path(render.__globals__["HERE"]) / "chat_template.jinja"
    assert (ASSETS / "chat_template.jinja").read_text() == recipe.read_text()


# -- the recipe ---------------------------------------------------------------------------------


def test_made_samples_end_with_an_answer_and_hold_valid_json() -> None:
    for sample in made(400):
        assert sample.messages[-1]["role"] == "assistant"
        assert sample.messages[-1]["content"]
        for message in sample.messages:
            if message["role"] == "tool":
                json.loads(message["content"])
            for call in message.get("tool_calls", []):
                named = {tool["function"]["name"] for tool in sample.tools}
                assert call["function"]["name"] in named
        assert render(sample.messages, sample.tools).endswith("<|end|>")


def test_made_samples_repeat_for_a_seed() -> None:
    assert made(50) == made(50)


def test_dialogue_lines_become_messages() -> None:
    assert parse_lines("User: a: b\nAssistant: c\nd") == [
        {"role": "user", "content": "a: b"},
        {"role": "assistant", "content": "c\nd"},
    ]


@pytest.mark.parametrize(
    ("step", "progress", "factor"), [(0, 0.0, 0.01), (500, 0.3, 1.0), (500, 0.8, 0.5), (9, 1.0, 0)]
)
def test_rate_warms_up_stays_and_falls_to_zero(step: int, progress: float, factor: float) -> None:
    assert rate(step, 100, progress, 0.4) == pytest.approx(factor)


@pytest.fixture()
def cache(tmp_path: Path) -> Path:
    for index in range(2):
        np.arange(index * 5000, index * 5000 + 4097, dtype=np.uint16).tofile(
            tmp_path / f"pass_{index:02}.bin"
        )
    return tmp_path


def test_batches_go_on_exactly_where_they_stopped(cache: Path) -> None:
    whole = batches(cache, Position(length=64), 256)
    expected = [next(whole) for _ in range(20)]
    at = Position(length=64)
    first = batches(cache, at, 256)
    got = [next(first) for _ in range(7)]
    second = batches(cache, Position(**vars(at)), 256)
    got += [next(second) for _ in range(13)]
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_longer_rows_begin_with_the_next_pass(cache: Path) -> None:
    at = Position(length=64)
    rows = batches(cache, at, 256)
    assert next(rows).shape == (4, 65)
    at.length = 128
    longer = next(rows)
    assert longer.shape == (2, 129) and int(longer.min()) >= 5000 and at.index == 1


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_checkpoint_restores_weights_and_optimizer_bit_for_bit(tmp_path: Path, kind: str) -> None:
    def fresh(seed: int) -> tuple[dict[str, torch.Tensor], list[Any]]:
        weights = {k: w.requires_grad_() for k, w in init_weights(NANO, seed).items()}
        return weights, make_optimizers(weights, kind, 1e-3)

    def step(weights: dict[str, torch.Tensor], optimizers: list[Any]) -> None:
        for w in weights.values():
            w.grad = torch.cos(w.detach())
        for one in optimizers:
            one.step()

    weights, optimizers = fresh(0)
    step(weights, optimizers)
    save(tmp_path / "checkpoint.pt", weights, optimizers, Position(step=3, row=8))
    others, their = fresh(1)
    assert restore(tmp_path / "checkpoint.pt", others, their) == Position(step=3, row=8)
    step(weights, optimizers)
    step(others, their)
    assert all(torch.equal(w, others[name]) for name, w in weights.items())
