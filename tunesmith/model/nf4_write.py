"""A base in NF4 as a directory of its own, made from one in full.

It is a base like any other: its bytes are what a job trains against, what the engine serves and
what an export merges into, so that none of them can take other weights.
"""

from __future__ import annotations

import json
import math
import shutil
from functools import lru_cache, partial
from pathlib import Path

from torch import Tensor

from tunesmith.errors import BaseModelError
from tunesmith.model.directory import CONFIG, GENERATION_CONFIG, TensorPlan, copy_companions
from tunesmith.model.directory import write_weights as write
from tunesmith.model.families import decoder_config
from tunesmith.model.load import read_config
from tunesmith.model.nf4 import quantise
from tunesmith.model.nf4_files import ABSMAX, BLOCK, LEVEL_TABLE, SETTINGS, STATE, is_nf4
from tunesmith.model.shapes import linear_shapes
from tunesmith.model.weights import load_weights


def write_nf4(source: Path, target: Path) -> None:
    """Writes the base in `source` into `target`, replacing what is there, its linears in NF4.

    The same base gives the same bytes. Raises BaseModelError where it has no such form.
    """
    config = read_config(source)
    dimensions = decoder_config(config)
    if dimensions is None:
        raise BaseModelError(
            "NF4 needs a family with a decoder here, and this one runs through transformers. "
            "Add it without --quantize."
        )
    if is_nf4(config):
        raise BaseModelError("The weights are in NF4 already. Add them without --quantize.")
    linears = {f"{name}.weight": shape for name, shape in linear_shapes(dimensions).items()}
    for name, shape in linears.items():
        if math.prod(shape) % BLOCK:
            raise BaseModelError(
                f"{name} has {math.prod(shape)} elements, no multiple of {BLOCK}: NF4 has no form "
                "for it. Add the base without --quantize."
            )
    weights = load_weights(source, dimensions)

    @lru_cache(maxsize=1)
    def parts(name: str) -> dict[str, Tensor]:
        return quantise(weights[name]).stored(name)

    plans: dict[str, TensorPlan] = {}
    for name, weight in weights.items():
        if name in linears:
            num_elements = weight.numel()
            sizes = {"": num_elements // 2, ABSMAX: num_elements // BLOCK * 4}
            for part, size in (sizes | {LEVEL_TABLE: 64, STATE: 100}).items():
                make = partial(lambda name, part: parts(name)[name + part], name, part)
                plans[name + part] = TensorPlan(size, make)
        else:
            plans[name] = TensorPlan(weight.nbytes, partial(weight.clone))
    draft = target.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        content = json.dumps(config | {"quantization_config": SETTINGS}, indent=2)
        (draft / CONFIG).write_text(content + "\n", encoding="utf-8")
        if (source / GENERATION_CONFIG).is_file():
            shutil.copyfile(source / GENERATION_CONFIG, draft / GENERATION_CONFIG)
        copy_companions(source, draft)
        write(draft, plans)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
