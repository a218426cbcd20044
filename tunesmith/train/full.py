"""Full fine-tuning: every weight of the model is what a job learns.

The weights are kept in fp32, in the optimizer's one vector. Where the plan computes in another type
the decoder reads copies of that type, made anew after every update. Gradients are added up in fp32,
in the optimizer's other vector, each as soon as it is complete: micro-batches add up without
rounding, and a second set of gradients is never alive. The head's is formed in loss.py, a chunk of
positions at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.errors import JobError
from tunesmith.group.world import ALONE, World
from tunesmith.jobdir.checkpoints import MASTERS_FILE, MODEL_DIR
from tunesmith.model.decoder import Decoder, Linears
from tunesmith.model.directory import TensorPlan, write_directory
from tunesmith.model.listing import write_listing
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.model.merge import merge, stored_tensors
from tunesmith.model.nf4 import Nf4Decoder
from tunesmith.model.shapes import EMBEDDING, HEAD
from tunesmith.train.optimizer import AdamW


class FullWeights:
    """All weights of a model, in training. `model` computes with them; `optimizer` moves them."""

    def __init__(self, start: Decoder, dtype: torch.dtype, world: World = ALONE) -> None:
        """`start` is in fp32 (in tests in float64); its weights are copied."""
        self.training = True
        self.masters = {name: weight.detach() for name, weight in start.weights.items()}
        self.optimizer = AdamW(list(self.masters.values()), world)
        weights: Mapping[str, Tensor] = self.masters
        if dtype != start.dtype:
            weights = self._copies(self.masters, self.optimizer.mirror(dtype))
        self.model = Decoder(start.config, weights)

    def parameters(self) -> list[Tensor]:
        return list(self.masters.values())

    def adapt(self, names: tuple[str, ...], x: Tensor, products: Linears) -> tuple[Tensor, ...]:
        """Nothing is beside the weights."""
        return products(names, x)

    def to(self, dtype: torch.dtype) -> FullWeights:
        """As an adapter is made ready for answering; the weights are."""
        return self

    @property
    def head_gradient(self) -> Tensor:
        """(V, E), fp32: where the gradient of the model's head adds up."""
        gradient = self.masters[EMBEDDING if self.model.config.tie_embeddings else HEAD].grad
        assert gradient is not None, "the optimizer gives every weight its part of one vector"
        return gradient

    def whole(self) -> Mapping[str, Tensor]:
        """The fp32 weights, in the first process; all have to ask."""
        return self.masters

    def save(
        self, directory: Path, base: Path, stop_ids: Iterable[int], whole: Mapping[str, Tensor]
    ) -> None:
        """Writes the model as it is served, of the kind and types of `base`, into a directory of
        its own, and the fp32 weights where those types lose some of them."""
        stored = stored_tensors(base)
        plans = {
            name: TensorPlan(
                stored[name].num_bytes, partial(weight.detach().to, "cpu", stored[name].dtype)
            )
            for name, weight in whole.items()
        }
        model = directory / MODEL_DIR
        model.mkdir()
        dtype = stored[next(iter(whole))].dtype
        write_directory(base, model, plans, dtype, stop_ids)
        write_listing(model)
        if any(stored[name].dtype != torch.float32 for name in whole):
            wide = {name: weight.detach().cpu() for name, weight in whole.items()}
            save_file(wide, directory / MASTERS_FILE)

    def _copies(self, masters: Mapping[str, Tensor], narrow: Tensor) -> dict[str, Tensor]:
        """Weights as parts of one vector of another type, each a leaf of the graph."""
        copies: dict[str, Tensor] = {}
        for (name, master), span in zip(masters.items(), self.optimizer.spans, strict=True):
            copy = narrow[span].view(master.shape).detach().requires_grad_()
            copy.register_post_accumulate_grad_hook(_into(master))  # type: ignore[no-untyped-call]
            copies[name] = copy
        return copies


def _into(master: Tensor) -> Callable[[Tensor], None]:
    """Moves a copy's gradient to the master's, in fp32."""

    def move(copy: Tensor) -> None:
        assert copy.grad is not None and master.grad is not None
        master.grad.add_(copy.grad)
        copy.grad = None

    return move


def fresh(base: Path, dtype: torch.dtype | None, device: str, adapter: Path | None) -> Decoder:
    """The weights of a base, with an adapter's update in them where the job continues one; without
    a type they are as stored, where nothing is added to them.

    Raises JobError for a base in NF4, and for a family without a decoder of ours.
    """
    start = load_model(base, dtype=torch.float32 if adapter else dtype, device=device)
    if not isinstance(start, Decoder):
        raise JobError(
            "All weights can be trained only of a family that has a decoder here, and this base "
            "runs through transformers. Use the finetuning_type 'lora', or another base.",
            code="full_needs_decoder",
            param="hyperparameters.finetuning_type",
        )
    if isinstance(start, Nf4Decoder):
        raise JobError(
            "All weights cannot be trained of a base in NF4: its linears are frozen in four bits. "
            "Use the finetuning_type 'lora', or the base that it was made from.",
            code="full_of_quantised",
            param="hyperparameters.finetuning_type",
        )
    if adapter is not None:
        update = Adapter.load(
            adapter, start.linears, untrained_ok=True, device=device, weights=start.weights
        )
        merged = merge(start, update)
        assert isinstance(merged, Decoder), "a decoder merged is a decoder"
        start = merged
    return start


def resumed(checkpoint: Path, dtype: torch.dtype | None, device: str) -> Decoder:
    """The weights of a verified checkpoint, bit for bit as they were."""
    start = load_model(checkpoint / MODEL_DIR, dtype=dtype, device=device)
    assert isinstance(start, Decoder), "fresh() refuses the others"
    masters = checkpoint / MASTERS_FILE
    if masters.exists():
        wide = load_file(masters, device=device)
        # In the model's order: it is that of the optimizer's vectors.
        start = Decoder(start.config, {name: wide[name] for name in start.weights})
    return start


def check_disk(where: Path, base: Path, num_kept: int) -> None:
    """Before anything is trained. Raises JobError where the checkpoints would not fit.

    Beside the kept models there are twice the fp32 weights and moments: the newest checkpoint's,
    and those of the one being written.
    """
    tensors = stored_tensors(base).values()
    num_parameters = sum(tensor.num_elements for tensor in tensors)
    num_model_bytes = sum(tensor.num_bytes for tensor in tensors)
    needed = (num_kept + 1) * num_model_bytes + 2 * 12 * num_parameters
    free = shutil.disk_usage(where).free
    if needed > free:
        raise JobError(
            f"Training all {num_parameters:,} weights needs {needed / 1e9:.1f} GB of disk for its "
            f"checkpoints ({num_kept} kept), and {where} has {free / 1e9:.1f} GB left. Make room, "
            "move the data directory, or use the finetuning_type 'lora'.",
            code="not_enough_disk",
            param="hyperparameters.finetuning_type",
        )
