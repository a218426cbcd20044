"""TRL's SFTTrainer on the rows and the model of `bench/train.py`; prints one JSON line.

Run by the Python of TRL's own environment (see bench/README.md). The rows are token ids with
labels, so that every trainer learns exactly the same tokens; the adapter, where there is one, is
the file that ours starts from.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

WARM_UP = 2


class Trainer(SFTTrainer):
    """In the order of the file, with a clock: the first steps warm up."""

    step = 0
    num_tokens = 0
    loss: list[float]
    wall_s = cpu_s = 0.0

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, model, inputs, *args, **kwargs):
        if self.step == WARM_UP:
            self.wall_s, self.cpu_s = -time.perf_counter(), -time.process_time()
        mask = inputs.get("attention_mask")
        found = inputs["input_ids"].numel() if mask is None else int(mask.sum())
        value = super().training_step(model, inputs, *args, **kwargs)
        self.loss = [*getattr(self, "loss", []), float(value)]
        self.num_tokens += found if self.step >= WARM_UP else 0
        self.step += 1
        return value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, help="LoRA from here; without it, full fine-tuning")
    parser.add_argument("--arrangement", choices=("packing", "padding_free", "padding"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--packed-tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    narrow = options.dtype == "bfloat16"
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    if options.adapter:
        model = PeftModel.from_pretrained(model, options.adapter, is_trainable=True)
    packing = options.arrangement == "packing"
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=1 if packing else options.batch,
        packing=packing,
        padding_free=options.arrangement != "padding",
        max_length=options.packed_tokens if packing else None,
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=narrow,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_num_workers=0,
        optim="adamw_torch_fused",
    )
    trainer = Trainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(options.model),
    )
    trainer.train()
    wall_s, cpu_s = trainer.wall_s + time.perf_counter(), trainer.cpu_s + time.process_time()
    report = {
        "tokens": trainer.num_tokens,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": trainer.loss,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
