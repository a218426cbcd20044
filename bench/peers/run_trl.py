"""TRL's SFTTrainer on the rows and the model of `bench/train.py`; prints one JSON line.

Run by the Python of TRL's own environment (see bench/README.md). The rows are token ids with
labels, so that every trainer learns exactly the same tokens; the adapter, where there is one, is
the file that ours starts from.
"""

from __future__ import annotations

import tempfile

import torch
from datasets import Dataset
from peft import PeftModel
from task import Clock, Clocked, peer_parser, read_rows
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer


class Trainer(Clocked, SFTTrainer):
    """In the order of the file."""

    num_tokens = 0

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, model, inputs, *args, **kwargs):
        mask = inputs.get("attention_mask")
        found = inputs["input_ids"].numel() if mask is None else int(mask.sum())
        self.num_tokens += found if self.clock.is_running else 0
        return super().training_step(model, inputs, *args, **kwargs)


def main() -> None:
    options = peer_parser("packing", "padding_free", "padding").parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
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
        train_dataset=Dataset.from_list(read_rows(options.rows)),
        processing_class=AutoTokenizer.from_pretrained(options.model),
    )
    trainer.clock = Clock()
    trainer.train()
    trainer.clock.stop()
    trainer.clock.report(trainer.num_tokens)


if __name__ == "__main__":
    main()
