"""Writes the shipped model folder from the newest checkpoint and checks that others can read it.

The checks are part of the export: transformers must load the folder, its fp32 logits must agree
with the project's decoder to 1e-4, and its chat template must render the text that pre-training
saw.  Re-runnable at any time, also while the run goes on (checkpoints are replaced atomically).

Left out: quantised formats and upload; the tokenizer files are written by `base.tokenizer`.

    python -m base.export
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from base.corpus import ASSETS, CACHE, HERE, render
from base.pretrain import NANO
from tunesmith.model.decoder import Decoder

#: <|end|> closes a turn, <|eos|> a document; generation stops at both.
STOP_IDS = [7, 2]

EXAMPLE: list[dict[str, Any]] = [
    {"role": "system", "content": "You can use tools."},
    {"role": "user", "content": "What is 'the weather' in <Paris> & Zuerich?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "type": "function",
                "function": {"name": "get_weather", "arguments": {"city": "Paris"}},
            },
            {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Z"}'}},
        ],
    },
    {"role": "tool", "content": '{"sky": "clear"}'},
    {"role": "assistant", "content": "It is clear."},
    {"role": "system", "content": "Be brief."},
]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def config() -> dict[str, Any]:
    """Rope and dtype stand twice: once for transformers 4, once for transformers 5."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": NANO.vocab_size,
        "hidden_size": NANO.hidden_size,
        "intermediate_size": NANO.intermediate_size,
        "num_hidden_layers": NANO.num_layers,
        "num_attention_heads": NANO.num_heads,
        "num_key_value_heads": NANO.num_kv_heads,
        "head_dim": NANO.head_dim,
        "max_position_embeddings": NANO.max_positions,
        "rms_norm_eps": NANO.norm_eps,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": NANO.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": STOP_IDS,
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
        "use_cache": True,
    }


def write(checkpoint: Path, folder: Path) -> int:
    """Writes weights, configs and card; returns the step of the checkpoint."""
    state = torch.load(checkpoint, weights_only=True)
    weights = {name: w.to(torch.bfloat16).contiguous() for name, w in state["weights"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.safetensors.partial"
    save_file(weights, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.rename(folder / "model.safetensors")
    generation = {"bos_token_id": 1, "eos_token_id": STOP_IDS, "pad_token_id": 0}
    for name, content in (("config", config()), ("generation_config", generation)):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(HERE / "CARD.md", folder / "README.md")
    return int(state["position"]["step"])


def check(folder: Path) -> float:
    """The largest difference of fp32 logits between transformers and the project's decoder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = tokenizer.apply_chat_template(EXAMPLE, tools=TOOLS, tokenize=False)
    if theirs != render(EXAMPLE, TOOLS):
        raise SystemExit(f"the chat template renders another text: {theirs!r}")
    if tokenizer.decode(tokenizer.encode(theirs, add_special_tokens=False)) != theirs:
        raise SystemExit("the tokenizer does not give the text back")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = {name: w.float() for name, w in load_file(folder / "model.safetensors").items()}
    ids = torch.tensor([tokenizer.encode(theirs, add_special_tokens=False)])
    decoder = Decoder(NANO, weights)
    with torch.no_grad():
        gap = float((model(ids).logits - decoder.logits(decoder.hidden(ids))).abs().max())
    if gap > 1e-4:
        raise SystemExit(f"logits differ by {gap:.2e}")
    return gap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--checkpoint", type=Path, default=CACHE / "run" / "checkpoint.pt")
    parser.add_argument("--to", type=Path, default=ASSETS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    step = write(args.checkpoint, args.to)
    size = (args.to / "model.safetensors").stat().st_size
    print(f"step {step}, {size:,} bytes, logits agree to {check(args.to):.1e}")


if __name__ == "__main__":
    main()
