"""A base model small enough to be made in a test: random weights in Hugging Face's layout."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tunesmith.model.families import DecoderConfig
from tunesmith.model.fresh import init_weights

NANO = Path(__file__).parent.parent / "tunesmith" / "assets" / "nano"
SPECIAL = [
    *("<|pad|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"),
    *("<|tool|>", "<|end|>", "<|tools|>", "<|tool_call|>"),
]
TINY = DecoderConfig(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_positions=2048,
)
# vLLM has no attention for smaller heads on a CPU.
WIDE = replace(TINY, hidden_size=128, head_dim=32)


@cache
def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE with the embedded base's special tokens; any text survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = "the quick brown fox jumps over the lazy dog and then some more words follow it"
    tokenizer.train_from_iterator(
        [text] * 20,
        trainers.BpeTrainer(
            vocab_size=TINY.vocab_size,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def write_tiny_base(directory: Path, *, seed: int = 0, shape: DecoderConfig = TINY) -> Path:
    """Writes config, weights (seeded, fp32), tokenizer and chat template; returns `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.max_positions,
        "hidden_act": "silu",
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": SPECIAL.index("<|bos|>"),
        "eos_token_id": [SPECIAL.index("<|end|>"), SPECIAL.index("<|eos|>")],
        "pad_token_id": SPECIAL.index("<|pad|>"),
        "torch_dtype": "float32",
    }
    named = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
    for name, content in (("config", config), ("tokenizer_config", tokenizer_config)):
        (directory / f"{name}.json").write_text(json.dumps(content, indent=2))
    (directory / "generation_config.json").write_text(
        json.dumps({"eos_token_id": config["eos_token_id"]})
    )
    tiny_tokenizer().save(str(directory / "tokenizer.json"))
    shutil.copy(NANO / "chat_template.jinja", directory / "chat_template.jinja")
    # Larger than a real start, so that greedy answers vary instead of repeating one token.
    weights = {
        name: tensor if name.endswith("norm.weight") else tensor * 10
        for name, tensor in init_weights(shape, seed).items()
    }
    save_file(weights, str(directory / "model.safetensors"), metadata={"format": "pt"})
    return directory


def tiny_prompt(text: str) -> list[int]:
    """The ids of a one-message conversation, up to where the assistant begins."""
    special = {token: SPECIAL.index(token) for token in SPECIAL}
    body = tiny_tokenizer().encode(text).ids
    return [
        special["<|bos|>"],
        special["<|user|>"],
        *body,
        special["<|end|>"],
        special["<|assistant|>"],
    ]
