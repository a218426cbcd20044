"""How a directory says that its linears are kept in NF4: as bitsandbytes does. Without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

BLOCK = 64
# What is stored beside a quantised matrix, by what follows its name.
ABSMAX, LEVEL_TABLE = ".absmax", ".quant_map"
STATE = ".quant_state.bitsandbytes__nf4"

SETTINGS = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "load_in_8bit": False,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": False,
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_quant_storage": "uint8",
}
# Of these, what decides about the values.
DECISIVE = ("quant_method", "load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")


def is_nf4(config: Mapping[str, Any]) -> bool:
    """Whether this config.json is of a base in NF4, as it is written here."""
    found = config.get("quantization_config")
    return isinstance(found, dict) and all(found.get(key) == SETTINGS[key] for key in DECISIVE)


def is_quantised_otherwise(config: Mapping[str, Any]) -> bool:
    return bool(config.get("quantization_config")) and not is_nf4(config)


def num_parameters(header: Mapping[str, Mapping[str, Any]]) -> int:
    """Of the tensors in the header of one safetensors file."""
    beside = (ABSMAX, LEVEL_TABLE, STATE)
    return sum(
        math.prod(tensor["shape"]) * (2 if tensor["dtype"] == "U8" else 1)
        for name, tensor in header.items()
        if not name.endswith(beside)
    )
