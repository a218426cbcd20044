"""The slow path: any causal model that transformers loads, behind the decoder's interface.

Used for families without a decoder of ours. transformers is imported when the first such model
is loaded, never before. Code from a model's directory is never run and only safetensors are read.

LoRA is the same `Adapter` as elsewhere, added by a hook on each linear of the blocks. Two things
are proven at load, because a model that breaks them would train or answer silently wrong: no
weight was left at random, and our head gives the model's own logits.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.errors import BaseModelError
from tunesmith.model.attention import Attention
from tunesmith.model.decoder import LowRankUpdate

_INSTALL = (
    'this model family needs transformers. Install it with: pip install "tunesmith[transformers]"'
)
_FAMILY_CODE = "transformers.models."


class TransformersModel:
    """A model of transformers, frozen. Use from one thread: the adapter is set around a call."""

    slow = True

    def __init__(self, model: Any) -> None:
        self._model = model.eval().requires_grad_(False)
        body = model.base_model
        # Some families name a part of them as the base that only their larger kin has.
        self._body = getattr(model, "model", model) if body is model else body
        self._head = model.get_output_embeddings()
        self._config = model.config.get_text_config()
        self._lora: LowRankUpdate | None = None
        self.linears = {}
        self.transposed = False
        """Weights are kept as (inputs, outputs), as in GPT-2; PEFT's config must say so."""
        for name, module in self._block_linears():
            shape = tuple(module.weight.shape)
            if not isinstance(module, nn.Linear):
                shape, self.transposed = shape[::-1], True
            self.linears[name] = (int(shape[0]), int(shape[1]))
            module.register_forward_hook(self._hook(name))

    @classmethod
    def load(
        cls, directory: Path, *, dtype: torch.dtype | None = None, device: str = "cpu"
    ) -> TransformersModel:
        """Loads and proves the model; BaseModelError says what stands in the way."""
        try:
            transformers: Any = importlib.import_module("transformers")
        except ImportError as error:
            raise BaseModelError(f"{directory.name}: {_INSTALL}") from error
        transformers.utils.logging.disable_progress_bar()
        try:
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=dtype or "auto",
                attn_implementation=_attention(transformers, directory),
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises whatever its many loaders raise
            raise BaseModelError(
                f"transformers cannot load {directory.name}: {_first_line(error)}"
            ) from error
        lost = sorted({*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])})
        if lost:
            raise BaseModelError(
                f"The weights of {directory.name} lack {', '.join(lost[:3])} "
                f"({len(lost)} in all). Check that config.json belongs to these files."
            )
        result = cls(model.to(device))
        result._prove()
        return result

    @property
    def device(self) -> torch.device:
        return torch.device(self._model.device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._model.dtype
        return dtype

    @property
    def hidden_size(self) -> int:
        return int(self._head.weight.shape[1])

    @property
    def vocab_size(self) -> int:
        return int(self._head.weight.shape[0])

    @property
    def max_positions(self) -> int:
        positions = getattr(self._config, "max_position_embeddings", None)
        window = getattr(self._config, "sliding_window", None)
        return int(positions or window or 2048)

    @property
    def weights(self) -> dict[str, Tensor]:
        return dict(self._model.named_parameters())

    @property
    def head(self) -> Tensor:
        weight: Tensor = self._head.weight
        return weight

    @property
    def num_bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self._model.parameters())

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        attention: Attention | None = None,
        lora: LowRankUpdate | None = None,
        recompute: bool = False,
        places_N: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states (B, T, E) of whole rows, padded on the right; no `attention`."""
        if attention is not None:
            raise NotImplementedError("the slow path takes whole rows; decode with step()")
        extra = {} if positions_BT is None else {"position_ids": positions_BT}
        with self._adapted(lora):
            out = self._body(input_ids=ids_BT, use_cache=False, **extra)
        hidden: Tensor = out.last_hidden_state
        return hidden if places_N is None else hidden[:, places_N]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary, with the scaling or capping of the family."""
        logits: Tensor = self._head(hidden)
        config = self._config
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if scaling := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / scaling
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits

    def step(
        self, ids_1T: Tensor, past: Any = None, lora: LowRankUpdate | None = None
    ) -> tuple[Tensor, Any]:
        """One sequence, T positions on: hidden states (1, T, E) and what to pass as `past` next."""
        with torch.no_grad(), self._adapted(lora):
            out = self._body(input_ids=ids_1T, past_key_values=past, use_cache=True)
        return out.last_hidden_state, out.past_key_values

    def _block_linears(self) -> Iterator[tuple[str, Any]]:
        """Linears inside the numbered blocks: never the head, never an embedding, nor what a family
        makes of a linear (routers of experts): that gives more than a product."""
        from transformers.pytorch_utils import Conv1D

        for name, module in self._model.named_modules():
            numbered = any(part.isdigit() for part in name.split("."))
            is_linear = isinstance(module, (nn.Linear, Conv1D)) and module is not self._head
            if numbered and is_linear and not type(module).__module__.startswith(_FAMILY_CODE):
                yield name, module

    def _hook(self, name: str) -> Any:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if self._lora is None:
                return output
            return self._lora.adapt((name,), inputs[0], lambda *_: (output,))[0]

        return add

    @contextmanager
    def _adapted(self, lora: LowRankUpdate | None) -> Iterator[None]:
        self._lora = lora
        try:
            yield
        finally:
            self._lora = None

    def _prove(self) -> None:
        """Our head over `hidden` must give the model's own logits."""
        name = type(self._model).__name__
        if not self.linears:
            raise BaseModelError(f"{name} has no linear layers in its blocks to tune.")
        ids = torch.arange(8, device=self.device)[None] % self.vocab_size
        with torch.no_grad():
            expected = self._model(input_ids=ids, use_cache=False).logits.float()
            if not hasattr(self._body(input_ids=ids, use_cache=False), "last_hidden_state"):
                raise BaseModelError(
                    f"{name} is not supported: its hidden states cannot be read before its head."
                )
            found = self.logits(self.hidden(ids)).float()
        if not torch.allclose(found, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())):
            raise BaseModelError(f"{name} is not supported: its head is more than one product.")


def _attention(transformers: Any, directory: Path) -> str | None:
    """Attention that caps its scores (Gemma 2) exists only in the eager form."""
    config = transformers.AutoConfig.from_pretrained(
        directory, trust_remote_code=False, local_files_only=True
    )
    return "eager" if getattr(config, "attn_logit_softcapping", None) else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
