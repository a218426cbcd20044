"""Load: a model directory as something that can be trained and served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tunesmith.errors import BaseModelError
from tunesmith.model.attention import Attention
from tunesmith.model.decoder import Decoder, LowRankUpdate
from tunesmith.model.families import decoder_config
from tunesmith.model.fixed_decoder import FixedDecoder
from tunesmith.model.nf4 import Nf4Decoder, Nf4Weights
from tunesmith.model.transformers_path import TransformersModel
from tunesmith.model.weights import load_weights, stored_weights


class CausalModel(Protocol):
    """A frozen language model; `Decoder` for our families, `TransformersModel` for the others."""

    @property
    def slow(self) -> bool:
        """True where it runs through transformers: no `attention`, see TransformersModel."""
        ...

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """What LoRA adapts, in order: name -> (outputs, inputs)."""
        ...

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Every parameter of the base by name; not to be written to."""
        ...

    @property
    def head(self) -> Tensor:
        """(V, E): one row for each token, which scores it."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        ...

    @property
    def max_positions(self) -> int:
        """Longest sequence, prompt and answer together."""
        ...

    @property
    def num_bytes(self) -> int:
        """Memory of the weights, mapped pages included."""
        ...

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
        """Final hidden states (B, T, E); rows may be padded on the right. With `recompute` a layer
        keeps only its input for the backward pass; the slow path takes no notice. With `places_N`
        those of the one row that are wanted, (1, N, E)."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., E) -> (..., V)."""
        ...


def load_model(
    directory: Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    fixed: bool = False,
) -> CausalModel:
    """The model in `directory`, as `dtype` (None: as stored). Raises BaseModelError.

    Families of ours are memory-mapped and need no transformers. With `fixed` (of one of ours, not
    in NF4) linears and head multiply in fixed point, and the rest is of fp32 (`fixed_decoder.py`).
    """
    config = decoder_config(read_config(directory))
    if config is None:
        return TransformersModel.load(directory, dtype=dtype, device=device)
    if fixed:
        stored = stored_weights(directory, config)
        plain = {name: each for name, each in stored.items() if isinstance(each, Tensor)}
        assert len(plain) == len(stored), "asked for a base that is not in NF4"
        return FixedDecoder(config, plain)
    weights = load_weights(directory, config, dtype=dtype, device=device)
    if isinstance(weights, Nf4Weights):
        return Nf4Decoder(config, weights)
    return Decoder(config, weights)


def read_config(directory: Path) -> dict[str, Any]:
    """The directory's config.json. Raises BaseModelError."""
    try:
        config: Any = json.loads((directory / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"{directory} has no readable config.json ({error}). "
            "Give the directory that save_pretrained wrote."
        ) from error
    if not isinstance(config, dict):
        raise BaseModelError(f"{directory / 'config.json'} is not a JSON object.")
    return config
