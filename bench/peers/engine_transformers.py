"""transformers' own generation as an engine that takes turns (`bench/engine_peers.py`).

Run by the Python of its own environment. `continuous` is `generate_batch`, with a cache of the size
that is needed (without it, one is made of most of the memory at each call); `generate` is a batch
with a dynamic cache; `peft` the same with a different adapter for each row, by `adapter_names`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
from transformers.utils import logging
from turns import take_turns

PAGE = 256


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adapters", type=Path, nargs="*", default=[])
    parser.add_argument("--way", choices=("continuous", "generate", "peft"), required=True)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    dtype = getattr(torch, options.dtype)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).eval()
    if options.way == "continuous":
        take_turns(lambda prompts, num_tokens, _: continuous(model, prompts, num_tokens))
        return
    names = []
    if options.way == "peft":
        model, names = with_adapters(model, options.adapters)
    take_turns(lambda *given: batch(model, names, *given))


def continuous(model, prompts, num_tokens):
    config = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=len(prompts) * (1 + (len(prompts[0]) + num_tokens) // PAGE),
        max_batch_tokens=max(512, len(prompts)),
        max_requests_per_batch=len(prompts),
    )
    given = [list(ids) for ids in prompts]
    found = model.generate_batch(
        inputs=given,
        generation_config=greedy(num_tokens, eos_token_id=-1),
        continuous_batching_config=config,
        progress_bar=False,
    )
    by_prompt = {tuple(each.prompt_ids): each.generated_tokens for each in found.values()}
    return [by_prompt[tuple(ids)] for ids in given]


@torch.inference_mode()
def batch(model, names, prompts, num_tokens, num_adapters):
    ids_BT = torch.tensor(prompts)
    more = {}
    if names:
        used = names[:num_adapters] or ["__base__"]
        more["adapter_names"] = [used[place % len(used)] for place in range(len(prompts))]
    found_BT = model.generate(
        input_ids=ids_BT,
        attention_mask=torch.ones_like(ids_BT),
        generation_config=greedy(num_tokens, eos_token_id=None),
        **more,
    )
    return found_BT[:, ids_BT.shape[1] :].tolist()


def greedy(num_tokens, eos_token_id):
    return GenerationConfig(
        max_new_tokens=num_tokens, do_sample=False, eos_token_id=eos_token_id, pad_token_id=0
    )


def with_adapters(model, directories):
    from peft import PeftModel

    names = [f"adapter{place}" for place in range(len(directories))]
    model = PeftModel.from_pretrained(model, directories[0], adapter_name=names[0])
    for name, directory in zip(names[1:], directories[1:], strict=True):
        model.load_adapter(directory, adapter_name=name)
    return model.eval(), names


if __name__ == "__main__":
    main()
