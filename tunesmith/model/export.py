"""Export: a tuned model as files that others read, and the proof that they are the same model.

Three forms of the model answer the same rows: the base with its adapter beside it, the two merged
in fp32, and what is read back from the files. The differences are written beside the files; an
export that differs by more than rounding is an error.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tunesmith.data.render import Example, Renderer
from tunesmith.errors import ExportError
from tunesmith.model.adapter_files import FILES as ADAPTER_FILES
from tunesmith.model.compare import Difference, LlamaCpp, has_llama_cpp, log_probs
from tunesmith.model.directory import TensorPlan, write_directory
from tunesmith.model.gguf_file import context_length, write_gguf
from tunesmith.model.load import CausalModel, load_model, read_config
from tunesmith.model.lora import Adapter
from tunesmith.model.merge import MergedWeights, merge
from tunesmith.model.probe import MAX_FP32_PARAMETERS

COMPARISON = "comparison.json"
FORMATS = ("adapter", "merged", "gguf")
GGUF_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "q8_0": "q8_0"}
NOT_VERIFIED = (
    "not verified: llama-cpp-python is not installed here, so nothing has run this GGUF file"
)
# Mean difference in nats that rounding explains, by the type the matrices are kept in.
LIMITS = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.05, "q8_0": 0.1}
# And the largest one of a single token, relative to that.
LARGEST = 30.0

# Log-probabilities read back from the files (None: nothing here can), and what to know of it.
Outcome = tuple[list[Tensor] | None, str]


@dataclass(frozen=True)
class Tuned:
    """A model to export."""

    name: str
    base: Path
    """Its own directory where all weights were trained."""
    adapter: Path | None
    rows: Sequence[Example]
    rows_from: str
    """Where the rows come from, in words."""
    texts: Sequence[str]
    """For comparing tokenizers."""


@dataclass(frozen=True)
class Comparison:
    """What comparison.json says."""

    model: str
    format: str
    rows: str
    num_rows: int
    num_tokens: int
    compute_dtype: str
    """That the forms were compared in."""
    stored_dtype: str
    merged: Difference | None
    """Merged and not yet rounded, against the base with its adapter; None: there is no adapter."""
    exported: Difference | None
    """The files, against the base with its adapter; None: nothing here can run them."""
    limit: float
    """Of `exported.mean`; of a single token LARGEST times that."""
    note: str = ""


def export(tuned: Tuned, format: str, target: Path, *, gguf_type: str = "f16") -> Comparison:
    """Writes the model into `target`, which must not exist yet, with its comparison.

    Raises ExportError where the files differ from the model that was trained, BaseModelError or
    AdapterError where the form does not fit it. Nothing is left behind then.
    """
    if target.exists():
        raise ExportError(f"{target} exists already. Name a directory that does not.")
    if format == "adapter" and tuned.adapter is None:
        raise ExportError(
            f"All weights of {tuned.name} were trained, so it has no adapter. Export it with "
            "--format merged or --format gguf."
        )
    draft = target.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        comparison = _Export(tuned, draft, gguf_type).run(format)
        text = json.dumps(asdict(comparison), indent=2, ensure_ascii=False) + "\n"
        (draft / COMPARISON).write_text(text, encoding="utf-8")
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return comparison


class _Export:
    """One export on its way, in a directory of its own."""

    def __init__(self, tuned: Tuned, draft: Path, gguf_type: str) -> None:
        self._tuned = tuned
        self._draft = draft
        self._gguf_type = gguf_type
        self._renderer = Renderer.load(tuned.base)
        model = load_model(tuned.base)
        self._adapter = None if tuned.adapter is None else _adapter(tuned.adapter, model)
        transposed = getattr(model, "transposed", False)
        self._weights = MergedWeights(tuned.base, self._adapter, transposed=transposed)
        size = sum(tensor.num_elements for tensor in self._weights.tensors.values())
        self._stored = model.dtype
        self._dtype = torch.float32 if size <= MAX_FP32_PARAMETERS else model.dtype

    def run(self, format: str) -> Comparison:
        if format == "gguf":
            self._leave_out_long_rows()
        model = self._load()
        # Read anew: DoRA measures the weights that it stands beside, in the type they have there.
        beside = None if self._tuned.adapter is None else _adapter(self._tuned.adapter, model)
        expected = log_probs(model, self._tuned.rows, beside)
        del model, beside
        merged = None
        if self._adapter is not None:
            together = log_probs(merge(self._load(), self._adapter), self._tuned.rows)
            merged = Difference.between(together, expected)
        kind = GGUF_NAMES[self._gguf_type] if format == "gguf" else _name(self._stored)
        write = {"adapter": self._adapter_files, "merged": self._merged, "gguf": self._gguf}
        read_back, note = write[format]()
        comparison = Comparison(
            model=self._tuned.name,
            format=format,
            rows=self._tuned.rows_from,
            num_rows=len(self._tuned.rows),
            num_tokens=sum(len(each) for each in expected),
            compute_dtype=_name(self._dtype),
            stored_dtype=kind,
            merged=merged,
            exported=None if read_back is None else Difference.between(read_back, expected),
            limit=LIMITS["float32" if format == "adapter" else kind],
            note=note,
        )
        check(comparison)
        return comparison

    def _leave_out_long_rows(self) -> None:
        limit = context_length(read_config(self._tuned.base))
        rows = [row for row in self._tuned.rows if len(row.ids) <= limit]
        if not rows:
            raise ExportError(
                f"Every row is longer than the {limit} tokens that llama.cpp computes of this "
                "model as it was trained. Give shorter ones with --rows FILE."
            )
        self._tuned = replace(self._tuned, rows=rows)

    def _load(self, directory: Path | None = None) -> CausalModel:
        return load_model(directory or self._tuned.base, dtype=self._dtype)

    def _adapter_files(self) -> Outcome:
        assert self._tuned.adapter is not None, "a full model is refused before"
        for name in ADAPTER_FILES:
            shutil.copyfile(self._tuned.adapter / name, self._draft / name)
        model = self._load()
        return log_probs(model, self._tuned.rows, _adapter(self._draft, model)), ""

    def _merged(self) -> Outcome:
        plans = {
            name: TensorPlan(tensor.num_bytes, partial(self._weights.get, name))
            for name, tensor in self._weights.tensors.items()
        }
        stop_ids = self._renderer.stop_ids
        write_directory(self._tuned.base, self._draft, plans, self._stored, stop_ids)
        return log_probs(self._load(self._draft), self._tuned.rows), ""

    def _gguf(self) -> Outcome:
        path = self._draft / f"model-{self._gguf_type}.gguf"
        rows, texts = self._tuned.rows, self._tuned.texts
        # The rows end with the token that ends an answer.
        stop_id, name = rows[0].ids[-1], self._tuned.name
        write_gguf(
            path, self._tuned.base, self._weights, self._gguf_type, name=name, stop_id=stop_id
        )
        if not has_llama_cpp():
            return None, NOT_VERIFIED
        engine = LlamaCpp(path, max(len(row.ids) for row in rows))
        tokenizer = self._renderer.tokenizer
        same = engine.reads_alike(
            texts, lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)
        )
        note = f"llama.cpp reads {same} of {len(texts)} texts as the same ids"
        return engine.log_probs(rows), note


def check(comparison: Comparison) -> None:
    """Raises ExportError where a form differs from the trained model by more than rounding."""
    limits = {"merged": LIMITS[comparison.compute_dtype], "exported": comparison.limit}
    for form, limit in limits.items():
        found: Difference | None = getattr(comparison, form)
        if found is not None and not (found.mean <= limit and found.largest <= LARGEST * limit):
            raise ExportError(
                f"The {form} model is not the one that was trained: its log-probabilities differ "
                f"by {found.mean:.4f} nats on average (at most {limit:g} is rounding) and by "
                f"{found.largest:.4f} at worst (at most {LARGEST * limit:g}). Nothing was written. "
                "Export with another --format or --type, and please report this."
            )


def _adapter(directory: Path, model: CausalModel) -> Adapter:
    return Adapter.load(directory, model.linears, weights=model.weights)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
