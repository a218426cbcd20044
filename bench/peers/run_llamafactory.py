"""LLaMA-Factory's trainer on the rows and the model of `bench/train.py`; prints one JSON line.

Run by the Python of its own environment (see bench/README.md). Its processor, collator, model
loader and trainer are used as its command line uses them; the rows alone are taken from
the file of token ids, so that every trainer learns exactly the same tokens.
"""
# ruff: noqa: E402 (one of its imports has to be prepared)

from __future__ import annotations

import argparse
import importlib.machinery
import sys
import tempfile
import types

import torch
from datasets import Dataset
from task import WARM_UP, Clock, Clocked, peer_parser, read_rows

# It reads sound with this, which no text needs and which has no build beside torch's for CPUs.
sys.modules["torchaudio"] = types.ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
from llamafactory.data import SFTDataCollatorWith4DAttentionMask, get_template_and_fix_tokenizer
from llamafactory.data.processor import PackedSupervisedDatasetProcessor
from llamafactory.hparams import get_train_args
from llamafactory.model import load_model, load_tokenizer
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer


class Packed(PackedSupervisedDatasetProcessor):
    """Rows that are encoded already."""

    def _encode_data_example(self, prompt, response, system, tools, images, videos, audios):
        return response[0]["input_ids"], response[0]["labels"]


class Trainer(Clocked, CustomSeq2SeqTrainer):
    """Theirs, under a clock."""


def main() -> None:
    options = peer_parser("neat_packing", "padding").parse_args()
    torch.set_num_threads(options.threads)
    is_packed = options.arrangement == "neat_packing"
    model_args, data_args, training_args, finetuning_args, generating_args = get_train_args(
        settings(options, is_packed)
    )
    # What is asked for above all: the parser sets the number of threads to its own liking.
    torch.set_num_threads(options.threads)
    parts = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(parts["tokenizer"], data_args)
    rows = read_rows(options.rows)
    columns = plain(rows)
    if is_packed:
        columns = packed(rows, Packed(template=template, data_args=data_args, **parts))
    model = load_model(parts["tokenizer"], model_args, finetuning_args, is_trainable=True)
    collator = SFTDataCollatorWith4DAttentionMask(
        template=template,
        model=model,
        pad_to_multiple_of=8,
        block_diag_attn=model_args.block_diag_attn,
        neat_packing=data_args.neat_packing,
        attn_implementation=model.config._attn_implementation,
        compute_dtype=model_args.compute_dtype,
        **parts,
    )
    trainer = Trainer(
        model=model,
        args=training_args,
        finetuning_args=finetuning_args,
        data_collator=collator,
        gen_kwargs=generating_args.to_dict(),
        train_dataset=Dataset.from_dict(columns),
        **parts,
    )
    trainer.clock = Clock()
    trainer.train()
    trainer.clock.stop()
    size = training_args.per_device_train_batch_size
    seen = range(WARM_UP * size, len(trainer.clock.losses) * size)
    masks = columns["attention_mask"]
    trainer.clock.report(sum(sum(each > 0 for each in masks[row % len(masks)]) for row in seen))


def settings(options: argparse.Namespace, is_packed: bool) -> dict:
    found = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(options.model),
        "finetuning_type": "lora" if options.adapter else "full",
        "template": "empty",
        "dataset": "rows",
        "dataset_dir": str(options.rows.parent),
        "cutoff_len": options.packed_tokens if is_packed else 1 << 16,
        "packing": is_packed,
        "neat_packing": is_packed,
        "flash_attn": "sdpa",
        "disable_gradient_checkpointing": True,
        "disable_shuffling": True,
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": 1 if is_packed else options.batch,
        "max_steps": options.steps,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": options.dtype == "bfloat16",
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "optim": "adamw_torch_fused",
        "remove_unused_columns": False,
    }
    if options.adapter:
        found |= {"adapter_name_or_path": str(options.adapter), "create_new_adapter": False}
    return found


def plain(rows: list[dict]) -> dict[str, list]:
    masks = [[1] * len(row["input_ids"]) for row in rows]
    ids, labels = ([row[name] for row in rows] for name in ("input_ids", "labels"))
    return {"input_ids": ids, "labels": labels, "attention_mask": masks}


def packed(rows: list[dict], processor: Packed) -> dict[str, list]:
    nothing: list = [None] * len(rows)
    empty = dict.fromkeys(("_system", "_tools", "_images", "_videos", "_audios"), nothing)
    examples = {"_prompt": [[None]] * len(rows), "_response": [[row] for row in rows], **empty}
    found = processor.preprocess_dataset(examples)
    return {name: found[name] for name in ("input_ids", "labels", "attention_mask", "position_ids")}


if __name__ == "__main__":
    main()
