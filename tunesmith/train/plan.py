"""What a job decides once, at its first start: where and how it computes, how far and how fast.

The plan is written before the first step and obeyed by every resume, because number type, threads
and micro-batches all change the last bits of a result. It is shown to the user as an event.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from tunesmith.bases import BaseInfo
from tunesmith.data import estimate
from tunesmith.errors import JobError
from tunesmith.group.world import ALONE, World
from tunesmith.jobdir.layout import SCHEMA
from tunesmith.jobdir.spec import Spec
from tunesmith.model import learning, precision
from tunesmith.model.adapter_files import LoraSpec, continued
from tunesmith.model.load import read_config
from tunesmith.model.nf4_files import is_nf4
from tunesmith.train.attention import Kind
from tunesmith.train.batches import Corpus

# Positions of a micro-batch at most: beyond it nothing gets faster.
MAX_MICRO_TOKENS = {"cpu": 2048, "cuda": 16384}

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    """Of base and activations; the adapter and its optimizer are always fp32."""
    threads: int
    micro_tokens: int
    """Positions that run through the model at once."""
    base_fingerprint: str
    num_examples: int
    n_epochs: int
    batch_size: int
    total_steps: int
    learning_rate: float
    """The peak, after warm-up."""
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    lora_targets: str | list[str] = "all"
    lora_rslora: bool = False
    finetuning_type: estimate.FinetuningType = "lora"
    beta: float | None = None
    """Of preferences."""
    attention: Kind = "split"
    """How sequences in one row are kept apart; proven on the loaded model."""
    processes: int = 1
    """That train the job together, each with so many threads and rows of so many positions."""
    recompute: bool = False
    """Layers run twice and keep only their input: where memory would not hold the rest."""
    sharded: bool = False
    """The layers are spread over the processes: where the model does not fit beside each."""
    offload: bool = False
    """What is kept for the backward pass waits in the machine's memory, not the GPU's."""
    compiled: bool = False
    """What training in fp32 on a CPU computes beside its products is computed in C."""
    fixed: bool = False
    """Frozen weights are multiplied in fixed point of 16 bits."""
    schema: int = SCHEMA

    @property
    def torch_dtype(self) -> torch.dtype:
        return TYPES[self.dtype]

    @property
    def lora(self) -> LoraSpec:
        """The shape of a fresh adapter."""
        is_dora = self.finetuning_type == "dora"
        return LoraSpec(
            self.lora_rank, self.lora_alpha, self.lora_dropout, self.lora_rslora, is_dora
        )

    def text(self, num_trainable: int) -> str:
        """For the user."""
        where = "GPU" if self.device == "cuda" else f"CPU, {_count(self.threads, 'thread')}"
        if self.processes > 1:
            where = f"{self.processes} processes ({where} each)"
        kind = {"lora": "LoRA parameters", "dora": "DoRA parameters", "full": "weights"}
        shape = f"rank {self.lora_rank}, alpha {self.lora_alpha:g}"
        shape = "the whole model" if self.finetuning_type == "full" else shape
        on_pairs = "" if self.beta is None else f" on preferences (beta {self.beta:g})"
        dtype = f"{self.dtype}, frozen weights in 16-bit fixed point" if self.fixed else self.dtype
        return (
            f"Training {num_trainable:,} {kind[self.finetuning_type]} ({shape}){on_pairs} "
            f"in {dtype} on {where}: "
            f"{_count(self.n_epochs, 'epoch')}, batch size {self.batch_size}, "
            f"{_count(self.total_steps, 'step')}, learning rate {self.learning_rate:.2g}"
        )


def decide(spec: Spec, base: BaseInfo, corpus: Corpus, world: World = ALONE) -> Plan:
    """Resolves "auto" and looks at the machine."""
    requested = spec.hyperparameters
    if spec.start_adapter is not None:
        requested = continued(requested, spec.start_adapter)
    hyper = estimate.resolve(requested, corpus.num_rows, spec.method)
    device = pick_device(spec.device)
    threads = max(1, (spec.threads or len(os.sched_getaffinity(0))) // world.local_size)
    is_compiled = is_fixed = False
    if device == "cuda":
        dtype = precision.training_on_cuda()
    else:
        mean_tokens = corpus.num_tokens(range(corpus.num_rows)) // corpus.num_rows
        num_tokens = min(hyper.batch_size * mean_tokens // world.size, MAX_MICRO_TOKENS[device])
        size = num_tokens, base.hidden_size
        dtype, threads = precision.training_on_cpu(*size, threads)
        is_compiled = dtype == torch.float32 and learning.library() is not None
        # Full training changes the weights, and DoRA reads their lengths all the time.
        is_frozen = hyper.finetuning_type == "lora" and not base.slow
        is_plain = is_frozen and not is_nf4(read_config(base.path))
        is_fixed = is_compiled and is_plain and precision.multiplies_in_fixed_point(*size)
    chosen = asdict(hyper)
    multiplier = chosen.pop("learning_rate_multiplier")
    return Plan(
        device=device,
        dtype="bfloat16" if dtype == torch.bfloat16 else "float32",
        threads=threads,
        micro_tokens=MAX_MICRO_TOKENS[device],
        base_fingerprint=base.fingerprint,
        num_examples=corpus.num_rows,
        total_steps=estimate.num_steps(corpus.num_rows, hyper.n_epochs, hyper.batch_size),
        learning_rate=estimate.learning_rate(
            base.hidden_size, multiplier, spec.method, hyper.finetuning_type
        ),
        **chosen,
        processes=world.size,
        compiled=is_compiled,
        fixed=is_fixed,
    )


def pick_device(wanted: str) -> Literal["cpu", "cuda"]:
    """Raises JobError where a GPU is asked for and there is none."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise JobError(
            "The GPU asked for is not there. Check nvidia-smi and the installed build of torch, "
            "or set TUNESMITH_DEVICE=cpu.",
            code="device_unavailable",
        )
    return "cuda"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
